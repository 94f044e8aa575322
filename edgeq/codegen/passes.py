"""Named passes Graph -> Graph, in order; each is small, keeps the bytes of the result, and is verified after.

A pass that removes an operator leaves its tensors in place (tensor indices are names), only unused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from edgeq.codegen.constant_channels import fold_constant_channels
from edgeq.codegen.constants import fold_constants
from edgeq.codegen.identities import drop_no_ops, join_conversions
from edgeq.codegen.registry import candidates
from edgeq.codegen.state import resolve_variables
from edgeq.codegen.step import Node, Target, Unsupported
from edgeq.codegen.tables import compose_tables
from edgeq.graph.ir import Graph, Operator, TensorType

Pass = Callable[[Graph], Graph]


def drop_unused(graph: Graph) -> Graph:
    """Remove operators whose results nobody reads (and that have no effect beside)."""
    needed = set(graph.outputs)
    kept: list[Operator] = []
    for operator in reversed(graph.operators):
        effect = operator.name in {"ASSIGN_VARIABLE", "CALL_ONCE", "VAR_HANDLE"} or any(
            t >= 0 and graph.tensors[t].is_variable for t in operator.inputs
        )
        if effect or needed & set(operator.outputs):
            kept.append(operator)
            needed.update(operator.inputs)
    return replace(graph, operators=tuple(reversed(kept)))


def fold_pad(graph: Graph) -> Graph:
    """PAD with the zero point before a VALID convolution or depthwise becomes the convolution's explicit padding.

    The operator then has the option `explicit_padding` = (top, bottom, left, right) and reads the unpadded tensor.
    """
    readers = graph.consumers()
    writers = graph.producers()
    operators = []
    for operator in graph.operators:
        pad = writers.get(operator.inputs[0]) if operator.inputs else None
        if (
            pad is not None
            and pad.name == "PAD"
            and operator.name in {"CONV_2D", "DEPTHWISE_CONV_2D"}
            and operator.options.get("padding") == "VALID"
            and len(readers[pad.outputs[0]]) == 1
            and pad.outputs[0] not in graph.outputs
            and (amount := _spatial_padding(graph, pad)) is not None
        ):
            options = {**operator.options, "explicit_padding": amount}
            operators.append(replace(operator, inputs=(pad.inputs[0], *operator.inputs[1:]), options=options))
        else:
            operators.append(operator)
    return replace(graph, operators=tuple(operators))


def _spatial_padding(graph: Graph, pad: Operator) -> tuple[int, int, int, int] | None:
    """(top, bottom, left, right) of a PAD of a rank-4 tensor in height and width only, filled with the zero point."""
    source, result, amounts = (graph.tensors[i] for i in (pad.inputs[0], pad.outputs[0], pad.inputs[1]))
    if amounts.data is None or amounts.shape != (4, 2):
        return None
    if source.type not in (TensorType.INT8, TensorType.FLOAT32):
        return None
    if source.quantization != result.quantization:
        return None
    rows = [[int(v) for v in row] for row in amounts.data]
    if rows[0] != [0, 0] or rows[3] != [0, 0] or min(rows[1] + rows[2]) < 0:
        return None
    return rows[1][0], rows[1][1], rows[2][0], rows[2][1]


PASSES: tuple[Pass, ...] = (
    resolve_variables,
    fold_constants,
    join_conversions,
    drop_no_ops,
    fold_pad,
    fold_constant_channels,
    compose_tables,
    drop_unused,
)
"""In the order in which they run."""

_FAULTS = (Unsupported, KeyError, IndexError, ValueError, TypeError, ZeroDivisionError)


def run(graph: Graph) -> Graph:
    """All passes, the verifier after each.

    A pass that stumbles over a malformed operator (one that no lowering takes either, so that `plan` and `unsupported`
    name it and say why) is left out. Without such an operator the fault is the pass's, and is raised.
    """
    from edgeq.graph import verify

    for one in PASSES:
        try:
            changed = one(graph)
        except _FAULTS:
            if not any(_refused(graph, operator) for operator in graph.operators):
                raise
            continue
        verify(changed)
        graph = changed
    return graph


def _refused(graph: Graph, operator: Operator) -> bool:
    """Whether no lowering takes an operator."""
    try:
        candidates(Node(graph, operator, Target("generic", frozenset(), "balanced")))
    except _FAULTS:
        return True
    return False
