"""`--qat`: a short quantization-aware training, from labels, else from the float model's own answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from edgeq.errors import DataError
from edgeq.progress import Progress
from edgeq.quantization.aware.rewrite import quantize_aware

_BATCH = 32
_RATE = 1e-3


class _Report(keras.callbacks.Callback):  # type: ignore[misc]
    def __init__(self, progress: Progress, epochs: int) -> None:
        super().__init__()
        self._progress, self._epochs = progress, epochs

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        self._progress("training", epoch + 1, self._epochs)


def train(
    model: Any,
    arrays: Sequence[NDArray[Any]],
    labels: NDArray[np.int64] | None,
    *,
    scheme: str,
    epochs: int,
    seed: int,
    progress: Progress,
) -> Any:
    """A quantization-aware copy of `model`, trained for `epochs`; the learning rate falls to zero as a cosine.

    With labels the loss is the cross-entropy; without, the squared distance to the float model's outputs.
    """
    keras.utils.set_random_seed(seed)
    aware = quantize_aware(model, scheme=scheme)
    x = list(arrays) if len(arrays) > 1 else arrays[0]
    steps = epochs * -(-len(arrays[0]) // _BATCH)
    rate = keras.optimizers.schedules.CosineDecay(_RATE, steps)
    outputs = model.predict(x, batch_size=_BATCH, verbose=0)
    if labels is None:
        target, loss = outputs, "mse"
    else:
        if isinstance(outputs, list) or outputs.ndim != 2 or labels.max(initial=0) >= max(2, outputs.shape[1]):
            raise DataError(
                "labels-unusable",
                "The labels do not fit the model's outputs.",
                try_="Give y as class numbers below the number of outputs, or leave y out.",
            )
        summed = np.allclose(outputs.sum(axis=1), 1, atol=1e-3)
        if outputs.shape[1] == 1:
            loss = keras.losses.BinaryCrossentropy(from_logits=bool(outputs.min() < 0 or outputs.max() > 1))
        else:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not summed)
        target = labels
    aware.compile(keras.optimizers.Adam(rate), loss=loss)
    aware.fit(x, target, epochs=epochs, batch_size=_BATCH, verbose=0, callbacks=[_Report(progress, epochs)])
    return aware
