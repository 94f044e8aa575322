"""TOPK_V2 and operators whose places may be known only at run time: ONE_HOT, GATHER_ND, DYNAMIC_UPDATE_SLICE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np

from edgeq.codegen.lower.common import (
    SUFFIX,
    activations,
    axis_of,
    c_type,
    int_list,
    pointer,
    require,
    strides,
)
from edgeq.codegen.lower.movement import element_bytes, same_quantization
from edgeq.codegen.registry import lowering
from edgeq.codegen.step import Constant, Fields, Node, Overlap, Step, Struct, Unsupported
from edgeq.graph.ir import Tensor, TensorType

RANK = 6
"""Dimensions that the kernels' loops have."""


def _step(
    node: Node,
    kernel: str,
    fields: Fields,
    sources: Sequence[Tensor],
    results: Sequence[Tensor],
    *,
    typed: Tensor,
    overlaps: tuple[Overlap, ...] = (),
) -> Step:
    """A call `kernel(&params, sources..., results...)`; constants become arrays, of bytes but for `typed`."""
    names = [f"values{i}" for i in range(len(sources))]
    arguments = [pointer(t, name) for t, name in zip(sources, names, strict=True)]
    arguments += [f"{{t{t.index}}}" for t in results]
    type_ = kernel.removesuffix("_s8").removesuffix("_s16")
    constants: list[Constant | Struct] = [Struct("params", f"{type_}_params", fields)]
    for tensor, name in zip(sources, names, strict=True):
        if tensor.data is None:
            continue
        data = np.ascontiguousarray(tensor.data).reshape(-1)
        if tensor is typed:
            constants.append(Constant(name, c_type(tensor), data))
        else:
            constants.append(Constant(name, "uint8_t", np.frombuffer(data.tobytes(), np.uint8)))
    return Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel=kernel,
        method="portable C",
        calls=(f"edgeq_{kernel}(&{{params}}, {', '.join(arguments)});",),
        inputs=activations(*sources),
        outputs=tuple(t.index for t in results),
        constants=tuple(constants),
        overlaps=overlaps,
        sources=(f"{kernel}.c",),
        headers=("indexing.h",),
        cost=sum(t.size_bytes for t in (*sources, *results)) * 8,
        code_bytes=200,
    )


@lowering("TOPK_V2")
def top_k(node: Node) -> Iterator[Step]:
    """The k largest along the last axis, descending, and their positions; of equal values the first comes first."""
    source, values, positions = node.input(0), node.output(0), node.output(1)
    require(node, source, values, types=(TensorType.INT8, TensorType.INT16))
    require(node, positions, types=(TensorType.INT32,))
    same_quantization(source, values)
    require(node, node.input(1), types=(TensorType.INT32,))
    k = int_list(node.constant(1, "k"))[0]
    depth = source.shape[-1] if source.shape else 0
    if not 1 <= k <= depth or values.shape != (*source.shape[:-1], k) or positions.shape != values.shape:
        raise Unsupported(f"It takes the {k} largest of {list(source.shape)}.")
    fields: Fields = {"rows": source.elements // depth, "depth": depth, "k": k}
    yield _step(node, f"top_k_{SUFFIX[source.type]}", fields, [source], [values, positions], typed=source)


@lowering("ONE_HOT")
def one_hot(node: Node) -> Iterator[Step]:
    """`on` where a position along the new axis is the index, else `off`."""
    indices, on, off, result = node.input(0), node.input(2), node.input(3), node.output()
    require(node, indices, types=(TensorType.INT32,))
    same_quantization(on, result)
    same_quantization(off, result)
    depth = int_list(node.constant(1, "depth"))[0]
    axis = axis_of(int(node.options.get("axis", -1)), len(indices.shape) + 1)
    if result.shape != (*indices.shape[:axis], depth, *indices.shape[axis:]):
        raise Unsupported(f"Its output has the shape {list(result.shape)}.")
    fields: Fields = {
        "outer": prod(indices.shape[:axis]),
        "depth": depth,
        "inner": prod(indices.shape[axis:]),
        "element_bytes": element_bytes(result),
    }
    yield _step(node, "one_hot", fields, [indices, on, off], [result], typed=indices)


def _padded(numbers: Sequence[int]) -> tuple[int, ...]:
    if not 1 <= len(numbers) <= RANK:
        raise Unsupported(f"It indexes {len(numbers)} dimensions; 1 to {RANK} are supported.")
    return (*numbers, *(0,) * (RANK - len(numbers)))


@lowering("GATHER_ND")
def gather_nd(node: Node) -> Iterator[Step]:
    """Slices at tuples of indices, the last axis of the second input."""
    source, indices, result = node.input(0), node.input(1), node.output()
    same_quantization(source, result)
    require(node, indices, types=(TensorType.INT32,))
    rank = indices.shape[-1] if indices.shape else 0
    if rank > len(source.shape) or result.shape != (*indices.shape[:-1], *source.shape[rank:]):
        raise Unsupported(f"Its output has the shape {list(result.shape)}.")
    element = element_bytes(source)
    fields: Fields = {
        "rank": rank,
        "size": _padded(source.shape[:rank]),
        "stride": _padded([s * element for s in strides(source.shape)[:rank]]),
        "count": indices.elements // rank,
        "run_bytes": prod(source.shape[rank:]) * element,
    }
    yield _step(node, "gather_nd", fields, [source, indices], [result], typed=indices)


@lowering("DYNAMIC_UPDATE_SLICE")
def dynamic_update_slice(node: Node) -> Iterator[Step]:
    """A copy of the first input in which the second one is written at a place that is moved until it fits."""
    source, update, start, result = node.input(0), node.input(1), node.input(2), node.output()
    same_quantization(source, update, result)
    require(node, start, types=(TensorType.INT32,))
    rank, element = len(source.shape), element_bytes(source)
    if source.shape != result.shape or len(update.shape) != rank or start.elements != rank:
        raise Unsupported(f"It writes {list(update.shape)} into {list(source.shape)}.")
    if any(u > s for u, s in zip(update.shape, source.shape, strict=True)):
        raise Unsupported(f"It writes {list(update.shape)} into {list(source.shape)}.")
    fields: Fields = {
        "rank": rank,
        "size": _padded(update.shape),
        "last": _padded([s - u for s, u in zip(source.shape, update.shape, strict=True)]),
        "stride": _padded([s * element for s in strides(source.shape)]),
        "element_bytes": element,
        "total_bytes": source.size_bytes,
    }
    overlaps = () if source.is_constant else (Overlap(source.index, result.index, 0, exact=True),)
    yield _step(node, "update_slice", fields, [source, update, start], [result], typed=start, overlaps=overlaps)
