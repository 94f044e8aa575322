"""Bytes of code, read off a compile plan: kernels from a table, what variants emit from its text.

Emitted assembly is counted instruction by instruction (within 2 % of what gcc's assembler makes of it); emitted C,
which only calls such code in loops, by its length. Both were compared with images linked by gcc 12 for M4 and M55.
"""

from __future__ import annotations

import json
import re
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from edgeq.boards.profile import Board
from edgeq.codegen.step import Step

MODEL_CODE_BYTES = 60
STEP_CODE_BYTES = 44
"""The model's own functions; each step's call and its arguments there."""
C_BYTES = {True: (0.252, -52.0), False: (0.217, -27.0)}
"""On ARMv6-M or not: bytes a character of an emitted C function's text, and beside; fitted over 186 functions."""

_LIKE = {"cortex-m0": "cortex-m0plus", "cortex-m23": "cortex-m0plus", "cortex-m85": "cortex-m55", "esp32c3": "rv32imc"}
_STRING = re.compile(r'^\s*"(.*?)(?:\\n)?"[);]*$')
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_PROTOTYPE = re.compile(r"^\w[^;{]*\);$")
_ADDED = re.compile(r"(r\d+|lr), \1, (?:r\d+|lr)|sp, sp, #\d+")
_NEAR = re.compile(r"r[0-7], \[(?:sp|r[0-7])(?:, #\d+)?\]")
_HIGH = re.compile(r"\b(?:r8|r9|r1[0-2]|lr|sp)\b")
_NARROW = frozenset(
    (
        *("adds", "ands", "asrs", "b", "bcc", "bcs", "beq", "bge", "bgt", "bhi", "bics", "ble", "blt", "bmi", "bne"),
        *("bpl", "bx", "cbnz", "cbz", "cmp", "it", "lsls", "lsrs", "mov", "movs", "muls", "nop", "orrs", "pop", "push"),
        *("subs", "sxtb", "uxtb"),
    )
)
"""Instructions that Thumb encodes in 2 bytes if their registers are low (`mov` and `bx` with any)."""
_ARMV6M = ("cortex-m0", "cortex-m0plus", "cortex-m1", "cortex-m23")
"""Cores on which every instruction takes 2 bytes but BL."""


AGENT_CODE_BYTES, AGENT_CODE_BYTES_ARMV6M, USB_CODE_BYTES = 7_200, 8_110, 3_870
"""Agent with a port that is not in the table: the middle of those that are; what a serial port over USB adds."""


@cache
def _table() -> dict[str, Any]:
    """`bytes`: core -> kernel's file -> bytes; `agent`: port -> bytes, as `benchmarks/code_sizes.py` wrote them."""
    table: dict[str, Any] = json.loads(Path(__file__).with_name("code_sizes.json").read_text(encoding="utf-8"))
    return table


def agent_key(board: Board) -> str:
    """What the agent's size depends on: port, line and core."""
    firmware = board.firmware
    return f"{firmware.port} {firmware.serial} {board.core.name}" if firmware is not None else ""


def agent_code_bytes(board: Board) -> int:
    """Code and constants of the agent with a board's port, as gcc links it."""
    known: dict[str, int] = _table().get("agent", {})
    if (key := agent_key(board)) in known:
        return known[key]
    usb = USB_CODE_BYTES if board.firmware is not None and board.firmware.serial == "usb" else 0
    return usb + (AGENT_CODE_BYTES_ARMV6M if board.core.architecture == "armv6-m" else AGENT_CODE_BYTES)


def code_bytes(steps: tuple[Step, ...], core: str) -> tuple[float, str]:
    """Bytes of the model's code and where they come from. A core that is not in the table is taken as a Cortex-M3."""
    kernel_sizes: dict[str, dict[str, int]] = _table()["bytes"]
    known = kernel_sizes.get(_LIKE.get(core, core))
    sizes = known or kernel_sizes["cortex-m3"]
    emitted = {source.stem: source.text for step in steps for source in step.emitted}
    kernels = {source for step in steps for source in step.sources}
    rest = {step.kernel: step.code_bytes for step in steps if not step.emitted and not {*step.sources} <= sizes.keys()}
    total = (
        MODEL_CODE_BYTES
        + STEP_CODE_BYTES * len(steps)
        + sum(emitted_bytes(text, core in _ARMV6M) for text in emitted.values())
        + sum(sizes.get(kernel, 0) for kernel in kernels)
        + sum(rest.values())
    )
    return total, "kernels as gcc compiles them" if known else "kernels as gcc compiles them for a Cortex-M3"


@lru_cache(maxsize=1024)
def emitted_bytes(text: str, armv6m: bool = False) -> float:
    """Bytes of one emitted source: its assembly's instructions and its C functions."""
    assembly: list[str] = []
    c: list[str] = []
    inside = False
    for line in _COMMENT.sub("", text).splitlines():
        inside = inside or line.lstrip().startswith("__asm__")
        if inside:
            string = _STRING.match(line)
            if string:
                assembly.append(string[1].strip())
            inside = not line.rstrip().endswith(");")
        elif not line.startswith("#") and not _PROTOTYPE.match(line):
            c.append(line)
    length = len("\n".join(c).strip())
    per_character, beside = C_BYTES[armv6m]
    return _assembly_bytes(assembly, armv6m) + (max(16.0, per_character * length + beside) if length else 0.0)


def _assembly_bytes(lines: list[str], armv6m: bool) -> int:
    total = 0
    repeats = [1]
    for line in lines:
        word, _, operands = line.partition(" ")
        if word == ".rept":
            repeats.append(repeats[-1] * int(operands, 0))
        elif word == ".endr":
            repeats.pop()
        elif word in (".hword", ".short", ".word"):
            total += (4 if word == ".word" else 2) * (operands.count(",") + 1) * repeats[-1]
        elif word and not word.startswith((".", "@", "//")) and not line.endswith(":"):
            total += (2 if (armv6m and word != "bl") or _is_narrow(word, operands) else 4) * repeats[-1]
    return total


@lru_cache(maxsize=4096)
def _is_narrow(word: str, operands: str) -> bool:
    """Whether Thumb-2 encodes an instruction in 2 bytes. Kernels repeat the same few instructions."""
    if word in ("mov", "bx", "cmp"):
        return "#" not in operands or not _HIGH.search(operands)
    if word in ("ldm", "stm"):
        return "!" in operands and not _HIGH.search(operands)
    if word == "add":
        return _ADDED.fullmatch(operands) is not None
    if word in ("ldr", "str"):
        return _NEAR.fullmatch(operands) is not None
    return word in _NARROW and not _HIGH.search(operands)
