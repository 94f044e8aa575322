"""A quantized `.tflite` against the float model, on the same samples and the reference kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.graph import Graph, Tensor, TensorType
from edgeq.interpreter import Interpreter, for_measuring
from edgeq.measure import Quantity, Unknown
from edgeq.progress import Progress, silent
from edgeq.quantization.report import OutputError, Quality, measured

_INTEGERS = {TensorType.INT8: (-128, 127), TensorType.UINT8: (0, 255), TensorType.INT16: (-32768, 32767)}


def quantize(value: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    """A real value as the tensor's own type: round(x / scale) + zero point, clipped, half away from zero."""
    if tensor.quantization is None or tensor.type not in _INTEGERS:
        return np.asarray(value, tensor.type.dtype)
    scaled = np.asarray(value, np.float32) / np.float32(tensor.scale)
    rounded = np.sign(scaled) * np.floor(np.abs(scaled) + np.float32(0.5)) + tensor.zero_point
    return np.asarray(np.clip(rounded, *_INTEGERS[tensor.type]), tensor.type.dtype)


def dequantize(value: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    """The real value of a tensor's codes."""
    if tensor.quantization is None or tensor.type not in _INTEGERS:
        return value.astype(np.float64)
    return (value.astype(np.float64) - tensor.zero_point) * tensor.scale


def outputs_of(
    model: bytes,
    graph: Graph,
    samples: Sequence[Sequence[NDArray[Any]]],
    *,
    reference: bool = True,
    progress: Progress = silent,
) -> list[NDArray[Any]]:
    """Real outputs, one array (samples, ...) per output, each sample's from the initial state.

    A sample is one float array per input, without batch axis.
    """
    interpreter = for_measuring(model) if reference else Interpreter(model, reference=False)
    inputs = [graph.tensor(i) for i in graph.inputs]
    outputs = [graph.tensor(i) for i in graph.outputs]
    results: list[list[NDArray[Any]]] = [[] for _ in outputs]
    for done, sample in enumerate(samples):
        progress("comparing with float", done, len(samples))
        given = [quantize(value, t).reshape(t.shape) for value, t in zip(sample, inputs, strict=True)]
        interpreter.reset()
        for kept, value, tensor in zip(results, interpreter.run(given), outputs, strict=True):
            kept.append(dequantize(value, tensor)[0] if value.ndim else dequantize(value, tensor))
    return [np.stack(kept) for kept in results]


def classes(outputs: NDArray[Any], probability: bool) -> NDArray[np.int64] | None:
    """The class that each sample's output chooses, or None if the output (samples, n) does not look like classes."""
    flat = outputs.reshape(len(outputs), -1)
    if outputs.ndim != 2 and flat.shape[1] != outputs.shape[-1]:
        return None
    if flat.shape[1] == 1:
        return np.asarray(flat[:, 0] > (0.5 if probability else 0.0), np.int64)
    return np.asarray(np.argmax(flat, axis=1), np.int64)


def mean_absolute_error(expected: Sequence[NDArray[Any]], actual: Sequence[NDArray[Any]]) -> float:
    """Over all outputs, each in units of its own deviation: what calibration methods are compared by."""
    return float(
        np.mean([np.mean(np.abs(a - e)) / max(float(np.std(e)), 1e-12) for e, a in zip(expected, actual, strict=True)])
    )


def compare(
    graph: Graph,
    names: Sequence[str],
    expected: Sequence[NDArray[Any]],
    actual: Sequence[NDArray[Any]],
    *,
    labels: NDArray[np.int64] | None,
    measured_on: str,
) -> Quality:
    """Quality of `actual` outputs against the float model's `expected` ones, arrays (samples, ...) per output."""
    count = len(expected[0])
    basis = f"TFLite reference kernels, {count} samples, {measured_on}"
    probability = is_probability(graph)
    one = may_be_classes(graph)
    chosen_float = classes(expected[0], probability) if one else None
    chosen = classes(actual[0], probability) if one else None
    agreement: Quantity = Unknown("the outputs are not classes")
    accuracy_float: Quantity = Unknown("the data have no labels" if labels is None else "the outputs are not classes")
    accuracy: Quantity = accuracy_float
    confusion = None
    if chosen is not None and chosen_float is not None:
        agreement = measured(np.mean(chosen == chosen_float), "fraction", basis)
        if labels is not None:
            accuracy_float = measured(
                np.mean(chosen_float == labels), "fraction", basis.replace("TFLite reference", "float")
            )
            accuracy = measured(np.mean(chosen == labels), "fraction", basis)
            confusion = _confusion(labels, chosen, max(2, expected[0].shape[-1]))
    errors = tuple(_error(*entry, basis) for entry in zip(names, expected, actual, strict=True))
    return Quality(count, measured_on, accuracy_float, accuracy, agreement, errors, confusion)


def _confusion(labels: NDArray[np.int64], chosen: NDArray[np.int64], count: int) -> tuple[tuple[int, ...], ...] | None:
    """Samples by label and chosen class; None where a label is none of the `count` classes."""
    if labels.ndim != 1 or labels.min() < 0 or labels.max() >= count:
        return None
    counts = np.bincount(labels * count + chosen, minlength=count * count).reshape(count, count)
    return tuple(tuple(int(n) for n in row) for row in counts)


def is_probability(graph: Graph) -> bool:
    """Whether the first output is that of a sigmoid."""
    ending = {op.outputs[0]: op.name for op in graph.operators if op.outputs}
    return _last_computation(graph, ending, graph.outputs[0]) == "LOGISTIC"


def may_be_classes(graph: Graph) -> bool:
    """Whether there is one output and it does not have the inputs' shape, as a reconstruction has."""
    shapes = [{graph.tensor(i).shape for i in ends} for ends in (graph.inputs, graph.outputs)]
    return len(graph.outputs) == 1 and shapes[0] != shapes[1]


def _last_computation(graph: Graph, ending: dict[int, str], tensor: int) -> str:
    name = ending.get(tensor, "")
    if name in ("QUANTIZE", "DEQUANTIZE", "RESHAPE"):
        producer = graph.producers()[tensor]
        return _last_computation(graph, ending, producer.inputs[0])
    return name


def _error(name: str, expected: NDArray[Any], actual: NDArray[Any], basis: str) -> OutputError:
    difference = np.abs(actual - expected)
    noise, signal = float(np.sum(difference**2)), float(np.sum(np.square(expected, dtype=np.float64)))
    sqnr: Quantity = Unknown("no difference" if noise == 0 else "the float output is zero")
    if noise > 0 and signal > 0:
        sqnr = measured(10 * np.log10(signal / noise), "dB", basis)
    unit = "output units"
    return OutputError(name, measured(difference.mean(), unit, basis), measured(difference.max(), unit, basis), sqnr)
