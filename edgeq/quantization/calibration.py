"""Ranges of a float model's activations on representative data, computed on the model's own `.tflite`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.graph import Graph, Operator, TensorType
from edgeq.interpreter import Interpreter
from edgeq.progress import Progress, silent

AUTO = "auto"
METHODS = ("minmax", "percentile", "mse", "entropy")
BINS = 8192
PERCENTILE = 99.99
_COUNTED = 10_000
_LEAST_EXPONENT = -100
LSTM = "UNIDIRECTIONAL_SEQUENCE_LSTM"
# What an operator of these writes are codes that it read.
COPYING = frozenset(
    {"CONCATENATION", "EXPAND_DIMS", "GATHER", "PACK", "RESHAPE", "REVERSE_V2", "SLICE", "SPLIT", "SPLIT_V", "SQUEEZE",
     "STRIDED_SLICE", "TRANSPOSE", "UNPACK"}
)  # fmt: skip
# Positions of an LSTM operator's states among its inputs.
LSTM_HIDDEN, LSTM_CELL = 18, 19

Ranges = Mapping[int, tuple[float, float]]


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Counts in BINS equal bins over [-reach, reach]. `reach` is a power of two, so that adding histograms is exact."""

    reach: float
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, value: NDArray[Any]) -> Histogram:
        """A large tensor is sampled evenly, all of its channels alike, as it brings more than a histogram needs."""
        stride = max(1, value.size // _COUNTED)
        while math.gcd(stride, value.shape[-1] if value.ndim else 1) > 1:
            stride += 1
        flat = value.reshape(-1)[::stride]
        _, exponent = math.frexp(float(np.abs(flat).max()))
        reach = math.ldexp(1.0, max(exponent, _LEAST_EXPONENT))
        # A product with a power of two is exact.
        bins = np.floor(flat * np.float32(BINS / 2 / reach)).astype(np.int64) + BINS // 2
        return cls(reach, np.bincount(np.clip(bins, 0, BINS - 1), minlength=BINS))

    def __add__(self, other: Histogram) -> Histogram:
        reach = max(self.reach, other.reach)
        return Histogram(reach, self._over(reach) + other._over(reach))

    def _over(self, reach: float) -> NDArray[np.int64]:
        if reach == self.reach:
            return self.counts
        wider = int(min(reach / self.reach, BINS))
        bins = BINS // 2 + (np.arange(BINS) - BINS // 2) // wider
        return np.bincount(bins, self.counts, BINS).astype(np.int64)

    def between(self, low: float, high: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The counts of the bins that reach into [low, high], and their edges, the outer two being low and high."""
        edges = np.linspace(-self.reach, self.reach, BINS + 1)
        first = int(np.clip(np.searchsorted(edges, low, side="right") - 1, 0, BINS - 1))
        last = int(np.clip(np.searchsorted(edges, high, side="right"), first + 1, BINS))
        counts = self.counts[first:last].copy()
        kept = edges[first : last + 1].copy()
        kept[0], kept[-1] = low, high
        return counts, kept


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Tensor index -> smallest and largest value; and, if asked for, a histogram of them."""

    ranges: Ranges
    histograms: Mapping[int, Histogram]

    def __add__(self, other: Statistics) -> Statistics:
        """Of the samples of both."""
        spans = {
            i: (min(low, other.ranges[i][0]), max(high, other.ranges[i][1])) for i, (low, high) in self.ranges.items()
        }
        return Statistics(spans, {i: own + other.histograms[i] for i, own in self.histograms.items()})


def activations(graph: Graph) -> list[int]:
    """Indices of the float tensors that operators or the user write."""
    return [t.index for t in graph.tensors if not t.is_constant and t.type is TensorType.FLOAT32]


def collect(
    model: bytes,
    graph: Graph,
    samples: Sequence[Sequence[NDArray[Any]]],
    *,
    histograms: bool,
    progress: Progress = silent,
) -> Statistics:
    """Run every sample (one array per input, with batch axis) through the float `model`, from its initial state.

    The cell state of an LSTM operator gets the range of all moments, and no histogram.
    """
    interpreter = Interpreter(model, preserve_all_tensors=True, reference=False)
    indices = [i for i in activations(graph) if graph.tensors[i].elements]
    ranges = dict.fromkeys(indices, (np.inf, -np.inf))
    cells = {op.inputs[LSTM_CELL]: op for op in graph.operators if op.name == LSTM}
    counted: dict[int, Histogram] = {}
    for done, _ in enumerate(_runs(interpreter, samples)):
        progress("calibrating", done, len(samples))
        for i in indices:
            cell = cells.get(i)
            value = interpreter.tensor(i) if cell is None else _cell_states(graph, cell, interpreter)
            low, high = ranges[i]
            ranges[i] = (min(low, float(value.min())), max(high, float(value.max())))
            if histograms and cell is None:
                own = Histogram.of(value)
                counted[i] = counted[i] + own if i in counted else own
    return Statistics(ranges, counted)


def shared(graph: Graph, ranges: Ranges) -> Ranges:
    """The ranges with one for all tensors that codes are copied between, where the converter does not see to it.

    It lets CONCATENATION's inputs have the scale of its output, but leaves the state of an LSTM operator that writes
    one of them as it was, and what REVERSE_V2 reads.
    """
    group = {i: {i} for i in ranges}
    for op in graph.operators:
        if op.name in COPYING:
            joined = set().union(*(group[t] for t in (*op.inputs, *op.outputs) if t in group))
            group |= dict.fromkeys(joined, joined)
    result = dict(ranges)
    for op in graph.operators:
        if op.name in ("REVERSE_V2", LSTM) and op.outputs[0] in group:
            together = group[op.outputs[0]]
            lows, highs = zip(*(ranges[t] for t in together), strict=True)
            result |= dict.fromkeys(together, (min(lows), max(highs)))
    return result


def _cell_states(graph: Graph, op: Operator, interpreter: Interpreter) -> NDArray[Any]:
    """The cell state of a float LSTM operator after each moment, (time, batch, units), from what it read and wrote.

    c' = sigmoid(f) c + sigmoid(i) tanh(g), whose inputs, biases apart, are the input and the output before.
    """
    x, told = interpreter.tensor(op.inputs[0]), interpreter.tensor(op.outputs[0])
    if not op.options["time_major"]:
        x, told = np.swapaxes(x, 0, 1), np.swapaxes(told, 0, 1)
    before = np.concatenate([np.zeros_like(told[:1]), told[:-1]])

    def gate(number: int) -> NDArray[Any]:
        weights, recurrent, bias = (graph.tensor(op.inputs[first + number]).data for first in (1, 5, 12))
        assert weights is not None
        assert recurrent is not None
        return np.asarray(x @ weights.T + before @ recurrent.T + (0 if bias is None else bias))

    i, f, g = 1 / (1 + np.exp(-gate(0))), 1 / (1 + np.exp(-gate(1))), np.tanh(gate(2))
    cell, seen = np.zeros_like(told[0]), []
    for moment in range(len(x)):
        cell = f[moment] * cell + i[moment] * g[moment]
        seen.append(cell)
    return np.stack(seen)


def _runs(interpreter: Interpreter, samples: Sequence[Sequence[NDArray[Any]]]) -> Iterable[None]:
    for sample in samples:
        interpreter.reset()
        interpreter.run(sample)
        yield


def ranges_of(statistics: Statistics, method: str, *, bits: int = 8) -> Ranges:
    """The range of each tensor by `method`, one of METHODS; all but minmax need histograms."""
    if method == "minmax":
        return statistics.ranges
    choose = {"percentile": _percentile, "mse": _mse, "entropy": _entropy}[method]
    return {
        i: choose(*statistics.histograms[i].between(*span), bits)
        if i in statistics.histograms and span[0] < span[1]
        else span
        for i, span in statistics.ranges.items()
    }


def _percentile(counts: NDArray[np.int64], edges: NDArray[Any], bits: int) -> tuple[float, float]:  # noqa: ARG001
    """The shortest range from which at most (100 - PERCENTILE) / 2 percent lie on either side."""
    share = np.cumsum(counts) / max(1, counts.sum())
    tail = (1 - PERCENTILE / 100) / 2
    first = int(np.searchsorted(share, tail, side="right"))
    last = int(np.searchsorted(share, 1 - tail, side="left"))
    return float(edges[min(first, len(counts) - 1)]), float(edges[min(last, len(counts) - 1) + 1])


def _clipped(low: float, high: float) -> list[tuple[float, float]]:
    """Candidate ranges: both ends moved towards zero by the same factor; an end at zero stays there."""
    factors = np.linspace(1.0, 0.3, 57)
    return [(low * f if low < 0 else low, high * f if high > 0 else high) for f in factors]


def _mse(counts: NDArray[np.int64], edges: NDArray[Any], bits: int) -> tuple[float, float]:
    """The range with the least expected squared error of rounding and clipping."""
    low, high, width = float(edges[0]), float(edges[-1]), float(np.diff(edges).max())
    centres = ((edges[:-1] + edges[1:]) / 2)[counts > 0]
    counts = counts[counts > 0]

    def error(span: tuple[float, float]) -> float:
        step = max((max(span[1], 0) - min(span[0], 0)) / (2**bits - 1), 1e-30)
        lowest, highest = min(span[0], 0), max(span[1], 0)
        inside = np.clip(centres, lowest, highest)
        rounded = np.round((inside - lowest) / step) * step + lowest
        # A bin is at most 0.41 of a step wide.
        squared = np.where(centres == inside, (rounded - centres) ** 2 + width**2 / 12, (centres - inside) ** 2)
        return float((squared * counts).sum())

    return min(_clipped(low, high), key=error)


def _entropy(counts: NDArray[np.int64], edges: NDArray[Any], bits: int) -> tuple[float, float]:
    """The range whose quantized histogram has the least Kullback-Leibler divergence from the clipped one.

    After Migacz, "8-bit inference with TensorRT" (2017), for asymmetric ranges.
    """
    low, high = float(edges[0]), float(edges[-1])
    bins, levels = len(counts), 2**bits

    def divergence(span: tuple[float, float]) -> float:
        first = int(np.clip(np.searchsorted(edges, span[0], side="right") - 1, 0, bins - 1))
        last = int(np.clip(np.searchsorted(edges, span[1], side="left"), first + 1, bins))
        inside = counts[first:last].astype(np.float64)
        reference = inside.copy()
        reference[0] += counts[:first].sum()
        reference[-1] += counts[last:].sum()
        group = np.arange(len(inside)) * levels // max(len(inside), levels)
        total = np.bincount(group, inside)
        used = np.bincount(group, inside > 0)
        spread = np.where(inside > 0, total[group] / np.maximum(used[group], 1), 0)
        p, q = reference / reference.sum(), spread / max(spread.sum(), 1e-30)
        known = p > 0
        return float((p[known] * np.log(p[known] / np.maximum(q[known], 1e-9))).sum())

    if counts.sum() == 0:
        return low, high
    return min(_clipped(low, high), key=divergence)


def channel_magnitudes(
    model: bytes, graph: Graph, samples: Sequence[Sequence[NDArray[Any]]]
) -> dict[int, NDArray[np.float64]]:
    """Tensor index -> largest absolute value of each channel (last axis), for activations of two axes or more."""
    interpreter = Interpreter(model, preserve_all_tensors=True, reference=False)
    largest = {i: np.zeros(graph.tensors[i].shape[-1]) for i in activations(graph) if len(graph.tensors[i].shape) >= 2}
    for _ in _runs(interpreter, samples):
        for i, seen in largest.items():
            value = np.abs(interpreter.tensor(i))
            np.maximum(seen, value.reshape(-1, value.shape[-1]).max(axis=0), out=seen)
    return largest
