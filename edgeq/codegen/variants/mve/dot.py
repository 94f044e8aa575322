"""Dot products of pixels with two output channels: the micro-kernel of 1x1 convolutions and of small filters.

Data. A pixel's activations are segments of bytes in memory, each covered by loads of 16 at fixed offsets from the
pixel's start; pixel p + 1 starts `pixel_bytes` further. Weights of a channel pair are packed in the order in which
the kernel loads them: [vectors that stay][vectors that stream, per offset: channel 0, channel 1]. Lanes beyond a
segment hold weight 0, so the bytes there do not matter; where an offset would reach beyond the pixel it is moved back
instead (`offsets`).

Registers: r0 r2 r4 / r6 r8 r10 sums of 3 pixels for channel 0 / 1; q0 activations; q1-q7 weights: all of them if
there are at most 7, else 5 that stay and two that stream (q6, q7). r1 weights, r3 r5 the channels' outputs, r7 r9 r11
pixels.

Loop, 3 pixels: for every offset and pixel one load and two VMLADAVA; the first of each sum is VMLADAV, so nothing is
zeroed. K = 64: 12 + 3 loads, 24 products, 2 STM, 1 ADD, LE: 43 instructions for 6 sums.

Narrow pixels (K = 8): one load holds two pixels, weight vectors are [w, 0] and [0, w]; 6 pixels of one channel at a
time.

Obligations: sums stay in int32 (accumulators_fit); the caller's remainder of pixels is at least one tile (overlapping
tiles).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.variants.mve.common import ACCUMULATORS, Kernel, assembly

_FIRST = ("r0", "r2", "r4")
_SECOND = ("r6", "r8", "r10")
_SAVED = tuple(f"d{i}" for i in range(8, 16))


def offsets(size: int) -> tuple[int, ...]:
    """Where 16-byte loads cover a run of size >= 16 bytes without reading beyond it; the last may overlap."""
    starts = list(range(0, size - 15, 16))
    if size % 16:
        starts.append(size - 16)
    return tuple(starts)


def vectors(run: NDArray[np.int8], starts: Sequence[int]) -> NDArray[np.int8]:
    """Weights [..., size] as [..., len(starts), 16]: each byte in the first load that covers it, zeros elsewhere."""
    size = run.shape[-1]
    out = np.zeros((*run.shape[:-1], len(starts), 16), np.int8)
    done = 0
    for i, start in enumerate(starts):
        stop = min(start + 16, size)
        out[..., i, done - start : stop - start] = run[..., done:stop]
        done = stop
    return out


class Cursor:
    """A pointer register inside a loop: emits an ADD only where an offset is out of an immediate's reach."""

    def __init__(self, register: str, wanted: Sequence[int]) -> None:
        self.register = register
        low, high = min(wanted), max(wanted)
        self.start = (low + high) // 2 if high - low <= 254 else low + 127
        self.position = self.start

    def at(self, offset: int) -> tuple[list[str], str]:
        lines = (
            [] if abs(offset - self.position) <= 127 else self.move(offset + (127 if offset > self.position else -127))
        )
        return lines, f"[{self.register}, #{offset - self.position}]"

    def move(self, position: int) -> list[str]:
        by = position - self.position
        self.position = position
        if by == 0:
            return []
        return [f"{'add' if by > 0 else 'sub'}w {self.register}, {self.register}, #{abs(by)}"]

    def advance(self, step: int) -> list[str]:
        """The end of a turn: back to the start, a step further."""
        lines = self.move(self.start + step)
        self.position = self.start
        return lines


def _split(count: int) -> tuple[int, int]:
    """How many of `count` weight vectors stay and how many stream."""
    return (count, 0) if count <= 7 else (5, count - 5)


def pack(weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """[channels, offsets, 16] as the kernel reads them; an odd channel gets a partner of zeros."""
    if len(weights) % 2:
        weights = np.concatenate([weights, np.zeros_like(weights[:1])])
    return np.ascontiguousarray(weights.reshape(-1, 2, *weights.shape[1:]).transpose(0, 2, 1, 3)).reshape(-1)


def _together(pixel_bytes: int) -> bool:
    """Whether one pointer reaches the same offset of 3 pixels."""
    return 2 * pixel_bytes <= 200


def _pointers(starts: Sequence[int], pixel_bytes: int) -> tuple[list[Cursor], list[tuple[Cursor, int]], list[str]]:
    """Cursors over the pixels, each of 3 pixels' cursor and base in it, and the lines that set them up from r0."""
    if _together(pixel_bytes):
        one = Cursor("r7", [s + p * pixel_bytes for s in starts for p in range(3)])
        return [one], [(one, p * pixel_bytes) for p in range(3)], [f"addw r7, r0, #{one.start}"]
    three = [Cursor(r, starts) for r in ("r7", "r9", "r11")]
    setup = [f"addw {c.register}, r0, #{c.start + p * pixel_bytes}" for p, c in enumerate(three)]
    return three, [(c, 0) for c in three], setup


def kernel(starts: Sequence[int], pixel_bytes: int) -> Kernel:
    """(pixels, weights of a pair, accumulators, tiles of 3 pixels)."""
    stay, stream = _split(2 * len(starts))
    cursors, pixels, setup = _pointers(starts, pixel_bytes)
    weights = Cursor("r1", range(0, 16 * max(stream, 1), 16))
    begin = [
        *setup, "dls lr, r3", "mov r3, r2", f"add r5, r2, #{4 * ACCUMULATORS}",
        *(f"vldrb.8 q{1 + i}, [r1], #16" for i in range(stay)), f"adds r1, r1, #{weights.start}",
    ]  # fmt: skip
    body: list[str] = []
    for i, start in enumerate(starts):
        registers = []
        for channel in range(2):
            index = 2 * i + channel
            registers.append(f"q{1 + index}" if index < stay else f"q{6 + channel}")
            if index >= stay:
                lines, address = weights.at(16 * (index - stay))
                body += [*lines, f"vldrb.8 {registers[-1]}, {address}"]
        for p, (cursor, base) in enumerate(pixels):
            lines, address = cursor.at(base + start)
            product = "vmladava.s8" if i else "vmladav.s8"
            body += [
                *lines, f"vldrb.8 q0, {address}",
                f"{product} {_FIRST[p]}, q0, {registers[0]}", f"{product} {_SECOND[p]}, q0, {registers[1]}",
            ]  # fmt: skip
    body += [f"stm r3!, {{{', '.join(_FIRST)}}}", f"stm r5!, {{{', '.join(_SECOND)}}}", *weights.advance(0)]
    for cursor in cursors:
        body += cursor.advance(3 * pixel_bytes)
    gap = starts[1] - starts[0] if len(starts) > 1 else 0
    last = starts[-1]
    return assembly(
        f"edgeq_mve_dot_{len(starts)}x{gap}_{last}_by_{pixel_bytes}",
        "const int8_t *pixels, const int8_t *weights, int32_t *accumulators, int32_t tiles",
        f"Sums of 3 pixels, {pixel_bytes} bytes apart, with two channels: {len(starts)} loads of 16 a pixel; {stay} "
        f"weight vectors stay in registers, {stream} stream.",
        [*begin, "1:", *body, "le lr, 1b"],
        _SAVED,
    )


def cost(starts: Sequence[int], pixel_bytes: int) -> float:
    """Instructions a sum."""
    _, stream = _split(2 * len(starts))
    span = max(starts) - min(starts)
    moves = 1 + (span + 2 * pixel_bytes) // 254 if _together(pixel_bytes) else 3 * (1 + span // 254)
    return (9 * len(starts) + stream + stream // 15 + moves + 3) / 6


def pack_narrow(weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """[channels, 8] as [w, 0], [0, w] for each channel."""
    count = len(weights) + len(weights) % 2
    out = np.zeros((count, 2, 16), np.int8)
    out[: len(weights), 0, :8] = out[: len(weights), 1, 8:] = weights
    return out.reshape(-1)


def narrow_kernel() -> Kernel:
    """K = 8: (pixels, weights of a pair, accumulators, tiles of 6 pixels)."""
    registers = ("r2", "r4", "r6", "r8", "r10", "r12")
    body = ["mov r5, r2", "mov r7, r3"]
    for channel in range(2):
        body += ["mov r9, r0", "vldrb.8 q1, [r1], #16", "vldrb.8 q2, [r1], #16", "dls lr, r7"]
        body += [f"add r11, r5, #{4 * ACCUMULATORS * channel}", f"{1 + channel}:"]
        for pair in range(3):
            a, b = registers[2 * pair : 2 * pair + 2]
            body += ["vldrb.8 q0, [r9], #16", f"vmladav.s8 {a}, q0, q1", f"vmladav.s8 {b}, q0, q2"]
        body += [f"stm r11!, {{{', '.join(registers)}}}", f"le lr, {1 + channel}b"]
    return assembly(
        "edgeq_mve_dot_8",
        "const int8_t *pixels, const int8_t *weights, int32_t *accumulators, int32_t tiles",
        "Sums of 6 pixels of 8 bytes with two channels, one after the other; a load holds two pixels.",
        body,
    )
