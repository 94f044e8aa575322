"""Where networks register, and the blocks that they share. Importing this does not import Keras."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

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
