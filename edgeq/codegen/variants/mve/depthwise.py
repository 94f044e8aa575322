"""Depthwise filters on one channel's plane of bytes: the kernels, and how a plane is laid out and filled.

Two layouts of a plane; both hold the input's zero point where the filter reaches beyond the input.

Rows (width up to 6): rows of W bytes one after the other, rows of zero points above and below, nothing at the sides.
The whole window lies in one 16-byte load at lanes ky * W + kx. At the left and right edge a load meets bytes of the
neighbouring rows: there the weights of the missing columns are 0, and the sum starts with zero_point * (their sum),
as if they had been read.
Registers: r0 r2 r4 r6 r8 r10 sums of a row of outputs, q0 the window, q1-q5 weights (inside, edges), r5 r7 r9 r11 the
edges' starts.
Loop, a row: per output a load and a VMLADAV (an edge: a MOV more), STM, LE.

Strips (3x3): strip s holds 4 columns from stride-2 column 2s - pad on, rows of 4 bytes: one load is 4 x 4
bytes. Stride 1: 4 outputs (2 x 2) a load, with four weight vectors; stride 2: one output a load. Each column lies in
two strips.
Registers: r0 r2 r4 r6 (r8 r10) sums, q0 window, q1-q4 weights. Loop: load, 4 VMLADAV, STM, LE: 7 instructions for 4
outputs; stride 2, unrolled: 2.3 an output.

Obligations: sums stay in int32; the bytes behind a plane may be read (16), those behind a strip buffer are the next
strip's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.variants.mve.common import Kernel, assembly

FRONT = 16
"""Bytes before the first row of a plane or of a block of rows; the left padding is among them."""

_SUMS = ("r0", "r2", "r4", "r6", "r8", "r10")
_SAVED = tuple(f"d{i}" for i in range(8, 16))


@dataclass(frozen=True, slots=True)
class Filter:
    """A depthwise convolution's geometry, without batches and dilation, multiplier 1."""

    in_h: int
    in_w: int
    out_h: int
    out_w: int
    filter_h: int
    filter_w: int
    stride: int
    pad_top: int
    pad_left: int

    @staticmethod
    def of(shape: Mapping[str, int]) -> Filter | None:
        """From `geometry`; None where the kernels do not apply at all."""
        plain = shape["dilation_h"] == shape["dilation_w"] == shape["batches"] == 1
        if not plain or shape["stride_h"] != shape["stride_w"] or shape["out_c"] != shape["in_c"]:
            return None
        names = ("in_h", "in_w", "out_h", "out_w", "filter_h", "filter_w", "stride_h", "pad_top", "pad_left")
        return Filter(*(shape[n] for n in names))

    @property
    def rows(self) -> bool:
        """Whether the plane is of rows."""
        window = (self.filter_h - 1) * self.in_w + self.filter_w
        edges = {self.columns(x) for x in range(self.out_w)} - {(0, self.filter_w)}
        return (
            window <= 16
            and self.out_w <= len(_SUMS)
            and len(edges) <= 4
            and self.pad_top * self.in_w + self.pad_left <= FRONT
        )

    @property
    def strips(self) -> bool:
        """Whether the plane is of strips."""
        small = self.filter_h == self.filter_w == 3 and self.stride in (1, 2) and self.in_w <= 96
        if self.stride == 1:
            same = self.pad_top == self.pad_left == 1 and (self.out_h, self.out_w) == (self.in_h, self.in_w)
            return small and same
        return small and self.pad_left <= 1 and self.pad_top <= 1

    def columns(self, x: int) -> tuple[int, int]:
        """The filter's columns that lie inside of the input for outputs in column x."""
        left = x * self.stride - self.pad_left
        return max(0, -left), min(self.filter_w, self.in_w - left)

    @property
    def edges(self) -> list[tuple[int, int]]:
        """The kinds of edge, in order of appearance."""
        kinds = dict.fromkeys(self.columns(x) for x in range(self.out_w))
        return [k for k in kinds if k != (0, self.filter_w)]

    @property
    def plane_bytes(self) -> int:
        """Plane of rows: front, rows, rows of padding below, and what a last load reads beyond."""
        last = ((self.out_h - 1) * self.stride - self.pad_top) * self.in_w + (self.out_w - 1) * self.stride + 16
        return -(-(FRONT + max(last, self.in_h * self.in_w + 15)) // 16) * 16

    @property
    def strip_rows(self) -> int:
        return 2 * self.strip_blocks + 2

    @property
    def strip_blocks(self) -> int:
        """Loads a strip: blocks of 2 x 2 outputs, or outputs."""
        return -(-self.out_h // 2) if self.stride == 1 else self.out_h

    @property
    def strip_count(self) -> int:
        return -(-self.out_w // 2) if self.stride == 1 else self.out_w

    @property
    def strip_outputs(self) -> int:
        """Sums a strip gives; of an odd height two, of an odd width half of the last strip's are not wanted."""
        return self.strip_blocks * (4 if self.stride == 1 else 1)

    @property
    def strips_bytes(self) -> int:
        """The strip buffer: the fill writes 8 strips at a time."""
        return -(-self.strip_count // 8) * 8 * self.strip_rows * 4


def rows_weights(filter_: Filter, weights: NDArray[np.int8], zero_point: int) -> NDArray[np.int8]:
    """weights [channels, filter_h, filter_w] as, per channel: inside vector, edge vectors, 4 edge starts (int32)."""
    f = filter_
    kinds = [(0, f.filter_w), *f.edges]
    lanes = np.zeros((len(weights), len(kinds), 16), np.int8)
    starts = np.zeros((len(weights), 4), np.int32)
    for k, (low, high) in enumerate(kinds):
        for ky in range(f.filter_h):
            lanes[:, k, ky * f.in_w + low : ky * f.in_w + high] = weights[:, ky, low:high]
        if k:
            inside = weights[:, :, low:high].astype(np.int64).sum(axis=(1, 2))
            starts[:, k - 1] = zero_point * (weights.astype(np.int64).sum(axis=(1, 2)) - inside)
    return np.concatenate([lanes.reshape(len(weights), -1), starts.view(np.int8)], axis=1).reshape(-1)


def rows_kernel(f: Filter) -> Kernel:
    """(window of the first output, weights, accumulators, rows)."""
    kinds = {(0, f.filter_w): 0} | {k: 1 + i for i, k in enumerate(f.edges)}
    start = ("r5", "r7", "r9", "r11")
    sums = _SUMS[: f.out_w]
    last = (f.out_w - 1) * f.stride
    step = f.stride * f.in_w
    body = [f"vldrb.8 q{1 + i}, [r1], #16" for i in range(len(kinds))] + [
        "ldm r1, {r5, r7, r9, r11}",
        "dls lr, r3",
        "mov r3, r2",
        f"sub r1, r0, #{step - last}" if step >= last else f"add r1, r0, #{last - step}",
        "1:",
    ]
    for x in range(f.out_w):
        kind = kinds[f.columns(x)]
        offset = step - last + x * f.stride
        body.append(f"vldrb.8 q0, [r1, #{offset}]" + ("!" if x == f.out_w - 1 else ""))
        if kind:
            body.append(f"mov {sums[x]}, {start[kind - 1]}")
        body.append(f"vmladav{'a' if kind else ''}.s8 {sums[x]}, q0, q{1 + kind}")
    body += [f"stm r3!, {{{', '.join(sums)}}}" if len(sums) > 1 else f"str {sums[0]}, [r3], #4", "le lr, 1b"]
    return assembly(
        f"edgeq_mve_depthwise_{f.filter_h}x{f.filter_w}_rows_{f.in_w}_{f.out_w}_{f.stride}_{f.pad_left}",
        "const int8_t *window, const int8_t *weights, int32_t *accumulators, int32_t rows",
        f"Depthwise {f.filter_h}x{f.filter_w}, stride {f.stride}, on rows of {f.in_w} bytes: a load holds the window.",
        body,
        _SAVED,
    )


def strips_weights(f: Filter, weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """weights [channels, 3, 3] as four vectors (stride 1: outputs of a 2 x 2 block) or one (stride 2) a channel."""
    blocks = [(0, 0), (0, 1), (1, 0), (1, 1)] if f.stride == 1 else [(0, 0)]
    lanes = np.zeros((len(weights), len(blocks), 4, 4), np.int8)
    for i, (y, x) in enumerate(blocks):
        lanes[:, i, y : y + 3, x : x + 3] = weights
    return lanes.reshape(-1)


def strips_kernel(f: Filter) -> Kernel:
    """(first strip, weights, accumulators, strips)."""
    if f.stride == 1:
        block, blocks, vectors = ["vldrb.8 q0, [r1], #8"], f.strip_blocks, 4
        block += [f"vmladav.s8 {_SUMS[i]}, q0, q{1 + i}" for i in range(4)]
        block.append("stm r3!, {r0, r2, r4, r6}")
    else:
        unroll = next(u for u in (6, 5, 4, 3, 2, 1) if f.out_h % u == 0 or u == 1)
        blocks, vectors = f.out_h // unroll, 1
        block = []
        for i in range(unroll):
            block += ["vldrb.8 q0, [r1], #8", f"vmladav.s8 {_SUMS[i]}, q0, q1"]
        stored = ", ".join(_SUMS[:unroll])
        block.append(f"stm r3!, {{{stored}}}" if unroll > 1 else "str r0, [r3], #4")
    loop = ["dls lr, r9", "1:", *block, "le lr, 1b"] if blocks > 1 else block
    body = [
        *(f"vldrb.8 q{1 + i}, [r1], #16" for i in range(vectors)), "mov r1, r0", "mov r7, r3",
        "mov r3, r2", f"movw r9, #{blocks}",
        "2:", *loop, "adds r1, r1, #8", "subs r7, r7, #1", "bne 2b",
    ]  # fmt: skip
    return assembly(
        f"edgeq_mve_depthwise_strips_{f.out_h}_{f.stride}",
        "const int8_t *strip, const int8_t *weights, int32_t *accumulators, int32_t strips",
        f"Depthwise 3x3, stride {f.stride}, on strips of 4 columns: one load holds 4 x 4 bytes.",
        body,
        _SAVED,
    )


def fill_kernel(f: Filter) -> Kernel:
    """(rows of bytes, first strip's row, rows, zero point): rows of W bytes into all strips, the sides padded."""
    pitch = 4 * f.strip_rows
    body = [
        f"movw r4, #{2 * pitch}", "movs r6, #0", "vidup.u32 q2, r6, #1", "vmul.i32 q2, q2, r4",
        f"movw r4, #{pitch}", "vadd.i32 q3, q2, r4", f"sub r0, r0, #{f.pad_left}", "dls lr, r2", "1:",
    ]  # fmt: skip
    for i in range(-(-f.strip_count // 8)):
        base = "r1"
        if i:
            base = "r6"
            body.append(f"addw r6, r1, #{8 * pitch * i}")
        body += [f"vldrb.8 q0, [r0, #{16 * i}]", f"vldrb.8 q1, [r0, #{16 * i + 2}]"]
        body += [f"vstrw.32 q0, [{base}, q2]"] + ([f"vstrw.32 q1, [{base}, q3]"] if f.strip_count > 8 * i + 1 else [])
    if f.pad_left:
        body.append("strb r3, [r1]")
    start = (f.strip_count - 1) * 2 - f.pad_left
    for lane in range(4 if f.stride == 1 else 3):
        if start + lane == f.in_w:
            at = (f.strip_count - 1) * pitch + lane
            body += [f"strb.w r3, [r1, #{at}]"] if at < 4096 else [f"movw r6, #{at}", "strb r3, [r1, r6]"]
    body += [f"adds r0, r0, #{f.in_w}", "adds r1, r1, #4", "le lr, 1b"]
    return assembly(
        f"edgeq_mve_strips_{f.in_h}_{f.in_w}_{f.out_h}_{f.out_w}_{f.stride}_{f.pad_left}",
        "const int8_t *rows, int8_t *strips, int32_t count, int32_t zero_point",
        f"Rows of {f.in_w} bytes into strips of 4 columns, {pitch} bytes apart.",
        body,
    )


def gather_kernel(pixel_bytes: int) -> Kernel:
    """(first pixel, output, pixels): one channel of an NHWC tensor as a run of bytes."""
    return assembly(
        f"edgeq_mve_gather_{pixel_bytes}",
        "const int8_t *pixels, int8_t *output, int32_t count",
        f"Every {pixel_bytes}th byte into a run of bytes, eight at a time.",
        ["movs r4, #0", f"movw r5, #{pixel_bytes}", "vidup.u16 q1, r4, #1", "vmul.i16 q1, q1, r5",
         f"movw r3, #{8 * pixel_bytes}",
         "dlstp.16 lr, r2", "1:", "vldrb.u16 q0, [r0, q1]", "vstrb.16 q0, [r1], #8", "add r0, r0, r3", "letp lr, 1b"],
    )  # fmt: skip
