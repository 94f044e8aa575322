"""A stand-in for INA219 or INA226 on the virtual board's bus, after the data sheets' register maps; and that board.

    python ina_chip.py IMAGE.elf LINE KIND IDLE_AMPERES RUNNING_AMPERES SHUNT_OHM VOLTS

The board draws one current while it waits for a byte and the other while it executes. The chip converts on by itself:
a register holds the mean over the last whole conversion.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from edgeq.device.virtual.cortex_m4 import CortexM4
from edgeq.device.virtual.unicorn_process import SocketLine, connect, load_segments

ADDRESS = 0x45


class Current:
    """What flows, and the charge so far at every change."""

    def __init__(self, amperes: float) -> None:
        self.amperes = amperes
        self.changes = [(time.monotonic(), 0.0, amperes)]

    def set(self, amperes: float) -> None:
        if amperes != self.amperes:
            now = time.monotonic()
            self.changes.append((now, self.charge(now), amperes))
            self.amperes = amperes

    def charge(self, at: float) -> float:
        for since, charge, amperes in reversed(self.changes):
            if since <= at:
                return charge + amperes * (at - since)
        return 0.0


class Chip:
    """Pointer register, then sixteen bits, high byte first."""

    def __init__(self, kind: str, current: Current, shunt_ohm: float, volts: float) -> None:
        self.kind, self.current, self.shunt_ohm, self.volts = kind, current, shunt_ohm, volts
        self.pointer = 0
        self.pending = b""
        self.set_configuration(0x399F if kind == "ina219" else 0x4127)

    def set_configuration(self, value: int) -> None:
        if value & 0x8000:
            value = 0x399F if self.kind == "ina219" else 0x4127
        self.configuration, self.since = value, time.monotonic()

    def write(self, data: bytes) -> None:
        self.pointer, self.pending = data[0], b""
        if len(data) == 3 and self.pointer == 0:
            self.set_configuration(int.from_bytes(data[1:], "big"))

    def read(self) -> int:
        self.pending = self.pending or self.register().to_bytes(2, "big", signed=self.pointer == 1)
        byte, self.pending = self.pending[0], self.pending[1:]
        return byte

    def register(self) -> int:
        if self.pointer == 0:
            return self.configuration
        if self.pointer == 0xFE and self.kind == "ina226":
            return 0x5449
        mode = self.configuration & 7
        if self.pointer == 1 and mode & 0b101 == 0b101:
            step, limit = (10e-6, self.gain_volts()) if self.kind == "ina219" else (2.5e-6, 32_767 * 2.5e-6)
            volts = min(self.mean_amperes() * self.shunt_ohm, limit)
            return round(volts / step)
        if self.pointer == 2 and mode & 0b110 == 0b110:
            return round(self.volts / 4e-3) << 3 | 2 if self.kind == "ina219" else round(self.volts / 1.25e-3)
        return 0

    def gain_volts(self) -> float:
        return 0.04 * (1 << (self.configuration >> 11 & 3))

    def conversion_s(self) -> float:
        if self.kind == "ina219":
            code = self.configuration >> 3 & 15
            return 532e-6 * (1 << (code & 7)) if code & 8 else (84e-6, 148e-6, 276e-6, 532e-6)[code & 3]
        average = (1, 4, 16, 64, 128, 256, 512, 1024)[self.configuration >> 9 & 7]
        times_us = (140, 204, 332, 588, 1100, 2116, 4156, 8244)
        return average * times_us[self.configuration >> 3 & 7] * 1e-6

    def mean_amperes(self) -> float:
        length = self.conversion_s()
        whole = int((time.monotonic() - self.since) / length)
        if whole == 0:
            return 0.0
        end = self.since + whole * length
        return (self.current.charge(end) - self.current.charge(end - length)) / length


class DrawingLine(SocketLine):
    """The line whose waiting is the board's waiting."""

    current: Current
    idle_amperes: float
    running_amperes: float

    def waits(self) -> bool:
        if not self._received:
            self.current.set(self.idle_amperes)
        found = super().waits()
        self.current.set(self.running_amperes)
        return found


def main(image: str, line: str, kind: str, idle: str, running: str, shunt_ohm: str, volts: str) -> None:
    drawing = DrawingLine(connect(line))
    drawing.current = Current(float(idle))
    drawing.idle_amperes, drawing.running_amperes = float(idle), float(running)
    chip = Chip(kind, drawing.current, float(shunt_ohm), float(volts))
    CortexM4(load_segments(Path(image)), drawing, {ADDRESS: chip}).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
