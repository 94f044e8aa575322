"""What `convert` answers to wrong models, data and flags: a code, a sentence that names what is wrong, and a remedy.

None of them may pass in silence, leave a file behind or take the caller's process down. Among them are conversions that
the converter itself lets pass: data that are empty, NaN or constant, operators left in float, a crash.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.errors import EdgeqError
from edgeq.graph import Quantization, read
from edgeq.quantization import SearchGoal, convert
from edgeq.quantization.result_checks import verify_scheme

NOISE = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
Make = Callable[[Path], Any]


@dataclass(frozen=True)
class Mistake:
    """`model` and `data` make what is given, in a directory; None: the good ones. `says` and `helps` must be told."""

    code: str
    says: str
    helps: str
    model: Make | None = None
    data: Make | None = None
    options: dict[str, Any] = field(default_factory=dict)
    converts: bool = False  # TensorFlow is needed to find out


def _file(name: str, content: bytes) -> Make:
    def make(path: Path) -> Path:
        (path / name).write_bytes(content)
        return path / name

    return make


def _config(config: object) -> Make:
    def make(path: Path) -> Path:
        with zipfile.ZipFile(path / "config.keras", "w") as archive:
            archive.writestr("config.json", json.dumps(config))
        return path / "config.keras"

    return make


def _npz(**arrays: Any) -> Make:
    def make(path: Path) -> Path:
        np.savez(path / "data.npz", **arrays)
        return path / "data.npz"

    return make


def _folder(path: Path) -> Path:
    (path / "folder").mkdir()
    return path / "folder"


def _keras(build: Callable[[Any], Any]) -> Make:
    def make(path: Path) -> Path:
        import keras

        keras.utils.set_random_seed(0)
        return build(keras)

    return make


def _function(operation: str) -> Make:
    def build(keras: Any) -> Any:
        inputs = keras.Input((6,))
        return keras.Model(inputs, getattr(keras.ops, operation)(keras.layers.Dense(4)(inputs)))

    return _keras(build)


def _two_inputs(keras: Any) -> Any:
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    return keras.Model([a, b], keras.layers.Add()([a, b]))


def _two_outputs(keras: Any) -> Any:
    inputs = keras.Input((6,))
    return keras.Model(inputs, [keras.layers.Dense(3, name="p")(inputs), keras.layers.Dense(2, name="q")(inputs)])


def _no_shape(keras: Any) -> Any:
    return keras.Sequential([keras.Input((None, 6)), keras.layers.Conv1D(2, 1)])


def _loop(path: Path) -> Path:
    import keras
    import tensorflow as tf

    model = keras.Sequential([keras.Input((5, 6)), keras.layers.LSTM(3)])
    model.export(path / "loop", input_signature=[tf.TensorSpec((1, 5, 6), tf.float32, "x")], verbose=False)
    return path / "loop"


def _weights_only(path: Path) -> Path:
    import h5py

    with h5py.File(path / "w.h5", "w") as file:
        file.create_dataset("kernel", data=NOISE)
    return path / "w.h5"


def _unknown_layer(path: Path) -> Path:
    import keras

    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
    model.save(path / "whole.keras")
    with zipfile.ZipFile(path / "whole.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["config.json"] = parts["config.json"].replace(b'"Dense"', b'"Denser"')
    with zipfile.ZipFile(path / "unknown.keras", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path / "unknown.keras"


_GOAL = SearchGoal(board="nucleo-l4r5zi", max_drop=0.5)
_LAMBDA = {"class_name": "Sequential", "config": {"layers": [{"class_name": "Lambda", "config": {"name": "twice"}}]}}
_SYSTEM = {"module": "os", "class_name": "function", "config": "system"}
_NAN = NOISE.copy()
_NAN[3, 2] = np.nan

MISTAKES = {
    # Models
    "no model there": Mistake("model-not-found", "no model at", "path", lambda path: path / "absent.keras"),
    "text called .keras": Mistake("not-a-keras-model", "not a Keras model", ".h5", _file("m.keras", b"no model")),
    "a torn .keras": Mistake("model-damaged", "damaged", "Save the model again", _file("m.keras", b"PK\x03\x04 torn")),
    "a torn .h5": Mistake("model-damaged", "damaged", "Save the model again", _file("m.h5", b"\x89HDF\r\n\x1a\n torn")),
    "weights alone": Mistake("model-without-architecture", "weights only", "model.save", _weights_only),
    "a .tflite": Mistake(
        "not-a-keras-model", "not a Keras model", "edgeq check", _file("m.tflite", b"\x1c\0\0\0TFL3 rest")
    ),
    "an empty directory": Mistake("not-a-keras-model", "saved_model.pb", "SavedModel", _folder),
    "a Lambda layer": Mistake("model-carries-code", "twice", "--unsafe", _config(_LAMBDA)),
    "a function of os": Mistake("model-carries-code", "os", "--unsafe", _config(_SYSTEM)),
    "no model at all": Mistake("not-a-keras-model", "int is not", "keras.Model", lambda _: 42),
    "a layer that nobody knows": Mistake("model-not-loadable", "cannot open", "object", _unknown_layer, converts=True),
    "a model never called": Mistake(
        "model-not-built", "no inputs yet", "Input layer", _keras(lambda k: k.Sequential([k.layers.Dense(2)])),
        converts=True,
    ),
    "an input without a size": Mistake(
        "dynamic-shape", "without a size", "full shape", _keras(_no_shape), lambda _: np.ones((5, 7, 6)), converts=True
    ),
    "an operator that TFLite lacks": Mistake(
        "operator-not-convertible", "Erf", "Replace the layers", _function("erf"), converts=True
    ),
    "an operator left in float": Mistake(
        "float-fallback", "stay in float", "--allow-float", _function("sin"), converts=True
    ),
    "another operator left in float": Mistake(
        "float-fallback", "stay in float", "--allow-float", _function("cumsum"), converts=True
    ),
    "an operator without a 16x8 form": Mistake(
        "not-quantizable", "cannot quantize", "--scheme", _function("sin"), options={"scheme": "int16x8"}, converts=True
    ),
    "a rolled loop in a SavedModel": Mistake(
        "loop-not-quantizable", "a loop", ".keras", _loop, lambda _: NOISE[:30].reshape(6, 5, 6), converts=True
    ),
    # Data
    "no data": Mistake("data-missing", "needs representative data", "--data", data=lambda _: None),
    "data that are not there": Mistake("data-not-found", "no data at", ".npz", data=lambda p: p / "absent.npz"),
    "empty data": Mistake("data-empty", "no samples", "100", data=_npz(x=np.zeros((0, 6)))),
    "pickled data": Mistake("data-pickled", "could run code", "np.savez", data=_npz(x=np.array([{}], object))),
    "a torn .npz": Mistake("data-damaged", "damaged", "np.savez", data=_file("d.npz", b"PK\x03\x04")),
    "words": Mistake("data-type", "not numbers", "float32", data=_npz(x=np.array([["a"] * 6] * 9))),
    "unequal rows": Mistake("data-damaged", "is not 3 numbers", "comma", data=_file("d.csv", b"1,2,3\n4\n")),
    "a sound": Mistake("data-unusable", "not data that EdgeQ reads", ".npz", data=_file("d.wav", b"RIFF")),
    "a folder without images": Mistake("data-empty", "no images", "sub-folder", data=_folder),
    "too few labels": Mistake("labels-unusable", "39 labels", "one label a sample", data=_npz(x=NOISE, y=[0] * 39)),
    "labels that are fractions": Mistake(
        "labels-unusable", "one class number", "leave y out", data=_npz(x=NOISE, y=np.full(40, 0.5))
    ),
    "NaN": Mistake("data-not-finite", "sample 3 first", "Leave those samples out", data=lambda _: _NAN, converts=True),
    "nothing but zeros": Mistake(
        "data-constant", "is 0", "real samples", data=lambda _: np.zeros((40, 6)), converts=True
    ),
    "another shape": Mistake(
        "data-shape", "input_6 takes (6,)", "shape (6,)", data=lambda _: np.ones((9, 7)), converts=True
    ),
    "too large for float32": Mistake(
        "data-not-finite", "leave the range", "as in training", data=lambda _: np.full((9, 6), 1e300), converts=True
    ),
    "one array for two inputs": Mistake(
        "data-inputs", "the model takes a, b", "one array for each", _keras(_two_inputs), lambda _: NOISE, converts=True
    ),
    # Flags
    "a scheme that does not exist": Mistake("scheme-unknown", "int3", "int8", options={"scheme": "int3"}),
    "an io type that does not exist": Mistake("io-unknown", "int64", "uint8", options={"io": "int64"}),
    "integer io of a float scheme": Mistake(
        "io-unknown", "float16", "float32", options={"scheme": "float16", "io": "int8"}
    ),
    "a calibration that does not exist": Mistake(
        "calibration-unknown", "best", "percentile", options={"calibration": "best"}
    ),
    "a calibration without ranges": Mistake(
        "calibration-without-meaning", "no ranges", "--calibration", options={"scheme": "dynamic", "calibration": "mse"}
    ),
    "dynamic for one layer": Mistake(
        "scheme-unknown", "dynamic for a layer", "int16x8", options={"layers": {"dense": "dynamic"}}
    ),
    "dynamic mixed with others": Mistake(
        "mixture-impossible", "dynamic cannot be mixed", "float32",
        options={"scheme": "dynamic", "layers": {"dense": "int8"}},
    ),
    "a search among given schemes": Mistake(
        "search-with-schemes", "chooses the schemes itself", "--layer",
        options={"search": _GOAL, "layers": {"dense": "int8"}},
    ),
    "a search without classes": Mistake(
        "search-without-classes", "is not classes", "by hand", _keras(_two_outputs), options={"search": _GOAL},
        converts=True,
    ),
    "recurrent layers in no known way": Mistake("rnn-unknown", "no way rolled", "fused", options={"rnn": "rolled"}),
    "an LSTM operator in 16x8": Mistake(
        "fused-scheme", "int8, int4 and the float ones", "unroll", options={"rnn": "fused", "scheme": "int16x8"}
    ),
    "a step in 16x8": Mistake(
        "cell-scheme", "one scale", "--scheme int8", options={"rnn": "cell", "scheme": "int16x8"}
    ),
    "an LSTM operator without an LSTM": Mistake(
        "rnn-not-fusable", "no LSTM layer", "Leave --rnn out", options={"rnn": "fused"}, converts=True
    ),
    "a granularity without scales": Mistake(
        "granularity-without-meaning", "float32", "int8", options={"scheme": "float32", "granularity": "tensor"}
    ),
    "a layer that does not exist": Mistake(
        "layer-unknown", "nowhere", "closest", options={"layers": {"nowhere": "int16x8"}}, converts=True
    ),
    "training without labels or data": Mistake(
        "qat-impossible", "needs --data", "--data", data=lambda _: None, options={"scheme": "float32", "qat_epochs": 1},
        converts=True,
    ),
}  # fmt: skip


def _good(path: Path, converts: bool) -> Any:
    if not converts:
        return _config({})(path)
    import keras

    return keras.Sequential([keras.Input((6,), name="input_6"), keras.layers.Dense(3, name="dense")])


@pytest.mark.parametrize(
    "mistake",
    [pytest.param(m, id=name, marks=[pytest.mark.tensorflow] if m.converts else []) for name, m in MISTAKES.items()],
)
def test_a_mistake_is_answered_with_its_remedy(
    mistake: Mistake, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    work: Callable[..., Any] = request.getfixturevalue("inline") if mistake.converts else convert
    made = tmp_path / "made"
    made.mkdir()
    model = mistake.model(made) if mistake.model is not None else _good(made, mistake.converts)
    data = mistake.data(made) if mistake.data is not None else NOISE
    with pytest.raises(EdgeqError) as caught:
        work(model, tmp_path / "out" / "m.tflite", data=data, **mistake.options)
    error = caught.value
    assert error.code == mistake.code
    assert mistake.says in error.what
    assert mistake.helps in " ".join(error.try_)
    assert error.exit_status == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.tensorflow
def test_small_layers_that_dynamic_leaves_in_float_are_named(inline: Callable[..., Any], tmp_path: Path) -> None:
    report = inline(_good(tmp_path, True), tmp_path / "m.tflite", scheme="dynamic")
    warned = next(w for w in report.warnings if w.code == "weights-stay-float")
    assert "dense" in warned.what
    assert warned.try_


@pytest.mark.tensorflow
def test_a_copy_to_another_scale_is_found(inline: Callable[..., Any], tmp_path: Path) -> None:
    import keras

    layers = keras.layers
    model = keras.Sequential([keras.Input((6,)), layers.Dense(6), layers.Reshape((2, 3)), layers.Dense(2)])
    inline(model, tmp_path / "m.tflite", data=NOISE)
    graph = read(tmp_path / "m.tflite")
    copied = next(op.outputs[0] for op in graph.operators if op.name == "RESHAPE")
    tensors = [replace(t, quantization=Quantization((0.5,), (3,))) if t.index == copied else t for t in graph.tensors]
    verify_scheme(graph, "int8")
    with pytest.raises(EdgeqError) as caught:
        verify_scheme(replace(graph, tensors=tuple(tensors)), "int8")
    assert caught.value.code == "scales-differ"


def test_thirty_mistakes_are_answered() -> None:
    assert len(MISTAKES) >= 30
    assert all(m.helps for m in MISTAKES.values())


@pytest.mark.slow
@pytest.mark.tensorflow
def test_what_crashes_the_bare_converter_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    import tensorflow as tf

    module = tf.Module()
    module.serve = tf.function(
        lambda x: {"y": tf.math.lgamma(x + 3.0)}, input_signature=[tf.TensorSpec((1, 6), tf.float32, "x")]
    )
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.serve)
    with pytest.raises(EdgeqError) as caught:
        convert(tmp_path / "model", tmp_path / "m.tflite", data=NOISE)
    # Whether it crashes depends on how it is asked; an error it is either way.
    assert caught.value.code in ("converter-crashed", "float-fallback")
    assert caught.value.try_
    assert not (tmp_path / "m.tflite").exists()
