"""Unary operators on int16 activations: the Steps that `unary.py` yields for 16x8 models."""

from __future__ import annotations

from edgeq.codegen.lower.common import in_place, multiplier, plain_step, require, scale, zero_point
from edgeq.codegen.step import Fields, Node, Step, Struct, Unsupported
from edgeq.graph.ir import Tensor, TensorType


def unary_16(node: Node) -> tuple[Tensor, Tensor]:
    """Input and output, both int16 with zero point 0 and of one size."""
    source, result = node.input(0), node.output()
    require(node, source, result, types=(TensorType.INT16,))
    if zero_point(source) or zero_point(result) or source.elements != result.elements:
        raise Unsupported("Its input and output differ in size.")
    return source, result


def _step(node: Node, kernel: str, type_: str, fields: Fields, cost: float) -> Step:
    source = node.input(0)
    return plain_step(
        node,
        kernel,
        (Struct("params", type_, {"count": source.elements, **fields}),),
        headers=("elementwise.h", "arithmetic.h"),
        cost=source.elements * cost,
        code_bytes=150,
        overlaps=in_place(source, node.output()),
    )


def two_slopes(node: Node, negative: float) -> Step:
    """x, or `negative` * x below 0: RELU (0), LEAKY_RELU (alpha), ABS (-1); requantized as TFLM does."""
    source, result = unary_16(node)
    ratio = scale(source) / scale(result)
    factor, shift = multiplier(ratio)
    negative_factor, negative_shift = multiplier(abs(ratio * negative))
    fields: Fields = {
        "multiplier": factor,
        "shift": shift,
        "negative_sign": -1 if negative < 0 else 1,
        "negative_multiplier": negative_factor,
        "negative_shift": negative_shift,
    }
    return _step(node, "two_slopes_s16", "two_slopes_params", fields, 25)


def rsqrt(node: Node, real: float) -> Step:
    """2^20 / sqrt(x), rounded, times `real` / 2^20."""
    unary_16(node)
    factor, shift = multiplier(real)
    if not -31 <= shift - 20 <= 10:
        raise Unsupported("Its scales are too far apart.", "Convert the model again.")
    return _step(node, "rsqrt_s16", "rsqrt_params", {"multiplier": factor, "shift": shift - 20}, 150)
