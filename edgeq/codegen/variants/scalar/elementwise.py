"""ADD and SUB of equal shapes on cores without DSP: y = saturate((a alpha + b beta + addend) >> shift).

Proven for all 65,536 pairs at generation (`line`). NHWC int8, element by element; outputs may lie on an input.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgeq.codegen.lower.common import activations, in_place
from edgeq.codegen.lower.elementwise import add as portable_add
from edgeq.codegen.registry import variant
from edgeq.codegen.step import Node, Source, Step, Struct, Unsupported
from edgeq.codegen.variants.dsp.elementwise import exact_sums, line
from edgeq.codegen.variants.scalar.common import applies

_PROTOTYPE = (
    "void edgeq_add_s8_scalar(const int8_t *a, const int8_t *b, int8_t *y, const int8_t *end, int32_t alpha,\n"
    "                         int32_t beta, int32_t addend, int32_t shift);"
)
_SOURCE = Source(
    "add_s8_scalar",
    f"""#include <stdint.h>

{_PROTOTYPE}

/* y = saturate((a alpha + b beta + addend) >> shift) up to `end` of y; proven for all 65,536 pairs at generation. */
{_PROTOTYPE[:-1]} {{
    for (; y != end; y++) {{
        const int32_t value = (*a++ * alpha + *b++ * beta + addend) >> shift;
        *y = (int8_t)(value < -128 ? -128 : value > 127 ? 127 : value);
    }}
}}
""",
    _PROTOTYPE,
)


@variant("ADD", "SUB")
def add(node: Node) -> Iterator[Step]:
    """Equal shapes; see the module."""
    if not applies(node):
        return
    try:
        a, b, result = node.input(0), node.input(1), node.output()
        portable = next(iter(portable_add(node)))
    except Unsupported:
        return
    if a.shape != b.shape or a.shape != result.shape or a.is_constant or b.is_constant:
        return
    fields = next(c.fields for c in portable.constants if isinstance(c, Struct))
    sign = -1 if node.operator.name == "SUB" else 1
    found = line(exact_sums(fields), a.scale / result.scale, sign * b.scale / result.scale, drop=0)
    if found is None:
        return
    end = f"(const int8_t *){{t{result.index}}} + {result.elements}"
    yield Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel="add_s8_scalar",
        method="two multiplications and a shift, proven for all pairs",
        calls=(
            f"edgeq_add_s8_scalar({{t{a.index}}}, {{t{b.index}}}, {{t{result.index}}}, {end}, {found.alpha}, "
            f"{found.beta}, {found.addend}, {found.shift});",
        ),
        inputs=activations(a, b),
        outputs=(result.index,),
        overlaps=(*in_place(a, result), *in_place(b, result)),
        emitted=(_SOURCE,),
        cost=result.elements * 16,
        code_bytes=60,
    )
