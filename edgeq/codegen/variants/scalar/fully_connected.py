"""FULLY_CONNECTED on cores without DSP: one row by eight units at a time.

Data. The stream has for every 8 units 8 start values (bias with the input's zero point folded in), then the weights
[k][8 units] as bytes. Units are padded to a multiple of 8 by zeros. ARMv6-M stores w + 128, because only unsigned loads
take an immediate offset, and subtracts 128 times the row's sum at the end.

Loop: an input is read once for 8 units; ARMv7-M 17, ARMv6-M 26.5 instructions for 8 multiply-accumulates.
Registers, ARMv7-M: r0 stream, r1 input, r2 sums' address, r3 x, r4-r11 sums, r12 w, lr the input's end. ARMv6-M: r0 x,
r1 w, r2 stream, r3 input, r4 0, r7 the input's end, sums r8, r9, r5, r6, r10, r11, r12, lr.

Obligations: K a multiple of 4; the requantization's proof, or TFLM's steps for units without one; where all units
share a scale, one proof for all their sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from edgeq.codegen.lower.convolution import weights_of
from edgeq.codegen.proofs import Requantization
from edgeq.codegen.registry import variant
from edgeq.codegen.step import Constant, Node, Source, Step, Unsupported
from edgeq.codegen.variants.assembly import as_words, function
from edgeq.codegen.variants.layers import folded_bias, requantization
from edgeq.codegen.variants.scalar import requantize
from edgeq.codegen.variants.scalar.common import applies, is_armv6m, short_form

_UNROLL = {True: 16, False: 32}
"""Taps in a row without a branch, on ARMv6-M and on ARMv7-M."""


def _shared(exact: Requantization) -> Requantization:
    """One row for all units where they have one scale: the union of their accumulators."""
    same = len({*zip(exact.multiplier.tolist(), exact.exponent.tolist(), strict=True)}) == 1
    if not same:
        return exact
    return replace(
        exact,
        multiplier=exact.multiplier[:1],
        exponent=exact.exponent[:1],
        low=exact.low.min(keepdims=True),
        high=exact.high.max(keepdims=True),
    )


def _armv7m(depth: int, chunk: int) -> Iterator[str]:
    yield from ("    push {r4-r11, lr}", f"    add lr, r1, #{depth}", "    ldm r0!, {r4-r11}", "    1:",
                f"    .rept {chunk}", "    ldrsb r3, [r1], #1")  # fmt: skip
    for unit in range(8):
        yield from ("    ldrsb r12, [r0], #1", f"    mla r{4 + unit}, r3, r12, r{4 + unit}")
    yield from ("    .endr", "    cmp r1, lr", "    bne 1b", "    stm r2, {r4-r11}", "    pop {r4-r11, pc}")


def _armv6m(chunk: int) -> Iterator[str]:
    """The input's end is the fourth argument."""
    yield from ("    push {r4-r7, lr}", "    mov r4, r8", "    mov r5, r9", "    mov r6, r10", "    mov r7, r11",
                "    push {r2, r4-r7}", "    push {r3}", "    mov r2, r0", "    mov r3, r1",
                "    ldm r2!, {r0, r1, r5, r6}", "    mov r8, r0", "    mov r9, r1", "    ldm r2!, {r0, r1, r4, r7}",
                "    mov r10, r0", "    mov r11, r1", "    mov r12, r4", "    mov lr, r7", "    movs r4, #0",
                "    pop {r7}", "    1:", f"    .rept {chunk // 4}")  # fmt: skip
    sums = ("r8", "r9", "r5", "r6", "r10", "r11", "r12", "lr")
    for k in range(4):
        yield from ("    ldrsb r0, [r3, r4]", "    adds r3, r3, #1")
        for unit, register in enumerate(sums):
            yield from (
                f"    ldrb r1, [r2, #{8 * k + unit}]",
                "    muls r1, r0, r1",
                f"    add {register}, {register}, r1",
            )
    yield from ("    adds r2, r2, #32", "    .endr", "    cmp r3, r7", "    beq 2f", "    b 1b", "    2:",
                "    pop {r2}", "    mov r0, r8", "    mov r1, r9", "    stm r2!, {r0, r1, r5, r6}", "    mov r0, r10",
                "    mov r1, r11", "    mov r3, r12", "    mov r4, lr", "    stm r2!, {r0, r1, r3, r4}",
                "    pop {r4-r7}", "    mov r8, r4", "    mov r9, r5", "    mov r10, r6", "    mov r11, r7",
                "    pop {r4-r7, pc}")  # fmt: skip


def _kernel(depth: int, small: bool) -> Source:
    chunk = max(c for c in range(4, _UNROLL[small] + 1, 4) if depth % c == 0)
    name = f"edgeq_dot_8_s8_armv6m_u{chunk}" if small else f"edgeq_dot_8_s8_armv7m_k{depth}"
    prototype = f"void {name}(const int32_t *stream, const int8_t *x, int32_t *sums, const int8_t *end);"
    comment = "Sums of 8 units for one row; stream: start values, then weights [k][8]" + (
        ", w + 128." if small else "."
    )
    code = function(name, comment, _armv6m(chunk) if small else _armv7m(depth, chunk))
    return Source(name.removeprefix("edgeq_"), f"#include <stdint.h>\n\n{prototype}\n\n{code}", prototype)


def _driver(sizes: tuple[int, int, int], small: bool, form: requantize.Form, each: int, kernel: Source) -> Source:
    """The C that walks over rows and units; each: words from one unit's constants to the next, 0 if shared."""
    batches, depth, units = sizes
    name = f"edgeq_fully_connected_s8_{requantize.name(form)}_{batches}x{depth}x{units}_{each}"
    prototype = f"void {name}(const int8_t *x, int8_t *y, const int32_t *stream, const int32_t *c);"
    total = f"""        int32_t total = 0;
        for (int32_t k = 0; k < {depth}; k++) {{
            total += x[k];
        }}
""" if small else ""  # fmt: skip
    value = "sums[unit] - 128 * total" if small else "sums[unit]"
    text = f"""#include <stdint.h>

{kernel.prototypes}
{prototype}

{requantize.function(form)}
/* Fully connected, {batches} x {depth} -> {units}: eight units at a time. c: requantization. */
{prototype[:-1]} {{
    int32_t sums[8];
    for (int32_t row = 0; row < {batches}; row++, x += {depth}, y += {units}) {{
{total}        const int32_t *at = stream;
        const int32_t *p = c;
        for (int32_t first = 0; first < {units}; first += 8, at += {8 + 2 * depth}) {{
            edgeq_{kernel.stem}(at, x, sums, x + {depth});
            for (int32_t unit = 0; unit < 8 && first + unit < {units}; unit++, p += {each}) {{
                y[first + unit] = requantize({value}, p);
            }}
        }}
    }}
}}
"""
    return Source(name.removeprefix("edgeq_"), text, prototype)


@variant("FULLY_CONNECTED")
def fully_connected(node: Node) -> Iterator[Step]:
    """Any number of units; see the module."""
    if not applies(node):
        return
    try:
        units, depth = node.input(1).shape
        constants = weights_of(node, units)
    except Unsupported:
        return
    source, result = node.input(0), node.output()
    flat = constants.weights.reshape(units, depth)
    exact = requantization(node, constants, flat)
    if exact is None or depth % 4 or source.elements % depth or depth > 2048:
        return
    shared = _shared(exact)
    form = short_form(node, shared)
    if form is None and shared is not exact:
        shared, form = exact, short_form(node, exact)
    if form is None:
        return
    small, batches = is_armv6m(node), source.elements // depth
    weights = np.pad(flat, ((0, -units % 8), (0, 0)))
    folded = folded_bias(node, np.pad(constants.bias, (0, -units % 8)), weights)
    rows = weights.reshape(-1, 8, depth).transpose(0, 2, 1).reshape(len(weights) // 8, -1)
    offset = rows.view(np.uint8) ^ (128 if small else 0)  # ARMv6-M reads weight + 128
    words = offset.view("<i4").astype(np.int64)
    stream = as_words(np.concatenate([folded.reshape(-1, 8), words], axis=1))
    kernel = _kernel(depth, small)
    each = 0 if len(shared.low) == 1 else requantize.count(form)
    driver = _driver((batches, depth, units), small, form, each, kernel)
    yield Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel=f"fully_connected_s8_{'armv6m' if small else 'armv7m'}",
        method="eight units at a time, certified requantization",
        calls=(f"edgeq_{driver.stem}({{t{source.index}}}, {{t{result.index}}}, {{stream}}, {{requantization}});",),
        inputs=(source.index,),
        outputs=(result.index,),
        constants=(
            Constant("stream", "int32_t", stream),
            Constant("requantization", "int32_t", as_words(requantize.parameters(form))),
        ),
        headers=requantize.headers(form),
        emitted=(driver, kernel),
        macs=batches * units * depth,
        cost=batches * len(weights) * (depth * (3.3 if small else 2.2) + 35),
        code_bytes=1400,
    )
