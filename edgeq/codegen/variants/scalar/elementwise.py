"""ADD and SUB of equal shapes on cores without DSP, NHWC int8, element by element; outputs may lie on an input.

Line. y = saturate((a alpha + b beta + addend) >> shift), proven for all 65,536 pairs at generation (`line`).
Table, where no line is proven. TFLM scales each input to a common unit, adds, scales the sum: the scaled inputs are two
tables of 256 words, in units of 2^-shift of the result; y = saturate((A[a] + B[b]) >> shift), proven likewise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from edgeq.codegen.arithmetic import Ints
from edgeq.codegen.lower.common import activations, in_place
from edgeq.codegen.registry import variant
from edgeq.codegen.step import Constant, Node, Source, Step
from edgeq.codegen.variants.assembly import as_words
from edgeq.codegen.variants.scalar.common import applies
from edgeq.codegen.variants.sums import Sum, addends, fitting_addend, line

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


_TABLE_PROTOTYPE = (
    "void edgeq_add_table_s8_scalar(const int8_t *a, const int8_t *b, int8_t *y, const int8_t *end,\n"
    "                               const int32_t *tables, int32_t shift);"
)
_TABLE_SOURCE = Source(
    "add_table_s8_scalar",
    f"""#include <stdint.h>

{_TABLE_PROTOTYPE}

/* y = saturate((A[a] + B[b]) >> shift) up to `end` of y; tables: A and B from -128 on. Proven for all 65,536 pairs. */
{_TABLE_PROTOTYPE[:-1]} {{
    const int32_t *of_a = tables + 128, *of_b = tables + 384;
    for (; y != end; y++) {{
        const int32_t value = (of_a[*a++] + of_b[*b++]) >> shift;
        *y = (int8_t)(value < -128 ? -128 : value > 127 ? 127 : value);
    }}
}}
""",
    _TABLE_PROTOTYPE,
)


@variant("ADD", "SUB")
def add(node: Node) -> Iterator[Step]:
    """Equal shapes; see the module."""
    both = Sum.of(node) if applies(node) else None
    if both is None:
        return
    a, b, result = both.a, both.b, both.result
    found = line(both.exact, both.alpha, both.beta, drop=0)
    if found is None:
        yield from _by_table(node, both)
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


def _tables(fields: Mapping[str, Any], exact: Ints) -> tuple[Ints, int] | None:
    """A and B one after the other, the addend in A, and the shift; None where no addend fits."""
    factor = Fraction(fields["multiplier"]) * Fraction(2) ** (fields["shift"] - 31)
    one, two = addends(fields)
    reach = float((int(np.abs(one).max()) + int(np.abs(two).max())) * factor) + 256
    shift = min(22, 30 - math.ceil(math.log2(reach)))
    a, b = (
        np.array([math.floor(value * factor * 2**shift) for value in part.tolist()], np.int64) for part in (one, two)
    )
    addend = fitting_addend(a[:, None] + b[None, :], exact, shift) if shift > 0 else None
    return None if addend is None else (np.concatenate([a + addend, b]), shift)


def _by_table(node: Node, both: Sum) -> Iterator[Step]:
    found = _tables(both.fields, both.exact)
    if found is None:
        return
    tables, shift = found
    a, b, result = both.a, both.b, both.result
    end = f"(const int8_t *){{t{result.index}}} + {result.elements}"
    arguments = f"{{t{a.index}}}, {{t{b.index}}}, {{t{result.index}}}, {end}, {{tables}}, {shift}"
    yield Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel="add_table_s8_scalar",
        method="a table for each input and a shift, proven for all pairs",
        calls=(f"edgeq_add_table_s8_scalar({arguments});",),
        inputs=activations(a, b),
        outputs=(result.index,),
        constants=(Constant("tables", "int32_t", as_words(tables)),),
        overlaps=(*in_place(a, result), *in_place(b, result)),
        emitted=(_TABLE_SOURCE,),
        cost=result.elements * 16,
        code_bytes=60,
    )
