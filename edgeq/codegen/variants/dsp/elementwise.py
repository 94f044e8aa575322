"""ADD of two tensors of equal shape: a multiply-add for each input, one shift.

Method. result = saturate_int8((a * alpha + b * beta + addend) >> shift), with a and b in the upper byte of 16-bit
halves (a mask instead of SXTB16), so that SMLAWB and SMLAWT keep 24 bits below the point: 5.75 instructions an element.
TFLM rounds three times; that all roundings together give this line is proven by trying all 65,536 pairs of inputs.

Registers: r0 a, r1 b, r2 output, r3 its end; r4 mask, r5 alpha, r6 beta, r7 addend; r8-r12 data.
Obligations: equal shapes, a multiple of 4 elements, the proof.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgeq.codegen.lower.common import activations, in_place
from edgeq.codegen.registry import variant
from edgeq.codegen.step import Constant, Node, Source, Step
from edgeq.codegen.variants.assembly import as_words, function
from edgeq.codegen.variants.dsp.common import applies
from edgeq.codegen.variants.sums import Sum, line


def _kernel(shift: int) -> tuple[str, Source]:
    name = f"edgeq_add_s8_dsp_q{shift}"
    body = [
        "    ldr r8, [r0], #4", "    ldr r9, [r1], #4", "    and r10, r4, r8, lsl #8", "    and r8, r4, r8",
        "    and r11, r4, r9, lsl #8", "    and r9, r4, r9",
    ]  # fmt: skip
    for half, a, b in (("b", "r10", "r11"), ("b", "r8", "r9"), ("t", "r10", "r11"), ("t", "r8", "r9")):
        body += [
            f"    smlaw{half} r12, r5, {a}, r7", f"    smlaw{half} r12, r6, {b}, r12",
            f"    ssat r12, #8, r12, asr #{shift}", "    strb r12, [r2], #1",
        ]  # fmt: skip
    lines = [
        "    push {r4-r11}", "    ldr r12, [sp, #32]", "    ldm r12, {r4, r5, r6, r7}", "    1:", *body,
        "    cmp r2, r3", "    bne 1b", "    pop {r4-r11}", "    bx lr",
    ]  # fmt: skip
    prototype = f"void {name}(const int8_t *a, const int8_t *b, int8_t *y, const int8_t *end, const int32_t *line);"
    comment = (
        f"y = saturate((a alpha + b beta + addend) >> {shift}), proven for all 65,536 pairs at generation.\n"
        " * line: mask, alpha, beta, addend. The mask leaves each byte in the upper half of 16 bits."
    )
    text = f"#include <stdint.h>\n\n{prototype}\n\n{function(name, comment, lines)}"
    return name, Source(name.removeprefix("edgeq_"), text, prototype)


@variant("ADD", "SUB")
def add(node: Node) -> Iterator[Step]:
    """Equal shapes; see the module."""
    both = Sum.of(node) if applies(node) else None
    if both is None or both.result.elements % 4:
        return
    a, b, result = both.a, both.b, both.result
    found = line(both.exact, both.alpha, both.beta)
    if found is None:
        return
    kernel, source = _kernel(found.shift)
    end = f"(const int8_t *){{t{result.index}}} + {result.elements}"
    yield Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel="add_s8_dsp",
        method="one multiply-add for each input, proven for all pairs",
        calls=(f"{kernel}({{t{a.index}}}, {{t{b.index}}}, {{t{result.index}}}, {end}, {{line}});",),
        inputs=activations(a, b),
        outputs=(result.index,),
        constants=(
            Constant("line", "int32_t", as_words(np.array([-0xFF0100, found.alpha, found.beta, found.addend]))),
        ),
        overlaps=(*in_place(a, result), *in_place(b, result)),
        emitted=(source,),
        cost=result.elements * 6,
        code_bytes=120,
    )
