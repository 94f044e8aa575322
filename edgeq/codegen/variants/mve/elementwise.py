"""ADD and SUB of two tensors of equal shape: a multiplication for each input, one saturating shift.

Method. result = top byte of saturate((a * alpha + b * beta + addend) << (24 - shift)). TFLM rounds three times; that
all of it together gives this line is proven by trying all 65,536 pairs of inputs (sums.line). Where
factors of 22 bits are too coarse, a and b are moved into the top byte and multiplied by 29 bits (VQDMLASH, VQDMLAH:
drop 7).

Registers: r0 a, r1 b, r2 output, r4-r8 line and count; q0 q1 data, q2 alpha in every lane.
Loop, 4 elements: two widening loads, VMLAS (a * alpha + addend), VMLA (+ b * beta), VQSHL, VSHR, narrowing store; 16
elements a turn: 29 instructions (fine factors: 37). The rest under tail predication.

Obligations: equal shapes; the proof, which includes that the sum stays in int32.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgeq.codegen.lower.common import activations, in_place
from edgeq.codegen.registry import variant
from edgeq.codegen.step import Constant, Node, Step
from edgeq.codegen.variants.mve.common import Kernel, applies, assembly, sources
from edgeq.codegen.variants.sums import Sum, line


def kernel(drop: int) -> Kernel:
    """(a, b, output, {alpha, beta, addend, 24 - shift, elements})."""
    products = ["vmlas.s32 q0, q2, r6", "vmla.s32 q0, q1, r5"]
    if drop:
        products = ["vshl.i32 q0, q0, #24", "vshl.i32 q1, q1, #24", "vqdmlash.s32 q0, q2, r6", "vqdmlah.s32 q0, q1, r5"]
    four = [
        "vldrb.s32 q0, [r0], #4", "vldrb.s32 q1, [r1], #4", *products, "vqshl.s32 q0, r7", "vshr.s32 q0, q0, #24",
        "vstrb.32 q0, [r2], #4",
    ]  # fmt: skip
    lines = [
        "ldm r3, {r4-r8}", "vdup.32 q2, r4", "lsr r9, r8, #4", "wls lr, r9, 2f", "1:", *(4 * four), "le lr, 1b", "2:",
        "ands r8, r8, #15", "beq 4f", "dlstp.32 lr, r8", "3:", *four, "letp lr, 3b", "4:",
    ]  # fmt: skip
    return assembly(
        f"edgeq_mve_add_{drop}",
        "const int8_t *a, const int8_t *b, int8_t *output, const int32_t *line",
        "output = saturate((a alpha + b beta + addend) >> shift); line: alpha, beta, addend, 24 - shift, elements.",
        lines,
    )


_FINE = 7
"""Bits that a doubling high product of (a << 24) loses."""


@variant("ADD", "SUB")
def add(node: Node) -> Iterator[Step]:
    """Equal shapes; see the module."""
    both = Sum.of(node) if applies(node) else None
    if both is None:
        return
    a, b, result = both.a, both.b, both.result
    found = next(filter(None, (line(both.exact, both.alpha, both.beta, drop) for drop in (0, _FINE))), None)
    if found is None or max(abs(found.alpha), abs(found.beta)) >= 2**31:
        return
    add_kernel = kernel(found.drop)
    words = np.array([found.alpha, found.beta, found.addend, 24 - found.shift, result.elements], np.int32)
    yield Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel=add_kernel.name.removeprefix("edgeq_"),
        method="MVE, one multiplication for each input, proven for all pairs",
        calls=(f"{add_kernel.name}({{t{a.index}}}, {{t{b.index}}}, {{t{result.index}}}, {{line}});",),
        inputs=activations(a, b),
        outputs=(result.index,),
        constants=(Constant("line", "int32_t", words),),
        overlaps=(*in_place(a, result), *in_place(b, result)),
        emitted=sources(add_kernel),
        cost=result.elements * 1.9 + 40,
        code_bytes=200,
    )
