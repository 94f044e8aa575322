"""Operators that compare or choose: comparisons, logic, SELECT_V2, ARG_MAX, ARG_MIN, CAST, RESIZE_BILINEAR, DIV."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import ceil, floor, lcm, prod

import numpy as np

from edgeq.codegen.lower.common import (
    BYTES,
    SUFFIX,
    activation_range,
    activations,
    axis_of,
    int_list,
    multiplier,
    plain_step,
    pointer,
    require,
    same_type,
    scale,
    strides,
    zero_point,
)
from edgeq.codegen.lower.elementwise import RANK, binary_step, broadcast
from edgeq.codegen.lower.movement import same_quantization
from edgeq.codegen.registry import lowering
from edgeq.codegen.step import Constant, Fields, Node, Step, Struct, Unsupported
from edgeq.graph.ir import Tensor, TensorType

_HEADERS = ("choice.h", "elementwise.h", "arithmetic.h")
_RELATIONS = ("EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL")

_SUFFIX = {kind: SUFFIX[kind] for kind in (TensorType.INT8, TensorType.INT16, TensorType.INT32, TensorType.FLOAT32)}
_SUFFIX[TensorType.BOOL] = "u8"


def _loops(a: Tensor, b: Tensor, result: Tensor) -> Fields:
    sizes, a_steps, b_steps = broadcast(a.shape, b.shape, result.shape)
    return {"size": tuple(sizes), "a_stride": tuple(a_steps), "b_stride": tuple(b_steps)}


@lowering(*_RELATIONS)
@lowering(*_RELATIONS, float32=True)
def compare(node: Node) -> Iterator[Step]:
    """Both inputs in real units with 8 bits of headroom (int8), or as they are; the result is bool."""
    a, b, result = node.input(0), node.input(1), node.output()
    require(node, a, b, types=(TensorType.INT8, TensorType.INT32, TensorType.BOOL, TensorType.FLOAT32))
    require(node, result, types=(TensorType.BOOL,))
    kind = same_type(a, b)
    fields = _loops(a, b, result)
    if kind is TensorType.INT8:
        (a_factor, a_shift), (b_factor, b_shift) = multiplier(scale(a)), multiplier(scale(b))
        fields |= {
            "a_offset": -zero_point(a),
            "a_multiplier": a_factor,
            "a_shift": a_shift,
            "b_offset": -zero_point(b),
            "b_multiplier": b_factor,
            "b_shift": b_shift,
        }
    fields["relation"] = _RELATIONS.index(node.operator.name)
    yield binary_step(node, f"compare_{_SUFFIX[kind]}", Struct("params", "compare_params", fields), _HEADERS, 40)


@lowering("LOGICAL_AND", "LOGICAL_OR")
def logical(node: Node) -> Iterator[Step]:
    a, b, result = node.input(0), node.input(1), node.output()
    require(node, a, b, result, types=(TensorType.BOOL,))
    kernel = node.operator.name.lower()
    yield binary_step(node, kernel, Struct("params", "broadcast", _loops(a, b, result)), _HEADERS, 15)


@lowering("LOGICAL_NOT")
def logical_not(node: Node) -> Iterator[Step]:
    source, result = node.input(0), node.output()
    require(node, source, result, types=(TensorType.BOOL,))
    yield _counted(node, "logical_not")


def _counted(node: Node, kernel: str) -> Step:
    """A call `kernel(input, output, count)`."""
    source, result = node.input(0), node.output()
    return Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel=kernel,
        method="portable C",
        calls=(f"edgeq_{kernel}({{t{source.index}}}, {{t{result.index}}}, {source.elements});",),
        inputs=activations(source),
        outputs=(result.index,),
        sources=(f"{kernel}.c",),
        headers=_HEADERS,
        cost=max(source.elements, result.elements) * 20,
        code_bytes=200,
    )


@lowering("DIV")
def div(node: Node) -> Iterator[Step]:
    """a / b by a fixed-point reciprocal (DivElementwise).

    TFLM leaves two cases open (it asserts, in builds with assertions): b = 0, here the extreme of a's sign, and
    quotients so small, 0 among them, that it would shift by more than 31 bits; here the zero point, which is right.
    """
    a, b, result = node.input(0), node.input(1), node.output()
    require(node, a, b, result, types=(TensorType.INT8,))
    factor, shift = multiplier(scale(a) / (scale(b) * scale(result)))
    low, high = activation_range(node, result)
    fields = _loops(a, b, result) | {
        "a_offset": -zero_point(a),
        "b_offset": -zero_point(b),
        "multiplier": factor,
        "shift": shift,
        "output_offset": zero_point(result),
        "act_min": low,
        "act_max": high,
    }
    yield binary_step(node, "div_s8", Struct("params", "mul_params", fields), _HEADERS, 150)


@lowering("SELECT_V2", "SELECT")
def select(node: Node) -> Iterator[Step]:
    """condition ? a : b, all broadcast; a, b and the result share the quantization."""
    condition, a, b, result = node.input(0), node.input(1), node.input(2), node.output()
    require(node, condition, types=(TensorType.BOOL,))
    same_quantization(a, b, result)
    if a.type not in BYTES:
        raise Unsupported(f"Its tensors are {a.type.name}.")
    shape = result.shape
    rank = len(shape)
    if rank > RANK:
        raise Unsupported(f"It has rank {rank}; {RANK} are supported.")

    def steps(tensor: Tensor) -> tuple[int, ...]:
        sizes = (1,) * (rank - len(tensor.shape)) + tensor.shape
        if node.operator.name == "SELECT" and len(tensor.shape) == 1 and rank > 1:
            sizes = tensor.shape + (1,) * (rank - 1)
        if len(sizes) != rank or any(s not in (1, d) for s, d in zip(sizes, shape, strict=True)):
            raise Unsupported(f"Shape {list(tensor.shape)} does not broadcast to {list(shape)}.")
        found = (0 if s == 1 else step for s, step in zip(sizes, strides(sizes), strict=True))
        return (0,) * (RANK - rank) + tuple(found)

    fields: Fields = {
        "size": (1,) * (RANK - rank) + shape,
        "condition_stride": steps(condition),
        "a_stride": steps(a),
        "b_stride": steps(b),
        "element_bytes": BYTES[a.type],
    }
    constants = [
        Constant(name, "uint8_t", np.frombuffer(np.ascontiguousarray(t.data).tobytes(), np.uint8))
        for name, t in (("condition", condition), ("a", a), ("b", b))
        if t.data is not None
    ]
    arguments = ", ".join(pointer(t, name) for name, t in (("condition", condition), ("a", a), ("b", b)))
    yield Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel="select",
        method="portable C",
        calls=(f"edgeq_select(&{{params}}, {arguments}, {{t{result.index}}});",),
        inputs=activations(condition, a, b),
        outputs=(result.index,),
        constants=(*constants, Struct("params", "select_params", fields)),
        sources=("select.c",),
        headers=_HEADERS,
        cost=result.elements * 30,
        code_bytes=300,
    )


@lowering("ARG_MAX", "ARG_MIN")
@lowering("ARG_MAX", "ARG_MIN", float32=True)
def arg_extremum(node: Node) -> Iterator[Step]:
    """The first position of the largest or smallest value along a constant axis, as int32."""
    source, result = node.input(0), node.output()
    require(node, source, types=(TensorType.INT8, TensorType.FLOAT32))
    require(node, result, types=(TensorType.INT32,))
    axis = axis_of(int_list(node.constant(1, "axis"))[0], len(source.shape))
    fields: Fields = {
        "outer": prod(source.shape[:axis]),
        "axis": source.shape[axis],
        "inner": prod(source.shape[axis + 1 :]),
        "sign": 1 if node.operator.name == "ARG_MAX" else -1,
    }
    kernel = f"arg_extremum_{SUFFIX[source.type]}"
    cost = source.elements * 20
    params = Struct("params", "arg_params", fields)
    yield plain_step(node, kernel, (params,), headers=_HEADERS, cost=cost, code_bytes=200)


@lowering("CAST")
def cast(node: Node) -> Iterator[Step]:
    """Between int8, int16, int32, float32 and bool as C converts; floats beyond the range take the nearest value."""
    source, result = node.input(0), node.output()
    require(node, source, result, types=tuple(_SUFFIX))
    if source.type is result.type:
        raise Unsupported("It casts to its own type.")
    yield _counted(node, f"cast_{_SUFFIX[source.type]}_{_SUFFIX[result.type]}")


@lowering("RESIZE_BILINEAR")
def resize_bilinear(node: Node) -> Iterator[Step]:
    """Rows, columns and their weights are tables made at generation.

    int8: weights of 10 bits (ResizeBilinearInteger). int16: exact fractions, the result rounded once (TFLM has none).
    """
    source, result = node.input(0), node.output()
    require(node, source, result, types=(TensorType.INT8, TensorType.INT16))
    kind = same_type(source, result)
    if (scale(source), zero_point(source)) != (scale(result), zero_point(result)):
        raise Unsupported("Its input and output have different scales.", "Convert the model again.")
    (n, h, w, c), (_, oh, ow, _) = source.shape, result.shape
    fields: Fields = {"batches": n, "in_h": h, "in_w": w, "channels": c, "out_h": oh, "out_w": ow}
    if kind is TensorType.INT16:
        (rows, row_units), (columns, column_units) = _exact_positions(node, h, oh), _exact_positions(node, w, ow)
        if row_units * column_units >= 2**46:
            raise Unsupported(f"It resizes {h}x{w} to {oh}x{ow}, whose weights exceed 64 bits.")
        fields |= {"row_units": row_units, "column_units": column_units}
    else:
        rows, columns = _positions(node, h, oh), _positions(node, w, ow)
    constants = (
        Constant("rows", "int32_t", rows),
        Constant("columns", "int32_t", columns),
        Struct("params", "resize_params" if kind is TensorType.INT8 else "resize_s16_params", fields),
    )
    kernel = f"resize_bilinear_{SUFFIX[kind]}"
    cost = max(source.elements, result.elements) * (60 if kind is TensorType.INT8 else 150)
    yield plain_step(node, kernel, constants, headers=_HEADERS, cost=cost, code_bytes=200)


_Positions = np.ndarray[tuple[int], np.dtype[np.int32]]


def _positions(node: Node, size: int, out: int) -> _Positions:
    """For each output position: lower and upper source position, weight of the upper one in 1/1024."""
    if node.options.get("align_corners") and out > 1:
        step = (1024 * (size - 1) + (out - 1) // 2) // (out - 1)
    else:
        step = (1024 * size + out // 2) // out
    at = np.arange(out, dtype=np.int64) * step
    if node.options.get("half_pixel_centers"):
        at += step // 2 - 512
    lower = np.maximum(np.trunc(at / 1024), 0).astype(np.int64)
    upper = np.minimum(np.trunc((at + 1023) / 1024), size - 1).astype(np.int64)
    return np.stack([lower, upper, at - 1024 * lower], axis=1).reshape(-1).astype(np.int32)


def _exact_positions(node: Node, size: int, out: int) -> tuple[_Positions, int]:
    """The same with weights in 1/units, exactly; and the units."""
    ratio = Fraction(size - 1, out - 1) if node.options.get("align_corners") and out > 1 else Fraction(size, out)
    shift = Fraction(1, 2) if node.options.get("half_pixel_centers") else Fraction(0)
    at = [min(max((i + shift) * ratio - shift, Fraction(0)), Fraction(size - 1)) for i in range(out)]
    units = lcm(*(p.denominator for p in at))
    return np.array([(floor(p), ceil(p), (p - floor(p)) * units) for p in at], np.int32).reshape(-1), units
