"""Boards that run Linux: LiteRT's interpreter with the XNNPACK delegate; what it takes of the memory."""

from __future__ import annotations

from collections.abc import Iterator

from edgeq.boards.profile import Board
from edgeq.checks.findings import Finding, Placement, Use
from edgeq.graph.ir import Graph, Operator, TensorType
from edgeq.measure import Computed, Estimated, Quantity

INTERPRETER_BYTES = 38 * 2**20
"""Python, numpy and the interpreter with a model of 50 KB: the process's peak, measured on x86-64 with LiteRT 2.3."""

QUANTIZED = frozenset(
    (
        *("ADD", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "DEPTH_TO_SPACE", "DEQUANTIZE", "ELU"),
        *("FULLY_CONNECTED", "LEAKY_RELU", "LOGISTIC", "MAX_POOL_2D", "MEAN", "MUL", "PAD", "QUANTIZE"),
        *("RESHAPE", "RESIZE_BILINEAR", "SLICE", "SPACE_TO_DEPTH", "SPLIT", "SUB", "TANH", "TRANSPOSE"),
        "TRANSPOSE_CONV",
    )
)
FLOAT = QUANTIZED | frozenset(
    (
        *("ABS", "AVERAGE_POOL_2D", "BATCH_MATMUL", "CEIL", "DIV", "EXP", "FLOOR", "GELU", "HARD_SWISH"),
        *("LOG", "MAXIMUM", "MINIMUM", "NEG", "PRELU", "RELU", "RELU6", "RELU_N1_TO_1", "ROUND", "RSQRT"),
        *("SOFTMAX", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "STRIDED_SLICE", "SUM"),
    )
)
"""Operators that XNNPACK takes, in int8 and uint8, and in float32: google-ai-edge/LiteRT, the delegate's README."""


def placements(graph: Graph) -> tuple[Placement, ...]:
    """Every operator runs on the CPU: in XNNPACK, or in the interpreter's own kernels."""
    return tuple(_placement(graph, op) for op in graph.operators if op.outputs)


def _placement(graph: Graph, operator: Operator) -> Placement:
    output = graph.tensors[operator.outputs[0]]
    taken = {TensorType.FLOAT32: FLOAT, TensorType.INT8: QUANTIZED, TensorType.UINT8: QUANTIZED}.get(output.type)
    status = "XNNPACK" if taken and operator.name in taken else "built-in kernel"
    name = operator.custom_code or operator.name
    return Placement(operator.index, name, output.name, output.shape, output.type.name, "litert-xnnpack", status)


def memory_of(graph: Graph, board: Board) -> tuple[Use, ...]:
    """Peak memory of the process: an estimate with its parts."""
    constants = sum(tensor.size_bytes for tensor in graph.tensors if tensor.is_constant)
    parts: dict[str, Quantity] = {
        "interpreter": Estimated(INTERPRETER_BYTES, "bytes", "peak of the process with a small model"),
        "model": Computed(constants, "bytes", "constants of the file"),
        "packed weights": Estimated(constants, "bytes", "XNNPACK keeps a second, packed copy"),
        "activations": Computed(live_bytes(graph), "bytes", "largest sum of tensors alive at one operator"),
    }
    total = sum(part.value for part in parts.values() if isinstance(part, (Computed, Estimated)))
    available = sum(region.usable_bytes for region in board.regions("ram")) or None
    return (Use("ram", Estimated(total, "bytes", " + ".join(parts)), available, parts),)


def live_bytes(graph: Graph) -> int:
    """The largest sum of the sizes of activations that are alive at one operator."""
    first = dict.fromkeys(graph.inputs, 0)
    last: dict[int, int] = {}
    for step, op in enumerate(graph.operators):
        for index in (*op.inputs, *op.outputs):
            if index >= 0 and not graph.tensors[index].is_constant:
                first.setdefault(index, step)
                last[index] = step
    for index in graph.outputs:
        last[index] = len(graph.operators)
    changes = [0] * (len(graph.operators) + 2)
    for index, end in last.items():
        changes[first.get(index, 0)] += graph.tensors[index].size_bytes
        changes[end + 1] -= graph.tensors[index].size_bytes
    peak = alive = 0
    for change in changes:
        alive += change
        peak = max(peak, alive)
    return peak


def findings(uses: tuple[Use, ...], board: Board) -> Iterator[Finding]:
    """`memory-too-small` where the estimate exceeds what the operating system leaves."""
    for use in uses:
        needed = int(use.needed.value) if isinstance(use.needed, Estimated) else 0
        if use.available_bytes is not None and needed > use.available_bytes:
            yield Finding(
                rule="memory-too-small",
                severity="error",
                sentence="The process must fit into the memory that the operating system leaves.",
                found=f"about {needed:,} bytes, {board.id} has {use.available_bytes:,}",
                remedy="Take a smaller model, or a board with more memory.",
            )
