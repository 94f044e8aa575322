"""FULLY_CONNECTED: one row by eight units at a time.

Data. For speed the row is expanded once to int16 pairs in scratch; else its bytes are expanded as they are read, which
costs two instructions more for 32 multiply-accumulates and no memory. Weights: one stream, for every 8 units: 8 start
values (`pair_bias`), then for each pair of k four words, each of two units as in `gemm`. Units are padded to a multiple
of 8 by zeros. Weights have one scale per tensor, so one requantization serves all units: proven once for the union of
the units' accumulators.

Loop, 29 (31) instructions for 32 multiply-accumulates: an activation pair is read once for 8 units.
Registers: r0 stream, r1 activations, r2-r3 weights, r4-r5 activations; r6 raw01, r7 low01, r8 raw23, r9 low23,
r10 raw45, r11 low45, r12 raw67, lr low67. The frame holds activations, output, stream's end, requantization,
activations' end.

A depth that is no multiple of 4 is padded: weights by zeros, the row in a copy in scratch.

Obligations: `packable`; the tail's proof; a single scale of the weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.arithmetic import Ints
from edgeq.codegen.lower.common import zero_point
from edgeq.codegen.lower.convolution import weights_of
from edgeq.codegen.proofs import Requantization
from edgeq.codegen.registry import variant
from edgeq.codegen.step import Constant, Node, Optimize, Overlap, Source, Step, Unsupported
from edgeq.codegen.variants.dsp import gemm
from edgeq.codegen.variants.dsp.common import (
    Tail,
    applies,
    as_words,
    function,
    packable,
    pair_bias,
    pair_words,
    requantization,
    tail,
)

_SHIFTS = (1, 2, 3, 4)
_UNROLL: dict[Optimize, int] = {"speed": 8, "balanced": 4, "ram": 4, "flash": 1}
"""Fours of k in a row without a branch."""

_PAIRS = (("r6", "r7"), ("r8", "r9"), ("r10", "r11"), ("r12", "lr"))
"""raw and low of units 01, 23, 45, 67."""


def _step(expanded: bool) -> Iterator[str]:
    if expanded:
        yield "    ldrd r4, r5, [r1], #8"
    else:
        yield "    ldr r5, [r1], #4"
        yield "    sxtb16 r4, r5"
        yield "    sxtb16 r5, r5, ror #8"
    for x in ("r4", "r5"):
        for first, second in (_PAIRS[:2], _PAIRS[2:]):
            yield "    ldrd r2, r3, [r0], #8"
            yield f"    smlad {first[0]}, {x}, r2, {first[0]}"
            yield f"    smlad {second[0]}, {x}, r3, {second[0]}"
            yield "    sxtb16 r2, r2"
            yield "    sxtb16 r3, r3"
            yield f"    smlad {first[1]}, {x}, r2, {first[1]}"
            yield f"    smlad {second[1]}, {x}, r3, {second[1]}"


def _finish(result: Tail) -> Iterator[str]:
    yield from (f"    sub {raw}, {raw}, {low}" for raw, low in _PAIRS)
    yield "    ldr r1, [sp, #12]"
    yield "    ldm r1, {r2, r3, r4, r5}"
    for raw, low in _PAIRS:
        for value, up, factor, addend in ((low, 0, "r2", "r3"), (raw, 8, "r4", "r5")):
            if result.short is None:
                yield from gemm.general_value(value, up, "r2", "r3", "r4")
            else:
                yield f"    smmla {value}, {value}, {factor}, {addend}"
                yield f"    ssat {value}, #8, {value}, asr #{result.shift(up)}"
    yield "    ldm sp, {r1, r2, r3}"
    yield from (f"    strb {value}, [r2], #1" for raw, low in _PAIRS for value in (low, raw))
    yield "    str r2, [sp, #4]"


def _kernel(depth: int, result: Tail, optimize: Optimize, expanded: bool) -> tuple[str, Source, int]:
    fours = depth // 4
    unroll = next(u for u in range(min(_UNROLL[optimize], fours), 0, -1) if fours % u == 0)
    how = "expanded" if expanded else "bytes"
    name = f"edgeq_gemv_8_s8_dsp_{how}_u{4 * unroll}_{result.name}"
    lines = [
        "    push {r4-r11, lr}", "    ldrd r4, r5, [sp, #36]", "    push {r1-r5}", "    1:",
        "    ldm r0!, {r6-r12, lr}", "    2:", f"    .rept {unroll}", *_step(expanded), "    .endr",
        "    ldr r2, [sp, #16]", "    cmp r1, r2", "    bne 2b",
        *_finish(result), "    cmp r0, r3", "    bne 1b", "    add sp, sp, #20", "    pop {r4-r11, pc}",
    ]  # fmt: skip
    x_type = "int32_t" if expanded else "int8_t"
    prototype = (
        f"void {name}(const int32_t *stream, const {x_type} *x, int8_t *y, const int32_t *end,\n"
        f"    const int32_t *requantization, const {x_type} *x_end);"
    )
    comment = (
        f"One row by 8 units at a time, K a multiple of {4 * unroll}. Weight halves hold w0 + 256 w1: SMLAD sums\n"
        " * acc0 + 256 acc1 (r6, r8, r10, r12), after SXTB16 acc0 alone (r7, r9, r11, lr). r0 stream, r1 activations."
    )
    text = f"#include <stdint.h>\n\n{prototype}\n\n{function(name, comment, lines)}"
    return name, Source(name.removeprefix("edgeq_"), text, prototype), 116 * unroll + 200


def _expand() -> tuple[str, Source]:
    name = "edgeq_expand_1_s8_dsp"
    lines = [
        "    add r2, r0, r2", "    1:", "    ldr r3, [r0], #4", "    sxtb16 r12, r3", "    str r12, [r1], #4",
        "    sxtb16 r12, r3, ror #8", "    str r12, [r1], #4", "    cmp r0, r2", "    bne 1b",
        "    mov r0, r1", "    bx lr",
    ]  # fmt: skip
    prototype = f"int32_t *{name}(const int8_t *x, int32_t *words, int32_t count);"
    comment = "`count` bytes, a multiple of 4, to int16 pairs (k0, k2), (k1, k3). Returns the end of the words."
    text = f"#include <stdint.h>\n\n{prototype}\n\n{function(name, comment, lines)}"
    return name, Source(name.removeprefix("edgeq_"), text, prototype)


def _driver(
    size: tuple[int, int, int], kernel: tuple[str, Source], expand: tuple[str, Source] | None
) -> tuple[str, Source]:
    """The C around the kernel: rows, and the last units where they do not fill a group of 8."""
    batches, depth, units = size
    rest, padded = units % 8, _even(depth)
    group = 4 * padded // 2 + 8
    name = f"edgeq_fully_connected_s8_dsp_{batches}x{depth}x{units}_{'_'.join(kernel[0].rsplit('_', 3)[1:])}"
    scratch = ", int32_t *words" if expand or padded != depth else ""
    begin = copy = ""
    source = "x"
    if padded != depth:
        source = "copy"
        begin = f"    int8_t *copy = (int8_t *)words{f' + {2 * padded}' if expand else ''};\n"
        begin += f"    memset(copy + {depth}, 0, {padded - depth});\n"
        copy = f"        memcpy(copy, x, {depth});\n"
    row, end = ("words", f"{expand[0]}({source}, words, {padded})") if expand else (source, f"{source} + {padded}")
    prototype = (
        f"void {name}(const int8_t *x, int8_t *y, const int32_t *stream, const int32_t *requantization{scratch});"
    )
    calls = []
    if units >= 8:
        calls.append(f"{kernel[0]}(stream, {row}, y, stream + {units // 8 * group}, requantization, end);")
    if rest:
        calls += [
            "int8_t last[8];",
            f"{kernel[0]}(stream + {units // 8 * group}, {row}, last, stream + {(units // 8 + 1) * group}, "
            "requantization, end);",
            f"memcpy(y + {units - rest}, last, {rest});",
        ]
    body = "\n        ".join(calls)
    text = f"""#include <stdint.h>
#include <string.h>

{kernel[1].prototypes}
{expand[1].prototypes + chr(10) if expand else ""}{prototype}

/* Fully connected, {batches} x {depth} -> {units}. */
{prototype[:-1]} {{
{begin}    for (int32_t row = 0; row < {batches}; row++) {{
{copy}        const {"int32_t" if expand else "int8_t"} *end = {end};
        {body}
        x += {depth};
        y += {units};
    }}
}}
"""
    return name, Source(name.removeprefix("edgeq_"), text, prototype)


def _even(depth: int) -> int:
    """The depth padded to whole words."""
    return depth + -depth % 4


def _before_bytes(batches: int, depth: int, units: int) -> int:
    """How many bytes before the input the output must start (for Overlap): a row is copied whole before it is written.

    Then rows r + 1 on, which are still unread, must lie behind (r + 1) rows of outputs.
    """
    if batches == 1:
        return -depth
    return max(rows * (units - depth) for rows in (1, batches - 1))


def _stream(flat: NDArray[np.int8], bias: Ints) -> NDArray[np.int32]:
    groups = len(flat) // 8
    words = pair_words(gemm.spread(flat, flat.shape[1])).reshape(groups, 4, -1).transpose(0, 2, 1).reshape(groups, -1)
    return as_words(np.concatenate([pair_bias(bias).reshape(groups, 8), words], axis=1))


def _padded(exact: Requantization, rows: int) -> Requantization:
    """`rows` units more that always yield an accumulator of 0, so that every group is full."""

    def longer(values: Ints, fill: int) -> Ints:
        return np.concatenate([values, np.full(rows, fill, np.int64)])

    return replace(
        exact,
        multiplier=longer(exact.multiplier, int(exact.multiplier[0])),
        exponent=longer(exact.exponent, int(exact.exponent[0])),
        low=longer(exact.low, 0),
        high=longer(exact.high, 0),
    )


def _parity_union(exact: Requantization) -> Requantization:
    """Two rows for even and odd units: one function, the union of their accumulators."""
    return replace(
        exact,
        multiplier=exact.multiplier[:2],
        exponent=exact.exponent[:2],
        low=np.array([exact.low[0::2].min(), exact.low[1::2].min()]),
        high=np.array([exact.high[0::2].max(), exact.high[1::2].max()]),
    )


@variant("FULLY_CONNECTED")
def fully_connected(node: Node) -> Iterator[Step]:
    """Weights with one scale; see the module."""
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
    filters = node.input(1).quantization
    if exact is None or source.elements % depth or filters is None or filters.per_channel:
        return
    fill, padded = -units % 8, _even(depth)
    exact = _padded(exact, fill)
    flat = np.pad(flat, ((0, fill), (0, padded - depth)))
    folded = np.concatenate([constants.bias, np.zeros(fill, np.int64)]) - zero_point(source) * flat.astype(
        np.int64
    ).sum(axis=1)
    both = tail(_parity_union(exact), np.zeros(2, np.int64), np.array([0, 8]), _SHIFTS)
    if both is None:
        return
    short = both.short and replace(both.short, multiplier=np.resize(both.short.multiplier, len(flat)),
                                   delta=np.resize(both.short.delta, len(flat)))  # fmt: skip
    end = Tail(short, folded + np.resize(both.bias, len(flat)), both.parameters)
    if not packable(exact, flat.astype(np.int64), end):
        return
    batches = source.elements // depth
    expand = _expand() if node.target.optimize == "speed" else None
    kernel = _kernel(padded, end, node.target.optimize, expand is not None)
    driver, driver_source = _driver((batches, depth, units), kernel[:2], expand)
    parameters = both.parameters if both.short is not None else both.parameters[:1]
    requantize = np.zeros(4, np.int64)
    requantize[: parameters.size] = parameters.reshape(-1)
    yield Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel="fully_connected_s8_dsp",
        method=f"eight units at a time, {'general' if end.short is None else 'certified'} requantization",
        calls=(
            f"{driver}({{t{source.index}}}, {{t{result.index}}}, {{stream}}, {{requantization}}"
            f"{', {scratch}' if expand or padded != depth else ''});",
        ),
        inputs=(source.index,),
        outputs=(result.index,),
        constants=(
            Constant("stream", "int32_t", _stream(flat, end.bias)),
            Constant("requantization", "int32_t", as_words(requantize)),
        ),
        scratch_bytes=(2 * padded if expand else 0) + (padded if padded != depth else 0),
        overlaps=(Overlap(source.index, result.index, _before_bytes(batches, depth, units)),)
        if expand or padded != depth
        else (),
        emitted=(kernel[1], expand[1], driver_source) if expand else (kernel[1], driver_source),
        macs=batches * units * depth,
        cost=batches
        * (
            len(flat) * ((0.92 if expand else 0.98) * padded + (7 if end.short is None else 4))
            + (1.8 * padded if expand else 0)
            + (0.7 * depth + 20 if padded != depth else 0)
        ),
        code_bytes=kernel[2] + 100,
    )
