"""What executed instructions are for, and how many cycles a Cortex-M4 would take for them: an estimate.

Timing model: Cortex-M4 Technical Reference Manual (Arm 100166), chapter 3.3, zero wait states, no bus contention:

- one cycle: data processing, multiplies and multiply-accumulates, also the long and the DSP ones; SDIV and UDIV: 12,
  the worst of 2..12;
- a load of one register: 2, but 1 where the instruction before is also such a load whose result is not its address;
  a store of one register: 1 with an immediate offset (write buffer), else 2, 1 behind a load;
- LDRD, STRD, LDM, STM, PUSH, POP, VLDM, VSTM of N words: 1 + N;
- control that leaves the line: P = 2 cycles more (the manual says 1 to 3, by alignment and width of the target);
- floating point: VDIV and VSQRT 14, VFMA and VMLA 3, all other 1.

How often control leaves the line, and how often each instruction runs, is counted; nothing else is measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from counter import Executed

REFILL_CYCLES = 2

_LAYOUT_FUNCTION = re.compile(r"expand(?!ed)|unpack|pack_|planes?_|pad_|transpose|memcpy|memset|memmove|copy")
_CLASS_OF = [
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("branches", r"(b|bl|bx|blx|cbn?z|tb[bh]|le|letp|wls|dls|it[te]*|vps?t\w*)( |$)"),
        ("branches", r"b(eq|ne|cs|cc|hs|lo|mi|pl|vs|vc|hi|ls|ge|lt|gt|le)( |$)"),
        ("loads", r"ldr|ldm|vld|pop|ldc"),
        ("stores", r"str|stm|vst|push|stc"),
        ("layout", r"[su]xt|pkh|rev|vmov[ln]|vrev|vsri|vsli"),
        ("MACs", r"cdp2? +\d+, 15,"),
        (
            "requantization",
            r"cdp|smml|smmu|smull|smlal |umull|umlal|smlaw|smulw|[su]sat|vq|vrsh|vshl|vmin|vmax|vr?mulh",
        ),
        ("MACs", r"smla|smua|smul|mla|mls|mul|vmla|vmul|vfma|vrmlal"),
        ("arithmetic", ""),
    )
]
"""The first that matches mnemonic and operands. binutils names most of MVE by the coprocessor instructions of the same
encoding: LDC and STC are VLDR and VSTR, CDP with operation 15 is VMLADAV or VADDV, other CDP are arithmetic on
vectors, nearly all of it requantization."""
CLASSES = ("MACs", "loads", "stores", "requantization", "layout", "branches", "arithmetic")
"""In which `shares` counts. layout: functions that only move data, and widening in kernels; arithmetic: addresses,
counters, and what no other class claims. Where a core multiplies one way only, requantization's count as MACs."""


def plain(mnemonic: str) -> str:
    """Without the encoding's width."""
    return mnemonic.removesuffix(".n").removesuffix(".w")


def class_of(one: Executed) -> str:
    """The class of an instruction: by its function where that only moves data, else by its mnemonic."""
    if _LAYOUT_FUNCTION.search(one.function):
        return "layout"
    text = f"{plain(one.mnemonic)} {one.operands}"
    return next(kind for kind, pattern in _CLASS_OF if pattern.match(text))


def shares(executed: Iterable[Executed]) -> dict[str, int]:
    """Executed instructions by class."""
    found = dict.fromkeys(CLASSES, 0)
    for one in executed:
        found[class_of(one)] += one.count
    return found


def functions(executed: Iterable[Executed]) -> dict[str, int]:
    """Executed instructions by function, most first."""
    found: dict[str, int] = {}
    for one in executed:
        found[one.function] = found.get(one.function, 0) + one.count
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _registers(text: str) -> int:
    """How many registers a list in braces names."""
    total = 0
    for part in text[text.index("{") + 1 : text.index("}")].split(","):
        numbers = [int(n) for n in re.findall(r"\d+", part)]
        total += numbers[1] - numbers[0] + 1 if "-" in part and len(numbers) == 2 else 1
    return total


def _is_single_load(one: Executed) -> bool:
    return plain(one.mnemonic) in {"ldr", "ldrb", "ldrh", "ldrsb", "ldrsh", "vldr"}


def _behind_load(before: Executed, one: Executed) -> bool:
    """Whether the access can be pipelined: a load is next to it in the line, whose result is not its address."""
    if before.address + before.size != one.address or not _is_single_load(before):
        return False
    result = before.operands.split(",")[0].strip()
    _, _, address = one.operands.partition("[")
    return not re.search(rf"\b{re.escape(result)}\b", address)


_ONE_CYCLE = 1
_CYCLES = ((re.compile(r"[su]div"), 12), (re.compile(r"vdiv|vsqrt"), 14), (re.compile(r"vf?n?m[la][as]"), 3))
_MANY = re.compile(r"(ldm|stm|push|pop|vldm|vstm|vpush|vpop)")


def _cycles_of_one(before: Executed | None, one: Executed) -> int:
    """Cycles of all executions together, without refills."""
    name, count = plain(one.mnemonic), one.count
    if name.startswith(("ldrd", "strd")):
        return 3 * count
    if _MANY.match(name):
        return (1 + _registers(one.operands)) * count
    if name.startswith(("ldr", "vldr")) or (name.startswith("str") and re.search(r"\[[^\]]*,\s*r", one.operands)):
        pipelined = min(before.count - before.taken, count) if before is not None and _behind_load(before, one) else 0
        return 2 * count - pipelined
    return next((cycles for pattern, cycles in _CYCLES if pattern.match(name)), _ONE_CYCLE) * count


def cortex_m4_cycles(executed: Sequence[Executed]) -> int:
    """Estimated cycles of the executed instructions, which are in order of address."""
    rows: list[tuple[Executed | None, Executed]] = [(None, executed[0]), *pairwise(executed)] if executed else []
    return round(sum(_cycles_of_one(before, one) + REFILL_CYCLES * one.taken for before, one in rows))
