"""Numbers that say where they come from: measured, computed, estimated, or unknown for a reason.

measured    read off a device, or counted in an emulator (`basis` says which; a count is never a latency)
computed    follows from the artefacts exactly: a planned arena, the bytes of a linked image
estimated   from a model of the hardware; `basis` names it and `error` its relative error, where known
unknown     a value too: `reason` says why there is no number
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measured:
    """A number read off a device or counted in an emulator; `unit` as in `_us`, `_cycles`, `_instructions`."""

    value: float
    unit: str
    basis: str

    def to_json(self) -> dict[str, object]:
        return {"kind": "measured", "value": self.value, "unit": self.unit, "basis": self.basis}


@dataclass(frozen=True, slots=True)
class Computed:
    """A number that follows exactly from the artefacts."""

    value: float
    unit: str
    basis: str

    def to_json(self) -> dict[str, object]:
        return {"kind": "computed", "value": self.value, "unit": self.unit, "basis": self.basis}


@dataclass(frozen=True, slots=True)
class Estimated:
    """A number from a model of the hardware; `error` is its relative error on held-out data, if known."""

    value: float
    unit: str
    basis: str
    error: float | None = None

    def to_json(self) -> dict[str, object]:
        return {
            "kind": "estimated",
            "value": self.value,
            "unit": self.unit,
            "basis": self.basis,
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class Unknown:
    """No number, and the reason."""

    reason: str

    def to_json(self) -> dict[str, object]:
        return {"kind": "unknown", "reason": self.reason}


Quantity = Measured | Computed | Estimated | Unknown
