"""What deploying to Linux boards and measuring on them report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from edgeq.device.ssh.probe import DeviceFacts
from edgeq.errors import EdgeqError
from edgeq.measure import Computed, Estimated, Measured, Quantity, Unknown

Action = Literal["deployed", "unchanged", "rolled-back"]


@dataclass(frozen=True, slots=True)
class Deployment:
    """A board's deployment after a change. `previous` is the release that was in use before, if another one.

    action: `unchanged` means that the same release was in use. kept: the releases on the board. environment: `made`,
    `present` or `not-needed`. load, first: the times of the trial run before the switch.
    """

    host: str
    board: str
    device: DeviceFacts
    action: Action
    release: str
    previous: str | None
    kept: tuple[str, ...]
    runtime: str
    model_sha256: str
    environment: str
    sent_bytes: int
    service: bool
    load: Measured
    first: Measured

    def to_json(self) -> dict[str, Any]:
        return {
            "host": self.host,
            "board": self.board,
            "device": self.device.to_json(),
            "action": self.action,
            "release": self.release,
            "previous": self.previous,
            "kept": list(self.kept),
            "runtime": self.runtime,
            "model_sha256": self.model_sha256,
            "environment": self.environment,
            "sent_bytes": self.sent_bytes,
            "service": self.service,
            "load": self.load.to_json(),
            "first": self.first.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Removal:
    """An uninstallation; `removed` is False where nothing was there."""

    host: str
    removed: bool

    def to_json(self) -> dict[str, Any]:
        return {"host": self.host, "action": "removed" if self.removed else "nothing-there"}


@dataclass(frozen=True, slots=True)
class Configuration:
    """Times of one way to run the model: kernels and threads, in a process of its own.

    kernels: `xnnpack` (the interpreter's default; `default` where XNNPACK took no operator), `builtin` (without
    delegates), `edgetpu` or `generated-c`.
    delegated: partitions that a delegate took over.
    """

    kernels: str
    threads: int
    delegated: int
    runs: int
    load: Measured
    first: Measured
    minimum: Measured
    p50: Measured
    p90: Measured
    p99: Measured
    peak: Quantity
    edge_tpu: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "kernels": self.kernels,
            "threads": self.threads,
            "delegated": self.delegated,
            "runs": self.runs,
            "edge_tpu": self.edge_tpu,
            **{
                name: getattr(self, name).to_json()
                for name in ("load", "first", "minimum", "p50", "p90", "p99", "peak")
            },
        }


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """One operator's share of an inference."""

    index: int
    name: str
    time: Quantity

    def to_json(self) -> dict[str, Any]:
        return {"index": self.index, "name": self.name, "time": self.time.to_json()}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Outputs of the device with `kernels` against those of `reference` on this computer, over `samples` inputs.

    elements: output elements compared, differing: how many differ, largest: by how much (steps of the quantized type,
    or in real numbers for float outputs). same: False only if they may not differ. explanation: what it means.
    accuracy: of the device with these kernels; host_accuracy: of this computer, on the same samples.
    """

    kernels: str
    reference: str
    samples: int
    elements: int
    differing: int
    largest: float
    same: bool
    explanation: str
    accuracy: Measured | Unknown
    host_accuracy: Measured | Unknown

    def to_json(self) -> dict[str, Any]:
        plain = ("kernels", "reference", "samples", "elements", "differing", "largest", "same", "explanation")
        accuracies = {"accuracy": self.accuracy.to_json(), "host_accuracy": self.host_accuracy.to_json()}
        return {**{name: getattr(self, name) for name in plain}, **accuracies}


@dataclass(frozen=True, slots=True)
class Health:
    """The device before and after: governors, temperatures, throttling as the system tells it."""

    before: dict[str, Any]
    after: dict[str, Any]
    throttled: bool | None
    findings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "before": self.before,
            "after": self.after,
            "throttled": self.throttled,
            "findings": list(self.findings),
        }


@dataclass(frozen=True, slots=True)
class RemoteBench:
    """Measurements on one board.

    accuracy: as the model runs unless told otherwise. on_edge_tpu: the share of operators there, if the board has one;
    predicted_on_edge_tpu: the share that the checker expects.
    """

    host: str
    board: str
    device: DeviceFacts
    release: str
    package: str
    model_sha256: str
    configurations: tuple[Configuration, ...]
    comparisons: tuple[Comparison, ...]
    accuracy: Measured | Unknown
    operators: tuple[OperatorTime, ...] | Unknown
    health: Health
    on_edge_tpu: Computed | Unknown | None = None
    predicted_on_edge_tpu: Estimated | Unknown | None = None

    @property
    def same(self) -> bool:
        """False if outputs differ from this computer's where they may not."""
        return all(entry.same for entry in self.comparisons)

    def to_json(self) -> dict[str, Any]:
        operators = self.operators
        return {
            "host": self.host,
            "board": self.board,
            "device": self.device.to_json(),
            "release": self.release,
            "package": self.package,
            "model_sha256": self.model_sha256,
            "configurations": [entry.to_json() for entry in self.configurations],
            "comparisons": [entry.to_json() for entry in self.comparisons],
            "same": self.same,
            "accuracy": self.accuracy.to_json(),
            "operators": operators.to_json() if isinstance(operators, Unknown) else [o.to_json() for o in operators],
            "health": self.health.to_json(),
            "on_edge_tpu": None if self.on_edge_tpu is None else self.on_edge_tpu.to_json(),
            "predicted_on_edge_tpu": (
                None if self.predicted_on_edge_tpu is None else self.predicted_on_edge_tpu.to_json()
            ),
        }


@dataclass(frozen=True, slots=True)
class HostReport:
    """One verb on one or several boards: what succeeded, and the error of each that failed."""

    results: tuple[Deployment | Removal | RemoteBench, ...]
    failures: dict[str, EdgeqError] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """All boards succeeded, and where outputs were compared they agree."""
        return not self.failures and all(not isinstance(r, RemoteBench) or r.same for r in self.results)

    @property
    def exit_status(self) -> int:
        """0 if `ok`, 1 if outputs differ, else the greatest of the failures': surroundings before answers."""
        return max((error.exit_status for error in self.failures.values()), default=0 if self.ok else 1)

    def to_json(self) -> dict[str, Any]:
        return {
            "hosts": [result.to_json() for result in self.results],
            "failures": {host: error.to_json() for host, error in self.failures.items()},
        }
