"""Whole Keras networks, small ones of every kind, and their conversion by EdgeQ's own quantizer.

    python keras_networks.py SCHEME DIRECTORY NAME...

leaves NAME.tflite, or NAME.error with the reason, for each network in DIRECTORY. Weights are seeded, biases and
normalisation statistics are not at their defaults. Importing this module does not import Keras.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

SAMPLES = 12
TOKENS = 12
"""Token ids are below."""


class _Late:
    """A module that is imported when something of it is first used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)


keras, layers, ops = _Late("keras"), _Late("keras.layers"), _Late("keras.ops")
Make = Callable[[], Any]
NETWORKS: dict[str, Make] = {}
"""Name -> what builds it, in the order in which they stand here."""


def network(make: Make) -> Make:
    NETWORKS[make.__name__] = make
    return make


def image(size: int = 16, channels: int = 3) -> Any:
    return keras.Input((size, size, channels), name="image")


def conv(x: Any, filters: int, size: int = 3, stride: int = 1, activation: str | None = "relu", **options: Any) -> Any:
    """Convolution, normalisation, activation."""
    x = layers.Conv2D(filters, size, stride, padding="same", use_bias=False, **options)(x)
    x = layers.BatchNormalization()(x)
    return x if activation is None else layers.Activation(activation)(x)


def depthwise(x: Any, size: int = 3, stride: int = 1, activation: str | None = "relu6", **options: Any) -> Any:
    x = layers.DepthwiseConv2D(size, stride, padding="same", use_bias=False, **options)(x)
    x = layers.BatchNormalization()(x)
    return x if activation is None else layers.Activation(activation)(x)


def classify(x: Any, classes: int = 5) -> Any:
    """Logits: a softmax of noise saturates and hides differences."""
    return layers.Dense(classes)(layers.GlobalAveragePooling2D()(x))


# Vision


@network
def plain() -> Any:
    i = image()
    x = layers.MaxPooling2D()(conv(i, 8))
    x = layers.MaxPooling2D()(conv(x, 12))
    x = layers.Dense(20, activation="relu")(layers.Flatten()(x))
    return keras.Model(i, layers.Dense(5, activation="softmax")(x))


@network
def lenet() -> Any:
    i = image(16, 1)
    x = layers.AveragePooling2D(2)(layers.Conv2D(6, 5, activation="tanh", padding="same")(i))
    x = layers.AveragePooling2D(2)(layers.Conv2D(10, 5, activation="tanh")(x))
    x = layers.Dense(24, activation="tanh")(layers.Flatten()(x))
    return keras.Model(i, layers.Dense(10)(x))


@network
def multilayer_perceptron() -> Any:
    i = keras.Input((30,))
    x = layers.Dense(32, activation="relu")(i)
    x = layers.Dropout(0.5)(layers.Dense(17, activation="sigmoid", use_bias=False)(x))
    return keras.Model(i, layers.Dense(3, activation="softmax")(x))


@network
def deep_autoencoder() -> Any:
    i = keras.Input((40,))
    x = i
    for units in (32, 16, 4, 16, 32):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Dense(units)(x)))
    return keras.Model(i, layers.Dense(40)(x))


@network
def residual() -> Any:
    i = image()
    x = conv(i, 8)
    for filters, stride in ((8, 1), (16, 2)):
        y = conv(conv(x, filters, stride=stride), filters, activation=None)
        short = x if stride == 1 else conv(x, filters, 1, stride, None)
        x = layers.ReLU()(layers.Add()([y, short]))
    return keras.Model(i, classify(x))


@network
def residual_preactivation() -> Any:
    i = image()
    x = layers.Conv2D(8, 3, padding="same")(i)
    for _ in range(2):
        y = layers.Conv2D(8, 3, padding="same")(layers.ReLU()(layers.BatchNormalization()(x)))
        x = layers.Add()([x, layers.Conv2D(8, 3, padding="same")(layers.ReLU()(layers.BatchNormalization()(y)))])
    return keras.Model(i, classify(layers.ReLU()(layers.BatchNormalization()(x))))


@network
def residual_bottleneck() -> Any:
    i = image()
    x = conv(i, 16)
    y = conv(conv(conv(x, 4, 1), 4), 16, 1, activation=None)
    return keras.Model(i, classify(layers.ReLU()(x + y)))


@network
def separable() -> Any:
    """MobileNet's first version, and Keras's own separable convolution."""
    i = image()
    x = conv(i, 8, stride=2, activation="relu6")
    x = conv(depthwise(x), 12, 1, activation="relu6")
    x = conv(depthwise(x, stride=2), 16, 1, activation="relu6")
    x = layers.SeparableConv2D(20, 3, padding="same", activation="relu")(x)
    return keras.Model(i, classify(x))


@network
def inverted_residual() -> Any:
    """MobileNet's second version."""
    i = image()
    x = conv(i, 8, stride=2, activation="relu6")
    for stride in (1, 2):
        y = depthwise(conv(x, 24, 1, activation="relu6"), stride=stride)
        y = conv(y, 8, 1, activation=None)
        x = layers.Add()([x, y]) if stride == 1 else y
    return keras.Model(i, classify(x))


@network
def mobilenet_padding() -> Any:
    """Zero padding before a valid convolution of stride two, as keras.applications writes it."""
    i = image(17)
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(i)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(8, 3, 2, padding="valid", use_bias=False)(x)))
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
    x = layers.ReLU(6.0)(layers.DepthwiseConv2D(3, 2, padding="valid")(x))
    return keras.Model(i, classify(layers.ZeroPadding2D(2)(x)))


@network
def hard_swish_and_squeeze() -> Any:
    """MobileNet's third version."""
    i = image()
    x = conv(i, 8, stride=2, activation="hard_swish")
    y = depthwise(conv(x, 16, 1, activation="hard_swish"), 5, activation="hard_swish")
    s = layers.GlobalAveragePooling2D(keepdims=True)(y)
    s = layers.Conv2D(16, 1, activation="hard_sigmoid")(layers.Conv2D(4, 1, activation="relu")(s))
    y = conv(layers.Multiply()([y, s]), 8, 1, activation=None)
    return keras.Model(i, classify(layers.Add()([x, y])))


@network
def squeeze_excite() -> Any:
    """EfficientNet: swish, squeeze and excite by dense layers."""
    i = image()
    x = conv(i, 8, stride=2, activation="swish")
    s = layers.GlobalAveragePooling2D()(x)
    s = layers.Dense(8, activation="sigmoid")(layers.Dense(2, activation="swish")(s))
    x = layers.Multiply()([x, layers.Reshape((1, 1, 8))(s)])
    return keras.Model(i, classify(conv(x, 12, 1, activation="swish")))


@network
def channel_and_spatial_attention() -> Any:
    i = image()
    x = conv(i, 8, stride=2)
    first, second = layers.Dense(4, activation="relu"), layers.Dense(8)
    mean = second(first(layers.GlobalAveragePooling2D()(x)))
    most = second(first(layers.GlobalMaxPooling2D()(x)))
    x = layers.Multiply()([x, layers.Reshape((1, 1, 8))(ops.sigmoid(mean + most))])
    maps = layers.Concatenate()([ops.mean(x, axis=-1, keepdims=True), ops.max(x, axis=-1, keepdims=True)])
    x = layers.Multiply()([x, layers.Conv2D(1, 5, padding="same", activation="sigmoid")(maps)])
    return keras.Model(i, classify(x))


@network
def dense_blocks() -> Any:
    i = image()
    x = conv(i, 8)
    for _ in range(3):
        y = layers.Conv2D(4, 3, padding="same")(layers.ReLU()(layers.BatchNormalization()(x)))
        x = layers.Concatenate()([x, y])
    x = layers.AveragePooling2D(2)(conv(x, 8, 1))
    return keras.Model(i, classify(x))


@network
def inception() -> Any:
    i = image()
    x = conv(i, 8, stride=2)
    branches = [conv(x, 4, 1), conv(conv(x, 4, 1), 6), conv(conv(x, 4, 1), 6, 5)]
    branches.append(conv(layers.MaxPooling2D(3, 1, padding="same")(x), 4, 1))
    return keras.Model(i, classify(layers.Concatenate()(branches)))


@network
def fire_modules() -> Any:
    i = image()
    x = layers.MaxPooling2D(3, 2)(layers.Conv2D(8, 3, 2, activation="relu")(i))
    s = layers.Conv2D(4, 1, activation="relu")(x)
    one = layers.Conv2D(8, 1, activation="relu")(s)
    three = layers.Conv2D(8, 3, padding="same", activation="relu")(s)
    x = layers.Conv2D(5, 1, activation="relu")(layers.Concatenate()([one, three]))
    return keras.Model(i, layers.Softmax()(layers.GlobalAveragePooling2D()(x)))


@network
def grouped_convolution() -> Any:
    i = image(12)
    x = layers.Conv2D(16, 3, padding="same", groups=4, activation="relu")(conv(i, 8))
    return keras.Model(i, classify(layers.Conv2D(16, 3, 2, padding="same", groups=2)(x)))


@network
def channel_shuffle() -> Any:
    i = image(8)
    x = conv(i, 8)
    x = layers.Reshape((8, 8, 8))(layers.Permute((1, 2, 4, 3))(layers.Reshape((8, 8, 2, 4))(x)))
    return keras.Model(i, classify(depthwise(x)))


@network
def dilated() -> Any:
    i = image()
    x = conv(conv(i, 8, dilation_rate=2), 8, dilation_rate=4)
    x = depthwise(x, dilation_rate=(2, 2))
    return keras.Model(i, classify(x))


@network
def depth_multiplier() -> Any:
    i = image(12)
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=4, activation="relu")(i)
    x = layers.DepthwiseConv2D(3, 2, padding="valid", depth_multiplier=2)(x)
    return keras.Model(i, classify(x))


@network
def mixer() -> Any:
    """ConvMixer: patches, then depthwise and pointwise with a residual."""
    i = image()
    x = layers.Conv2D(12, 4, 4, activation="relu")(i)
    x = layers.Add()([x, layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)])
    return keras.Model(i, classify(layers.Conv2D(12, 1, activation="relu")(x)))


@network
def perceptron_mixer() -> Any:
    """MLP-Mixer: dense layers over patches, then over channels."""
    i = image()
    x = layers.Reshape((16, 8))(layers.Conv2D(8, 4, 4)(i))
    y = layers.Dense(16)(layers.Dense(12, activation="relu")(layers.Permute((2, 1))(x)))
    x = layers.Add()([x, layers.Permute((2, 1))(y)])
    x = layers.Add()([x, layers.Dense(8)(layers.Dense(16, activation="relu")(x))])
    return keras.Model(i, layers.Dense(5, activation="softmax")(layers.GlobalAveragePooling1D()(x)))


@network
def vww_like() -> Any:
    i = image(24)
    x = conv(i, 8, stride=2)
    for filters, stride in ((16, 1), (16, 2), (24, 1)):
        x = conv(depthwise(x, stride=stride, activation="relu"), filters, 1)
    return keras.Model(i, layers.Dense(2)(layers.Flatten()(layers.AveragePooling2D(6)(x))))


@network
def keyword_spotting() -> Any:
    i = keras.Input((25, 10, 1))
    x = conv(i, 16, (10, 4), (2, 2))
    for _ in range(2):
        x = conv(depthwise(x, activation="relu"), 16, 1)
    return keras.Model(i, classify(layers.Dropout(0.2)(x), 12))


@network
def rectangular() -> Any:
    i = keras.Input((9, 21, 2))
    x = layers.Conv2D(6, (1, 7), (1, 2), padding="same", activation="relu")(i)
    x = layers.Conv2D(6, (5, 1), padding="valid", activation="relu")(x)
    x = layers.MaxPooling2D((2, 3), (1, 2))(x)
    return keras.Model(i, layers.Dense(4)(layers.Flatten()(x)))


# Dense prediction


@network
def unet() -> Any:
    i = image()
    a = conv(i, 8)
    b = conv(layers.MaxPooling2D()(a), 12)
    c = conv(layers.MaxPooling2D()(b), 16)
    x = layers.Conv2DTranspose(12, 2, 2, padding="same")(c)
    x = conv(layers.Concatenate()([x, b]), 12)
    x = layers.Conv2DTranspose(8, 3, 2, padding="same", activation="relu")(x)
    x = conv(layers.Concatenate()([x, a]), 8)
    return keras.Model(i, layers.Conv2D(3, 1, activation="softmax")(x))


@network
def unet_nearest() -> Any:
    i = image(8)
    a = conv(i, 8)
    x = layers.UpSampling2D(interpolation="nearest")(conv(layers.MaxPooling2D()(a), 8))
    return keras.Model(i, layers.Conv2D(1, 1, activation="sigmoid")(layers.Concatenate()([x, a])))


@network
def bilinear_upsampling() -> Any:
    i = image(8)
    x = layers.UpSampling2D(2, interpolation="bilinear")(conv(i, 6, stride=2))
    return keras.Model(i, layers.Conv2D(2, 1)(layers.Resizing(12, 12, interpolation="bilinear")(x)))


@network
def super_resolution() -> Any:
    """Sub-pixel convolution: channels to space, written with reshapes."""
    i = image(8, 1)
    x = layers.Conv2D(4, 3, padding="same")(conv(i, 8))
    x = layers.Permute((1, 3, 2))(layers.Reshape((8, 16, 2))(x))
    return keras.Model(i, layers.Reshape((16, 16, 1))(x))


@network
def convolutional_autoencoder() -> Any:
    i = image(16, 1)
    x = layers.Conv2D(8, 3, 2, padding="same", activation="relu")(i)
    x = layers.Dense(6, activation="relu")(layers.Flatten()(layers.Conv2D(4, 3, 2, padding="same")(x)))
    x = layers.Reshape((4, 4, 4))(layers.Dense(64, activation="relu")(x))
    x = layers.Conv2DTranspose(8, 3, 2, padding="same", activation="relu")(x)
    return keras.Model(i, layers.Conv2DTranspose(1, 3, 2, padding="same", activation="sigmoid")(x))


@network
def pyramid_pooling() -> Any:
    """DeepLab: parallel dilations and the pooled image."""
    i = image(12)
    x = conv(i, 8)
    pooled = layers.UpSampling2D(12, interpolation="bilinear")(
        conv(layers.GlobalAveragePooling2D(keepdims=True)(x), 4, 1)
    )
    parts = [conv(x, 4, 1), conv(x, 4, dilation_rate=2), conv(x, 4, dilation_rate=3), pooled]
    return keras.Model(i, layers.Conv2D(3, 1)(layers.Concatenate()(parts)))


@network
def feature_pyramid_detector() -> Any:
    """Two scales, boxes and scores for each: four outputs."""
    i = image()
    a = conv(i, 8, stride=2)
    b = conv(a, 8, stride=2)
    a = layers.Add()([a, layers.Resizing(8, 8, interpolation="nearest")(b)])
    boxes = [layers.Conv2D(8, 3, padding="same", name=f"boxes_{n}")(x) for n, x in enumerate((a, b))]
    scores = [layers.Conv2D(4, 1, activation="sigmoid", name=f"scores_{n}")(x) for n, x in enumerate((a, b))]
    return keras.Model(i, [*boxes, *scores])


@network
def anchor_head() -> Any:
    """SSD: all boxes in one tensor, softmax over classes."""
    i = image()
    a = conv(i, 8, stride=2)
    b = conv(a, 8, stride=2)
    parts = [layers.Reshape((-1, 4))(layers.Conv2D(8, 3, padding="same")(x)) for x in (a, b)]
    return keras.Model(i, layers.Softmax()(layers.Concatenate(axis=1)(parts)))


@network
def centroid_heatmap() -> Any:
    i = image(12)
    x = conv(conv(i, 8, stride=2), 8)
    return keras.Model(i, layers.Conv2D(3, 1)(layers.Cropping2D(1)(x)))


# One dimension


@network
def convolution_1d() -> Any:
    i = keras.Input((32, 3))
    x = layers.MaxPooling1D()(layers.Conv1D(8, 5, activation="relu")(i))
    x = layers.BatchNormalization()(layers.Conv1D(12, 3, padding="same", activation="relu")(x))
    return keras.Model(i, layers.Dense(6, activation="softmax")(layers.GlobalMaxPooling1D()(x)))


@network
def temporal_convolutions() -> Any:
    """TCN: causal, dilated, residual."""
    i = keras.Input((24, 4))
    x = layers.Conv1D(8, 1)(i)
    for dilation in (1, 2, 4):
        y = layers.Conv1D(8, 3, padding="causal", dilation_rate=dilation, activation="relu")(x)
        x = layers.Add()([x, layers.Conv1D(8, 1)(y)])
    return keras.Model(i, layers.Dense(3)(x[:, -1, :]))


@network
def wavenet() -> Any:
    """Gated activations."""
    i = keras.Input((20, 4))
    x, skips = layers.Conv1D(6, 1)(i), []
    for dilation in (1, 2):
        gate = layers.Conv1D(6, 2, padding="causal", dilation_rate=dilation, activation="sigmoid")(x)
        y = layers.Multiply()(
            [layers.Conv1D(6, 2, padding="causal", dilation_rate=dilation, activation="tanh")(x), gate]
        )
        skips.append(layers.Conv1D(6, 1)(y))
        x = layers.Add()([x, skips[-1]])
    return keras.Model(i, layers.Conv1D(4, 1, activation="softmax")(layers.ReLU()(layers.Add()(skips))))


@network
def separable_1d() -> Any:
    i = keras.Input((30, 4))
    x = layers.SeparableConv1D(8, 5, padding="same", activation="relu")(i)
    x = layers.AveragePooling1D(3, 2)(layers.DepthwiseConv1D(3, padding="same")(x))
    return keras.Model(i, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


@network
def transposed_1d() -> Any:
    i = keras.Input((8, 4))
    x = layers.Conv1DTranspose(6, 4, 2, padding="same", activation="relu")(i)
    return keras.Model(i, layers.Conv1D(1, 3, padding="same")(layers.ZeroPadding1D(1)(x)))


@network
def electrocardiogram() -> Any:
    i = keras.Input((64, 1))
    x = layers.Conv1D(8, 7, 2, padding="same", activation="relu")(i)
    y = layers.Conv1D(8, 3, padding="same")(layers.ReLU()(layers.BatchNormalization()(x)))
    x = layers.MaxPooling1D(2)(layers.Add()([x, y]))
    return keras.Model(i, layers.Dense(4, activation="softmax")(layers.Flatten()(x)))


@network
def temporal_unet() -> Any:
    i = keras.Input((16, 2))
    a = layers.Conv1D(6, 3, padding="same", activation="relu")(i)
    b = layers.Conv1D(8, 3, padding="same", activation="relu")(layers.MaxPooling1D()(a))
    x = layers.Concatenate()([a, layers.Conv1DTranspose(6, 2, 2)(b)])
    return keras.Model(i, layers.Conv1D(1, 1, activation="sigmoid")(x))


# Recurrent


@network
def lstm() -> Any:
    i = keras.Input((5, 4))
    return keras.Model(i, layers.Dense(3, activation="softmax")(layers.LSTM(6)(i)))


@network
def lstm_stacked() -> Any:
    i = keras.Input((4, 4))
    return keras.Model(i, layers.Dense(2)(layers.LSTM(5)(layers.LSTM(6, return_sequences=True)(i))))


@network
def gru() -> Any:
    i = keras.Input((5, 4))
    return keras.Model(i, layers.Dense(3)(layers.GRU(6)(i)))


@network
def gru_sequences() -> Any:
    """One prediction a step; the variant whose reset gate comes first."""
    i = keras.Input((4, 4))
    x = layers.GRU(5, return_sequences=True, reset_after=False)(i)
    return keras.Model(i, layers.TimeDistributed(layers.Dense(2))(x))


@network
def simple_recurrent() -> Any:
    i = keras.Input((6, 3))
    return keras.Model(i, layers.Dense(2)(layers.SimpleRNN(8)(i)))


@network
def bidirectional_lstm() -> Any:
    i = keras.Input((4, 3))
    return keras.Model(i, layers.Dense(2)(layers.Bidirectional(layers.LSTM(4))(i)))


@network
def bidirectional_gru() -> Any:
    i = keras.Input((4, 3))
    x = layers.Bidirectional(layers.GRU(4, return_sequences=True), merge_mode="sum")(i)
    return keras.Model(i, layers.Dense(2)(layers.Flatten()(x)))


@network
def convolution_then_lstm() -> Any:
    i = keras.Input((16, 3))
    x = layers.MaxPooling1D(4)(layers.Conv1D(6, 3, padding="same", activation="relu")(i))
    return keras.Model(i, layers.Dense(4, activation="softmax")(layers.LSTM(6)(x)))


@network
def convolutional_lstm() -> Any:
    i = keras.Input((3, 6, 6, 1))
    return keras.Model(i, layers.Dense(2)(layers.Flatten()(layers.ConvLSTM2D(3, 3, padding="same")(i))))


@network
def gru_cell_step() -> Any:
    """A step with explicit state: two inputs, two outputs."""
    i, state = keras.Input((4,), name="x"), keras.Input((6,), name="state")
    y, after = layers.GRUCell(6)(i, [state])
    return keras.Model([i, state], [layers.Dense(2, name="y")(y), after[0]])


@network
def lstm_cell_step() -> Any:
    i, h, c = keras.Input((4,), name="x"), keras.Input((5,), name="h"), keras.Input((5,), name="c")
    y, (h_after, c_after) = layers.LSTMCell(5)(i, [h, c])
    return keras.Model([i, h, c], [layers.Dense(2, name="y")(y), h_after, c_after])


# Attention


@network
def attention() -> Any:
    i = keras.Input((6, 8))
    x = layers.MultiHeadAttention(2, 4)(i, i)
    return keras.Model(i, layers.Dense(3)(layers.GlobalAveragePooling1D()(layers.Add()([i, x]))))


@network
def transformer_block() -> Any:
    i = keras.Input((6, 8))
    x = layers.LayerNormalization()(layers.Add()([i, layers.MultiHeadAttention(2, 4)(i, i)]))
    y = layers.Dense(8)(layers.Dense(16, activation="relu")(x))
    x = layers.LayerNormalization()(layers.Add()([x, y]))
    return keras.Model(i, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling1D()(x)))


@network
def dot_product_attention() -> Any:
    query, value = keras.Input((4, 8), name="query"), keras.Input((6, 8), name="value")
    x = layers.Attention()([layers.Dense(8)(query), layers.Dense(8)(value)])
    return keras.Model([query, value], layers.Dense(2)(layers.Flatten()(x)))


@network
def vision_transformer() -> Any:
    i = image(12)
    x = layers.Reshape((9, 8))(layers.Conv2D(8, 4, 4)(i))
    x = layers.Add()([x, layers.MultiHeadAttention(2, 4)(x, x)])
    x = layers.Add()([x, layers.Dense(8)(layers.Dense(12, activation="gelu")(x))])
    return keras.Model(i, layers.Dense(4)(layers.Flatten()(x)))


@network
def additive_pooling() -> Any:
    """Attention over time: scores, softmax, weighted sum."""
    i = keras.Input((8, 6))
    scores = layers.Dense(1)(layers.Dense(5, activation="tanh")(i))
    weights = layers.Softmax(axis=1)(scores)
    return keras.Model(i, layers.Dense(3)(ops.sum(weights * i, axis=1)))


# Normalisations


@network
def layer_normalization() -> Any:
    i = keras.Input((10,))
    return keras.Model(i, layers.Dense(3)(layers.LayerNormalization()(layers.Dense(12)(i))))


@network
def layer_normalization_written_out() -> Any:
    i = keras.Input((6, 10))
    d = i - ops.mean(i, axis=-1, keepdims=True)
    x = d * ops.rsqrt(ops.mean(d * d, axis=-1, keepdims=True) + 1e-3)
    return keras.Model(i, layers.Dense(3)(x))


@network
def group_normalization() -> Any:
    i = image(8)
    x = layers.GroupNormalization(2)(layers.Conv2D(8, 3, padding="same")(i))
    return keras.Model(i, classify(layers.ReLU()(x)))


@network
def rms_normalization() -> Any:
    i = keras.Input((10,))
    return keras.Model(i, layers.Dense(3)(layers.RMSNormalization()(layers.Dense(8)(i))))


@network
def unit_normalization() -> Any:
    """An embedding of unit length."""
    i = image(8)
    x = layers.Dense(6)(layers.GlobalAveragePooling2D()(conv(i, 8)))
    return keras.Model(i, layers.UnitNormalization()(x))


@network
def rescaled_image() -> Any:
    i = image(8)
    x = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[0.5, 0.6, 0.7])(layers.Rescaling(0.5, 0.1)(i))
    return keras.Model(i, classify(conv(x, 6)))


# Inputs and outputs


@network
def two_inputs() -> Any:
    i, j = image(8), keras.Input((4,), name="more")
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(conv(i, 8)), layers.Dense(4, activation="relu")(j)])
    return keras.Model([i, j], layers.Dense(3)(x))


@network
def three_outputs() -> Any:
    i = image(8)
    x = layers.Flatten()(conv(i, 4))
    heads = [layers.Dense(n, activation=a, name=f"out_{n}")(x) for n, a in ((3, "softmax"), (1, "sigmoid"), (4, None))]
    return keras.Model(i, [*heads[::-1]])


@network
def siamese() -> Any:
    left, right = keras.Input((8, 8, 1), name="left"), keras.Input((8, 8, 1), name="right")
    tower = keras.Sequential([layers.Conv2D(6, 3, activation="relu"), layers.Flatten(), layers.Dense(8)], name="tower")
    distance = ops.sum(ops.square(tower(left) - tower(right)), axis=-1, keepdims=True)
    return keras.Model([left, right], distance)


@network
def wide_and_deep() -> Any:
    wide, deep = keras.Input((6,), name="wide"), keras.Input((12,), name="deep")
    x = layers.Dense(8, activation="relu")(layers.Dense(10, activation="relu")(deep))
    return keras.Model([wide, deep], layers.Dense(1, activation="sigmoid")(layers.Concatenate()([wide, x])))


@network
def variational_encoder() -> Any:
    i, noise = keras.Input((20,), name="x"), keras.Input((3,), name="noise")
    x = layers.Dense(12, activation="relu")(i)
    mean, deviation = layers.Dense(3)(x), layers.Dense(3, activation="sigmoid")(x)
    return keras.Model([i, noise], [layers.Dense(20)(mean + deviation * noise), mean])


# Token ids


@network
def embedded_tokens() -> Any:
    i = keras.Input((8,), dtype="int32", name="tokens")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(20, 6)(i))
    return keras.Model(i, layers.Dense(2)(layers.Dense(8, activation="relu")(x)))


@network
def text_convolution() -> Any:
    i = keras.Input((10,), dtype="int32", name="tokens")
    x = layers.Conv1D(8, 3, activation="relu")(layers.Embedding(16, 6)(i))
    return keras.Model(i, layers.Dense(2)(layers.GlobalMaxPooling1D()(x)))


@network
def small_language_model() -> Any:
    i = keras.Input((6,), dtype="int32", name="tokens")
    x = layers.Embedding(12, 8)(i)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True)])
    return keras.Model(i, layers.Dense(12)(x))


# Activations and arithmetic


@network
def saturating_activations() -> Any:
    i = image(8)
    x = i
    for name in ("tanh", "sigmoid", "softsign", "hard_sigmoid", "hard_tanh"):
        x = layers.Conv2D(6, 3, padding="same", activation=name)(x)
    return keras.Model(i, classify(x))


@network
def rectifying_activations() -> Any:
    i = image(8)
    x = layers.LeakyReLU(0.2)(layers.Conv2D(6, 3, padding="same")(i))
    x = layers.PReLU(shared_axes=[1, 2])(layers.Conv2D(6, 3, padding="same")(x))
    x = layers.ReLU(6.0, negative_slope=0.1)(layers.Conv2D(6, 3, padding="same")(x))
    x = layers.ReLU(threshold=0.1)(layers.Conv2D(6, 3, padding="same")(x))
    return keras.Model(i, classify(layers.Activation("relu6")(layers.MaxPooling2D()(x))))


@network
def exponential_activations() -> Any:
    i = image(8)
    x = i
    for name in ("elu", "selu", "softplus", "gelu", "mish", "swish"):
        x = layers.Conv2D(6, 3, padding="same", activation=name)(x)
    return keras.Model(i, classify(x))


@network
def arithmetic() -> Any:
    i, j = keras.Input((4, 6), name="a"), keras.Input((4, 6), name="b")
    x = layers.Maximum()([i, j]) + layers.Minimum()([i, j * 0.5])
    x = layers.Subtract()([x, layers.Average()([i, j])])
    return keras.Model([i, j], [ops.abs(x), layers.Dot(axes=1)([i, j])])


@network
def reductions() -> Any:
    i = image(6)
    x = conv(i, 4)
    parts = [f(x, axis=(1, 2)) for f in (ops.mean, ops.max, ops.min, ops.sum)]
    return keras.Model(i, layers.Dense(3)(layers.Concatenate()([layers.Flatten()(p) for p in parts])))


@network
def slices_and_stacks() -> Any:
    i = keras.Input((8, 6))
    first, second = ops.split(i, 2, axis=1)
    x = ops.stack([first * 0.5, second[:, ::-1, :]], axis=2)
    x = layers.Reshape((4, 12))(x)
    return keras.Model(i, layers.Dense(3)(layers.Flatten()(ops.transpose(x[:, 1:4, 2:10], (0, 2, 1)))))


@network
def padded_and_repeated() -> Any:
    i = keras.Input((6,))
    x = layers.RepeatVector(4)(layers.Dense(5, activation="relu")(i))
    return keras.Model(i, layers.Conv1D(3, 2)(layers.ZeroPadding1D((1, 2))(x)))


def _settle(model: Any, seed: int) -> None:
    """Give biases and normalisations values that training could have given them."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        name = weight.path.rsplit("/", maxsplit=1)[-1]
        if name in ("bias", "beta", "moving_mean", "alpha"):
            weight.assign(weight.numpy() + random.normal(0.0, 0.1, weight.shape))
        elif name in ("gamma", "moving_variance", "scale"):
            weight.assign(random.uniform(0.5, 1.5, weight.shape))


def built(name: str) -> Any:
    """The Keras model, the same in every process."""
    seed = zlib.crc32(name.encode())
    keras.utils.set_random_seed(seed)
    model = NETWORKS[name]()
    _settle(model, seed)
    return model


def samples_of(model: Any) -> dict[str, np.ndarray]:
    """SAMPLES values, the first axis, for every input: normal noise, or token ids."""
    random = np.random.default_rng(1)
    made = {}
    for tensor in model.inputs:
        shape = (SAMPLES, *tensor.shape[1:])
        integer = "int" in str(tensor.dtype)
        noise = random.integers(0, TOKENS, shape) if integer else random.normal(size=shape)
        made[tensor.name] = noise.astype(np.int32 if integer else np.float32)
    return made


def convert(names: Sequence[str], scheme: str, out: Path) -> None:
    """`edgeq.convert`, with the work of its child process done in this one: TensorFlow is imported once."""
    from edgeq.errors import EdgeqError
    from edgeq.quantization import conversion
    from edgeq.quantization.pipeline import run

    def here(directory: Path, _seed: int, progress: Any) -> dict[str, Any]:
        return run(directory, json.loads((directory / "job.json").read_text()), progress)

    conversion._run_child = here
    for name in names:
        print(name, flush=True)
        try:
            model = built(name)
            data = samples_of(model)
            file = out / f"{name}.tflite"
            conversion.convert(model, file, scheme=scheme, data=data, allow_float=True)
        except EdgeqError as error:
            (out / f"{name}.error").write_text(f"{error.code}: {error.what} {error.why or ''}")


if __name__ == "__main__":
    convert(sys.argv[3:], sys.argv[1], Path(sys.argv[2]))
