"""int16 activations with int8 weights: byte-equal to the tflite-micro wheel."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
import pytest
from bundles import Wheel
from hypothesis import given
from hypothesis import strategies as st
from single import FLOAT32, INT8, INT16, INT32, T, model, outputs_of, run, same_as_wheel, values
from test_operators import activations, convolutions, dense, few, pairs, scales
from test_operators_more import transposed_convolutions

from edgeq.graph import Graph, TensorType, read_bytes, write_bytes


def ints(values: Any) -> T:
    data = np.asarray(values, np.int32)
    return T(data.shape, INT32, data=data)


def widened(graph: Graph, bias: TensorType = TensorType.INT64) -> Graph:
    """The same operator with int16 activations: zero points 0, smaller scales, biases of the given type."""
    operator = graph.operators[0]
    tensors = []
    for tensor in graph.tensors:
        if tensor.type is TensorType.INT32 and tensor.index == operator.inputs[-1] and len(operator.inputs) >= 3:
            data = None if tensor.data is None else np.asarray(tensor.data).astype(bias.dtype)
            scale = tuple(float(np.float32(s / 256)) for s in tensor.quantization.scale)
            quantization = replace(tensor.quantization, scale=scale)
            tensors.append(replace(tensor, type=bias, data=data, quantization=quantization))
        elif tensor.type is INT8 and tensor.data is None:
            quantization = replace(tensor.quantization, scale=(float(np.float32(tensor.scale / 256)),), zero_point=(0,))
            tensors.append(replace(tensor, type=INT16, quantization=quantization))
        else:
            tensors.append(tensor)
    return read_bytes(write_bytes(replace(graph, tensors=tuple(tensors), subgraphs=())))


WITH_WEIGHTS = {
    "conv": convolutions(False),
    "depthwise": convolutions(True),
    "fc": dense(),
    "transpose": transposed_convolutions(),
}


@pytest.mark.parametrize("kind", WITH_WEIGHTS.values(), ids=WITH_WEIGHTS.keys())
@few
@given(data=st.data())
def test_with_weights(kind: Any, data: Any) -> None:
    same_as_wheel(widened(data.draw(kind)))


@pytest.mark.parametrize("kind", WITH_WEIGHTS.values(), ids=WITH_WEIGHTS.keys())
@few
@given(data=st.data())
def test_with_a_bias_of_32_bits(kind: Any, data: Any) -> None:
    """TFLM honours it in CONV_2D; elsewhere it reads two values as one, so there the result is that of 64 bits."""
    graph = data.draw(kind)
    narrow = widened(graph, INT32)
    if graph.operators[0].name == "CONV_2D":
        same_as_wheel(narrow)
        return
    for mine, theirs in zip(outputs_of(narrow, (0, 1, 2)), outputs_of(widened(graph), (0, 1, 2)), strict=True):
        np.testing.assert_array_equal(mine[0], theirs[0])


def wide(tensor: T) -> T:
    data = None if tensor.data is None else np.asarray(tensor.data) * 250
    return replace(tensor, type=INT16, scale=float(np.float32(tensor.scale / 256)), zero=0, data=data)


@pytest.mark.parametrize("name", ["ADD", "SUB", "MUL"])
@few
@given(case=pairs(), activation=activations)
def test_arithmetic(name: str, case: Any, activation: str) -> None:
    tensors = [wide(t) for t in case[0]]
    same_as_wheel(model(name, tensors, [wide(case[1])], {"fused_activation_function": activation}, 4))


@few
@given(case=pairs())
def test_squared_difference(case: Any) -> None:
    same_as_wheel(model("SQUARED_DIFFERENCE", [wide(t) for t in case[0]], [wide(case[1])], {}, 2))


@pytest.mark.parametrize("name", ["RELU", "LEAKY_RELU", "ABS"])
@few
@given(a=scales, ratio=st.floats(0.01, 3.0), same=st.booleans(), alpha=st.sampled_from([0.0, 0.01, 0.3, 1.5]))
def test_two_slopes(name: str, a: float, ratio: float, same: bool, alpha: float) -> None:
    source = T((4096,), INT16, scale=a / 256)
    result = T((4096,), INT16, scale=source.scale if same else float(np.float32(source.scale * ratio)))
    same_as_wheel(model(name, [source], [result], {"alpha": alpha} if name == "LEAKY_RELU" else {}))


@few
@given(a=scales, ratio=st.floats(0.002, 1.0))
def test_rsqrt(a: float, ratio: float) -> None:
    """Every positive value, and 0."""
    source = T((32768,), INT16, scale=float(np.float32(a / 256)))
    result = replace(source, scale=float(np.float32(ratio / source.scale**0.5 / 32767)))
    graph, fed = model("RSQRT", [source], [result]), np.arange(32768).astype(np.int16)
    got = run(graph, [[fed]])[0][0]
    np.testing.assert_array_equal(got, Wheel(write_bytes(graph)).run([fed])[0].reshape(got.shape))


@pytest.mark.parametrize("name", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
@few
@given(h=st.integers(2, 9), w=st.integers(2, 9), scale=scales, activation=activations)
def test_pool(name: str, h: int, w: int, scale: float, activation: str) -> None:
    source, result = T((1, h, w, 3), INT16, scale=scale), T((1, h - 1, w - 1, 3), INT16, scale=scale)
    options = {"padding": "VALID", "stride_h": 1, "stride_w": 1, "filter_height": 2, "filter_width": 2}
    same_as_wheel(model(name, [source], [result], {**options, "fused_activation_function": activation}, 3))


@few
@given(a=scales, b=scales)
def test_quantize_and_dequantize(a: float, b: float) -> None:
    wide_tensor, narrow = T((64,), INT16, scale=a / 256), T((64,), INT8, scale=b, zero=7)
    same_as_wheel(model("QUANTIZE", [wide_tensor], [narrow]))
    same_as_wheel(model("QUANTIZE", [wide_tensor], [T((64,), INT16, scale=b / 256)]))
    same_as_wheel(model("QUANTIZE", [T((64,), FLOAT32)], [wide_tensor]))
    same_as_wheel(model("DEQUANTIZE", [wide_tensor], [T((64,), FLOAT32)]))


@few
@given(rows=st.integers(1, 5), depth=st.integers(1, 9), a=scales, b=scales)
def test_mean(rows: int, depth: int, a: float, b: float) -> None:
    axis = T((1,), TensorType.INT32, data=[1])
    tensors = [T((1, rows, depth), INT16, scale=a / 256), axis]
    same_as_wheel(model("MEAN", tensors, [T((1, depth), INT16, scale=b / 256)], {"keep_dims": False}))


@few
@given(rows=st.integers(1, 4), depth=st.integers(1, 30), scale=st.floats(1e-5, 3e-3), beta=st.sampled_from([1.0, 0.5]))
def test_softmax(rows: int, depth: int, scale: float, beta: float) -> None:
    tensors = [T((rows, depth), INT16, scale=scale)], [T((rows, depth), INT16, scale=2.0**-15)]
    same_as_wheel(model("SOFTMAX", *tensors, {"beta": beta}), (0, 1, 2, 3, 4, 5))


@pytest.mark.parametrize("name", ["MAXIMUM", "MINIMUM"])
@few
@given(case=pairs(same_scale=True))
def test_extremum(name: str, case: Any) -> None:
    same_as_wheel(model(name, [wide(t) for t in case[0]], [wide(case[1])], {}, 3))


@few
@given(m=st.integers(1, 6), k=st.integers(1, 12), n=st.integers(1, 6), a=scales, b=scales, c=scales, data=st.data())
def test_batch_matmul(m: int, k: int, n: int, a: float, b: float, c: float, data: Any) -> None:
    adjoint = data.draw(st.booleans()), data.draw(st.booleans())
    left = T((2, k, m) if adjoint[0] else (2, m, k), INT16, scale=a / 256)
    right = T((2, n, k) if adjoint[1] else (2, k, n), INT16, scale=b / 256)
    result = T((2, m, n), INT16, scale=c / 256)
    same_as_wheel(model("BATCH_MATMUL", [left, right], [result], {"adj_x": adjoint[0], "adj_y": adjoint[1]}, 4))


@few
@given(data=st.data())
def test_sum(data: Any) -> None:
    rows, depth = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 9))
    a, b, keep = data.draw(scales), data.draw(scales), data.draw(st.booleans())
    axis = T((1,), TensorType.INT32, data=[1])
    out = (1, 1, depth) if keep else (1, depth)
    graph = model("SUM", [T((1, rows, depth), INT16, scale=a / 256), axis], [T(out, INT16, scale=b / 256)])
    same_as_wheel(replace(graph, operators=(replace(graph.operators[0], options={"keep_dims": keep}),)))


INTS = st.integers(1, 9)


@few
@given(h=INTS, w=INTS, oh=INTS, ow=INTS, mode=st.sampled_from([0, 1, 2]))
def test_resize_bilinear(h: int, w: int, oh: int, ow: int, mode: int) -> None:
    """In fractions, rounded half away from zero: TFLM has none in int16."""
    options = {"align_corners": mode == 1, "half_pixel_centers": mode == 2}
    tensors = [T((2, h, w, 3), INT16, scale=1e-4), ints([oh, ow])]
    graph = model("RESIZE_BILINEAR", tensors, [T((2, oh, ow, 3), INT16, scale=1e-4)], options, 3)
    fed, got = values(graph, 2)[0].astype(int), outputs_of(graph, (2,))[0][0]

    def weights(size: int, out: int) -> list[list[Fraction]]:
        """How much each source position counts at each output position."""
        rows = []
        for i in range(out):
            at = Fraction(i * (size - 1), out - 1) if mode == 1 and out > 1 else Fraction(i * size, out)
            at = Fraction((2 * i + 1) * size - out, 2 * out) if mode == 2 else at
            at = min(max(at, Fraction(0)), Fraction(size - 1))
            rows.append([max(Fraction(0), 1 - abs(at - k)) for k in range(size)])
        return rows

    exact = np.einsum("yi,xj,bijc->byxc", np.array(weights(h, oh)), np.array(weights(w, ow)), fed.astype(object))
    nearest = np.vectorize(lambda v: floor(abs(v) + Fraction(1, 2)) * (1 if v > 0 else -1))(exact)
    np.testing.assert_array_equal(got, nearest)


SCALE = {"type": INT16, "scale": 1e-4}
MOVES: dict[str, tuple[list[Any], tuple[int, ...], dict[str, Any], Any]] = {
    "GATHER": ([[2, 0, 2]], (2, 4, 3, 3), {"axis": 2}, lambda x: x[:, :, [2, 0, 2]]),
    "GATHER_ND": ([[[1, 0], [0, 3]]], (2, 3, 3), {}, lambda x: x[[1, 0], [0, 3]]),
    "PAD": (
        [[[0, 0], [1, 2], [0, 1], [0, 0]]],
        (2, 7, 4, 3),
        {},
        lambda x: np.pad(x, [(0, 0), (1, 2), (0, 1), (0, 0)]),
    ),
    "MIRROR_PAD": (
        [[[0, 0], [1, 2], [0, 1], [0, 0]]],
        (2, 7, 4, 3),
        {"mode": "REFLECT"},
        lambda x: np.pad(x, [(0, 0), (1, 2), (0, 1), (0, 0)], mode="reflect"),
    ),
    "SPACE_TO_BATCH_ND": (
        [[2, 1], [[0, 0], [0, 0]]],
        (4, 2, 3, 3),
        {},
        lambda x: np.concatenate([x[:, 0::2], x[:, 1::2]]),
    ),
    "BATCH_TO_SPACE_ND": (
        [[2, 1], [[0, 0], [0, 0]]],
        (1, 8, 3, 3),
        {},
        lambda x: np.stack([x[0], x[1]], 1).reshape(1, 8, 3, 3),
    ),
    "TILE": ([[1, 2, 1, 2]], (2, 8, 3, 6), {}, lambda x: np.tile(x, (1, 2, 1, 2))),
    "REVERSE_V2": ([[1]], (2, 4, 3, 3), {}, lambda x: x[:, ::-1]),
    "TRANSPOSE": ([[3, 1, 0, 2]], (3, 4, 2, 3), {}, lambda x: x.transpose(3, 1, 0, 2)),
    "REDUCE_MAX": ([[1, 2]], (2, 3), {"keep_dims": False}, lambda x: x.max((1, 2))),
    "REDUCE_MIN": ([[1, 2]], (2, 3), {"keep_dims": False}, lambda x: x.min((1, 2))),
}


@pytest.mark.parametrize("name", MOVES)
def test_moves(name: str) -> None:
    """Operators that copy or pick int16 values, against numpy; for some of them TFLM has no kernel."""
    constants, shape, options, expected = MOVES[name]
    graph = model(name, [T((2, 4, 3, 3), **SCALE), *map(ints, constants)], [T(shape, **SCALE)], options)
    for kind, (got,) in zip((2, 3), outputs_of(graph, (2, 3)), strict=True):
        np.testing.assert_array_equal(got, expected(values(graph, kind)[0]))


def test_padv2() -> None:
    tensors = [T((2, 3), **SCALE), ints([[1, 0], [0, 2]]), T((1,), data=[-777], **SCALE)]
    graph = model("PADV2", tensors, [T((3, 5), **SCALE)])
    expected = np.pad(values(graph, 2)[0], [(1, 0), (0, 2)], constant_values=-777)
    np.testing.assert_array_equal(outputs_of(graph, (2,))[0][0], expected)
    same_as_wheel(graph)
