"""Recurrent models as one step: states go in and come out in the same bytes, and steps add up to the whole model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.errors import EdgeqError
from edgeq.graph import TensorType, read
from edgeq.interpreter import Interpreter
from edgeq.quantization.evaluation import dequantize, quantize

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


@pytest.mark.parametrize(
    ("options", "code"), [({"rnn": "fold"}, "rnn-unknown"), ({"rnn": "cell", "scheme": "int16x8"}, "cell-scheme")]
)
def test_options_that_are_refused(
    inline: Callable[..., Any], tmp_path: Path, options: dict[str, str], code: str
) -> None:
    with pytest.raises(EdgeqError) as caught:
        inline(_model("GRU"), tmp_path / "m.tflite", data=X, **options)
    assert caught.value.code == code
