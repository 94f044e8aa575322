"""Property tests of every kernel variant: random layers, shapes and quantizations on every core, extreme data included.

In QEMU against the tflite-micro wheel; ARMv6-M code runs on a Cortex-M3. EDGEQ_CASES layers of each kind on each core,
and the operators' own property tests on every core, if slow; a few layers by default.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import emulated
import numpy as np
import pytest
from bundles import Wheel
from hypothesis import assume, given
from hypothesis import strategies as st
from single import INT8, INT32, T, model, values
from test_operators import few, seeds, zeros

from edgeq.boards import load_board
from edgeq.codegen import plan
from edgeq.graph import Graph, write_bytes

OPERATORS = Path(__file__).parents[1] / "codegen"
VARIANTS = ("dsp", "mve", "armv6m", "armv7m", "scalar")
pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(not emulated.HAS_TOOLS, reason="needs qemu-system-arm, arm-none-eabi-gcc and gcc"),
]

channels = st.sampled_from([4, 8, 12, 16, 24, 32, 40, 1, 3, 5])
activations = st.sampled_from(["NONE", "RELU", "RELU6"])


def drawn_weights(shape: tuple[int, ...], seed: int, extreme: bool) -> np.ndarray:
    """Small noise, or every weight at an end of its range."""
    random = np.random.default_rng(seed)
    return random.choice([-127, 127], shape) if extreme else random.integers(-127, 128, shape)


@st.composite
def convolutions(draw: Any, kind: str) -> Graph:
    """`kind`: conv, pointwise or depthwise."""
    h, w, c = draw(st.integers(1, 12)), draw(st.integers(1, 14)), draw(channels)
    n = c if kind == "depthwise" else draw(channels)
    kh, kw = (1, 1) if kind == "pointwise" else draw(st.sampled_from([(3, 3), (3, 3), (5, 5), (1, 3), (3, 1), (2, 4)]))
    stride = draw(st.sampled_from([1, 1, 2]))
    same = kh > h or kw > w or draw(st.booleans())
    oh, ow = (-(-h // stride), -(-w // stride)) if same else (-(-(h - kh + 1) // stride), -(-(w - kw + 1) // stride))
    extreme, seed, activation = draw(st.booleans()), draw(seeds), draw(activations)
    random = np.random.default_rng(seed)
    depthwise = kind == "depthwise"
    shape = (1, kh, kw, c) if depthwise else (n, kh, kw, c)
    scales = random.uniform(0.001, 0.01, n)
    reach = (kh * kw * (1 if depthwise else c)) ** 0.5
    inputs = [
        T((1, h, w, c), INT8, 0.02, draw(zeros)),
        T(shape, INT8, scales, data=drawn_weights(shape, seed, extreme), axis=3 if depthwise else 0),
        T((n,), INT32, 0.02 * scales, data=random.integers(-20000, 20000, n)),
    ]
    result = T((1, oh, ow, n), INT8, float(random.uniform(0.2, 3.0)) * 0.02 * reach, draw(zeros))
    options = {
        "padding": "SAME" if same else "VALID", "stride_h": stride, "stride_w": stride, "dilation_h_factor": 1,
        "dilation_w_factor": 1, "fused_activation_function": activation,
    }  # fmt: skip
    if depthwise:
        return model("DEPTHWISE_CONV_2D", inputs, [result], options | {"depth_multiplier": 1}, 3)
    return model("CONV_2D", inputs, [result], options, 3)


@st.composite
def dense(draw: Any) -> Graph:
    rows, depth, units = draw(st.sampled_from([1, 1, 3])), draw(st.integers(1, 150)), draw(st.integers(1, 40))
    if draw(st.booleans()):
        depth, units = depth * 4, units * 4
    extreme, seed = draw(st.booleans()), draw(seeds)
    random = np.random.default_rng(seed)
    scales = random.uniform(0.001, 0.01, units) if draw(st.booleans()) else np.array([0.003])
    inputs = [
        T((rows, depth), INT8, 0.02, draw(zeros)),
        T((units, depth), INT8, scales, data=drawn_weights((units, depth), seed, extreme)),
        T((units,), INT32, 0.02 * scales, data=random.integers(-20000, 20000, units)),
    ]
    result = T((rows, units), INT8, float(random.uniform(0.2, 3.0)) * 0.02 * depth**0.5, draw(zeros))
    return model("FULLY_CONNECTED", inputs, [result], {"fused_activation_function": draw(activations)}, 4)


@st.composite
def sums(draw: Any) -> Graph:
    shape = (1, draw(st.integers(1, 7)), draw(st.integers(1, 7)), draw(channels))
    a, b, c = (T(shape, INT8, draw(st.floats(0.01, 0.2)), draw(zeros)) for _ in range(3))
    options = {"fused_activation_function": draw(activations), "pot_scale_int16": False}
    return model(draw(st.sampled_from(["ADD", "SUB"])), [a, b], [c], options, 2)


@st.composite
def averages(draw: Any) -> Graph:
    """Over the whole map, as a pool or as a mean."""
    h, w, c = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(channels)
    source = T((1, h, w, c), INT8, 0.02, draw(zeros))
    if draw(st.booleans()):
        axes = T((2,), INT32, data=[1, 2])
        result = T((1, c), INT8, draw(st.floats(0.01, 0.03)), draw(zeros))
        return model("MEAN", [source, axes], [result], {"keep_dims": False}, 2)
    options = {
        "padding": "VALID", "stride_h": h, "stride_w": w, "filter_height": h, "filter_width": w,
        "fused_activation_function": "NONE",
    }  # fmt: skip
    return model("AVERAGE_POOL_2D", [source], [T((1, 1, 1, c), INT8, 0.02, source.zero)], options, 2)


KINDS = {
    "conv": convolutions("conv"), "pointwise": convolutions("pointwise"), "depthwise": convolutions("depthwise"),
    "dense": dense(), "sum": sums(), "average": averages(),
}  # fmt: skip


def same_as_wheel(graph: Graph, board: str, optimize: str) -> None:
    low, high, *noise = (values(graph, kind) for kind in range(4))
    alternating = [np.resize(np.array([127, -128], np.int8), a.shape) for a in low]
    vectors = [low, high, alternating, *noise]
    with tempfile.TemporaryDirectory() as place:
        got = emulated.run(graph, vectors, board, Path(place), optimize)
    wheel = Wheel(write_bytes(graph), 1_000_000)
    for number, (vector, arrays) in enumerate(zip(vectors, got, strict=True)):
        np.testing.assert_array_equal(arrays[0], wheel.run(vector)[0].reshape(arrays[0].shape), f"input {number}")


def variants_equal_the_wheel(kind: str, board: str) -> None:
    """EDGEQ_CASES layers for which the board has a kernel of its own; the others take portable C, tested elsewhere."""

    @few
    @given(KINDS[kind], st.sampled_from(["speed", "speed", "balanced", "ram"]))
    def check(graph: Graph, optimize: str) -> None:
        kernel = plan(graph, load_board(board), name="model", optimize=optimize).steps[0].kernel
        assume(any(part in kernel for part in VARIANTS))
        same_as_wheel(graph, board, optimize)

    check()


PAIRS = [(kind, board) for kind in KINDS for board in emulated.BOARDS]
PAIRS = [pair for pair in PAIRS if pair not in {("average", "qemu-mps2-an385"), ("average", "raspberry-pi-pico")}]
FAST = [("conv", "qemu-mps3-an547"), ("depthwise", "qemu-mps2-an386")]


@pytest.mark.parametrize(
    ("kind", "board"), [pytest.param(*pair, marks=() if pair in FAST else pytest.mark.slow) for pair in PAIRS]
)
def test_random_layers(kind: str, board: str) -> None:
    variants_equal_the_wheel(kind, board)


@pytest.mark.parametrize("board", emulated.BOARDS)
def test_an_activation_that_leaves_one_result(board: str) -> None:
    """RELU at zero point 127: nothing is left to requantize, and the layer compiles."""
    graph = model(
        "CONV_2D",
        [
            T((1, 4, 4, 4), INT8, 0.02, 3),
            T((4, 1, 1, 4), INT8, [0.01] * 4, data=drawn_weights((4, 1, 1, 4), 1, False)),
            T((4,), INT32, [0.0002] * 4, data=[1, 2, 3, 4]),
        ],
        [T((1, 4, 4, 4), INT8, 0.1, 127)],
        {"padding": "SAME", "stride_h": 1, "stride_w": 1, "fused_activation_function": "RELU"},
        3,
    )
    same_as_wheel(graph, board, "speed")


@pytest.mark.parametrize("board", emulated.BOARDS)
@pytest.mark.parametrize(
    "file",
    [f"test_{name}.py" for name in ("operators", "operators_more", "movement", "indexing", "16x8", "beyond")],
)
@pytest.mark.slow
def test_operators_on_cores(file: str, board: str) -> None:
    """The property tests of all operators, whose bundles run on the core (EDGEQ_BOARD, see single.py)."""
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", str(OPERATORS / file)]
    settings = {"EDGEQ_BOARD": board, "EDGEQ_CASES": os.environ.get("EDGEQ_CASES", "2")}
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
