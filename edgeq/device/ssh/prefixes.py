"""The first k operators of a graph as models of their own: their times, one after the other, give each operator's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from edgeq.graph import Graph, write_bytes


def obstacle(graph: Graph) -> str | None:
    """Why a graph has no such prefixes, or None."""
    if len(graph.subgraphs) > 1:
        return "the model has several subgraphs"
    if any(operator.custom_code for operator in graph.operators):
        return "the model has custom operators"
    if any(tensor.is_variable for tensor in graph.tensors):
        return "the model keeps state"
    return None


def prefixes(graph: Graph) -> Iterator[bytes]:
    """`.tflite` files of the first 1, 2, ... all operators; the outputs are the last operator's."""
    for count in range(1, len(graph.operators) + 1):
        yield write_bytes(prefix(graph, count))


def prefix(graph: Graph, count: int) -> Graph:
    """The first `count` operators, with the tensors that they touch."""
    operators = graph.operators[:count]
    touched = {t for operator in operators for t in (*operator.inputs, *operator.outputs) if t >= 0}
    kept = sorted(touched | set(graph.inputs))
    number = {old: new for new, old in enumerate(kept)} | {-1: -1}
    return Graph(
        name=graph.name,
        tensors=tuple(replace(graph.tensors[old], index=number[old]) for old in kept),
        operators=tuple(
            replace(
                operator,
                inputs=tuple(number[t] for t in operator.inputs),
                outputs=tuple(number[t] for t in operator.outputs),
            )
            for operator in operators
        ),
        inputs=tuple(number[t] for t in graph.inputs),
        outputs=tuple(number[t] for t in operators[-1].outputs),
    )
