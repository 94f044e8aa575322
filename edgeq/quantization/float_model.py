"""Keras model → float32 `.tflite` at batch 1. Imports TensorFlow: only the child process does this.

Every kind of model ends as one frozen TensorFlow function without variables, which both the converter and the float
predictions use. Keras layers are renamed while it is traced, so that each tensor's name tells its layers exactly.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.lite.tools import flatbuffer_utils
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from edgeq.errors import EdgeqError, ModelError, ToolError
from edgeq.graph import Graph, read_bytes
from edgeq.quantization import aware  # registers its layers with Keras
from edgeq.quantization.calibration import LSTM
from edgeq.quantization.layer_map import Origins
from edgeq.quantization.model_files import inspect

SIGNATURE = "serving_default"
# TensorFlow operators through which a SavedModel could read, write or run what is not its own.
_OUTSIDE = frozenset(
    {"PyFunc", "EagerPyFunc", "PyFuncStateless", "ReadFile", "WriteFile", "Save", "SaveV2", "MergeV2Checkpoints"}
)
_HARMLESS_FUNCTIONS = ("__inference__traced_save", "__inference__traced_restore")
# The last layer of a quantization-aware model is the range of the layer that the user knows.
_RANGE = re.compile(r"_range(?:_\d+)?$")
_CALLS = re.compile(r"(?:Stateful)*PartitionedCall(?:_\d+)?/")
_TRACED = re.compile(r"zz(\d+)zz(?:_\d+)*")


@dataclass(frozen=True, slots=True)
class InputSpec:
    """An input as Keras names it; `shape` without the batch axis."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class FloatModel:
    """`call` maps batch-1 tensors, in the order of `inputs`, to tensors in the order of `outputs`.

    `fused`: not None if it calls functions that the converter replaces by an operator (`edgeq.quantization.fused`);
    then, once it was traced, the name scope of each such function and the input weights of its first gate.
    """

    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    call: Callable[[list[Any]], list[Any]]
    keras_model: Any = None
    fused: list[tuple[str, NDArray[Any]]] | None = None

    @property
    def is_quantize_aware(self) -> bool:
        return self.keras_model is not None and aware.is_quantize_aware(self.keras_model)


class _OldDepthwiseConv2D(keras.layers.DepthwiseConv2D):  # type: ignore[misc]
    """Keras 2 wrote `groups` into the configuration of a depthwise convolution; Keras 3 refuses it."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return keras.layers.DepthwiseConv2D(**{k: v for k, v in config.items() if k != "groups"})


def load(path: Path, *, unsafe: bool) -> FloatModel:
    """The model at `path`. ModelError if it cannot be opened, ToolError if that takes a package that is missing."""
    kind = inspect(path, unsafe=unsafe)
    try:
        if kind == "saved_model":
            opened = _open_saved_model(path)
        elif kind == "h5":
            opened = _open_h5(path, unsafe)
        else:
            opened = keras.models.load_model(path, compile=False, safe_mode=not unsafe)
    except EdgeqError:
        raise
    except Exception as error:
        raise _unloadable(path, error) from error
    return opened if isinstance(opened, FloatModel) else from_keras(opened)


def _unloadable(path: Path, error: Exception) -> ModelError:
    return ModelError(
        "model-not-loadable",
        f"Keras {keras.__version__} cannot open {path}.",
        where=str(path),
        why=_first_lines(error),
        try_=(
            "Custom layers: open the model in Python and call edgeq.convert(model, ...) with the object.",
            "Damaged or old files: open it where it was made and save it again as .keras.",
        ),
    )


def _first_lines(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:400]}"


def _tf_keras() -> Any:
    try:
        import tf_keras
    except ImportError as error:
        raise ToolError(
            "tf-keras-missing",
            "This model was saved by Keras 2; opening it needs the package tf-keras.",
            try_="pip install 'edgeq[legacy]'",
        ) from error
    return tf_keras


def _open_h5(path: Path, unsafe: bool) -> Any:
    custom = {"DepthwiseConv2D": _OldDepthwiseConv2D}
    try:
        return keras.models.load_model(path, compile=False, custom_objects=custom, safe_mode=not unsafe)
    except Exception as error:
        try:
            return _tf_keras().models.load_model(path, compile=False)
        except Exception:
            raise error from None


def _open_saved_model(path: Path) -> Any:
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    try:
        proto.ParseFromString((path / "saved_model.pb").read_bytes())
    except Exception as error:
        raise ModelError("model-damaged", f"{path} is damaged.", where=str(path), why=_first_lines(error)) from error
    library = [f for graph in proto.meta_graphs for f in graph.graph_def.library.function]
    used = {n.op for f in library if not f.signature.name.startswith(_HARMLESS_FUNCTIONS) for n in f.node_def}
    if used & _OUTSIDE:
        raise ModelError(
            "model-carries-code",
            f"{path} contains operators that act outside of the model: {', '.join(sorted(used & _OUTSIDE))}.",
            where=str(path),
            try_="Save the model without them.",
        )
    nodes = [n for graph in proto.meta_graphs for n in graph.object_graph_def.nodes]
    if not any(n.user_object.identifier.startswith("_tf_keras_") for n in nodes):
        return _from_signature(path)
    model = _tf_keras().models.load_model(path, compile=False)
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "model.h5"
        try:
            model.save(copy)
            return _open_h5(copy, unsafe=False)
        except Exception:
            # Not every Keras 2 model has a Keras 3 twin; the function it computes converts as well.
            return model


def _from_signature(path: Path) -> FloatModel:
    loaded = tf.saved_model.load(str(path))
    signatures = loaded.signatures
    if not signatures:
        raise ModelError("model-not-loadable", f"{path} has no signature to convert.", where=str(path))
    function = signatures[SIGNATURE if SIGNATURE in signatures else next(iter(signatures))]
    _, keywords = function.structured_input_signature
    inputs = tuple(_spec(name, spec.shape, spec.dtype.name) for name, spec in keywords.items())
    outputs = tuple(sorted(function.structured_outputs))

    def call(tensors: list[Any]) -> list[Any]:
        result = function(**{spec.name: t for spec, t in zip(inputs, tensors, strict=True)})
        return [result[name] for name in outputs]

    call.loaded = loaded  # type: ignore[attr-defined]  # keeps the variables alive
    return FloatModel(inputs, outputs, call)


def _spec(name: str, shape: Any, dtype: str) -> InputSpec:
    dimensions = tuple(shape)[1:] if tuple(shape) else ()
    if any(d is None for d in dimensions):
        raise ModelError(
            "dynamic-shape",
            f"Input {name} has a dimension without a size: {tuple(dimensions)}.",
            where=f"input {name}",
            why="A microcontroller's memory is planned before it runs.",
            try_="Give the Input its full shape, for example keras.Input((49, 10)), and save the model again.",
        )
    return InputSpec(name, tuple(int(d) for d in dimensions), dtype)


def from_keras(model: Any) -> FloatModel:
    """A FloatModel of a built Keras 3 or tf-keras model."""
    if not getattr(model, "inputs", None):
        raise ModelError(
            "model-not-built",
            f"The model {model.name} has no inputs yet.",
            try_="Give it an Input layer, or call it once on data, before saving it.",
        )
    for layer in model._flatten_layers():
        # Rolled recurrent layers become WHILE loops, which neither quantize nor run on a microcontroller.
        if hasattr(layer, "unroll"):
            layer.unroll = True
    functional = getattr(model, "_functional", None) or model
    names = list(getattr(model, "input_names", None) or (t.name for t in model.inputs))
    inputs = tuple(
        _spec(n, t.shape, str(getattr(t.dtype, "name", t.dtype))) for n, t in zip(names, model.inputs, strict=True)
    )
    outputs = _unique([_RANGE.sub("", name) for name in functional.output_names])

    def call(tensors: list[Any]) -> list[Any]:
        given = tensors if len(tensors) > 1 else tensors[0]
        if isinstance(getattr(functional, "_inputs_struct", None), dict):
            given = dict(zip(functional._inputs_struct, tensors, strict=True))
        return list(tf.nest.flatten(model(given, training=False)))

    return FloatModel(inputs, tuple(outputs), call, model)


def _unique(names: list[str]) -> list[str]:
    taken: dict[str, int] = {}
    result = []
    for name in names:
        taken[name] = taken.get(name, 0) + 1
        result.append(name if taken[name] == 1 else f"{name}_{taken[name] - 1}")
    return result


class Lowered:
    """The model as a frozen batch-1 function, and its float32 `.tflite`.

    `names[i]` is the layer that the tensor names of the frozen function call `zz{i}zz`.
    """

    def __init__(self, model: FloatModel) -> None:
        self.inputs, self.outputs = model.inputs, model.outputs
        self._specs = [
            tf.TensorSpec((1, *spec.shape), spec.dtype, name=f"in_{i}") for i, spec in enumerate(model.inputs)
        ]
        layers = list(model.keras_model._flatten_layers()) if model.keras_model is not None else []
        self.names = [layer.name for layer in layers]
        self._classes = [type(layer).__name__ for layer in layers]
        self._folded = _folded_into(layers)
        self.origins = Origins()
        for i, layer in enumerate(layers):
            _rename(layer, f"zz{i}zz")
        try:
            traced = tf.function(lambda *tensors: model.call(list(tensors)), input_signature=self._specs)
            self._frozen = convert_variables_to_constants_v2(traced.get_concrete_function())
        except Exception as error:
            raise ModelError(
                "model-not-traceable", "The model does not run on a batch of one sample.", why=_first_lines(error)
            ) from error
        finally:
            for layer, name in zip(layers, self.names, strict=True):
                _rename(layer, name)
        if layers:
            self.names[0] = ""
        self._module = tf.Module()
        # Freezing dissolves the functions that the converter is to replace.
        self._fused = model.fused or []
        self._served = traced if self._fused else self._frozen
        if self._fused:
            self._module.variables_of_layers = [weight.value for weight in model.keras_model.variables]

    def predict(self, samples: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Float outputs, in Keras's order, for one sample of each input without batch axis; outputs keep theirs off."""
        tensors = [tf.constant(s[None], spec.dtype) for s, spec in zip(samples, self._specs, strict=True)]
        result = self._frozen(*tensors)
        flat = list(result) if isinstance(result, (list, tuple)) else [result]
        return [np.asarray(value)[0] for value in flat]

    def converter(self, directory: Path) -> Any:
        """A TFLiteConverter of the function, whose signature calls inputs and outputs in_0, ..., out_0, ..."""
        if not (directory / "saved_model.pb").exists():

            def serve(*tensors: Any) -> dict[str, Any]:
                result = self._served(*tensors)
                flat = list(result) if isinstance(result, (list, tuple)) else [result]
                return {f"out_{i}": value for i, value in enumerate(flat)}

            function = tf.function(serve, input_signature=self._specs)
            self._module.serve = function
            # Gradients are not needed, and that of swish captures what the frozen function has no longer.
            options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
            signatures = {SIGNATURE: function.get_concrete_function()}
            tf.saved_model.save(self._module, str(directory), signatures=signatures, options=options)
        return tf.lite.TFLiteConverter.from_saved_model(str(directory), signature_keys=[SIGNATURE])

    def user_names(self, tflite: bytes) -> bytes:
        """The file with inputs and outputs named and ordered as in Keras, tensors named after the user's layers."""
        model = flatbuffer_utils.convert_bytearray_to_object(bytearray(tflite))
        graph, signature = model.subgraphs[0], model.signatureDefs[0]
        taken: set[str] = set()
        traced = [tensor.name.decode() for tensor in graph.tensors]
        if self._fused:
            self._name_fused(read_bytes(tflite), traced)
            for operator in graph.operators:
                if hasattr(operator.builtinOptions, "cellClip"):
                    # The converter writes 10; Keras has no limit.
                    operator.builtinOptions.cellClip = 0.0
        for tensor, old in zip(graph.tensors, traced, strict=True):
            name = self.layer_names(old)
            while name in taken:
                name += ";again"
            taken.add(name)
            tensor.name = name.encode()
        ordered = []
        for entries, prefix, names in (
            (signature.inputs, "in_", [spec.name for spec in self.inputs]),
            (signature.outputs, "out_", list(self.outputs)),
        ):
            by_name = {entry.name.decode(): entry for entry in entries}
            kept = [(name, by_name[f"{prefix}{i}"]) for i, name in enumerate(names)]
            for name, entry in kept:
                entry.name = name.encode()
            ordered.append([entry for _, entry in kept])
        signature.inputs, signature.outputs = ordered
        graph.inputs = [entry.tensorIndex for entry in signature.inputs]
        graph.outputs = [entry.tensorIndex for entry in signature.outputs]
        for entry in (*signature.inputs, *signature.outputs):
            graph.tensors[entry.tensorIndex].name = entry.name
        self.origins = self._origins({t.name.decode(): old for t, old in zip(graph.tensors, traced, strict=True)})
        return bytes(flatbuffer_utils.convert_object_to_bytearray(model))

    def _name_fused(self, graph: Graph, traced: list[str]) -> None:
        """Call what fused operators write, which the converter left without a name, after their layers."""
        for op in graph.operators:
            if op.name == LSTM:
                weights = graph.tensor(op.inputs[1]).data
                scope = next((s for s, own in self._fused if weights is not None and np.array_equal(own, weights)), "")
                traced[op.outputs[0]] = f"{scope}/lstm" if scope else traced[op.outputs[0]]

    def _origins(self, traced: Mapping[str, str]) -> Origins:
        """Tensor name -> the layers in its traced name, a path for each nested model."""
        layers, places = {}, {}
        for name, old in traced.items():
            found = []
            for part in old.split(";"):
                numbers = [n for n in map(int, _TRACED.findall(part)) if self.names[n]]
                if numbers:
                    path = "/".join(self.names[n] for n in numbers)
                    places[numbers[-1]] = path
                    found.append(path)
                elif not self.names and "/" in self.layer_names(part):
                    found.append(self.layer_names(part).rsplit("/", maxsplit=1)[0])
            if not found and name in self.outputs and name in self.names:
                # What the function returns is named after the function, not after the layer.
                found.append(name)
            layers[name] = tuple(dict.fromkeys(found))
        classes = {places.get(n, name): self._classes[n] for n, name in enumerate(self.names) if name}
        for n, before in self._folded.items():
            if n not in places and before in places:
                own, other = self.names[n], places[before]
                layers = {name: (*found, own) if other in found else found for name, found in layers.items()}
        return Origins(layers, classes)

    def layer_names(self, traced: str) -> str:
        """`zz0zz/zz3zz_1/Relu;...` in the user's words: `conv/Relu;...`."""

        def words(part: str) -> str:
            inner = _TRACED.sub(lambda found: self.names[int(found.group(1))], _CALLS.sub("", part))
            return "/".join(piece for piece in inner.split("/") if piece)

        return ";".join(words(part) for part in traced.split(";") if part)


def _folded_into(layers: Sequence[Any]) -> dict[int, int]:
    """BatchNormalization -> the layer it follows, by index: folding may leave nothing of its name."""
    numbers = {id(layer): n for n, layer in enumerate(layers)}
    found = {}
    for n, layer in enumerate(layers):
        nodes = getattr(layer, "_inbound_nodes", None)
        if type(layer).__name__ == "BatchNormalization" and nodes and nodes[-1].input_tensors:
            before = getattr(nodes[-1].input_tensors[0]._keras_history, "operation", None)
            if id(before) in numbers:
                found[n] = numbers[id(before)]
    return found


def _rename(layer: Any, name: str) -> None:
    if isinstance(layer, keras.Layer):
        layer.name = name
    else:
        layer._name = name
