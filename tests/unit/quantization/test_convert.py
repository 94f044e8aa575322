"""Converting real and small models: types, names, order, bytes, accuracy; and what each mistake is answered with."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.errors import DataError, EdgeqError, ModelError, OutputError, UsageError
from edgeq.graph import TensorType, read
from edgeq.interpreter import Interpreter
from edgeq.measure import Measured
from edgeq.quantization import ConversionReport, convert
from edgeq.quantization.evaluation import dequantize, quantize


def _value(quantity: object) -> float:
    assert isinstance(quantity, Measured)
    return quantity.value


def _kws(shared: Path) -> tuple[np.ndarray, np.ndarray]:
    data = np.load(shared / "data" / "kws01.npz")
    return ((data["x_int8"].astype(np.float32) - 83) * np.float32(0.5847029)), data["y"]


def _assert_integer(path: Path) -> None:
    for tensor in read(path).tensors:
        assert tensor.type in (TensorType.INT8, TensorType.INT32), tensor.name


@pytest.mark.tensorflow
def test_keyword_spotting_keeps_its_accuracy(shared: Path, tmp_path: Path) -> None:
    x, y = _kws(shared)
    out = tmp_path / "kws.tflite"
    report = convert(shared / "models" / "kws_saved_model", out, data=(x[:200], y[:200]), eval_data=(x[200:], y[200:]))
    _assert_integer(out)
    assert report.quality is not None
    assert report.quality.samples == 300
    assert _value(report.quality.agreement) >= 0.97
    assert _value(report.quality.accuracy_quantized) >= _value(report.quality.accuracy_float) - 0.01
    # The float accuracy is that of the published float model, which somebody else converted.
    published = Interpreter((shared / "models" / "kws_ref_float.tflite").read_bytes())
    right = [np.argmax(published.run([s[None]])[0]) == label for s, label in zip(x[200:], y[200:], strict=True)]
    assert abs(_value(report.quality.accuracy_float) - np.mean(right)) <= 0.02
    assert "functional" not in " ".join(t.name for t in read(out).tensors)


@pytest.mark.slow
@pytest.mark.tensorflow
def test_image_classification_against_the_published_int8_model(shared: Path, tmp_path: Path) -> None:
    out = tmp_path / "ic.tflite"
    data = shared / "data"
    report = convert(
        shared / "models" / "ic_resnet8.h5",
        out,
        data=data / "cifar10_calibration.npz",
        eval_data=data / "cifar10_test.npz",
    )
    _assert_integer(out)
    published_path = shared / "models" / "ic_resnet8_int8.tflite"
    graph = read(published_path)
    interpreter = Interpreter(published_path.read_bytes())
    test = np.load(data / "cifar10_test.npz")
    source = graph.tensor(graph.inputs[0])
    right = [
        np.argmax(interpreter.run([quantize(x[None].astype(np.float32), source)])[0]) == y
        for x, y in zip(test["x"], test["y"], strict=True)
    ]
    assert report.quality is not None
    assert _value(report.quality.accuracy_quantized) >= np.mean(right) - 0.01


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize(("name", "shape"), [("vww_96.h5", (96, 96, 3)), ("ad01.h5", (640,))])
def test_published_models_become_all_integer(shared: Path, tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    noise = np.random.default_rng(7).random((40, *shape), dtype=np.float32)
    report = convert(shared / "models" / name, tmp_path / "m.tflite", data=noise)
    _assert_integer(tmp_path / "m.tflite")
    assert report.quality is not None


@pytest.fixture(scope="module")
def two_ended() -> Any:
    """Two inputs and two outputs whose alphabetical order is not Keras's, one name a Python keyword."""
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(3)
    layers = keras.layers
    wide, narrow = keras.Input((6,), name="zeta"), keras.Input((3,), name="in")
    x = layers.Dense(8, activation="relu", name="shared_dense")(wide)
    y = layers.Dense(8, name="other")(narrow)
    total = layers.Add(name="sum")([x, y])
    return keras.Model([wide, narrow], [total, layers.Dense(2, name="head")(x)])


@pytest.mark.tensorflow
def test_names_and_order_are_kerass_and_the_bytes_repeat(two_ended: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = {"in": rng.normal(size=(60, 3)).astype("f"), "zeta": 5 * rng.normal(size=(60, 6)).astype("f")}
    out = tmp_path / "two.tflite"
    report = convert(two_ended, out, data=data, io="float32")
    assert [i.name for i in report.inputs] == ["zeta", "in"]
    assert [o.name for o in report.outputs] == ["sum", "head"]
    graph = read(out)
    assert [tuple(s.inputs) for s in graph.signatures] == [("zeta", "in")]
    interpreter = Interpreter(out.read_bytes())
    expected = [np.asarray(v) for v in two_ended([data["zeta"], data["in"]])]
    for i in range(10):
        actual = interpreter.run([data["zeta"][i : i + 1], data["in"][i : i + 1]])
        for value, wanted in zip(actual, expected, strict=True):
            assert np.max(np.abs(value[0] - wanted[i])) < 0.05 * np.ptp(wanted)
    again = tmp_path / "again.tflite"
    assert convert(two_ended, again, data=data, io="float32").sha256 == report.sha256
    assert out.read_bytes() == again.read_bytes()


def _small(keras: Any, *layers: Any, shape: tuple[int, ...] = (8, 8, 1)) -> Any:
    return keras.Sequential([keras.Input(shape), *layers])


@pytest.mark.tensorflow
@pytest.mark.parametrize("io", ["int8", "uint8", "float32"])
def test_inputs_and_outputs_have_the_type_asked_for(
    inline: Callable[..., ConversionReport], tmp_path: Path, io: str
) -> None:
    import keras

    model = _small(keras, keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.Flatten(), keras.layers.Dense(3))
    x = np.random.default_rng(0).normal(size=(40, 8, 8, 1)).astype("f")
    out = tmp_path / "m.tflite"
    report = inline(model, out, data=x, io=io)
    assert {t.type for t in (*report.inputs, *report.outputs)} == {io}
    graph, interpreter = read(out), Interpreter(out.read_bytes())
    source, sink = graph.tensor(graph.inputs[0]), graph.tensor(graph.outputs[0])
    value = dequantize(interpreter.run([quantize(x[:1], source)])[0], sink)
    wanted = np.asarray(model(x[:1]))
    assert np.max(np.abs(value - wanted)) < 0.05 * np.ptp(np.asarray(model(x)))


@pytest.mark.tensorflow
@pytest.mark.parametrize("scheme", ["int4", "int16x8", "dynamic", "float16", "float32"])
def test_every_scheme_is_close_to_float(inline: Callable[..., ConversionReport], tmp_path: Path, scheme: str) -> None:
    import keras

    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = _small(
        keras, layers.Conv2D(8, 3, activation="relu"), layers.Conv2D(16, 3), layers.Flatten(), layers.Dense(5)
    )
    x = np.random.default_rng(0).normal(size=(40, 8, 8, 1)).astype("f")
    report = inline(model, tmp_path / "m.tflite", data=x, scheme=scheme)
    assert report.quality is not None
    least_db = {"int4": 12, "int16x8": 35, "dynamic": 30, "float16": 50, "float32": 90}[scheme]
    sqnr = report.quality.outputs[0].sqnr_db
    assert not isinstance(sqnr, Measured) or sqnr.value > least_db
    types = {t.type for t in read(tmp_path / "m.tflite").tensors}
    assert {"int4": TensorType.INT4, "int16x8": TensorType.INT16}.get(scheme, TensorType.FLOAT32) in types | {
        TensorType.FLOAT32
    }


@pytest.mark.tensorflow
def test_a_rolled_lstm_converts(inline: Callable[..., ConversionReport], tmp_path: Path) -> None:
    import keras

    model = _small(keras, keras.layers.LSTM(4), keras.layers.Dense(2), shape=(5, 3))
    x = np.random.default_rng(0).normal(size=(40, 5, 3)).astype("f")
    report = inline(model, tmp_path / "m.tflite", data=x, allow_float=True)
    assert report.quality is not None
    assert _value(report.quality.outputs[0].sqnr_db) > 15


@pytest.mark.tensorflow
def test_silent_float_fallback_is_an_error(inline: Callable[..., ConversionReport], tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.ops.sin(keras.layers.Dense(4)(inputs)))
    x = np.random.default_rng(0).normal(size=(40, 6)).astype("f")
    with pytest.raises(ModelError) as caught:
        inline(model, tmp_path / "m.tflite", data=x)
    assert caught.value.code == "float-fallback"
    assert "SIN" in str(caught.value.where)
    assert not (tmp_path / "m.tflite").exists()
    report = inline(model, tmp_path / "m.tflite", data=x, allow_float=True)
    assert any(name.startswith("SIN") for name in report.float_operators)


@pytest.mark.tensorflow
def test_an_operator_that_tflite_lacks_is_named(inline: Callable[..., ConversionReport], tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.ops.erf(keras.layers.Dense(4)(inputs)))
    with pytest.raises(ModelError) as caught:
        inline(model, tmp_path / "m.tflite", data=np.random.default_rng(0).normal(size=(40, 6)).astype("f"))
    assert caught.value.code == "operator-not-convertible"
    assert "Erf" in caught.value.what


@pytest.mark.tensorflow
def test_data_normalized_twice_are_warned_about(inline: Callable[..., ConversionReport], tmp_path: Path) -> None:
    import keras

    layers = keras.layers
    model = _small(keras, layers.Conv2D(4, 3), layers.BatchNormalization(name="norm"), layers.ReLU(), layers.Flatten())
    x = np.random.default_rng(0).normal(10, 20, size=(200, 8, 8, 1)).astype("f")
    seen = np.asarray(model.layers[0](x))
    norm = model.get_layer("norm")
    norm.moving_mean.assign(seen.mean(axis=(0, 1, 2)))
    norm.moving_variance.assign(seen.var(axis=(0, 1, 2)))
    good = inline(model, tmp_path / "m.tflite", data=x)
    assert "data-unlike-training" not in {w.code for w in good.warnings}
    bad = inline(model, tmp_path / "m.tflite", data=x / 255)
    assert "data-unlike-training" in {w.code for w in bad.warnings}


@pytest.mark.tensorflow
def test_a_shape_without_a_size_is_refused(inline: Callable[..., ConversionReport], tmp_path: Path) -> None:
    import keras

    model = _small(keras, keras.layers.Conv1D(4, 3), shape=(None, 2))
    with pytest.raises(ModelError) as caught:
        inline(model, tmp_path / "m.tflite", data=np.ones((5, 7, 2)))
    assert caught.value.code == "dynamic-shape"


def test_a_child_that_dies_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import edgeq.quantization.conversion as parent

    dying = tmp_path / "dies"
    dying.write_text("#!/bin/sh\necho '[\"quantizing\", 0, null]'\nkill -SEGV $$\n")
    dying.chmod(0o755)
    monkeypatch.setattr(parent.sys, "executable", str(dying))
    with pytest.raises(ModelError) as caught:
        parent._run_child(tmp_path, 0, lambda *_: None)
    assert caught.value.code == "converter-crashed"
    assert "SIGSEGV while quantizing" in str(caught.value.why)


def _keras_file(path: Path, config: object) -> Path:
    with zipfile.ZipFile(path / "m.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(config))
    return path / "m.keras"


def _write(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        (path / name).write_bytes(content)
        return path / name

    return make


def _directory(path: Path) -> Path:
    (path / "d").mkdir()
    return path / "d"


_LAMBDA = {
    "module": "keras",
    "class_name": "Sequential",
    "config": {"layers": [{"class_name": "Lambda", "config": {}}]},
}
_SYSTEM = {"module": "os", "class_name": "function", "config": "system"}


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda path: path / "absent.keras", "model-not-found"),
        (_write("m.keras", b"not a model"), "not-a-keras-model"),
        (_write("m.keras", b"PK\x03\x04 torn"), "model-damaged"),
        (_write("m.h5", b"\x89HDF\r\n\x1a\n torn"), "model-damaged"),
        (_write("m.tflite", b"\x1c\x00\x00\x00TFL3 rest"), "not-a-keras-model"),
        (_write("m.keras", b""), "not-a-keras-model"),
        (_directory, "not-a-keras-model"),
        (lambda path: _keras_file(path, _LAMBDA), "model-carries-code"),
        (lambda path: _keras_file(path, _SYSTEM), "model-carries-code"),
        (lambda _: 42, "not-a-keras-model"),
    ],
)
def test_models_that_are_refused_before_tensorflow_loads(
    tmp_path: Path, make: Callable[[Path], object], code: str
) -> None:
    with pytest.raises(ModelError) as caught:
        convert(make(tmp_path), tmp_path / "out.tflite", data=np.random.default_rng(0).normal(size=(30, 4)))
    assert caught.value.code == code
    assert not (tmp_path / "out.tflite").exists()


@pytest.mark.parametrize(
    ("options", "kind", "code"),
    [
        ({"scheme": "int3"}, UsageError, "scheme-unknown"),
        ({"io": "int64"}, UsageError, "io-unknown"),
        ({"scheme": "float16", "io": "int8"}, UsageError, "io-unknown"),
        ({"calibration": "best"}, UsageError, "calibration-unknown"),
        ({}, DataError, "data-missing"),
    ],
)
def test_options_that_are_refused(tmp_path: Path, options: dict[str, Any], kind: type[EdgeqError], code: str) -> None:
    with pytest.raises(kind) as caught:
        convert(_keras_file(tmp_path, {}), tmp_path / "out.tflite", **options)
    assert caught.value.code == code


def test_a_place_that_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path, tmp_path / "file" / "out.tflite"):
        with pytest.raises(OutputError) as caught:
            convert(_keras_file(tmp_path, {}), out, data=np.zeros((3, 4)))
        assert caught.value.code == "output-not-writable"
