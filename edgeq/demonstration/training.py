"""Train the demonstration's model; runs as a process of its own: `python -m edgeq.demonstration.training DIR`.

Leaves in DIR: `digits.keras`, `calibration.npz` (x), `test.npz` (x, y), `float.json` ({"accuracy": ...} on the test).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

SAMPLES_TEST = 200
SAMPLES_CALIBRATION = 200
EPOCHS = 25
SEED = 1


def build_model(keras: Any) -> Any:
    """A small CNN: convolution, depthwise separable residual block, strided convolution; 8x8x1 in, 10 classes out."""
    layers = keras.layers

    def normalized(x: Any, layer: Any) -> Any:
        return layers.BatchNormalization()(layer(x))

    inputs = keras.Input((8, 8, 1), name="digit")
    stem = layers.ReLU()(normalized(inputs, layers.Conv2D(16, 3, padding="same", use_bias=False)))
    x = layers.ReLU()(normalized(stem, layers.DepthwiseConv2D(3, padding="same", use_bias=False)))
    x = normalized(x, layers.Conv2D(16, 1, use_bias=False))
    x = layers.ReLU()(layers.Add()([x, stem]))
    x = layers.ReLU()(normalized(x, layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False)))
    x = layers.GlobalAveragePooling2D()(x)
    outputs = layers.Softmax(name="probability")(layers.Dense(10)(x))
    return keras.Model(inputs, outputs, name="digits")


def train(directory: Path) -> None:
    """Train on the digits that are neither for calibration nor for the test; about ten seconds on two cores."""
    import keras
    from sklearn.datasets import load_digits

    digits = load_digits()
    keras.utils.set_random_seed(SEED)
    order = np.random.default_rng(SEED).permutation(len(digits.target))
    x = (digits.images[order, :, :, None] / 16).astype(np.float32)
    y = digits.target[order]
    x_test, y_test, x_train, y_train = x[:SAMPLES_TEST], y[:SAMPLES_TEST], x[SAMPLES_TEST:], y[SAMPLES_TEST:]

    model = build_model(keras)
    model.compile(keras.optimizers.Adam(3e-3), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x_train, y_train, epochs=EPOCHS, batch_size=64, verbose=0)
    predicted = np.argmax(model.predict(x_test, verbose=0), axis=1)

    model.save(directory / "digits.keras")
    np.savez(directory / "calibration.npz", x=x_train[:SAMPLES_CALIBRATION])
    np.savez(directory / "test.npz", x=x_test, y=y_test)
    (directory / "float.json").write_text(json.dumps({"accuracy": float(np.mean(predicted == y_test))}))


if __name__ == "__main__":
    train(Path(sys.argv[1]))
