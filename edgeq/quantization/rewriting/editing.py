"""A float graph under change: operators make way for others that compute the same; tensors are added, none renamed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.graph import Graph, Operator, Tensor, TensorType


class Editor:
    """The tensors of a graph and those added to it, and who reads and writes them in the graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.tensors: list[Tensor] = list(graph.tensors)
        self.readers = graph.consumers()
        self.writers = graph.producers()

    def value(self, index: int) -> NDArray[Any] | None:
        """A constant's value; None for an activation."""
        return self.tensors[index].data

    def shape(self, index: int) -> tuple[int, ...]:
        return self.tensors[index].shape

    def writer(self, index: int, *names: str) -> Operator | None:
        """The operator that writes the tensor, if it is one of `names`."""
        found = self.writers.get(index)
        return found if found is not None and found.name in names else None

    def activation(self, base: int, suffix: str, shape: Sequence[int]) -> int:
        """A new float32 activation, named after the tensor `base`, whose layers it belongs to."""
        return self._add(f"{self.tensors[base].name};{suffix}", tuple(shape), None)

    def constant(self, base: int, suffix: str, value: Any, dtype: str = "float32") -> int:
        """A new constant, named after the tensor `base`."""
        array = np.asarray(value, dtype)
        return self._add(f"{self.tensors[base].name};{suffix}", array.shape, array)

    def _add(self, name: str, shape: tuple[int, ...], data: NDArray[Any] | None) -> int:
        kind = TensorType.FLOAT32 if data is None or data.dtype == np.float32 else TensorType.INT32
        taken = sum(t.name == name or t.name.startswith(f"{name};again") for t in self.tensors)
        name += ";again" * taken
        self.tensors.append(Tensor(len(self.tensors), name, kind, shape, shape, data=data))
        return len(self.tensors) - 1

    def finished(self, operators: Iterable[Operator]) -> Graph:
        """The graph with these operators in this order, without what nobody reads."""
        return compact(replace(self.graph, tensors=tuple(self.tensors), digest="", subgraphs=()), operators)[0]


def operator(name: str, inputs: Sequence[int], output: int, **options: Any) -> Operator:
    """A new operator, numbered when the graph is finished; options not given have the schema's defaults."""
    return Operator(0, name, 1, tuple(inputs), (output,), options)


def compact(graph: Graph, operators: Iterable[Operator]) -> tuple[Graph, Mapping[int, int]]:
    """The graph with these operators, in order, but those nobody reads, and the tensors in use, both numbered anew.

    Also returns where each tensor went: its old index -> its new one. Outputs take their signature's names.
    """
    needed, kept = set(graph.outputs), []
    for op in reversed(list(operators)):
        if needed & set(op.outputs):
            needed.update(op.inputs)
            kept.append(op)
    kept.reverse()
    used = {t for op in kept for t in (*op.inputs, *op.outputs) if t >= 0} | {*graph.inputs, *graph.outputs}
    number = {old: new for new, old in enumerate(sorted(used))}
    number[-1] = -1
    names = {tensor: name for s in graph.signatures for name, tensor in s.outputs.items()}
    tensors = tuple(
        replace(graph.tensors[old], index=number[old], name=names.get(old, graph.tensors[old].name))
        for old in sorted(used)
    )
    renumbered = tuple(
        replace(op, index=i, inputs=tuple(number[t] for t in op.inputs), outputs=tuple(number[t] for t in op.outputs))
        for i, op in enumerate(kept)
    )
    signatures = tuple(
        replace(
            s,
            inputs={name: number[t] for name, t in s.inputs.items()},
            outputs={name: number[t] for name, t in s.outputs.items()},
        )
        for s in graph.signatures
    )
    result = replace(
        graph,
        tensors=tensors,
        operators=renumbered,
        inputs=tuple(number[t] for t in graph.inputs),
        outputs=tuple(number[t] for t in graph.outputs),
        signatures=signatures,
        subgraphs=(),
        digest="",
    )
    return result, number
