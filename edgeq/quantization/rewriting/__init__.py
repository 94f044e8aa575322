"""A float `.tflite` graph rewritten so that all of it can become integer, each kind of rewrite proven on data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import ModelError
from edgeq.graph import Graph, Operator, verify, write_bytes
from edgeq.interpreter import Interpreter
from edgeq.quantization.rewriting.editing import Editor
from edgeq.quantization.rewriting.rules import KINDS, WIDE_KINDS, Kind

PROVEN_ON = 8
# Of an output's standard deviation: float32 sums taken in another order differ by less.
_TOLERANCE = 1e-4

Sample = Sequence[NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Rewritten:
    """A graph, and what was rewritten to get it."""

    graph: Graph
    told: tuple[str, ...]


def rewrite(graph: Graph, samples: Sequence[Sample], *, wide: bool) -> Rewritten:
    """The float `graph` with operators replaced that would stay in float, or that the kernels get wrong, in integer.

    A kind of rewrite is kept only if the outputs on up to PROVEN_ON of `samples` (one array per input, with batch axis)
    stay the same. `wide`: activations get 16 bits.
    """
    few = samples[:: max(1, len(samples) // PROVEN_ON)][:PROVEN_ON]
    expected: list[NDArray[Any]] | None = None
    told = []
    for kind in WIDE_KINDS if wide else KINDS:
        changed = _applied(graph, kind)
        if changed is None:
            continue
        verify(changed)
        if expected is None:
            expected = _outputs(graph, few)
        if _proven(changed, few, expected):
            graph = changed
            told.append(f"{kind.told}; the float outputs stay the same on {len(few)} samples")
    return Rewritten(graph, tuple(told))


def _applied(graph: Graph, kind: Kind) -> Graph | None:
    """The graph with the rule applied wherever it applies; None if it does so nowhere."""
    edit = Editor(graph)
    operators: list[Operator] = []
    same: dict[int, int] = {}
    count = 0
    for op in graph.operators:
        instead = kind.rule(edit, op)
        count += instead is not None
        if instead == []:
            same[op.outputs[0]] = same.get(op.inputs[0], op.inputs[0])
        operators += [op] if instead is None else instead
    operators = [replace(op, inputs=tuple(same.get(t, t) for t in op.inputs)) for op in operators]
    return edit.finished(operators) if count else None


def _outputs(graph: Graph, samples: Sequence[Sample]) -> list[NDArray[Any]]:
    interpreter = Interpreter(write_bytes(graph), reference=False)
    runs = []
    for sample in samples:
        interpreter.reset()
        runs.append(interpreter.run(sample))
    return [np.stack([run[i] for run in runs]) for i in range(len(graph.outputs))]


def _proven(graph: Graph, samples: Sequence[Sample], expected: Sequence[NDArray[Any]]) -> bool:
    try:
        found = _outputs(graph, samples)
    except ModelError:  # an index that only the original understood
        return False
    return all(_same(before, after) for before, after in zip(expected, found, strict=True))


def _same(before: NDArray[Any], after: NDArray[Any]) -> bool:
    if not np.array_equal(np.isfinite(before), np.isfinite(after)):
        return False
    before, after = np.nan_to_num(before), np.nan_to_num(after)
    return float(np.max(np.abs(after - before), initial=0.0)) <= _TOLERANCE * max(float(np.std(before)), 1e-6)
