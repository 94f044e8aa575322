"""Budgets: what a model may take on a board, as a gate for continuous integration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, get_args

from edgeq.checks.findings import CheckReport, Finding
from edgeq.errors import UsageError
from edgeq.measure import Quantity, Unknown

Name = Literal["flash", "ram", "latency"]
NAMES: tuple[Name, ...] = get_args(Name)
_UNITS = {"": 1.0, "b": 1.0, "k": 2**10, "kib": 2**10, "kb": 1e3, "m": 2**20, "mib": 2**20, "mb": 1e6}
_TIMES = {"us": 1.0, "ms": 1e3, "s": 1e6}
_PART = re.compile(r"(\w+)=([0-9][0-9_]*(?:\.[0-9]+)?)([a-z]*)")

Budget = Mapping[Name, float]
"""Bytes of flash and RAM, microseconds of latency."""


def parse_budget(text: str) -> Budget:
    """`flash=256k,ram=64KiB,latency=20ms` -> bytes and microseconds. UsageError `bad-budget`."""
    budget: dict[Name, float] = {}
    for part in filter(None, re.split(r"[,\s]+", text.strip().lower())):
        match = _PART.fullmatch(part)
        name = next((known for known in NAMES if match and match[1] == known), None)
        if match is None or name is None:
            raise _bad(part, f"it is not one of {', '.join(NAMES)} with a number")
        units = _TIMES if name == "latency" else _UNITS
        if match[3] not in units:
            raise _bad(part, f"its unit is none of {', '.join(unit for unit in units if unit)}")
        if name in budget:
            raise _bad(part, f"{name} is given twice")
        budget[name] = float(match[2].replace("_", "")) * units[match[3]]
    if not budget:
        raise _bad(text, "it is empty")
    return budget


def apply_budget(report: CheckReport, budget: Budget) -> CheckReport:
    """The report with an error for each budget that is exceeded, or that cannot be answered."""
    found = []
    for name, limit in budget.items():
        value = _value(report, name)
        unit = "us" if name == "latency" else "bytes"
        remedy = "Shrink the model, or raise the budget."
        if isinstance(value, Unknown):
            text = f"unknown ({value.reason}), budget {limit:,.0f} {unit}"
            remedy = f"Leave {name} out of this board's budget; `edgeq bench` measures it where it can be measured."
        elif value.value > limit:
            text = f"{value.value:,.0f} {unit}, budget {limit:,.0f} {unit}: {value.value - limit:,.0f} too many"
        else:
            continue
        sentence = f"The {name} must stay within the budget."
        found.append(Finding(f"budget-{name}", "error", sentence, text, remedy=remedy))
    return replace(report, findings=(*found, *report.findings))


def _value(report: CheckReport, name: Name) -> Quantity:
    if name == "latency":
        return report.latency
    use = report.use(name)
    return Unknown("not known on this board") if use is None else use.needed


def _bad(part: str, why: str) -> UsageError:
    return UsageError(
        "bad-budget",
        f"The budget {part!r} cannot be used: {why}.",
        where="--budget",
        try_="Write it as flash=256k,ram=64k,latency=20ms.",
    )
