"""SOFTMAX in int8 and 16x8, LOG_SOFTMAX in int8: exponentials come from a table made at generation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from edgeq.codegen import arithmetic as fixed
from edgeq.codegen.lower.common import in_place, multiplier, plain_step, require, scale, zero_point
from edgeq.codegen.registry import lowering
from edgeq.codegen.step import Constant, Node, Step, Struct, Unsupported
from edgeq.graph.ir import TensorType

_HEADERS = ("softmax.h", "arithmetic.h")
_INTEGER_BITS = 5


def _into_q5(beta_scale: float) -> tuple[int, int]:
    """Multiplier and shift that bring input steps into Q5.26 (PreprocessSoftmaxScaling)."""
    # Halved and doubled again: the greatest one has a shift of 31, with which no distance but 0 is computed.
    factor, half = multiplier(min(beta_scale * 2.0 ** (31 - _INTEGER_BITS), 2.0**31 - 1) / 2, "input scale")
    if half < -1:
        raise Unsupported("Its input scale is too small.", "Calibrate with data that reach larger values.")
    return factor, half + 1


def exponentials(beta_scale: float) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """exp(-beta * scale * d) in Q0.31 for d = 0, 1, ... as long as TFLM computes it; at most 256 entries."""
    factor, left = _into_q5(beta_scale)
    count = min(256, fixed.input_radius(_INTEGER_BITS, left) + 1)
    distances = -np.arange(count, dtype=np.int64)
    scaled = fixed.doubling_high_mul(fixed.wrap32(distances << left), factor)
    return fixed.exp_negative(scaled, _INTEGER_BITS).astype(np.int32)


def _samples(name: str, function: Callable[[Any], Any], low: float, high: float) -> Constant:
    """513 samples in Q0.15, each moved by half of the interpolation's error at the middle of its span (gen_lut)."""
    single = np.float32
    step = single((high - low) / 512)
    at = (single(low) + np.arange(513, dtype=single) * step).astype(single)

    def exact(x: Any) -> Any:
        return function(x.astype(np.float64)).astype(single) * single(32768)

    here = fixed.round_half_away(exact(at))
    chord = fixed.round_half_away((exact(at[1:]) + here[:-1].astype(single)) / single(2))
    error = chord - fixed.round_half_away(exact((at[:-1] + step / single(2)).astype(single)))
    here[:-1] -= fixed.round_half_away(error / 2)
    return Constant(name, "int16_t", np.clip(here, -32768, 32767).astype(np.int16))


def _softmax_16(node: Node) -> Step:
    """16x8: exponentials and a reciprocal interpolated in tables (SoftmaxInt16)."""
    source, result = node.input(0), node.output()
    require(node, result, types=(TensorType.INT16,))
    if not math.isclose(scale(result), 1 / 32768, rel_tol=1e-3) or zero_point(result) != 0:
        raise Unsupported("Its output's scale is not 1/32768 with zero point 0.", "Convert the model again.")
    depth = source.shape[-1]
    if depth >= 1 << 16:
        raise Unsupported("Its sum of exponentials may exceed 32 bits.", "Use fewer classes.")
    factor, shift = multiplier(scale(source) * float(node.options["beta"]) / (10.0 / 65535.0))
    if shift > 14:
        raise Unsupported(f"Its input has the scale {scale(source)}.", "Convert the model again.")
    fields = {"rows": source.elements // depth, "depth": depth, "multiplier": factor, "shift": shift}
    return plain_step(
        node,
        "softmax_s16",
        (
            _samples("exponentials", np.exp, -10.0, 0.0),
            _samples("reciprocals", lambda x: 1 / (1 + x), 0.0, 1.0),
            Struct("params", "softmax_s16_params", fields),
        ),
        headers=_HEADERS,
        cost=source.elements * 60 + fields["rows"] * 150,
        code_bytes=400,
        method="exponentials and reciprocal from tables of 513",
        overlaps=in_place(source, result),
    )


@lowering("SOFTMAX")
def softmax(node: Node) -> Iterator[Step]:
    """Over the last axis; the output's scale is 1/256 and its zero point -128 (16x8: 1/32768 and 0)."""
    source, result = node.input(0), node.output()
    if source.type is TensorType.INT16:
        yield _softmax_16(node)
        return
    require(node, source, result, types=(TensorType.INT8,))
    if not math.isclose(scale(result), 1 / 256, rel_tol=1e-3) or zero_point(result) != -128:
        raise Unsupported("Its output's scale is not 1/256 with zero point -128.", "Convert the model again.")
    depth = source.shape[-1]
    table = exponentials(float(node.options["beta"]) * scale(source))
    fields = {"rows": source.elements // depth, "depth": depth, "entries": table.size}
    yield plain_step(
        node,
        "softmax_s8",
        (Constant("exponentials", "int32_t", table), Struct("params", "softmax_params", fields)),
        headers=_HEADERS,
        cost=source.elements * 40 + fields["rows"] * 150,
        code_bytes=400,
        method=f"exponentials from a table of {table.size}",
        overlaps=in_place(source, result),
    )


@lowering("LOG_SOFTMAX")
def log_softmax(node: Node) -> Iterator[Step]:
    """Over the last axis; the output's scale is 1/16 and its zero point 127 (reference_integer_ops::LogSoftmax)."""
    source, result = node.input(0), node.output()
    require(node, source, result, types=(TensorType.INT8,))
    if scale(result) != 16 / 256 or zero_point(result) != 127:
        raise Unsupported("Its output's scale is not 1/16 with zero point 127.", "Convert the model again.")
    depth = source.shape[-1]
    if depth >= 1 << 12:
        raise Unsupported("Its sum of exponentials may exceed 32 bits.", "Use fewer classes.")
    factor, left = _into_q5(scale(source))
    if left < 1:
        raise Unsupported("Its input scale is too small.", "Calibrate with data that reach larger values.")
    reverse_factor, reverse_shift = multiplier(2.0 ** (31 - left) / factor)
    table = exponentials(scale(source))
    fields = {
        "rows": source.elements // depth,
        "depth": depth,
        "entries": table.size,
        "multiplier": factor,
        "shift": left,
        "reverse_multiplier": reverse_factor,
        "reverse_shift": reverse_shift,
        "lowest": -fixed.input_radius(_INTEGER_BITS, left) - 1,
    }
    yield plain_step(
        node,
        "log_softmax_s8",
        (Constant("exponentials", "int32_t", table), Struct("params", "log_softmax_params", fields)),
        headers=_HEADERS,
        cost=source.elements * 50 + fields["rows"] * 300,
        code_bytes=600,
        method=f"exponentials from a table of {table.size}",
        overlaps=in_place(source, result),
    )
