"""Property tests: every operator, random shapes and quantizations, byte-equal to the tflite-micro wheel."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from single import INT8, INT32, T, model, same_as_wheel

from edgeq.graph import Graph

CASES = int(os.environ.get("EDGEQ_CASES", "6"))
few = settings(
    max_examples=CASES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    database=None,
    phases=[Phase.generate],
)

scales = st.floats(1e-3, 0.5).map(lambda x: float(np.float32(x)))
zeros = st.one_of(st.integers(-128, 127), st.sampled_from([-128, 0, 127]))
sizes = st.integers(1, 7)
activations = st.sampled_from(["NONE", "RELU", "RELU6", "RELU_N1_TO_1"])
seeds = st.integers(0, 1 << 30)


def noise(seed: int, shape: tuple[int, ...], low: int = -127, high: int = 127) -> np.ndarray:
    generator = np.random.default_rng(seed)
    if seed % 5 == 0:
        return np.full(shape, (low, high)[seed % 2])
    return generator.integers(low, high, shape, endpoint=True)


@st.composite
def convolutions(draw: Any, depthwise: bool) -> Graph:
    h, w, c = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 5))
    kh, kw = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    sh, sw = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    dh, dw = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (2, 3)]))
    groups = 1 if depthwise else draw(st.sampled_from([1, 1, c]))
    outs = c * draw(st.integers(1, 3)) if depthwise or groups > 1 else draw(st.integers(1, 6))
    eh, ew = (kh - 1) * dh + 1, (kw - 1) * dw + 1
    same = eh > h or ew > w or draw(st.booleans())
    oh, ow = (-(-h // sh), -(-w // sw)) if same else (-(-(h - eh + 1) // sh), -(-(w - ew + 1) // sw))
    batches, seed = draw(st.integers(1, 2)), draw(seeds)
    source = T((batches, h, w, c), scale=draw(scales), zero=draw(zeros))
    factors = [draw(scales) for _ in range(outs)]
    shape = (1, kh, kw, outs) if depthwise else (outs, kh, kw, c // groups)
    weights = T(shape, scale=factors, data=noise(seed, shape), axis=3 if depthwise else 0)
    bias = T((outs,), INT32, scale=[f * source.scale for f in factors], data=noise(seed + 1, (outs,), -9000, 9000))
    result = T((batches, oh, ow, outs), scale=draw(scales), zero=draw(zeros))
    options = {
        "padding": "SAME" if same else "VALID",
        "stride_h": sh,
        "stride_w": sw,
        "dilation_h_factor": dh,
        "dilation_w_factor": dw,
        "fused_activation_function": draw(activations),
    }
    if depthwise:
        options["depth_multiplier"] = outs // c
    inputs = [source, weights, *([bias] if draw(st.booleans()) else [])]
    return model("DEPTHWISE_CONV_2D" if depthwise else "CONV_2D", inputs, [result], options, 3)


@few
@given(convolutions(False))
def test_conv_2d(graph: Graph) -> None:
    same_as_wheel(graph)


@few
@given(convolutions(True))
def test_depthwise_conv_2d(graph: Graph) -> None:
    same_as_wheel(graph)


@st.composite
def dense(draw: Any) -> Graph:
    rows, depth, units, seed = draw(st.integers(1, 3)), draw(st.integers(1, 40)), draw(st.integers(1, 9)), draw(seeds)
    source = T((rows, depth), scale=draw(scales), zero=draw(zeros))
    per_channel = draw(st.booleans())
    factors = [draw(scales) for _ in range(units if per_channel else 1)]
    weights = T((units, depth), scale=factors, data=noise(seed, (units, depth)))
    bias = T((units,), INT32, scale=[f * source.scale for f in factors], data=noise(seed + 1, (units,), -9000, 9000))
    result = T((rows, units), scale=draw(scales), zero=draw(zeros))
    inputs = [source, weights, *([bias] if draw(st.booleans()) else [])]
    return model("FULLY_CONNECTED", inputs, [result], {"fused_activation_function": draw(activations)}, 4)


@few
@given(dense())
def test_fully_connected(graph: Graph) -> None:
    same_as_wheel(graph)


@st.composite
def pools(draw: Any) -> Graph:
    h, w, c = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 5))
    kh, kw, sh, sw = (draw(st.integers(1, 4)) for _ in range(4))
    same = kh > h or kw > w or draw(st.booleans())
    oh, ow = (-(-h // sh), -(-w // sw)) if same else (-(-(h - kh + 1) // sh), -(-(w - kw + 1) // sw))
    scale, zero = draw(scales), draw(zeros)
    options = {
        "padding": "SAME" if same else "VALID",
        "stride_h": sh,
        "stride_w": sw,
        "filter_height": kh,
        "filter_width": kw,
        "fused_activation_function": draw(activations),
    }
    tensors = [T((1, h, w, c), scale=scale, zero=zero), T((1, oh, ow, c), scale=scale, zero=zero)]
    return model(draw(st.sampled_from(["AVERAGE_POOL_2D", "MAX_POOL_2D"])), tensors[:1], tensors[1:], options, 2)


@few
@given(pools())
def test_pool_2d(graph: Graph) -> None:
    same_as_wheel(graph)


@st.composite
def pairs(draw: Any, *, same_scale: bool = False, maximum_rank: int = 4) -> tuple[T, T, T]:
    """Two broadcastable tensors (one may be constant) and their result."""
    shape = tuple(draw(st.lists(sizes, min_size=1, max_size=maximum_rank)))
    kind, seed = draw(st.sampled_from(["same", "scalar", "mixed"])), draw(seeds)
    if kind == "mixed":
        small = tuple(d if draw(st.booleans()) else 1 for d in shape)
    else:
        small = shape if kind == "same" else (1,) * len(shape)
    scale, zero = draw(scales), draw(zeros)
    others = [(scale, zero) if same_scale else (draw(scales), draw(zeros)) for _ in range(2)]
    data = noise(seed, small, -128, 127) if draw(st.booleans()) else None
    a, b = T(shape, scale=scale, zero=zero), T(small, scale=others[0][0], zero=others[0][1], data=data)
    return (b, a) if draw(st.booleans()) else (a, b), T(shape, scale=others[1][0], zero=others[1][1])  # type: ignore


@few
@pytest.mark.parametrize("name", ["ADD", "SUB", "MUL", "SQUARED_DIFFERENCE"])
@given(case=pairs(), activation=activations)
def test_arithmetic(name: str, case: Any, activation: str) -> None:
    options = {} if name == "SQUARED_DIFFERENCE" else {"fused_activation_function": activation}
    same_as_wheel(model(name, case[0], [case[1]], options, 2))


@few
@pytest.mark.parametrize("name", ["MAXIMUM", "MINIMUM"])
@given(case=pairs(same_scale=True))
def test_extremum(name: str, case: Any) -> None:
    same_as_wheel(model(name, case[0], [case[1]], {}, 2))


@few
@given(sizes, sizes, sizes, scales, scales, scales, zeros, zeros, zeros, seeds)
def test_prelu(h: int, w: int, c: int, s0: float, s1: float, s2: float, z0: int, z1: int, z2: int, seed: int) -> None:
    alpha = T((1, 1, c), scale=s1, zero=z1, data=noise(seed, (1, 1, c), -128, 127))
    same_as_wheel(model("PRELU", [T((1, h, w, c), scale=s0, zero=z0), alpha], [T((1, h, w, c), scale=s2, zero=z2)]))


UNARY: dict[str, tuple[dict[str, Any], tuple[float, int] | None]] = {
    "RELU": ({}, None),
    "LEAKY_RELU": ({"alpha": 0.3}, None),
    "ABS": ({}, None),
    "HARD_SWISH": ({}, None),
    "LOGISTIC": ({}, (1 / 256, -128)),
    "TANH": ({}, (1 / 128, 0)),
    "QUANTIZE": ({}, None),
    "DEQUANTIZE": ({}, None),
}


@few
@pytest.mark.parametrize("name", UNARY)
@given(scale=scales, other=scales, zero=zeros, other_zero=zeros, count=st.integers(1, 30))
def test_unary(name: str, scale: float, other: float, zero: int, other_zero: int, count: int) -> None:
    options, fixed = UNARY[name]
    source = T((256,), scale=scale, zero=zero)
    result = T((256,), scale=fixed[0] if fixed else max(other, scale / 20), zero=fixed[1] if fixed else other_zero)
    if name == "DEQUANTIZE":
        from single import FLOAT32

        result = T((256,), FLOAT32)
    same_as_wheel(model(name, [source], [result], options))


@few
@given(scale=scales, other=scales, other_zero=zeros)
def test_rsqrt(scale: float, other: float, other_zero: int) -> None:
    graph = model("RSQRT", [T((64,), scale=scale, zero=-128)], [T((64,), scale=other, zero=other_zero)])
    same_as_wheel(graph)


@few
@given(
    rows=st.integers(1, 4), depth=st.integers(1, 30), scale=scales, zero=zeros, beta=st.sampled_from([1.0, 0.5, 2.0])
)
def test_softmax(rows: int, depth: int, scale: float, zero: int, beta: float) -> None:
    source, result = T((rows, depth), scale=scale, zero=zero), T((rows, depth), scale=1 / 256, zero=-128)
    same_as_wheel(model("SOFTMAX", [source], [result], {"beta": beta}))


@pytest.mark.parametrize("scale", [3.0, 15.9, 16.1, 31.9, 33.0, 1e30])
@pytest.mark.parametrize(("name", "result"), [("SOFTMAX", (1 / 256, -128)), ("LOG_SOFTMAX", (1 / 16, 127))])
def test_softmax_of_large_inputs(name: str, result: tuple[float, int], scale: float) -> None:
    """A mask of -1e38 may have been quantized."""
    tensors = T((3, 20), scale=scale), T((3, 20), scale=result[0], zero=result[1])
    same_as_wheel(model(name, tensors[:1], tensors[1:], {"beta": 1.0} if name == "SOFTMAX" else {}))


@few
@given(rows=st.integers(1, 4), depth=st.integers(1, 40), scale=st.floats(1e-4, 4.0), zero=zeros)
def test_log_softmax(rows: int, depth: int, scale: float, zero: int) -> None:
    source, result = T((rows, depth), scale=scale, zero=zero), T((rows, depth), scale=1 / 16, zero=127)
    same_as_wheel(model("LOG_SOFTMAX", [source], [result]), (0, 1, 2, 3, 4, 5))


@st.composite
def reductions(draw: Any, name: str) -> Graph:
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    axes = sorted(draw(st.sets(st.integers(0, len(shape) - 1), min_size=1)))
    keep = draw(st.booleans())
    out = tuple(1 if a in axes else d for a, d in enumerate(shape) if keep or a not in axes)
    scale, zero = draw(scales), draw(zeros)
    extremum = name.startswith("REDUCE")
    source = T(shape, scale=scale, zero=zero)
    result = T(out or (1,), scale=scale if extremum else draw(scales), zero=zero if extremum else draw(zeros))
    axis = T((len(axes),), INT32, data=axes)
    return model(name, [source, axis], [result], {"keep_dims": keep})


@few
@pytest.mark.parametrize("name", ["MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"])
@given(data=st.data())
def test_reduction(name: str, data: Any) -> None:
    same_as_wheel(data.draw(reductions(name)))


@few
@pytest.mark.parametrize("kind", [INT8])
@given(st.floats(0.001, 2), zeros)
def test_quantize_float(kind: Any, scale: float, zero: int) -> None:
    from single import FLOAT32

    same_as_wheel(model("QUANTIZE", [T((50,), FLOAT32)], [T((50,), kind, scale=scale, zero=zero)]), (0, 1, 2, 3, 4))
