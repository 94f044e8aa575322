"""LSTM layers as TFLite's one operator for a whole sequence, UNIDIRECTIONAL_SEQUENCE_LSTM.

The converter puts it in place of a function that says that it implements an LSTM, which tf-keras's layers did and
Keras 3's do not. Imports TensorFlow: only the child process does this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edgeq.errors import ModelError
from edgeq.quantization.float_model import FloatModel


def fused(model: FloatModel) -> FloatModel:
    """The model, whose LSTM layers are traced as functions that the converter knows.

    ModelError `rnn-not-fusable` if it has none, or another recurrent layer, or one that the operator cannot compute.
    """
    if not isinstance(model.keras_model, keras.Model) or model.is_quantize_aware:
        raise ModelError(
            "rnn-not-fusable",
            "Only Keras 3 models that were not trained with quantization keep their layers apart.",
            where="--rnn fused",
            try_="Save the model as .keras, or use --rnn unroll.",
        )
    recurrent = [layer for layer in model.keras_model._flatten_layers() if isinstance(layer, keras.layers.RNN)]
    if not recurrent:
        raise ModelError(
            "rnn-not-fusable",
            f"{model.keras_model.name} has no LSTM layer.",
            where="--rnn fused",
            try_="Leave --rnn out.",
        )
    for layer in model.keras_model._flatten_layers():
        if isinstance(layer, (keras.layers.RNN, keras.layers.Bidirectional)) and _is_masked(layer):
            raise _not_fusable(layer, "is masked")
        if layer in recurrent and (why := _obstacle(layer)) is not None:
            raise _not_fusable(layer, why)
    scopes: list[tuple[str, NDArray[Any]]] = []
    for number, layer in enumerate(recurrent):
        layer.inner_loop = _inner_loop(layer, number, scopes)
    return replace(model, fused=scopes)


def _obstacle(layer: Any) -> str | None:
    """What TFLite's operator cannot do and the layer does, or None."""
    if type(layer) is not keras.layers.LSTM:
        return "has no operator of its own; only LSTM has"
    if layer.activation is not keras.activations.tanh or layer.recurrent_activation is not keras.activations.sigmoid:
        return "has other activations than tanh and sigmoid"
    if layer.return_state or layer.stateful:
        return "takes or returns its state"
    if any(len(node.input_tensors) > 1 for node in layer._inbound_nodes):
        return "starts from a state that it is given"
    return None


def _is_masked(layer: Any) -> bool:
    given = [tensor for node in layer._inbound_nodes for tensor in node.input_tensors]
    return any(getattr(tensor, "_keras_mask", None) is not None for tensor in given)


def _not_fusable(layer: Any, why: str) -> ModelError:
    return ModelError(
        "rnn-not-fusable",
        f"Layer {layer.name} ({type(layer).__name__}) {why}.",
        where="--rnn fused",
        try_="Use --rnn unroll.",
    )


def _inner_loop(layer: Any, number: int, scopes: list[tuple[str, NDArray[Any]]]) -> Callable[..., Any]:
    """What replaces the layer's own loop over time: (last output, all outputs, states). Leaves its name in `scopes`."""
    first_gate = np.asarray(layer.cell.kernel)[:, : layer.units].T

    def inner_loop(sequences: Any, initial_state: Any, mask: Any = None, training: bool = False) -> Any:  # noqa: ARG001
        if mask is not None:
            raise ValueError(f"Layer {layer.name} is masked; --rnn fused knows no masks.")
        x = tf.reverse(sequences, [1]) if layer.go_backwards else sequences
        kernel, recurrent = (tf.convert_to_tensor(w) for w in (layer.cell.kernel, layer.cell.recurrent_kernel))
        bias = tf.convert_to_tensor(layer.cell.bias) if layer.use_bias else tf.zeros(4 * layer.units)
        scopes.append((tf.get_current_name_scope(), first_gate))
        zeros = tf.zeros((x.shape[0] or 1, layer.units))
        last, outputs, h, c, _ = _composite(number)(x, zeros, zeros, kernel, recurrent, bias)
        return last, outputs, [h, c]

    return inner_loop


def _composite(number: int) -> Any:
    """A function with the arguments, results and attributes by which the converter knows an LSTM.

    The source of the signature: prepare_composite_functions_tf.cc and lstm_utils.cc of TensorFlow's converter.
    """

    def lstm(x: Any, h: Any, c: Any, *weights: Any) -> Any:
        kernel, recurrent, bias = weights
        outputs = []
        for moment in tf.unstack(x, axis=1):
            gates = tf.matmul(moment, kernel) + tf.matmul(h, recurrent) + bias
            i, f, g, o = tf.split(gates, 4, axis=1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            h = tf.sigmoid(o) * tf.tanh(c)
            outputs.append(h)
        return h, tf.stack(outputs, axis=1), h, c, tf.constant(1.0)

    attributes = {"api_implements": f"lstm_{number}", "go_backwards": False, "time_major": False}
    return tf.function(lstm, autograph=False, experimental_attributes=attributes)
