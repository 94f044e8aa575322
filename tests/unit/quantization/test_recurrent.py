"""Recurrent models as one step: states go in and come out in the same bytes, and steps add up to the whole model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import Wheel, build

from edgeq.errors import EdgeqError
from edgeq.graph import TensorType, read, write_bytes
from edgeq.interpreter import Interpreter
from edgeq.quantization.evaluation import dequantize, outputs_of, quantize
from edgeq.quantization.layer_map import read_beside

pytestmark = pytest.mark.tensorflow
X = np.random.default_rng(0).normal(size=(40, 6, 3)).astype(np.float32)


def _model(kind: str) -> Any:
    import keras

    keras.utils.set_random_seed(2)
    layers = keras.layers
    rest = [layers.LSTM(4, name="second")] if kind == "LSTM" else []
    first = getattr(layers, kind)(5, return_sequences=bool(rest), name="first")
    dense = layers.Dense(4, activation="relu", name="before")
    return keras.Sequential([keras.Input((6, 3), name="x"), dense, first, *rest, layers.Dense(2, name="y")])


@pytest.mark.parametrize(
    ("kind", "states"),
    [
        ("LSTM", ["first_h", "first_c", "second_h", "second_c"]),
        ("GRU", ["first_h"]),
        ("SimpleRNN", ["first_h"]),
    ],
)
def test_steps_add_up_to_the_whole(inline: Callable[..., Any], tmp_path: Path, kind: str, states: list[str]) -> None:
    model, out = _model(kind), tmp_path / "step.tflite"
    report = inline(model, out, data=X, rnn="cell")
    assert [i.name for i in report.inputs] == ["x", *states]
    assert [o.name for o in report.outputs] == ["y", *(f"{state}_next" for state in states)]
    graph, interpreter = read(out), Interpreter(out.read_bytes())
    assert {t.type for t in graph.tensors} <= {TensorType.INT8, TensorType.INT32}
    given = [graph.tensor(t) for t in graph.inputs]
    told = [graph.tensor(t) for t in graph.outputs]
    assert [t.quantization for t in given[1:]] == [t.quantization for t in told[1:]]
    wanted = np.asarray(model(X[:12]))
    results = []
    for sequence in X[:12]:
        state = [quantize(np.zeros(t.shape, np.float32), t) for t in given[1:]]
        for moment in sequence:
            result, *state = interpreter.run([quantize(moment[None, None], given[0]), *state])
        results.append(dequantize(result, told[0])[0])
    assert np.mean(np.abs(np.array(results) - wanted)) < 0.06 * np.std(wanted)
    # The generated code, in TFLM's bytes while the state goes round.
    bundle, wheel = build(graph, tmp_path / "bundle"), Wheel(out.read_bytes())
    state = [quantize(np.zeros(t.shape, np.float32), t) for t in given[1:]]
    for moment in X[:5].reshape(-1, 3):
        fed = [quantize(moment[None, None], given[0]), *state]
        ours, theirs = bundle.run(fed), wheel.run(fed, len(told))
        assert [value.tobytes() for value in ours] == [value.tobytes() for value in theirs]
        state = ours[1:]


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda layers: [layers.Conv1D(4, 3), layers.LSTM(3)], "mixes moments"),
        (lambda layers: [layers.LSTM(3, go_backwards=True)], "runs backwards"),
        (lambda layers: [layers.Bidirectional(layers.LSTM(3))], "mixes moments"),
        (lambda layers: [layers.Flatten(), layers.Dense(3)], "mixes moments"),
        (lambda layers: [layers.Dense(3)], "no LSTM"),
    ],
)
def test_a_model_without_a_single_step_is_refused(
    inline: Callable[..., Any], tmp_path: Path, build: Callable[[Any], list[Any]], says: str
) -> None:
    import keras

    model = keras.Sequential([keras.Input((6, 3), name="x"), *build(keras.layers)])
    with pytest.raises(EdgeqError) as caught:
        inline(model, tmp_path / "m.tflite", data=X, rnn="cell")
    assert caught.value.code == "rnn-not-streamable"
    assert says in caught.value.what
    assert caught.value.try_


def _fusable(kind: str) -> Any:
    import keras

    keras.utils.set_random_seed(3)
    layers = keras.layers
    middle = {
        "last": [layers.LSTM(7, name="first")],
        "stacked": [layers.LSTM(7, return_sequences=True, use_bias=False, name="first"), layers.LSTM(5, name="second")],
        "bidirectional": [
            layers.Bidirectional(layers.LSTM(5, return_sequences=True, name="first"), name="both"),
            layers.LSTM(4, go_backwards=True, name="second"),
        ],
        "time": [layers.LSTM(6, return_sequences=True, name="first"), layers.Dense(3, name="each"), layers.Flatten()],
    }[kind]
    return keras.Sequential([keras.Input((6, 3), name="x"), *middle, layers.Dense(2, name="y")])


@pytest.mark.parametrize("kind", ["last", "stacked", "bidirectional", "time"])
def test_an_lstm_becomes_one_operator(inline: Callable[..., Any], tmp_path: Path, kind: str) -> None:
    model, out = _fusable(kind), tmp_path / "fused.tflite"
    wanted = np.asarray(model(X))
    report = inline(model, out, data=X, rnn="fused")
    graph = read(out)
    lstms = [op for op in graph.operators if op.name == "UNIDIRECTIONAL_SEQUENCE_LSTM"]
    assert len(lstms) == {"stacked": 2, "bidirectional": 3}.get(kind, 1)
    assert report.float_operators == ()
    told = read_beside(out, report.sha256)
    assert told is not None
    layers = {entry.name: entry for entry in told.layers}
    assert all(any(layers[name].operators for name in layers if name.endswith(own)) for own in ("first", "y"))
    for op in lstms:
        assert op.options["cell_clip"] == 0
        assert graph.tensor(op.inputs[18]).quantization == graph.tensor(op.outputs[0]).quantization
    results = outputs_of(out.read_bytes(), graph, [[sample] for sample in X])[0]
    assert np.mean(np.abs(results - wanted)) < 0.04 * np.std(wanted)
    # Written anew, the file is the same to an interpreter: it needs what the operator keeps beside its inputs.
    assert np.array_equal(outputs_of(write_bytes(graph), graph, [[sample] for sample in X])[0], results)
    bundle, wheel = build(graph, tmp_path / "bundle"), Wheel(out.read_bytes())
    for sample in X[:6]:
        # Without a reset in between, the state is carried over.
        fed = [quantize(sample[None], graph.tensor(graph.inputs[0]))]
        assert bundle.run(fed)[0].tobytes() == wheel.run(fed)[0].tobytes()


@pytest.mark.parametrize("scheme", ["float32", "float16", "dynamic", "int4"])
def test_fused_in_every_other_scheme(inline: Callable[..., Any], tmp_path: Path, scheme: str) -> None:
    model, out = _fusable("stacked"), tmp_path / "fused.tflite"
    report = inline(model, out, scheme=scheme, data=X, rnn="fused")
    assert report.operators["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 2
    wanted = np.asarray(model(X))
    results = outputs_of(out.read_bytes(), read(out), [[sample] for sample in X])[0]
    assert np.mean(np.abs(results - wanted)) < {"float32": 1e-6, "float16": 2e-3}.get(scheme, 0.1) * np.std(wanted)


@pytest.mark.parametrize(
    ("build_", "says"),
    [
        (lambda layers: [layers.GRU(3)], "only LSTM"),
        (lambda layers: [layers.LSTM(3, activation="relu")], "other activations"),
        (lambda layers: [layers.Masking(), layers.LSTM(3)], "masked"),
        (lambda layers: [layers.Flatten(), layers.Dense(3)], "no LSTM"),
    ],
)
def test_what_has_no_operator_is_refused(
    inline: Callable[..., Any], tmp_path: Path, build_: Callable[[Any], list[Any]], says: str
) -> None:
    import keras

    model = keras.Sequential([keras.Input((6, 3), name="x"), *build_(keras.layers)])
    with pytest.raises(EdgeqError) as caught:
        inline(model, tmp_path / "m.tflite", data=X, rnn="fused")
    assert caught.value.code == "rnn-not-fusable"
    assert says in caught.value.what
    assert caught.value.try_


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"rnn": "fused", "scheme": "int16x8"}, "fused-scheme"),
        ({"rnn": "fold"}, "rnn-unknown"),
        ({"rnn": "cell", "scheme": "int16x8"}, "cell-scheme"),
    ],
)
def test_options_that_are_refused(
    inline: Callable[..., Any], tmp_path: Path, options: dict[str, str], code: str
) -> None:
    with pytest.raises(EdgeqError) as caught:
        inline(_model("GRU"), tmp_path / "m.tflite", data=X, **options)
    assert caught.value.code == code
