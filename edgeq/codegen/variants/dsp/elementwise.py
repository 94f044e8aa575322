"""ADD of two tensors of equal shape: a multiply-add for each input, one shift.

Method. result = saturate_int8((a * alpha + b * beta + addend) >> shift), with a and b in the upper byte of 16-bit
halves (a mask instead of SXTB16), so that SMLAWB and SMLAWT keep 24 bits below the point: 5.75 instructions an element.
TFLM rounds three times; that all roundings together give this line is proven by trying all 65,536 pairs of inputs.

Registers: r0 a, r1 b, r2 output, r3 its end; r4 mask, r5 alpha, r6 beta, r7 addend; r8-r12 data.
Obligations: equal shapes, a multiple of 4 elements, the proof.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.codegen.arithmetic import Ints, requantize
from edgeq.codegen.lower.common import activations, in_place
from edgeq.codegen.lower.elementwise import add as portable_add
from edgeq.codegen.registry import variant
from edgeq.codegen.step import Constant, Node, Source, Step, Struct, Unsupported
from edgeq.codegen.variants.dsp.common import applies, as_words, function

_EVERY = np.arange(-128, 128, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Line:
    """(a * alpha >> drop) + (b * beta >> drop) + addend, shifted right, saturated to int8."""

    alpha: int
    beta: int
    addend: int
    shift: int
    drop: int

    def __call__(self, a: Ints, b: Ints) -> Ints:
        total = (a * self.alpha >> self.drop) + (b * self.beta >> self.drop) + self.addend
        return np.asarray(np.clip(total >> self.shift, -128, 127), np.int64)


def addends(fields: Mapping[str, Any]) -> tuple[Ints, Ints]:
    """What TFLM adds for each value of a and of b from -128 on, from the portable kernel's parameters."""
    p = {key: value for key, value in fields.items() if isinstance(value, int)}
    a = requantize((_EVERY + p["a_offset"]) << p["left_shift"], p["a_multiplier"], p["a_shift"])
    b = requantize((_EVERY + p["b_offset"]) << p["left_shift"], p["b_multiplier"], p["b_shift"]) * p["b_sign"]
    return a, b


def exact_sums(fields: Mapping[str, Any]) -> Ints:
    """TFLM's result for every pair: [a + 128, b + 128], from the portable kernel's parameters."""
    p = {key: value for key, value in fields.items() if isinstance(value, int)}
    a, b = addends(fields)
    total = requantize(a[:, None] + b[None, :], p["multiplier"], p["shift"]) + p["output_offset"]
    return np.clip(total, p["act_min"], p["act_max"])


def line(exact: Ints, alpha: float, beta: float, drop: int = 8) -> Line | None:
    """A line proven equal to `exact` on all pairs, or None; alpha, beta: real factors of a and b to the output.

    drop: bits that each product loses (8: SMLAW with the operand in the upper byte of a halfword).
    """
    shift = min(22, 30 - int(np.ceil(np.log2(max(abs(alpha), abs(beta))))) - 8)
    if not 1 <= shift <= 22:
        return None
    base_alpha, base_beta = round(alpha * 2 ** (shift + drop)), round(beta * 2 ** (shift + drop))
    for da, db in sorted(((i, j) for i in range(-6, 7) for j in range(-6, 7)), key=lambda d: abs(d[0]) + abs(d[1])):
        one, two = base_alpha + da, base_beta + db
        total = (_EVERY * one >> drop)[:, None] + (_EVERY * two >> drop)[None, :]
        addend = fitting_addend(total, exact, shift)
        if addend is not None:
            return Line(one, two, addend, shift, drop)
    return None


def fitting_addend(total: Ints, exact: Ints, shift: int) -> int | None:
    """The middle of the addends with which saturate((total + addend) >> shift) is `exact` for all pairs, or None.

    Every result k bounds it: from below by the pairs that must reach k, from above by those that must not. None too
    where a sum leaves 32 bits, or where all results are equal.
    """
    ranks, sums = exact.reshape(-1) + 128, total.reshape(-1)
    lowest, highest = np.full(256, 1 << 40), np.full(256, -(1 << 40))
    np.minimum.at(lowest, ranks, sums)
    np.maximum.at(highest, ranks, sums)
    above = np.minimum.accumulate(lowest[::-1])[::-1]
    below = np.maximum.accumulate(highest)
    steps = np.arange(int(ranks.min()) + 1, int(ranks.max()) + 1)
    if not len(steps):
        return None
    least = int(((steps - 128 << shift) - above[steps]).max())
    most = int(((steps - 128 << shift) - below[steps - 1]).min()) - 1
    addend = (least + most) // 2
    if least > most or np.abs(sums).max() + abs(addend) >= 2**31:
        return None
    return addend if bool((np.clip(total + addend >> shift, -128, 127) == exact).all()) else None


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
    if not applies(node):
        return
    try:
        a, b, result = node.input(0), node.input(1), node.output()
        portable = next(iter(portable_add(node)))
    except Unsupported:
        return
    if a.shape != b.shape or a.shape != result.shape or result.elements % 4 or a.is_constant or b.is_constant:
        return
    fields = next(c.fields for c in portable.constants if isinstance(c, Struct))
    sign = -1 if node.operator.name == "SUB" else 1
    found = line(exact_sums(fields), a.scale / result.scale, sign * b.scale / result.scale)
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
