"""How fast: estimates where there is a basis, and the reason where there is none.

The constants come from published rows, by `benchmarks/latency.py`, which also gives the median relative error on
held-out rows: a whole board left out for microcontrollers, a model left out elsewhere. A count of instructions is never
printed as a latency; the estimate multiplies the plan's estimated instructions by the cycles that the core takes for
one. Models with less than half the work of the smallest published row get no number where a fixed cost would rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from edgeq.boards.profile import Board, EdgeTpu
from edgeq.checks.coral import Predicted, parameter_bytes
from edgeq.codegen.plan import Plan
from edgeq.graph.ir import Graph, Operator
from edgeq.measure import Estimated, Quantity, Unknown


@dataclass(frozen=True, slots=True)
class Rate:
    """A constant with its error on held-out rows."""

    value: float
    error: float
    basis: str


CYCLES_PER_INSTRUCTION = {
    "cortex-m4": Rate(1.607, 0.189, "CMSIS-NN on NUCLEO-L4R5ZI"),
    "cortex-m33": Rate(1.297, 0.089, "CMSIS-NN on NUCLEO-L4R5ZI, and equal stacks on Cortex-M33 and M4"),
    "cortex-m7": Rate(0.889, 0.040, "CMSIS-NN on NUCLEO-L4R5ZI, and equal stacks on Cortex-M7 and M4"),
}
"""Core -> cycles per executed instruction of int8 kernels, flash wait states and caches of the boards included."""

MACS_PER_MS = {
    "cortex-a53": (1.4e9, Rate(3_496_915, 0.248, "float MobileNets with XNNPACK, 4 threads, on a Raspberry Pi 3B+")),
    "cortex-a72": (1.5e9, Rate(5_765_813, 0.317, "float MobileNets with XNNPACK, 4 threads, on a Raspberry Pi 4")),
}
"""Core -> the clock of the published rows, and multiply-accumulates a millisecond."""

SMALLEST_LINUX_MACS, SMALLEST_EDGE_TPU_MACS = 56_500_000, 300_800_000


@dataclass(frozen=True, slots=True)
class EdgeTpuModel:
    """ms = constant + per_mac * MACs + per_byte * streamed parameter bytes."""

    constant_ms: float
    per_mac_ms: float
    per_byte_ms: float
    error: float
    basis: str


EDGE_TPU = {
    "pcie": EdgeTpuModel(1.302, 1.713e-9, 1.810e-6, 0.264, "12 published models on a Coral Dev Board"),
    "usb3": EdgeTpuModel(3.730, 1.524e-9, 3.449e-6, 0.251, "4 published models on a USB Accelerator at a Pi 4"),
}
"""Bus -> the model of the Edge TPU behind it."""


_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE", "CAST")


def of_plan(plan: Plan, board: Board) -> Quantity:
    """Latency of the generated C on a microcontroller."""
    instructions = sum(step.cost for step in plan.steps)
    counted = f"; the plan takes about {instructions / 1e6:.3g} M instructions"
    if board.core.clock_hz is None:
        return Unknown(f"the board is virtual and has no latency{counted}")
    rate = CYCLES_PER_INSTRUCTION.get(board.core.name)
    if rate is None:
        return Unknown(f"no published row of a comparable stack on {board.core.name}{counted}")
    slow = [region.name for region in board.regions("flash")[:1] if region.speed == "slow"]
    if slow:
        return Unknown(f"no basis for code and constants in {slow[0]}, behind a serial bus{counted}")
    if any(step.kernel.endswith("_f32") and step.name not in _CONVERSIONS for step in plan.steps):
        return Unknown(f"published rows of comparable stacks are int8, and the model computes in float32{counted}")
    microseconds = instructions * rate.value / board.core.clock_hz * 1e6
    basis = (
        f"{instructions / 1e6:.3g} M instructions estimated from the plan, {rate.value:.2f} cycles each, "
        f"{board.core.clock_hz / 1e6:g} MHz; {rate.basis}; other stacks' rows, none of EdgeQ's own"
    )
    return Estimated(microseconds, "us", basis, rate.error)


def of_linux(graph: Graph, board: Board) -> Quantity:
    """Latency of LiteRT with XNNPACK on all cores of a Linux board."""
    known = MACS_PER_MS.get(board.core.name)
    if known is None or board.core.clock_hz is None:
        return Unknown(f"no published rows with known work on {board.core.name}")
    clock, rate = known
    macs = sum(macs_of(graph, op) for op in graph.operators)
    if macs < SMALLEST_LINUX_MACS / 2:
        return Unknown(f"{macs / 1e6:.3g} M MACs: the smallest published row has {SMALLEST_LINUX_MACS / 1e6:g} M")
    milliseconds = macs / rate.value * clock / board.core.clock_hz
    return Estimated(milliseconds * 1e3, "us", f"{macs / 1e6:.3g} M MACs; {rate.basis}", rate.error)


def of_edge_tpu(graph: Graph, predicted: Sequence[Predicted], executor: EdgeTpu) -> Quantity:
    """Latency of a model that is mapped whole."""
    model = EDGE_TPU.get(executor.bus)
    if model is None:
        return Unknown(f"no published rows for an Edge TPU behind {executor.bus}")
    left = [p for p in predicted if not p.mapped and p.operator.name not in ("QUANTIZE", "DEQUANTIZE")]
    if left:
        return Unknown(f"{len(left)} operators run on the CPU, beside the Edge TPU")
    macs = sum(macs_of(graph, p.operator) for p in predicted)
    if macs < SMALLEST_EDGE_TPU_MACS / 2:
        return Unknown(f"{macs / 1e6:.3g} M MACs: the smallest published row has {SMALLEST_EDGE_TPU_MACS / 1e6:g} M")
    streamed = max(0, parameter_bytes(graph, tuple(predicted)) - executor.cache_bytes)
    milliseconds = model.constant_ms + model.per_mac_ms * macs + model.per_byte_ms * streamed
    basis = f"{macs / 1e6:.3g} M MACs, {streamed:,} bytes streamed; {model.basis}"
    return Estimated(milliseconds * 1e3, "us", basis, model.error)


def macs_of(graph: Graph, operator: Operator) -> int:
    """Multiply-accumulates of an operator; 0 for those without weights, or malformed."""
    inputs, name = operator.inputs, operator.name
    if len(inputs) < (3 if name == "TRANSPOSE_CONV" else 2) or min(inputs[:2]) < 0 or not operator.outputs:
        return 0
    output = graph.tensors[operator.outputs[0]].elements
    first, weights = (graph.tensors[index].shape for index in inputs[:2])
    work = 0
    match name:
        case "CONV_2D":
            work = output * prod(weights[1:])
        case "DEPTHWISE_CONV_2D":
            work = output * prod(weights[1:3])
        case "FULLY_CONNECTED":
            work = output * prod(weights[-1:])
        case "BATCH_MATMUL":
            work = output * prod(first[-1:])
        case "TRANSPOSE_CONV":
            work = graph.tensors[inputs[2]].elements * prod(weights[:3])
    return work
