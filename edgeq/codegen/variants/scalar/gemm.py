"""The micro-kernel of convolutions on cores without DSP: four pixels by all output channels, one channel at a time.

Data. Activations: word [k][pixel pair] = x0 + 65536 x1 (a signed sum), so that one multiplication yields two products.
Sums of G taps T = t0 + 65536 t1 stay separable while |t0| < 2^15, that is sum |w| <= 255 in each group of G taps.
Starting T at 32768 makes T >> 16 = t1 exactly; then S += T, A += T >> 16, and at the end
acc1 = A, acc0 = S - (A << 16): the start values of S and A hold the bias and what 32768 a group adds.
Channels are processed in order of their G (16, 8, 4 or 2; 2 always holds): a section of the stream for each G.
A section: ARMv7-M for each channel S, A, its weights, multiplier, constant (2 words), shift, offset in the pixel.
ARMv6-M for each channel S, A, where its weights are, most, addend, least, negative, offset, shift, coarse, fine; then
all weights [8 channels][k][8]: words and weights of a tap both take 8 bytes, so one register indexes both.

Registers, ARMv7-M: r0 stream, r1 activations, r2-r5 two taps' activations, r6 weight, r7-r8 T, r9-r10 S and A of
pixels 0, 1, r11-r12 of pixels 2, 3, lr 32768. ARMv6-M: r0-r1 activations, r2 weight, r3-r4 T, r5 32768, r6 pointer,
r7 weights - pointer, r8-r9 S and A of pixels 0, 1, r10-r11 of 2, 3, r12 where the loop ends.

Cost per 4 G multiply-accumulates: ARMv7-M 3.5 G + 4, ARMv6-M 6 G + 6.
Obligations: the sums of |w| (`group_of`), and the requantization's proof; channels without one come last, in C.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.arithmetic import Ints
from edgeq.codegen.step import Optimize, Source
from edgeq.codegen.variants.assembly import as_words, bytes_as_words, function
from edgeq.codegen.variants.scalar.common import LongForm, TwoProducts
from edgeq.codegen.variants.scalar.requantize import clamped

GROUPS = (16, 8, 4, 2)
_UNROLL: dict[Optimize, int] = {"speed": 64, "balanced": 32, "ram": 16, "flash": 16}
"""Taps in a row without a branch, at most."""

Form = LongForm | TwoProducts


def group_of(weights: Ints) -> Ints:
    """Per channel [channels, taps] the largest G whose groups all have sum |w| <= 255."""
    best = np.full(len(weights), 2, np.int64)
    sums = np.abs(_padded(weights, GROUPS[0]).astype(np.int16))
    for group in reversed(GROUPS):
        sums = sums[:, 0::2] + sums[:, 1::2]
        if group <= weights.shape[1]:
            best = np.where((sums <= 255).all(axis=1), group, best)
    return best


def _padded(weights: Ints, group: int) -> Ints:
    return np.pad(weights, ((0, 0), (0, -weights.shape[1] % group)))


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """Channels with one G: their words in the stream, and how many of the words the kernel walks over."""

    group: int
    taps: int
    words: NDArray[np.int32]
    walked: int


def sections(weights: Ints, bias: Ints, form: Form) -> list[Section]:
    """The stream's sections for weights [channels, taps] and bias with the input's zero point folded in."""
    groups = group_of(weights)
    found = []
    for group in GROUPS:
        chosen = np.flatnonzero((groups == group) & form.proven)
        if not len(chosen):
            continue
        taps = _padded(weights[:1], group).shape[1]
        start = bias + (bias << 16) - 32768 * (taps // group)
        rows = _padded(weights[chosen], group)
        starts = np.stack([start, bias], axis=1)[chosen]
        if isinstance(form, LongForm):
            words, walked = _armv7m(chosen, rows, starts, form)
        else:
            words, walked = _armv6m(chosen, rows, starts, form)
        found.append(Section(group, taps, words, walked))
    general = np.flatnonzero(~form.proven)
    if len(general):
        exact = form.exact
        ends = np.stack([bias, exact.multiplier, exact.exponent, np.arange(len(bias))], axis=1)[general]
        words = as_words(np.concatenate([ends, bytes_as_words(weights[general])], axis=1))
        found.append(Section(1, weights.shape[1], words, words.size))
    return found


def _armv7m(chosen: Ints, rows: Ints, starts: Ints, form: LongForm) -> tuple[NDArray[np.int32], int]:
    end = np.concatenate([form.parameters[chosen], chosen[:, None]], axis=1)
    words = as_words(np.concatenate([starts, bytes_as_words(rows), end], axis=1))
    return words, words.size


def _armv6m(chosen: Ints, rows: Ints, starts: Ints, form: TwoProducts) -> tuple[NDArray[np.int32], int]:
    count, taps = rows.shape
    at = np.arange(count)
    where = 4 * 11 * count + at // 8 * 8 * taps + at % 8
    names = (form.most, form.addend, form.least, form.negative)
    ends = [value[chosen] for value in names] + [chosen] + [v[chosen] for v in (form.shift, form.coarse, form.fine)]
    parameters = np.concatenate([starts, where[:, None], np.stack(ends, axis=1)], axis=1)
    blocks = np.pad(rows, ((0, -count % 8), (0, 0))).reshape(-1, 8, taps).transpose(0, 2, 1).reshape(1, -1)
    words = np.concatenate([as_words(parameters), as_words(bytes_as_words(blocks))])
    return words, parameters.size


def _chunk(taps: int, group: int, optimize: Optimize) -> int:
    """Taps between branches: a multiple of G that divides all."""
    return max(c for c in range(group, max(group, _UNROLL[optimize]) + 1, group) if taps % c == 0)


def _taps_armv7m(group: int) -> Iterator[str]:
    for tap in range(0, group, 2):
        yield "    ldm r1!, {r2, r3, r4, r5}"
        for one, two, first in (("r2", "r3", tap == 0), ("r4", "r5", False)):
            yield "    ldrsb r6, [r0], #1"
            yield f"    mla r7, {one}, r6, {'lr' if first else 'r7'}"
            yield f"    mla r8, {two}, r6, {'lr' if first else 'r8'}"
    yield from ("    add r9, r9, r7", "    add r10, r10, r7, asr #16", "    add r11, r11, r8",
                "    add r12, r12, r8, asr #16")  # fmt: skip


def _value_armv7m(value: str, plain: bool) -> Iterator[str]:
    if plain:
        yield from ("    mov r7, r3", "    mov r8, r4")
    else:
        yield from (f"    and r7, {value}, #0x80000000", "    subs r7, r3, r7", "    sbc r8, r4, #0")
    yield from (f"    smlal r7, r8, {value}, r2", "    asr r8, r8, r5", "    ssat r8, #8, r8", "    strb r8, [r1]")


def _armv7m_lines(section: Section, plain: bool, chunk: int) -> Iterator[str]:
    """Frame: x, y, step, -, end."""
    taps = section.taps
    yield from ("    push {r4-r11, lr}", "    ldr r12, [sp, #36]", "    push {r0, r1, r2, r3, r12}", "    mov r0, r3",
                "    mov lr, #32768", "    1:", "    ldr r1, [sp]", "    ldm r0!, {r9, r10}", "    mov r11, r9",
                "    mov r12, r10")  # fmt: skip
    if taps > chunk:
        yield from (f"    add r2, r1, #{taps * 8}", "    str r2, [sp, #12]", "    2:")
    yield from (f"    .rept {chunk // section.group}", *_taps_armv7m(section.group), "    .endr")
    if taps > chunk:
        yield from ("    ldr r2, [sp, #12]", "    cmp r1, r2", "    bne 2b")
    if taps % 4:
        yield f"    add r0, r0, #{-taps % 4}"
    yield from ("    sub r9, r9, r10, lsl #16", "    sub r11, r11, r12, lsl #16", "    ldm r0!, {r2, r3, r4, r5, r6}",
                "    ldr r1, [sp, #4]", "    add r1, r1, r6", "    ldr r6, [sp, #8]")  # fmt: skip
    for value in ("r9", "r10", "r11", "r12"):
        yield from _value_armv7m(value, plain)
        if value != "r12":
            yield "    add r1, r1, r6"
    yield from ("    ldr r1, [sp, #16]", "    cmp r0, r1", "    bne 1b", "    add sp, sp, #20", "    pop {r4-r11, pc}")


def _taps_armv6m(group: int) -> Iterator[str]:
    for tap in range(group):
        yield from ("    ldrsb r2, [r6, r7]", "    ldm r6!, {r0, r1}", "    muls r0, r2, r0", "    muls r1, r2, r1")
        yield from (f"    adds r3, {'r5' if tap == 0 else 'r3'}, r0", f"    adds r4, {'r5' if tap == 0 else 'r4'}, r1")
    yield from ("    add r8, r8, r3", "    asrs r3, r3, #16", "    add r9, r9, r3", "    add r10, r10, r4",
                "    asrs r4, r4, #16", "    add r11, r11, r4")  # fmt: skip


def _value_armv6m(value: str, form: TwoProducts) -> Iterator[str]:
    """r4 free, r5 coarse, r6 fine, r7 shift, r8 most, r9 addend, r10 negative, r11 least."""
    if form.plain:
        yield from (f"    asrs r4, {value}, #31", f"    bics {value}, {value}, r4")
    else:
        yield from (f"    cmp {value}, r11", "    bge 5f", f"    mov {value}, r11", "    5:")
    yield from (f"    cmp {value}, r8", "    ble 6f", f"    mov {value}, r8", "    6:")  # fmt: skip
    yield f"    asrs r4, {value}, #{form.drop}" if form.drop else f"    movs r4, {value}"
    yield from ("    muls r4, r6, r4", f"    asrs r4, r4, #{form.fine_bits - form.drop}")
    yield from (f"    muls {value}, r5, {value}", f"    adds {value}, {value}, r4")
    if not form.plain:
        yield from ("    bpl 7f", f"    add {value}, {value}, r10", "    7:")
    yield from (f"    add {value}, {value}, r9", f"    asrs {value}, {value}, r7")


def _armv6m_lines(section: Section, form: TwoProducts, chunk: int) -> Iterator[str]:
    """Frame: x, y, step, stream, end, weights - activations."""
    taps = section.taps
    yield from ("    push {r4-r7, lr}", "    mov r4, r8", "    mov r5, r9", "    mov r6, r10", "    mov r7, r11",
                "    push {r4-r7}", "    ldr r4, [sp, #36]", "    subs r5, r3, r0", "    push {r0-r5}",
                "    1:", "    ldr r0, [sp, #12]", "    ldm r0!, {r1, r2, r7}", "    str r0, [sp, #12]",
                "    mov r8, r1", "    mov r9, r2", "    mov r10, r1", "    mov r11, r2", "    ldr r6, [sp]",
                "    ldr r0, [sp, #20]", "    adds r7, r7, r0", "    movs r5, #128", "    lsls r5, r5, #8")  # fmt: skip
    if taps > chunk:
        yield from (f"    movs r0, #{taps // chunk}", f"    movs r1, #{chunk}", "    lsls r1, r1, #3",
                    "    muls r0, r1, r0", "    adds r0, r0, r6", "    mov r12, r0", "    2:")  # fmt: skip
    yield from (f"    .rept {chunk // section.group}", *_taps_armv6m(section.group), "    .endr")
    if taps > chunk:
        yield from ("    cmp r6, r12", "    beq 3f", "    b 2b", "    3:")
    yield from ("    mov r0, r8", "    mov r1, r9", "    lsls r2, r1, #16", "    subs r0, r0, r2", "    mov r2, r10",
                "    mov r3, r11", "    lsls r4, r3, #16", "    subs r2, r2, r4", "    ldr r7, [sp, #12]",
                "    ldm r7!, {r4, r5, r6}", "    mov r8, r4", "    mov r9, r5", "    mov r11, r6",
                "    ldm r7!, {r4, r5}", "    mov r10, r4", "    ldr r4, [sp, #4]", "    adds r4, r4, r5",
                "    mov r12, r4", "    ldm r7!, {r4, r5, r6}", "    str r7, [sp, #12]", "    mov r7, r4")  # fmt: skip
    for value in ("r0", "r1", "r2", "r3"):
        yield from _value_armv6m(value, form)
    yield from ("    mov r4, r12", "    ldr r5, [sp, #8]")
    for value in ("r0", "r1", "r2", "r3"):
        yield f"    strb {value}, [r4]"
        if value != "r3":
            yield "    adds r4, r4, r5"
    yield from ("    ldr r7, [sp, #12]", "    ldr r4, [sp, #16]", "    cmp r7, r4", "    beq 4f", "    b 1b", "    4:",
                "    add sp, sp, #24", "    pop {r4-r7}", "    mov r8, r4", "    mov r9, r5", "    mov r10, r6",
                "    mov r11, r7", "    pop {r4-r7, pc}")  # fmt: skip


def _general_kernel(section: Section, form: Form) -> tuple[str, Source, int]:
    """The channels without a proven form, in C."""
    exact, taps = form.exact, section.taps
    limits = "_".join(str(limit + 128) for limit in (exact.zero_point, exact.minimum, exact.maximum))
    name = f"edgeq_gemm_4x1_s8_tflm_k{taps}_{limits}"
    prototype = f"void {name}(const int32_t *x, int8_t *y, int32_t step, const int32_t *stream, const int32_t *end);"
    text = f"""#include <stdint.h>
#include "edgeq/arithmetic.h"

{prototype}

static inline int8_t requantize(int32_t acc, const int32_t *p) {{
    int32_t value = edgeq_requantize(acc, p[1], -p[2]);
    {clamped(exact)}
}}

/* Four pixels by one channel at a time, K = {taps}, for channels without a proven short form: TFLM's steps.
 * A word of x holds two pixels, x0 + 65536 x1. stream: start value, multiplier, exponent, channel, weights. */
{prototype[:-1]} {{
    for (; stream != end; stream += {4 + -(-taps // 4)}) {{
        const int8_t *w = (const int8_t *)(stream + 4);
        int32_t a = stream[0], b = a, c = a, d = a;
        for (int32_t k = 0; k < {taps}; k++) {{
            const int32_t one = x[2 * k], two = x[2 * k + 1];
            a += w[k] * (int16_t)one;
            b += w[k] * ((one - (int16_t)one) >> 16);
            c += w[k] * (int16_t)two;
            d += w[k] * ((two - (int16_t)two) >> 16);
        }}
        int8_t *to = y + stream[3];
        to[0] = requantize(a, stream);
        to[step] = requantize(b, stream);
        to[2 * step] = requantize(c, stream);
        to[3 * step] = requantize(d, stream);
    }}
}}
"""
    return name, Source(name.removeprefix("edgeq_"), text, prototype), 260


def kernel(section: Section, form: Form, optimize: Optimize) -> tuple[str, Source, int]:
    """The function's name, its source, and its estimated code bytes."""
    if section.group == 1:
        return _general_kernel(section, form)
    chunk = _chunk(section.taps, section.group, optimize)
    short = isinstance(form, TwoProducts)
    core = f"armv6m_f{form.fine_bits}d{form.drop}" if isinstance(form, TwoProducts) else "armv7m"
    ending = "relu" if form.plain else "general"
    name = f"edgeq_gemm_4x1_s8_{core}_k{section.taps}_g{section.group}_u{chunk}_{ending}"
    if isinstance(form, TwoProducts):
        lines = list(_armv6m_lines(section, form, chunk))
    else:
        lines = list(_armv7m_lines(section, form.plain, chunk))
    prototype = f"void {name}(const int32_t *x, int8_t *y, int32_t step, const int32_t *stream, const int32_t *end);"
    comment = (
        f"Four pixels by one channel at a time, K = {section.taps}. A word of x holds two pixels, x0 + 65536 x1, and\n"
        f" * sums of {section.group} taps stay separable (sum of |w| <= 255, checked at generation).\n"
        f" * Requantization {'in 32 bits, certified' if short else 'by a 64-bit multiply-add'}. y: pixel 0; step: "
        "bytes from one pixel to the next."
    )
    text = f"#include <stdint.h>\n\n{prototype}\n\n{function(name, comment, lines)}"
    code = (12 * chunk + 12 * chunk // section.group if short else 22 * chunk) + 250
    return name, Source(name.removeprefix("edgeq_"), text, prototype), code


def cost(found: list[Section], form: Form, blocks: int) -> float:
    """Executed instructions of the micro-kernels for `blocks` times four pixels."""
    total = 0.0
    for section in found:
        if section.group == 1:
            total += section.words.size // (4 + -(-section.taps // 4)) * (26 * section.taps + 300) + 30
            continue
        groups = section.taps / section.group
        if isinstance(form, TwoProducts):
            channels, each, end = section.walked // 11, 6 * section.taps + 6 * groups, 95 if form.plain else 115
        else:
            channels = section.walked // (7 + -(-section.taps // 4))
            each, end = 3.5 * section.taps + 4 * groups, 45 if form.plain else 49
        total += channels * (each + end) + 30
    return blocks * total
