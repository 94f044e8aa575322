"""The micro-kernel of all convolutions: two pixels by all output channels, four channels at a time.

Data. Activations: the two pixels' inputs expanded to int16 pairs, word [k pair][pixel], in the order in which SXTB16
yields them (`expand`). Weights: one stream, for every 4 channels: 4 start values (`pair_bias`), K/2 times the words of
channel pairs 01 and 23 (`pair_words`), then the requantization's parameters.

Loop, 12 instructions for 16 multiply-accumulates: a half of a weight word is w0 + 256 w1, so SMLAD with it sums
raw = acc0 + 256 acc1 modulo 2^32; SXTB16 keeps w0, and SMLAD sums low = acc0. At the end raw - low = 256 acc1, exact
because |acc1| < 2^23. Two channels share a word, so weights take 8 bits each and half of the expansions are saved.

Registers: r0 stream, r1 activations, r2-r3 weights, r4-r5 activations; pixel 0: r6 raw01, r7 low01, r8 raw23, r9 low23;
pixel 1: r10, r11, r12, lr. The stack frame holds what the loop does not need: activations, both outputs, stream's end.

Obligations: `packable` (halves fit int16, |acc1| < 2^23); the tail's proof; channels a multiple of 4.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.arithmetic import Ints
from edgeq.codegen.step import Optimize, Source
from edgeq.codegen.variants.dsp.common import Tail, as_words, function, pair_bias, pair_words

_ACCUMULATORS = (("r7", "r11", 0), ("r6", "r10", 8), ("r9", "lr", 0), ("r8", "r12", 8))
"""Registers of channels 0..3: pixel 0, pixel 1, and by how many bits the accumulator arrives shifted."""

_UNROLL: dict[Optimize, int] = {"speed": 64, "balanced": 32, "ram": 16, "flash": 4}
"""Pairs of k in a row without a branch."""


def stream(weights: Ints, result: Tail) -> NDArray[np.int32]:
    """The weight stream of `spread` weights [channels, pairs, 2]."""
    groups = len(weights) // 4
    words = pair_words(weights).reshape(groups, 2, -1).transpose(0, 2, 1).reshape(groups, -1)
    bias = pair_bias(result.bias).reshape(groups, 4)
    parameters = result.parameters.reshape(groups, -1)
    return as_words(np.concatenate([bias, words, parameters], axis=1))


def _step() -> Iterator[str]:
    yield "    ldrd r2, r3, [r0], #8"
    yield "    ldrd r4, r5, [r1], #8"
    for raw0, raw1, weight in (("r6", "r10", "r2"), ("r8", "r12", "r3")):
        yield f"    smlad {raw0}, r4, {weight}, {raw0}"
        yield f"    smlad {raw1}, r5, {weight}, {raw1}"
    yield "    sxtb16 r2, r2"
    yield "    sxtb16 r3, r3"
    for low0, low1, weight in (("r7", "r11", "r2"), ("r9", "lr", "r3")):
        yield f"    smlad {low0}, r4, {weight}, {low0}"
        yield f"    smlad {low1}, r5, {weight}, {low1}"


def _sum(pairs: int, unroll: int) -> Iterator[str]:
    """`pairs` steps, at most `unroll` without a branch; the loop's end is the activations' end, kept in the frame."""
    rolled = pairs // unroll
    rest = pairs - rolled * unroll
    if rolled > 1:
        yield "    2:"
    if rolled:
        yield from (f"    .rept {unroll}", *_step(), "    .endr")
    if rolled > 1:
        yield from ("    ldr r2, [sp, #16]", "    cmp r1, r2", "    bne 2b")
    if rest:
        yield from (f"    .rept {rest}", *_step(), "    .endr")


def short_tail(result: Tail, accumulators: tuple[tuple[str, str, int], ...]) -> Iterator[str]:
    """Two instructions a value: multiply-add, shift and saturate. r2-r5 hold two channels' parameters."""
    for first in (0, 2):
        yield "    ldm r0!, {r2, r3, r4, r5}"
        for (one, two, up), factor, addend in zip(
            accumulators[first : first + 2], ("r2", "r4"), ("r3", "r5"), strict=True
        ):
            for value in (one, two):
                yield f"    smmla {value}, {value}, {factor}, {addend}"
                yield f"    ssat {value}, #8, {value}, asr #{result.shift(up)}"


def general_value(value: str, up: int, factor: str, addend: str, exponent: str) -> Iterator[str]:
    """TFLM's two roundings: round(2 acc m / 2^32), then half and sign added, shift, saturate."""
    yield f"    asr {value}, {value}, #7" if up else f"    lsl {value}, {value}, #1"
    yield f"    smmulr {value}, {value}, {factor}"
    yield f"    add {value}, {value}, {value}, asr #31"
    yield f"    add {value}, {value}, {addend}"
    yield f"    asr {value}, {value}, {exponent}"
    yield f"    ssat {value}, #8, {value}"


def _general_tail() -> Iterator[str]:
    for one, two, up in _ACCUMULATORS:
        yield "    ldm r0!, {r2, r3, r4}"
        for value in (one, two):
            yield from general_value(value, up, "r2", "r3", "r4")


def kernel(pairs: int, result: Tail, optimize: Optimize) -> tuple[str, Source, int]:
    """The function's name, its source, and its estimated code bytes, for K = 2 * `pairs`."""
    unroll = _UNROLL[optimize]
    looped = pairs // unroll > 1
    name = f"edgeq_gemm_2x4_s8_dsp_k{2 * pairs}_{result.name}"
    lines = [
        "    push {r4-r11, lr}", "    ldr r4, [sp, #36]", f"    add r5, r1, #{pairs // unroll * unroll * 8}",
        "    push {r1-r5}", "    1:", "    ldm r0, {r10, r11, r12, lr}", "    ldm r0!, {r6, r7, r8, r9}",
        *_sum(pairs, unroll),
        *(f"    sub {raw}, {raw}, {low}" for raw, low in (("r6", "r7"), ("r10", "r11"), ("r8", "r9"), ("r12", "lr"))),
        *(_general_tail() if result.short is None else short_tail(result, _ACCUMULATORS)),
        "    ldm sp, {r1, r2, r3, r4}",
        *(f"    strb {one}, [r2], #1" for one, _, _ in _ACCUMULATORS),
        *(f"    strb {two}, [r3], #1" for _, two, _ in _ACCUMULATORS),
        "    strd r2, r3, [sp, #4]", "    cmp r0, r4", "    bne 1b", "    add sp, sp, #20", "    pop {r4-r11, pc}",
    ]  # fmt: skip
    prototype = f"void {name}(const int32_t *stream, const int32_t *x, int8_t *y0, int8_t *y1, const int32_t *end);"
    how = (
        "general requantization"
        if result.short is None
        else "requantization in three instructions, proven at generation"
    )
    comment = (
        f"Two pixels by 4 output channels at a time, K = {2 * pairs}, {how}. Weight halves hold w0 + 256 w1:\n"
        " * SMLAD sums acc0 + 256 acc1 (r6, r8, r10, r12), after SXTB16 acc0 alone (r7, r9, r11, lr).\n"
        " * r0 stream, r1 activations."
    )
    text = f"#include <stdint.h>\n\n{prototype}\n\n{function(name, comment, lines)}"
    code = 48 * (pairs if not looped else unroll + pairs % unroll) + 200
    return name, Source(name.removeprefix("edgeq_"), text, prototype), code


def cost(pairs: int, channels: int, pairs_of_pixels: int, general: bool) -> float:
    """Executed instructions of the micro-kernel."""
    return pairs_of_pixels * (channels / 4 * (12 * pairs + (68 if general else 36)) + 30)


def expand(run: int, aligned: bool) -> tuple[str, Source]:
    """Expand `run` bytes of two pixels into words [k pair][pixel]; it reads whole words, up to 3 bytes beyond the run.

    8 bytes of both at once where the run allows and pixels are 4-byte aligned (LDRD faults otherwise), else 4. Returns
    the end of what it wrote. A remainder of one byte fills one k pair, others two.
    """
    eight = aligned and run % 8 == 0
    name = f"edgeq_expand_2_s8_dsp_{run}{'' if eight else 'u'}"
    eights = [
        "    ldrd r12, lr, [r0], #8", "    sxtb16 r4, r12", "    sxtb16 r6, r12, ror #8", "    sxtb16 r8, lr",
        "    sxtb16 r10, lr, ror #8", "    ldrd r12, lr, [r1], #8", "    sxtb16 r5, r12", "    sxtb16 r7, r12, ror #8",
        "    sxtb16 r9, lr", "    sxtb16 r11, lr, ror #8", "    stm r2!, {r4-r11}",
    ]  # fmt: skip
    fours = [
        "    ldr r12, [r0], #4", "    ldr lr, [r1], #4", "    sxtb16 r4, r12", "    sxtb16 r5, lr",
        "    sxtb16 r6, r12, ror #8", "    sxtb16 r7, lr, ror #8", "    stm r2!, {r4-r7}",
    ]  # fmt: skip
    one = [
        "    ldr r12, [r0]",
        "    ldr lr, [r1]",
        "    sxtb16 r4, r12",
        "    sxtb16 r5, lr",
        "    strd r4, r5, [r2], #8",
    ]
    whole, rest = divmod(run, 4)
    if eight and run > 64:
        body = [f"    mov r3, #{run // 8}", "    1:", *eights, "    subs r3, r3, #1", "    bne 1b"]
    elif eight:
        body = [f"    .rept {run // 8}", *eights, "    .endr"]
    else:
        body = [f"    .rept {whole + (rest > 1)}", *fours, "    .endr"] if whole + (rest > 1) else []
        body += one if rest == 1 else []
    lines = ["    push {r4-r11, lr}", *body, "    mov r0, r2", "    pop {r4-r11, pc}"]
    prototype = f"int32_t *{name}(const int8_t *x0, const int8_t *x1, int32_t *words);"
    comment = f"{run} bytes of two pixels to int16 pairs, word [k pair][pixel]; r0, r1 pixels, r2 words."
    text = f"#include <stdint.h>\n\n{prototype}\n\n{function(name, comment, lines)}"
    return name, Source(name.removeprefix("edgeq_"), text, prototype)


def expanded(run: int) -> int:
    """Pairs of k that a run becomes: two a word, one for a single last byte."""
    return run // 4 * 2 + (0, 1, 2, 2)[run % 4]


def spread(flat: NDArray[np.int8], run: int) -> Ints:
    """Weights [channels, rows * run] as pairs [channels, pairs, 2] in the order of the expanded words, padded by 0."""
    rows = flat.astype(np.int64).reshape(len(flat), -1, run)
    padded = np.zeros((len(flat), rows.shape[1], -(-run // 4) * 4), np.int64)
    padded[..., :run] = rows
    words = padded.reshape(len(flat), rows.shape[1], -1, 4)
    pairs = np.stack([words[..., [0, 2]], words[..., [1, 3]]], axis=3).reshape(len(flat), rows.shape[1], -1, 2)
    return pairs[:, :, : expanded(run)].reshape(len(flat), -1, 2)
