"""Property tests of the operators that move bytes, against the tflite-micro wheel or numpy's own function."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from single import INT8, INT32, T, model, outputs_of, same_as_wheel, values
from test_operators import few

from edgeq.graph import write_bytes
from edgeq.interpreter import Interpreter

SCALE = {"scale": 0.25, "zero": -3}
shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


def ints(values: Any) -> T:
    data = np.asarray(values, np.int32)
    return T(data.shape, INT32, data=data)


def same_as_numpy(graph: Any, function: Any) -> None:
    for kind, arrays in zip((2, 3), outputs_of(graph, (2, 3)), strict=True):
        np.testing.assert_array_equal(arrays[0], function(*values(graph, kind)))


@few
@given(shapes, st.data())
def test_transpose(shape: tuple[int, ...], data: Any) -> None:
    order = data.draw(st.permutations(range(len(shape))))
    result = T(tuple(shape[a] for a in order), **SCALE)
    graph = model("TRANSPOSE", [T(shape, **SCALE), ints(order)], [result])
    same_as_wheel(graph)


@few
@given(st.lists(st.integers(1, 4), min_size=5, max_size=5).map(tuple), st.permutations(range(5)))
def test_transpose_of_rank_5(shape: tuple[int, ...], order: list[int]) -> None:
    result = T(tuple(shape[a] for a in order), **SCALE)
    graph = model("TRANSPOSE", [T(shape, **SCALE), ints(order)], [result])
    same_as_numpy(graph, lambda x: np.transpose(x, order))


@few
@given(shapes, st.data())
def test_concatenation(shape: tuple[int, ...], data: Any) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    widths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    inputs = [T((*shape[:axis], w, *shape[axis + 1 :]), **SCALE) for w in widths]
    result = T((*shape[:axis], sum(widths), *shape[axis + 1 :]), **SCALE)
    negative = axis - len(shape) if data.draw(st.booleans()) else axis
    same_as_wheel(model("CONCATENATION", inputs, [result], {"axis": negative}, 2))


@few
@given(shapes.filter(lambda s: len(s) < 4), st.data())
def test_pack_and_unpack(shape: tuple[int, ...], data: Any) -> None:
    axis, count = data.draw(st.integers(0, len(shape))), data.draw(st.integers(1, 4))
    whole = (*shape[:axis], count, *shape[axis:])
    parts = [T(shape, **SCALE)] * count
    same_as_wheel(model("PACK", parts, [T(whole, **SCALE)], {"axis": axis, "values_count": count}, 2))
    same_as_wheel(model("UNPACK", [T(whole, **SCALE)], parts, {"axis": axis, "num": count}, 2))


@few
@given(shapes, st.data())
def test_split(shape: tuple[int, ...], data: Any) -> None:
    axis, count = data.draw(st.integers(0, len(shape) - 1)), data.draw(st.integers(1, 3))
    whole = (*shape[:axis], shape[axis] * count, *shape[axis + 1 :])
    graph = model("SPLIT", [ints([axis]), T(whole, **SCALE)], [T(shape, **SCALE)] * count, {"num_splits": count}, 2)
    same_as_wheel(graph)
    widths = [1] * (whole[axis] - 1) + [1]
    outs = [T((*shape[:axis], w, *shape[axis + 1 :]), **SCALE) for w in widths]
    inputs = [T(whole, **SCALE), ints(widths), ints([axis])]
    same_as_wheel(model("SPLIT_V", inputs, outs, {"num_splits": len(widths)}, 2))


@few
@given(shapes, st.data())
def test_slice(shape: tuple[int, ...], data: Any) -> None:
    begin = [data.draw(st.integers(0, d - 1)) for d in shape]
    size = [data.draw(st.integers(1, d - b)) for d, b in zip(shape, begin, strict=True)]
    same_as_wheel(model("SLICE", [T(shape, **SCALE), ints(begin), ints(size)], [T(tuple(size), **SCALE)], {}, 2))


@few
@given(shapes, st.data())
def test_strided_slice(shape: tuple[int, ...], data: Any) -> None:
    begin = [data.draw(st.integers(-d, d - 1)) for d in shape]
    end = [data.draw(st.integers(-d - 1, d + 1)) for d in shape]
    stride = [data.draw(st.sampled_from([1, 2, 3, -1, -2])) for _ in shape]
    masks = [data.draw(st.integers(0, 15)) for _ in range(2)]
    slices = tuple(
        slice(None if masks[0] >> a & 1 else b, None if masks[1] >> a & 1 else e, s)
        for a, (b, e, s) in enumerate(zip(begin, end, stride, strict=True))
    )
    out = np.empty(shape)[slices].shape
    if 0 in out:
        return
    options = {"begin_mask": masks[0], "end_mask": masks[1]}
    inputs = [T(shape, **SCALE), ints(begin), ints(end), ints(stride)]
    graph = model("STRIDED_SLICE", inputs, [T(out, **SCALE)], options, 2)
    same_as_numpy(graph, lambda x: x[slices])
    same_as_wheel(graph)


@few
@given(shapes, st.data(), st.sampled_from(["PAD", "PADV2"]))
def test_pad(shape: tuple[int, ...], data: Any, name: str) -> None:
    amounts = [[data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3))] for _ in shape]
    result = T(tuple(d + sum(a) for d, a in zip(shape, amounts, strict=True)), **SCALE)
    value = [T((1,), INT8, data=[data.draw(st.integers(-128, 127))], **SCALE)] if name == "PADV2" else []
    same_as_wheel(model(name, [T(shape, **SCALE), ints(amounts), *value], [result], {}, 2))


@few
@given(shapes, st.data(), st.sampled_from(["REFLECT", "SYMMETRIC"]))
def test_mirror_pad(shape: tuple[int, ...], data: Any, mode: str) -> None:
    most = [d - 1 if mode == "REFLECT" else d for d in shape]
    amounts = [[data.draw(st.integers(0, m)), data.draw(st.integers(0, m))] for m in most]
    result = T(tuple(d + sum(a) for d, a in zip(shape, amounts, strict=True)), **SCALE)
    graph = model("MIRROR_PAD", [T(shape, **SCALE), ints(amounts)], [result], {"mode": mode})
    same_as_numpy(graph, lambda x: np.pad(x, amounts, mode=mode.lower()))


@few
@given(shapes, st.data())
def test_tile_reverse_broadcast(shape: tuple[int, ...], data: Any) -> None:
    times = [data.draw(st.integers(1, 3)) for _ in shape]
    result = T(tuple(d * t for d, t in zip(shape, times, strict=True)), **SCALE)
    same_as_numpy(model("TILE", [T(shape, **SCALE), ints(times)], [result]), lambda x: np.tile(x, times))
    axes = sorted(data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1)))
    graph = model("REVERSE_V2", [T(shape, **SCALE), ints(axes)], [T(shape, **SCALE)])
    same_as_numpy(graph, lambda x: np.flip(x, axes))
    out = tuple(t if d == 1 else d for d, t in zip(shape, times, strict=True))
    graph = model("BROADCAST_TO", [T(shape, **SCALE), ints(out)], [T(out, **SCALE)])
    same_as_wheel(graph)


@few
@given(shapes, st.data())
def test_gather(shape: tuple[int, ...], data: Any) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    indices = data.draw(st.lists(st.integers(0, shape[axis] - 1), min_size=1, max_size=5))
    result = T((*shape[:axis], len(indices), *shape[axis + 1 :]), **SCALE)
    same_as_wheel(model("GATHER", [T(shape, **SCALE), ints(indices)], [result], {"axis": axis}, 2))


@pytest.mark.parametrize("name", ["DEPTH_TO_SPACE", "SPACE_TO_DEPTH"])
@few
@given(h=st.integers(1, 4), w=st.integers(1, 4), c=st.integers(1, 4), block=st.integers(1, 3))
def test_depth_and_space(name: str, h: int, w: int, c: int, block: int) -> None:
    deep, wide = T((2, h, w, c * block * block), **SCALE), T((2, h * block, w * block, c), **SCALE)
    source, result = (deep, wide) if name == "DEPTH_TO_SPACE" else (wide, deep)
    same_as_wheel(model(name, [source], [result], {"block_size": block}, 2))


@few
@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 9), st.integers(1, 9), st.sampled_from([0, 1, 2]))
def test_resize_nearest(h: int, w: int, oh: int, ow: int, mode: int) -> None:
    options = {"align_corners": mode == 1, "half_pixel_centers": mode == 2}
    tensors = [T((1, h, w, 3), **SCALE), ints([oh, ow])]
    same_as_wheel(model("RESIZE_NEAREST_NEIGHBOR", tensors, [T((1, oh, ow, 3), **SCALE)], options, 3))


@few
@given(st.data())
def test_space_and_batch(data: Any) -> None:
    block = [data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))]
    folded = [data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))]
    batches, channels = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3))
    amounts = []
    for b, f in zip(block, folded, strict=True):
        before = data.draw(st.integers(0, min(2, b * f - 1)))
        amounts.append([before, data.draw(st.integers(0, min(2, b * f - 1 - before)))])
    space = tuple(b * f - sum(a) for b, f, a in zip(block, folded, amounts, strict=True))
    wide = T((batches, *space, channels), **SCALE)
    deep = T((batches * block[0] * block[1], *folded, channels), **SCALE)
    same_as_wheel(model("BATCH_TO_SPACE_ND", [deep, ints(block), ints(amounts)], [wide], {}, 2))
    # The wheel pads SPACE_TO_BATCH_ND with memory that nobody set: LiteRT is the reference here.
    graph = model("SPACE_TO_BATCH_ND", [wide, ints(block), ints(amounts)], [deep], {}, 2)
    reference = Interpreter(write_bytes(graph))
    same_as_numpy(graph, lambda x: reference.run([x])[0])
