"""TOPK_V2, ONE_HOT, GATHER_ND, DYNAMIC_UPDATE_SLICE and REDUCE_PROD: against the wheel, LiteRT or exact arithmetic."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
import pytest
from bundles import Wheel
from hypothesis import assume, given
from hypothesis import strategies as st
from single import INT8, INT16, INT32, T, model, outputs_of, run, values
from test_operators import few, scales, seeds, zeros

from edgeq.graph import TensorType, write_bytes
from edgeq.interpreter import Interpreter

SCALE = {"scale": 0.25, "zero": -3}
shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


def ints(values: Any) -> T:
    data = np.asarray(values, np.int32)
    return T(data.shape, INT32, data=data)


@few
@pytest.mark.parametrize("type_", [INT8, INT16])
@given(shape=shapes, data=st.data(), seed=seeds)
def test_top_k(type_: TensorType, shape: tuple[int, ...], data: Any, seed: int) -> None:
    """Few different values: equal ones are ordered by position."""
    k = data.draw(st.integers(1, shape[-1]))
    out = (*shape[:-1], k)
    result = T(out, type_, scale=0.25), T(out, INT32)
    graph = model("TOPK_V2", [T(shape, type_, scale=0.25), ints([k])], result)
    fed = np.random.default_rng(seed).integers(-3, 3, shape).astype(type_.dtype)
    order = np.argsort(-fed.astype(int), axis=-1, kind="stable")[..., :k]
    got = run(graph, [[fed]])[0]
    np.testing.assert_array_equal(got[1], order)
    np.testing.assert_array_equal(got[0], np.take_along_axis(fed, order, -1))
    if type_ is INT8:
        for mine, theirs in zip(got, Interpreter(write_bytes(graph)).run([fed]), strict=True):
            np.testing.assert_array_equal(mine, theirs)


@few
@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple), depth=st.integers(1, 6), data=st.data())
def test_one_hot(shape: tuple[int, ...], depth: int, data: Any) -> None:
    """Indices outside of the depth give no mark."""
    axis = data.draw(st.integers(-1, len(shape)))
    at = len(shape) if axis < 0 else axis
    kind = data.draw(st.sampled_from([INT8, INT32]))
    quantized = SCALE if kind is INT8 else {}
    marks = [T((), kind, data=[value], **quantized) for value in (7, -5)]
    result = T((*shape[:at], depth, *shape[at:]), kind, **quantized)
    graph = model("ONE_HOT", [T(shape, INT32), ints(depth), *marks], [result], {"axis": axis})
    fed = np.random.default_rng(depth).integers(-1, depth + 1, shape).astype(np.int32)
    np.testing.assert_array_equal(run(graph, [[fed]])[0][0], Interpreter(write_bytes(graph)).run([fed])[0])


@few
@given(shape=shapes, count=st.integers(1, 4), data=st.data())
def test_gather_in_batches(shape: tuple[int, ...], count: int, data: Any) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    batch = data.draw(st.integers(0, axis))
    where = (*shape[:batch], count)
    picked = np.random.default_rng(count).integers(0, shape[axis], where).astype(np.int32)
    result = T((*shape[:axis], count, *shape[axis + 1 :]), **SCALE)
    options = {"axis": axis, "batch_dims": batch}
    graph = model("GATHER", [T(shape, **SCALE), T(where, INT32)], [result], options)
    fed = [values(graph, 2)[0], picked]
    got = run(graph, [fed])[0][0]
    np.testing.assert_array_equal(got, Wheel(write_bytes(graph)).run(fed)[0].reshape(got.shape))


def test_embedding_lookup() -> None:
    table = T((7, 4), data=np.arange(28), **SCALE)
    graph = model("EMBEDDING_LOOKUP", [T((3,), INT32), table], [T((3, 4), **SCALE)])
    fed = [np.array([6, 0, 2], np.int32)]
    got = run(graph, [fed])[0][0]
    np.testing.assert_array_equal(got, Wheel(write_bytes(graph)).run(fed)[0].reshape(got.shape))


def test_fill() -> None:
    """TFLM's ZEROS_LIKE writes 0 also where the zero point stands for it."""
    graph = model("FILL", [ints([2, 3]), T((), data=[7], **SCALE)], [T((2, 3), **SCALE)])
    np.testing.assert_array_equal(outputs_of(graph, (2,))[0][0], np.full((2, 3), 7))
    graph = model("FILL", [ints([5]), T((), INT8, **SCALE)], [T((5,), **SCALE)])
    np.testing.assert_array_equal(run(graph, [[np.array(-9, np.int8)]])[0][0], np.full(5, -9))
    graph = model("ZEROS_LIKE", [T((2, 3), **SCALE)], [T((2, 3), **SCALE)])
    np.testing.assert_array_equal(outputs_of(graph, (2,))[0][0], np.full((2, 3), -3))


@few
@given(shape=shapes, lead=st.lists(st.integers(1, 4), max_size=2), data=st.data(), constant=st.booleans())
def test_gather_nd(shape: tuple[int, ...], lead: list[int], data: Any, constant: bool) -> None:
    rank = data.draw(st.integers(1, len(shape)))
    generator = np.random.default_rng(rank)
    picked = np.stack([generator.integers(0, d, lead) for d in shape[:rank]], -1).astype(np.int32)
    result = T((*lead, *shape[rank:]), **SCALE)
    where = ints(picked) if constant else T(picked.shape, INT32)
    graph = model("GATHER_ND", [T(shape, **SCALE), where], [result])
    fed = values(graph, 2)[:1] + ([] if constant else [picked])
    got = run(graph, [fed])[0][0]
    np.testing.assert_array_equal(got, fed[0][tuple(np.moveaxis(picked, -1, 0))])
    np.testing.assert_array_equal(got, Wheel(write_bytes(graph)).run(fed)[0].reshape(got.shape))


@few
@given(shape=shapes, data=st.data(), constant=st.booleans())
def test_dynamic_update_slice(shape: tuple[int, ...], data: Any, constant: bool) -> None:
    """A start from which the update would not fit is moved."""
    size = tuple(data.draw(st.integers(1, d)) for d in shape)
    start = np.array([data.draw(st.integers(-1, d)) for d in shape], np.int32)
    where = ints(start) if constant else T(start.shape, INT32)
    graph = model("DYNAMIC_UPDATE_SLICE", [T(shape, **SCALE), T(size, **SCALE), where], [T(shape, **SCALE)])
    fed = values(graph, 2)[:2] + ([] if constant else [start])
    got = run(graph, [fed])[0][0]
    np.testing.assert_array_equal(got, Wheel(write_bytes(graph)).run(fed)[0].reshape(got.shape))


@few
@given(rows=st.integers(1, 4), count=st.integers(1, 12), seed=seeds, zero=zeros, out_zero=zeros, scale=scales)
def test_reduce_prod(rows: int, count: int, seed: int, zero: int, out_zero: int, scale: float) -> None:
    """The product in fractions, rounded half away from zero; inputs near 1 and -1, so that results are in the range."""
    generator = np.random.default_rng(seed)
    unit = float(np.float32(1 / generator.integers(1, 40)))
    assume(count <= 7 or unit**-count * scale * 256 < 2**53)  # else it is refused
    graph = model(
        "REDUCE_PROD",
        [T((rows, count), scale=unit, zero=zero), ints([1])],
        [T((rows,), scale=scale, zero=out_zero)],
        {"keep_dims": False},
    )
    fed = [np.clip(np.rint(generator.normal(0, 1.2, (rows, count)) / unit) + zero, -128, 127).astype(np.int8)]
    got = run(graph, [fed])[0][0]
    for row, mine in zip(fed[0], got, strict=True):
        product = Fraction(1)
        for value in row:
            product *= Fraction(unit) * (int(value) - zero)
        exact = product / Fraction(float(np.float32(scale)))
        nearest = floor(abs(exact) + Fraction(1, 2)) * (1 if exact > 0 else -1)
        assert mine == max(-128, min(127, nearest + out_zero))


def test_reduce_prod_over_both_axes() -> None:
    graph = model("REDUCE_PROD", [T((2, 3, 2), scale=0.5, zero=1), ints([0, 2])], [T((3,), scale=0.25)])
    fed, got = values(graph, 2)[0], outputs_of(graph, (2,))[0][0]
    exact = np.prod((fed.astype(float) - 1) * 0.5, axis=(0, 2)) / 0.25
    np.testing.assert_array_equal(got, np.clip(np.trunc(exact + np.copysign(0.5, exact)), -128, 127))
