"""Whole Keras networks: built, quantized, bundled, run; every byte as TensorFlow Lite Micro computes it.

Some by default; all, in int8 and 16x8, by gcc and clang on the host, on a Cortex-M4 and on a Cortex-M55, if slow.
The oracle is the tflite-micro wheel on the whole network. Where the wheel lacks an operator, the network goes through
it operator by operator, and those in `BY_LITERT` through LiteRT's kernels.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import keras_networks
import numpy as np
import pytest
from bundles import Wheel, build
from keras_networks import NETWORKS

from edgeq.boards import load_board
from edgeq.codegen import emit, plan, write_bundle
from edgeq.graph import Graph, Operator, TensorType, read, write_bytes
from edgeq.interpreter import for_measuring

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import counter

pytestmark = pytest.mark.tensorflow
SCHEMES = ("int8", "int16x8")
FAST = {
    "int8": (
        "residual", "inverted_residual", "squeeze_excite", "hard_swish_and_squeeze", "dilated", "unet",
        "temporal_convolutions", "gru_sequences", "transformer_block", "two_inputs", "reductions", "vision_transformer",
    ),
    "int16x8": ("residual", "lstm_stacked", "unet"),
}  # fmt: skip
EVERY = [(name, scheme) for scheme in SCHEMES for name in NETWORKS]
CASES = [pytest.param(name, scheme, marks=() if name in FAST[scheme] else pytest.mark.slow) for name, scheme in EVERY]
BOARDS = ("qemu-mps2-an386", "qemu-mps3-an547")
NOT_CONVERTIBLE = {
    "small_language_model": "integer inputs in 16x8",
    "rectifying_activations": "PRELU, NEG and GREATER in 16x8",
    "saturating_activations": "DIV in 16x8",
}
"""What the converter refuses in 16x8, and why; a network that is not refused any more is tested like all others."""
FLOAT_INSIDE = {
    "group_normalization", "layer_normalization", "rms_normalization", "transformer_block", "unit_normalization",
    "rectifying_activations", "exponential_activations",
}  # fmt: skip
"""int8 networks in which the converter may leave operators in float; all others are integer from end to end."""
BY_LITERT = {
    "int8": {"ELU", "EXP", "GELU", "LOG", "SELECT", "SELECT_V2", "TILE"},
    "int16x8": {"BATCH_TO_SPACE_ND", "GATHER", "REDUCE_MAX", "REDUCE_MIN", "SPACE_TO_BATCH_ND", "TILE"},
}
"""Operators that the wheel lacks in these types."""
ROUNDED = {"int8": set[str](), "int16x8": {"EXP", "GELU", "LOG", "RESIZE_BILINEAR"}}
"""Operators that the wheel lacks, and LiteRT's kernels round otherwise than exactly: here by their own bundle alone,
which tests/unit/codegen holds against exact arithmetic."""
WRONG_IN_WHEEL = {"RELU6"}
"""Standalone, the wheel clamps but does not requantize."""
KINDS = range(6)


def values(graph: Graph, kind: int) -> list[np.ndarray]:
    """Inputs: 0 lowest, 1 highest, 2 noise over the whole range, else what calibrated; token ids are always noise."""
    random = np.random.default_rng(kind)
    made = []
    for tensor in (graph.tensors[i] for i in graph.inputs):
        if tensor.type is TensorType.INT32:
            made.append(random.integers(0, keras_networks.TOKENS, tensor.shape).astype(np.int32))
            continue
        limits = np.iinfo(tensor.type.dtype)
        if kind < 2:
            value = np.full(tensor.shape, (limits.min, limits.max)[kind])
        elif kind == 2:
            value = random.integers(limits.min, limits.max, tensor.shape, endpoint=True)
        else:
            value = np.round(random.normal(size=tensor.shape) / tensor.scale) + tensor.zero_point
        made.append(np.clip(value, limits.min, limits.max).astype(tensor.type.dtype))
    return made


def alone(graph: Graph, operator: Operator) -> Graph:
    """The graph of one operator."""
    given = dict.fromkeys(i for i in operator.inputs if i >= 0 and not graph.tensors[i].is_constant)
    one = replace(operator, index=0)
    return replace(
        graph, operators=(one,), inputs=tuple(given), outputs=tuple(operator.outputs), subgraphs=(), signatures=()
    )


def by_wheel(graph: Graph, vectors: Sequence[Sequence[np.ndarray]]) -> list[list[np.ndarray]] | None:
    """The outputs for every vector; None where the wheel lacks an operator or is wrong about one."""
    if any(operator.name in WRONG_IN_WHEEL for operator in graph.operators):
        return None
    try:
        wheel = Wheel(write_bytes(graph))
        return [[a.copy() for a in wheel.run(list(v), len(graph.outputs))] for v in vectors]
    except RuntimeError:
        return None


def oracle(
    graph: Graph, vectors: Sequence[Sequence[np.ndarray]], scheme: str
) -> tuple[list[list[np.ndarray]], set[str]]:
    """The outputs for every vector, and the operators that LiteRT computed."""
    whole = by_wheel(graph, vectors)
    if whole is not None:
        return whole, set()
    known = [dict(zip(graph.inputs, vector, strict=True)) for vector in vectors]
    by_litert = set()
    for operator in graph.operators:
        part = alone(graph, operator)
        given = [[tensors[i] for i in part.inputs] for tensors in known]
        results = by_wheel(part, given)
        if results is None and operator.name in ROUNDED[scheme]:
            with TemporaryDirectory() as place:
                bundle = build(part, Path(place))
                results = [bundle.run(v) for v in given]
        elif results is None:
            litert = for_measuring(write_bytes(part))
            results = [litert.run(v) for v in given]
            by_litert.add(operator.name)
        for tensors, arrays in zip(known, results, strict=True):
            for index, array in zip(part.outputs, arrays, strict=True):
                tensors[index] = np.asarray(array).reshape(graph.tensors[index].shape)
    return [[tensors[i] for i in graph.outputs] for tensors in known], by_litert


class Converted:
    """The networks that this session tests, converted when the first of a scheme is asked for, all in one process."""

    def __init__(self, wanted: dict[str, list[str]], place: Path) -> None:
        self._wanted, self._place = wanted, place

    def graph(self, name: str, scheme: str) -> Graph:
        """The quantized network; skips where the converter's refusal is known."""
        directory = self._place / scheme
        if not directory.exists():
            directory.mkdir()
            self._convert(scheme, directory)
        error = directory / f"{name}.error"
        if error.exists():
            why = error.read_text()
            assert scheme == "int16x8" and name in NOT_CONVERTIBLE, f"the converter refuses it: {why}"
            pytest.skip(f"does not convert: {NOT_CONVERTIBLE[name]}")
        return read(directory / f"{name}.tflite")

    def _convert(self, scheme: str, directory: Path) -> None:
        """A network that takes the process down is left out; the others are converted without it."""
        settings = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"} | settings
        waiting = self._wanted[scheme]
        while waiting:
            script = Path(keras_networks.__file__)
            command = [sys.executable, str(script), scheme, str(directory), *waiting]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return
            begun = [line for line in done.stdout.splitlines() if line in waiting]
            assert begun, done.stderr[-2000:]
            (directory / f"{begun[-1]}.error").write_text(f"crash {done.returncode}: {done.stderr[-1000:]}")
            waiting = waiting[waiting.index(begun[-1]) + 1 :]


@pytest.fixture(scope="session")
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    wanted: dict[str, dict[str, None]] = {scheme: {} for scheme in SCHEMES}
    for item in request.session.items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if "network" in parameters:
            wanted[parameters["scheme"]][parameters["network"]] = None
    return Converted({scheme: list(names) for scheme, names in wanted.items()}, tmp_path_factory.mktemp("networks"))


def same_on_host(graph: Graph, place: Path, scheme: str, cc: str) -> None:
    vectors = [values(graph, kind) for kind in KINDS]
    expected, by_litert = oracle(graph, vectors, scheme)
    assert by_litert <= BY_LITERT[scheme] | WRONG_IN_WHEEL
    ours = build(graph, place, cc=cc)
    for kind, (vector, arrays) in enumerate(zip(vectors, expected, strict=True)):
        for output, (mine, theirs) in enumerate(zip(ours.run(vector), arrays, strict=True)):
            np.testing.assert_array_equal(mine, theirs.reshape(mine.shape), err_msg=f"input {kind}, output {output}")
    distinct = {b"".join(a.tobytes() for a in arrays) for arrays in expected}
    assert len(distinct) >= len(KINDS) - 2, "the inputs hardly move the outputs: a weak test"


@pytest.mark.parametrize(("network", "scheme"), CASES)
def test_bytes_equal_the_oracle(converted: Converted, network: str, scheme: str, tmp_path: Path) -> None:
    graph = converted.graph(network, scheme)
    floats = {op.name for op in graph.operators if graph.tensors[op.outputs[0]].type is TensorType.FLOAT32}
    assert not floats or network in FLOAT_INSIDE
    same_on_host(graph, tmp_path, scheme, "gcc")


@pytest.mark.parametrize(("network", "scheme"), EVERY)
@pytest.mark.slow
def test_by_clang(converted: Converted, network: str, scheme: str, tmp_path: Path) -> None:
    if shutil.which("clang") is None:
        pytest.skip("needs clang")
    same_on_host(converted.graph(network, scheme), tmp_path, scheme, "clang")


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize(
    ("network", "scheme", "optimize"),
    [(*case, "balanced") for case in EVERY] + [(name, "int8", "speed") for name in NETWORKS],
)
@pytest.mark.slow
@pytest.mark.qemu
def test_cores_give_the_host_bytes(
    converted: Converted, network: str, scheme: str, board: str, optimize: str, tmp_path: Path
) -> None:
    """With the kernels chosen for the core; the arena is guarded, the stack under 1 KiB."""
    if not all(shutil.which(tool) for tool in ("qemu-system-arm", "arm-none-eabi-gcc", "gcc")):
        pytest.skip("needs qemu-system-arm, arm-none-eabi-gcc and gcc")
    graph = converted.graph(network, scheme)
    write_bundle(emit(plan(graph, load_board(board), name="model", optimize=optimize)), tmp_path / "core")
    vectors = [values(graph, kind) for kind in KINDS]
    host = build(graph, tmp_path)
    expected = [b"".join(a.tobytes() for a in host.run(vector)) for vector in vectors]
    counts = counter.count(
        tmp_path / "core", counter.MACHINES[board], [[a.tobytes() for a in vector] for vector in vectors]
    )
    assert list(counts.outputs) == expected
    assert counts.stack_bytes < 1024
