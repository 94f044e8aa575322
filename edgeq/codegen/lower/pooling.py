"""AVERAGE_POOL_2D and MAX_POOL_2D."""

from __future__ import annotations

from collections.abc import Iterator

from edgeq.codegen.lower.common import SUFFIX, activation_range, activations, require, same_type, scale, zero_point
from edgeq.codegen.lower.convolution import geometry, window_overlap
from edgeq.codegen.registry import lowering
from edgeq.codegen.step import Node, Overlap, Step, Struct, Unsupported
from edgeq.graph.ir import TensorType


@lowering("AVERAGE_POOL_2D", "MAX_POOL_2D")
def pool_2d(node: Node) -> Iterator[Step]:
    """Input and output share scale and zero point; padding is left out of the mean and the maximum."""
    source, result, options = node.input(0), node.output(), node.options
    require(node, source, result, types=(TensorType.INT8, TensorType.INT16))
    activation = same_type(source, result)
    if (scale(source), zero_point(source)) != (scale(result), zero_point(result)):
        raise Unsupported("Its input and output have different scales.", "Convert the model again.")
    fields = geometry(node, int(options["filter_height"]), int(options["filter_width"]))
    if fields["in_c"] != fields["out_c"]:
        raise Unsupported("It changes the number of channels.")
    low, high = activation_range(node, result)
    overlap = window_overlap(node, fields)
    for unused in ("dilation_h", "dilation_w", "out_c"):
        fields.pop(unused)
    kind = "average_pool_2d" if node.operator.name == "AVERAGE_POOL_2D" else "max_pool_2d"
    kernel = f"{kind}_{SUFFIX[activation]}"
    taps = result.elements * fields["filter_h"] * fields["filter_w"]
    yield Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel=kernel,
        method=f"{fields['filter_h']}x{fields['filter_w']}, portable C",
        calls=(f"edgeq_{kernel}(&{{params}}, {{t{source.index}}}, {{t{result.index}}});",),
        inputs=activations(source),
        outputs=(result.index,),
        constants=(Struct("params", "pool_params", {**fields, "act_min": low, "act_max": high}),),
        overlaps=(Overlap(source.index, result.index, overlap),),
        sources=(f"{kernel}.c",),
        headers=("pooling.h", "arithmetic.h"),
        cost=taps * 6 + result.elements * 30,
        code_bytes=300,
    )
