"""Integer schemes after training: candidates are built, measured against the float model, and the best is kept.

Half of the samples (every other one) sets the ranges of a candidate, the other half measures it, so that clipping costs
what it will cost later. The winner is built again on all samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from edgeq.graph import Graph, read_bytes, write_bytes
from edgeq.progress import Progress
from edgeq.quantization import mixture, tflite_converter
from edgeq.quantization.calibration import AUTO, Ranges, Statistics, channel_magnitudes, collect, ranges_of, shared
from edgeq.quantization.equalization import equalize, widest_spread
from edgeq.quantization.evaluation import mean_absolute_error, outputs_of
from edgeq.quantization.layer_map import original_name
from edgeq.quantization.mixture import Schemes
from edgeq.quantization.weights import WEIGHTED, requantize

_TRIED = ("minmax", "percentile", "mse")
# Above so many multiply-accumulates an inference, trying everything takes longer than the conversion itself.
_THOROUGH_MACS = 100_000_000
_WORTH_EQUALIZING = 30.0
_LEAST_SAMPLES = 20
_SCORED = 64
_FEW = 8
_SCORED_MACS = 1_000_000_000
_RECONSTRUCTED = 48
# A change must lower the measured error by this share: less is noise.
_GAIN = 0.03
# The same where the result has more operators: splitting a ReLU6 costs a MINIMUM.
_GAIN_OF_OPERATORS = 0.1

Sample = Sequence[NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Float:
    """A float `.tflite`, read; `equalized` says in how many places."""

    tflite: bytes
    graph: Graph
    equalized: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """A result, what was done beyond plain quantization, and the float `.tflite` whose tensors it approximates."""

    tflite: bytes
    improvements: tuple[str, ...]
    reference: bytes


@dataclass(frozen=True, slots=True)
class Recipe:
    """What makes one candidate."""

    method: str
    equalized: bool = False
    weights: str = "nearest"  # nearest | corrected | reconstructed


class PostTraining:
    """One float model and its calibration samples (batch-1 arrays)."""

    def __init__(
        self,
        model: Float,
        samples: Sequence[Sample],
        *,
        io: str | None,
        macs: int,
        weight_bits: int,
        progress: Progress,
        schemes: Schemes | None = None,
        per_channel: bool = True,
        states: Sequence[tuple[str, str]] = (),
    ) -> None:
        """`schemes`: that of each operator, where they differ; `weight_bits` is then the least of them.

        `states`: inputs and the outputs that are fed back to them, which get one range.
        """
        self._states = states
        self._plain, self._samples, self._io, self._bits, self._progress = model, samples, io, weight_bits, progress
        self._schemes, self._per_channel = schemes, per_channel
        self._fit, self._held = samples[::2], samples[1::2]
        self._scored = self._held[: min(_SCORED, max(2, _SCORED_MACS // max(1, macs)))]
        self._thorough = macs <= _THOROUGH_MACS
        self._tried = _TRIED if self._thorough else ("minmax", "mse")
        self._expected: list[NDArray[Any]] | None = None
        self._equal: Float | None = None
        self._magnitudes: dict[int, NDArray[Any]] | None = None
        self._statistics: dict[tuple[bool, int], Statistics] = {}
        self._histograms = False

    def run(self, method: str) -> Quantized:
        """The `.tflite`. `method`: one of calibration's METHODS, or AUTO."""
        recipe, told = self.choose(method)
        return replace(self.build(recipe), improvements=told)

    def build(self, recipe: Recipe) -> Quantized:
        """The `.tflite` by a recipe, its ranges from all samples."""
        reference = self._equalized() if recipe.equalized else self._plain
        return Quantized(self._build(recipe, self._samples), (), reference.tflite)

    def mixed(self, schemes: Schemes) -> PostTraining:
        """The same model and samples, what was learned of them so far, and a scheme for each operator."""
        other = copy(self)
        other._schemes, other._bits = schemes, 4 if "int4" in schemes else 8
        return other

    def choose(self, method: str) -> tuple[Recipe, tuple[str, ...]]:
        """The recipe with the least error, and what to tell of it. `method` as for `run`."""
        if method != AUTO or len(self._samples) < _LEAST_SAMPLES:
            return Recipe("minmax" if method == AUTO else method, weights=self._default_weights()), ()
        self._histograms = True
        best, error = self._choose([Recipe(m, weights=self._default_weights()) for m in self._tried])
        first = error
        if self._may_equalize():
            costs = len(self._equalized().graph.operators) > len(self._plain.graph.operators)
            tried = [Recipe(m, True, best.weights) for m in ("minmax", best.method)]
            best, error = self._improve(best, error, tried, _GAIN_OF_OPERATORS if costs else _GAIN)
        if self._thorough:
            others = ("corrected", "reconstructed") if self._bits == 8 else ("corrected",)
            best, error = self._improve(best, error, [Recipe(best.method, best.equalized, w) for w in others])
        return best, tuple(self._told(best, first, error))

    def _default_weights(self) -> str:
        return "nearest" if self._bits == 8 else "reconstructed"

    def _told(self, best: Recipe, first: float, error: float) -> list[str]:
        told = [f"ranges by {best.method}, of {', '.join(self._tried)} the one with the least error"]
        if best.equalized:
            told.append(f"channels equalized between {self._equalized().equalized} pairs of layers")
        if best.weights == "corrected":
            told.append("biases corrected for the mean error of rounded weights")
        if best.weights == "reconstructed":
            told.append("weights rounded so that each layer keeps its output")
        if error < first:
            told.append(f"these lowered the error on the held-out half by {1 - error / first:.0%}")
        return told

    def _choose(self, recipes: Sequence[Recipe]) -> tuple[Recipe, float]:
        errors = []
        for done, recipe in enumerate(dict.fromkeys(recipes)):
            self._progress("choosing", done, len(recipes))
            errors.append((self._score(recipe), done, recipe))
        error, _, best = min(errors, key=lambda entry: entry[:2])
        return best, error

    def _improve(
        self, best: Recipe, error: float, recipes: Sequence[Recipe], gain: float = _GAIN
    ) -> tuple[Recipe, float]:
        other, less = self._choose(recipes)
        return (other, less) if less < error * (1 - gain) else (best, error)

    def _score(self, recipe: Recipe) -> float:
        result = self._build(recipe, self._fit)
        graph = read_bytes(result)
        bare = [[value[0] for value in sample] for sample in self._scored]
        if self._expected is None:
            self._expected = outputs_of(self._plain.tflite, self._plain.graph, bare, reference=False)
        return mean_absolute_error(self._expected, outputs_of(result, graph, bare, reference=False))

    def _may_equalize(self) -> bool:
        if not self._thorough and widest_spread(self._plain.graph, self._seen_magnitudes()) < _WORTH_EQUALIZING:
            return False
        return self._equalized().equalized > 0

    def _seen_magnitudes(self) -> dict[int, NDArray[Any]]:
        if self._magnitudes is None:
            few = self._fit[: _SCORED if self._thorough else _FEW]
            self._magnitudes = channel_magnitudes(self._plain.tflite, self._plain.graph, few)
        return self._magnitudes

    def _equalized(self) -> Float:
        if self._equal is None:
            graph, changed = equalize(self._plain.graph, self._seen_magnitudes())
            tflite = write_bytes(graph) if changed else self._plain.tflite
            self._equal = Float(tflite, read_bytes(tflite), changed)
        return self._equal

    def _build(self, recipe: Recipe, samples: Sequence[Sample]) -> bytes:
        model = self._equalized() if recipe.equalized else self._plain
        statistics = self._statistics_of(model, recipe, 0)
        if samples is not self._fit and self._held:
            statistics += self._statistics_of(model, recipe, 1)
        ranges = shared(model.graph, with_states(model.graph, ranges_of(statistics, recipe.method), self._states))
        result = self._quantize(model, ranges, samples)
        if recipe.weights == "nearest":
            return result
        graph = read_bytes(result)
        bits = self._bits_of(graph)
        changed = requantize(
            graph,
            model.graph,
            model.tflite,
            samples[:: max(1, len(samples) // _RECONSTRUCTED)],
            bits,
            rounding=recipe.weights == "reconstructed",
            per_channel=self._per_channel,
            progress=self._progress,
        )
        return write_bytes(changed)

    def _statistics_of(self, model: Float, recipe: Recipe, half: int) -> Statistics:
        """Of the half that sets the ranges of candidates (0), or of the other."""
        key, wants_histograms = (recipe.equalized, half), self._histograms or recipe.method != "minmax"
        if key not in self._statistics or (wants_histograms and not self._statistics[key].histograms):
            samples = (self._fit, self._held)[half]
            self._statistics[key] = collect(
                model.tflite, model.graph, samples, histograms=wants_histograms, progress=self._progress
            )
        return self._statistics[key]

    def _quantize(self, model: Float, ranges: Ranges, samples: Sequence[Sample]) -> bytes:
        """The bytes before any weight is chosen anew."""
        per_channel = self._per_channel
        if self._schemes is None:
            return tflite_converter.quantize_int8(model.tflite, ranges, io=self._io or "int8", per_channel=per_channel)
        return mixture.quantize(
            model.tflite,
            model.graph,
            self._schemes_of(model.graph),
            ranges=ranges,
            samples=samples,
            io=self._io,
            per_channel=per_channel,
        )

    def _schemes_of(self, graph: Graph) -> Schemes:
        """The scheme of each operator of a graph made from the plain one."""
        assert self._schemes is not None
        schemes = mixture.by_output(self._plain.graph, self._schemes)
        names = (graph.tensor(op.outputs[0]).name for op in graph.operators)
        return tuple(schemes[original_name(name, schemes)] for name in names)

    def _bits_of(self, graph: Graph) -> dict[int, int]:
        """Operator -> bits of its weights, for those whose weights are to be chosen.

        TFLite Micro has no 4-bit depthwise kernel; these weights are few, and stay at 8 bits.
        """
        weighted = [op for op in graph.operators if op.name in WEIGHTED]
        if self._schemes is None:
            return {op.index: 8 if op.name == "DEPTHWISE_CONV_2D" else self._bits for op in weighted}
        schemes = mixture.by_output(self._plain.graph, self._schemes)
        own = {op.index: schemes.get(original_name(graph.tensor(op.outputs[0]).name, schemes)) for op in weighted}
        return {index: 4 if scheme == "int4" else 8 for index, scheme in own.items() if scheme in ("int4", "int8")}


def with_states(graph: Graph, ranges: Ranges, states: Sequence[tuple[str, str]]) -> Ranges:
    """The ranges with one for each state's input and output: all that either saw, or what TFLite fixes for TANH."""
    if not states:
        return ranges
    inputs = {graph.tensor(t).name: t for t in graph.inputs}
    outputs = {graph.tensor(t).name: t for t in graph.outputs}
    writers, result = graph.producers(), dict(ranges)
    for before, after in states:
        given, told = inputs[before], outputs[after]
        low, high = (choose(ranges[given][i], ranges[told][i]) for i, choose in enumerate((min, max)))
        fixed = told in writers and writers[told].name == "TANH"
        result[given] = result[told] = (-1.0, 127 / 128) if fixed else (low, high)
    return result


def quantize_wide(
    model: Float, samples: Sequence[Sample], *, io: str, macs: int, progress: Progress, per_channel: bool = True
) -> Quantized:
    """int16x8, its weights rounded so that each layer keeps its output, where that lowers the error on held samples.

    With 16-bit activations nearly all of the error is that of the weights.
    """

    def plain(some: Sequence[Sample]) -> bytes:
        return tflite_converter.quantize_int16x8(model.tflite, some, io=io, per_channel=per_channel)

    def rounded(result: bytes, some: Sequence[Sample]) -> bytes:
        graph = read_bytes(result)
        bits = {op.index: 8 for op in graph.operators if op.name in WEIGHTED}
        few = some[:: max(1, len(some) // _RECONSTRUCTED)]
        changed = requantize(graph, model.graph, model.tflite, few, bits, per_channel=per_channel, progress=progress)
        return write_bytes(changed)

    result = plain(samples)
    if len(samples) < _LEAST_SAMPLES or macs > _THOROUGH_MACS:
        return Quantized(result, (), model.tflite)
    trial, held = plain(samples[::2]), samples[1::2]
    scored = [[value[0] for value in s] for s in held[: min(_SCORED, max(2, _SCORED_MACS // max(1, macs)))]]
    expected = outputs_of(model.tflite, model.graph, scored, reference=False)
    before, after = (
        mean_absolute_error(expected, outputs_of(one, read_bytes(one), scored, reference=False))
        for one in (trial, rounded(trial, samples[::2]))
    )
    if after >= before * (1 - _GAIN):
        return Quantized(result, (), model.tflite)
    told = (
        "weights rounded so that each layer keeps its output",
        f"this lowered the error on the held-out half by {1 - after / before:.0%}",
    )
    return Quantized(rounded(result, samples), told, model.tflite)
