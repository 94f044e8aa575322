"""Property tests of the operators of matrices, choice and resizing, against the tflite-micro wheel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bundles import Wheel
from hypothesis import given
from hypothesis import strategies as st
from single import FLOAT32, INT8, INT16, INT32, T, model, outputs_of, run, same_as_wheel, values
from test_operators import activations, few, noise, pairs, scales, seeds, sizes, zeros

from edgeq.graph import Graph, TensorType, write_bytes
from edgeq.interpreter import Interpreter

BOOL = TensorType.BOOL


def ints(values: list[int]) -> T:
    return T((len(values),), INT32, data=values)


@st.composite
def transposed_convolutions(draw: Any) -> Graph:
    h, w, c, outs = (draw(st.integers(1, 5)) for _ in range(4))
    kh, kw, sh, sw = (draw(st.integers(1, 4)) for _ in range(4))
    same = draw(st.booleans())
    oh, ow = (h * sh, w * sw) if same else ((h - 1) * sh + kh, (w - 1) * sw + kw)
    source, seed = T((1, h, w, c), scale=draw(scales), zero=draw(zeros)), draw(seeds)
    factors = [draw(scales) for _ in range(outs)]
    weights = T((outs, kh, kw, c), scale=factors, data=noise(seed, (outs, kh, kw, c)))
    bias = T((outs,), INT32, scale=[f * source.scale for f in factors], data=noise(seed + 1, (outs,), -9000, 9000))
    result = T((1, oh, ow, outs), scale=draw(scales), zero=draw(zeros))
    options = {"padding": "SAME" if same else "VALID", "stride_h": sh, "stride_w": sw}
    inputs = [ints([1, oh, ow, outs]), weights, source, *([bias] if draw(st.booleans()) else [])]
    return model("TRANSPOSE_CONV", inputs, [result], options, 3)


@few
@given(transposed_convolutions())
def test_transpose_conv(graph: Graph) -> None:
    same_as_wheel(graph)


@few
@given(st.data())
def test_batch_matmul(data: Any) -> None:
    draw = data.draw
    m, k, n = draw(st.integers(1, 6)), draw(st.integers(1, 12)), draw(st.integers(1, 6))
    lead = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    adjoint = draw(st.booleans()), draw(st.booleans())
    a = T((*lead, *((k, m) if adjoint[0] else (m, k))), scale=draw(scales), zero=draw(zeros))
    b = T((*lead, *((n, k) if adjoint[1] else (k, n))), scale=draw(scales), zero=draw(zeros))
    result = T((*lead, m, n), scale=draw(scales), zero=draw(zeros))
    same_as_wheel(model("BATCH_MATMUL", [a, b], [result], {"adj_x": adjoint[0], "adj_y": adjoint[1]}, 4))


@few
@given(st.data())
def test_fully_connected_with_computed_weights(data: Any) -> None:
    draw = data.draw
    rows, depth, units = draw(st.integers(1, 4)), draw(st.integers(1, 12)), draw(st.integers(1, 6))
    tensors = T((rows, depth), scale=draw(scales), zero=draw(zeros)), T((units, depth), scale=draw(scales), zero=0)
    result = T((rows, units), scale=draw(scales), zero=draw(zeros))
    same_as_wheel(model("FULLY_CONNECTED", tensors, [result], {"fused_activation_function": draw(activations)}, 4))


@few
@given(st.integers(1, 4), st.integers(1, 20), scales, zeros)
def test_l2_normalization(rows: int, depth: int, scale: float, zero: int) -> None:
    graph = model(
        "L2_NORMALIZATION", [T((rows, depth), scale=scale, zero=zero)], [T((rows, depth), scale=1 / 128)], {}, 2
    )
    same_as_wheel(graph, (0, 1, 2, 3, 4))


@few
@pytest.mark.parametrize("name", ["EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL"])
@given(case=pairs())
def test_comparison(name: str, case: Any) -> None:
    same_as_wheel(model(name, case[0], [T(case[1].shape, BOOL)], {}, 2))


@few
@given(scales, scales, scales, zeros, zeros, zeros, st.booleans())
def test_div(a: float, b: float, c: float, a_zero: int, b_zero: int, c_zero: int, near_one: bool) -> None:
    """Every numerator and denominator. Where TFLM would shift by more than 31 bits, it asserts: the result is 0."""
    c = float(np.float32(a / b)) if near_one else c
    q = np.arange(-128, 128)
    x, y = (v.reshape(-1) for v in np.meshgrid(q, q[q != b_zero], indexing="ij"))
    fed = [x.astype(np.int8), y.astype(np.int8)]
    tensors = T(x.shape, scale=a, zero=a_zero), T(x.shape, scale=b, zero=b_zero), T(x.shape, scale=c, zero=c_zero)
    graph = model("DIV", tensors[:2], tensors[2:], {}, 2)
    got = run(graph, [fed])[0][0]
    theirs = Wheel(write_bytes(graph)).run(fed)[0].reshape(got.shape)
    real = (x - a_zero) / (y - b_zero) * (a / b / c)
    sign = np.where(y < b_zero, -1, 1)
    headroom = np.array([31 - int(v if v >= 0 else ~v).bit_length() for v in (x - a_zero) * sign])
    bits = np.array([int(v).bit_length() - 1 for v in abs(y - b_zero)])
    defined = headroom + bits - np.frexp(a / (b * c))[1] <= 31
    np.testing.assert_array_equal(got[defined], theirs[defined])
    assert (abs(real[~defined]) < 0.5).all()
    assert (got[~defined] == c_zero).all()


@few
@given(case=pairs())
def test_div_broadcasts(case: Any) -> None:
    """As the same values written out."""
    (a, b), result = case
    a, b = replace(a, data=noise(1, a.shape, -128, 127)), replace(b, data=None)
    graph = model("DIV", [a, b], [result], {}, 2)
    fed = values(graph, 2)[0]
    wide = [replace(t, shape=result.shape, data=np.broadcast_to(d, result.shape)) for t, d in ((a, a.data), (b, fed))]
    spread = model("DIV", [wide[0], replace(wide[1], data=None)], [result], {}, 2)
    np.testing.assert_array_equal(run(graph, [[fed]])[0][0], run(spread, [[wide[1].data]])[0][0])


@few
@given(scales, scales, st.integers(-127, 100), zeros)
def test_rsqrt_of_positive_values(scale: float, other: float, zero: int, other_zero: int) -> None:
    graph = model("RSQRT", [T((127 - zero,), scale=scale, zero=zero)], [T((127 - zero,), scale=other, zero=other_zero)])
    fed = np.arange(zero + 1, 128).astype(np.int8)
    got = run(graph, [[fed]])[0][0]
    np.testing.assert_array_equal(got, Wheel(write_bytes(graph)).run([fed])[0].reshape(got.shape))


@few
@pytest.mark.parametrize("name", ["ARG_MAX", "ARG_MIN"])
@given(shape=st.lists(st.integers(1, 6), min_size=1, max_size=4), data=st.data(), scale=scales)
def test_arg_extremum(name: str, shape: list[int], data: Any, scale: float) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    out = tuple(d for a, d in enumerate(shape) if a != axis) or (1,)
    axis_tensor = T((1,), INT32, data=[axis])
    same_as_wheel(model(name, [T(tuple(shape), scale=scale), axis_tensor], [T(out, INT32)], {"output_type": "INT32"}))


@few
@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 9), st.integers(1, 9), st.sampled_from([0, 1, 2]))
def test_resize_bilinear(h: int, w: int, oh: int, ow: int, mode: int) -> None:
    options = {"align_corners": mode == 1, "half_pixel_centers": mode == 2}
    tensors = [T((1, h, w, 3), scale=0.1), ints([oh, ow])]
    same_as_wheel(model("RESIZE_BILINEAR", tensors, [T((1, oh, ow, 3), scale=0.1)], options, 3))


@few
@pytest.mark.parametrize("name", ["ADD", "SUB", "MUL"])
@given(case=pairs(), activation=activations)
def test_integers(name: str, case: Any, activation: str) -> None:
    """int32 without a scale, the whole range of values (in MUL their product wraps)."""
    tensors = [T(t.shape, INT32, data=t.data) for t in (*case[0], case[1])]
    graph = model(name, tensors[:2], tensors[2:], {"fused_activation_function": activation})
    expected = {"ADD": np.add, "SUB": np.subtract, "MUL": np.multiply}[name]
    bounds = {"RELU": (0, None), "RELU6": (0, 6), "RELU_N1_TO_1": (-1, 1)}.get(activation, (None, None))
    fed = iter(values(graph, 2))
    operands = [np.asarray(t.data, np.int32) if t.data is not None else next(fed) for t in tensors[:2]]
    exact = expected(*operands)
    np.testing.assert_array_equal(outputs_of(graph, (2,))[0][0], exact if bounds[0] is None else exact.clip(*bounds))
    if activation == "NONE":  # TFLM forgets the activation
        same_as_wheel(graph, (2,))


@few
@given(case=pairs(same_scale=True), seed=seeds)
def test_select(case: Any, seed: int) -> None:
    (a, b), result = case
    condition = T(result.shape, BOOL, data=noise(seed, result.shape, 0, 1))
    same_as_wheel(model("SELECT_V2", [condition, a, b], [result]))


@few
@pytest.mark.parametrize("target", [INT8, INT16, INT32, FLOAT32, BOOL])
@pytest.mark.parametrize("source", [INT8, INT16, INT32, FLOAT32, BOOL])
@given(count=st.integers(2, 9))
def test_cast(source: TensorType, target: TensorType, count: int) -> None:
    if source is target:
        return
    graph = model("CAST", [T((count,), source)], [T((count,), target)])
    if BOOL not in (source, target):
        same_as_wheel(graph, (2, 3))
        return
    fed = np.resize(np.array([0, 1], source.dtype), count) if source is BOOL else values(graph, 2)[0]
    fed[0] = 0
    np.testing.assert_array_equal(run(graph, [[fed]])[0][0], fed.astype(bool).astype(target.dtype))


@few
@given(st.integers(2, 5), st.lists(sizes, min_size=1, max_size=3), scales, scales, zeros)
def test_add_n(count: int, shape: list[int], a: float, b: float, out_zero: int) -> None:
    """Zero point 0: TFLM starts the sum at minus the zero point, which is wrong for any other."""
    inputs = [T(tuple(shape), scale=a) for _ in range(count)]
    same_as_wheel(model("ADD_N", inputs, [T(tuple(shape), scale=max(b, a / 100), zero=out_zero)]))


@few
@given(st.lists(sizes, min_size=1, max_size=3), scales, scales, zeros, st.data())
def test_cumsum(shape: list[int], a: float, b: float, out_zero: int, data: Any) -> None:
    """Zero point 0, as above."""
    axis = data.draw(st.integers(0, len(shape) - 1))
    options = {"exclusive": data.draw(st.booleans()), "reverse": data.draw(st.booleans())}
    result = T(tuple(shape), scale=max(b, a / 100), zero=out_zero)
    same_as_wheel(model("CUMSUM", [T(tuple(shape), scale=a), ints([axis])], [result], options))


@few
@given(st.integers(2, 5), zeros, zeros)
def test_sums_with_a_zero_point(count: int, zero: int, out_zero: int) -> None:
    """Equal scales: the sum of what the inputs stand for, exactly."""
    given_n = [T((9,), scale=0.1, zero=zero) for _ in range(count)]
    graph = model("ADD_N", given_n, [T((9,), scale=0.1, zero=out_zero)])
    total = sum(v.astype(int) - zero for v in values(graph, 2)) + out_zero
    np.testing.assert_array_equal(outputs_of(graph, (2,))[0][0], np.clip(total, -128, 127))
    graph = model("CUMSUM", [T((9,), scale=0.1, zero=zero), ints([0])], [T((9,), scale=0.1, zero=out_zero)], {})
    total = np.cumsum(values(graph, 2)[0].astype(int) - zero) + out_zero
    np.testing.assert_array_equal(outputs_of(graph, (2,))[0][0], np.clip(total, -128, 127))


@few
@given(st.integers(17, 3000), st.floats(1e-3, 1e3), zeros, zeros, st.booleans())
def test_long_sums(count: int, ratio: float, zero: int, out_zero: int, reverse: bool) -> None:
    """Beyond 16 values, where TFLM's sums overflow: the nearest value, or where that is nearly a tie, one of two."""
    scale = float(np.float32(0.1 / ratio))
    graph = model(
        "CUMSUM",
        [T((count,), scale=0.1, zero=zero), ints([0])],
        [T((count,), scale=scale, zero=out_zero)],
        {"reverse": reverse},
    )
    steps = values(graph, 2)[0].astype(np.float64)[:: -1 if reverse else 1] - zero
    exact = np.cumsum(steps)[:: -1 if reverse else 1] * float(np.float32(0.1)) / scale
    inside = (exact > -127 - out_zero) & (exact < 126 - out_zero)
    got = outputs_of(graph, (2,))[0][0].astype(np.float64) - out_zero
    assert np.all(np.abs(got - exact)[inside] < 0.501)
    assert np.all((got == 127 - out_zero)[exact > 128 - out_zero])
    assert np.all((got == -128 - out_zero)[exact < -129 - out_zero])


@pytest.mark.parametrize("name", ["REDUCE_ALL", "REDUCE_ANY"])
@few
@given(shape=st.lists(sizes, min_size=1, max_size=4), seed=seeds, data=st.data())
def test_reduce_logical(name: str, shape: list[int], seed: int, data: Any) -> None:
    axes = tuple(sorted(data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))))
    result = T(tuple(d for a, d in enumerate(shape) if a not in axes), BOOL)
    graph = model(name, [T(tuple(shape), BOOL), ints(list(axes))], [result], {"keep_dims": False})
    often = 0.1 if name == "REDUCE_ANY" else 0.9
    fed = np.random.default_rng(seed).random(shape) < often
    got = run(graph, [[fed]])[0][0]
    np.testing.assert_array_equal(got, fed.all(axes) if name == "REDUCE_ALL" else fed.any(axes))
    np.testing.assert_array_equal(got, Interpreter(write_bytes(graph)).run([fed])[0])
