"""Operators that only move bytes. Each becomes copies by strides or by tables of offsets, whatever the element type."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from edgeq.codegen.lower.common import (
    BYTES,
    RANGE,
    activations,
    axis_of,
    int_list,
    require,
    scale,
    strides,
    zero_point,
)
from edgeq.codegen.lower.elementwise import broadcast
from edgeq.codegen.registry import lowering
from edgeq.codegen.step import Constant, Fields, Node, Step, Struct, Unsupported
from edgeq.graph.ir import Tensor, TensorType

RANK = 6
"""Loops that the copy kernels have, after neighbours were merged."""


def element_bytes(tensor: Tensor) -> int:
    if tensor.type not in BYTES:
        raise Unsupported(
            f"Tensor {tensor.name} is {tensor.type.name}.", "Convert the model with full int8 quantization."
        )
    return BYTES[tensor.type]


def same_quantization(*tensors: Tensor) -> None:
    """Unsupported unless bytes of one tensor mean the same in the others."""
    if len({t.type for t in tensors}) > 1:
        raise Unsupported("Its input and output have different types.", "Convert the model again.")
    quantized = tensors[0].type in RANGE and all(t.quantization for t in tensors)
    if quantized and len({(scale(t), zero_point(t)) for t in tensors}) > 1:
        raise Unsupported("Its input and output have different scales.", "Convert the model again.")


def _copy_params(
    name: str,
    sizes: Sequence[int],
    sources: Sequence[int],
    results: Sequence[int],
    *,
    start: tuple[int, int],
    element: int,
) -> Struct:
    """A strided copy: sizes and strides in elements (outermost first), where it starts; neighbours are merged."""
    loops: list[tuple[int, int, int]] = []
    for size, source, result in zip(sizes, sources, results, strict=True):
        if size == 1:
            continue
        if loops and loops[-1][1] == source * size and loops[-1][2] == result * size:
            loops[-1] = (loops[-1][0] * size, source, result)
        else:
            loops.append((size, source, result))
    run = 1
    if loops and loops[-1][1:] == (1, 1):
        run = loops.pop()[0]
    if len(loops) > RANK:
        raise Unsupported(f"It moves data over {len(loops)} dimensions; {RANK} are supported.")
    loops = [(1, 0, 0)] * (RANK - len(loops)) + loops
    return Struct(
        name,
        "copy_params",
        {
            "size": tuple(loop[0] for loop in loops),
            "input_stride": tuple(loop[1] * element for loop in loops),
            "output_stride": tuple(loop[2] * element for loop in loops),
            "input_start": start[0] * element,
            "output_start": start[1] * element,
            "run_bytes": run * element,
        },
    )


def _step(
    node: Node,
    sources: Sequence[Tensor],
    results: Sequence[Tensor],
    calls: Sequence[str],
    constants: Sequence[Constant | Struct],
    *,
    kernels: tuple[str, ...] = ("copy",),
) -> Step:
    moved = sum(t.size_bytes for t in results)
    return Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel="+".join(kernels),
        method="bytes moved",
        calls=tuple(calls),
        inputs=activations(*sources),
        outputs=tuple(t.index for t in results),
        constants=tuple(constants),
        sources=tuple(f"{k}.c" for k in kernels),
        headers=("movement.h",),
        cost=moved * 3,
        code_bytes=200,
    )


def _source(tensor: Tensor, name: str, constants: list[Constant | Struct]) -> str:
    """The placeholder of a source; a constant one is added to the step's constants, as bytes."""
    if tensor.data is None:
        return f"{{t{tensor.index}}}"
    constants.append(Constant(name, "uint8_t", np.frombuffer(np.ascontiguousarray(tensor.data).tobytes(), np.uint8)))
    return f"{{{name}}}"


def strided(
    node: Node, sizes: Sequence[int], source_strides: Sequence[int], start: int = 0, result_strides: Sequence[int] = ()
) -> Step:
    """One source, one result: result elements in order (or by `result_strides`) from strides over the source."""
    source, result = node.input(0), node.output()
    same_quantization(source, result)
    if prod(sizes) != result.elements:
        raise Unsupported(f"Its output has the shape {list(result.shape)}, expected {prod(sizes)} elements.")
    steps = result_strides or strides(sizes)
    constants: list[Constant | Struct] = []
    place = _source(source, "values", constants)
    constants.append(
        _copy_params("params", sizes, source_strides, steps, start=(start, 0), element=element_bytes(source))
    )
    return _step(node, [source], [result], [f"edgeq_copy(&{{params}}, {place}, {{t{result.index}}});"], constants)


def indexed(node: Node, tables: Sequence[Sequence[int]]) -> Step:
    """One source, one result: along each axis the result's position p takes the source's position tables[axis][p]."""
    source, result = node.input(0), node.output()
    same_quantization(source, result)
    if tuple(map(len, tables)) != result.shape:
        raise Unsupported(f"Its output has the shape {list(result.shape)}, expected {[len(t) for t in tables]}.")
    element = element_bytes(source)
    offsets = [np.array(t, np.int64) * s * element for t, s in zip(tables, strides(source.shape), strict=True)]
    run = element
    while offsets and np.array_equal(offsets[-1], np.arange(len(offsets[-1])) * run):
        whole = len(offsets[-1]) == source.shape[len(offsets) - 1]
        run *= len(offsets.pop())
        if not whole:
            break
    if len(offsets) > 5:
        raise Unsupported(f"It indexes {len(offsets)} dimensions; 5 are supported.")
    offsets = [np.zeros(1, np.int64)] * (5 - len(offsets)) + offsets
    constants: list[Constant | Struct] = []
    place = _source(source, "values", constants)
    fields: Fields = {"size": tuple(len(o) for o in offsets), "run_bytes": run}
    constants.append(Constant("offsets", "int32_t", np.concatenate(offsets).astype(np.int32)))
    constants.append(Struct("params", "copy_indexed_params", fields))
    call = f"edgeq_copy_indexed(&{{params}}, {place}, {{offsets}}, {{t{result.index}}});"
    return _step(node, [source], [result], [call], constants, kernels=("copy_indexed",))


@lowering("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
def rename(node: Node) -> Iterator[Step]:
    """No Step: the result is another name of the input's memory, if it holds the same elements."""
    source, result = node.input(0), node.output()
    if (source.elements, source.type) != (result.elements, result.type):
        shown = f"{source.type.name} {list(source.shape)} into {result.type.name} {list(result.shape)}"
        raise Unsupported(f"It is malformed: it makes {shown}.", "Convert the model again.")
    return iter(())


@lowering("TRANSPOSE")
def transpose(node: Node) -> Iterator[Step]:
    source = node.input(0)
    order = int_list(node.constant(1, "permutation"))
    if sorted(a % len(source.shape) for a in order) != list(range(len(source.shape))):
        raise Unsupported(f"Its permutation is {order}.")
    steps = strides(source.shape)
    yield strided(node, [source.shape[a] for a in order], [steps[a] for a in order])


@lowering("CONCATENATION", "PACK")
def concatenation(node: Node) -> Iterator[Step]:
    """CONCATENATION along an axis, PACK along a new one: a copy from each input."""
    result = node.output()
    sources = [node.input(i) for i in range(len(node.operator.inputs))]
    same_quantization(*sources, result)
    if node.options.get("fused_activation_function", "NONE") != "NONE":
        raise Unsupported("It has a fused activation.", "Convert the model again.")
    axis = axis_of(int(node.options["axis"]), len(result.shape))
    inner = prod(result.shape[axis + 1 :])
    outer = prod(result.shape[:axis])
    row = prod(result.shape[axis:])
    constants: list[Constant | Struct] = []
    calls, at = [], 0
    for number, source in enumerate(sources):
        width = source.elements // outer
        if width * outer != source.elements or width % inner:
            raise Unsupported(f"Its input {source.name} has the shape {list(source.shape)}.")
        place = _source(source, f"values{number}", constants)
        params = _copy_params(
            f"part{number}", (outer, width), (width, 1), (row, 1), start=(0, at), element=element_bytes(source)
        )
        constants.append(params)
        calls.append(f"edgeq_copy(&{{part{number}}}, {place}, {{t{result.index}}});")
        at += width
    if at != row:
        raise Unsupported(f"Its inputs do not fill the output {list(result.shape)}.")
    yield _step(node, sources, [result], calls, constants)


@lowering("SPLIT", "SPLIT_V", "UNPACK")
def split(node: Node) -> Iterator[Step]:
    """A copy into each output; SPLIT has its axis as the first input, SPLIT_V as the third."""
    name = node.operator.name
    source = node.input(1 if name == "SPLIT" else 0)
    if name == "UNPACK":
        axis_value = int(node.options["axis"])
    else:
        axis_value = int_list(node.constant(0 if name == "SPLIT" else 2, "axis"))[0]
    axis = axis_of(axis_value, len(source.shape))
    outer, row = prod(source.shape[:axis]), prod(source.shape[axis:])
    results = [node.output(i) for i in range(len(node.operator.outputs))]
    same_quantization(source, *results)
    constants: list[Constant | Struct] = []
    place = _source(source, "values", constants)
    calls, at = [], 0
    for number, result in enumerate(results):
        width = result.elements // outer
        params = _copy_params(
            f"part{number}", (outer, width), (row, 1), (width, 1), start=(at, 0), element=element_bytes(source)
        )
        constants.append(params)
        calls.append(f"edgeq_copy(&{{part{number}}}, {place}, {{t{result.index}}});")
        at += width
    if at != row:
        raise Unsupported(f"Its outputs do not cover the input {list(source.shape)}.")
    yield _step(node, [source], results, calls, constants)


@lowering("SLICE")
def slice_(node: Node) -> Iterator[Step]:
    source = node.input(0)
    begin, size = int_list(node.constant(1, "begin")), int_list(node.constant(2, "size"))
    sizes = [d - b if s == -1 else s for d, b, s in zip(source.shape, begin, size, strict=True)]
    if any(b < 0 or s < 1 or b + s > d for b, s, d in zip(begin, sizes, source.shape, strict=True)):
        raise Unsupported(f"It takes {sizes} at {begin} of {list(source.shape)}.")
    steps = strides(source.shape)
    yield strided(node, sizes, steps, sum(b * s for b, s in zip(begin, steps, strict=True)))


@lowering("STRIDED_SLICE")
def strided_slice(node: Node) -> Iterator[Step]:
    """begin:end:stride with masks, as numpy slices; no new axes and no ellipsis."""
    source, options = node.input(0), node.options
    if options.get("ellipsis_mask") or options.get("new_axis_mask"):
        raise Unsupported("It uses an ellipsis or a new axis.", "Reshape before slicing.")
    begin, end, stride = (int_list(node.constant(i, w)) for i, w in ((1, "begin"), (2, "end"), (3, "strides")))
    if 0 in stride or len(begin) > len(source.shape):
        raise Unsupported(f"Its strides are {stride}.")
    sizes, source_steps, start = [], [], 0
    for axis, (dimension, step) in enumerate(zip(source.shape, strides(source.shape), strict=True)):
        picked = range(dimension)
        if axis < len(begin):
            bit = 1 << axis
            if options.get("shrink_axis_mask", 0) & bit:
                at = begin[axis] + dimension if begin[axis] < 0 else begin[axis]
                picked = range(dimension)[at : at + 1]
            else:
                low = None if options.get("begin_mask", 0) & bit else begin[axis]
                high = None if options.get("end_mask", 0) & bit else end[axis]
                if options.get("offset") and low is not None and high is not None:
                    high += low
                picked = range(dimension)[low : high : stride[axis]]
        if not picked:
            raise Unsupported("Its result is empty.")
        sizes.append(len(picked))
        start += picked[0] * step
        source_steps.append((picked.step if len(picked) > 1 else 1) * step)
    yield strided(node, sizes, source_steps, start)


@lowering("PAD", "PADV2")
def pad(node: Node) -> Iterator[Step]:
    """Fill with the zero point, or PADV2's constant (quantized like the input), then copy."""
    source, result = node.input(0), node.output()
    same_quantization(source, result)
    amounts = node.constant(1, "padding").reshape(-1, 2).astype(np.int64)
    if tuple(s + int(a.sum()) for s, a in zip(source.shape, amounts, strict=True)) != result.shape or amounts.min() < 0:
        raise Unsupported(f"It pads {list(source.shape)} by {amounts.tolist()} to {list(result.shape)}.")
    element = element_bytes(source)
    if node.optional(2) is not None:
        value = node.constant(2, "padding value").reshape(-1)[:1].astype(source.type.dtype)
    else:
        value = np.array([zero_point(source) if source.quantization else 0], source.type.dtype)
    steps = strides(result.shape)
    start = sum(int(a[0]) * s for a, s in zip(amounts, steps, strict=True))
    constants: list[Constant | Struct] = [Constant("value", "uint8_t", np.frombuffer(value.tobytes(), np.uint8))]
    place = _source(source, "values", constants)
    constants.append(
        _copy_params("params", source.shape, strides(source.shape), steps, start=(0, start), element=element)
    )
    calls = [
        f"edgeq_fill({{value}}, {element}, {{t{result.index}}}, {result.elements});",
        f"edgeq_copy(&{{params}}, {place}, {{t{result.index}}});",
    ]
    yield _step(node, [source], [result], calls, constants, kernels=("copy", "fill"))


@lowering("MIRROR_PAD")
def mirror_pad(node: Node) -> Iterator[Step]:
    source = node.input(0)
    amounts = node.constant(1, "padding").reshape(-1, 2)
    mode = "reflect" if node.options["mode"] == "REFLECT" else "symmetric"
    tables = [
        np.pad(np.arange(d), (int(a[0]), int(a[1])), mode=mode).tolist()  # type: ignore[call-overload]
        for d, a in zip(source.shape, amounts, strict=True)
    ]
    yield indexed(node, tables)


@lowering("TILE")
def tile(node: Node) -> Iterator[Step]:
    source, result = node.input(0), node.output()
    times = int_list(node.constant(1, "multiples"))
    if tuple(d * t for d, t in zip(source.shape, times, strict=True)) != result.shape:
        raise Unsupported(f"It repeats {list(source.shape)} {times} times into {list(result.shape)}.")
    yield indexed(node, [list(range(d)) * t for d, t in zip(source.shape, times, strict=True)])


@lowering("BROADCAST_TO")
def broadcast_to(node: Node) -> Iterator[Step]:
    source, result = node.input(0), node.output()
    sizes, steps, _ = broadcast(source.shape, result.shape, result.shape)
    yield strided(node, sizes, steps)


@lowering("REVERSE_V2")
def reverse(node: Node) -> Iterator[Step]:
    source = node.input(0)
    axes = {axis_of(a, len(source.shape)) for a in int_list(node.constant(1, "axis"))}
    steps = strides(source.shape)
    start = sum((source.shape[a] - 1) * steps[a] for a in axes)
    yield strided(node, source.shape, [-s if a in axes else s for a, s in enumerate(steps)], start)


@lowering("GATHER")
def gather(node: Node) -> Iterator[Step]:
    """Constant or computed indices along one axis; a computed index outside of the axis takes the nearest inside."""
    source, indices, result = node.input(0), node.input(1), node.output()
    same_quantization(source, result)
    require(node, indices, types=(TensorType.INT32, TensorType.INT64) if indices.is_constant else (TensorType.INT32,))
    axis, batch = axis_of(int(node.options.get("axis", 0)), len(source.shape)), int(node.options.get("batch_dims", 0))
    if not 0 <= batch <= min(axis, len(indices.shape)) or indices.shape[:batch] != source.shape[:batch]:
        raise Unsupported(f"It has {batch} batch dimensions, its indices the shape {list(indices.shape)}.")
    outer, count, inner = prod(source.shape[:axis]), prod(indices.shape[batch:]), prod(source.shape[axis + 1 :])
    if result.elements != outer * count * inner:
        raise Unsupported(f"Its output has the shape {list(result.shape)}.")
    constants: list[Constant | Struct] = []
    place = _source(source, "values", constants)
    if indices.data is not None:
        constants.append(Constant("indices", "int32_t", np.asarray(indices.data).reshape(-1).astype(np.int32)))
    where = "{indices}" if indices.is_constant else f"{{t{indices.index}}}"
    fields: Fields = {
        "outer": outer,
        "shared": prod(source.shape[batch:axis]),
        "axis": source.shape[axis],
        "count": count,
        "run_bytes": inner * element_bytes(source),
    }
    constants.append(Struct("params", "gather_params", fields))
    call = f"edgeq_gather(&{{params}}, {place}, {where}, {{t{result.index}}});"
    yield _step(node, [source, indices], [result], [call], constants, kernels=("gather",))


@lowering("EMBEDDING_LOOKUP")
def embedding_lookup(node: Node) -> Iterator[Step]:
    """GATHER of rows; the indices come first."""
    indices, table = node.operator.inputs
    yield from gather(replace(node, operator=replace(node.operator, inputs=(table, indices), options={"axis": 0})))


@lowering("FILL", "ZEROS_LIKE")
def fill(node: Node) -> Iterator[Step]:
    """One value everywhere: FILL's second input, or what stands for 0."""
    result = node.output()
    constants: list[Constant | Struct] = []
    if node.operator.name == "FILL":
        source = node.input(1)
        same_quantization(source, result)
        place, sources = _source(source, "value", constants), [source]
    else:
        value = np.array([zero_point(result) if result.quantization else 0], result.type.dtype)
        constants.append(Constant("value", "uint8_t", np.frombuffer(value.tobytes(), np.uint8)))
        place, sources = "{value}", []
    call = f"edgeq_fill({place}, {element_bytes(result)}, {{t{result.index}}}, {result.elements});"
    yield _step(node, sources, [result], [call], constants, kernels=("fill",))


def _blocks(node: Node, sizes: Sequence[int], order: Sequence[int]) -> Step:
    """Read the source as an array of `sizes`, transposed by `order`."""
    steps = strides(sizes)
    return strided(node, [sizes[a] for a in order], [steps[a] for a in order])


@lowering("DEPTH_TO_SPACE")
def depth_to_space(node: Node) -> Iterator[Step]:
    n, h, w, c = node.input(0).shape
    b = int(node.options["block_size"])
    yield _blocks(node, (n, h, w, b, b, c // (b * b)), (0, 1, 3, 2, 4, 5))


@lowering("SPACE_TO_DEPTH")
def space_to_depth(node: Node) -> Iterator[Step]:
    n, h, w, c = node.input(0).shape
    b = int(node.options["block_size"])
    yield _blocks(node, (n, h // b, b, w // b, b, c), (0, 1, 3, 2, 4, 5))


@lowering("RESIZE_NEAREST_NEIGHBOR")
def resize_nearest_neighbor(node: Node) -> Iterator[Step]:
    """Source rows and columns are known at generation (GetNearestNeighbor, in float32 as TFLM)."""
    source, result = node.input(0), node.output()
    options = node.options

    def table(size: int, out: int) -> list[int]:
        corners = bool(options.get("align_corners")) and out > 1
        ratio = np.float32(size - 1) / np.float32(out - 1) if corners else np.float32(size) / np.float32(out)
        offset = np.float32(0.5 if options.get("half_pixel_centers") else 0.0)
        picked = []
        for position in range(out):
            at = np.float32(np.float32(position) + offset) * ratio
            whole = np.floor(at + np.float32(0.5)) if corners else np.floor(at)
            picked.append(min(max(int(whole), 0), size - 1))
        return picked

    (n, h, w, c), (_, oh, ow, _) = source.shape, result.shape
    yield indexed(node, [list(range(n)), table(h, oh), table(w, ow), list(range(c))])


@lowering("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND")
def space_batch(node: Node) -> Iterator[Step]:
    """Rank 4 (rank 3 read as one column); SPACE_TO_BATCH_ND pads with the zero point, BATCH_TO_SPACE_ND crops."""
    source, result = node.input(0), node.output()
    block = int_list(node.constant(1, "block shape"))
    amounts = node.constant(2, "padding or crops").reshape(-1, 2).tolist()
    if len(block) != len(source.shape) - 2 or len(source.shape) not in (3, 4):
        raise Unsupported(f"Its block shape is {block} for the rank {len(source.shape)}.")
    shapes = [list(t.shape) for t in (source, result)]
    if len(block) == 1:
        block, amounts = [*block, 1], [*amounts, [0, 0]]
        shapes = [[*s[:2], 1, s[2]] for s in shapes]
    to_batch = node.operator.name == "SPACE_TO_BATCH_ND"
    if not to_batch:
        shapes.reverse()
    same_quantization(source, result)
    yield _space_batch_step(node, shapes[0], shapes[1], block, amounts, to_batch=to_batch)


def _space_batch_step(
    node: Node, space: list[int], batch: list[int], block: list[int], amounts: list[list[int]], *, to_batch: bool
) -> Step:
    """A copy for each position within the block, of the part that lies inside the space tensor."""
    source, result = node.input(0), node.output()
    element = element_bytes(source)
    space_steps, batch_steps = strides(space), strides(batch)
    constants: list[Constant | Struct] = []
    place = _source(source, "values", constants)
    calls = []
    if to_batch:
        value = np.array([zero_point(source) if source.quantization else 0], source.type.dtype)
        constants.append(Constant("value", "uint8_t", np.frombuffer(value.tobytes(), np.uint8)))
        calls.append(f"edgeq_fill({{value}}, {element}, {{t{result.index}}}, {result.elements});")
    for number in range(block[0] * block[1]):
        within = divmod(number, block[1])
        ranges = []
        for d in (0, 1):
            first = -(-max(0, amounts[d][0] - within[d]) // block[d])
            last = min(batch[1 + d], -(-(space[1 + d] + amounts[d][0] - within[d]) // block[d]))
            ranges.append((first, last - first, first * block[d] + within[d] - amounts[d][0]))
        (first_y, height, y), (first_x, width, x) = ranges
        if height <= 0 or width <= 0:
            continue
        sizes = (space[0], height, width, space[3])
        in_space = (space_steps[0], block[0] * space_steps[1], block[1] * space_steps[2], 1)
        in_batch = (batch_steps[0], batch_steps[1], batch_steps[2], 1)
        at_space = y * space_steps[1] + x * space_steps[2]
        at_batch = number * space[0] * batch_steps[0] + first_y * batch_steps[1] + first_x * batch_steps[2]
        ends = (in_space, in_batch) if to_batch else (in_batch, in_space)
        start = (at_space, at_batch) if to_batch else (at_batch, at_space)
        constants.append(_copy_params(f"part{number}", sizes, *ends, start=start, element=element))
        calls.append(f"edgeq_copy(&{{part{number}}}, {place}, {{t{result.index}}});")
    kernels = ("copy", "fill") if to_batch else ("copy",)
    return _step(node, [source], [result], calls, constants, kernels=kernels)
