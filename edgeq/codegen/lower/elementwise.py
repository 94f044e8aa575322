"""Element-wise operators of two broadcast inputs: ADD, SUB, MUL, MAXIMUM, MINIMUM, SQUARED_DIFFERENCE, PRELU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from math import ceil, floor, frexp, prod

import numpy as np

from edgeq.codegen.lower.common import (
    RANGE,
    SUFFIX,
    activation_range,
    activations,
    c_type,
    in_place,
    multiplier,
    pointer,
    require,
    same_type,
    scale,
    strides,
    zero_point,
)
from edgeq.codegen.registry import lowering
from edgeq.codegen.step import Constant, Fields, Node, Overlap, Step, Struct, Unsupported
from edgeq.graph.ir import Tensor, TensorType

_QUANTIZED = (TensorType.INT8, TensorType.INT16)
RANK = 5
"""Dimensions that a kernel's broadcast loop has, after neighbours were merged."""


def broadcast(a: Sequence[int], b: Sequence[int], out: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Sizes of the output's loops and the strides of both inputs in elements; neighbouring loops are merged."""
    rank = len(out)

    def padded(shape: Sequence[int]) -> tuple[list[int], list[int]]:
        sizes = [1] * (rank - len(shape)) + list(shape)
        steps = [0 if size == 1 else step for size, step in zip(sizes, strides(sizes), strict=True)]
        return sizes, steps

    (a_sizes, a_steps), (b_sizes, b_steps) = padded(a), padded(b)
    merged: list[tuple[int, int, int]] = []
    for size, sa, sb, ta, tb in zip(out, a_steps, b_steps, a_sizes, b_sizes, strict=True):
        if size != max(ta, tb) or {ta, tb} - {1, size}:
            raise Unsupported(f"Shapes {list(a)} and {list(b)} do not broadcast to {list(out)}.")
        if size == 1:
            continue
        if merged and merged[-1][1] == sa * size and merged[-1][2] == sb * size:
            merged[-1] = (merged[-1][0] * size, sa, sb)
        else:
            merged.append((size, sa, sb))
    if len(merged) > RANK:
        raise Unsupported(f"It broadcasts over {len(merged)} dimensions; {RANK} are supported.")
    merged = [(1, 0, 0)] * (RANK - len(merged)) + merged
    return [m[0] for m in merged], [m[1] for m in merged], [m[2] for m in merged]


def _shape(a: Tensor, b: Tensor, result: Tensor) -> dict[str, tuple[int, ...]]:
    sizes, a_steps, b_steps = broadcast(a.shape, b.shape, result.shape)
    return {"size": tuple(sizes), "a_stride": tuple(a_steps), "b_stride": tuple(b_steps)}


def binary_step(node: Node, kernel: str, params: Struct, headers: tuple[str, ...], cost: float) -> Step:
    """A call `kernel(&params, a, b, out)`; either input may be a constant."""
    a, b, result = node.input(0), node.input(1), node.output()
    constants = [
        Constant(name, c_type(tensor), np.asarray(tensor.data).reshape(-1))
        for name, tensor in (("a", a), ("b", b))
        if tensor.is_constant
    ]
    overlaps: list[Overlap] = []
    for tensor in (a, b):
        if prod(tensor.shape) == result.elements:
            overlaps += in_place(tensor, result)
    return Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel=kernel,
        method="portable C",
        calls=(f"edgeq_{kernel}(&{{params}}, {pointer(a, 'a')}, {pointer(b, 'b')}, {{t{result.index}}});",),
        inputs=activations(a, b),
        outputs=(result.index,),
        constants=(*constants, params),
        overlaps=tuple(overlaps),
        sources=(f"{kernel}.c",),
        headers=headers,
        cost=result.elements * cost,
        code_bytes=300,
    )


_HEADERS = ("elementwise.h", "arithmetic.h")


def _integer_arithmetic(node: Node) -> Step:
    """int32 without a scale, as token ids and shapes have it."""
    a, b, result = node.input(0), node.input(1), node.output()
    require(node, a, b, result, types=(TensorType.INT32,))
    name = node.options.get("fused_activation_function", "NONE")
    bounds = {"NONE": (-(2**31), 2**31 - 1), "RELU": (0, 2**31 - 1), "RELU6": (0, 6), "RELU_N1_TO_1": (-1, 1)}
    if name not in bounds:
        raise Unsupported(f"Its fused activation {name} is not supported.", "Use a separate activation layer.")
    operation = ("ADD", "SUB", "MUL").index(node.operator.name)
    low, high = bounds[name]
    fields: Fields = {**_shape(a, b, result), "operation": operation, "act_min": low, "act_max": high}
    return binary_step(node, "arithmetic_s32", Struct("params", "arithmetic_params", fields), ("elementwise.h",), 20)


def _on_scale(common: float, left: int, a: Tensor, b: Tensor, result: Tensor) -> Fields:
    """The loops, and what brings both inputs to the scale `common` with `left` bits of headroom."""
    (a_factor, a_shift), (b_factor, b_shift) = multiplier(scale(a) / common), multiplier(scale(b) / common)
    return {
        **_shape(a, b, result),
        "left_shift": left,
        "a_offset": -zero_point(a),
        "a_multiplier": a_factor,
        "a_shift": a_shift,
        "b_offset": -zero_point(b),
        "b_multiplier": b_factor,
        "b_shift": b_shift,
    }


@lowering("ADD", "SUB")
def add(node: Node) -> Iterator[Step]:
    """Both inputs on a common scale with 20 bits (int16: 15) of headroom, then requantized; int32 as it is."""
    a, b, result = node.input(0), node.input(1), node.output()
    if a.type is TensorType.INT32:
        yield _integer_arithmetic(node)
        return
    require(node, a, b, result, types=_QUANTIZED)
    activation = same_type(a, b, result)
    left = 20 if activation is TensorType.INT8 else 15
    common = 2 * max(scale(a), scale(b))
    factor, shift = multiplier(common / ((1 << left) * scale(result)))
    if shift > 0:
        raise Unsupported("Its output scale is far smaller than its inputs' scales.", "Convert the model again.")
    low, high = activation_range(node, result)
    fields: Fields = {
        **_on_scale(common, left, a, b, result),
        "b_sign": -1 if node.operator.name == "SUB" else 1,
        "multiplier": factor,
        "shift": shift,
        "output_offset": zero_point(result),
        "act_min": low,
        "act_max": high,
    }
    yield binary_step(node, f"add_{SUFFIX[activation]}", Struct("params", "add_params", fields), _HEADERS, 80)


@lowering("MUL", "SQUARED_DIFFERENCE")
def mul(node: Node) -> Iterator[Step]:
    """MUL: the product of both without zero points, requantized once; int32 as it is."""
    a, b, result = node.input(0), node.input(1), node.output()
    if node.operator.name == "MUL" and a.type is TensorType.INT32:
        yield _integer_arithmetic(node)
        return
    if node.operator.name == "SQUARED_DIFFERENCE":
        yield _squared_difference(node)
        return
    require(node, a, b, result, types=_QUANTIZED)
    activation = same_type(a, b, result)
    factor, shift = multiplier(scale(a) * scale(b) / scale(result))
    low, high = activation_range(node, result)
    fields: Fields = {
        **_shape(a, b, result),
        "a_offset": -zero_point(a),
        "b_offset": -zero_point(b),
        "multiplier": factor,
        "shift": shift,
        "output_offset": zero_point(result),
        "act_min": low,
        "act_max": high,
    }
    yield binary_step(node, f"mul_{SUFFIX[activation]}", Struct("params", "mul_params", fields), _HEADERS, 30)


def _squared_difference(node: Node) -> Step:
    """(a - b)^2: inputs on a common scale (int8: 7 bits of headroom), the difference squared, requantized."""
    a, b, result = node.input(0), node.input(1), node.output()
    require(node, a, b, result, types=_QUANTIZED)
    activation = same_type(a, b, result)
    left = 7 if activation is TensorType.INT8 else 0
    low, high = RANGE[activation]
    common = 2 * max(scale(a), scale(b))
    factor, shift = multiplier(common * common / ((1 << 2 * left) * scale(result)))
    fields: Fields = {
        **_on_scale(common, left, a, b, result),
        "b_sign": -1,
        "multiplier": factor,
        "shift": shift,
        "output_offset": zero_point(result),
        "act_min": low,
        "act_max": high,
    }
    kernel = f"squared_difference_{SUFFIX[activation]}"
    return binary_step(node, kernel, Struct("params", "add_params", fields), _HEADERS, 80)


@lowering("MAXIMUM", "MINIMUM")
def extremum(node: Node) -> Iterator[Step]:
    """The larger or smaller stored value; all three tensors share scale and zero point."""
    a, b, result = node.input(0), node.input(1), node.output()
    require(node, a, b, result, types=(TensorType.INT8, TensorType.INT16, TensorType.INT32))
    kind = same_type(a, b, result)
    if kind is not TensorType.INT32:
        quantizations = {(scale(t), zero_point(t)) for t in (a, b, result)}
        if len(quantizations) > 1:
            raise Unsupported("Its tensors have different scales.", "Convert the model again.")
    kernel = f"{node.operator.name.lower()}_{SUFFIX[kind]}"
    yield binary_step(node, kernel, Struct("params", "broadcast", _shape(a, b, result)), ("elementwise.h",), 15)


@lowering("PRELU")
def prelu(node: Node) -> Iterator[Step]:
    """x, or alpha * x below 0, alpha broadcast (Prelu in int8); in int16 correctly rounded, for TFLM has none."""
    a, b, result = node.input(0), node.input(1), node.output()
    if a.type is TensorType.INT16:
        yield _prelu_16(node)
        return
    require(node, a, b, result, types=(TensorType.INT8,))
    factor, shift = multiplier(scale(a) / scale(result))
    negative_factor, negative_shift = multiplier(scale(a) * scale(b) / scale(result))
    fields: Fields = {
        **_shape(a, b, result),
        "a_offset": -zero_point(a),
        "b_offset": -zero_point(b),
        "multiplier": factor,
        "shift": shift,
        "negative_multiplier": negative_factor,
        "negative_shift": negative_shift,
        "output_offset": zero_point(result),
    }
    yield binary_step(node, "prelu_s8", Struct("params", "prelu_params", fields), _HEADERS, 40)


_FACTOR_BITS = 46


def _exact_factor(real: Fraction, shift: int) -> int:
    """`real` in units of 2^-shift, such that |q| * factor rounds as |q| * real does for every int16 q.

    It is rounded up, which takes ties away from zero. Only products that are nearly a tie can go wrong: they are looked
    at in fractions.
    """
    factor: int = ceil(abs(real) * 2**shift)
    q = np.arange(1, 32769)
    part = q * float(abs(real)) % 1
    for value in q[np.abs(part - 0.5) < 1e-8].tolist():
        if floor(abs(real) * value + Fraction(1, 2)) != (value * factor + (1 << (shift - 1))) >> shift:
            raise Unsupported("A product of it cannot be rounded correctly.", "Use LEAKY_RELU.")
    return factor if real >= 0 else -factor


def _prelu_16(node: Node) -> Step:
    """The alphas become factors of 46 bits, which round correctly for every input."""
    a, b, result = node.input(0), node.input(1), node.output()
    require(node, a, result, types=(TensorType.INT16,))
    require(node, b, types=_QUANTIZED)
    if zero_point(a) or zero_point(result):
        raise Unsupported("A zero point is not 0.", "Convert the model again.")
    ratio = Fraction(scale(a)) / Fraction(scale(result))
    alphas = node.constant(1, "alpha").reshape(-1).astype(int) - zero_point(b)
    reals = [ratio * Fraction(scale(b)) * int(alpha) for alpha in alphas]
    largest = float(max(ratio, *map(abs, reals)))
    shift = _FACTOR_BITS - frexp(largest)[1]
    if not 1 <= shift <= 62:
        raise Unsupported("Its scales are too far apart.", "Convert the model again.")
    known = {real: _exact_factor(real, shift) for real in {ratio, *reals}}
    fields: Fields = {**_shape(a, b, result), "shift": shift, "multiplier": known[ratio]}
    factors = Constant("b", "int64_t", np.array([known[real] for real in reals], np.int64))
    plain = binary_step(node, "prelu_s16", Struct("params", "prelu_s16_params", fields), ("elementwise.h",), 40)
    return replace(plain, constants=(factors, plain.constants[-1]))
