"""What `edgetpu_compiler` will do with a model: each operator mapped or left on the CPU, with the compiler's status.

The compiler maps one partition only. It partitions as a TensorFlow Lite delegate does: in epochs, alternately of
supported and of unsupported operators, each epoch taking every operator of its sort whose inputs are there; the first
supported epoch is mapped, also behind leading CPU operators, and what other supported epochs hold stays on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgeq.boards.profile import EdgeTpu
from edgeq.checks.coral_rules import LAST_COMPILER, MAPPED, SUBGRAPH, EdgeRule, Limits, Node, breach
from edgeq.checks.findings import Finding, Placement, Severity
from edgeq.graph.ir import Graph, Operator, Tensor
from edgeq.measure import Estimated, Quantity

_NEWEST_VERSIONS = {
    **dict.fromkeys(("EXPAND_DIMS", "PRELU", "RELU_N1_TO_1", "RESHAPE"), 1),
    **dict.fromkeys(
        (
            *("L2_NORMALIZATION", "RSQRT", "SPACE_TO_DEPTH", "SQUARED_DIFFERENCE", "SQUEEZE", "SUM"),
            *("ARG_MAX", "DIV", "LEAKY_RELU", "MIRROR_PAD"),
        ),
        2,
    ),
    **dict.fromkeys(
        (
            *("AVERAGE_POOL_2D", "CONCATENATION", "LOGISTIC", "MAX_POOL_2D", "MEAN", "PACK", "QUANTIZE"),
            *("REDUCE_MAX", "REDUCE_MIN", "RELU", "RELU6", "SOFTMAX", "TANH", "TILE", "TRANSPOSE_CONV"),
            "UNIDIRECTIONAL_SEQUENCE_LSTM",
        ),
        3,
    ),
    **dict.fromkeys(
        (
            *("ADD", "LSTM", "MAXIMUM", "MINIMUM", "PAD", "PADV2", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"),
            *("SPLIT", "UNPACK"),
        ),
        4,
    ),
    **dict.fromkeys(("CONV_2D", "DEQUANTIZE", "GATHER", "MUL", "SLICE", "SUB", "TRANSPOSE"), 5),
    **dict.fromkeys(("DEPTHWISE_CONV_2D", "STRIDED_SLICE"), 6),
    "FULLY_CONNECTED": 9,
}
"""Operator -> version beyond which edgetpu_compiler 16.0 gives up.

TRANSPOSE_CONV (google-coral/edgetpu#845) and CONV_2D (#631) as users met it; the others as registered in
tensorflow/lite/kernels/register.cc of 2022 (00b1ec2ad4b0), which is newer than the compiler's own interpreter.
"""

_SIZES = {
    **dict.fromkeys(("BROADCAST_TO", "PAD", "PADV2", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), 1),
    **dict.fromkeys(("SLICE", "STRIDED_SLICE", "TILE"), 1),
    **dict.fromkeys(("FILL", "RANGE"), 0),
}
"""Operator -> position of the first input that the size of its result depends on."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """An operator's fate: mapped or not, the compiler's status, the broken rule and the value found."""

    operator: Operator
    mapped: bool
    status: str
    rule: EdgeRule | None = None
    found: str = ""


def predict(
    graph: Graph, runtime: int = 14, limits: Limits | None = None, compiler: int = LAST_COMPILER
) -> tuple[Predicted, ...]:
    """The placement of every operator, in the file's order, by a compiler of this major version."""
    sizes = limits or Limits()
    breaches = {op.index: breach(Node(graph, op, sizes, runtime, compiler)) for op in graph.operators}
    chosen = first_partition(graph, {index for index, broken in breaches.items() if broken is None})
    result = []
    for op in graph.operators:
        broken = breaches[op.index]
        if broken is not None:
            result.append(Predicted(op, False, broken[0].status, broken[0], broken[1]))
        else:
            mapped = op.index in chosen
            result.append(Predicted(op, mapped, MAPPED if mapped else SUBGRAPH))
    return tuple(result)


def first_partition(graph: Graph, supported: set[int]) -> set[int]:
    """Operators of the first epoch of supported ones; an epoch grows in execution order until nothing more is ready."""
    produced = {t for op in graph.operators for t in op.outputs}
    ready = {t.index for t in graph.tensors if t.index not in produced}
    waiting = list(graph.operators)
    while waiting:
        of_supported = next((op.index in supported for op in waiting if _is_ready(op, ready)), None)
        if of_supported is None:
            return set()
        epoch = set()
        for op in waiting:
            if (op.index in supported) is of_supported and _is_ready(op, ready):
                epoch.add(op.index)
                ready.update(op.outputs)
        if of_supported:
            return epoch
        waiting = [op for op in waiting if op.index not in epoch]
    return set()


def _is_ready(operator: Operator, ready: set[int]) -> bool:
    return all(index < 0 or index in ready for index in operator.inputs)


def parameter_bytes(graph: Graph, predicted: tuple[Predicted, ...]) -> int:
    """Bytes of the constants that mapped operators read, each once."""
    used = {i for p in predicted if p.mapped for i in p.operator.inputs if i >= 0}
    return sum(graph.tensors[i].size_bytes for i in used if graph.tensors[i].is_constant)


def placements(graph: Graph, predicted: tuple[Predicted, ...]) -> tuple[Placement, ...]:
    """The prediction as placements of a report."""
    return tuple(
        Placement(
            operator=p.operator.index,
            name=p.operator.custom_code or p.operator.name,
            output=graph.tensors[p.operator.outputs[0]].name,
            shape=graph.tensors[p.operator.outputs[0]].shape,
            type=graph.tensors[p.operator.outputs[0]].type.name,
            executor="edge-tpu" if p.mapped else "cpu",
            status=p.status,
        )
        for p in predicted
        if p.operator.outputs
    )


def findings(graph: Graph, predicted: tuple[Predicted, ...], executor: EdgeTpu) -> Iterator[Finding]:
    """What keeps operators off the Edge TPU, what the compiler would refuse, and what is streamed."""
    for p in predicted:
        if p.rule is not None:
            yield _finding(p.rule.id, "warning", (p.rule.sentence, p.found, p.rule.remedy), p.operator)
    cut = [p for p in predicted if p.status == SUBGRAPH]
    if cut:
        yield _finding(
            "edge-tpu-cut-off",
            "warning",
            (
                "The compiler maps one partition; supported operators behind an unsupported one stay on the CPU.",
                f"{len(cut)} supported operators",
                "Change the unsupported operators before these, or end the model before them.",
            ),
            cut[0].operator,
        )
    if not any(p.mapped for p in predicted):
        yield _finding(
            "edge-tpu-nothing-mapped",
            "error",
            (
                "At least one operator must run on the Edge TPU.",
                f"0 of {len(predicted)} operators mapped",
                "Quantize the whole model to int8: edgeq convert --io int8.",
            ),
        )
    for p in predicted:
        newest = _NEWEST_VERSIONS.get(p.operator.name)
        if newest is not None and p.operator.version > newest:
            sentence = "The compiler aborts on operator versions that are newer than its own interpreter."
            value = f"Didn't find op for builtin opcode '{p.operator.name}' version '{p.operator.version}'"
            remedy = "Convert with TensorFlow 2.8, whose operators are older."
            if p.operator.name == "FULLY_CONNECTED":
                remedy = "Convert with edgeq convert --granularity tensor; weights per channel need the newer version."
            yield _finding("edge-tpu-version", "error", (sentence, value, remedy), p.operator)
    for op, tensor in _computed_sizes(graph):
        yield _finding(
            "edge-tpu-dynamic-sized",
            "error",
            (
                "The compiler gives up on tensors whose size is computed at run time.",
                f"its {tensor.name} is computed",
                "Fix the batch size, and every dimension, when you convert.",
            ),
            op,
        )
    streamed = parameter_bytes(graph, predicted) - executor.cache_bytes
    if streamed > 0:
        yield _finding(
            "edge-tpu-streamed",
            "warning",
            (
                "Parameters beyond the on-chip memory are sent over the bus at every inference.",
                f"about {streamed:,} bytes of parameters are streamed",
                "Take a smaller model, or compile it in segments for several Edge TPUs.",
            ),
        )


def _computed_sizes(graph: Graph) -> Iterator[tuple[Operator, Tensor]]:
    """Operators whose result gets its size from a computed tensor, with that tensor: google-coral/edgetpu#829, #831."""
    for op in graph.operators:
        for index in op.inputs[_SIZES.get(op.name, len(op.inputs)) :]:
            if index >= 0 and not graph.tensors[index].is_constant:
                yield op, graph.tensors[index]


def details(graph: Graph, predicted: tuple[Predicted, ...], executor: EdgeTpu) -> dict[str, Quantity]:
    """Parameters kept on the chip and streamed."""
    total = parameter_bytes(graph, predicted)
    basis = "constants of the mapped operators, before the compiler's padding"
    return {
        "parameters cached on the Edge TPU": Estimated(min(total, executor.cache_bytes), "bytes", basis),
        "parameters streamed": Estimated(max(0, total - executor.cache_bytes), "bytes", basis),
    }


def _finding(
    rule: str,
    severity: Severity,
    texts: tuple[str, str, str | None],
    operator: Operator | None = None,
) -> Finding:
    sentence, found, remedy = texts
    return Finding(
        rule=rule,
        severity=severity,
        sentence=sentence,
        found=found,
        operator=None if operator is None else operator.index,
        name=None if operator is None else operator.custom_code or operator.name,
        remedy=remedy,
    )
