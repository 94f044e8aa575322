"""Layers that the converter leaves in float, or that kernels get wrong, become integer; the float function stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.errors import ModelError
from edgeq.graph import Graph, TensorType, read, read_bytes, write_bytes
from edgeq.interpreter import Interpreter
from edgeq.measure import Measured
from edgeq.quantization.rewriting import rewrite

pytestmark = pytest.mark.tensorflow


def _models(layers: Any, ops: Any) -> dict[str, tuple[tuple[int, ...], list[Any], str]]:
    """Name -> input shape, layers, an operator that must be gone."""
    dense = lambda units: layers.Dense(units, bias_initializer="random_normal")  # noqa: E731
    return {
        "LayerNormalization": ((6, 10), [dense(12), layers.LayerNormalization(), dense(3)], "NEG"),
        "GroupNormalization": ((6, 6, 4), [layers.Conv2D(8, 3), layers.GroupNormalization(2)], "SQUARE"),
        "RMSNormalization": ((10,), [dense(8), layers.RMSNormalization(), dense(3)], "SQUARE"),
        "UnitNormalization": ((10,), [dense(8), layers.UnitNormalization(), dense(3)], "SUM"),
        "elu": ((8,), [dense(8), layers.ELU(0.5), dense(8), layers.Activation("elu"), dense(4)], "ELU"),
        "selu": ((8,), [dense(8), layers.Activation("selu"), dense(4)], "SELECT"),
        "log_sigmoid": ((8,), [dense(8), layers.Activation("log_sigmoid"), dense(4)], "NEG"),
        "UpSampling2D": ((4, 4, 3), [layers.UpSampling2D((3, 2)), layers.Conv2D(3, 3)], "TILE"),
        "RepeatVector": ((6,), [dense(5), layers.RepeatVector(4), layers.Conv1D(3, 2)], "TILE"),
    }


_NAMES = tuple(_models(*[type("_", (), {"__getattr__": lambda *_: lambda *_, **__: None})()] * 2))


def _model(name: str) -> tuple[Any, np.ndarray, str]:
    import keras

    keras.utils.set_random_seed(4)
    shape, stack, gone = _models(keras.layers, keras.ops)[name]
    model = keras.Sequential([keras.Input(shape), *stack])
    for weight in model.weights:
        if weight.path.endswith(("beta", "gamma", "scale")):
            weight.assign(np.random.default_rng(1).uniform(0.5, 1.5, weight.shape))
    return model, np.random.default_rng(0).normal(size=(60, *shape)).astype("f"), gone


def _float(inline: Callable[..., Any], model: Any, directory: Path) -> Graph:
    inline(model, directory / "float.tflite", scheme="float32")
    return read(directory / "float.tflite")


_FEW = ("LayerNormalization", "UnitNormalization", "elu", "UpSampling2D")


@pytest.mark.parametrize("name", [n if n in _FEW else pytest.param(n, marks=pytest.mark.slow) for n in _NAMES])
def test_nothing_stays_in_float(inline: Callable[..., Any], tmp_path: Path, name: str) -> None:
    model, x, gone = _model(name)
    report = inline(model, tmp_path / "m.tflite", data=x)
    graph = read(tmp_path / "m.tflite")
    assert {t.type for t in graph.tensors} <= {TensorType.INT8, TensorType.INT32}
    assert gone not in {op.name for op in graph.operators}
    assert any("float outputs stay the same" in told for told in report.improvements)
    sqnr = report.quality.outputs[0].sqnr_db
    assert isinstance(sqnr, Measured)
    assert sqnr.value > 28


@pytest.mark.slow
@pytest.mark.parametrize("name", _NAMES)
def test_nothing_stays_in_float_in_16x8(inline: Callable[..., Any], tmp_path: Path, name: str) -> None:
    model, x, _ = _model(name)
    report = inline(model, tmp_path / "m.tflite", data=x, scheme="int16x8")
    assert report.float_operators == ()
    sqnr = report.quality.outputs[0].sqnr_db
    assert isinstance(sqnr, Measured)
    assert sqnr.value > 40


@pytest.mark.parametrize(("name", "wide"), [("LayerNormalization", True), ("UpSampling2D", False), ("elu", False)])
def test_the_rewritten_graph_computes_what_keras_does(
    inline: Callable[..., Any], tmp_path: Path, name: str, wide: bool
) -> None:
    model, x, gone = _model(name)
    graph = _float(inline, model, tmp_path)
    result = rewrite(graph, [[sample[None]] for sample in x[:4]], wide=wide)
    assert gone in {op.name for op in graph.operators}
    assert gone not in {op.name for op in result.graph.operators}
    interpreter = Interpreter(write_bytes(result.graph))
    for sample in x[4:20]:
        wanted = np.asarray(model(sample[None]))
        np.testing.assert_allclose(interpreter.run([sample[None]])[0], wanted, rtol=1e-4, atol=1e-5)
    assert [graph.tensor(t).name for t in graph.outputs] == [result.graph.tensor(t).name for t in result.graph.outputs]


def test_a_rewrite_that_the_data_refute_is_not_made(inline: Callable[..., Any], tmp_path: Path) -> None:
    import keras

    ids = keras.Input((5,), dtype="int32", name="ids")
    model = keras.Model(ids, keras.layers.Dense(3)(keras.layers.Flatten()(keras.layers.Embedding(10, 4)(ids))))
    graph = _float(inline, model, tmp_path)
    plain = np.random.default_rng(0).integers(0, 10, (8, 5)).astype(np.int32)
    usual = rewrite(graph, [[row[None]] for row in plain], wide=False)
    assert "SELECT" not in {op.name for op in usual.graph.operators}
    from_the_end = rewrite(graph, [[row[None] - 10] for row in plain], wide=False)
    assert from_the_end.graph is graph
    assert from_the_end.told == ()


def test_what_stays_in_float_is_said(inline: Callable[..., Any], tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((6,))
    model = keras.Model(inputs, -keras.ops.cumsum(keras.layers.Dense(4)(inputs), axis=1))
    x = np.random.default_rng(0).normal(size=(40, 6)).astype("f")
    with pytest.raises(ModelError) as caught:
        inline(model, tmp_path / "m.tflite", data=x)
    assert "CUMSUM" in str(caught.value.where)
    assert "NEG" not in str(caught.value.where)
    report = inline(model, tmp_path / "m.tflite", data=x, allow_float=True)
    assert any(name.startswith("CUMSUM") for name in report.float_operators)
    assert read_bytes((tmp_path / "m.tflite").read_bytes()).operators


@pytest.mark.parametrize("way", ["select", "add"])
def test_a_mask_before_softmax_takes_no_scale_with_it(inline: Callable[..., Any], tmp_path: Path, way: str) -> None:
    """Keras masks scores by the least float, others by adding -1e9: either would make all quantized scores equal."""
    import keras

    keras.utils.set_random_seed(2)
    x = keras.Input((6, 8))
    if way == "select":
        y = keras.layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True)
    else:
        scores = keras.layers.Dot(axes=2)([keras.layers.Dense(8)(x), keras.layers.Dense(8)(x)])
        future = np.triu(np.full((1, 6, 6), -1e9, "f"), 1)
        weights = keras.layers.Softmax()(keras.ops.add(scores, future))
        y = keras.layers.Dot(axes=(2, 1))([weights, x])
    model = keras.Model(x, keras.layers.Dense(5)(y))
    data = np.random.default_rng(0).normal(size=(60, 6, 8)).astype("f")
    report = inline(model, tmp_path / "m.tflite", data=data)
    assert any("masked by" in told for told in report.improvements)
    graph = read(tmp_path / "m.tflite")
    (softmax,) = [op for op in graph.operators if op.name == "SOFTMAX"]
    assert graph.tensor(softmax.inputs[0]).scale < 1
    sqnr = report.quality.outputs[0].sqnr_db
    assert isinstance(sqnr, Measured)
    assert sqnr.value > 28


@pytest.mark.parametrize("kind", ["GRU", "unstack"])
def test_parts_that_nobody_reads_do_not_leave_the_rest_to_chance(
    inline: Callable[..., Any], tmp_path: Path, kind: str
) -> None:
    import keras

    keras.utils.set_random_seed(4)
    layers, inputs = keras.layers, keras.Input((4, 5))
    if kind == "GRU":
        inner = layers.GRU(5, return_sequences=True)(inputs)
    else:
        parts = keras.ops.unstack(layers.Dense(5)(inputs), axis=1)
        inner = layers.Add()([parts[0], parts[2]])
    model = keras.Model(inputs, layers.Dense(3)(inner))
    x = np.random.default_rng(0).normal(size=(30, 4, 5)).astype("f")
    digests = {inline(model, tmp_path / "m.tflite", data=x, calibration="minmax").sha256 for _ in range(3)}
    assert len(digests) == 1
    graph = read(tmp_path / "m.tflite")
    readers = graph.consumers()
    assert all(readers.get(t) for op in graph.operators if op.name in ("SPLIT", "UNPACK") for t in op.outputs)
