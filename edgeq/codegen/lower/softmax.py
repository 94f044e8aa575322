"""SOFTMAX and LOG_SOFTMAX in int8, SOFTMAX in 16x8: exponentials come from a table made at generation."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from edgeq.codegen import arithmetic as fixed
from edgeq.codegen.lower.common import activations, in_place, multiplier, require, scale, zero_point
from edgeq.codegen.registry import lowering
from edgeq.codegen.step import Constant, Node, Step, Struct, Unsupported
from edgeq.graph.ir import TensorType

_INTEGER_BITS = 5


def exponentials(beta_scale: float) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """exp(-beta * scale * d) in Q0.31 for d = 0, 1, ... as long as TFLM computes it; at most 256 entries."""
    real = min(beta_scale * 2.0 ** (31 - _INTEGER_BITS), 2.0**31 - 1)
    factor, left = multiplier(real, "input scale")
    if left < 0:
        raise Unsupported("Its input scale is too small.", "Calibrate with data that reach larger values.")
    count = min(256, fixed.input_radius(_INTEGER_BITS, left) + 1)
    distances = -np.arange(count, dtype=np.int64)
    scaled = fixed.doubling_high_mul(fixed.wrap32(distances << left), factor)
    return fixed.exp_negative(scaled, _INTEGER_BITS).astype(np.int32)


@lowering("SOFTMAX")
def softmax(node: Node) -> Iterator[Step]:
    """Over the last axis; the output's scale is 1/256 and its zero point -128."""
    source, result = node.input(0), node.output()
    require(node, source, result, types=(TensorType.INT8,))
    if not math.isclose(scale(result), 1 / 256, rel_tol=1e-3) or zero_point(result) != -128:
        raise Unsupported("Its output's scale is not 1/256 with zero point -128.", "Convert the model again.")
    depth = source.shape[-1]
    table = exponentials(float(node.options["beta"]) * scale(source))
    fields = {"rows": source.elements // depth, "depth": depth, "entries": table.size}
    yield Step(
        operator=node.operator.index,
        name="SOFTMAX",
        kernel="softmax_s8",
        method=f"exponentials from a table of {table.size}",
        calls=(f"edgeq_softmax_s8(&{{params}}, {{t{source.index}}}, {{exponentials}}, {{t{result.index}}});",),
        inputs=activations(source),
        outputs=(result.index,),
        constants=(Constant("exponentials", "int32_t", table), Struct("params", "softmax_params", fields)),
        overlaps=in_place(source, result),
        sources=("softmax_s8.c",),
        headers=("softmax.h", "arithmetic.h"),
        cost=source.elements * 40 + fields["rows"] * 150,
        code_bytes=400,
    )
