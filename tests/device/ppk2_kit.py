"""A stand-in for Nordic's Power Profiler Kit II on a pty, after the protocol as Nordic's application speaks it."""

from __future__ import annotations

import os
import select
import struct
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

ADC_VOLTS = 1.8 / 163_840
CONSTANTS = {
    "R": (1003.3506, 101.5865, 10.3027, 0.9636, 0.0564),
    "GS": (0.0, 112.7890, 18.0115, 2.4217, 0.0729),
    "GI": (1.0, 0.9695, 0.9609, 0.9519, 0.9582),
    "O": (112.9420, 75.4627, 64.6020, 50.4983, 86.1417),
    "S": (0.0, 0.0, 0.0, 0.0, 0.0),
    "I": (-0.000000105, -0.000000948, 0.000026, -0.000067, 0.0023),
    "UG": (1.0, 1.0, 1.0, 1.0, 1.0),
}
"""Such as a kit tells of itself; S is 0 so that the inverse below needs no voltage."""
LIMITS_A = (50e-6, 500e-6, 5e-3, 60e-3)
"""Where the ranges end."""


def metadata() -> bytes:
    lines = ["Calibrated: 0"]
    lines += [f"{name}{i}: {value:.9f}" for name, row in CONSTANTS.items() for i, value in enumerate(row)]
    return "\n".join([*lines, "VDD: 3300", "HW: 9173", "mode: 2", "IA: 56", "END"]).encode("ascii") + b"\n"


def word(amperes: float, count: int) -> int:
    """A sample: the converter's value that stands for the current, found by halving, in the range that it needs."""
    at = sum(amperes > limit for limit in LIMITS_A)
    constant = {name: row[at] for name, row in CONSTANTS.items()}
    low, high = 0, (1 << 14) - 1
    while low < high:
        middle = (low + high) // 2
        plain = (4 * middle - constant["O"]) * ADC_VOLTS / constant["R"]
        high, low = (
            (middle, low)
            if plain * (constant["GS"] * plain + constant["GI"]) + constant["I"] >= amperes
            else (high, middle + 1)
        )
    return low | at << 14 | (count & 63) << 18


@dataclass
class Kit:
    """What the simulated kit sees; `amperes` may be changed while it samples, `drop` makes it lose every so manieth."""

    amperes: Callable[[], float] = lambda: 0.001
    mute: bool = False
    drop: int = 0
    commands: list[bytes] = field(default_factory=list)

    def serve(self, line: int, ended: threading.Event) -> None:
        started, sent = 0.0, 0
        lengths = {0x06: 1, 0x07: 1, 0x0C: 2, 0x0D: 3, 0x11: 2, 0x19: 1}
        pending = b""
        while not ended.is_set():
            ready, _, _ = select.select([line], [], [], 0.002)
            if ready:
                pending += os.read(line, 256)
            while pending and len(pending) >= lengths[pending[0]]:
                command, pending = pending[: lengths[pending[0]]], pending[lengths[pending[0]] :]
                self.commands.append(command)
                if command[0] == 0x19 and not self.mute:
                    os.write(line, metadata())
                elif command[0] == 0x06:
                    started, sent = time.monotonic(), 0
                elif command[0] == 0x07:
                    started = 0.0
            if started and not self.mute:
                due = int((time.monotonic() - started) * 100_000)
                value = word(self.amperes(), 0)
                samples = [
                    value | (count & 63) << 18 for count in range(sent, due) if not self.drop or count % self.drop
                ]
                sent = due
                data = struct.pack(f"<{len(samples)}I", *samples)
                while data:
                    data = data[os.write(line, data[:4096]) :]


@contextmanager
def ppk2(kit: Kit) -> Iterator[str]:
    """The kit's port."""
    master, slave = os.openpty()
    tty.setraw(slave)
    ended = threading.Event()
    thread = threading.Thread(target=kit.serve, args=(master, ended), daemon=True)
    thread.start()
    try:
        yield os.ttyname(slave)
    finally:
        ended.set()
        thread.join(2)
        os.close(master)
        os.close(slave)
