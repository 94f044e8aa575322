"""Every scheme on the MLPerf Tiny models and the demonstration's; a trained model goes through files and processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import Wheel, build

from edgeq.graph import Graph, TensorType, read, verify
from edgeq.interpreter import Interpreter
from edgeq.quantization import convert
from edgeq.quantization.conversion import SCHEMES

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]
_ALLOWED = {
    "int8": {TensorType.INT8, TensorType.INT32},
    "int4": {TensorType.INT8, TensorType.INT4, TensorType.INT32},
    "int16x8": {TensorType.INT16, TensorType.INT8, TensorType.INT32, TensorType.INT64},
    "dynamic": {TensorType.FLOAT32, TensorType.INT8, TensorType.INT32},
    "float16": {TensorType.FLOAT32, TensorType.FLOAT16, TensorType.INT32},
    "float32": {TensorType.FLOAT32, TensorType.INT32},
}


def _demonstration() -> Any:
    import keras

    from edgeq.demonstration.training import build_model

    keras.utils.set_random_seed(0)
    return build_model(keras)


def _given(name: str, shared: Path) -> tuple[Any, np.ndarray]:
    """The model and 24 samples: real ones where there are any, else noise."""
    random = np.random.default_rng(2)
    if name == "demonstration":
        return _demonstration(), random.random((24, 8, 8, 1), dtype=np.float32)
    if name == "kws":
        codes = np.load(shared / "data" / "kws01.npz")["x_int8"][:24].astype(np.float32)
        return shared / "models" / "kws_saved_model", (codes - 83) * np.float32(0.5847029)
    if name == "ic":
        pictures = np.load(shared / "data" / "cifar10_calibration.npz")["x"][:24]
        return shared / "models" / "ic_resnet8.h5", pictures.astype(np.float32)
    shape = {"vww_96": (96, 96, 3), "ad01": (640,)}[name]
    return shared / "models" / f"{name}.h5", random.random((24, *shape), dtype=np.float32)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["demonstration", "kws", "ic", "vww_96", "ad01"])
def test_every_scheme_on_every_model(
    shared: Path, tmp_path: Path, inline: Callable[..., Any], name: str, scheme: str
) -> None:
    model, data = _given(name, shared)
    out = tmp_path / "m.tflite"
    report = inline(model, out, scheme=scheme, data=data, calibration="auto")
    graph = read(out)
    verify(graph)
    assert {t.type for t in graph.tensors} <= _ALLOWED[scheme]
    assert report.float_operators == () or scheme in ("dynamic", "float16", "float32")
    result = Interpreter(out.read_bytes()).run([_fed(graph, data[:1])])
    assert all(np.all(np.isfinite(value.astype(np.float64))) for value in result)
    if scheme == "int8":
        _same_as_wheel(out.read_bytes(), graph, data, tmp_path)


def _fed(graph: Graph, sample: np.ndarray) -> np.ndarray:
    from edgeq.quantization.evaluation import quantize

    return quantize(sample, graph.tensor(graph.inputs[0]))


def _same_as_wheel(model: bytes, graph: Graph, data: np.ndarray, place: Path) -> None:
    bundle, wheel = build(graph, place / "bundle"), Wheel(model)
    for sample in data[:3]:
        given = [_fed(graph, sample[None])]
        for ours, wanted in zip(bundle.run(given), wheel.run(given), strict=True):
            assert np.asarray(ours).tobytes() == np.asarray(wanted).tobytes()


_TRAINING = """
import sys, keras, numpy as np, edgeq
source, result = sys.argv[1:]
x = np.random.default_rng(0).random((256, 8, 8, 1), dtype=np.float32)
y = (x.mean(axis=(1, 2, 3)) > 0.5).astype(int)
keras.utils.set_random_seed(1)
if source == "new":
    layers = keras.layers
    plain = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU(),
                              layers.Flatten(), layers.Dense(2)])
    model = edgeq.quantize_aware(plain, weights=4)
else:
    model = keras.models.load_model(source)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("adam", loss=loss)
model.fit(x, y, epochs=1, verbose=0)
model.save(result)
"""


def test_a_trained_model_goes_on_in_another_process_and_is_exported_twice_alike(tmp_path: Path) -> None:
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    first, second = tmp_path / "first.keras", tmp_path / "second.keras"
    # The process must import edgeq for its layers to be known: as a user's does.
    for source, result in (("new", first), (first, second)):
        code = _TRAINING.replace("import sys, keras", "import edgeq.quantization.aware, sys, keras")
        command = [sys.executable, "-c", code, str(source), str(result)]
        subprocess.run(command, check=True, env=environment, capture_output=True)
    exports = [convert(model, tmp_path / f"{i}.tflite") for i, model in enumerate((first, second, second))]
    assert exports[1].sha256 == exports[2].sha256
    assert (tmp_path / "1.tflite").read_bytes() == (tmp_path / "2.tflite").read_bytes()
    assert exports[0].sha256 != exports[1].sha256
    assert {t.type for t in read(tmp_path / "1.tflite").tensors} <= _ALLOWED["int4"]
