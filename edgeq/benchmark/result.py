"""What a benchmark found. Every number says whether it was measured, counted or computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgeq.benchmark.code import LayerCode
from edgeq.benchmark.energy import EnergyReport
from edgeq.device.flashing import image_json
from edgeq.device.messages import Hello
from edgeq.measure import Computed, Measured, Quantity, Unknown
from edgeq.toolchain import Image


@dataclass(frozen=True, slots=True)
class Ticks:
    """Ticks of repeated runs: all of them, and their order statistics."""

    samples: tuple[int, ...]
    unit: str
    basis: str

    def percentile(self, percent: float) -> Measured:
        """Nearest-rank percentile: the smallest sample that at least `percent` of the samples do not exceed."""
        ordered = sorted(self.samples)
        rank = max(1, math.ceil(percent / 100 * len(ordered)))
        return Measured(ordered[rank - 1], self.unit, self.basis)

    @property
    def least(self) -> Measured:
        return Measured(min(self.samples), self.unit, self.basis)

    @property
    def median(self) -> Measured:
        return self.percentile(50)

    def to_json(self) -> dict[str, object]:
        return {
            "unit": self.unit,
            "basis": self.basis,
            "samples": list(self.samples),
            "min": self.least.to_json(),
            "median": self.median.to_json(),
            "p90": self.percentile(90).to_json(),
            "p99": self.percentile(99).to_json(),
        }


@dataclass(frozen=True, slots=True)
class LayerCost:
    """A layer's share of one profiled run. `layer` is the Keras layer's name, where a map tells it."""

    index: int
    name: str
    output: str | None
    kernel: str
    macs: int | None
    cost: Quantity
    code: LayerCode | None = None
    layer: str | None = None

    def to_json(self) -> dict[str, object]:
        return {
            "index": self.index,
            "name": self.name,
            "layer": self.layer,
            "output": self.output,
            "kernel": self.kernel,
            "macs": self.macs,
            "cost": self.cost.to_json(),
            "code": None if self.code is None else self.code.to_json(),
        }


@dataclass(frozen=True, slots=True)
class LayerDivergence:
    """The first layer whose output on the board differs from the host's, and where in the output.

    `suspect_from`: the first layer behind the last equal one; it lies before `index` where the two sides keep the
    tensors between in layouts that cannot be compared.
    """

    index: int
    suspect_from: int
    name: str
    output: str | None
    offset: int
    board_bytes: bytes
    host_bytes: bytes

    def to_json(self) -> dict[str, object]:
        return {
            "index": self.index,
            "suspect_from": self.suspect_from,
            "name": self.name,
            "output": self.output,
            "offset": self.offset,
            "board": list(self.board_bytes),
            "host": list(self.host_bytes),
        }


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first byte that differs. `layer` is the first layer whose output differs, where that could be found."""

    sample: int
    output: int
    offset: int
    board_value: int
    host_value: int
    layer: LayerDivergence | None

    def to_json(self) -> dict[str, object]:
        return {
            "sample": self.sample,
            "output": self.output,
            "offset": self.offset,
            "board_value": self.board_value,
            "host_value": self.host_value,
            "layer": None if self.layer is None else self.layer.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Board against reference, byte by byte.

    difference, tolerance: of float32 outputs against a reference whose exponentials round differently: the largest
    difference as a share of the output's largest magnitude, and up to what it counts as the same. None: bytes only.
    """

    reference: str
    samples: int
    bytes_compared: int
    bytes_differing: int
    first: Divergence | None
    difference: float | None = None
    tolerance: float | None = None

    @property
    def equal(self) -> bool:
        return self.bytes_differing == 0

    @property
    def agrees(self) -> bool:
        """Equal, or within the tolerance."""
        within = self.difference is not None and self.tolerance is not None and self.difference <= self.tolerance
        return self.equal or within

    def to_json(self) -> dict[str, object]:
        return {
            "reference": self.reference,
            "samples": self.samples,
            "bytes_compared": self.bytes_compared,
            "bytes_differing": self.bytes_differing,
            "difference": self.difference,
            "tolerance": self.tolerance,
            "first": None if self.first is None else self.first.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Share of labelled samples whose greatest output is the label."""

    samples: int
    board: Measured
    host: Measured | Unknown

    def to_json(self) -> dict[str, object]:
        return {"samples": self.samples, "board": self.board.to_json(), "host": self.host.to_json()}


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """RAM, planned by the bundle and used on the board."""

    arena_planned: Computed
    arena_used: Quantity
    stack_reserved: Quantity
    stack_used: Quantity
    stack_used_by_run: Quantity
    heap: Quantity

    def to_json(self) -> dict[str, object]:
        return {name: getattr(self, name).to_json() for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class LinkReport:
    """What the line went through."""

    port: str
    requests: int
    repeated: int
    invalid_frames: int

    def to_json(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class BenchReport:
    """The result of `bench`. `golden`: the bundle's golden vectors, computed by somebody else's kernels, on the board.
    `ok`: the board's outputs are the references' (golden vectors in float32: within a tolerance), or there was none."""

    board: str
    board_name: str
    hello: Hello
    image: Image | None
    data: str
    ticks: Ticks | None
    layers: tuple[LayerCost, ...]
    memory: MemoryReport
    comparison: Comparison | None
    golden: Comparison | None
    accuracy: Accuracy | None
    link: LinkReport
    energy: EnergyReport | None = None
    findings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return all(side is None or side.agrees for side in (self.comparison, self.golden))

    def to_json(self) -> dict[str, object]:
        return {
            "ok": self.ok,
            "board": self.board,
            "hello": self.hello.to_json(),
            "image": None if self.image is None else image_json(self.image),
            "data": self.data,
            "ticks": None if self.ticks is None else self.ticks.to_json(),
            "energy": None if self.energy is None else self.energy.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
            "memory": self.memory.to_json(),
            "comparison": None if self.comparison is None else self.comparison.to_json(),
            "golden": None if self.golden is None else self.golden.to_json(),
            "accuracy": None if self.accuracy is None else self.accuracy.to_json(),
            "link": self.link.to_json(),
            "findings": list(self.findings),
        }


def best_class(values: Sequence[float]) -> int:
    """The first index with the greatest value."""
    return max(range(len(values)), key=lambda index: values[index])
