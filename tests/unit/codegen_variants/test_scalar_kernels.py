"""Kernels for cores without DSP in QEMU against the tflite-micro wheel: ARMv6-M (run by a Cortex-M3) and Cortex-M3.

Single operators, shapes at the kernels' edges, extreme weights and data; and the proofs that license the short forms.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from bundles import Wheel
from hypothesis import given, settings
from hypothesis import strategies as st
from single import INT8, INT32, T, model

from edgeq.boards import load_board
from edgeq.codegen import emit, plan, write_bundle
from edgeq.codegen.proofs import Requantization
from edgeq.codegen.variants.scalar import common, elementwise, gemm
from edgeq.codegen.variants.scalar.common import long_form, two_products
from edgeq.graph import Graph, write_bytes

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parent))
import counter
from test_dsp_kernels import CONVOLUTIONS, DEPTHWISE, addition, conv, depthwise, inputs_of, needs_tools, weights

BOARDS = {"armv6m": "raspberry-pi-pico", "armv7m": "qemu-mps2-an385"}
cores = pytest.mark.parametrize("core", BOARDS)


def same_in_qemu(graph: Graph, place: Path, core: str, optimize: str = "speed", kernel: str = "") -> None:
    """The kernel is the core's own, and every byte equals the wheel's."""
    board = BOARDS[core]
    made = plan(graph, load_board(board), name="model", optimize=optimize)
    assert (kernel or core) in made.steps[0].kernel
    write_bundle(emit(made), place / "bundle")
    vectors = inputs_of(graph)
    counts = counter.count(place / "bundle", counter.MACHINES[board], [[a.tobytes() for a in v] for v in vectors])
    wheel = Wheel(write_bytes(graph), 1_000_000)
    for position, (vector, got) in enumerate(zip(vectors, counts.outputs, strict=True)):
        want = wheel.run(vector)[0]
        np.testing.assert_array_equal(np.frombuffer(got, np.int8), want.reshape(-1), err_msg=f"input {position}")
    assert counts.stack_bytes < 1024


WIDE = [((6, 21, 32), (4, 3, 3), 1, "SAME", True), ((3, 3, 140), (8, 1, 1), 1, "SAME", True)]
"""Convolutions with a channel for which the search finds no 32-bit form: on ARMv6-M it takes TFLM's own steps."""
UNPROVEN = ((4, 4, 64), (4, 3, 3), 1, "SAME", False)
"""One without a form for any channel: on ARMv6-M it is portable C."""


@cores
@pytest.mark.parametrize("case", [c for c in CONVOLUTIONS if c[0][0] > 1], ids=str)  # one pixel: portable C is as good
@pytest.mark.qemu
@needs_tools
def test_convolution(case: tuple, core: str, tmp_path: Path) -> None:
    same_in_qemu(conv(*case), tmp_path, core, kernel="conv_2d_s8" if case == UNPROVEN else "")


@pytest.mark.parametrize("case", WIDE, ids=str)
def test_only_a_channel_that_is_not_proven_takes_the_general_form(case: tuple) -> None:
    made = plan(conv(*case), load_board(BOARDS["armv6m"]), name="model", optimize="speed")
    sections = [source.stem for source in made.steps[0].emitted if source.stem.startswith("gemm_")]
    assert any("_tflm_" in stem for stem in sections)
    assert any("_armv6m_" in stem for stem in sections)


@cores
@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"])
@pytest.mark.parametrize("relu", [False, True], ids=["plain", "relu"])
@pytest.mark.qemu
@needs_tools
def test_channels_of_both_forms(
    core: str, kind: str, relu: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With weaker searches some channels of a layer are proven and some are not; the bytes are the wheel's."""
    monkeypatch.setattr(common, "_DEEPEST", 8)
    monkeypatch.setattr(common, "_SLOPES", (40,))
    generator = np.random.default_rng(11)
    channels, shape = 16, {"CONV_2D": (16, 3, 3, 4), "DEPTHWISE_CONV_2D": (1, 3, 3, 16), "FULLY_CONNECTED": (16, 64)}
    source = {"CONV_2D": (1, 5, 4, 4), "DEPTHWISE_CONV_2D": (1, 5, 4, 16), "FULLY_CONNECTED": (2, 64)}[kind]
    scales, filters = generator.uniform(0.0004, 0.006, channels), generator.integers(-127, 128, shape[kind])
    options = {"fused_activation_function": "RELU" if relu else "NONE", "padding": "SAME", "stride_h": 1, "stride_w": 1}
    options |= {"depth_multiplier": 1, "dilation_h_factor": 1, "dilation_w_factor": 1, "weights_format": "DEFAULT"}
    graph = model(
        kind,
        [
            T(source, INT8, 0.02, 7),
            T(shape[kind], INT8, scales, data=filters, axis=3 if kind == "DEPTHWISE_CONV_2D" else 0),
            T((channels,), INT32, 0.02 * scales, data=generator.integers(-9000, 9000, channels)),
        ],
        [T((*source[:-1], channels), INT8, 0.05, -128 if relu else 5)],
        options,
        version=3,
    )
    made = plan(graph, load_board(BOARDS[core]), name="model", optimize="speed")
    assert any("_tflm_" in source.stem or "_mixed_" in source.stem for source in made.steps[0].emitted)
    same_in_qemu(graph, tmp_path, core)


@cores
@pytest.mark.parametrize("optimize", ["speed", "balanced"])
@pytest.mark.qemu
@needs_tools
def test_convolution_extreme_weights(optimize: str, core: str, tmp_path: Path) -> None:
    same_in_qemu(conv((5, 5, 8), (8, 3, 3), 1, "SAME", True, extreme=True), tmp_path, core, optimize)


@cores
@pytest.mark.parametrize("case", DEPTHWISE, ids=str)
@pytest.mark.qemu
@needs_tools
def test_depthwise(case: tuple, core: str, tmp_path: Path) -> None:
    same_in_qemu(depthwise(*case), tmp_path, core)


@cores
@pytest.mark.parametrize(
    ("batches", "depth", "units", "relu", "each"),
    [(1, 128, 44, True, False), (3, 20, 8, False, False), (1, 64, 61, False, True)],
)
@pytest.mark.qemu
@needs_tools
def test_fully_connected(
    batches: int, depth: int, units: int, relu: bool, each: bool, core: str, tmp_path: Path
) -> None:
    generator = np.random.default_rng(depth)
    scales = generator.uniform(0.001, 0.003, units) if each else np.array([0.002])
    graph = model(
        "FULLY_CONNECTED",
        [
            T((batches, depth), INT8, 0.02, 7),
            T((units, depth), INT8, scales, data=weights(generator, (units, depth), False)),
            T((units,), INT32, 0.02 * scales, data=generator.integers(-20000, 20000, units)),
        ],
        [T((batches, units), INT8, 0.02, -128 if relu else 5)],
        {"fused_activation_function": "RELU" if relu else "NONE", "weights_format": "DEFAULT", "keep_num_dims": False},
        version=4,
    )
    same_in_qemu(graph, tmp_path, core)


@cores
@pytest.mark.qemu
@needs_tools
def test_add(core: str, tmp_path: Path) -> None:
    graph = addition((0.0317, 0.0213, 0.0411), (3, -9, 12), False)
    same_in_qemu(graph, tmp_path, core, kernel="scalar")


@cores
@pytest.mark.parametrize("relu", [False, True], ids=["plain", "relu"])
@pytest.mark.qemu
@needs_tools
def test_add_without_a_line(core: str, relu: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table form, which some scales need."""
    monkeypatch.setattr(elementwise, "line", lambda *_, **__: None)
    graph = addition((0.0317, 0.0213, 0.0411), (3, -9, -128 if relu else 12), relu)
    same_in_qemu(graph, tmp_path, core, kernel="add_table")


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 70), st.sampled_from([3, 30, 128]))
def test_products_of_two_pixels_separate(seed: int, taps: int, reach: int) -> None:
    """The sums of G products x0 + 65536 x1, in 32 bits, yield both sums for the worst inputs of each channel."""
    random = np.random.default_rng(seed)
    weights = random.integers(-reach, min(reach, 127) + 1, (6, taps))
    for row, group in zip(weights, gemm.group_of(weights), strict=True):
        for x0, x1 in (
            (np.where(row > 0, -128, 127), np.where(row > 0, 127, -128)),
            random.integers(-128, 128, (2, taps)),
        ):
            low = high = 0
            for at in range(0, taps, int(group)):
                part = 32768 + int((row * (x0 + 65536 * x1))[at : at + int(group)].sum())
                assert -(2**31) <= part < 2**31
                low, high = low + part, high + (part >> 16)
            groups = -(-taps // int(group))
            assert high == (row * x1).sum()
            assert low - (high << 16) - 32768 * groups == (row * x0).sum()


def requantizations(seed: int, relu: bool, reach: int) -> Requantization:
    random = np.random.default_rng(seed)
    high = random.integers(1, reach, 8)
    return Requantization(
        multiplier=random.integers(2**30, 2**31, 8), exponent=random.integers(1, 12, 8),
        zero_point=-128 if relu else int(random.integers(-128, 128)), minimum=-128, maximum=127,
        low=-random.integers(1, reach, 8), high=high,
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.booleans(), st.sampled_from([300, 30_000]))
def test_short_forms_equal_the_exact_function_everywhere(seed: int, relu: bool, reach: int) -> None:
    """Every accumulator of the interval, not only the points that the proof looks at; of the channels that have one."""
    exact = requantizations(seed, relu, reach)
    every = np.clip(np.arange(-reach, reach + 1)[None, :], exact.low[:, None], exact.high[:, None])
    for form in (long_form(exact), two_products(exact)):
        if form is not None:
            np.testing.assert_array_equal(form(every)[form.proven], exact(every)[form.proven])


def test_short_forms_are_found_for_usual_layers() -> None:
    exact = requantizations(7, True, 30_000)
    assert long_form(exact) is not None
    assert two_products(exact) is not None


def test_a_form_that_misses_one_threshold_is_refused() -> None:
    from dataclasses import replace

    exact = requantizations(7, True, 30_000)
    form = two_products(exact)
    assert form is not None
    assert not exact.agrees(replace(form, addend=form.addend + (np.int64(1) << 20))).any()
