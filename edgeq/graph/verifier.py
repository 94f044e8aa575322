"""What every Graph obeys; checked after reading and between passes.

Indices exist; constants fit their tensors; an activation is written once, before it is read; quantization has as many
scales as its dimension has entries, all finite and positive.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from edgeq.errors import ModelError
from edgeq.graph.ir import Graph, Operator, Tensor


def _tensor_faults(tensor: Tensor) -> Iterator[str]:
    where = f"tensor {tensor.index} ({tensor.name})"
    if tensor.data is not None and tuple(tensor.data.shape) != tensor.shape:
        yield f"{where} has data of shape {tensor.data.shape}, not {tensor.shape}"
    if tensor.data is not None and tensor.type.dtype is not None and tensor.data.dtype != tensor.type.dtype:
        yield f"{where} has data of type {tensor.data.dtype}, not {tensor.type.name}"
    q = tensor.quantization
    if q is None:
        return
    if not math.isfinite(sum(q.scale)) or min(q.scale, default=0.0) < 0:
        yield f"{where} has a scale that is not a finite number >= 0"
    if len(q.scale) > 1 and not (
        0 <= q.quantized_dimension < len(tensor.shape) and len(q.scale) == tensor.shape[q.quantized_dimension]
    ):
        yield f"{where} has {len(q.scale)} scales for dimension {q.quantized_dimension} of shape {tensor.shape}"


def _operator_faults(graph: Graph, op: Operator, written: set[int]) -> Iterator[str]:
    where = f"operator {op.index} ({op.name})"
    count = len(graph.tensors)
    for t in op.inputs:
        if not -1 <= t < count:
            yield f"{where} reads tensor {t} of {count}"
        elif t >= 0 and t not in written and not (graph.tensors[t].is_constant or graph.tensors[t].is_variable):
            yield f"{where} reads tensor {t} ({graph.tensors[t].name}) before anything writes it"
    for t in op.intermediates:
        if not 0 <= t < count:
            yield f"{where} names tensor {t} of {count} as an intermediate"
    for t in op.outputs:
        if not 0 <= t < count:
            yield f"{where} writes tensor {t} of {count}"
        elif t in written or graph.tensors[t].is_constant:
            yield f"{where} writes tensor {t} ({graph.tensors[t].name}), which has a value already"


def _faults(graph: Graph) -> Iterator[str]:
    for i, tensor in enumerate(graph.tensors):
        if tensor.index != i:
            yield f"tensor {i} calls itself {tensor.index}"
        yield from _tensor_faults(tensor)
    count = len(graph.tensors)
    for t in (*graph.inputs, *graph.outputs):
        if not 0 <= t < count:
            yield f"the graph's inputs or outputs name tensor {t} of {count}"
    # An empty tensor (a dimension of 0) and an uninitialised constant need no writer.
    written = {*graph.inputs, *(t.index for t in graph.tensors if t.elements == 0)}
    for op in graph.operators:
        yield from _operator_faults(graph, op, written)
        written.update(op.outputs)
    for t in graph.outputs:
        if 0 <= t < count and t not in written and not (graph.tensors[t].is_constant or graph.tensors[t].is_variable):
            yield f"nothing writes the output tensor {t} ({graph.tensors[t].name})"


def verify(graph: Graph, *, where: str = "the graph") -> None:
    """Raise ModelError `model-damaged` with the first fault found in `graph` or its further subgraphs."""
    for part in (graph, *graph.subgraphs[1:]):
        for fault in _faults(part):
            raise ModelError(
                "model-damaged",
                f"{where} is not a sound model.",
                where=where,
                why=fault,
                try_=("Copy or download the file again.", "Convert the Keras model again."),
            )
