"""ADD_N and CUMSUM: sums of int8 values of one quantization, requantized.

TFLM's arithmetic but for one fault: it starts a sum at minus the zero point instead of at 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from edgeq.codegen.lower.common import (
    activations,
    axis_of,
    in_place,
    int_list,
    multiplier,
    pointer,
    require,
    scale,
    zero_point,
)
from edgeq.codegen.registry import lowering
from edgeq.codegen.step import Constant, Fields, Node, Step, Struct, Unsupported
from edgeq.graph.ir import Tensor, TensorType

_HEADERS = ("elementwise.h", "arithmetic.h")
_LEFT = 20


def _factors(source: Tensor, result: Tensor, common: float, left: int = _LEFT) -> Fields:
    """Inputs on the scale `common` with `left` bits of headroom, and from there to the result."""
    fields: Fields = {"input_offset": -zero_point(source), "output_offset": zero_point(result)}
    fields["input_multiplier"], fields["input_shift"] = multiplier(scale(source) / common)
    fields["multiplier"], fields["shift"] = multiplier(common / ((1 << left) * scale(result)))
    return fields


def _step(node: Node, kernel: str, call: str, sources: list[Tensor], constants: tuple[Constant | Struct, ...]) -> Step:
    result = node.output()
    return Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel=kernel,
        method="portable C",
        calls=(call,),
        inputs=activations(*sources),
        outputs=(result.index,),
        constants=constants,
        overlaps=tuple(overlap for source in sources for overlap in in_place(source, result)),
        sources=(f"{kernel}.c",),
        headers=_HEADERS,
        cost=sum(source.elements for source in sources) * 30,
        code_bytes=200,
    )


@lowering("ADD_N")
def add_n(node: Node) -> Iterator[Step]:
    """The sum of up to 16 tensors of one shape and quantization."""
    result = node.output()
    sources = [node.input(i) for i in range(len(node.operator.inputs))]
    require(node, *sources, result, types=(TensorType.INT8,))
    if len({(t.shape, scale(t), zero_point(t)) for t in sources}) > 1 or sources[0].shape != result.shape:
        raise Unsupported("Its inputs have different shapes or scales.", "Use ADD layers.")
    if len(sources) > 16:
        raise Unsupported(f"It has {len(sources)} inputs; 16 are supported.", "Add in two layers.")
    fields = _factors(sources[0], result, 2 * scale(sources[0]))
    params = Struct("params", "sum_n_params", {"inputs": len(sources), "count": result.elements, **fields})
    constants = [
        Constant(f"values{i}", "int8_t", t.data.reshape(-1)) for i, t in enumerate(sources) if t.data is not None
    ]
    listed = ", ".join(pointer(t, f"values{i}") for i, t in enumerate(sources))
    call = f"edgeq_add_n_s8(&{{params}}, (const int8_t *const[]){{{{{listed}}}}}, {{t{result.index}}});"
    yield _step(node, "add_n_s8", call, sources, (*constants, params))


@lowering("CUMSUM")
def cumsum(node: Node) -> Iterator[Step]:
    """Running sums along a constant axis; over more than 16 values, where TFLM's sums may overflow, finer ones."""
    source, result = node.input(0), node.output()
    require(node, source, result, types=(TensorType.INT8,))
    axis = axis_of(int_list(node.constant(1, "axis"))[0], len(source.shape))
    if source.shape != result.shape:
        raise Unsupported(f"Its output has the shape {list(result.shape)}.")
    left = _LEFT - max(0, (source.shape[axis] - 1).bit_length() - 4)  # 255 * 2^(left - 1) * axis < 2^31
    factors = _factors(source, result, 2 * scale(source), left)
    if left < _LEFT and (left < 1 or int(factors["shift"]) > 0):  # type: ignore[arg-type]
        raise Unsupported(f"It sums {source.shape[axis]} values, which may exceed 32 bits.", "Use a convolution.")
    fields: Fields = {
        "outer": prod(source.shape[:axis]),
        "axis": source.shape[axis],
        "inner": prod(source.shape[axis + 1 :]),
        "exclusive": int(bool(node.options.get("exclusive"))),
        "reverse": int(bool(node.options.get("reverse"))),
        "left_shift": left,
        **factors,
    }
    call = f"edgeq_cumsum_s8(&{{params}}, {{t{source.index}}}, {{t{result.index}}});"
    yield _step(node, "cumsum_s8", call, [source], (Struct("params", "cumsum_params", fields),))
