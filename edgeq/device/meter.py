"""Meters of the current that a board draws: Nordic's Power Profiler Kit II, by its serial protocol; others by `ina`.

The protocol as Nordic's own application speaks it (pc-nrfconnect-ppk, `serialDevice` and `constants`): commands of one
byte and arguments; calibration as lines of text up to END; then 100,000 samples a second of 32 bits, little-endian: the
converter's value in bits 0-13, the range in 14-16, a counter of samples in 18-23, logic inputs in 24-31.
"""

from __future__ import annotations

import math
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from edgeq.device.ina import KINDS, InaMeter, ina_meter
from edgeq.device.ports import Transport, open_port
from edgeq.errors import DeviceError, LinkError, UsageError

_T = TypeVar("_T")
_USB_ID = (0x1915, 0xC00A)
_RATE_HZ = 100_000
_RANGES = 5
_ADC_VOLTS = 1.8 / 163_840
_SETTLING_SAMPLES = 3
"""Behind a change of range, which Nordic's application smooths away; here they are left out of the mean."""
_ANSWER_S = 3.0
_MARGIN_S = 0.1
"""Before and behind what is measured, for samples that are still on their way."""
_DEFAULTS = {
    "R": (1031.64, 101.65, 10.15, 0.94, 0.043),
    **dict.fromkeys(("GS", "GI", "UG"), (1.0,) * _RANGES),
    **dict.fromkeys(("O", "S", "I"), (0.0,) * _RANGES),
}
SUPPLY_MV = (800, 5000)
"""What the kit can be connected to, lowest and highest, in millivolts."""

_AVERAGE_START, _AVERAGE_STOP, _DEVICE_RUNNING, _REGULATOR, _POWER_MODE, _METADATA = 0x06, 0x07, 0x0C, 0x0D, 0x11, 0x19


@dataclass(frozen=True, slots=True)
class Window:
    """What was measured while something was done: the mean current and for how long, margins included.

    lost: samples that the counter says did not arrive; they are in `seconds`, not in the mean.
    """

    amperes: float
    seconds: float
    samples: int
    lost: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """The kit's own constants, by range: resistance, gains, offsets."""

    rows: dict[str, tuple[float, ...]]

    @classmethod
    def parse(cls, text: str) -> Calibration:
        """From GET_META_DATA's lines `NAMEn: value`; what is missing, zero or no number has Nordic's default."""
        told: dict[str, float] = {}
        for line in text.splitlines():
            name, _, value = line.partition(":")
            try:
                told[name.strip()] = float(value)
            except ValueError:
                continue

        def one(name: str, index: int) -> float:
            value = told.get(f"{name}{index}", 0.0)
            return value if value and math.isfinite(value) else _DEFAULTS[name][index]

        return cls({name: tuple(one(name, index) for index in range(_RANGES)) for name in _DEFAULTS})

    def amperes(self, value: Any, range_: Any, supply_mv: int) -> Any:
        """The current of converter values (arrays, as sent: 14 bits) in their ranges."""
        import numpy as np

        row = {name: np.array(values)[range_] for name, values in self.rows.items()}
        plain = (value * 4.0 - row["O"]) * (_ADC_VOLTS / row["R"])
        return row["UG"] * (plain * (row["GS"] * plain + row["GI"]) + row["S"] * supply_mv / 1000 + row["I"])


class Ppk2:
    """The kit as an ampere meter in the supply of a board, whose voltage it does not know: `supply_mv` is given.

    It never feeds the board. Not for several threads.
    """

    name = "Nordic PPK2"

    def __init__(self, transport: Transport, supply_mv: int) -> None:
        self.supply_mv = supply_mv
        self._transport = transport
        self._stop()
        self._send(_METADATA)
        self._calibration = Calibration.parse(self._metadata())
        self._send(_POWER_MODE, 1)
        self._send(_REGULATOR, *struct.pack(">H", supply_mv))
        self._send(_DEVICE_RUNNING, 1)

    def measure(self, act: Callable[[], _T]) -> tuple[_T, Window]:
        """What `act` returns, and the current while it went on. DeviceError `meter-silent`; LinkError `port-lost`."""
        chunks: list[bytes] = []
        failures: list[LinkError] = []
        ended = threading.Event()

        def collect() -> None:
            try:
                while not ended.is_set():
                    chunks.append(self._transport.read(0.05))
            except LinkError as error:
                failures.append(error)

        self._send(_AVERAGE_START)
        collector = threading.Thread(target=collect, daemon=True)
        collector.start()
        try:
            time.sleep(_MARGIN_S)
            result = act()
            time.sleep(_MARGIN_S)
        finally:
            ended.set()
            collector.join()
            self._stop()
        if failures:
            raise failures[0]
        return result, self._window(b"".join(chunks))

    def close(self) -> None:
        """Let the port go; the board stays supplied."""
        self._transport.close()

    def _window(self, data: bytes) -> Window:
        import numpy as np

        words = np.frombuffer(data[: len(data) // 4 * 4], "<u4")
        if len(words) < 2:
            raise self._silent("No samples came.")
        ranges = np.minimum(words >> 14 & 7, _RANGES - 1)
        steps = np.diff(words >> 18 & 63) & 63
        lost = int(((steps - 1) & 63).sum())
        trusted = np.ones(len(words), bool)
        for change in np.flatnonzero(np.diff(ranges)) + 1:
            trusted[change : change + _SETTLING_SAMPLES] = False
        if not trusted.any():
            raise self._silent("Its range changes with every sample.")
        amperes = self._calibration.amperes((words & 0x3FFF)[trusted], ranges[trusted], self.supply_mv)
        return Window(float(amperes.mean()), (len(words) + lost) / _RATE_HZ, len(words), lost)

    def _metadata(self) -> str:
        text, deadline = b"", time.monotonic() + _ANSWER_S
        while b"END" not in text:
            if time.monotonic() > deadline:
                raise self._silent("It sent no calibration.")
            text += self._transport.read(0.1)
        return text.decode("ascii", errors="replace")

    def _silent(self, why: str) -> DeviceError:
        return DeviceError(
            "meter-silent",
            f"The meter at {self._transport.name} does not answer as a {self.name} does.",
            where=self._transport.name,
            why=why,
            try_=("Check the port: edgeq devices", "Unplug the kit and plug it in again; close Nordic's application."),
        )

    def _stop(self) -> None:
        """End sampling and drop what is still on its way, so that the next sample begins with its first byte."""
        self._send(_AVERAGE_STOP)
        deadline = time.monotonic() + _ANSWER_S
        while self._transport.read(0.1) and time.monotonic() < deadline:
            pass

    def _send(self, *command: int) -> None:
        self._transport.write(bytes(command))


@contextmanager
def open_meter(what: str, supply_mv: int | None, shunt_ohm: float | None) -> Iterator[Ppk2 | InaMeter | None]:
    """The meter that `what` names: `none`, `ppk2`, `ppk2:PORT`, `ina219`, `ina226` or with an address, `ina219:0x41`.

    UsageError `meter-unknown`, `supply-missing`, `supply-range`, and those of `ina_meter`; LinkError `meter-missing`,
    `meter-ambiguous`, and those of `open_port`.
    """
    kind, _, port = what.partition(":")
    if kind in KINDS:
        yield ina_meter(kind, port, shunt_ohm)
        return
    if what == "none":
        yield None
        return
    if kind != "ppk2":
        raise UsageError(
            "meter-unknown",
            f"{what} is no meter.",
            where="--meter",
            try_="--meter none, ppk2, ppk2:PORT, ina219 or ina226",
        )
    if supply_mv is None:
        raise UsageError(
            "supply-missing",
            "The meter measures the current alone.",
            where="--supply-mv",
            try_="Say what feeds the board, in millivolts: --supply-mv 3300",
        )
    if not SUPPLY_MV[0] <= supply_mv <= SUPPLY_MV[1]:
        raise UsageError(
            "supply-range",
            f"{supply_mv} mV is not what the kit may be connected to.",
            where="--supply-mv",
            try_=f"From {SUPPLY_MV[0]} to {SUPPLY_MV[1]}.",
        )
    transport = open_port(port or _find())
    try:
        yield Ppk2(transport, supply_mv)
    finally:
        transport.close()


def _find() -> str:
    from serial.tools.list_ports import comports

    found = sorted(entry.device for entry in comports() if (entry.vid, entry.pid) == _USB_ID)
    if len(found) == 1:
        return str(found[0])
    if found:
        raise LinkError(
            "meter-ambiguous",
            f"{len(found)} ports may be the {Ppk2.name}.",
            where=", ".join(found),
            try_=[f"Choose one: --meter ppk2:{port}" for port in found],
        )
    raise LinkError(
        "meter-missing",
        f"No port of this computer is a {Ppk2.name}.",
        where="--meter",
        why=f"Its USB id is {_USB_ID[0]:04x}:{_USB_ID[1]:04x}.",
        try_=("Check its cable.", "Name the port: --meter ppk2:PORT"),
    )
