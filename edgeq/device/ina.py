"""Current sensors INA219 and INA226 of Texas Instruments on the board's own I2C bus, read through the agent.

A core that runs the model cannot sample. The sensor can: it converts and averages on by itself, and the agent reads it
as soon as the last run has ended, so that the mean that it holds lies within runs that lasted two of its windows.

The current is the shunt's voltage by its resistance; the sensors' own current register is that same value times
CALIBRATION, rounded (Texas Instruments' data sheets SBOS448 and SBOS547, "Programming the Calibration Register"), so
CALIBRATION is left alone. Steps, codes and conversion times are those of the same sheets.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from edgeq.device.messages import Capability, Sample
from edgeq.device.session import Session
from edgeq.errors import DeviceError, UsageError

_CONFIGURATION, _SHUNT, _BUS, _MANUFACTURER = 0x00, 0x01, 0x02, 0xFE
_RESET = 0x8000
_SLOWEST = 1.1
"""The longest conversion over the typical one: 586 us to 532 us, 1.21 ms to 1.1 ms."""
DEFAULT_ADDRESS = 0x40


@dataclass(frozen=True, slots=True)
class SensorKind:
    """A sensor's registers as its data sheet has them.

    reset_value: of the configuration register. shunt_volts, bus_volts: a step; bus_shift: unused bits below it.
    full_scale: highest magnitude of the shunt register. manufacturer: of register 0xFE, None where there is none.
    windows: typical seconds of an averaged conversion of the shunt, with the configuration for it (continuous), from
    short to long; bus: the same for the bus voltage, the longest.
    """

    name: str
    reset_value: int
    shunt_volts: float
    bus_volts: float
    bus_shift: int
    full_scale: int
    manufacturer: int | None
    windows: tuple[tuple[float, int], ...]
    bus: tuple[float, int]


_INA219_RANGES = 0x2000 | 0x1800
"""32 V, and 320 mV across the shunt."""
KINDS = {
    "ina219": SensorKind(
        "INA219",
        reset_value=0x399F,
        shunt_volts=10e-6,
        bus_volts=4e-3,
        bus_shift=3,
        full_scale=32_000,
        manufacturer=None,
        windows=tuple(
            (seconds, _INA219_RANGES | adc << 3 | 0b101)
            for seconds, adc in ((532e-6, 8), (2.13e-3, 10), (8.51e-3, 12), (34.05e-3, 14), (68.1e-3, 15))
        ),
        bus=(68.1e-3, _INA219_RANGES | 15 << 7 | 0b110),
    ),
    "ina226": SensorKind(
        "INA226",
        reset_value=0x4127,
        shunt_volts=2.5e-6,
        bus_volts=1.25e-3,
        bus_shift=0,
        full_scale=32_767,
        manufacturer=0x5449,
        windows=tuple(
            (seconds, 0x4000 | average << 9 | conversion << 3 | 0b101)
            for seconds, average, conversion in (
                (140e-6, 0, 0),
                (1.1e-3, 0, 4),
                (4.4e-3, 1, 4),
                (17.6e-3, 2, 4),
                (70.4e-3, 3, 4),
                (140.8e-3, 4, 4),
            )
        ),
        bus=(70.4e-3, 0x4000 | 3 << 9 | 4 << 6 | 0b110),
    ),
}


@dataclass(frozen=True, slots=True)
class InaMeter:
    """Which sensor sits in the board's supply: its kind, address (7 bits) and shunt in ohms."""

    kind: SensorKind
    address: int
    shunt_ohm: float

    @property
    def name(self) -> str:
        return f"{self.kind.name}, {self.shunt_ohm:g} ohm"

    def window_within(self, seconds: float) -> float | None:
        """The longest window that lies wholly within `seconds` wherever they begin; None if none does."""
        fitting = [typical for typical, _ in self.kind.windows if 2 * _SLOWEST * typical <= seconds]
        return max(fitting, default=None)


class InaSensor:
    """The sensor behind an open session. DeviceError `meter-missing`, `meter-range`, `i2c-failed`."""

    def __init__(self, meter: InaMeter, session: Session) -> None:
        if Capability.I2C not in session.info.capabilities:
            raise DeviceError(
                "meter-missing",
                f"The agent on {session.info.board} has no I2C bus for the {meter.kind.name}.",
                where="--meter",
                try_="Measure with a Power Profiler Kit: --meter ppk2 --supply-mv 3300",
            )
        self.meter, self._session = meter, session
        self._write(_CONFIGURATION, _RESET)
        found = self._read(_CONFIGURATION)
        maker = None if meter.kind.manufacturer is None else self._read(_MANUFACTURER)
        if (found, maker) != (meter.kind.reset_value, meter.kind.manufacturer):
            raise DeviceError(
                "meter-missing",
                f"What answers at address {meter.address:#04x} of the board's bus is no {meter.kind.name}.",
                where="--meter",
                why=f"Its configuration register is {found:#06x} after a reset, not {meter.kind.reset_value:#06x}.",
                try_=(
                    "Name the other kind: --meter " + " or ".join(KINDS),
                    "Name its address: --meter ina219:0x41",
                ),
            )

    def volts(self) -> float:
        """The supply behind the shunt, a mean of the waiting board's."""
        seconds, configuration = self.meter.kind.bus
        self._write(_CONFIGURATION, configuration)
        time.sleep(2 * _SLOWEST * seconds)
        volts = (self._read(_BUS) >> self.meter.kind.bus_shift) * self.meter.kind.bus_volts
        if volts == 0:
            raise DeviceError(
                "meter-range",
                f"The {self.meter.kind.name} sees no supply voltage.",
                where="--meter",
                try_="Wire its voltage input (VIN- of INA219, VBUS of INA226) to the board's supply pin.",
            )
        return volts

    def average_over(self, window_s: float) -> None:
        """From now on each shunt reading is the mean of `window_s`, one of the kind's windows."""
        self._write(_CONFIGURATION, dict(self.meter.kind.windows)[window_s])

    def waiting_amperes(self, window_s: float, windows: int) -> float:
        """Mean current of the waiting board, over so many windows; `average_over` came first."""
        readings = []
        for _ in range(windows):
            time.sleep(2 * _SLOWEST * window_s)
            readings.append(self._amperes(self._session.i2c(self.meter.address, bytes([_SHUNT]), 2)))
        return statistics.fmean(readings)

    def running_amperes(self, runs: int) -> float:
        """Mean current of the last window while the model ran `runs` times in one request."""
        sample = Sample(self.meter.address, _SHUNT)
        return self._amperes(self._session.run(runs, sample=sample).sample)

    def _amperes(self, register: bytes) -> float:
        value = int.from_bytes(register, "big", signed=True)
        if abs(value) >= self.meter.kind.full_scale:
            raise DeviceError(
                "meter-range",
                f"The current is more than the {self.meter.kind.name} can measure across {self.meter.shunt_ohm:g} ohm.",
                where="--shunt-ohm",
                why=f"At most {self.meter.kind.full_scale * self.meter.kind.shunt_volts * 1e3:.2f} mV.",
                try_="Take a smaller shunt.",
            )
        return value * self.meter.kind.shunt_volts / self.meter.shunt_ohm

    def _read(self, register: int) -> int:
        return int.from_bytes(self._session.i2c(self.meter.address, bytes([register]), 2), "big")

    def _write(self, register: int, value: int) -> None:
        self._session.i2c(self.meter.address, bytes([register, value >> 8, value & 0xFF]), 0)


def ina_meter(kind: str, address: str, shunt_ohm: float | None) -> InaMeter:
    """From the command line's words. UsageError `shunt-missing`, `shunt-range`, `meter-unknown`."""
    if shunt_ohm is None:
        raise UsageError(
            "shunt-missing",
            "The sensor measures the voltage across its shunt.",
            where="--shunt-ohm",
            try_="Say the shunt's resistance; most breakout boards have R100: --shunt-ohm 0.1",
        )
    if not 1e-4 <= shunt_ohm <= 100:
        raise UsageError(
            "shunt-range", f"{shunt_ohm:g} ohm is no shunt.", where="--shunt-ohm", try_="From 0.0001 to 100."
        )
    try:
        number = int(address, 16) if address else DEFAULT_ADDRESS
    except ValueError:
        number = 0
    if not 0x40 <= number <= 0x4F:
        raise UsageError(
            "meter-unknown",
            f"{address} is no address of an {KINDS[kind].name}.",
            where="--meter",
            try_=f"From 0x40 to 0x4f, as its pins A0 and A1 say: --meter {kind}:0x41",
        )
    return InaMeter(KINDS[kind], number, shunt_ohm)
