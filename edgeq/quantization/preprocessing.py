"""What a model's own preprocessing says of the data it is fed: normalized twice, or not at all.

A layer that rescales was given its factor for data of a certain width. Data that it shrinks to next to nothing, or that
leave it far too wide, are of another kind; and where two such layers stand one behind the other, one is too many.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.quantization.report import Warned

_SAMPLES = 64
_NARROW, _WIDE = 0.05, 20.0
"""Widths behind a normalization, where about 1 or 2 is meant. 0..1 divided by 255 again is 0.004; 0..255 left as it is
would be 255."""
_KINDS = ("Rescaling", "Normalization")


def examine_preprocessing(model: Any, arrays: Sequence[NDArray[Any]]) -> list[Warned]:
    """One warning for each Rescaling and Normalization of a Keras model that the data (first axis samples) do not suit.

    Layers that stand alone at the model's top are examined, not those of nested models.
    """
    import keras

    functional = getattr(model, "_functional", None) or model
    if not isinstance(functional, keras.Model) or not getattr(functional, "inputs", None):
        return []
    batch = [np.asarray(array[:_SAMPLES]) for array in arrays]
    found = []
    for layer in functional.layers:
        if type(layer).__name__ in _KINDS and getattr(layer, "_inbound_nodes", None):
            source = layer._inbound_nodes[-1].input_tensors[0]
            try:
                tap = keras.Model(functional.inputs, source)
                seen = np.asarray(tap(batch if len(batch) > 1 else batch[0], training=False), np.float64)
            except (ValueError, TypeError, IndexError):
                # A tap into a batch-fixed model cannot be built: the question stays open.
                continue
            warned = _judge(layer, seen, _normalizer_before(source))
            found += [] if warned is None else [warned]
    return found


def _normalizer_before(tensor: Any) -> str | None:
    """The normalizing layer that a Keras tensor comes straight from."""
    layer = getattr(getattr(tensor, "_keras_history", None), "operation", None)
    return str(layer.name) if layer is not None and type(layer).__name__ in _KINDS else None


def _judge(layer: Any, seen: NDArray[np.float64], before: str | None) -> Warned | None:
    kind = type(layer).__name__
    if kind == "Rescaling":
        factor = float(np.max(np.abs(np.asarray(layer.scale))))
        if factor >= 0.5:
            return None
        width = float(seen.max() - seen.min()) * factor
    else:
        deviation = np.sqrt(np.maximum(np.asarray(layer.variance, np.float64), 1e-12))
        width = float(np.median(np.std(seen, axis=0) / deviation))
    low, high = float(seen.min()), float(seen.max())
    if width < _NARROW:
        where = f"by {before} before it" if before else "in the data already"
        return Warned(
            "normalized-twice",
            f"{layer.name} ({kind}) shrinks what lies in {low:.3g}..{high:.3g} to a width of {width:.2g}: it was "
            f"normalized {where}.",
            f"Leave {before} or {layer.name} out of the model."
            if before
            else "Feed the samples as they are before that.",
        )
    if width > _WIDE:
        return Warned(
            "not-normalized",
            f"{layer.name} ({kind}) leaves what lies in {low:.3g}..{high:.3g} a width of {width:.3g}: the data are in "
            "another unit than it was made for.",
            "Feed the samples exactly as in training.",
        )
    return None
