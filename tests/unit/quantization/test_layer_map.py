"""`OUT.quant.json`: written with the model, found for these very bytes only, and never trusted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.errors import InputError
from edgeq.graph import read
from edgeq.quantization import layer_map


def _sentence() -> layer_map.LayerMap:
    operator = layer_map.MappedOperator(index=0, name="CONV_2D", layers=("stem", "norm"), outputs=(0,), scheme="int8")
    layer = layer_map.MappedLayer(
        name="stem", class_name="Conv2D", schemes=("int8",), operators=(0,), tensors=(0, 1, 2)
    )
    tensor = layer_map.MappedTensor(index=0, name="x", type="INT8", shape=(1, 4), constant=False, scale=(0.5,))
    return layer_map.LayerMap(
        model_sha256="ab",
        scheme="int8",
        granularity="channel",
        layers=(layer,),
        operators=(operator,),
        tensors=(tensor,),
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    told, model = _sentence(), tmp_path / "kws.tflite"
    assert layer_map.parse(told.to_bytes(), "m") == told
    assert json.loads(told.to_bytes())["schema"] == "edgeq.quant/1"
    assert told.layers_by_tensor() == {"x": "stem"}
    assert layer_map.path_beside(model).name == "kws.quant.json"
    assert layer_map.read_beside(model, "ab") is None
    layer_map.path_beside(model).write_bytes(told.to_bytes())
    assert layer_map.read_beside(model, "ab") == told
    assert layer_map.read_beside(model, "cd") is None


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"schema": "edgeq.quant/2"}', b'{"model_sha256": 3}']
)
def test_anything_else_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        layer_map.parse(content, "kws.quant.json")
    assert caught.value.code == "quant-map-invalid"
    assert caught.value.try_


@pytest.mark.tensorflow
def test_every_operator_and_layer_of_a_conversion_is_in_the_map(inline: Callable[..., Any], tmp_path: Path) -> None:
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    core = keras.Sequential([keras.Input((8, 8, 4)), layers.Conv2D(4, 3, name="inner"), layers.ReLU(name="act")])
    core.name = "core"
    inputs = keras.Input((10, 10, 1))
    z = core(layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, name="conv")(inputs)))
    z = layers.Dropout(0.2, name="drop")(layers.GlobalAveragePooling2D(name="mean")(z))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(z))
    out = tmp_path / "m.tflite"
    x = np.random.default_rng(0).normal(size=(30, 10, 10, 1)).astype(np.float32)
    report = inline(model, out, data=x, calibration="minmax")
    told, graph = layer_map.read_beside(out, report.sha256), read(out)
    assert told is not None
    assert Path(report.layer_map) == layer_map.path_beside(out)
    assert [(op.index, op.name) for op in told.operators] == [(op.index, op.name) for op in graph.operators]
    assert all(op.layers for op in told.operators)
    classes = {layer.name: layer.class_name for layer in told.layers}
    wanted = {"conv": "Conv2D", "norm": "BatchNormalization", "core/inner": "Conv2D", "core/act": "ReLU"}
    assert wanted.items() <= classes.items()
    named = {layer.name: layer for layer in told.layers}
    assert named["conv"].operators == named["norm"].operators  # folded
    assert named["core/inner"].operators != named["conv"].operators
    assert named["drop"].operators == ()
    assert [graph.operators[i].name for i in named["head"].operators] == ["FULLY_CONNECTED", "SOFTMAX"]
    for tensor in told.tensors:
        q = graph.tensor(tensor.index).quantization
        assert tensor.name == graph.tensor(tensor.index).name
        assert tensor.scale == (() if q is None else q.scale)
    # The report names layers as the user did.
    assert {loss["layer"] for loss in report.layers} <= set(classes)


@pytest.mark.tensorflow
def test_bench_calls_layers_as_the_user_does(
    inline: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    from edgeq import api

    monkeypatch.setenv("EDGEQ_STATE", str(tmp_path / "state"))
    layers = keras.layers
    inputs = keras.Input((6, 6, 1))
    z = layers.Flatten()(layers.Conv2D(4, 3, activation="relu", name="first")(inputs))
    model = keras.Model(inputs, layers.Dense(3, name="second")(z))
    out = tmp_path / "m.tflite"
    x = np.random.default_rng(0).normal(size=(30, 6, 6, 1)).astype(np.float32)
    inline(model, out, data=x, calibration="minmax")
    api.flash(out, "host")
    named = [layer.layer for layer in api.bench(out, "host", runs=3).layers]
    assert [name for name in named if name != "flatten"] == ["first", "second"]
    layer_map.path_beside(out).unlink()
    assert {layer.layer for layer in api.bench(out, "host", runs=3).layers} == {None}
