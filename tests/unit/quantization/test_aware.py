"""Quantization-aware training: what it simulates is what the `.tflite` computes; saved, loaded, exported alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.errors import ModelError, UsageError
from edgeq.graph import TensorType, read
from edgeq.measure import Measured

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def trained() -> tuple[Any, Any, np.ndarray, np.ndarray]:
    """A float model with BatchNormalization, depthwise, residual, nested and shared parts; its training data."""
    keras = pytest.importorskip("keras")
    datasets = pytest.importorskip("sklearn.datasets")
    layers = keras.layers
    keras.utils.set_random_seed(5)
    digits = datasets.load_digits()
    x, y = (digits.images[..., None] / 16).astype(np.float32), digits.target
    inputs = keras.Input((8, 8, 1), name="digit")
    stem = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same", name="stem")(inputs)))
    z = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same", name="deep")(stem))
    z = layers.Conv2D(8, 1, activation="relu")(layers.ReLU(6.0)(z))
    z = layers.Add()([z, stem])
    head = keras.Sequential([keras.Input((8, 8, 8)), layers.MaxPooling2D(2), layers.Flatten()], name="head")
    model = keras.Model(inputs, layers.Dense(10, name="logits")(head(z)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(5e-3), loss=loss, metrics=["accuracy"])
    model.fit(x[400:], y[400:], epochs=8, batch_size=64, verbose=0)
    return keras, model, x, y


def _fit(keras: Any, model: Any, x: np.ndarray, y: np.ndarray, epochs: int) -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss=loss)
    model.fit(x[400:], y[400:], epochs=epochs, batch_size=64, verbose=0)


@pytest.mark.parametrize(
    ("weights", "least", "options"),
    [
        ("8", 0.92, {"ranges": "learned"}),
        ("4", 0.90, {}),
        ("2", 0.75, {"surrogate": "sigmoid", "anneal_steps": 60}),
    ],
)
def test_the_file_computes_what_training_simulated(
    inline: Any, trained: Any, tmp_path: Path, weights: str, least: float, options: dict[str, Any]
) -> None:
    from edgeq import quantize_aware

    keras, model, x, y = trained
    aware = quantize_aware(model, weights=weights, layers={"stem": 8}, **options)
    _fit(keras, aware, x, y, 5)
    out = tmp_path / "m.tflite"
    report = inline(aware, out, eval_data=(x[:400], y[:400]))
    assert report.quality is not None
    agreement, accuracy = report.quality.agreement, report.quality.accuracy_quantized
    assert isinstance(agreement, Measured)
    assert isinstance(accuracy, Measured)
    assert agreement.value >= 0.985
    assert accuracy.value >= least
    graph = read(out)
    assert {t.type for t in graph.tensors} <= {TensorType.INT8, TensorType.INT4, TensorType.INT32}
    # Below 8 bits each weight has one of the few levels of its grid.
    levels = {"4": 15, "2": 4}.get(weights, 255)
    for op in graph.operators:
        if op.name in ("FULLY_CONNECTED", "DEPTHWISE_CONV_2D"):
            data = graph.tensor(op.inputs[1]).data
            assert data is not None
            assert len(np.unique(data)) <= levels
    step = graph.tensor(graph.outputs[0]).scale
    largest = report.quality.outputs[0].maximum
    mean = report.quality.outputs[0].mean_absolute
    assert isinstance(largest, Measured)
    assert isinstance(mean, Measured)
    assert mean.value <= 0.2 * step
    assert [o.name for o in report.outputs] == ["logits"]


def test_saved_loaded_trained_on_and_exported_twice_gives_the_same_bytes(
    inline: Any, trained: Any, tmp_path: Path
) -> None:
    from edgeq import quantize_aware

    keras, model, x, y = trained
    aware = quantize_aware(model, weights="4")
    _fit(keras, aware, x, y, 1)
    aware.save(tmp_path / "aware.keras")
    again = keras.models.load_model(tmp_path / "aware.keras")
    np.testing.assert_array_equal(again.predict(x[:50], verbose=0), aware.predict(x[:50], verbose=0))
    _fit(keras, again, x, y, 1)
    again.save(tmp_path / "again.keras")
    first = inline(tmp_path / "again.keras", tmp_path / "a.tflite")
    second = inline(tmp_path / "again.keras", tmp_path / "b.tflite")
    assert first.sha256 == second.sha256
    assert (tmp_path / "a.tflite").read_bytes() == (tmp_path / "b.tflite").read_bytes()


def test_the_weights_of_the_float_model_are_left_alone(trained: Any) -> None:
    from edgeq import quantize_aware

    keras, model, x, y = trained
    before = [w.copy() for w in model.get_weights()]
    aware = quantize_aware(model)
    _fit(keras, aware, x[:500], y[:500], 1)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_training_under_a_distribution_strategy(trained: Any) -> None:
    import tensorflow as tf

    from edgeq import quantize_aware

    keras, model, x, y = trained
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        aware = quantize_aware(model)
        _fit(keras, aware, x[:600], y[:600], 1)
    ranges = [v for v in aware.non_trainable_variables if v.name == "high"]
    assert ranges
    assert any(float(v.numpy()) > 0.1 for v in ranges)


@pytest.mark.parametrize(
    ("options", "code"),
    [({"weights": 9}, "bits-unknown"), ({"scheme": "float16"}, "scheme-unknown"), ({"ranges": "x"}, "option-unknown")],
)
def test_options_that_are_refused(trained: Any, options: dict[str, Any], code: str) -> None:
    from edgeq import quantize_aware

    with pytest.raises(UsageError) as caught:
        quantize_aware(trained[1], **options)
    assert caught.value.code == code


def test_a_subclassed_model_is_refused_with_the_remedy(trained: Any) -> None:
    from edgeq import quantize_aware

    keras = trained[0]

    class Own(keras.Model):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(ModelError) as caught:
        quantize_aware(Own())
    assert caught.value.code == "model-not-functional"
