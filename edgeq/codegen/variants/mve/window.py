"""Sums of windows whose channels fill whole vectors: the micro-kernel of k x k convolutions with C a multiple of 16.

Data. Input rows lie padded in scratch, `pitch` bytes apart, C bytes a column. Weights of one output channel are
packed per (ky, vector v of 16 channels): kx = 0, 1, ...; those that stay first, then the others in that order.

Registers: r0 r2 r4 ... lr sums of up to 8 neighbouring outputs; q0 a column's 16 channels; the next filter_w
registers the streaming weights of (ky, v), the rest weights that stay. r1 columns, r3 weights, r5 sums out, r7 tiles,
r9 rows, r11 tiles a row.

Loop, 8 outputs: for each (ky, v) the weights that stream, then every column once: a column's vector meets all kx for
which it lies in an output's window, so 3x3 needs 10 loads for 24 products. C = 16: 30 + 5 loads, 72 products, 8
others: 14.4 an output.

Obligations: sums stay in int32; a row of outputs is a whole number of tiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.variants.mve.common import Kernel, assembly
from edgeq.codegen.variants.mve.dot import Cursor

_SUMS = ("r0", "r2", "r4", "r6", "r8", "r10", "r12", "lr")
_SAVED = tuple(f"d{i}" for i in range(8, 16))


@dataclass(frozen=True, slots=True)
class Window:
    """Filter, stride and channels of the padded input; out_w outputs a row in tiles."""

    filter_h: int
    filter_w: int
    channels: int
    stride: int
    stride_h: int
    pitch: int
    out_w: int

    @property
    def tile(self) -> int:
        """Outputs at a time; 0 where none divides the row."""
        return next((u for u in range(8, 2, -1) if self.out_w % u == 0), 0)

    @property
    def applies(self) -> bool:
        return self.channels % 16 == 0 and self.filter_w <= 5 and self.tile > 0

    @property
    def groups(self) -> list[tuple[int, int]]:
        return [(ky, v) for ky in range(self.filter_h) for v in range(self.channels // 16)]

    @property
    def staying(self) -> list[tuple[int, int]]:
        """(group, kx) of the weights that stay: of the last groups, so that streaming ones come first."""
        every = [(g, kx) for g in range(len(self.groups)) for kx in range(self.filter_w)]
        if len(every) <= 7:
            return every
        return every[len(every) - (7 - self.filter_w) :]

    @property
    def columns(self) -> int:
        """Columns that a tile meets."""
        return (self.tile - 1) * self.stride + self.filter_w

    @property
    def cost(self) -> float:
        """Instructions an output."""
        count = len(self.groups)
        loads = count * (self.columns + self.filter_w) - len(self.staying)
        return (loads + count * self.filter_w * self.tile + count + 5) / self.tile


def pack(w: Window, weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """Weights [channels, filter_h, filter_w, C] in reading order."""
    lanes = weights.reshape(len(weights), w.filter_h, w.filter_w, -1, 16).transpose(0, 1, 3, 2, 4)
    lanes = lanes.reshape(len(weights), len(w.groups), w.filter_w, 16)
    order = w.staying + [(g, kx) for g in range(len(w.groups)) for kx in range(w.filter_w) if (g, kx) not in w.staying]
    return np.ascontiguousarray(np.stack([lanes[:, g, kx] for g, kx in order], axis=1)).reshape(-1)


def kernel(w: Window) -> Kernel:
    """(first window's row, weights of a channel, accumulators, rows)."""
    staying = {place: i for i, place in enumerate(w.staying)}
    base = 1 if len(staying) == len(w.groups) * w.filter_w else 1 + w.filter_w
    streams = len(w.groups) * w.filter_w - len(staying)
    taps = Cursor("r3", range(0, 16 * max(streams, 1), 16))
    tiles, step, c = w.out_w // w.tile, w.tile * w.stride * w.channels, w.channels
    body: list[str] = []
    started: set[int] = set()
    post = (w.columns - 1) * c > 240
    centre = 0 if post else (w.columns - 1) * c // 2 // 16 * 16
    position, index = centre, 0
    for g, (ky, v) in enumerate(w.groups):
        start = ky * w.pitch + 16 * v + centre
        if start != position:
            by = start - position
            body.append(f"{'add' if by > 0 else 'sub'}w r1, r1, #{abs(by)}")
            position = start
        register = {}
        for kx in range(w.filter_w):
            if (g, kx) in staying:
                register[kx] = f"q{base + staying[g, kx]}"
                continue
            register[kx] = f"q{1 + kx}"
            lines, address = taps.at(16 * index)
            body += [*lines, f"vldrb.8 {register[kx]}, {address}"]
            index += 1
        for column in range(w.columns):
            if not post:
                body.append(f"vldrb.8 q0, [r1, #{column * c - centre}]")
            elif c <= 127:
                body.append(f"vldrb.8 q0, [r1], #{c}")
                position += c
            else:
                body += ["vldrb.8 q0, [r1]", f"addw r1, r1, #{c}"]
                position += c
            for p in range(w.tile):
                kx = column - p * w.stride
                if 0 <= kx < w.filter_w:
                    product = "vmladava.s8" if p in started else "vmladav.s8"
                    started.add(p)
                    body.append(f"{product} {_SUMS[p]}, q0, {register[kx]}")
    back = step - position + centre
    body += [*taps.advance(0), f"stm r5!, {{{', '.join(_SUMS[: w.tile])}}}"]
    if back:
        body.append(f"{'add' if back > 0 else 'sub'}w r1, r1, #{abs(back)}")
    row = w.stride_h * w.pitch - tiles * step
    lines = [
        *(f"vldrb.8 q{base + i}, [r1], #16" for i in range(len(staying))), f"add r5, r1, #{taps.start}", "mov r9, r3",
        "mov r3, r5", "mov r5, r2", f"addw r1, r0, #{centre}", f"movw r11, #{row & 0xFFFF}",
        f"movt r11, #{row >> 16 & 0xFFFF}", "2:", f"mov r7, #{tiles}", "1:", *body, "subs r7, r7, #1", "bne.w 1b",
        "add r1, r1, r11", "subs r9, r9, #1", "bne.w 2b",
    ]  # fmt: skip
    return assembly(
        f"edgeq_mve_window_{w.filter_h}x{w.filter_w}x{c}_{w.stride_h}{w.stride}_{w.pitch}_{w.out_w}",
        "const int8_t *rows, const int8_t *weights, int32_t *accumulators, int32_t count",
        f"Sums of rows of {w.out_w} windows {w.filter_h}x{w.filter_w}x{c}, stride {w.stride}, {w.tile} at a time; "
        f"{len(staying)} weight vectors stay, {streams} stream.",
        lines,
        _SAVED,
    )
