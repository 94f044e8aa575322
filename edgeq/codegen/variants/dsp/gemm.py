"""The micro-kernel of all convolutions: two pixels by all output channels, four channels at a time.

Data. Activations: the two pixels' inputs expanded to int16 pairs, word [k pair][pixel], in the order in which SXTB16
yields them (`expand`). Weights: one stream, for every 4 channels: 4 start values (`pair_bias`), K/2 times the words of
channel pairs 01 and 23 (`pair_words`), then the requantization's parameters.

Loop, 12 instructions for 16 multiply-accumulates: a half of a weight word is w0 + 256 w1, so SMLAD with it sums
raw = acc0 + 256 acc1 modulo 2^32; SXTB16 keeps w0, and SMLAD sums low = acc0. At the end raw - low = 256 acc1, exact
because |acc1| < 2^23. Two channels share a word, so weights take 8 bits each and half of the expansions are saved.

Registers: r0 stream, r1 activations, r2-r3 weights, r4-r5 activations; pixel 0: r6 raw01, r7 low01, r8 raw23, r9 low23;
pixel 1: r10, r11, r12, lr. The stack frame holds what the loop does not need: activations, both outputs, stream's end.

Obligations: halves fit int16, |acc1| < 2^23 and the tail's proof, channel by channel (`endings`): groups of 4 with one
end form runs, a call each; what no end is proven for is left to `rest`. Channels are a multiple of 4.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.arithmetic import Ints
from edgeq.codegen.proofs import Requantization
from edgeq.codegen.step import Optimize, Source
from edgeq.codegen.variants.assembly import as_words, bytes_as_words, function
from edgeq.codegen.variants.dsp.common import Ending, Tail, general_value, pair_bias, pair_words

_ACCUMULATORS = (("r7", "r11", 0), ("r6", "r10", 8), ("r9", "lr", 0), ("r8", "r12", 8))
"""Registers of channels 0..3: pixel 0, pixel 1, and by how many bits the accumulator arrives shifted."""

_UNROLL: dict[Optimize, int] = {"speed": 64, "balanced": 32, "ram": 16, "flash": 4}
"""Pairs of k in a row without a branch."""


def stream(weights: Ints, result: Ending) -> list[NDArray[np.int32]]:
    """The weight streams of `spread` weights [channels, pairs, 2], one for each run."""
    kept = weights.copy()
    kept[result.rest] = 0
    return [_stream(kept[run.first : run.last], run.end) for run in result.runs]


def _stream(weights: Ints, result: Tail) -> NDArray[np.int32]:
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


def _general_tail(result: Tail) -> Iterator[str]:
    for one, two, up in _ACCUMULATORS:
        yield "    ldm r0!, {r2, r3, r4}"
        for value in (one, two):
            yield from general_value(result, value, up)


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
        *(_general_tail(result) if result.short is None else short_tail(result, _ACCUMULATORS)),
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


def rest(pairs: int, exact: Requantization) -> tuple[str, Source]:
    """The C of channels that no assembly is licensed for."""
    limits = "_".join(str(limit + 128) for limit in (exact.zero_point, exact.minimum, exact.maximum))
    name = f"edgeq_gemm_2x1_s8_tflm_k{2 * pairs}_{limits}"
    prototype = f"void {name}(const int32_t *stream, const int32_t *x, int8_t *y0, int8_t *y1, const int32_t *end);"
    text = f"""#include <stdint.h>
#include "edgeq/arithmetic.h"

{prototype}

static inline int8_t requantize(int32_t acc, const int32_t *p) {{
    int32_t value = edgeq_requantize(acc, p[1], -p[2]) + {exact.zero_point};
    return (int8_t)edgeq_clamp(value, {exact.minimum}, {exact.maximum});
}}

/* Two pixels by one channel at a time, K = {2 * pairs}, for channels without a proven form: TFLM's steps.
 * stream: start value, multiplier, exponent, channel, weights; x: int16 pairs [k pair][pixel]. */
{prototype[:-1]} {{
    for (; stream != end; stream += {rest_words(pairs)}) {{
        const int8_t *w = (const int8_t *)(stream + 4);
        int32_t a = stream[0], b = a;
        for (int32_t k = 0; k < {2 * pairs}; k += 2) {{
            const int32_t one = x[k], two = x[k + 1];
            a += w[k] * (int16_t)one + w[k + 1] * (one >> 16);
            b += w[k] * (int16_t)two + w[k + 1] * (two >> 16);
        }}
        y0[stream[3]] = requantize(a, stream);
        y1[stream[3]] = requantize(b, stream);
    }}
}}
"""
    return name, Source(name.removeprefix("edgeq_"), text, prototype)


def rest_words(pairs: int) -> int:
    """Words of a channel in the stream of `rest`."""
    return 4 + -(-pairs // 2)


def rest_stream(weights: Ints, folded: Ints, exact: Requantization, channels: Ints) -> NDArray[np.int32]:
    """What `rest` reads, of weights [channels, taps] in the order of its activations."""
    heads = np.stack([folded, exact.multiplier, exact.exponent, np.arange(len(folded))], axis=1)
    return as_words(np.concatenate([heads, bytes_as_words(weights)], axis=1)[channels])


def cost(pairs: int, pairs_of_pixels: int, result: Ending) -> float:
    """Executed instructions of the micro-kernels."""
    each = 0.0
    for run in result.runs:
        each += (run.last - run.first) / 4 * (12 * pairs + (68 if run.end.short is None else 36)) + 30
    return pairs_of_pixels * (each + len(result.rest) * (10 * pairs + 80))


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
    rows = np.pad(flat.reshape(len(flat), -1, run), ((0, 0), (0, 0), (0, -run % 4)))
    pairs = rows.reshape(*rows.shape[:2], -1, 2, 2).swapaxes(3, 4).reshape(*rows.shape[:2], -1, 2)
    return pairs[:, :, : expanded(run)].astype(np.int64).reshape(len(flat), -1, 2)
