"""Energy of a run: a meter's window over many runs, less what the board draws while it waits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from edgeq.device.meter import Ppk2
from edgeq.measure import Measured, Quantity, Unknown

_RUNNING_S = 1.0
"""So long the runs of a window should last together."""
_MOST_RUNS = 10_000


@dataclass(frozen=True, slots=True)
class EnergyReport:
    """Power and energy; `supply_mv` was given, the current measured."""

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
