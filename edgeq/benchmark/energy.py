"""Energy of a run: a meter's window over many runs, less what the board draws while it waits; or a sensor's mean."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from edgeq.device.ina import InaMeter, InaSensor
from edgeq.device.meter import Ppk2
from edgeq.device.session import Session
from edgeq.measure import Measured, Quantity, Unknown

_RUNNING_S = 1.0
"""So long the runs of a window should last together."""
_MOST_RUNS = 10_000
_WINDOWS_S = 0.4
"""So long the runs of one sample of a sensor should last: more than two of its longest windows."""
_IDLE_SAMPLES, _SAMPLES = 4, 8


@dataclass(frozen=True, slots=True)
class EnergyReport:
    """Power and energy; `supply_mv` was given (PPK2) or measured (INA219, INA226), the current measured."""

    meter: str
    supply_mv: int
    idle: Measured
    running: Quantity
    per_run: Quantity
    runs: int
    samples: int
    lost_samples: int

    def to_json(self) -> dict[str, object]:
        return {
            "meter": self.meter,
            "supply_mv": self.supply_mv,
            "idle": self.idle.to_json(),
            "running": self.running.to_json(),
            "per_run": self.per_run.to_json(),
            "runs": self.runs,
            "samples": self.samples,
            "lost_samples": self.lost_samples,
        }


def measure_energy(
    meter: Ppk2, run: Callable[[int], None], run_s: float | None, wait: Callable[[], None]
) -> EnergyReport:
    """Idle power during `wait`, then the energy of a run, from `run(n)`, which does n of them.

    run_s: what a run takes by the board's own clock, seconds; None where that counts no time, and then only the idle
    power is known. With E the window's energy, T its length and n runs of t: E = n e + P_idle (T - n t), solved for e;
    so the link's time and the window's margins are taken out.
    """
    _, idle = meter.measure(wait)
    runs = 1 if run_s is None else max(1, min(_MOST_RUNS, math.ceil(_RUNNING_S / run_s)))
    _, window = meter.measure(lambda: run(runs))
    volts = meter.supply_mv / 1000
    basis = f"{meter.name} at {meter.supply_mv} mV as given"
    idle_watts = volts * idle.amperes
    per_run: Quantity = Unknown("the board's timer counts no time")
    running: Quantity = per_run
    if run_s is not None:
        waited_s = max(0.0, window.seconds - runs * run_s)
        joules = (volts * window.amperes * window.seconds - idle_watts * waited_s) / runs
        per_run = Measured(joules * 1e6, "uJ", f"{basis}, {runs} runs in {window.seconds:.2f} s, less the idle power")
        running = Measured(joules / run_s * 1e3, "mW", f"{basis}, mean while the model runs")
    return EnergyReport(
        meter=meter.name,
        supply_mv=meter.supply_mv,
        idle=Measured(idle_watts * 1e3, "mW", f"{basis}, mean of {idle.samples:,} samples while the agent waits"),
        running=running,
        per_run=per_run,
        runs=runs,
        samples=idle.samples + window.samples,
        lost_samples=idle.lost + window.lost,
    )


def measure_by_sensor(
    meter: InaMeter, session: Session, write: Callable[[], None], run_s: float | None
) -> EnergyReport:
    """Power and energy of a run by a sensor on the board's bus, read right behind runs that `write` wrote inputs for.

    run_s: as for `measure_energy`; without it the host's clock says how long the runs of a sample last, and the energy
    of a run stays unknown. The running power is the mean of windows that lie wholly within runs, with the copying of
    kept inputs between them; a run's energy is that power times `run_s`.
    """
    sensor = InaSensor(meter, session)
    volts = sensor.volts()
    basis = f"{meter.name}, supply {volts:.3f} V measured"
    longest_s = meter.kind.windows[-1][0]
    sensor.average_over(longest_s)
    idle_watts = volts * sensor.waiting_amperes(longest_s, _IDLE_SAMPLES)
    turn_s = run_s if run_s is not None else _by_our_clock(session, write)
    runs = max(1, min(session.info.max_runs, math.ceil(_WINDOWS_S / turn_s)))
    window_s = meter.window_within(runs * turn_s)
    per_run: Quantity = Unknown("the board's timer counts no time")
    if window_s is None:
        running: Quantity = Unknown(f"{runs} runs of {turn_s * 1e6:.0f} us are shorter than the sensor's conversions")
        per_run = running
    else:
        sensor.average_over(window_s)
        samples = []
        for _ in range(_SAMPLES):
            write()
            samples.append(sensor.running_amperes(runs))
        watts = volts * statistics.fmean(samples)
        means = f"mean of {_SAMPLES} windows of {window_s * 1e3:g} ms within {runs} runs each"
        running = Measured(watts * 1e3, "mW", f"{basis}, {means}")
        if run_s is not None:
            per_run = Measured(watts * run_s * 1e6, "uJ", f"{basis}, {means}, times the median run")
    return EnergyReport(
        meter=meter.name,
        supply_mv=round(volts * 1e3),
        idle=Measured(idle_watts * 1e3, "mW", f"{basis}, mean of {_IDLE_SAMPLES} windows while the agent waits"),
        running=running,
        per_run=per_run,
        runs=runs if window_s is not None else 0,
        samples=_IDLE_SAMPLES + (_SAMPLES if window_s is not None else 0),
        lost_samples=0,
    )


def _by_our_clock(session: Session, write: Callable[[], None]) -> float:
    """About how long a run takes, seconds, rather too short: what the most runs of a request take more than one."""
    write()
    started = time.monotonic()
    session.run(1)
    one = time.monotonic()
    write()
    more = time.monotonic()
    session.run(session.info.max_runs)
    ended = time.monotonic()
    return max(1e-6, (ended - more - (one - started)) / session.info.max_runs)
