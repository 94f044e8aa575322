"""Accumulators (int32, one channel, pixel after pixel) to int8: as a run of bytes, or scattered into NHWC.

Data. Parameters are four words a channel: bias, multiplier m, addend, 24 - e. Accumulators are read in blocks of 16
(or 8) beyond the count if need be; the driver's buffers have room for that.

Registers: r0 accumulators, r1 output, r4-r7 the parameters, q7 the multiplier in all lanes, q0-q3 the accumulators.

Run of bytes: VLD4 puts pixels 4i, 4i+1, 4i+2, 4i+3 into lane i of four registers. After requantization each word's
top byte is the result; three VSRI join them into 16 bytes in order: 21 instructions for 16 outputs (floor form).

Scatter: VLD2 splits even and odd pixels; after requantization a shift and VSRI leave halfwords in pixel order, and
one VSTRB.16 stores 8 bytes at 16-bit offsets: 13 instructions for 8 outputs. A remainder is stored under a predicate.

Obligations: those of common.tail.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeq.codegen.variants.mve.common import Kernel, Tail, assembly, either, requantize_lines

_START = ["ldm r2, {r4-r7}", "vdup.32 q7, r5"]
_SAVED = tuple(f"d{i}" for i in range(8, 16))


def run_of_bytes(end: Tail) -> Kernel:
    """(accumulators, output, parameters, blocks of 16)."""
    if end.form == "mixed":
        return either(end, run_of_bytes)
    result = (4, 5, 6, 7) if end.signed else (0, 1, 2, 3)
    a, b, c, d = (f"q{r}" for r in result)
    clamp_start = [f"mov r8, #{end.minimum & 255}", f"mov r9, #{end.maximum & 255}"] if end.clamped else []
    clamp = (
        [f"vdup.8 {a}, r8", f"vmax.s8 {d}, {d}, {a}", f"vdup.8 {a}, r9", f"vmin.s8 {d}, {d}, {a}"]
        if end.clamped
        else []
    )
    body = [
        *_START,
        *clamp_start,
        "dls lr, r3",
        "1:",
        *(f"vld4{i}.32 {{q0, q1, q2, q3}}, [r0]{'!' if i == 3 else ''}" for i in range(4)),
        *requantize_lines(end, (0, 1, 2, 3), result),
        f"vsri.32 {d}, {c}, #8",
        f"vsri.32 {b}, {a}, #8",
        f"vsri.32 {d}, {b}, #16",
        *clamp,
        f"vstrb.8 {d}, [r1], #16",
        "le lr, 1b",
    ]
    return assembly(
        f"edgeq_mve_bytes_{end.name}",
        "const int32_t *accumulators, int8_t *output, const int32_t *parameters, int32_t blocks",
        f"Requantize 16 accumulators of a channel at a time into a run of bytes; {end.name} form.",
        body,
        _SAVED,
    )


def _eight(end: Tail) -> list[str]:
    """Lines that leave 8 results as halfwords in the second of the registers; then that register's number."""
    result = (4, 5) if end.signed else (0, 1)
    a, b = (f"q{r}" for r in result)
    lines = ["vld20.32 {q0, q1}, [r0]", "vld21.32 {q0, q1}, [r0]!", *requantize_lines(end, (0, 1), result)]
    if not end.clamped:
        return [*lines, f"vshr.u32 {b}, {b}, #8", f"vsri.32 {b}, {a}, #24"]
    return [
        *lines, f"vsri.32 {b}, {a}, #16", f"vshr.s16 {b}, {b}, #8",
        f"vmax.s16 {b}, {b}, q2", f"vmin.s16 {b}, {b}, q6",
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Places:
    """Where accumulators go: output[offsets[i]] for 8 of them, then output += step.

    inner 0: the kernel's count is of accumulators. Else it is of groups of `inner` accumulators, `between` from one's
    start to the next's; from group to group the output advances by `apart`. lanes: of 8, those that are stored.
    label: for the kernel's name, unique for the rest.
    """

    label: str
    offsets: tuple[int, ...]
    step: int
    inner: int = 0
    between: int = 0
    apart: int = 0
    lanes: tuple[bool, ...] = (True,) * 8

    def mask(self, count: int = 8) -> int:
        """The predicate of the first `count` lanes: two bits for 16 of them."""
        return sum(3 << 2 * i for i, stored in enumerate(self.lanes[:count]) if stored)


def every(step: int) -> Places:
    """Every `step`-th byte."""
    return Places(f"by_{step}", tuple(i * step for i in range(8)), 8 * step)


def scatter(end: Tail, places: Places) -> Kernel:
    """(accumulators, output, parameters, count); see Places."""
    if end.form == "mixed":
        return either(end, lambda one: scatter(one, places))
    step, inner = places.step, places.inner
    stored = "q5" if end.signed else "q1"
    clamp = [
        line
        for value, vector in ((end.minimum, "q2"), (end.maximum, "q6"))
        for line in (f"mvn r9, #{~value}" if value < 0 else f"mov r9, #{value}", f"vdup.16 {vector}, r9")
    ]
    start = [
        *_START, *(clamp if end.clamped else []), "adr r12, 9f", "vldrh.u16 q3, [r12]",
        f"movw r8, #{step & 0xFFFF}", f"movt r8, #{step >> 16 & 0xFFFF}",
    ]  # fmt: skip
    masked = [*_eight(end), "vpst", f"vstrbt.16 {stored}, [r1, q3]"]
    block = [*_eight(end), f"vstrb.16 {stored}, [r1, q3]"] if all(places.lanes) else masked
    block = [*block, "add r1, r1, r8"]
    if inner == 0:
        body = [
            *start, "lsr r11, r3, #3", "wls lr, r11, 2f", "1:", *block, "le lr, 1b",
            "2:", "ands r3, r3, #7", "beq 3f", "vctp.16 r3", *masked, "3:",
        ]  # fmt: skip
    else:
        back, rest = places.apart - inner // 8 * step, inner % 8
        over = 4 * (inner // 8 * 8 + (8 if rest else 0) - places.between)
        body = [
            *start, f"movw r10, #{back & 0xFFFF}", f"movt r10, #{back >> 16 & 0xFFFF}", f"mov r11, #{inner // 8}",
            f"movw r9, #{places.mask()}", f"movw r12, #{places.mask(rest)}",
            "4:", *(["vmsr p0, r9", "dls lr, r11", "1:", *block, "le lr, 1b"] if inner >= 8 else []),
            *(["vmsr p0, r12", *masked] if rest else []), *([f"sub r0, r0, #{over}"] if over else []),
            "add r1, r1, r10", "subs r3, r3, #1", "bne 4b",
        ]  # fmt: skip
    table = ["9:", *(f".hword {o}" for o in places.offsets)]
    return assembly(
        f"edgeq_mve_scatter_{end.name}_{places.label}",
        "const int32_t *accumulators, int8_t *output, const int32_t *parameters, int32_t count",
        f"Requantize accumulators of a channel, eight at a time, into their places in a tensor; {end.name} form.",
        [*body, ".balign 4", *table],
        _SAVED,
    )
