"""MVE kernels in QEMU (Cortex-M55) against the tflite-micro wheel: operators and pairs, shapes at the edges."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundles import WARNINGS, Wheel
from mixed_layers import GENERAL, STEPS, mixed
from single import INT8, INT32, T, model

from edgeq.boards import load_board
from edgeq.codegen import emit, plan, write_bundle
from edgeq.codegen.arithmetic import doubling_high_mul, quantize_multiplier, rounding_shift
from edgeq.codegen.plan import Plan
from edgeq.codegen.proofs import Requantization
from edgeq.codegen.variants.mve.common import FLOOR, tail
from edgeq.codegen.variants.mve.dot import offsets, vectors
from edgeq.graph import Graph, read_bytes, write_bytes

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
import counter

BOARD = "qemu-mps3-an547"
TOOLS = all(shutil.which(tool) for tool in ("qemu-system-arm", "arm-none-eabi-gcc", "gcc"))
needs_tools = pytest.mark.skipif(not TOOLS, reason="needs qemu-system-arm, arm-none-eabi-gcc and gcc")


def inputs_of(graph: Graph) -> list[list[np.ndarray]]:
    """Noise, noise of low range, all 127, all -128, alternating."""
    generator = np.random.default_rng(7)
    shapes = [graph.tensors[i].shape for i in graph.inputs]
    made = [[generator.integers(a, b, s).astype(np.int8) for s in shapes] for a, b in ((-128, 128), (-3, 4))]
    return made + [[np.resize(np.array(p, np.int8), s) for s in shapes] for p in ([127], [-128], [127, -128])]


def same_in_qemu(graph: Graph, place: Path, *, kernels: tuple[str, ...] = ("mve",), optimize: str = "speed") -> Plan:
    """Layer i's kernel name contains kernels[i], and every byte equals the wheel's."""
    made = plan(graph, load_board(BOARD), name="model", optimize=optimize)
    assert len(made.steps) == len(kernels)
    assert all(part in step.kernel for part, step in zip(kernels, made.steps, strict=True))
    write_bundle(emit(made), place / "bundle")
    given = inputs_of(graph)
    counts = counter.count(place / "bundle", counter.MACHINES[BOARD], [[a.tobytes() for a in v] for v in given])
    wheel = Wheel(write_bytes(graph), 1_000_000)
    for position, (vector, got) in enumerate(zip(given, counts.outputs, strict=True)):
        want = wheel.run(vector)[0]
        np.testing.assert_array_equal(np.frombuffer(got, np.int8), want.reshape(-1), err_msg=f"input {position}")
    assert counts.stack_bytes < 1024
    return made


def taps(generator: np.random.Generator, shape: tuple[int, ...], extreme: bool) -> np.ndarray:
    if extreme:
        return generator.choice(np.array([-128, -127, 127], np.int8), shape)
    return generator.integers(-127, 128, shape).astype(np.int8)


def conv(
    size: tuple[int, int, int],
    filters: tuple[int, int, int],
    stride: int = 1,
    padding: str = "SAME",
    activation: str = "RELU",
    *,
    depthwise: bool = False,
    extreme: bool = False,
) -> Graph:
    """CONV_2D of [h, w, c] with [out, kh, kw] filters, or DEPTHWISE_CONV_2D (out = c)."""
    generator = np.random.default_rng([*size, *filters, stride])
    (h, w, c), (n, kh, kw) = size, filters
    out_h, out_w = (
        (-(-h // stride), -(-w // stride))
        if padding == "SAME"
        else (-(-(h - kh + 1) // stride), -(-(w - kw + 1) // stride))
    )
    low = -128 if activation != "NONE" else -11
    shape = (1, kh, kw, c) if depthwise else (n, kh, kw, c)
    scales = generator.uniform(0.001, 0.003, n)
    fan_in = kh * kw * (1 if depthwise else c)
    options = {
        "padding": padding, "stride_h": stride, "stride_w": stride, "dilation_h_factor": 1, "dilation_w_factor": 1,
        "fused_activation_function": activation,
    }  # fmt: skip
    return model(
        "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D",
        [
            T((1, h, w, c), INT8, 0.02, -128 if low == -128 else 9),
            T(shape, INT8, scales, data=taps(generator, shape, extreme), axis=3 if depthwise else 0),
            T((n,), INT32, 0.02 * scales, data=generator.integers(-3000, 3000, n)),
        ],
        [T((1, out_h, out_w, n), INT8, 0.01 * fan_in**0.5, low)],
        options | ({"depth_multiplier": 1} if depthwise else {}),
        version=3,
    )


def chain(first: Graph, second: Graph) -> Graph:
    """Two graphs of one operator as one: the second reads the first's output, in the first's quantization."""
    shift = len(first.tensors)
    between, entry = first.outputs[0], second.inputs[0]

    def moved(index: int) -> int:
        return between if index == entry else index + shift

    after = [replace(t, index=t.index + shift, name=f"u{t.index}") for t in second.tensors]
    operator = replace(
        second.operators[0],
        index=1,
        inputs=tuple(map(moved, second.operators[0].inputs)),
        outputs=tuple(map(moved, second.operators[0].outputs)),
    )
    tensors = [*first.tensors, *after]
    quantization = second.tensors[entry].quantization
    tensors[between] = replace(tensors[between], quantization=quantization)
    joined = replace(
        first,
        tensors=tuple(tensors),
        operators=(first.operators[0], operator),
        outputs=tuple(map(moved, second.outputs)),
        subgraphs=(),
        signatures=(),
    )
    return read_bytes(write_bytes(joined))


CONVOLUTIONS = [
    (((4, 6, 16), (8, 1, 1)), "conv_1x1"),
    (((5, 5, 8), (6, 1, 1), 1, "SAME", "NONE"), "conv_1x1"),  # two pixels a load
    (((3, 3, 37), (5, 1, 1)), "conv_1x1"),  # overlapping loads, an odd number of channels
    (((13, 9, 64), (4, 1, 1), 1, "VALID", "RELU6"), "conv_1x1"),  # streaming weights, blocks, a clamp
    (((3, 5, 272), (4, 1, 1)), "conv_1x1"),  # three pointers that move
    (((1, 1, 40), (10, 1, 1), 1, "VALID", "NONE"), "fully_connected"),  # a single pixel
    (((2, 5, 12), (7, 1, 1)), "fully_connected"),  # fewer channels than a vector
    (((7, 6, 16), (6, 1, 1), 2), "mve_conv_7x6"),
    (((8, 8, 16), (4, 3, 3)), "mve_conv"),  # all weights but two stream
    (((9, 7, 32), (4, 3, 3), 2, "SAME", "NONE"), "mve_conv"),
    (((6, 12, 64), (2, 3, 3)), "mve_conv"),
    (((11, 16, 16), (2, 5, 5), 1, "VALID"), "mve_conv"),
    (((10, 10, 3), (6, 3, 3)), "mve_"),
    (((9, 11, 3), (4, 3, 3), 2, "SAME", "NONE"), "mve_"),
    (((6, 6, 20), (4, 3, 3)), "mve_conv"),  # runs of 60 bytes
    (((49, 10, 1), (4, 10, 4), 2), "columns"),
]


@pytest.mark.parametrize(("case", "kernel"), CONVOLUTIONS, ids=str)
@pytest.mark.qemu
@needs_tools
def test_mve_convolution(case: tuple, kernel: str, tmp_path: Path) -> None:
    same_in_qemu(conv(*case), tmp_path, kernels=(kernel,))


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.qemu
@needs_tools
def test_mve_extreme_weights(depthwise: bool, tmp_path: Path) -> None:
    filters = (16, 3, 3)
    same_in_qemu(conv((8, 8, 16), filters, 1, "SAME", "NONE", depthwise=depthwise, extreme=True), tmp_path)


DEPTHWISE = [
    ((25, 5, 8), 1, "SAME", "RELU"),
    ((6, 6, 3), 1, "SAME", "NONE"),
    ((4, 1, 2), 1, "SAME", "RELU"),
    ((1, 5, 2), 1, "SAME", "NONE"),
    ((3, 3, 4), 1, "SAME", "RELU6"),
    ((7, 6, 5), 1, "VALID", "RELU"),
    ((6, 6, 4), 2, "SAME", "RELU"),
    ((40, 6, 2), 1, "SAME", "RELU"),  # blocks of rows
    ((8, 12, 4), 1, "SAME", "NONE"),  # strips
    ((6, 10, 3), 1, "SAME", "RELU"),  # strips with a remainder of outputs
    ((7, 7, 5), 1, "SAME", "RELU"),  # half a strip and half a block
    ((9, 8, 2), 1, "SAME", "NONE"),
    ((10, 13, 3), 1, "SAME", "RELU6"),
    ((48, 48, 2), 1, "SAME", "RELU"),
    ((24, 24, 3), 2, "SAME", "RELU"),
    ((7, 9, 4), 2, "SAME", "NONE"),  # padding on both sides
    ((15, 14, 3), 2, "VALID", "RELU"),
]


@pytest.mark.parametrize("case", DEPTHWISE, ids=str)
@pytest.mark.qemu
@needs_tools
def test_mve_depthwise(case: tuple, tmp_path: Path) -> None:
    size, stride, padding, activation = case
    same_in_qemu(conv(size, (size[2], 3, 3), stride, padding, activation, depthwise=True), tmp_path)


FUSED = [
    ((12, 10, 16), (6, 1, 1), 1, 1, "pointwise"),
    ((25, 5, 32), (4, 1, 1), 1, 1, "pointwise"),
    ((24, 24, 8), (4, 1, 1), 1, 2, "pointwise"),
    ((7, 7, 16), (4, 1, 1), 1, 1, "pointwise"),
    ((49, 10, 1), (4, 10, 4), 2, 1, "columns"),
]


@pytest.mark.parametrize("case", FUSED, ids=str)
@pytest.mark.qemu
@needs_tools
def test_mve_fused_with_depthwise(case: tuple, tmp_path: Path) -> None:
    size, filters, stride, stride_after, kernel = case
    first = conv(size, filters, stride)
    _, h, w, c = first.tensors[first.outputs[0]].shape
    graph = chain(first, conv((h, w, c), (c, 3, 3), stride_after, depthwise=True))
    made = same_in_qemu(graph, tmp_path, kernels=(kernel,))
    assert made.steps[0].covers == 2


@pytest.mark.parametrize(
    ("batches", "depth", "units", "activation", "each"),
    [
        (1, 128, 44, "RELU", False),
        (3, 20, 8, "NONE", False),
        (1, 8, 7, "NONE", False),
        (1, 333, 5, "RELU6", False),  # an inner loop with a rest
        (2, 64, 61, "RELU", True),  # a multiplier for every unit
        (1, 40, 200, "NONE", True),
    ],
)
@pytest.mark.qemu
@needs_tools
def test_mve_fully_connected(batches: int, depth: int, units: int, activation: str, each: bool, tmp_path: Path) -> None:
    generator = np.random.default_rng(depth)
    scales = generator.uniform(0.001, 0.003, units) if each else 0.002
    graph = model(
        "FULLY_CONNECTED",
        [
            T((batches, depth), INT8, 0.02, 7),
            T((units, depth), INT8, scales, data=taps(generator, (units, depth), False)),
            T((units,), INT32, 0.02 * np.asarray(scales), data=generator.integers(-20000, 20000, units)),
        ],
        [T((batches, units), INT8, 0.02, -128 if activation != "NONE" else 5)],
        {"fused_activation_function": activation, "weights_format": "DEFAULT", "keep_num_dims": False},
        version=4,
    )
    same_in_qemu(graph, tmp_path)


@pytest.mark.parametrize(
    ("scales", "zeros", "activation"),
    [((0.04, 0.1, 0.051), (-128, 4, -128), "RELU"), ((0.0317, 0.0213, 0.0411), (3, -9, 12), "NONE")],
)
@pytest.mark.qemu
@needs_tools
def test_mve_add(scales: tuple, zeros: tuple, activation: str, tmp_path: Path) -> None:
    shape = (1, 5, 7, 3)
    graph = model(
        "ADD",
        [T(shape, INT8, scales[0], zeros[0]), T(shape, INT8, scales[1], zeros[1])],
        [T(shape, INT8, scales[2], zeros[2])],
        {"fused_activation_function": activation, "pot_scale_int16": True},
        version=2,
    )
    same_in_qemu(graph, tmp_path)


@pytest.mark.parametrize("size", [(5, 5, 8), (1, 7, 5), (25, 5, 20)])
@pytest.mark.qemu
@needs_tools
def test_mve_average_pool(size: tuple[int, int, int], tmp_path: Path) -> None:
    h, w, c = size
    graph = model(
        "AVERAGE_POOL_2D",
        [T((1, h, w, c), INT8, 0.02, 3)],
        [T((1, 1, 1, c), INT8, 0.02, 3)],
        {
            "padding": "VALID", "stride_h": h, "stride_w": w, "filter_height": h, "filter_width": w,
            "fused_activation_function": "NONE",
        },
        version=2,
    )  # fmt: skip
    same_in_qemu(graph, tmp_path)


@pytest.mark.parametrize(("size", "keep"), [((5, 5, 8), False), ((4, 11, 21), True)])
@pytest.mark.qemu
@needs_tools
def test_mve_mean(size: tuple[int, int, int], keep: bool, tmp_path: Path) -> None:
    c = size[2]
    graph = model(
        "MEAN",
        [T((1, *size), INT8, 0.02, -17), T((2,), INT32, data=[1, 2])],
        [T((1, 1, 1, c) if keep else (1, c), INT8, 0.013, -40)],
        {"keep_dims": keep},
        version=2,
    )
    same_in_qemu(graph, tmp_path)


def requantization(real: float, zero_point: int, low: int, high: int, minimum: int = -128) -> Requantization:
    multiplier, shift = quantize_multiplier(real)
    one = np.ones(1, np.int64)
    return Requantization(one * multiplier, -one * shift, zero_point, minimum, 127, one * low, one * high)


@pytest.mark.parametrize("real", [0.3, 0.01, 0.00047, 3e-6])
@pytest.mark.parametrize("zero_point", [-128, 17])
def test_tail_is_tflms_function(real: float, zero_point: int) -> None:
    """Whatever form is chosen, evaluated as the instructions do, equals TFLM's: random and all small accumulators."""
    exact = requantization(real, zero_point, -(1 << 22), 1 << 22)
    end = tail(exact, np.zeros(1, np.int64))
    assert end is not None
    _, multiplier, addend, left = (int(v) for v in end.parameters[0])
    noise = np.random.default_rng(1).integers(-(1 << 22), 1 << 22, 200_000)
    acc = np.concatenate([noise, np.arange(-3000, 3000), [-(1 << 22), 1 << 22]])
    total = doubling_high_mul(acc, multiplier) + (np.where(acc < 0, -1, 0) if end.signed else 0) + addend
    top = np.clip(total << left, -(2**31), 2**31 - 1) >> 24 if left >= 0 else total >> (24 - left)
    want = np.clip(
        rounding_shift(doubling_high_mul(acc, exact.multiplier[0]), exact.exponent[0]) + zero_point, -128, 127
    )
    np.testing.assert_array_equal(np.clip(top, -128, 127), want)


def test_floor_form_only_where_ties_clamp() -> None:
    """ReLU clamps every negative result, so the floor form is proven; without it a tie tells the two apart."""
    zero = np.zeros(1, np.int64)
    relu = tail(requantization(0.25, -128, -(1 << 12), 1 << 12), zero)
    none = tail(requantization(0.25, 0, -(1 << 9), 1 << 9), zero)
    assert relu is not None and not relu.signed
    assert none is not None and none.signed


def test_tail_refuses_wide_shifts() -> None:
    assert tail(requantization(2.0**-25, 0, -(1 << 30), 1 << 30), np.zeros(1, np.int64)) is None


def test_channels_of_one_layer_take_different_forms() -> None:
    """Exponent 0 has no ties to round: floor. Beside it a channel with results of both signs: signed."""
    first, second = requantization(0.9999, 0, -256, 256), requantization(0.25, 0, -512, 512)
    columns = {name: np.concatenate([getattr(first, name), getattr(second, name)])
               for name in ("multiplier", "exponent", "low", "high")}  # fmt: skip
    end = tail(replace(first, **columns), np.zeros(2, np.int64))
    assert end is not None and end.form == "mixed"
    assert (end.parameters[:, 3] & FLOOR).tolist() == [FLOOR, 0]


@pytest.mark.parametrize("kind", ["conv", "depthwise", "dense"])
@pytest.mark.parametrize(
    ("ratios", "activation", "zero"),
    [
        ({5: STEPS}, "RELU", -128),
        ({0: STEPS, 7: STEPS}, "NONE", 3),
        ({9: STEPS, 10: GENERAL}, "RELU6", -100),
        ({9: STEPS, 10: GENERAL}, "RELU_N1_TO_1", 3),
    ],
)
@pytest.mark.qemu
@needs_tools
def test_only_channels_without_a_proof_take_another_form(
    kind: str, ratios: dict, activation: str, zero: int, tmp_path: Path
) -> None:
    made = same_in_qemu(mixed(kind, ratios, activation, zero), tmp_path)
    assert ("mixed" in made.steps[0].method) == (zero == 3)  # with a clamp at zero the floor form suits all


@pytest.mark.parametrize("size", [16, 17, 31, 32, 45])
def test_offsets_cover_each_byte_once(size: int) -> None:
    starts = offsets(size)
    assert min(starts) == 0 and max(starts) + 16 == size
    run = np.arange(1, size + 1, dtype=np.int8)[None]
    data = np.arange(100, 100 + size)
    lanes = vectors(run, starts)[0].astype(np.int64)
    assert sum(int(lanes[i] @ data[s : s + 16]) for i, s in enumerate(starts)) == int(run[0].astype(np.int64) @ data)


@pytest.mark.qemu
@needs_tools
@pytest.mark.parametrize("model_name", ["kws_ref_int8", "vww_96_int8", "ic_resnet8_int8"])
def test_mve_sources_are_free_of_warnings(shared: Path, model_name: str, tmp_path: Path) -> None:
    """gcc's strictest warnings on everything that is emitted for a published model."""
    graph = read_bytes((shared / "models" / f"{model_name}.tflite").read_bytes())
    write_bundle(emit(plan(graph, load_board(BOARD), name="model", optimize="balanced")), tmp_path / "bundle")
    flags = [*counter.MACHINES[BOARD].flags, "-std=c99", "-O2", *WARNINGS, "-I", str(tmp_path / "bundle" / "include")]
    for source in sorted((tmp_path / "bundle" / "src").glob("*.c")):
        subprocess.run(["arm-none-eabi-gcc", *flags, "-c", str(source), "-o", str(tmp_path / "o.o")], check=True)
