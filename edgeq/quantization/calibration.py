"""Ranges of a float model's activations on representative data, computed on the model's own `.tflite`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.graph import Graph, TensorType
from edgeq.interpreter import Interpreter
from edgeq.progress import Progress, silent

AUTO = "auto"
METHODS = ("minmax", "percentile", "mse", "entropy")
BINS = 2048
PERCENTILE = 99.99
_COUNTED = 20_000

Ranges = Mapping[int, tuple[float, float]]


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Tensor index -> smallest and largest value; and, if asked for, a histogram of BINS bins between these."""

    ranges: Ranges
    histograms: Mapping[int, NDArray[np.int64]]


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
    """Run every sample (one array per input, with batch axis) through the float `model`."""
    interpreter = Interpreter(model, preserve_all_tensors=True, reference=False)
    indices = [i for i in activations(graph) if graph.tensors[i].elements]
    ranges = dict.fromkeys(indices, (np.inf, -np.inf))
    for done, _ in enumerate(_runs(interpreter, samples)):
        progress("calibrating", done, len(samples))
        for i in indices:
            value = interpreter.tensor(i)
            low, high = ranges[i]
            ranges[i] = (min(low, float(value.min())), max(high, float(value.max())))
    counts: dict[int, NDArray[np.int64]] = {}
    if histograms:
        counts = {i: np.zeros(BINS, np.int64) for i in indices}
        for done, _ in enumerate(_runs(interpreter, samples)):
            progress("histograms", done, len(samples))
            for i in indices:
                low, high = ranges[i]
                counts[i] += _histogram(interpreter.tensor(i), low, high if high > low else low + 1)
    return Statistics(ranges, counts)


def _histogram(value: NDArray[Any], low: float, high: float) -> NDArray[np.int64]:
    """Counts of BINS equal bins; a large tensor is sampled evenly, as it brings more values than a histogram needs."""
    flat = value.reshape(-1)
    flat = flat[:: max(1, len(flat) // _COUNTED)]
    bins = ((flat - low) * (BINS / (high - low))).astype(np.int64)
    return np.bincount(np.clip(bins, 0, BINS - 1), minlength=BINS)


def _runs(interpreter: Interpreter, samples: Sequence[Sequence[NDArray[Any]]]) -> Iterable[None]:
    for sample in samples:
        interpreter.run(sample)
        yield


def ranges_of(statistics: Statistics, method: str, *, bits: int = 8) -> Ranges:
    """The range of each tensor by `method`, one of METHODS; all but minmax need histograms."""
    if method == "minmax":
        return statistics.ranges
    choose = {"percentile": _percentile, "mse": _mse, "entropy": _entropy}[method]
    return {i: choose(statistics.histograms[i], *span, bits) for i, span in statistics.ranges.items()}


def _percentile(counts: NDArray[np.int64], low: float, high: float, bits: int) -> tuple[float, float]:  # noqa: ARG001
    """The shortest range from which at most (100 - PERCENTILE) / 2 percent lie on either side."""
    share = np.cumsum(counts) / max(1, counts.sum())
    tail = (1 - PERCENTILE / 100) / 2
    edges = np.linspace(low, high, BINS + 1)
    first = int(np.searchsorted(share, tail, side="right"))
    last = int(np.searchsorted(share, 1 - tail, side="left"))
    return float(edges[min(first, BINS - 1)]), float(edges[min(last, BINS - 1) + 1])


def _clipped(low: float, high: float) -> list[tuple[float, float]]:
    """Candidate ranges: both ends moved towards zero by the same factor; an end at zero stays there."""
    factors = np.linspace(1.0, 0.3, 57)
    return [(low * f if low < 0 else low, high * f if high > 0 else high) for f in factors]


def _mse(counts: NDArray[np.int64], low: float, high: float, bits: int) -> tuple[float, float]:
    """The range with the least expected squared error of rounding and clipping."""
    centres = np.linspace(low, high, 2 * BINS + 1)[1::2]

    def error(span: tuple[float, float]) -> float:
        step = max((max(span[1], 0) - min(span[0], 0)) / (2**bits - 1), 1e-30)
        lowest, highest = min(span[0], 0), max(span[1], 0)
        inside = np.clip(centres, lowest, highest)
        rounded = np.round((inside - lowest) / step) * step + lowest
        outside = centres != inside
        # Inside, a bin is far narrower than a step or far wider; step^2 / 12 is the error of either on average.
        squared = np.where(
            outside, (centres - inside) ** 2, np.minimum((rounded - centres) ** 2 + step**2 / 24, step**2 / 12)
        )
        return float((squared * counts).sum())

    return min(_clipped(low, high), key=error)


def _entropy(counts: NDArray[np.int64], low: float, high: float, bits: int) -> tuple[float, float]:
    """The range whose quantized histogram has the least Kullback-Leibler divergence from the clipped one.

    After Migacz, "8-bit inference with TensorRT" (2017), for asymmetric ranges.
    """
    edges = np.linspace(low, high, BINS + 1)
    levels = 2**bits

    def divergence(span: tuple[float, float]) -> float:
        first = int(np.clip(np.searchsorted(edges, span[0], side="right") - 1, 0, BINS - 1))
        last = int(np.clip(np.searchsorted(edges, span[1], side="left"), first + 1, BINS))
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
