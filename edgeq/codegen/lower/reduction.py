"""MEAN, SUM, REDUCE_MAX, REDUCE_MIN, REDUCE_PROD, REDUCE_ALL, REDUCE_ANY over constant axes."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import ceil, prod

import numpy as np

from edgeq.codegen.lower.common import (
    RANGE,
    SUFFIX,
    axis_of,
    int_list,
    multiplier,
    plain_step,
    require,
    same_type,
    scale,
    strides,
    zero_point,
)
from edgeq.codegen.registry import lowering
from edgeq.codegen.step import Constant, Fields, Node, Step, Struct, Unsupported
from edgeq.graph.ir import TensorType

_HEADERS = ("reduction.h", "arithmetic.h")
RANK = 4
"""Kept and reduced loops that the kernel has, after neighbours were merged."""


def loops(node: Node) -> dict[str, tuple[int, ...]]:
    """Kept and reduced sizes and strides; neighbouring dimensions of a kind are merged."""
    source = node.input(0)
    axes = {axis_of(a, len(source.shape)) for a in int_list(node.constant(1, "axis"))}
    found: dict[bool, list[list[int]]] = {False: [], True: []}
    before: bool | None = None
    for axis, (size, step) in enumerate(zip(source.shape, strides(source.shape), strict=True)):
        kind = axis in axes
        if size == 1:
            continue
        if before is kind:
            found[kind][-1] = [found[kind][-1][0] * size, step]
        else:
            found[kind].append([size, step])
        before = kind
    result: dict[str, tuple[int, ...]] = {}
    for kind, name in ((False, "kept"), (True, "reduced")):
        if len(found[kind]) > RANK:
            raise Unsupported(f"It reduces over too many separate dimensions (at most {RANK}).")
        padded = [[1, 0]] * (RANK - len(found[kind])) + found[kind]
        result[f"{name}_size"] = tuple(p[0] for p in padded)
        result[f"{name}_stride"] = tuple(p[1] for p in padded)
    if prod(result["kept_size"]) != node.output().elements:
        raise Unsupported(f"Its output has the shape {list(node.output().shape)}.")
    return result


def _step(node: Node, kernel: str, type_: str, fields: Fields) -> Step:
    cost = node.input(0).elements * 8 + node.output().elements * 30
    return plain_step(node, kernel, (Struct("params", type_, fields),), headers=_HEADERS, cost=cost, code_bytes=300)


@lowering("MEAN", "SUM")
def mean(node: Node) -> Iterator[Step]:
    """The sum without zero points, requantized; MEAN's division is part of the multiplier (QuantizedMeanOrSum)."""
    source, result = node.input(0), node.output()
    require(node, source, result, types=(TensorType.INT8, TensorType.INT16))
    activation = same_type(source, result)
    shape = loops(node)
    count = prod(shape["reduced_size"])
    factor, shift = multiplier(scale(source) / scale(result))
    if node.operator.name == "MEAN":
        up = min(count.bit_length() - 1, 32, 31 + shift)
        factor, shift = (factor << up) // count, shift - up
    if count * (RANGE[source.type][1] - RANGE[source.type][0]) >= 2**31:
        raise Unsupported("Its sum may exceed 32 bits.", "Reduce in two layers.")
    low, high = RANGE[result.type]
    fields: Fields = {
        **shape,
        "start": -zero_point(source) * count,
        "multiplier": factor,
        "shift": shift,
        "output_offset": zero_point(result),
        "act_min": low,
        "act_max": high,
    }
    yield _step(node, f"sum_{SUFFIX[activation]}", "sum_params", fields)


@lowering("REDUCE_MAX", "REDUCE_MIN")
def reduce_extremum(node: Node) -> Iterator[Step]:
    """The largest or smallest stored value; input and output share the quantization."""
    source, result = node.input(0), node.output()
    require(node, source, result, types=(TensorType.INT8, TensorType.INT16))
    activation = same_type(source, result)
    if (scale(source), zero_point(source)) != (scale(result), zero_point(result)):
        raise Unsupported("Its input and output have different scales.", "Convert the model again.")
    kind = "max" if node.operator.name == "REDUCE_MAX" else "min"
    yield _step(node, f"reduce_{kind}_{SUFFIX[activation]}", "reduce_params", {**loops(node)})


@lowering("REDUCE_ALL", "REDUCE_ANY")
def reduce_logical(node: Node) -> Iterator[Step]:
    """Whether all, or any, are true: the smallest, or the largest, of bytes that are 0 or 1."""
    require(node, node.input(0), node.output(), types=(TensorType.BOOL,))
    kind = "min" if node.operator.name == "REDUCE_ALL" else "max"
    yield _step(node, f"reduce_{kind}_u8", "reduce_params", {**loops(node)})


@lowering("REDUCE_PROD")
def reduce_prod(node: Node) -> Iterator[Step]:
    """The product, correctly rounded (TFLM has none): a 64-bit product is looked up among the limits of each result."""
    source, result = node.input(0), node.output()
    require(node, source, result, types=(TensorType.INT8,))
    shape = loops(node)
    count = prod(shape["reduced_size"])
    steps = max(127 - zero_point(result), 128 + zero_point(result))
    unit = Fraction(scale(source)) ** count / Fraction(scale(result))
    limits = [ceil((number - Fraction(1, 2)) / unit) for number in range(1, steps + 1)]
    most = 2**62 // 255
    if limits[-1] > most and count > 7:
        raise Unsupported("Its products may exceed 64 bits.", "Reduce in two layers.")
    fields: Fields = {
        **shape,
        "input_offset": -zero_point(source),
        "limits": steps,
        "output_offset": zero_point(result),
    }
    yield plain_step(
        node,
        "reduce_prod_s8",
        (
            Constant("limits", "int64_t", np.array([min(v, 2**62) for v in limits], np.int64)),
            Struct("params", "reduce_prod_params", fields),
        ),
        headers=_HEADERS,
        cost=source.elements * 15 + result.elements * 100,
        code_bytes=300,
        method="correctly rounded",
    )
