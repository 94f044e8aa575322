"""Compilers: which there are, which one builds for a board, how it is called."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from typing import Literal

from edgeq.boards.profile import Board
from edgeq.errors import BoardError, ToolError

Kind = Literal["gcc", "clang", "zig"]

VERSION_TIMEOUT_S = 60
"""The first call of zig unpacks nothing but may wait for a slow disk."""


@dataclass(frozen=True, slots=True)
class Compiler:
    """A C compiler that can build for one board: command line, version, the board's target flags."""

    name: str
    kind: Kind
    command: tuple[str, ...]
    version: str
    target_flags: tuple[str, ...]


def find_compiler(board: Board, prefer: str | None = None) -> Compiler:
    """The compiler for `board`: its gcc if installed, else zig. `prefer`: only this kind ("gcc", "clang", "zig").

    BoardError `board-runs-no-firmware` for a board without [firmware]; ToolError `compiler-not-found`.
    """
    firmware = board.firmware
    if firmware is None:
        raise BoardError(
            "board-runs-no-firmware",
            f"There is no EdgeQ firmware for {board.name}.",
            where=board.id,
            why=f"No port under firmware/ports/ is for its core ({board.core.architecture}).",
            try_=(
                f"Build the C into firmware of your own: edgeq bundle MODEL.tflite --board {board.id} -o DIR",
                "Choose another microcontroller board: edgeq boards list",
            ),
        )
    for kind, program in _candidates(firmware.gcc_prefix):
        command = _command(kind, program)
        if command is not None and prefer in (None, kind):
            flags = firmware.zig_flags if kind == "zig" else firmware.gcc_flags
            found, version = _identity(kind, command)
            if prefer in (None, found):
                return Compiler(program, found, command, version, flags)
    raise _not_found(board, firmware.gcc_prefix, prefer)


def _candidates(prefix: str) -> tuple[tuple[Kind, str], ...]:
    if prefix:
        return (("gcc", f"{prefix}gcc"), ("zig", "zig"))
    return (("gcc", "cc"), ("gcc", "gcc"), ("clang", "clang"), ("zig", "zig"))


def _command(kind: Kind, program: str) -> tuple[str, ...] | None:
    if kind == "zig" and importlib.util.find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang", "cc")
    path = shutil.which(program)
    if path is None:
        return None
    return (path, "cc") if kind == "zig" else (path,)


@cache
def _identity(kind: Kind, command: tuple[str, ...]) -> tuple[Kind, str]:
    """What the program says it is (macOS has a clang by the name of gcc), and its version."""
    arguments = (*command[:-1], "version") if kind == "zig" else (*command, "--version")
    try:
        answer = subprocess.run(arguments, capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise ToolError(
            "compiler-broken",
            f"{command[0]} does not tell its version.",
            where=" ".join(arguments),
            why=str(error),
            try_="Reinstall the compiler, or take it off the PATH.",
        ) from error
    first = answer.stdout.splitlines()[0].strip() if answer.stdout else "unknown"
    return ("clang" if kind == "gcc" and "clang" in first else kind), first


def _not_found(board: Board, prefix: str, prefer: str | None) -> ToolError:
    zig = "Install zig as a Python package: pip install 'edgeq[mcu]'"
    if prefix == "arm-none-eabi-":
        native = "Install the Arm compiler: apt install gcc-arm-none-eabi, or brew install arm-none-eabi-gcc"
    elif prefix:
        native = f"Install {prefix}gcc and put it on the PATH."
    else:
        native = "Install a C compiler: apt install gcc, or xcode-select --install"
    return ToolError(
        "compiler-not-found",
        f"There is no C compiler for {board.name}.",
        where=board.id,
        why=f"Neither {prefix}gcc nor zig is installed."
        if prefer is None
        else f"{prefer} for this board is not installed.",
        try_=(zig, native),
    )
