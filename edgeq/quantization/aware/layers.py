"""The layers of a quantization-aware model: weights on a grid of few levels, activations on a grid of 256."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edgeq.quantization.weights import least_squares_scale

# Levels of a weight, in units of its channel's scale: all integers up to `top`, or the odd ones alone.
# 2 bits are the four symmetric levels -3, -1, 1, 3: no code is spent on a fifth that would not fit.
GRIDS: dict[str, tuple[int, bool]] = {
    "8": (127, False),
    "7": (63, False),
    "6": (31, False),
    "5": (15, False),
    "4": (7, False),
    "3": (3, False),
    "2": (3, True),
    "ternary": (1, False),
    "binary": (1, True),
}
SURROGATES = ("straight-through", "sigmoid")
_PACKAGE = "edgeq"


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _round_straight(x: Any) -> Any:
    """round(x), whose gradient is that of x."""
    return tf.round(x), lambda upstream: upstream


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _round_sigmoid(x: Any, temperature: Any) -> Any:
    """round(x), whose gradient is that of the staircase floor(x) + sigmoid(T (frac(x) - 1/2)), of mean 1 a step."""

    def gradient(upstream: Any) -> Any:
        soft = tf.sigmoid(temperature * (x - tf.floor(x) - 0.5))
        total = 2 * tf.sigmoid(temperature / 2) - 1
        return upstream * temperature * soft * (1 - soft) / total, tf.zeros_like(temperature)

    return tf.round(x), gradient


def on_grid(weights: Any, scale: Any, grid: str, temperature: Any = None) -> Any:
    """Weights on their grid, differentiable in weights and scale (learned step size, Esser et al. 2020)."""
    top, odd = GRIDS[grid]
    unit = tf.clip_by_value(weights / scale, -float(top), float(top))
    halved = (unit - 1) / 2 if odd else unit
    rounded = _round_straight(halved) if temperature is None else _round_sigmoid(halved, temperature)
    codes = tf.clip_by_value(2 * rounded + 1, -float(top), float(top)) if odd else rounded
    return codes * scale


def first_scale(weights: NDArray[np.float64], axis: int, grid: str) -> NDArray[np.float64]:
    """The scale of each channel (output channels on `axis`) with the least squared error on its grid, to train from."""
    top, odd = GRIDS[grid]
    if not odd and top > 1:
        return least_squares_scale(weights, axis, top.bit_length() + 1)
    rows = np.abs(np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1))
    best = np.full(len(rows), 1e-6)
    least = np.full(len(rows), np.inf)
    for share in np.linspace(0.02, 1.0, 99):
        scale = np.maximum(rows.max(axis=1) * share, 1e-6)
        unit = rows / scale[:, None]
        codes = np.clip(2 * np.floor(unit / 2) + 1, 1, top) if odd else np.clip(np.round(unit), 0, top)
        error = ((codes * scale[:, None] - rows) ** 2).sum(axis=1)
        best, least = np.where(error < least, scale, best), np.minimum(error, least)
    return best


def _exact(variable: Any) -> Any:
    return tf.cast(tf.convert_to_tensor(variable), tf.float64)


@keras.saving.register_keras_serializable(package=_PACKAGE)
class FakeQuantize(keras.layers.Layer):  # type: ignore[misc]
    """Activations on 256 levels between `low` and `high`: a moving average of what was seen, or learned, or fixed."""

    def __init__(self, ranges: str = "moving", fixed: tuple[float, float] | None = None, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.ranges, self.fixed = ranges, None if fixed is None else tuple(fixed)

    def build(self, _: Any) -> None:
        low, high = self.fixed or (0.0, 0.0)
        learned = self.ranges == "learned" and self.fixed is None
        for name, start in (("low", low), ("high", high)):
            value = self.add_weight(
                name=name,
                shape=(),
                initializer=keras.initializers.Constant(start),
                trainable=learned,
                aggregation="mean",
            )
            setattr(self, name, value)
        self.batches = self.add_weight(
            name="batches", shape=(), initializer="zeros", trainable=False, aggregation="only_first_replica"
        )

    def call(self, x: Any, training: bool = False) -> Any:
        if training and self.fixed is None:
            self._observe(x)
        return tf.quantization.fake_quant_with_min_max_vars(
            x, tf.convert_to_tensor(self.low), tf.convert_to_tensor(self.high)
        )

    def _observe(self, x: Any) -> None:
        """The first batches set the range; then it moves slowly, or the gradient alone moves it."""
        n = tf.convert_to_tensor(self.batches)
        keep = tf.minimum(n / (n + 1), 0.99)
        if self.ranges == "learned":
            keep = tf.where(n < 10, keep, 1.0)
        seen_low, seen_high = tf.minimum(tf.reduce_min(x), 0.0), tf.maximum(tf.reduce_max(x), 1e-6)
        self.low.assign(keep * self.low + (1 - keep) * seen_low)
        self.high.assign(keep * self.high + (1 - keep) * seen_high)
        self.batches.assign(n + 1)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ranges": self.ranges, "fixed": self.fixed}


@keras.saving.register_keras_serializable(package=_PACKAGE)
class QuantizedWeights(keras.layers.Layer):  # type: ignore[misc]
    """A Conv2D, Conv1D, DepthwiseConv2D or Dense whose weights lie on a grid, with its BatchNormalization folded in.

    The normalization's statistics stay as they were; its gamma and beta train on. `grid` is a key of GRIDS. At 8 bits a
    channel's scale follows its largest weight; below, it is learned.
    """

    def __init__(
        self,
        layer: Any,
        norm: Any = None,
        *,
        grid: str = "8",
        per_channel: bool = True,
        surrogate: str = "straight-through",
        anneal_steps: int = 1000,
        **keywords: Any,
    ) -> None:
        super().__init__(**keywords)
        self.layer, self.norm = layer, norm
        self.grid, self.per_channel, self.surrogate, self.anneal_steps = grid, per_channel, surrogate, anneal_steps
        self.layer.trainable = True

    @property
    def is_depthwise(self) -> bool:
        return isinstance(self.layer, keras.layers.DepthwiseConv2D)

    def build(self, input_shape: Any) -> None:
        if not self.layer.built:
            self.layer.build(input_shape)
        if self.norm is not None:
            if not self.norm.built:
                self.norm.build(self.layer.compute_output_shape(input_shape))
            self.norm.moving_mean.trainable = self.norm.moving_variance.trainable = False
        if self.grid != "8":
            channels = self._channels() if self.per_channel else 1
            self.scale = self.add_weight(name="scale", shape=(channels,), initializer="ones", trainable=True)
        if self.surrogate == "sigmoid":
            self.steps = self.add_weight(
                name="steps", shape=(), initializer="zeros", trainable=False, aggregation="only_first_replica"
            )

    def _channels(self) -> int:
        shape = self.layer.kernel.shape
        return int(shape[-1] * shape[-2]) if self.is_depthwise else int(shape[-1])

    def start(self) -> None:
        """Set the learned scales from the weights as they are."""
        if self.grid == "8":
            return
        folded = np.asarray(self.folded()[0], np.float64)
        if self.is_depthwise:
            folded = folded.reshape(*folded.shape[:2], -1)
        if not self.per_channel:
            folded = folded.reshape(-1, 1)
        self.scale.assign(first_scale(folded, folded.ndim - 1, self.grid))

    def folded(self) -> tuple[Any, Any]:
        """Kernel and bias with the normalization folded in, in float64.

        Training drives weights to the thresholds between two codes and leaves them there. In float32 an eager call, a
        compiled one and the converter's constant folding would round some of them to different codes.
        """
        kernel = _exact(self.layer.kernel)
        channels = self._channels()
        bias = _exact(self.layer.bias) if self.layer.use_bias else tf.zeros((channels,), tf.float64)
        if self.norm is None:
            return kernel, bias
        norm = self.norm
        gamma = _exact(norm.gamma) if norm.scale else tf.ones((channels,), tf.float64)
        beta = _exact(norm.beta) if norm.center else tf.zeros((channels,), tf.float64)
        factor = gamma / tf.sqrt(_exact(norm.moving_variance) + norm.epsilon)
        shaped = tf.reshape(factor, kernel.shape[-2:]) if self.is_depthwise else factor
        return kernel * shaped, beta + (bias - _exact(norm.moving_mean)) * factor

    def scales(self, kernel: Any) -> Any:
        """The scale of each output channel, shaped to multiply the kernel."""
        axes = list(range(len(kernel.shape) - (2 if self.is_depthwise else 1)))
        if self.grid != "8":
            # A layer's gradient reaches its scale once a weight: Esser et al. divide by the square root of that.
            g = 1 / np.sqrt(np.prod(kernel.shape) / max(1, self._channels()) * GRIDS[self.grid][0])
            raw = _exact(self.scale)
            value = tf.abs(raw * g + tf.stop_gradient(raw * (1 - g))) + 1e-9
        elif self.per_channel:
            value = tf.maximum(tf.reduce_max(tf.abs(kernel), axis=axes), 1e-9) / 127
        else:
            value = tf.maximum(tf.reduce_max(tf.abs(kernel)), 1e-9) / 127 * tf.ones((self._channels(),), tf.float64)
        if not self.per_channel and self.grid != "8":
            value = value * tf.ones((self._channels(),), tf.float64)
        return tf.reshape(value, kernel.shape[-2:]) if self.is_depthwise else value

    def call(self, x: Any, training: bool = False) -> Any:
        kernel, bias = self.folded()
        temperature = None
        if self.surrogate == "sigmoid" and training:
            progress = tf.minimum(tf.convert_to_tensor(self.steps) / self.anneal_steps, 1.0)
            temperature = tf.cast(2.0 + 6.0 * progress, tf.float64)
            self.steps.assign_add(1.0)
        scale = self.scales(kernel)
        if self.grid == "8":
            scale = tf.stop_gradient(scale)
        quantized = tf.cast(on_grid(kernel, scale, self.grid, temperature), x.dtype)
        return self.layer.activation(self._compute(x, quantized) + tf.cast(bias, x.dtype))

    def _compute(self, x: Any, kernel: Any) -> Any:
        layer = self.layer
        if isinstance(layer, keras.layers.Dense):
            return keras.ops.matmul(x, kernel)
        options = {"strides": layer.strides, "padding": layer.padding, "dilation_rate": layer.dilation_rate}
        if self.is_depthwise:
            return keras.ops.depthwise_conv(x, kernel, **options)
        return keras.ops.conv(x, kernel, **options)

    def compute_output_shape(self, shape: Any) -> Any:
        return self.layer.compute_output_shape(shape)

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "layer": serialize(self.layer),
            "norm": None if self.norm is None else serialize(self.norm),
            "grid": self.grid,
            "per_channel": self.per_channel,
            "surrogate": self.surrogate,
            "anneal_steps": self.anneal_steps,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        deserialize = keras.saving.deserialize_keras_object
        inner = {name: config[name] and deserialize(config[name]) for name in ("layer", "norm")}
        return cls(**{**config, **inner})
