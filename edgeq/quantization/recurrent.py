"""A recurrent model as one step for streaming: one moment of the input and the state go in, the new state comes out.

Imports Keras: only the child process does this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from edgeq.errors import DataError, ModelError
from edgeq.quantization import float_model
from edgeq.quantization.float_model import FloatModel

MAXIMUM_STEPS = 2000
_TOLERANCE = 1e-4
_STATES = {"LSTM": ("h", "c"), "GRU": ("h",), "SimpleRNN": ("h",)}
# What computes each moment by itself.
_POINTWISE = frozenset(
    {"Dense", "Activation", "ReLU", "LeakyReLU", "ELU", "PReLU", "Softmax", "Dropout", "SpatialDropout1D",
     "BatchNormalization", "LayerNormalization", "TimeDistributed", "Add", "Subtract", "Multiply", "Maximum", "Minimum",
     "Average", "Concatenate", "Rescaling", "Normalization", "GaussianNoise", "Identity"}
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Stepped:
    """The model of one step. `states`: the name of each state's input and that of its output."""

    model: FloatModel
    states: tuple[tuple[str, str], ...]


def stepped(model: FloatModel) -> Stepped:
    """The step of `model`: inputs (1, features) and a state for each recurrent layer, outputs and the new states.

    ModelError if it has no recurrent layer, or layers in front of one that mix moments.
    """
    functional = getattr(model.keras_model, "_functional", None) or model.keras_model
    if not isinstance(functional, keras.Model) or not hasattr(functional, "_nodes_by_depth"):
        raise ModelError(
            "rnn-not-streamable",
            "Only functional and sequential Keras 3 models can be taken apart into steps.",
            where="--rnn cell",
            try_="Use --rnn unroll.",
        )
    return _Builder(functional).built()


class _Builder:
    def __init__(self, model: Any) -> None:
        self._model = model
        self._states: list[tuple[Any, Any, str, str]] = []
        self._inputs = [keras.Input((1, *t.shape[2:]), dtype=t.dtype, name=t.name) for t in model.inputs]
        self._timed: dict[int, bool] = {id(t): True for t in model.inputs}

    def built(self) -> Stepped:
        values = {id(old): new for old, new in zip(self._model.inputs, self._inputs, strict=True)}
        by_depth = self._model._nodes_by_depth
        for depth in sorted(by_depth, reverse=True):
            for node in by_depth[depth]:
                if not node.is_input:
                    self._node(node, values)
        if not self._states:
            raise ModelError(
                "rnn-not-streamable",
                f"{self._model.name} has no LSTM, GRU or SimpleRNN layer.",
                where="--rnn cell",
                try_="Leave --rnn out.",
            )
        outputs = [values[id(t)] for t in self._model.outputs]
        names = _apart([tensor._keras_history.operation.name for tensor in self._model.outputs])
        inputs = [*self._inputs, *(given for given, _, _, _ in self._states)]
        step = keras.Model(inputs, [*outputs, *(new for _, new, _, _ in self._states)], name=f"{self._model.name}_step")
        states = tuple((before, after) for _, _, before, after in self._states)
        named = (*names, *(after for _, after in states))
        return Stepped(replace(float_model.from_keras(step), outputs=named), states)

    def _node(self, node: Any, values: dict[int, Any]) -> None:
        operation, sources = node.operation, node.input_tensors
        timed = any(self._timed[id(t)] for t in sources)
        kind = type(operation).__name__
        if timed and kind in _STATES:
            if len(sources) != 1 or operation.go_backwards or operation.return_state or len(node.output_tensors) != 1:
                raise _not_streamable(operation, "runs backwards, or takes or returns its state")
            result = self._recurrent(operation, kind, values[id(sources[0])])
            timed = bool(operation.return_sequences)
        elif timed and (kind not in _POINTWISE or getattr(operation, "axis", -1) not in (-1, 2, [-1], [2])):
            raise _not_streamable(operation, "mixes moments")
        else:
            arguments, keywords = node.arguments.fill_in(values)
            result = operation(*arguments, **keywords)
        results = result if isinstance(result, (list, tuple)) else [result]
        for old, new in zip(node.output_tensors, results, strict=True):
            values[id(old)], self._timed[id(old)] = new, timed

    def _recurrent(self, layer: Any, kind: str, x: Any) -> Any:
        given = [
            keras.Input((layer.units,), name=f"{layer.name}_{letter}", dtype=layer.compute_dtype)
            for letter in _STATES[kind]
        ]
        moment = keras.layers.Reshape(tuple(x.shape[2:]), name=f"{layer.name}_moment")(x)
        layer.cell.name = f"{layer.name}_cell"
        result, new = layer.cell(moment, given)
        for before, after, letter in zip(given, new, _STATES[kind], strict=True):
            name = f"{layer.name}_{letter}_next"
            self._states.append((before, keras.layers.Identity(name=name)(after), before.name, name))
        if not layer.return_sequences:
            return result
        return keras.layers.Reshape((1, layer.units), name=f"{layer.name}_sequence")(result)


def _apart(names: Sequence[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name}_{i}" for i, name in enumerate(names)]


def _not_streamable(layer: Any, why: str) -> ModelError:
    return ModelError(
        "rnn-not-streamable",
        f"Layer {layer.name} ({type(layer).__name__}) {why}; the model has no single step.",
        where="--rnn cell",
        try_="Use --rnn unroll, or leave out of the model what is not to stream.",
    )


def steps_of(step: Stepped, whole: FloatModel, arrays: Sequence[NDArray[Any]], source: str) -> list[NDArray[Any]]:
    """What the step's inputs hold while it runs over sequences: one array an input, at most MAXIMUM_STEPS moments.

    `arrays`: sequences (samples, time, ...) of the whole model's inputs. Every state starts at zero. ModelError if the
    last step does not give what the whole model gives.
    """
    moments = arrays[0].shape[1]
    if any(array.shape[1] != moments for array in arrays):
        raise DataError(
            "data-shape",
            "The inputs differ in their number of moments.",
            where=source,
            try_="Use --rnn unroll for models whose inputs are of different length.",
        )
    count = max(1, min(len(arrays[0]), MAXIMUM_STEPS // moments))
    chosen = np.linspace(0, len(arrays[0]) - 1, count).round().astype(np.int64)
    given = [np.asarray(array)[chosen] for array in arrays]
    names = [spec.name for spec in step.model.inputs]
    states = {spec.name: np.zeros((count, *spec.shape), np.float32) for spec in step.model.inputs[len(given) :]}
    seen: list[list[NDArray[Any]]] = [[] for _ in names]
    results: dict[str, NDArray[Any]] = {}
    for t in range(moments):
        fed = [*(array[:, t : t + 1] for array in given), *states.values()]
        for kept, value in zip(seen, fed, strict=True):
            kept.append(value)
        told = step.model.keras_model(fed, training=False)
        results = {name: np.asarray(v) for name, v in zip(step.model.outputs, told, strict=True)}
        states = {before: results[after] for before, after in step.states}
    _prove(list(results.values())[: len(whole.outputs)], whole, given)
    return [np.concatenate(kept) for kept in seen]


def _prove(last: Sequence[NDArray[Any]], whole: FloatModel, given: Sequence[NDArray[Any]]) -> None:
    wanted = whole.keras_model(list(given) if len(given) > 1 else given[0], training=False)
    for value, sequence in zip(last, wanted if isinstance(wanted, (list, tuple)) else [wanted], strict=True):
        expected = np.asarray(sequence)
        expected = expected if expected.shape == value.shape else expected[:, -1:]
        if float(np.max(np.abs(value - expected))) > _TOLERANCE * max(float(np.std(expected)), 1.0):
            raise ModelError(
                "rnn-not-streamable",
                "Run step by step, the model computes something else than on whole sequences.",
                where="--rnn cell",
                try_="Use --rnn unroll.",
            )
