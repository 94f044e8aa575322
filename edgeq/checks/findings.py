"""What a check finds: findings of rules, the placement of every operator, memory, speed, the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from edgeq.measure import Quantity

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule found at one place.

    rule: the rule's stable id. severity: an `error` makes the verdict no. sentence: the rule's docstring. found: the
    value that broke the rule. operator: its index in the file, with its name; None for the model. tensor: by name.
    remedy: what to change; fixable: `edgeq check --fix` can. layer: the Keras layer that the operator computes, where a
    map tells it.
    """

    rule: str
    severity: Severity
    sentence: str
    found: str
    operator: int | None = None
    name: str | None = None
    tensor: str | None = None
    remedy: str | None = None
    fixable: bool = False
    layer: str | None = None

    def to_json(self) -> dict[str, object]:
        return {
            "rule": self.rule,
            "severity": self.severity,
            "sentence": self.sentence,
            "found": self.found,
            "operator": self.operator,
            "name": self.name,
            "tensor": self.tensor,
            "remedy": self.remedy,
            "fixable": self.fixable,
            "layer": self.layer,
        }


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an operator runs: `executor` is a board's executor kind, or `cpu` beside an accelerator, or `none`.

    status: one sentence or phrase of the executor's own (a kernel's name, the Edge TPU compiler's status). layer: as in
    Finding.
    """

    operator: int
    name: str
    output: str
    shape: tuple[int, ...]
    type: str
    executor: str
    status: str
    macs: int = 0
    layer: str | None = None

    def to_json(self) -> dict[str, object]:
        return {
            "operator": self.operator,
            "name": self.name,
            "output": self.output,
            "shape": list(self.shape),
            "type": self.type,
            "executor": self.executor,
            "status": self.status,
            "macs": self.macs,
            "layer": self.layer,
        }


@dataclass(frozen=True, slots=True)
class Use:
    """A memory: what the model needs of it, what the board has; `parts` add up to `needed`."""

    kind: Literal["flash", "ram"]
    needed: Quantity
    available_bytes: int | None
    parts: Mapping[str, Quantity] = field(default_factory=lambda: MappingProxyType({}))

    def to_json(self) -> dict[str, object]:
        return {
            "kind": self.kind,
            "needed": self.needed.to_json(),
            "available_bytes": self.available_bytes,
            "parts": {name: part.to_json() for name, part in self.parts.items()},
        }


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The answer for one model on one board; `fits` is the verdict."""

    board: str
    board_name: str
    model: str
    model_sha256: str
    findings: tuple[Finding, ...]
    placements: tuple[Placement, ...]
    memory: tuple[Use, ...]
    latency: Quantity
    details: Mapping[str, Quantity] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def fits(self) -> bool:
        return not any(finding.severity == "error" for finding in self.findings)

    def of_severity(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of one severity, in the operators' order."""
        return tuple(finding for finding in self.findings if finding.severity == severity)

    def use(self, kind: Literal["flash", "ram"]) -> Use | None:
        """The use of a memory, or None where it is not known."""
        return next((use for use in self.memory if use.kind == kind), None)

    def with_layers(self, layers: Mapping[int, str]) -> CheckReport:
        """The report with the names of Keras layers; `layers` has them by operator."""
        if not layers:
            return self
        findings = (f if f.operator is None else replace(f, layer=layers.get(f.operator)) for f in self.findings)
        placements = (replace(p, layer=layers.get(p.operator)) for p in self.placements)
        return replace(self, findings=tuple(findings), placements=tuple(placements))

    def to_json(self) -> dict[str, object]:
        return {
            "board": self.board,
            "fits": self.fits,
            "findings": [finding.to_json() for finding in self.findings],
            "operators": [placement.to_json() for placement in self.placements],
            "memory": [use.to_json() for use in self.memory],
            "latency": self.latency.to_json(),
            "details": {name: value.to_json() for name, value in self.details.items()},
        }


def document(reports: Sequence[CheckReport]) -> dict[str, object]:
    """The reports of one model as one JSON document; it fits if it fits on every board."""
    return {
        "model": {"name": reports[0].model, "sha256": reports[0].model_sha256} if reports else None,
        "fits": all(report.fits for report in reports),
        "boards": [report.to_json() for report in reports],
    }
