"""DEPTHWISE_CONV_2D, 3x3, stride 1 or 2: one channel at a time on a padded int16 plane.

Data. A channel is gathered from NHWC into a plane in scratch, int16 [rows][even stride], whose border holds the zero
point and is written once a layer. A word of a plane is then a pair of neighbours in a row, ready for SMLAD, and always
4-byte aligned at even columns. Results go back to NHWC bytes; with equal sizes the layer works in place.
Per channel: bias, multiplier, addend (exponent), three words of weights, each a kernel row as bytes: (w0, w1, w1, w2)
for stride 1, (w0, w2, w1, 0) for stride 2, which two SXTB16 turn into the pairs that the loop wants.

Loop, stride 1: a block of 2x2 outputs reads 4 words pairs (LDRD), 24 multiply-accumulates: with x0..x3 in two
registers, output 0 is SMLAD (x0,x1)(w0,w1) + x2 w2, output 1 is x1 w0 + SMLAD (x2,x3)(w1,w2). Stride 2: a block of 1x2
outputs. Odd edges use blocks of one column or one row.

Registers: r0 plane, r1 output, r2-r3 activations, r4-r7 accumulators (stride 2: r6 the fifth activation), r8-r12, lr
the six weight pairs. In the frame: the bias four times (one LDM starts a block), the requantization, pointers, loop
ends.

Obligations: depth multiplier 1, no dilation, batch 1, offsets within the instructions' immediates, the tail's proof,
channel by channel (`endings`): channels with one end form runs, a call each; what no end is proven for is left to C
(`_rest`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.arithmetic import Ints
from edgeq.codegen.lower.common import zero_point
from edgeq.codegen.lower.convolution import weights_of
from edgeq.codegen.proofs import Requantization
from edgeq.codegen.registry import variant
from edgeq.codegen.step import Constant, Node, Optimize, Overlap, Source, Step
from edgeq.codegen.variants.assembly import as_words, bytes_as_words, function
from edgeq.codegen.variants.dsp.common import BUDGET, Ending, Tail, applies, endings, general_product, general_result
from edgeq.codegen.variants.layers import Windowed, folded_bias, requantization

_SHIFTS = (3, 4, 2)
_UNROLL: dict[Optimize, int] = {"speed": 12, "balanced": 6, "ram": 3, "flash": 1}
"""Blocks of a row without a branch."""

_BIAS, _FACTOR, _EXPONENT, _X, _Y, _PLANE, _END, _COLUMNS, _ROWS, _FRAME = 0, 16, 24, 28, 32, 36, 40, 44, 48, 56
"""Offsets in the frame; the parameters' pointer stays in _FRAME - 4."""


@dataclass(frozen=True, slots=True)
class _Plane:
    """A shape's plane: rows of `stride` int16, the input's first row and column at (top, left)."""

    shape: Mapping[str, int]

    @property
    def name(self) -> str:
        """For kernels' names."""
        size = "x".join(str(self.shape[k]) for k in ("in_h", "in_w", "in_c", "out_h", "out_w"))
        return f"{size}_s{self.step}p{self.shape['pad_top']}x{self.shape['pad_left']}"

    @property
    def step(self) -> int:
        return self.shape["stride_w"]

    @property
    def rows(self) -> int:
        return (self.shape["out_h"] - 1) * self.step + 3

    @property
    def stride(self) -> int:
        """Even, and wide enough for what the last block reads."""
        out_w, odd = self.shape["out_w"], self.shape["out_w"] % 2
        read = out_w + 2 + odd if self.step == 1 else 2 * out_w + 2
        return read + read % 2

    @property
    def row_bytes(self) -> int:
        return 2 * self.stride

    @property
    def gathered(self) -> tuple[int, int]:
        """Rows and columns of the input that the plane holds."""
        height = min(self.shape["in_h"], self.rows - self.shape["pad_top"])
        return height, min(self.shape["in_w"], self.stride - self.shape["pad_left"])

    @property
    def out_row(self) -> int:
        return self.shape["out_w"] * self.shape["out_c"]

    @property
    def block_rows(self) -> int:
        return 2 if self.step == 1 else 1


def _add(register: str, value: int) -> list[str]:
    if value == 0:
        return []
    return [f"    {'addw' if value > 0 else 'subw'} {register}, {register}, #{abs(value)}"]


def _gather(plane: _Plane) -> Iterator[str]:
    """r0 input, r1 plane's interior, r2 rows left."""
    height, width = plane.gathered
    channels, start = plane.shape["in_c"], plane.shape["pad_top"] * plane.row_bytes + 2 * plane.shape["pad_left"]
    yield f"    ldrd r0, r3, [sp, #{_X}]"
    yield f"    ldr r1, [sp, #{_PLANE}]"
    yield from _add("r1", start)
    yield f"    mov r2, #{height}"
    yield "    2:"
    registers = [f"r{i}" for i in range(4, 12)]
    for first in range(0, width, 8):
        columns = range(first, min(width, first + 8))
        yield from (f"    ldrsb {r}, [r0, #{x * channels}]" for r, x in zip(registers, columns, strict=False))
        yield from (f"    strh {r}, [r1, #{2 * x}]" for r, x in zip(registers, columns, strict=False))
    yield from _add("r0", plane.shape["in_w"] * channels)
    yield from _add("r1", plane.row_bytes)
    yield "    subs r2, r2, #1"
    yield "    bne 2b"


_PAIRS = (("r8", "r9"), ("r10", "r11"), ("r12", "lr"))
"""Weight registers of the kernel rows."""


def _load_channel(general: bool) -> Iterator[str]:
    """Weights into r8-lr, start values and requantization into the frame; the parameters' pointer moves on."""
    pointer = _FRAME - 4
    yield f"    ldr r0, [sp, #{pointer}]"
    if general:
        yield "    ldm r0!, {r4, r5, r6, r7, r8, r10, r12}"
        yield f"    str r7, [sp, #{_EXPONENT}]"
    else:
        yield "    ldm r0!, {r4, r5, r6, r8, r10, r12}"
    yield f"    str r0, [sp, #{pointer}]"
    for first, second in _PAIRS:
        yield f"    sxtb16 {second}, {first}, ror #8"
        yield f"    sxtb16 {first}, {first}"
    yield f"    strd r4, r4, [sp, #{_BIAS}]"
    yield f"    strd r4, r4, [sp, #{_BIAS + 8}]"
    yield f"    strd r5, r6, [sp, #{_FACTOR}]"


def _products(plane: _Plane, row: int, column: int, rows: int, columns: int) -> Iterator[str]:
    """All outputs that plane row `row` of a block takes part in. Accumulators: r4, r5 of row 0, r6, r7 of row 1."""
    at = row * plane.row_bytes + 2 * plane.step * column
    yield f"    ldrd r2, r3, [r0, #{at}]"
    if plane.step == 2 and columns == 2:
        yield f"    ldrsh r6, [r0, #{at + 8}]"
    for out in range(rows):
        if not 0 <= row - out < 3:
            continue
        first, second = _PAIRS[row - out]
        one, two = ("r4", "r5") if out == 0 else ("r6", "r7")
        if plane.step == 1:
            yield f"    smlad {one}, r2, {first}, {one}"
            yield f"    smlabt {one}, r3, {second}, {one}"
            if columns == 2:
                yield f"    smlatb {two}, r2, {first}, {two}"
                yield f"    smlad {two}, r3, {second}, {two}"
        else:
            yield f"    smlad {one}, r2, {first}, {one}"
            yield f"    smlabb {one}, r3, {second}, {one}"
            if columns == 2:
                yield f"    smlad {two}, r3, {first}, {two}"
                yield f"    smlabb {two}, r6, {second}, {two}"


def _finish(result: Tail, values: list[str]) -> Iterator[str]:
    yield f"    ldrd r2, r3, [sp, #{_FACTOR}]"
    if result.short is not None:
        yield from (f"    smmla {v}, {v}, r2, r3" for v in values)
        yield from (f"    ssat {v}, #8, {v}, asr #{result.shift(0)}" for v in values)
        return
    for v in values:
        yield from general_product(v, 0, "r2", "r3")
    yield f"    ldr r2, [sp, #{_EXPONENT}]"
    for v in values:
        yield from general_result(result, v, "r2")


def _block(plane: _Plane, result: Tail, column: int, rows: int, columns: int) -> Iterator[str]:
    """`rows` x `columns` outputs, the left one at `column` of the row that r0 and r1 point into."""
    used = ["r4", "r5"][:columns] + (["r6", "r7"][:columns] if rows == 2 else [])
    yield "    ldm sp, {r4, r5, r6, r7}" if rows == 2 else f"    ldrd r4, r5, [sp, #{_BIAS}]"
    for row in range(rows + 2 if plane.step == 1 else 3):
        yield from _products(plane, row, column, rows, columns)
    yield from _finish(result, used)
    channels = plane.shape["out_c"]
    for row in range(rows):
        for x in range(columns):
            yield f"    strb {used[row * columns + x]}, [r1, #{row * plane.out_row + (column + x) * channels}]"


def _row(plane: _Plane, result: Tail, rows: int, unroll: int) -> Iterator[str]:
    """A row of blocks; r0 and r1 end where the next row starts."""
    out_w, channels = plane.shape["out_w"], plane.shape["out_c"]
    blocks = out_w // 2
    group = next(u for u in range(min(unroll, max(blocks, 1)), 0, -1) if max(blocks, 1) % u == 0)
    looped = blocks > group
    if looped:
        yield f"    add r2, r0, #{2 * plane.step * 2 * blocks}"
        yield f"    str r2, [sp, #{_COLUMNS}]"
        yield "    4:"
    for index in range(group if blocks else 0):
        yield from _block(plane, result, 2 * index, rows, 2)
    moved = 0
    if looped:
        moved = 2 * blocks
        yield from _add("r0", 2 * plane.step * 2 * group)
        yield from _add("r1", 2 * group * channels)
        yield f"    ldr r2, [sp, #{_COLUMNS}]"
        yield "    cmp r0, r2"
        yield "    bne 4b"
    if out_w % 2:
        yield from _block(plane, result, out_w - 1 - moved, rows, 1)
    yield from _add("r0", rows * plane.step * plane.row_bytes - 2 * plane.step * moved)
    yield from _add("r1", rows * plane.out_row - moved * channels)


def _kernel(plane: _Plane, result: Tail, optimize: Optimize) -> tuple[str, Source, int]:
    shape, rows = plane.shape, plane.block_rows
    name = f"edgeq_depthwise_3x3_s8_dsp_{plane.name}_{result.name}"
    pairs, odd = divmod(shape["out_h"], rows)
    lines = [
        "    push {r4-r11, lr}", "    ldr r4, [sp, #36]", f"    sub sp, sp, #{_FRAME}",
        f"    strd r0, r1, [sp, #{_X}]", f"    strd r2, r4, [sp, #{_PLANE}]", f"    str r3, [sp, #{_FRAME - 4}]",
        "    1:", *_gather(plane), *_load_channel(result.short is None), f"    ldrd r1, r0, [sp, #{_Y}]",
    ]  # fmt: skip
    if pairs > 1:
        lines += [f"    movw r2, #{pairs * rows * plane.step * plane.row_bytes}", "    add r2, r2, r0",
                  f"    str r2, [sp, #{_ROWS}]", "    3:"]  # fmt: skip
    if pairs:
        lines += _row(plane, result, rows, _UNROLL[optimize])
    if pairs > 1:
        lines += [f"    ldr r2, [sp, #{_ROWS}]", "    cmp r0, r2", "    bne 3b"]
    if odd:
        lines += _row(plane, result, 1, _UNROLL[optimize])
    lines += [
        f"    ldrd r0, r1, [sp, #{_X}]", "    add r0, r0, #1", "    add r1, r1, #1", f"    strd r0, r1, [sp, #{_X}]",
        f"    ldr r2, [sp, #{_FRAME - 4}]", f"    ldr r3, [sp, #{_END}]", "    cmp r2, r3", "    bne 1b",
        f"    add sp, sp, #{_FRAME}", "    pop {r4-r11, pc}",
    ]  # fmt: skip
    prototype = f"void {name}(const int8_t *x, int8_t *y, int16_t *plane, const int32_t *channels, const int32_t *end);"
    block = "2x2 outputs from 4 rows" if plane.step == 1 else "1x2 outputs from 3 rows"
    comment = (
        f"3x3 depthwise, stride {plane.step}, {shape['in_h']}x{shape['in_w']}x{shape['in_c']} -> {shape['out_h']}x"
        f"{shape['out_w']}: each channel is gathered into an int16\n * plane, then {block} at a time. "
        "r0 plane, r1 output, r4-r7 accumulators, r8-lr weight pairs."
    )
    text = f"#include <stdint.h>\n\n{prototype}\n\n{function(name, comment, lines)}"
    return name, Source(name.removeprefix("edgeq_"), text, prototype), 4 * len(lines)


def _channels(flat: NDArray[np.int8], result: Tail, step: int) -> NDArray[np.int32]:
    """Per channel: start value, requantization, three words of weights."""
    order = [0, 1, 1, 2] if step == 1 else [0, 2, 1, 3]
    rows = np.zeros((len(flat), 3, 4), np.int64)
    rows[..., :3] = flat.reshape(-1, 3, 3)
    words = ((rows[..., order] & 0xFF) << np.array([0, 8, 16, 24])).sum(axis=2)
    return as_words(np.concatenate([result.bias[:, None], result.parameters, words], axis=1))


def _prepare(
    plane: _Plane, zero: int, calls: Sequence[tuple[str, int, int]], sources: Sequence[Source], layer: int
) -> tuple[str, Source]:
    """The C that fills the border and calls kernels: each its name, the first channel, its start in the table."""
    name = f"{calls[0][0]}_z{zero + 128}{f'_mixed{layer}' if len(calls) > 1 else ''}"
    prototype = f"void {name}(const int8_t *x, int8_t *y, int16_t *plane, const int32_t *channels, const int32_t *end);"
    prototypes = "\n".join(source.prototypes for source in sources)
    ends = [*(f"channels + {start}" for _, _, start in calls[1:]), "end"]
    lines = "\n".join(
        f"    {kernel}(x{f' + {first}' if first else ''}, y{f' + {first}' if first else ''}, plane, "
        f"channels{f' + {start}' if start else ''}, {end});"
        for (kernel, first, start), end in zip(calls, ends, strict=True)
    )
    text = f"""#include <stdint.h>

{prototypes}
{prototype}

/* The plane's border is the input's zero point, {zero}; the interior is written anew for each channel. */
{prototype[:-1]} {{
    for (int32_t i = 0; i < {plane.rows * plane.stride}; i++) {{
        plane[i] = {zero};
    }}
{lines}
}}
"""
    return name, Source(name.removeprefix("edgeq_"), text, prototype)


def _fits(plane: _Plane) -> bool:
    """Whether every offset is within its instruction's immediate."""
    shape = plane.shape
    blocks = plane.block_rows * plane.out_row + shape["out_w"] * shape["out_c"]
    reads = (plane.block_rows + 2) * plane.row_bytes + 4 * plane.stride
    gather = shape["in_w"] * shape["in_c"]
    start = shape["pad_top"] * plane.row_bytes + 2 * shape["pad_left"]
    rows = shape["out_h"] * plane.step * plane.row_bytes
    return max(blocks, gather, start) <= BUDGET and reads <= 1020 and rows < 2**16 and shape["in_h"] < 256


@variant("DEPTHWISE_CONV_2D")
def depthwise_conv_2d(node: Node) -> Iterator[Step]:
    """3x3 with equal strides of 1 or 2; see the module."""
    layer = Windowed.of(node) if applies(node) else None
    if layer is None or not layer.plain or not layer.square:
        return
    plane, constants = _Plane(layer.shape), layer.constants
    if not _fits(plane):
        return
    flat = constants.weights.reshape(9, -1).T
    exact = requantization(node, constants, flat)
    if exact is None:
        return
    folded = folded_bias(node, constants.bias, flat)
    up = np.zeros(len(flat), np.int64)
    for ending in endings(exact, flat.astype(np.int64), folded, up=up, preferred=_SHIFTS, group=1):
        yield _step(node, plane, flat, folded, ending)


def _step(node: Node, plane: _Plane, flat: NDArray[np.int8], folded: Ints, ending: Ending) -> Step:
    source, result, shape = node.input(0), node.output(), plane.shape
    exact = requantization(node, weights_of(node, len(flat)), flat)
    assert exact is not None
    kernels, calls, tables, at = [], [], [], 0
    for run in ending.without_rest():
        kernel = _kernel(plane, run.end, node.target.optimize)
        tables.append(_channels(flat[run.first : run.last], run.end, plane.step))
        calls.append((kernel[0], run.first, at))
        kernels.append(kernel)
        at += len(tables[-1])
    if len(ending.rest):
        kernels.append((*_rest(plane, exact), 300))
        heads = np.stack([folded, exact.multiplier, exact.exponent, np.arange(len(flat))], axis=1)
        tables.append(as_words(np.concatenate([heads, bytes_as_words(flat.astype(np.int64))], axis=1)[ending.rest]))
        calls.append((kernels[-1][0], 0, at))
    channels = np.concatenate(tables)
    sources = tuple(dict.fromkeys(k[1] for k in kernels))
    entry, entry_source = _prepare(plane, zero_point(source), calls, sources, node.operator.index)
    same = shape["in_h"] == shape["out_h"] and shape["in_w"] == shape["out_w"]
    outputs, gathered = shape["out_h"] * shape["out_w"], 2.3 * shape["in_h"] * shape["in_w"]
    each = 11.5 if plane.step == 1 else 14
    return Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel="depthwise_conv_2d_s8_dsp",
        method=f"3x3, stride {plane.step}, one channel at a time on an int16 plane, {ending.method}",
        calls=(
            f"{entry}({{t{source.index}}}, {{t{result.index}}}, {{scratch}}, {{channels}}, "
            f"{{channels}} + {channels.size});",
        ),
        inputs=(source.index,),
        outputs=(result.index,),
        constants=(Constant("channels", "int32_t", channels),),
        scratch_bytes=2 * plane.rows * plane.stride,
        overlaps=(Overlap(source.index, result.index, 0, exact=True),) if same else (),
        headers=("arithmetic.h",) if len(ending.rest) else (),
        emitted=(*sources, entry_source),
        macs=result.elements * 9,
        cost=len(flat) * (outputs * each + gathered + 50)
        + 4 * outputs * ending.general
        + len(ending.rest) * (90 * outputs + 6 * gathered)
        + 30 * len(calls),
        code_bytes=sum(dict(k[1:] for k in kernels).values()) + 60,
    )


def _rest(plane: _Plane, exact: Requantization) -> tuple[str, Source]:
    """The C of channels that no assembly is licensed for, on the same plane."""
    shape, (height, width) = plane.shape, plane.gathered
    limits = "_".join(str(limit + 128) for limit in (exact.zero_point, exact.minimum, exact.maximum))
    name = f"edgeq_depthwise_3x3_s8_tflm_{plane.name}_{limits}"
    prototype = f"void {name}(const int8_t *x, int8_t *y, int16_t *plane, const int32_t *channels, const int32_t *end);"
    text = f"""#include <stdint.h>
#include "edgeq/arithmetic.h"

{prototype}

/* 3x3 depthwise for channels without a proven form: TFLM's steps.
 * channels: start value, multiplier, exponent, channel, weights. */
{prototype[:-1]} {{
    for (; channels != end; channels += 7) {{
        const int8_t *w = (const int8_t *)(channels + 4);
        const int8_t *from = x + channels[3];
        int8_t *to = y + channels[3];
        for (int32_t row = 0; row < {height}; row++) {{
            for (int32_t column = 0; column < {width}; column++) {{
                plane[(row + {shape["pad_top"]}) * {plane.stride} + column + {shape["pad_left"]}] =
                    from[(row * {shape["in_w"]} + column) * {shape["in_c"]}];
            }}
        }}
        for (int32_t row = 0; row < {shape["out_h"]}; row++) {{
            for (int32_t column = 0; column < {shape["out_w"]}; column++) {{
                const int16_t *at = plane + row * {plane.step * plane.stride} + column * {plane.step};
                int32_t acc = channels[0];
                for (int32_t tap = 0; tap < 9; tap++) {{
                    acc += w[tap] * at[tap / 3 * {plane.stride} + tap % 3];
                }}
                acc = edgeq_requantize(acc, channels[1], -channels[2]) + {exact.zero_point};
                to[(row * {shape["out_w"]} + column) * {shape["out_c"]}] =
                    (int8_t)edgeq_clamp(acc, {exact.minimum}, {exact.maximum});
            }}
        }}
    }}
}}
"""
    return name, Source(name.removeprefix("edgeq_"), text, prototype)
