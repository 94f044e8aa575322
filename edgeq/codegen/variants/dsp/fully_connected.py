"""FULLY_CONNECTED: one row by eight units at a time.

Data. For speed the row is expanded once to int16 pairs in scratch; else its bytes are expanded as they are read, which
costs two instructions more for 32 multiply-accumulates and no memory. Weights: one stream, for every 8 units: 8 start
values (`pair_bias`), then for each pair of k four words, each of two units as in `gemm`. Units are padded to a multiple
of 8 by zeros. Where weights have one scale, one requantization that is proven for the union of the units' accumulators
serves all; else, and where that fails, each group's words are followed by the parameters of its units.

Loop, 29 (31) instructions for 32 multiply-accumulates: an activation pair is read once for 8 units.
Registers: r0 stream, r1 activations, r2-r3 weights, r4-r5 activations; r6 raw01, r7 low01, r8 raw23, r9 low23,
r10 raw45, r11 low45, r12 raw67, lr low67. The frame holds activations, output, stream's end, requantization,
activations' end.

A depth that is no multiple of 4 is padded: weights by zeros, the row in a copy in scratch.

Obligations: as in `gemm`, unit by unit (`endings`): groups of 8 with one end form runs, a call each; units that no end
is proven for are left to C (`_rest`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.arithmetic import Ints
from edgeq.codegen.lower.convolution import weights_of
from edgeq.codegen.proofs import Requantization
from edgeq.codegen.registry import variant
from edgeq.codegen.step import Constant, Node, Optimize, Overlap, Source, Step, Unsupported
from edgeq.codegen.variants.assembly import as_words, bytes_as_words, function
from edgeq.codegen.variants.dsp import gemm
from edgeq.codegen.variants.dsp.common import (
    Ending,
    Run,
    Tail,
    applies,
    endings,
    general_value,
    pair_bias,
    pair_words,
    unpackable,
)
from edgeq.codegen.variants.layers import folded_bias, requantization

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


def _finish(result: Tail, single: bool) -> Iterator[str]:
    """single: one requantization for all units, where the frame says; else each unit's, in the stream."""
    yield from (f"    sub {raw}, {raw}, {low}" for raw, low in _PAIRS)
    if single:
        yield "    ldr r1, [sp, #12]"
        yield "    ldm r1, {r2, r3, r4, r5}"
    for raw, low in _PAIRS:
        if not single and result.short is not None:
            yield "    ldm r0!, {r2, r3, r4, r5}"
        for value, up, factor, addend in ((low, 0, "r2", "r3"), (raw, 8, "r4", "r5")):
            if result.short is None:
                yield from () if single else ("    ldm r0!, {r2, r3, r4}",)
                yield from general_value(result, value, up)
            else:
                yield f"    smmla {value}, {value}, {factor}, {addend}"
                yield f"    ssat {value}, #8, {value}, asr #{result.shift(up)}"
    yield "    ldm sp, {r1, r2, r3}"
    yield from (f"    strb {value}, [r2], #1" for raw, low in _PAIRS for value in (low, raw))
    yield "    str r2, [sp, #4]"


def _kernel(depth: int, end: _End, result: Tail, optimize: Optimize, expanded: bool) -> tuple[str, Source, int]:
    fours = depth // 4
    unroll = next(u for u in range(min(_UNROLL[optimize], fours), 0, -1) if fours % u == 0)
    how = "expanded" if expanded else "bytes"
    name = f"edgeq_gemv_8_s8_dsp_{how}_u{4 * unroll}_{result.name}{'' if end.single else 'each'}"
    lines = [
        "    push {r4-r11, lr}", "    ldrd r4, r5, [sp, #36]", "    push {r1-r5}", "    1:",
        "    ldm r0!, {r6-r12, lr}", "    2:", f"    .rept {unroll}", *_step(expanded), "    .endr",
        "    ldr r2, [sp, #16]", "    cmp r1, r2", "    bne 2b",
        *_finish(result, end.single), "    cmp r0, r3", "    bne 1b", "    add sp, sp, #20", "    pop {r4-r11, pc}",
    ]  # fmt: skip
    x_type = "int32_t" if expanded else "int8_t"
    prototype = (
        f"void {name}(const int32_t *stream, const {x_type} *x, int8_t *y, const int32_t *end,\n"
        f"    const int32_t *requantization, const {x_type} *x_end);"
    )
    comment = (
        f"One row by 8 units at a time, K a multiple of {4 * unroll}. Weight halves hold w0 + 256 w1: SMLAD sums\n"
        " * acc0 + 256 acc1 (r6, r8, r10, r12), after SXTB16 acc0 alone (r7, r9, r11, lr). r0 stream, r1 activations.\n"
        f" * Requantization: {'one for all units' if end.single else 'each unit has its own, in the stream'}."
    )
    text = f"#include <stdint.h>\n\n{prototype}\n\n{function(name, comment, lines)}"
    return name, Source(name.removeprefix("edgeq_"), text, prototype), 116 * unroll + 200


def _rest(depth: int, exact: Requantization) -> tuple[str, Source]:
    """The C of units that no assembly is licensed for."""
    limits = "_".join(str(limit + 128) for limit in (exact.zero_point, exact.minimum, exact.maximum))
    name = f"edgeq_gemv_1_s8_tflm_k{depth}_{limits}"
    prototype = f"void {name}(const int32_t *stream, const int8_t *x, int8_t *y, const int32_t *end);"
    text = f"""#include <stdint.h>
#include "edgeq/arithmetic.h"

{prototype}

/* One row by one unit, K = {depth}, for units without a proven form: TFLM's steps.
 * stream: start value, multiplier, exponent, unit, weights. */
{prototype[:-1]} {{
    for (; stream != end; stream += {4 + -(-depth // 4)}) {{
        const int8_t *w = (const int8_t *)(stream + 4);
        int32_t acc = stream[0];
        for (int32_t k = 0; k < {depth}; k++) {{
            acc += w[k] * x[k];
        }}
        acc = edgeq_requantize(acc, stream[1], -stream[2]) + {exact.zero_point};
        y[stream[3]] = (int8_t)edgeq_clamp(acc, {exact.minimum}, {exact.maximum});
    }}
}}
"""
    return name, Source(name.removeprefix("edgeq_"), text, prototype)


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


@dataclass(frozen=True, slots=True)
class _Calls:
    """What yields all units of a row: a kernel for each run, units 8 by 8; then `rest`, if any.

    words: those of a group of each run; groups: how many; layer: for the driver's name, where the runs are of its own.
    """

    kernels: tuple[tuple[str, Source], ...]
    words: tuple[int, ...]
    groups: tuple[int, ...]
    rest: tuple[tuple[str, Source], int] | None
    layer: int

    @property
    def label(self) -> str:
        mixed = len(self.kernels) > 1 or self.rest is not None
        return "_".join(self.kernels[0][0].rsplit("_", 3)[1:]) + (f"_mixed{self.layer}" if mixed else "")

    @property
    def sources(self) -> tuple[Source, ...]:
        return tuple(dict.fromkeys(source for _, source in (*self.kernels, *([self.rest[0]] if self.rest else []))))

    def lines(self, units: int, row: str, source: str) -> Iterator[str]:
        """C statements; `row`: the activations as the kernels want them, `source`: as bytes."""
        at = unit = 0
        for (name, _), words, groups in zip(self.kernels, self.words, self.groups, strict=True):
            whole = min(groups, (units - unit) // 8)
            if whole:
                end = at + whole * words
                yield f"{name}(stream + {at}, {row}, y + {unit}, stream + {end}, requantization, end);"
                at, unit = end, unit + 8 * whole
            if whole < groups:
                yield "int8_t last[8];"
                yield f"{name}(stream + {at}, {row}, last, stream + {at + words}, requantization, end);"
                yield f"memcpy(y + {unit}, last, {units - unit});"
                at += words
        if self.rest is not None:
            (name, _), size = self.rest
            yield f"{name}(stream + {at}, {source}, y, stream + {at + size});"


def _driver(size: tuple[int, int, int], calls: _Calls, expand: tuple[str, Source] | None) -> tuple[str, Source]:
    """The C around the kernels: rows, and the last units where they do not fill a group of 8."""
    batches, depth, units = size
    padded = _even(depth)
    name = f"edgeq_fully_connected_s8_dsp_{batches}x{depth}x{units}_{calls.label}"
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
    prototypes = "\n".join(part.prototypes for part in calls.sources)
    body = "\n        ".join(calls.lines(units, row, source))
    text = f"""#include <stdint.h>
#include <string.h>

{prototypes}
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


@dataclass(frozen=True, slots=True, eq=False)
class _End:
    """How the units end; single: one requantization for all of them, `table`, instead of parameters in the stream."""

    ending: Ending
    single: bool
    table: Ints


def _stream(flat: NDArray[np.int8], run: Run, single: bool) -> NDArray[np.int32]:
    groups = len(flat) // 8
    words = pair_words(gemm.spread(flat, flat.shape[1])).reshape(groups, 4, -1).transpose(0, 2, 1).reshape(groups, -1)
    parts = [pair_bias(run.end.bias).reshape(groups, 8), words]
    return as_words(np.concatenate(parts if single else [*parts, run.end.parameters.reshape(groups, -1)], axis=1))


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


def _single(exact: Requantization, flat: Ints, folded: Ints) -> _End | None:
    """One requantization for all units, if there is one."""
    if np.ptp(exact.multiplier) or np.ptp(exact.exponent):
        return None
    union, none = _parity_union(exact), np.zeros(2, np.int64)
    both = next(endings(union, np.zeros((2, 1), np.int64), none, up=np.array([0, 8]), preferred=_SHIFTS, group=2), None)
    if both is None or not both.uniform:
        return None
    end = both.runs[0].end
    short = end.short and replace(end.short, delta=np.resize(end.short.delta, len(flat)),
                                  multiplier=np.resize(end.short.multiplier, len(flat)))  # fmt: skip
    if len(unpackable(exact, flat, short)):
        return None
    table = np.zeros(4, np.int64)
    parameters = end.parameters if short is not None else end.parameters[:1]
    table[: parameters.size] = parameters.reshape(-1)
    whole = Tail(short, folded + np.resize(end.bias, len(flat)), end.parameters, end.minimum, end.maximum)
    return _End(Ending((Run(0, len(flat), whole),), np.zeros(0, np.int64)), True, table)


@variant("FULLY_CONNECTED")
def fully_connected(node: Node) -> Iterator[Step]:
    """Constant weights with a scale, or one for each unit; see the module."""
    if not applies(node):
        return
    try:
        units, depth = node.input(1).shape
        constants = weights_of(node, units)
    except Unsupported:
        return
    source = node.input(0)
    flat = constants.weights.reshape(units, depth)
    exact = requantization(node, constants, flat)
    if exact is None or source.elements % depth:
        return
    fill, padded = -units % 8, _even(depth)
    exact = _padded(exact, fill)
    flat = np.pad(flat, ((0, fill), (0, padded - depth)))
    weights, folded = flat.astype(np.int64), folded_bias(node, np.pad(constants.bias, (0, fill)), flat)
    single = _single(exact, weights, folded)
    if single is not None:
        yield _layer(node, (flat, folded), exact, single)
    if single is None or single.ending.general:
        up = np.where(np.arange(len(flat)) % 2 == 1, 8, 0)
        for ending in endings(exact, weights, folded, up=up, preferred=_SHIFTS, group=8):
            yield _layer(node, (flat, folded), exact, _End(ending, False, np.zeros(0, np.int64)))


def _layer(node: Node, linear: tuple[NDArray[np.int8], Ints], exact: Requantization, end: _End) -> Step:
    """The Step that ends so; weights, folded bias and exact are padded to whole groups."""
    (flat, folded), (units, depth) = linear, node.input(1).shape
    count, padded = flat.shape
    source, result, ending = node.input(0), node.output(), end.ending
    batches = source.elements // depth
    expand = _expand() if node.target.optimize == "speed" else None
    kernels = [_kernel(padded, end, run.end, node.target.optimize, expand is not None) for run in ending.runs]
    kept = flat.copy()
    kept[ending.rest] = 0
    streams = [_stream(kept[run.first : run.last], run, end.single) for run in ending.runs]
    groups = tuple((run.last - run.first) // 8 for run in ending.runs)
    words = tuple(len(stream) // n for stream, n in zip(streams, groups, strict=True))
    left = None
    if len(ending.rest):
        heads = np.stack([folded, exact.multiplier, exact.exponent, np.arange(count)], axis=1)
        rows = np.concatenate([heads, bytes_as_words(flat.astype(np.int64))], axis=1)
        streams.append(as_words(rows[ending.rest]))
        left = _rest(padded, exact), len(streams[-1])
    calls = _Calls(tuple(k[:2] for k in kernels), words, groups, left, node.operator.index)
    driver, driver_source = _driver((batches, depth, units), calls, expand)
    constants = [Constant("stream", "int32_t", np.concatenate(streams))]
    if end.single:
        constants.append(Constant("requantization", "int32_t", as_words(end.table)))
    copied = bool(expand) or padded != depth
    tails = sum((run.last - run.first) * (7 if run.end.short is None else 4) for run in ending.runs)
    return Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel="fully_connected_s8_dsp",
        method=f"eight units at a time, {ending.method}",
        calls=(
            f"{driver}({{t{source.index}}}, {{t{result.index}}}, {{stream}}, "
            f"{'{requantization}' if end.single else '{stream}'}{', {scratch}' if copied else ''});",
        ),
        inputs=(source.index,),
        outputs=(result.index,),
        constants=tuple(constants),
        scratch_bytes=(2 * padded if expand else 0) + (padded if padded != depth else 0),
        overlaps=(Overlap(source.index, result.index, _before_bytes(batches, depth, units)),)
        if copied and left is None
        else (),
        headers=("arithmetic.h",) if left else (),
        emitted=(*calls.sources, expand[1], driver_source) if expand else (*calls.sources, driver_source),
        macs=batches * units * depth,
        cost=batches
        * (
            count * (0.92 if expand else 0.98) * padded
            + tails
            + (0 if end.single else count)
            + 40 * (len(kernels) - 1)
            + len(ending.rest) * (7 * padded + 60)
            + (1.8 * padded if expand else 0)
            + (0.7 * depth + 20 if padded != depth else 0)
        ),
        code_bytes=sum(dict(k[1:] for k in kernels).values()) + (100 if left is None else 300),
    )
