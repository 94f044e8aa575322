"""DSP kernels in QEMU against the tflite-micro wheel: single operators, shapes at the kernels' edges.

On the Cortex-M4 all of them, on M33 and M7 one of every kind (all of them if slow), the slow ones also by `zig cc`.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from bundles import Wheel
from mixed_layers import GENERAL, STEPS, mixed
from single import INT8, INT32, T, model

from edgeq.boards import load_board
from edgeq.codegen import emit, plan, write_bundle
from edgeq.codegen.variants.dsp.fully_connected import _before_bytes
from edgeq.codegen.variants.sums import exact_sums, line
from edgeq.graph import Graph, write_bytes

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
import counter

BOARD = "qemu-mps2-an386"
TOOLS = all(shutil.which(tool) for tool in ("qemu-system-arm", "arm-none-eabi-gcc", "gcc"))
needs_tools = pytest.mark.skipif(not TOOLS, reason="needs qemu-system-arm, arm-none-eabi-gcc and gcc")


def inputs_of(graph: Graph) -> list[list[np.ndarray]]:
    """Two of noise, one of low range, all 127, all -128, alternating."""
    generator = np.random.default_rng(5)
    shapes = [graph.tensors[i].shape for i in graph.inputs]
    made = [
        [generator.integers(low, high, s).astype(np.int8) for s in shapes]
        for low, high in ((-128, 128),) * 2 + ((-3, 4),)
    ]
    made += [[np.resize(np.array(p, np.int8), s) for s in shapes] for p in ([127], [-128], [127, -128])]
    return made


def same_in_qemu(
    graph: Graph,
    place: Path,
    *,
    optimize: str = "speed",
    kernel: str = "dsp",
    method: str = "",
    board: str = BOARD,
    compiler: str = "gcc",
) -> None:
    """The kernel is the wanted one, and every byte equals the wheel's."""
    made = plan(graph, load_board(board), name="model", optimize=optimize)
    assert kernel in made.steps[0].kernel
    assert method in made.steps[0].method
    write_bundle(emit(made), place / "bundle")
    vectors = inputs_of(graph)
    given = [[a.tobytes() for a in v] for v in vectors]
    counts = counter.count(place / "bundle", counter.MACHINES[board], given, compiler=compiler)
    wheel = Wheel(write_bytes(graph), 1_000_000)
    for position, (vector, got) in enumerate(zip(vectors, counts.outputs, strict=True)):
        want = wheel.run(vector)[0]
        np.testing.assert_array_equal(np.frombuffer(got, np.int8), want.reshape(-1), err_msg=f"input {position}")
    assert counts.stack_bytes < 1024


def weights(generator: np.random.Generator, shape: tuple[int, ...], extreme: bool) -> np.ndarray:
    if extreme:
        return generator.choice(np.array([-127, 127], np.int8), shape)
    return generator.integers(-127, 128, shape).astype(np.int8)


def conv(
    size: tuple[int, int, int],
    filters: tuple[int, int, int],
    stride: int,
    padding: str,
    relu: bool,
    extreme: bool = False,
) -> Graph:
    """CONV_2D of [h, w, c] with [out, kh, kw] filters."""
    generator = np.random.default_rng(list(size) + list(filters) + [stride, relu])
    (h, w, c), (n, kh, kw) = size, filters
    same = padding == "SAME"
    out_h, out_w = (
        (-(-h // stride), -(-w // stride)) if same else (-(-(h - kh + 1) // stride), -(-(w - kw + 1) // stride))
    )
    scales = generator.uniform(0.001, 0.003, n)
    return model(
        "CONV_2D",
        [
            T((1, h, w, c), INT8, 0.02, -128 if relu else 9),
            T((n, kh, kw, c), INT8, scales, data=weights(generator, (n, kh, kw, c), extreme)),
            T((n,), INT32, 0.02 * scales, data=generator.integers(-20000, 20000, n)),
        ],
        [T((1, out_h, out_w, n), INT8, 0.02 + 0.001 * kh * kw * c, -128 if relu else -11)],
        {
            "padding": padding, "stride_h": stride, "stride_w": stride, "dilation_h_factor": 1, "dilation_w_factor": 1,
            "fused_activation_function": "RELU" if relu else "NONE",
        },
        version=3,
    )  # fmt: skip


CONVOLUTIONS = [
    ((5, 5, 8), (4, 1, 1), 1, "SAME", True),  # odd number of pixels
    ((4, 6, 16), (8, 1, 1), 1, "VALID", False),
    ((7, 5, 16), (8, 1, 1), 2, "SAME", True),  # strided 1x1, odd
    ((6, 6, 3), (8, 3, 3), 1, "SAME", True),  # runs of 9 bytes
    ((9, 7, 1), (4, 10, 4), 2, "SAME", True),  # tall filter, odd width: whole padded input
    ((8, 8, 4), (8, 3, 3), 2, "SAME", False),  # padding below and right only
    ((6, 9, 8), (12, 3, 3), 1, "SAME", False),  # odd width, ring
    ((6, 21, 32), (4, 3, 3), 1, "SAME", True),  # odd width, ring of rows that are too long to copy whole
    ((7, 7, 4), (4, 3, 3), 1, "VALID", True),  # no padding: read in place
    ((6, 6, 2), (4, 2, 5), 1, "VALID", True),  # runs of 10 bytes, unaligned
    ((6, 6, 5), (4, 3, 1), 1, "SAME", False),
    ((3, 3, 140), (8, 1, 1), 1, "SAME", True),  # rolled loop with a remainder
    ((1, 1, 12), (4, 1, 1), 1, "SAME", False),  # a single pixel
    ((4, 4, 64), (4, 3, 3), 1, "SAME", False),
]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
@pytest.mark.qemu
@needs_tools
def test_convolution(case: tuple, tmp_path: Path) -> None:
    same_in_qemu(conv(*case), tmp_path)


@pytest.mark.parametrize("optimize", ["speed", "flash"])
@pytest.mark.qemu
@needs_tools
def test_convolution_extreme_weights(optimize: str, tmp_path: Path) -> None:
    same_in_qemu(
        conv((5, 5, 36), (8, 3, 3), 1, "SAME", True, extreme=True), tmp_path, optimize=optimize, kernel="conv_2d"
    )


@pytest.mark.qemu
@needs_tools
def test_minus_128_next_to_each_other_is_not_packed(tmp_path: Path) -> None:
    """w0 + 256 w1 with w1 = -128 and w0 < 0 leaves 16 bits: these upper channels are not in the assembly's stream."""
    graph = conv((4, 4, 8), (16, 1, 1), 1, "SAME", True)
    data = np.array(graph.tensors[graph.operators[0].inputs[1]].data)
    data[4:6, 0, 0, 3] = -128
    data[11] = -128
    same_in_qemu(with_weights(graph, data), tmp_path, method="TFLM's steps for 2 of 16 channels")


def with_weights(graph: Graph, data: np.ndarray) -> Graph:
    tensors = list(graph.tensors)
    filters = tensors[graph.operators[0].inputs[1]]
    tensors[filters.index] = replace(filters, data=data)
    return replace(graph, tensors=tuple(tensors))


def depthwise(size: tuple[int, int, int], stride: int, padding: str, relu: bool) -> Graph:
    generator = np.random.default_rng([*size, stride, relu])
    h, w, c = size
    same = padding == "SAME"
    out_h, out_w = (-(-h // stride), -(-w // stride)) if same else ((h - 3) // stride + 1, (w - 3) // stride + 1)
    scales = generator.uniform(0.001, 0.003, c)
    return model(
        "DEPTHWISE_CONV_2D",
        [
            T((1, h, w, c), INT8, 0.02, -128 if relu else 9),
            T((1, 3, 3, c), INT8, scales, data=weights(generator, (1, 3, 3, c), False), axis=3),
            T((c,), INT32, 0.02 * scales, data=generator.integers(-20000, 20000, c)),
        ],
        [T((1, out_h, out_w, c), INT8, 0.03, -128 if relu else -11)],
        {
            "padding": padding, "stride_h": stride, "stride_w": stride, "depth_multiplier": 1,
            "dilation_h_factor": 1, "dilation_w_factor": 1, "fused_activation_function": "RELU" if relu else "NONE",
        },
        version=3,
    )  # fmt: skip


DEPTHWISE = [
    ((5, 5, 4), 1, "SAME", True),
    ((6, 6, 3), 1, "SAME", False),
    ((4, 1, 2), 1, "SAME", True),  # a single column
    ((1, 5, 2), 1, "SAME", False),  # a single row
    ((3, 26, 2), 1, "SAME", True),  # blocks in a loop
    ((7, 6, 5), 1, "VALID", True),
    ((8, 8, 4), 2, "SAME", True),
    ((7, 9, 4), 2, "SAME", False),  # odd: padding on both sides
    ((9, 8, 3), 2, "VALID", True),
]


@pytest.mark.parametrize("case", DEPTHWISE, ids=str)
@pytest.mark.qemu
@needs_tools
def test_depthwise(case: tuple, tmp_path: Path) -> None:
    same_in_qemu(depthwise(*case), tmp_path)


def window(
    size: tuple[int, int, int], taps: tuple[int, int], stride: int, *, dilation: int = 1, multiplier: int = 1,
    relu: bool = True, valid: bool = False, steps: int = 0,
) -> Graph:  # fmt: skip
    """DEPTHWISE_CONV_2D; the first `steps` channels have a scale for which no form in assembly is proven."""
    (h, w, c), (kh, kw), n = size, taps, size[2] * multiplier
    generator = np.random.default_rng([*size, *taps, stride, dilation])
    reach = (kh - 1) * dilation, (kw - 1) * dilation
    out = [-(-(length - (r if valid else 0)) // stride) for length, r in zip((h, w), reach, strict=True)]
    scales = generator.uniform(0.001, 0.003, n)
    scales[:steps] = 1.05
    return model(
        "DEPTHWISE_CONV_2D",
        [
            T((1, h, w, c), INT8, 0.02, -128 if relu else 9),
            T((1, kh, kw, n), INT8, scales, data=weights(generator, (1, kh, kw, n), False), axis=3),
            T((n,), INT32, 0.02 * scales, data=generator.integers(-20000, 20000, n)),
        ],
        [T((1, *out, n), INT8, 0.03, -128 if relu else -11)],
        {
            "padding": "VALID" if valid else "SAME", "stride_h": stride, "stride_w": stride,
            "depth_multiplier": multiplier, "dilation_h_factor": dilation, "dilation_w_factor": dilation,
            "fused_activation_function": "RELU" if relu else "NONE",
        },
        version=3,
    )  # fmt: skip


WINDOWS = [
    (((9, 11, 5), (5, 5), 1), {}),
    (((9, 19, 5), (5, 5), 1), {"relu": False}),  # blocks of 8 in a loop
    (((7, 36, 3), (5, 5), 2), {}),  # 18 columns: gathered in blocks
    (((8, 9, 3), (4, 2), 1), {"valid": True}),
    (((9, 9, 4), (4, 4), 2), {"relu": False}),
    (((6, 6, 3), (1, 1), 1), {}),
    (((1, 49, 8), (1, 9), 1), {}),  # one-dimensional
    (((49, 1, 8), (9, 1), 1), {"relu": False}),  # a single column, taken for a row
    (((49, 1, 8), (4, 1), 2), {}),
    (((9, 1, 3), (5, 3), 1), {"relu": False}),
    (((25, 1, 4), (3, 1), 1), {"dilation": 4}),
    (((10, 11, 3), (3, 3), 1), {"dilation": 2}),
    (((12, 10, 2), (3, 3), 1), {"dilation": 3, "relu": False, "valid": True}),
    (((3, 2, 4), (3, 3), 1), {"dilation": 3}),  # more remainders than columns
    (((6, 7, 3), (3, 3), 1), {"multiplier": 2}),
    (((6, 7, 2), (5, 3), 2), {"multiplier": 3, "relu": False}),
    (((4, 6, 640), (3, 3), 1), {}),  # columns too far apart for a store's immediate
    (((8, 10, 6), (5, 5), 1), {"steps": 2}),
    (((8, 10, 3), (3, 3), 1), {"dilation": 2, "multiplier": 2, "steps": 1}),
    (((20, 20, 2), (11, 11), 1), {}),  # kernel rows in a loop
]


@pytest.mark.parametrize(("case", "options"), WINDOWS, ids=str)
@pytest.mark.qemu
@needs_tools
def test_depthwise_of_any_window(case: tuple, options: dict, tmp_path: Path) -> None:
    method = "TFLM's steps" if options.get("steps") else "eight outputs"
    same_in_qemu(window(*case, **options), tmp_path, method=method)


@pytest.mark.qemu
@needs_tools
def test_a_window_is_proven_for_its_own_channels_accumulators(tmp_path: Path) -> None:
    """Every other channel's accumulators reach twice as far as those of any mixture, which the bias would saturate."""
    graph = window((7, 9, 6), (5, 5), 1, relu=False)
    wide = np.arange(6) % 2 == 0
    graph = with_weights(graph, (np.where(wide, 127, 1) * np.ones((1, 5, 5, 6))).astype(np.int8))
    bias = replace(graph.tensors[2], data=np.where(wide, 330_000, 0).astype(np.int32))
    graph = replace(graph, tensors=(*graph.tensors[:2], bias, *graph.tensors[3:]))
    same_in_qemu(graph, tmp_path, method="eight outputs")


def fully_connected(batches: int, depth: int, units: int, relu: bool) -> Graph:
    generator = np.random.default_rng(depth)
    return model(
        "FULLY_CONNECTED",
        [
            T((batches, depth), INT8, 0.02, 7),
            T((units, depth), INT8, 0.002, data=weights(generator, (units, depth), False)),
            T((units,), INT32, 0.00004, data=generator.integers(-20000, 20000, units)),
        ],
        [T((batches, units), INT8, 0.02, -128 if relu else 5)],
        {"fused_activation_function": "RELU" if relu else "NONE", "weights_format": "DEFAULT", "keep_num_dims": False},
        version=4,
    )


FULLY_CONNECTED = [(1, 128, 44, True), (3, 20, 8, False), (1, 64, 61, False), (4, 32, 16, False), (1, 127, 44, True)]
SHORT = [(3, 21, 8, False), (2, 3, 5, False), (2, 1, 17, True)]
"""Shapes for which only speed takes the kernel: rows are copied and padded."""


@pytest.mark.parametrize("case", FULLY_CONNECTED, ids=str)
@pytest.mark.parametrize("optimize", ["speed", "balanced"])
@pytest.mark.qemu
@needs_tools
def test_fully_connected(case: tuple, optimize: str, tmp_path: Path) -> None:
    same_in_qemu(fully_connected(*case), tmp_path, optimize=optimize)


@pytest.mark.parametrize("case", SHORT, ids=str)
@pytest.mark.qemu
@needs_tools
def test_fully_connected_of_any_depth(case: tuple, tmp_path: Path) -> None:
    same_in_qemu(fully_connected(*case), tmp_path, optimize="speed")


@pytest.mark.parametrize(("batches", "depth", "units"), [(1, 64, 61), (3, 20, 8), (4, 32, 16), (3, 5, 9), (2, 9, 9)])
def test_outputs_never_lie_on_rows_that_are_still_read(batches: int, depth: int, units: int) -> None:
    """With the output as far behind the input's start as allowed, row r's outputs end before row r + 1 begins."""
    start = -_before_bytes(batches, depth, units)
    for row in range(batches - 1):
        assert start + (row + 1) * units <= (row + 1) * depth


def addition(scales: tuple[float, float, float], zeros: tuple[int, int, int], relu: bool) -> Graph:
    shape = (1, 4, 5, 4)
    return model(
        "ADD",
        [T(shape, INT8, scales[0], zeros[0]), T(shape, INT8, scales[1], zeros[1])],
        [T(shape, INT8, scales[2], zeros[2])],
        {"fused_activation_function": "RELU" if relu else "NONE", "pot_scale_int16": True},
        version=2,
    )


ADDITIONS = [((0.04, 0.1, 0.051), (-128, 4, -128), True), ((0.0317, 0.0213, 0.0411), (3, -9, 12), False)]


@pytest.mark.parametrize(("scales", "zeros", "relu"), ADDITIONS)
@pytest.mark.qemu
@needs_tools
def test_add(scales: tuple, zeros: tuple, relu: bool, tmp_path: Path) -> None:
    same_in_qemu(addition(scales, zeros, relu), tmp_path)


def test_line_refuses_what_it_cannot_prove() -> None:
    """A table with one result changed has no line; the unchanged one has."""
    fields = {
        "left_shift": 20, "a_offset": 128, "a_multiplier": 1_234_567_890, "a_shift": 0, "b_offset": -4,
        "b_multiplier": 1_098_765_432, "b_shift": 0, "b_sign": 1, "multiplier": 1 << 30, "shift": -19,
        "output_offset": 0, "act_min": -128, "act_max": 127,
    }  # fmt: skip
    exact = exact_sums(fields)
    slope = 1_234_567_890 / 2**31, 1_098_765_432 / 2**31
    found = line(exact, *slope)
    assert found is not None
    every = np.arange(-128, 128)
    np.testing.assert_array_equal(found(every[:, None], every[None, :]), exact)
    spoiled = exact.copy()
    spoiled[128, 128] -= 5
    assert line(spoiled, *slope) is None


def pool(size: tuple[int, int, int]) -> Graph:
    """AVERAGE_POOL_2D over the whole map."""
    h, w, c = size
    return model(
        "AVERAGE_POOL_2D",
        [T((1, h, w, c), INT8, 0.02, 3)],
        [T((1, 1, 1, c), INT8, 0.02, 3)],
        {
            "padding": "VALID", "stride_h": h, "stride_w": w, "filter_height": h, "filter_width": w,
            "fused_activation_function": "NONE",
        },
        version=2,
    )  # fmt: skip


POOLS = [(5, 5, 8), (1, 7, 4), (8, 8, 64)]


@pytest.mark.parametrize("size", POOLS)
@pytest.mark.qemu
@needs_tools
def test_average_pool(size: tuple[int, int, int], tmp_path: Path) -> None:
    same_in_qemu(pool(size), tmp_path)


@pytest.mark.parametrize("size", [(7, 7, 16), (2, 3, 1284), (16, 15, 8)])
@pytest.mark.parametrize("operator", ["MEAN", "SUM"])
@pytest.mark.parametrize("keep", [False, True], ids=["flat", "kept"])
@pytest.mark.qemu
@needs_tools
def test_image_mean(size: tuple[int, int, int], operator: str, keep: bool, tmp_path: Path) -> None:
    h, w, c = size
    scale = 0.011 if operator == "MEAN" else 0.3
    graph = model(
        operator,
        [T((1, h, w, c), INT8, 0.02, 3), T((2,), INT32, data=np.array([1, -2]))],
        [T((1, 1, 1, c) if keep else (1, c), INT8, scale, -5)],
        {"keep_dims": keep},
        version=2,
    )
    same_in_qemu(graph, tmp_path)


MIXED = [
    ({5: GENERAL}, "RELU", -128, "general for"),
    ({5: STEPS}, "RELU", -128, "TFLM's steps for 1"),
    ({0: GENERAL, 6: STEPS, 15: STEPS}, "RELU", -128, "TFLM's steps for 2"),
    ({3: GENERAL, 4: STEPS}, "RELU", -20, "TFLM's steps for 1"),  # a clamp inside of int8
    ({9: STEPS}, "RELU6", -100, "TFLM's steps for 1"),
    ({9: STEPS}, "NONE", 3, "TFLM's steps for 1"),
]


@pytest.mark.parametrize(("ratios", "activation", "zero", "method"), MIXED)
@pytest.mark.parametrize(("kind", "optimize"), [("conv", "speed"), ("depthwise", "speed"), ("dense", "speed"),
                                                ("dense", "balanced")])  # fmt: skip
@pytest.mark.qemu
@needs_tools
def test_only_channels_without_a_proof_take_another_form(
    kind: str, optimize: str, ratios: dict, activation: str, zero: int, method: str, tmp_path: Path
) -> None:
    """Where flash counts, one general kernel may cost less than two."""
    graph = mixed(kind, ratios, activation, zero)
    same_in_qemu(graph, tmp_path, method=method if optimize == "speed" else "", optimize=optimize)


EVERY = [
    *((conv, case) for case in CONVOLUTIONS),
    (conv, ((5, 5, 36), (8, 3, 3), 1, "SAME", True, True)),
    *((depthwise, case) for case in DEPTHWISE),
    *((partial(window, **options), case) for case, options in WINDOWS),
    *((mixed, (kind, *case[:3])) for case in MIXED for kind in ("conv", "depthwise", "dense")),
    *((fully_connected, case) for case in FULLY_CONNECTED),
    *((addition, case) for case in ADDITIONS),
    *((pool, (size,)) for size in POOLS),
]
ONE_OF_EACH = [(conv, CONVOLUTIONS[6]), (depthwise, DEPTHWISE[7]), (fully_connected, FULLY_CONNECTED[0]),
               (addition, ADDITIONS[0]), (pool, (POOLS[0],))]  # fmt: skip


@pytest.mark.parametrize("board", ["qemu-mps2-an505", "qemu-mps2-an500"])
@pytest.mark.parametrize(("make", "case"), ONE_OF_EACH)
@pytest.mark.qemu
@needs_tools
def test_other_cores_with_dsp(board: str, make: Callable, case: tuple, tmp_path: Path) -> None:
    same_in_qemu(make(*case), tmp_path, board=board)


@pytest.mark.parametrize("board", ["qemu-mps2-an386", "qemu-mps2-an505", "qemu-mps2-an500"])
@pytest.mark.parametrize("compiler", ["gcc", "zig"])
@pytest.mark.parametrize(("make", "case"), EVERY)
@pytest.mark.slow
@pytest.mark.qemu
@needs_tools
def test_every_core_and_compiler(board: str, compiler: str, make: Callable, case: tuple, tmp_path: Path) -> None:
    same_in_qemu(make(*case), tmp_path, board=board, compiler=compiler)


@pytest.mark.parametrize("board", ["qemu-mps2-an385", "raspberry-pi-pico"])
@pytest.mark.parametrize(("make", "case"), EVERY)
@pytest.mark.slow
@pytest.mark.qemu
@needs_tools
def test_cores_without_dsp(board: str, make: Callable, case: tuple, tmp_path: Path) -> None:
    """Whatever kernel is chosen there."""
    same_in_qemu(make(*case), tmp_path, board=board, kernel="")
