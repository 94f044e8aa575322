"""Conversions between types: float32 to quantized and back, int16 to int8 and back."""

from __future__ import annotations

from collections.abc import Iterator

from edgeq.codegen.lower.common import SUFFIX, in_place, multiplier, plain_step, require, scale, zero_point
from edgeq.codegen.registry import lowering
from edgeq.codegen.step import Node, Step, Struct
from edgeq.graph.ir import Tensor, TensorType


def _step(node: Node, source: Tensor, result: Tensor, kernel: str, params: Struct) -> Step:
    return plain_step(
        node,
        kernel,
        (params,),
        headers=("conversion.h", "arithmetic.h"),
        cost=source.elements * 20,
        code_bytes=80,
        overlaps=in_place(source, result),
    )


def quantize_step(node: Node, source: Tensor, result: Tensor, low: int, high: int) -> Step:
    """float32 -> int8, uint8, int16; int16 <-> int8, int16 -> int16."""
    count = source.elements
    if source.type is TensorType.FLOAT32:
        fields = {"count": count, "scale": scale(result), "zero_point": zero_point(result), "low": low, "high": high}
        params = Struct("params", "quantize_params", fields)
        return _step(node, source, result, f"quantize_f32_{SUFFIX[result.type]}", params)
    factor, shift = multiplier(scale(source) / scale(result))
    integers = {
        "count": count,
        "input_offset": -zero_point(source),
        "multiplier": factor,
        "shift": shift,
        "output_offset": zero_point(result),
        "low": low,
        "high": high,
    }
    kernel = f"requantize_{SUFFIX[source.type]}_{SUFFIX[result.type]}"
    return _step(node, source, result, kernel, Struct("params", "requantize_params", integers))


@lowering("DEQUANTIZE")
def dequantize(node: Node) -> Iterator[Step]:
    """scale * (q - zero_point) in float32, which is exact up to one rounding."""
    source, result = node.input(0), node.output()
    require(node, source, types=(TensorType.INT8, TensorType.UINT8, TensorType.INT16))
    require(node, result, types=(TensorType.FLOAT32,))
    fields = {"count": source.elements, "scale": scale(source), "zero_point": zero_point(source)}
    kernel = f"dequantize_{SUFFIX[source.type]}_f32"
    yield _step(node, source, result, kernel, Struct("params", "dequantize_params", fields))
