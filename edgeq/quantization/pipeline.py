"""A conversion's story, told in the child process: load, lower, examine the data, calibrate, quantize, compare."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.boards import Board
from edgeq.errors import AnswerNo, ModelError, UsageError
from edgeq.graph import Graph, read_bytes, write_bytes
from edgeq.measure import Measured, Unknown
from edgeq.progress import Progress
from edgeq.quantization import float_model, layer_map, mixture, recurrent, tflite_converter
from edgeq.quantization.analysis import SAMPLES, LayerLoss, analyse, verdict
from edgeq.quantization.aware.export import trained_weights, with_trained_weights, without_fake_quantization
from edgeq.quantization.aware.training import train
from edgeq.quantization.calibration import collect
from edgeq.quantization.data import Dataset, load_data
from edgeq.quantization.doctor import compare_with_training, examine, fit_to_model
from edgeq.quantization.evaluation import (
    classes,
    compare,
    is_probability,
    may_be_classes,
    mean_absolute_error,
    outputs_of,
)
from edgeq.quantization.fused import fused
from edgeq.quantization.post_training import Float, PostTraining, Quantized, quantize_wide
from edgeq.quantization.preprocessing import examine_preprocessing
from edgeq.quantization.report import Quality, Warned, quality_json, value_of
from edgeq.quantization.result_checks import float_weights, verify_per_tensor, verify_scheme, verify_states
from edgeq.quantization.rewriting import Rewritten, rewrite
from edgeq.quantization.search import Search, SearchGoal, SearchReport, default_and_layers, units
from edgeq.quantization.trials import Evaluator, Setting, evaluating

# The reference kernels are slow: without labelled samples, as many are compared as these budgets allow.
COMPARED_SAMPLES = 200
COMPARED_MACS = 1_000_000_000
LOWERING_TOLERANCE = 1e-2
# What the first BatchNormalization is shown, in numbers at the model's inputs.
NORMALIZED_ELEMENTS = 2_000_000
# Of each mixture that a search measures.
SEARCHED_MACS = 2_000_000_000

_MEASURED_ON_CALIBRATION = Warned(
    "search-on-calibration",
    "The search measured accuracy on the samples that calibrated, where it is better than on others.",
    "Give other samples, with labels, as --eval.",
)

Sample = list[NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Fed:
    """Data that fit the model: one array for each input, in the model's order, first axis samples."""

    arrays: Sequence[NDArray[Any]]
    labels: NDArray[np.int64] | None
    source: str


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What every step of one conversion needs."""

    job: Mapping[str, Any]
    directory: Path
    lowered: float_model.Lowered
    float_tflite: bytes
    float_graph: Graph
    progress: Progress
    states: tuple[tuple[str, str], ...] = ()

    @property
    def saved_model(self) -> Path:
        return self.directory / "saved_model"


def run(directory: Path, job: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Convert as `job` says; writes `model.tflite` and returns what the report needs beyond that file."""
    progress("loading the model", 0, None)
    model = float_model.load(Path(job["model"]), unsafe=job["unsafe"])
    data, held_out = (_feed(directory, job[which], model.inputs) for which in ("data", "eval"))
    warnings: list[Warned] = []
    doubts: list[Warned] = []
    if data is not None:
        warnings += examine(data.arrays, model.inputs, data.labels, data.source)
        warnings += _compare_with_training(model, data.arrays)
        doubts = examine_preprocessing(model.keras_model, data.arrays)
    step, data, held_out = _in_steps(model, data, held_out, job)
    model = step.model
    if job["qat_epochs"]:
        model = _train(model, data, job, progress)
    progress("lowering", 0, None)
    lowered = float_model.Lowered(model)
    float_tflite = tflite_converter.to_float32(lowered, directory / "saved_model")
    calibration = [] if data is None else _samples(data)
    rewritten = _rewritten(float_tflite, model, calibration, job)
    if rewritten.told:
        float_tflite = write_bytes(rewritten.graph)
    work = Work(job, directory, lowered, float_tflite, read_bytes(float_tflite), progress, step.states)

    compared = held_out or data
    searched = None
    if job["search"] is not None:
        if held_out is None:
            warnings.append(_MEASURED_ON_CALIBRATION)
        quantized, searched = _search(work, calibration, compared, held_out is not None)
    elif model.is_quantize_aware:
        _refuse_untrained(job)
        quantized = _quantize_as_trained(work, model.keras_model, calibration)
    else:
        quantized = _quantize(work, calibration)
    result = quantized.tflite
    graph = read_bytes(result)
    mixed = bool(job["layers"]) or searched is not None
    islands = verify_scheme(graph, job["scheme"], allow_float=job["allow_float"] or mixed)
    if job["scheme"] == "dynamic" and (kept := float_weights(graph)):
        warnings.append(_left_float(kept))
    if job["granularity"] == "tensor":
        verify_per_tensor(graph)
    verify_states(graph, step.states)
    quality = None if compared is None else _measure(work, result, compared, held_out is not None)
    schemes = (job["scheme"], *job["layers"].values()) if searched is None else searched.chosen.units
    losses = [] if compared is None or not compared_layers(schemes) else _analyse(work, quantized, compared)
    (directory / "model.tflite").write_bytes(result)
    digest = hashlib.sha256(result).hexdigest()
    default = job["scheme"] if searched is None else searched.default
    told = layer_map.build(graph, lowered.origins, sha256=digest, scheme=default, granularity=job["granularity"])
    (directory / "model.quant.json").write_bytes(told.to_bytes())
    return {
        "float_size_bytes": len(float_tflite),
        "calibration_samples": len(calibration),
        "float_operators": list(islands),
        "improvements": [*rewritten.told, *quantized.improvements],
        "warnings": [[w.code, w.what, w.try_] for w in (*warnings, *doubts)],
        "quality": None if quality is None else quality_json(quality),
        "layers": [loss.to_json() for loss in losses],
        "verdict": " ".join([*(doubt.what for doubt in doubts), verdict(losses)]).strip(),
        "search": None if searched is None else searched.to_json(),
    }


def _left_float(kept: Sequence[str]) -> Warned:
    named = ", ".join(kept[:5]) + (" and others" if len(kept) > 5 else "")
    return Warned(
        "weights-stay-float",
        f"{len(kept)} layers keep float weights, as the converter leaves small ones: {named}.",
        "Use --scheme int8 for integer weights throughout, or float16 for half the size.",
    )


def _feed(directory: Path, named: Mapping[str, Any] | None, inputs: Sequence[float_model.InputSpec]) -> Fed | None:
    """The arrays that the parent left, or the folder of images that it named, as the model takes them."""
    if named is None:
        return None
    if "folder" in named:
        data = load_data(named["folder"], image_shape=inputs[0].shape if len(inputs) == 1 else None)
    else:
        arrays = {
            name: np.load(directory / file, mmap_mode="r", allow_pickle=False) for name, file in named["arrays"].items()
        }
        labels = np.load(directory / named["labels"], allow_pickle=False) if named["labels"] else None
        data = Dataset(arrays, labels, named["source"])
    return Fed(fit_to_model(data, inputs), data.labels, data.source)


def _rewritten(
    float_tflite: bytes, model: float_model.FloatModel, samples: Sequence[Sample], job: Mapping[str, Any]
) -> Rewritten:
    """The float graph without what would stay in float; as it is where nothing is to be integer, or was trained so."""
    graph = read_bytes(float_tflite)
    integers = compared_layers((job["scheme"], *job["layers"].values()))
    if integers and any(op.name in ("WHILE", "IF") for op in graph.operators):
        # Calibrating it would take the process down.
        raise ModelError(
            "loop-not-quantizable",
            "The model contains a loop or a branch, which cannot be quantized.",
            why="A SavedModel keeps recurrent layers as loops; from Keras's own files they are unrolled.",
            try_="Save the model as .keras and convert that.",
        )
    if not samples or not integers or model.is_quantize_aware:
        return Rewritten(graph, ())
    return rewrite(graph, samples, wide=job["scheme"] == "int16x8")


def _in_steps(
    model: float_model.FloatModel, data: Fed | None, held_out: Fed | None, job: Mapping[str, Any]
) -> tuple[recurrent.Stepped, Fed | None, Fed | None]:
    """The model to convert and its data: with `--rnn cell` its step and the moments of the sequences, unlabelled."""
    if job["rnn"] == "fused":
        return recurrent.Stepped(fused(model), ()), data, held_out
    if job["rnn"] != "cell":
        return recurrent.Stepped(model, ()), data, held_out
    step = recurrent.stepped(model)

    def moments(fed: Fed | None) -> Fed | None:
        if fed is None:
            return None
        return Fed(recurrent.steps_of(step, model, fed.arrays, fed.source), None, f"the moments of {fed.source}")

    return step, moments(data), moments(held_out)


def _samples(data: Fed) -> list[Sample]:
    """One list of batch-1 arrays a sample."""
    return [[array[i : i + 1] for array in data.arrays] for i in range(len(data.arrays[0]))]


def _compare_with_training(model: float_model.FloatModel, arrays: Sequence[NDArray[Any]]) -> list[Warned]:
    """Ask the model's first BatchNormalization whether the data are like what training fed it."""
    import keras

    if model.keras_model is None or not isinstance(model.keras_model, keras.Model):
        return []
    norm = next(
        (x for x in model.keras_model.layers if isinstance(x, keras.layers.BatchNormalization) and x.built), None
    )
    if norm is None:
        return []
    functional = getattr(model.keras_model, "_functional", None) or model.keras_model
    size = sum(a[0].size for a in arrays)
    few = min(64, max(8, NORMALIZED_ELEMENTS // max(1, size)))
    batch = [np.asarray(a[:few]) for a in arrays]
    try:
        tap = keras.Model(functional.inputs, norm._inbound_nodes[-1].input_tensors[0])
        seen = np.asarray(tap(batch if len(batch) > 1 else batch[0], training=False), np.float64)
    except (ValueError, TypeError, IndexError):
        # A tap into a nested or batch-fixed model cannot be built: the question stays open.
        return []
    flat = seen.reshape(-1, seen.shape[-1])
    warned = compare_with_training(
        norm.name,
        flat.mean(axis=0),
        flat.var(axis=0),
        np.asarray(norm.moving_mean, np.float64),
        np.asarray(norm.moving_variance, np.float64),
    )
    return [] if warned is None else [warned]


def _quantize(work: Work, calibration: Sequence[Sample]) -> Quantized:
    """The `.tflite` in the scheme asked for, as `job` asks for it."""
    scheme, io = work.job["scheme"], work.job["io"]
    per_channel = work.job["granularity"] == "channel"
    work.progress("quantizing", 0, None)
    if work.job["layers"]:
        return _mix(work, calibration, per_channel)
    if scheme == "float32":
        return Quantized(work.float_tflite, (), work.float_tflite)
    if scheme == "float16":
        return Quantized(tflite_converter.to_float16(work.lowered, work.saved_model), (), work.float_tflite)
    if scheme == "dynamic":
        return Quantized(tflite_converter.to_dynamic(work.lowered, work.saved_model), (), work.float_tflite)
    if scheme == "int16x8":
        return quantize_wide(
            Float(work.float_tflite, work.float_graph),
            calibration,
            io=io,
            macs=multiply_accumulates(work.float_graph),
            progress=work.progress,
            per_channel=per_channel,
        )
    trial = PostTraining(
        Float(work.float_tflite, work.float_graph),
        calibration,
        io=io,
        macs=multiply_accumulates(work.float_graph),
        weight_bits=4 if scheme == "int4" else 8,
        progress=work.progress,
        per_channel=per_channel,
        states=work.states,
    )
    return trial.run(work.job["calibration"])


def _mix(work: Work, calibration: Sequence[Sample], per_channel: bool) -> Quantized:
    """The `.tflite` whose layers have the schemes that `job` gives them."""
    graph, job = work.float_graph, work.job
    schemes = mixture.assign(graph, work.lowered.origins, job["scheme"], job["layers"])
    if {"int8", "int4"} & set(schemes):
        trial = PostTraining(
            Float(work.float_tflite, graph),
            calibration,
            io=job["io"],
            macs=multiply_accumulates(graph),
            weight_bits=4 if "int4" in schemes else 8,
            progress=work.progress,
            schemes=schemes,
            per_channel=per_channel,
        )
        quantized = trial.run(job["calibration"])
    else:
        ranges = collect(work.float_tflite, graph, calibration, histograms=False).ranges if calibration else {}
        result = mixture.quantize(
            work.float_tflite,
            graph,
            schemes,
            ranges=ranges,
            samples=calibration,
            io=job["io"],
            per_channel=per_channel,
        )
        quantized = Quantized(result, (), work.float_tflite)
    mixture.require(read_bytes(quantized.tflite), graph, schemes, allow_float=job["allow_float"])
    return quantized


def _search(
    work: Work, calibration: Sequence[Sample], compared: Fed | None, held_out: bool
) -> tuple[Quantized, SearchReport]:
    """The best mixture for the goal in `job`; it meets the goal on all samples, not only on those of the search."""
    graph, job = work.float_graph, work.job
    goal = SearchGoal(**job["search"])
    macs = multiply_accumulates(graph)
    assert compared is not None
    chosen = _spread(len(compared.arrays[0]), max(50, SEARCHED_MACS // max(1, macs)))
    fed = [[array[i] for array in compared.arrays] for i in chosen]
    expected = np.stack([work.lowered.predict(sample)[0] for sample in fed])
    labels = None if compared.labels is None else compared.labels[chosen]
    by_float = classes(expected, is_probability(graph)) if may_be_classes(graph) else None
    if by_float is None:
        raise UsageError(
            "search-without-classes",
            "A search measures accuracy, and the model's output is not classes.",
            where="--search",
            try_="Choose the layers' schemes by hand (--layer); the report says which layer loses most.",
        )
    reference = 1.0 if labels is None else float(np.mean(by_float == labels))
    training = PostTraining(
        Float(work.float_tflite, graph), calibration, io=job["io"], macs=macs, weight_bits=8, progress=work.progress
    )
    recipe, told = training.choose(job["calibration"])
    board = Board.model_validate_json(job["board"])
    setting = Setting(
        tflite=work.float_tflite,
        samples=calibration,
        recipe=recipe,
        macs=macs,
        io=job["io"],
        per_channel=job["granularity"] == "channel",
        fed=fed,
        expected=expected,
        labels=labels,
        probability=is_probability(graph),
        board=board,
    )
    operators = {op.index: op.name for op in graph.operators}
    parts = units(graph, work.lowered.origins)
    with evaluating(setting, jobs=goal.jobs or min(4, os.cpu_count() or 1), scheduler=goal.scheduler) as batch:
        search = Search(parts, operators, goal, reference=reference, batch=batch, progress=work.progress)
        found = search.run()
    evaluator = Evaluator(setting)
    for best in found.best:
        quantized = replace(evaluator.build(search.schemes(best.units)), improvements=told)
        if len(chosen) == len(compared.arrays[0]) or _holds(work, quantized, compared, held_out, goal):
            break
    else:
        raise AnswerNo(
            "search-found-none",
            f"None of {len(found.best)} mixtures that met the goal on {len(chosen)} samples does on all.",
            try_="Allow more, or train with quantization: --qat.",
        )
    schemes = search.schemes(best.units)
    mixture.require(read_bytes(quantized.tflite), graph, schemes, allow_float=job["allow_float"])

    def assign(default: str, layers: Mapping[str, str]) -> tuple[str, ...]:
        return mixture.assign(graph, work.lowered.origins, default, layers)

    default, layers = default_and_layers(found.units, best.units, assign, schemes)
    metric = "agreement" if labels is None else "accuracy"
    return quantized, SearchReport(goal, board.id, metric, reference, len(chosen), found, best, default, layers)


def _spread(count: int, limit: int) -> NDArray[np.int64]:
    return np.linspace(0, count - 1, min(count, limit)).round().astype(np.int64)


def _holds(work: Work, quantized: Quantized, compared: Fed, held_out: bool, goal: SearchGoal) -> bool:
    """Whether the drop on all samples is within the goal's."""
    quality = _measure(work, quantized.tflite, compared, held_out)
    pair = (quality.accuracy_float, quality.accuracy_quantized)
    if isinstance(quality.accuracy_quantized, Unknown):
        pair = (Measured(1.0, "fraction", "float against itself"), quality.agreement)
    before, after = (value_of(q) for q in pair)
    drop = np.inf if before is None or after is None else 100 * (before - after)
    return goal.max_drop is None or bool(drop <= goal.max_drop + 1e-9)


def _refuse_untrained(job: Mapping[str, Any]) -> None:
    if job["layers"] or job["granularity"] != "channel":
        raise UsageError(
            "mixture-not-trained",
            "The model was trained with a scheme for each of its layers, per channel; another cannot be given now.",
            where="--layer, --granularity",
            try_="Choose the layers' schemes when training: edgeq.quantize_aware(model, ...).",
        )


def _quantize_as_trained(work: Work, model: Any, calibration: Sequence[Sample]) -> Quantized:
    """The `.tflite` of a quantization-aware model: its own ranges and weights, and the data's where it has none."""
    if work.job["scheme"] not in ("int8", "int4"):
        raise ModelError(
            "scheme-not-trained",
            f"The model was trained for integer inference, not for {work.job['scheme']}.",
            try_="Use --scheme int8; weights have the bits they were trained with.",
        )
    graph, trained = without_fake_quantization(work.float_graph)
    tflite = write_bytes(graph)
    ranges = dict(collect(tflite, graph, calibration, histograms=False).ranges) if calibration else {}
    result = tflite_converter.quantize_int8(tflite, {**ranges, **trained}, io=work.job["io"])
    weights = trained_weights(model)
    if weights:
        result = write_bytes(with_trained_weights(read_bytes(result), graph, weights))
    told = "ranges and weights as trained; compared with what training simulated"
    return Quantized(result, (told,), tflite)


def _train(model: float_model.FloatModel, data: Fed | None, job: Mapping[str, Any], progress: Progress) -> Any:
    """The model after quantization-aware training on the data."""
    if data is None or model.keras_model is None or job["scheme"] not in ("int8", "int4"):
        raise UsageError(
            "qat-impossible",
            "Quantization-aware training needs --data, a Keras model, and scheme int8 or int4.",
            where="--qat",
            try_="Give --data with labels y; convert SavedModels that are not Keras's without --qat.",
        )
    trained = train(
        model.keras_model,
        data.arrays,
        data.labels,
        scheme=job["scheme"],
        epochs=job["qat_epochs"],
        seed=job["seed"],
        progress=progress,
    )
    return float_model.from_keras(trained)


def _analyse(work: Work, quantized: Quantized, data: Fed) -> list[LayerLoss]:
    limit = min(SAMPLES, _affordable(work.float_graph), len(data.arrays[0]))
    samples = [[array[i] for array in data.arrays] for i in range(limit)]
    return analyse(quantized.reference, quantized.tflite, samples, work.lowered.origins)


def _affordable(graph: Graph) -> int:
    """How many samples the reference kernels may be given, which are slow."""
    return max(4, COMPARED_MACS // max(1, multiply_accumulates(graph)))


def compared_layers(schemes: Sequence[str]) -> bool:
    """Whether any of the schemes' activations are codes, which differ from float layer by layer."""
    return any(scheme in ("int8", "int4", "int16x8") for scheme in schemes)


def _measure(work: Work, result: bytes, data: Fed, held_out: bool) -> Quality:
    """Compare with the float model: every held-out sample, else as many as the reference kernels' pace allows."""
    count = len(data.arrays[0])
    chosen = np.arange(count)
    if not held_out:
        limit = min(COMPARED_SAMPLES, _affordable(work.float_graph))
        if limit < count:
            chosen = np.linspace(0, count - 1, limit).round().astype(np.int64)
    samples = [[array[i] for array in data.arrays] for i in chosen]
    predictions = [work.lowered.predict(sample) for sample in samples]
    expected = [np.stack([p[k] for p in predictions]) for k in range(len(work.lowered.outputs))]
    again = outputs_of(work.float_tflite, work.float_graph, samples[:4], reference=False)
    if mean_absolute_error([e[:4] for e in expected], again) > LOWERING_TOLERANCE:
        raise ModelError(
            "lowering-differs",
            "The converter's float model computes something else than the Keras model.",
            why="A miscompiled layer; Bidirectional recurrent layers of old models are known for it.",
            try_="Save the model with Keras 3, or replace its recurrent layers.",
        )
    quantized = read_bytes(result)
    actual = outputs_of(result, quantized, samples, progress=work.progress)
    labels = None if data.labels is None else data.labels[chosen]
    where = "held-out samples" if held_out else "the samples that calibrated"
    return compare(quantized, work.lowered.outputs, expected, actual, labels=labels, measured_on=where)


def multiply_accumulates(graph: Graph) -> int:
    """Multiply-accumulates of the convolutions and fully connected layers of one inference."""
    total = 0
    for op in graph.operators:
        if op.name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"):
            weights = graph.tensor(op.inputs[1])
            output = graph.tensor(op.outputs[0])
            channels = weights.shape[-1] if op.name == "DEPTHWISE_CONV_2D" else weights.shape[0]
            total += output.elements * weights.elements // max(1, channels)
    return total
