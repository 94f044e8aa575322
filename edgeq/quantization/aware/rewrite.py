"""A Keras model → its quantization-aware twin: layer by layer, nested models inlined, shared layers shared."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import keras

from edgeq.errors import ModelError, UsageError
from edgeq.quantization.aware.layers import GRIDS, SURROGATES, FakeQuantize, QuantizedWeights

_WEIGHTED = (keras.layers.Conv2D, keras.layers.Conv1D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
# Their output has their input's scale: a grid of their own would cost a QUANTIZE operator.
_SAME_SCALE = (
    "Reshape", "Flatten", "Dropout", "SpatialDropout1D", "SpatialDropout2D", "MaxPooling1D", "MaxPooling2D",
    "AveragePooling1D", "AveragePooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D", "ZeroPadding1D",
    "ZeroPadding2D", "Cropping1D", "Cropping2D", "Permute", "InputLayer", "Identity", "GaussianNoise", "UpSampling2D",
)  # fmt: skip
# Where TFLite fixes the scale of the output.
_FIXED = {"softmax": (0.0, 255 / 256), "sigmoid": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}
_FUSED = ("relu", "relu6")
_SCHEMES = {"int8": "8", "int4": "4"}


def quantize_aware(
    model: Any,
    *,
    scheme: str = "int8",
    weights: str | int | None = None,
    layers: Mapping[str, str | int] | None = None,
    ranges: str = "moving",
    per_channel: bool = True,
    surrogate: str = "straight-through",
    anneal_steps: int = 1000,
) -> Any:
    """A Keras model of the same inputs, outputs and (copied) weights that computes as the quantized `.tflite` will.

    `scheme`: int8, or int4 (weights). `weights` sets them finer: 8 ... 2, "ternary", "binary"; `layers` for layers by
    name or pattern (`{"stem*": 8}`). `ranges` of activations: "moving" averages or "learned". `surrogate` is the
    gradient of rounding: "straight-through", or "sigmoid" sharpened over `anneal_steps` batches. Compile and fit the
    result as any model, save it as `.keras`, convert it without representative data. ModelError, UsageError otherwise.
    """
    if scheme not in _SCHEMES:
        raise UsageError(
            "scheme-unknown", f"There is no quantization-aware training for {scheme}.", try_="int8 or int4"
        )
    default = str(_SCHEMES[scheme] if weights is None else weights)
    chosen = {pattern: str(grid) for pattern, grid in (layers or {}).items()}
    for grid in (default, *chosen.values()):
        if grid not in GRIDS:
            raise UsageError(
                "bits-unknown", f"Weights cannot have {grid} bits.", try_="One of " + ", ".join(GRIDS) + "."
            )
    if ranges not in ("moving", "learned") or surrogate not in SURROGATES:
        raise UsageError("option-unknown", "ranges is moving or learned, surrogate " + " or ".join(SURROGATES) + ".")
    functional = getattr(model, "_functional", None) or model
    if not hasattr(functional, "_nodes_by_depth"):
        raise ModelError(
            "model-not-functional",
            f"{model.name} is a subclassed model; what its call does cannot be rewritten.",
            try_="Build it with the functional API, or wrap its layers in one keras.Model(inputs, outputs).",
        )
    options = {"per_channel": per_channel, "surrogate": surrogate, "anneal_steps": anneal_steps}
    return _Rewriter(default, chosen, ranges, options).model(functional, f"{model.name}_aware")


def is_quantize_aware(model: Any) -> bool:
    """Whether the model came from `quantize_aware`."""
    return any(isinstance(layer, (FakeQuantize, QuantizedWeights)) for layer in model._flatten_layers())


class _Rewriter:
    def __init__(self, default: str, chosen: Mapping[str, str], ranges: str, options: Mapping[str, Any]) -> None:
        self._default, self._chosen, self._ranges, self._options = default, chosen, ranges, options
        self._made: dict[int, Any] = {}
        self._names: set[str] = set()

    def model(self, model: Any, name: str) -> Any:
        inputs = [keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name) for t in model.inputs]
        fed = [self._quantized(t, t.name) if str(t.dtype).startswith("float") else t for t in inputs]
        outputs = self._walk(model, fed)
        result = keras.Model(inputs, outputs if len(outputs) > 1 else outputs[0], name=name)
        for layer in result._flatten_layers():
            if isinstance(layer, QuantizedWeights):
                layer.start()
        return result

    def _walk(self, model: Any, fed: list[Any]) -> list[Any]:
        """The outputs of `model` on `fed`, rewritten."""
        values = {id(old): new for old, new in zip(model.inputs, fed, strict=True)}
        nodes = [n for depth in sorted(model._nodes_by_depth, reverse=True) for n in model._nodes_by_depth[depth]]
        readers: dict[int, list[Any]] = {}
        for node in nodes:
            for tensor in node.input_tensors:
                readers.setdefault(id(tensor), []).append(node)
        kept = {id(t) for t in model.outputs}
        done: set[int] = set()
        for node in nodes:
            if node.is_input or id(node) in done:
                continue
            self._node(node, values, readers, kept, done)
        return [values[id(t)] for t in model.outputs]

    def _node(
        self, node: Any, values: dict[int, Any], readers: Mapping[int, list[Any]], kept: set[int], done: set[int]
    ) -> None:
        operation, last = node.operation, node.output_tensors[0]
        arguments, keywords = node.arguments.fill_in(values)
        inner = getattr(operation, "_functional", None) or operation
        if hasattr(inner, "_nodes_by_depth"):
            given = arguments[0] if isinstance(arguments[0], (list, tuple)) else list(arguments)
            for old, new in zip(node.output_tensors, self._walk(inner, list(given)), strict=True):
                values[id(old)] = new
            return
        if type(operation) in _WEIGHTED and getattr(operation, "groups", 1) == 1:
            norm = self._single_reader(last, readers, kept) if _is_linear(operation) else None
            folds = norm is not None and isinstance(norm.operation, keras.layers.BatchNormalization)
            result = self._weighted(operation, norm.operation if norm is not None and folds else None)(arguments[0])
            if norm is not None and folds:
                done.add(id(norm))
                last = norm.output_tensors[0]
            activation = _activation_of(operation)
        else:
            result = self._copied(operation)(*arguments, **keywords)
            activation = _activation_of(operation)
        if isinstance(result, (list, tuple)):
            for old, new in zip(node.output_tensors, result, strict=True):
                values[id(old)] = self._quantized(new, operation.name)
            return
        values[id(last)] = self._finish(result, operation, activation, self._single_reader(last, readers, kept))

    def _finish(self, result: Any, operation: Any, activation: str, reader: Any) -> Any:
        """A range behind the operation, unless it is fused into what follows, or has its input's range."""
        if type(operation).__name__ in _SAME_SCALE or not str(result.dtype).startswith("float"):
            return result
        if activation in _FIXED:
            return self._quantized(result, operation.name, _FIXED[activation])
        if (
            activation == "linear"
            and reader is not None
            and _activation_of(reader.operation) in _FUSED
            and not isinstance(reader.operation, _WEIGHTED)
        ):
            return result
        return self._quantized(result, operation.name)

    @staticmethod
    def _single_reader(tensor: Any, readers: Mapping[int, list[Any]], kept: set[int]) -> Any:
        found = readers.get(id(tensor), [])
        return found[0] if len(found) == 1 and id(tensor) not in kept else None

    def _weighted(self, layer: Any, norm: Any) -> Any:
        if id(layer) not in self._made:
            grid = next((g for pattern, g in self._chosen.items() if fnmatchcase(layer.name, pattern)), self._default)
            made = QuantizedWeights(
                _copy(layer),
                None if norm is None else _copy(norm),
                grid=grid,
                name=self._name(layer.name),
                **self._options,
            )
            self._made[id(layer)] = made
        return self._made[id(layer)]

    def _copied(self, operation: Any) -> Any:
        if not isinstance(operation, keras.Layer):
            return operation
        if id(operation) not in self._made:
            copy = _copy(operation)
            copy.name = self._name(operation.name)
            self._made[id(operation)] = copy
        return self._made[id(operation)]

    def _quantized(self, tensor: Any, name: str, fixed: tuple[float, float] | None = None) -> Any:
        return FakeQuantize(self._ranges, fixed, name=self._name(f"{name}_range"))(tensor)

    def _name(self, wanted: str) -> str:
        name, count = wanted, 0
        while name in self._names:
            count += 1
            name = f"{wanted}_{count}"
        self._names.add(name)
        return name


def _is_linear(layer: Any) -> bool:
    return _activation_of(layer) == "linear"


def _activation_of(operation: Any) -> str:
    """The name of the activation that the operation ends with: linear, relu, relu6, softmax, ..."""
    kind = type(operation).__name__
    if kind == "ReLU":
        limit = operation.max_value
        plain = not operation.negative_slope and not operation.threshold
        return "relu" if plain and limit is None else "relu6" if plain and limit == 6 else "other"
    if kind in ("Softmax", "Relu", "Relu6", "Sigmoid", "Tanh"):
        return kind.lower()
    function = getattr(operation, "activation", None)
    return str(getattr(function, "__name__", "other")) if function is not None else "linear"


def _copy(layer: Any) -> Any:
    """A layer of the same configuration and weights."""
    copy = type(layer).from_config(layer.get_config())
    if layer.built and layer.weights:
        build = layer.get_build_config() or {}
        copy.build_from_config(build)
        copy.set_weights(layer.get_weights())
    return copy
