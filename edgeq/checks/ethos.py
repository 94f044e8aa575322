"""Boards with an Ethos-U: what Vela says of a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgeq.boards.profile import EthosU
from edgeq.checks.findings import Finding
from edgeq.measure import Computed, Estimated, Quantity, Unknown


@dataclass(frozen=True, slots=True)
class VelaResult:
    """Vela's tables: operators after its own lowering, bytes, cycles of the network at the system's clock."""

    npu_operators: int = 0
    cpu_operators: int = 0
    sram_bytes: int = 0
    flash_bytes: int = 0
    cycles: int = 0
    clock_hz: int = 1
    model: bytes = b""
    """The optimised .tflite: an `ethos-u` custom operator in the place of what runs on the NPU."""
    failure: str | None = None
    """Vela's last words where it gave up; the other fields then say nothing."""


def latency(result: VelaResult | None, executor: EthosU, clock_hz: int | None) -> Quantity:
    """Vela's cycles as time at the board's clock; unknown where Vela is missing or the model is not whole on it."""
    if result is None:
        return Unknown("Vela is not installed: pip install 'edgeq[ethosu]'")
    if result.failure is not None:
        return Unknown(f"Vela failed: {result.failure}")
    if result.npu_operators == 0:
        return Unknown("no operator runs on the Ethos-U")
    if result.cpu_operators:
        return Unknown(f"{result.cpu_operators} operators run on the CPU, beside the Ethos-U")
    clock = clock_hz or result.clock_hz
    basis = f"{result.cycles:,} cycles estimated by Vela for {executor.system_config}, at {clock / 1e6:g} MHz"
    return Estimated(result.cycles / clock * 1e6, "us", basis)


def details(result: VelaResult) -> dict[str, Quantity]:
    """Placement and memory on the Ethos-U."""
    if result.failure is not None:
        return {}
    return {
        "operators on the Ethos-U": Computed(result.npu_operators, "operators", "Vela"),
        "operators on the CPU": Computed(result.cpu_operators, "operators", "Vela"),
        "SRAM for the Ethos-U": Computed(result.sram_bytes, "bytes", "Vela"),
        "flash for the Ethos-U": Computed(result.flash_bytes, "bytes", "Vela"),
    }


def findings(result: VelaResult) -> Iterator[Finding]:
    """Operators that Vela leaves on the CPU."""
    if result.failure is not None:
        yield Finding(
            rule="ethos-u-failed",
            severity="error",
            sentence="Vela must be able to compile the model.",
            found=result.failure,
            remedy="Quantize the whole model to int8: edgeq convert --io int8.",
        )
    if result.cpu_operators:
        total = result.cpu_operators + result.npu_operators
        yield Finding(
            rule="ethos-u-cpu",
            severity="warning",
            sentence="Operators that Vela does not support run on the CPU.",
            found=f"{result.cpu_operators} of {total} operators",
            remedy="Quantize the whole model to int8; `vela --supported-ops-report` lists the constraints.",
        )
