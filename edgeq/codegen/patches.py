"""Patch-by-patch execution: the first layers computed for a few rows of their result at a time.

The first layers of a network for images hold its largest tensors. A stage is a run of operators from the first one
on whose results depend on few rows of their inputs, with one tensor in and one out. Its output is cut into patches of
whole rows; for each patch every operator of the stage computes the rows that the patch needs, the halo of windowed
operators anew, into small tensors. What is read of the stage's input and written of its output are runs of rows, which
are contiguous: views, nothing is copied. The same kernels run, so the bytes are the same; multiplications are repeated.
(MCUNetV2, https://arxiv.org/abs/2110.15352, cuts in both directions, and copies.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from edgeq.codegen.buffers import VIEW, demand_bytes, is_view
from edgeq.codegen.lower.convolution import same_padding
from edgeq.codegen.step import Overlap, Step
from edgeq.graph.ir import Graph, Operator, Tensor, TensorType

_FILTERED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D"})
_POOLS = frozenset({"AVERAGE_POOL_2D", "MAX_POOL_2D"})
_POINTWISE = frozenset({"ABS", "ADD", "ELU", "EXP", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "MAXIMUM"})
_POINTWISE |= {"MINIMUM", "MUL", "NEG", "PRELU", "QUANTIZE", "RELU", "RELU6", "RELU_N1_TO_1", "SQUARE"}
_POINTWISE |= {"SQUARED_DIFFERENCE", "SUB", "TANH"}

MOST_PATCHES = 24
"""Patches of a stage; each has its own calls and parameters."""

_ANYWHERE = 1 << 30
"""Bytes: an overlap that is allowed wherever the output starts."""

_Rows = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """Operators start..end of a graph (positions), the tensor they read and the one they make."""

    graph: Graph
    start: int
    end: int
    source: int
    result: int

    @property
    def operators(self) -> tuple[Operator, ...]:
        return self.graph.operators[self.start : self.end]

    @property
    def rows(self) -> int:
        """Rows of the result."""
        return self.graph.tensors[self.result].shape[1]


@dataclass(frozen=True, slots=True, eq=False)
class Patched:
    """A graph with a stage cut into patches of `rows` rows of its result, and what that repeats.

    multiplications: of the whole stage; repeated: those done again because patches share rows, less those of rows that
    nobody reads.
    """

    graph: Graph
    stage: Stage
    rows: int
    multiplications: int
    repeated: int

    @property
    def count(self) -> int:
        return -(-self.stage.rows // self.rows)


def stages(graph: Graph) -> Iterator[Stage]:
    """All stages of a graph, from the first operator that can be cut; the shortest first."""
    start = next((i for i, op in enumerate(graph.operators) if not is_view(op)), len(graph.operators))
    written: set[int] = set()
    source: int | None = None
    for end in range(start, len(graph.operators)):
        operator = graph.operators[end]
        if not _can_be_cut(graph, operator):
            return
        entering = {t for t in _activations(graph, operator) if t not in written}
        source = next(iter(entering)) if source is None and entering else source
        if not entering <= {source}:
            return
        written.update(operator.outputs)
        after = {t for op in graph.operators[end + 1 :] for t in op.inputs} | set(graph.outputs)
        leaving = written & after
        if source is not None and leaving == set(operator.outputs):
            yield Stage(graph, start, end + 1, source, operator.outputs[0])


def _activations(graph: Graph, operator: Operator) -> list[int]:
    return [t for t in operator.inputs if t >= 0 and not graph.tensors[t].is_constant]


def _can_be_cut(graph: Graph, operator: Operator) -> bool:
    """Whether rows of the result depend on a few rows of the inputs only, each of rank 4 and batch 1."""
    sources = [graph.tensors[t] for t in _activations(graph, operator)]
    tensors = [*sources, *(graph.tensors[t] for t in operator.outputs)]
    if len(operator.outputs) != 1 or any(len(t.shape) != 4 or t.shape[0] != 1 or t.is_variable for t in tensors):
        return False
    if any(t.type not in (TensorType.INT8, TensorType.INT16, TensorType.UINT8) for t in tensors):
        return False
    constants = [graph.tensors[t] for t in operator.inputs if t >= 0 and graph.tensors[t].is_constant]
    if operator.name in _FILTERED | _POOLS:
        return len(sources) == 1
    if operator.name == "CONCATENATION":
        return operator.options.get("axis") in (3, -1) and VIEW not in operator.options and not constants
    in_rows = all(len(t.shape) < 3 or t.shape[-3] == 1 for t in constants)
    alike = bool(sources) and all(t.shape == tensors[-1].shape for t in sources)
    return operator.name in _POINTWISE and in_rows and alike


@dataclass(frozen=True, slots=True)
class _Window:
    """A windowed operator in height: extent of its filter, stride, dilation, padding above and, in width, both."""

    extent: int
    stride: int
    top: int
    left: int
    right: int

    @classmethod
    def of(cls, graph: Graph, operator: Operator) -> _Window:
        source, result = graph.tensors[operator.inputs[0]].shape, graph.tensors[operator.outputs[0]].shape
        options = operator.options
        if operator.name in _POOLS:
            height, width = int(options["filter_height"]), int(options["filter_width"])
        else:
            _, height, width, _ = graph.tensors[operator.inputs[1]].shape
        dilation = int(options.get("dilation_h_factor", 1)), int(options.get("dilation_w_factor", 1))
        stride = int(options["stride_h"]), int(options["stride_w"])
        extent = (height - 1) * dilation[0] + 1, (width - 1) * dilation[1] + 1
        top = left = 0
        if explicit := options.get("explicit_padding"):
            top, _, left, _ = explicit
        elif options["padding"] == "SAME":
            top = same_padding(source[1], height, stride[0], dilation[0], result[1])
            left = same_padding(source[2], width, stride[1], dilation[1], result[2])
        right = max(0, (result[2] - 1) * stride[1] + extent[1] - source[2] - left)
        return cls(extent[0], stride[0], top, left, right)

    def reads(self, rows: _Rows) -> _Rows:
        """The rows of the padded input, from its first real one on, that make rows of the result."""
        return rows[0] * self.stride - self.top, (rows[1] - 1) * self.stride - self.top + self.extent


class _Cutter:
    """Builds the graph of a stage in patches: new tensors and operators, patch by patch."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.graph = stage, stage.graph
        self.tensors = list(stage.graph.tensors)
        self.operators: list[Operator] = []
        self.multiplications = 0

    def _tile(self, tensor: int, rows: _Rows) -> int:
        """A new tensor for rows of a tensor."""
        whole = self.graph.tensors[tensor]
        shape = (1, rows[1] - rows[0], *whole.shape[2:])
        name = f"{whole.name} rows {rows[0]}-{rows[1] - 1}"
        self.tensors.append(replace(whole, index=len(self.tensors), name=name, shape=shape, shape_signature=shape))
        return len(self.tensors) - 1

    def _constant(self, values: Sequence[int]) -> int:
        data = np.array(values, np.int32)
        index = len(self.tensors)
        self.tensors.append(Tensor(index, f"rows {index}", TensorType.INT32, data.shape, data.shape, None, data))
        return index

    def _emit(self, operator: Operator, inputs: Sequence[int], output: int, **options: Any) -> None:
        changed = MappingProxyType({**operator.options, **options})
        self.operators.append(replace(operator, inputs=tuple(inputs), outputs=(output,), options=changed))

    def _view(self, tensor: int, held: tuple[int, _Rows], rows: _Rows) -> int:
        """Rows of a tensor, of which the tensor `held` has some."""
        tile, have = held
        if have == rows:
            return tile
        part, shape = self._tile(tensor, rows), self.tensors[tile].shape
        offset = (rows[0] - have[0]) * (self.tensors[tile].size_bytes // shape[1])
        begin, size = (0, rows[0] - have[0], 0, 0), (1, rows[1] - rows[0], *shape[2:])
        slice_ = Operator(-1, "SLICE", 1, (tile, self._constant(begin), self._constant(size)), (part,), {VIEW: offset})
        self.operators.append(slice_)
        return part

    def _reads(self, operator: Operator, rows: _Rows) -> _Rows:
        """The rows of its inputs that an operator needs for rows of its result."""
        if operator.name not in _FILTERED | _POOLS:
            return rows
        first, last = _Window.of(self.graph, operator).reads(rows)
        return max(0, first), min(self.graph.tensors[operator.inputs[0]].shape[1], last)

    def _needs(self, rows: _Rows) -> Mapping[int, _Rows]:
        """Tensor -> the rows of it that a patch of the result needs."""
        needs: dict[int, _Rows] = {self.stage.result: rows}
        for operator in reversed(self.stage.operators):
            wanted = self._reads(operator, needs[operator.outputs[0]])
            for tensor in _activations(self.graph, operator):
                first, last = needs.get(tensor, wanted)
                needs[tensor] = min(first, wanted[0]), max(last, wanted[1])
        return needs

    def patch(self, rows: _Rows) -> int:
        """Compute rows of the stage's result into a new tensor, which is returned."""
        needs = self._needs(rows)
        source = self.stage.source
        whole = source, (0, self.graph.tensors[source].shape[1])
        held: dict[int, tuple[int, _Rows]] = {source: whole}
        for operator in self.stage.operators:
            made = needs[operator.outputs[0]]
            wanted = self._reads(operator, made)
            inputs = [
                t if t < 0 or self.graph.tensors[t].is_constant else self._view(t, held[t], wanted)
                for t in operator.inputs
            ]
            output = self._tile(operator.outputs[0], made)
            held[operator.outputs[0]] = output, made
            self.multiplications += self._cost(operator, made)
            self._emit(operator, inputs, output, **self._padding(operator, made))
        return held[self.stage.result][0]

    def _padding(self, operator: Operator, rows: _Rows) -> dict[str, Any]:
        """Only patches at the upper and lower edge are padded there."""
        if operator.name not in _FILTERED | _POOLS:
            return {}
        window = _Window.of(self.graph, operator)
        first, last = window.reads(rows)
        below = last - self.graph.tensors[operator.inputs[0]].shape[1]
        return {"padding": "VALID", "explicit_padding": (max(0, -first), max(0, below), window.left, window.right)}

    def _cost(self, operator: Operator, rows: _Rows) -> int:
        return (
            multiplications(self.graph, operator)
            // self.graph.tensors[operator.outputs[0]].shape[1]
            * (rows[1] - rows[0])
        )


def multiplications(graph: Graph, operator: Operator) -> int:
    """Multiply-accumulates of a convolution or depthwise convolution, padding included; 0 of other operators."""
    if operator.name not in _FILTERED:
        return 0
    filters, elements = graph.tensors[operator.inputs[1]].shape, graph.tensors[operator.outputs[0]].elements
    return elements * filters[1] * filters[2] * (filters[3] if operator.name == "CONV_2D" else 1)


def cut(stage: Stage, rows: int) -> Patched | None:
    """The graph with a stage in patches of `rows` rows of its result; None where a patch would read only padding."""
    cutter = _Cutter(stage)
    patches = [(first, min(first + rows, stage.rows)) for first in range(0, stage.rows, rows)]
    for patch in patches:
        if any(first >= last for first, last in cutter._needs(patch).values()):
            return None
    parts = tuple(cutter.patch(patch) for patch in patches)
    join = Operator(-1, "CONCATENATION", 1, parts, (stage.result,), {"axis": 1, VIEW: 0})
    before, after = stage.graph.operators[: stage.start], stage.graph.operators[stage.end :]
    operators = (*before, *cutter.operators, join, *after)
    whole = sum(multiplications(stage.graph, operator) for operator in stage.operators)
    graph = replace(stage.graph, tensors=tuple(cutter.tensors), operators=operators)
    return Patched(graph, stage, rows, whole, cutter.multiplications - whole)


def cuts(stage: Stage) -> Iterator[int]:
    """Rows of a patch worth trying: one number for each number of patches, the fewest patches first."""
    counts = range(2, min(MOST_PATCHES, stage.rows) + 1)
    yield from dict.fromkeys(-(-stage.rows // count) for count in counts)


def least_bytes(graph: Graph) -> int:
    """What the arena of a graph takes at least, if every operator could work in place and without scratch."""
    steps = []
    for operator in graph.operators:
        if not is_view(operator):
            sources = tuple(dict.fromkeys(_activations(graph, operator)))
            overlaps = tuple(Overlap(t, result, -_ANYWHERE) for t in sources for result in operator.outputs)
            steps.append(Step(operator.index, operator.name, "", "", (), sources, operator.outputs, overlaps=overlaps))
    return demand_bytes(graph, steps)
