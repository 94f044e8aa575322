"""What is done to a float model before and after quantizing keeps its function, and helps where it should."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.graph import Graph, Quantization, read_bytes, write_bytes
from edgeq.interpreter import Interpreter
from edgeq.measure import Measured
from edgeq.quantization.calibration import METHODS, Histogram, Statistics, channel_magnitudes, ranges_of
from edgeq.quantization.equalization import equalize, pairs
from edgeq.quantization.weights import layers, least_squares_scale, patches, reconstruct


def _statistics(values: np.ndarray) -> Statistics:
    """As of samples of 1000 values each."""
    parts = np.array_split(values, len(values) // 1000)
    return reduce(
        operator.add,
        [Statistics({0: (float(part.min()), float(part.max()))}, {0: Histogram.of(part)}) for part in parts],
    )


def test_a_histogram_of_parts_is_that_of_the_whole() -> None:
    rng = np.random.default_rng(5)
    parts = [rng.normal(scale=scale, size=500).astype(np.float32) for scale in (1e-30, 0.01, 1, 300, 2)]
    whole = Histogram.of(np.concatenate(parts))
    for order in (parts, parts[::-1]):
        added = reduce(operator.add, map(Histogram.of, order))
        assert added.reach == whole.reach
        assert np.array_equal(added.counts, whole.counts)
    low, high = -whole.reach / 3, whole.reach / 5
    counts, edges = whole.between(low, high)
    values = np.concatenate(parts)
    assert edges[0] == low
    assert edges[-1] == high
    assert len(edges) == len(counts) + 1
    inside = np.sum((values >= low) & (values <= high))
    assert inside <= counts.sum() <= inside + np.sum(np.abs(values) > whole.reach / 5.1)


def test_a_large_tensor_is_counted_in_all_of_its_channels() -> None:
    value = np.zeros((1, 64, 64, 96), np.float32)
    value[..., 41] = 1.5
    share = Histogram.of(value).counts
    assert share[share.nonzero()[0][-1]] / share.sum() == pytest.approx(1 / 96, rel=0.05)


def _quantization_error(values: np.ndarray, low: float, high: float) -> float:
    step = (max(high, 0) - min(low, 0)) / 255
    clipped = np.clip(values, min(low, 0), max(high, 0))
    return float(np.mean((np.round(clipped / step) * step - values) ** 2))


@pytest.mark.parametrize("method", METHODS)
def test_ranges_lie_within_what_was_seen_and_keep_the_bulk(method: str) -> None:
    values = np.random.default_rng(0).normal(size=100_000)
    low, high = ranges_of(_statistics(values), method)[0]
    assert values.min() <= low < -2
    assert 2 < high <= values.max()


def test_the_least_squares_range_beats_the_smallest_and_largest_value_where_outliers_are() -> None:
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.laplace(size=200_000), [60.0, -45.0]])
    statistics = _statistics(values)
    errors = {m: _quantization_error(values, *ranges_of(statistics, m)[0]) for m in METHODS}
    assert errors["mse"] < 0.7 * errors["minmax"]
    assert errors["mse"] <= 1.05 * min(errors.values())


def test_the_least_squares_scale_is_no_worse_than_any_other() -> None:
    weights = np.random.default_rng(2).standard_t(3, size=(6, 50))

    def error(scale: np.ndarray) -> np.ndarray:
        return ((np.clip(np.round(weights / scale[:, None]), -7, 7) * scale[:, None] - weights) ** 2).sum(axis=1)

    best = error(least_squares_scale(weights, 0, 4))
    reach = np.abs(weights).max(axis=1)
    assert np.all(best <= error(reach / 7) + 1e-12)
    assert np.mean(best) < 0.9 * np.mean(error(reach / 7))


def test_reconstruction_keeps_the_output_better_than_rounding_to_the_nearest() -> None:
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(2000, 24)) @ rng.normal(size=(24, 24))
    weights = rng.normal(size=(8, 24))
    scale = np.abs(weights).max(axis=1) / 7
    codes = reconstruct(weights, scale, inputs.T @ inputs, 4)
    nearest = np.clip(np.round(weights / scale[:, None]), -7, 7)
    assert np.abs(codes).max() <= 7
    assert np.array_equal(codes, np.round(codes))

    def error(chosen: np.ndarray) -> float:
        return float(np.sum((inputs @ (chosen * scale[:, None] - weights).T) ** 2))

    assert error(codes) < 0.7 * error(nearest)


@pytest.fixture
def float_file(inline: Callable[..., Any], tmp_path: Path) -> bytes:
    return _float_file(inline, tmp_path, "relu")


def _float_file(inline: Callable[..., Any], tmp_path: Path, activation: str) -> bytes:
    """A float model: convolutions of both paddings, with stride and dilation, depthwise, pooling, dense."""
    import keras

    keras.utils.set_random_seed(2)
    made = keras.layers
    inputs = keras.Input((9, 8, 3))
    z = made.Conv2D(6, (3, 2), strides=2, padding="same", activation=activation, bias_initializer="random_normal")(
        inputs
    )
    z = made.DepthwiseConv2D(3, padding="same", activation=activation, bias_initializer="random_normal")(z)
    z = made.Conv2D(8, 2, dilation_rate=2, activation="relu")(made.ZeroPadding2D(1)(z))
    z = made.GlobalAveragePooling2D()(z)
    inline(
        keras.Model(inputs, made.Dense(4, bias_initializer="random_normal")(z)),
        tmp_path / "float.tflite",
        scheme="float32",
    )
    return (tmp_path / "float.tflite").read_bytes()


def _samples(graph: Any, count: int) -> list[list[np.ndarray]]:
    shape = graph.tensor(graph.inputs[0]).shape
    return [[v.astype(np.float32)] for v in np.random.default_rng(0).normal(size=(count, *shape))]


@pytest.mark.tensorflow
def test_patches_times_weights_is_what_the_interpreter_computes(float_file: bytes) -> None:
    graph = read_bytes(float_file)
    interpreter = Interpreter(float_file, preserve_all_tensors=True)
    interpreter.run(_samples(graph, 1)[0])
    unit = Quantization((1.0,), (0,), 0)  # codes of the biases are the biases
    with_unit = replace(graph, tensors=tuple(replace(t, quantization=unit) for t in graph.tensors))
    checked = []
    for layer in layers(with_unit, graph):
        op = layer.operator
        matrix = patches(layer, interpreter.tensor(op.inputs[0]), 10**9)
        assert layer.bias is not None
        if op.name == "DEPTHWISE_CONV_2D":
            rows = np.moveaxis(layer.weights, 3, 0).reshape(layer.weights.shape[3], -1)
            result = (matrix * rows).sum(axis=2) + layer.bias
        else:
            result = matrix @ layer.weights.reshape(len(layer.weights), -1).T + layer.bias
        if op.options["fused_activation_function"] == "RELU":
            result = np.maximum(result, 0)
        wanted = interpreter.tensor(op.outputs[0]).reshape(result.shape)
        np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-5)
        checked.append(op.name)
    assert sorted(checked) == ["CONV_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"]


def _unbalanced(graph: Graph, lowest: int, highest: int) -> Graph:
    """The stem's channels scaled by powers of two from lowest to highest, the depthwise weights by the inverse."""
    pair = next(p for p in pairs(graph) if p.second.name == "DEPTHWISE_CONV_2D")
    _, weights, bias = (graph.tensors[i] for i in pair.first.inputs)
    after = graph.tensors[pair.second.inputs[1]]
    assert weights.data is not None
    assert bias.data is not None
    assert after.data is not None
    factors = np.logspace(lowest, highest, len(weights.data), base=2, dtype=np.float32)
    scaled = {
        weights.index: weights.data * factors[:, None, None, None],
        bias.index: bias.data * factors,
        after.index: after.data / factors,
    }
    tensors = tuple(replace(t, data=scaled[t.index]) if t.index in scaled else t for t in graph.tensors)
    return replace(graph, tensors=tensors, subgraphs=(), digest="")


@pytest.mark.tensorflow
@pytest.mark.parametrize(("activation", "highest"), [("relu", 4), ("relu6", 0)])
def test_equalization_keeps_the_function_and_narrows_the_channels(
    inline: Callable[..., Any], tmp_path: Path, activation: str, highest: int
) -> None:
    graph = _unbalanced(read_bytes(_float_file(inline, tmp_path, activation)), highest - 8, highest)
    float_file = write_bytes(graph)
    # Large enough that ReLU6 clamps.
    loud = 20 if activation == "relu6" else 1
    samples = [[loud * value for value in sample] for sample in _samples(graph, 8)]
    before = channel_magnitudes(float_file, graph, samples)
    result, changed = equalize(graph, before)
    assert len(pairs(graph)) == 3
    assert 1 <= changed <= 3
    equalized = write_bytes(result)
    assert ("MINIMUM" in {op.name for op in result.operators}) == (activation == "relu6")
    plain, other = Interpreter(float_file), Interpreter(equalized)
    for sample in samples:
        np.testing.assert_allclose(other.run(sample)[0], plain.run(sample)[0], rtol=1e-4, atol=1e-6)
    after = channel_magnitudes(equalized, read_bytes(equalized), samples)
    stem = next(p for p in pairs(graph) if p.second.name == "DEPTHWISE_CONV_2D").first.outputs[0]
    assert np.ptp(np.log2(after[stem])) <= 1.01 < np.ptp(np.log2(before[stem]))


@pytest.mark.tensorflow
def test_badly_scaled_depthwise_channels_are_repaired_and_otherwise_named(
    inline: Callable[..., Any], tmp_path: Path
) -> None:
    import keras

    keras.utils.set_random_seed(0)
    layers_ = keras.layers
    inputs = keras.Input((8, 8, 4))
    z = layers_.Conv2D(16, 3, padding="same", activation="relu", name="stem")(inputs)
    z = layers_.DepthwiseConv2D(3, padding="same", activation="relu", name="broken")(z)
    z = layers_.Conv2D(16, 1, activation="relu", name="mix")(z)
    model = keras.Model(inputs, layers_.Dense(5, name="out")(layers_.Flatten()(z)))
    factor = np.exp(np.random.default_rng(0).uniform(np.log(0.01), np.log(100), 16)).astype(np.float32)
    broken, mix = model.get_layer("broken"), model.get_layer("mix")
    broken.kernel.assign(np.asarray(broken.kernel) * factor[None, None, :, None])
    mix.kernel.assign(np.asarray(mix.kernel) / factor[None, None, :, None])
    x = np.random.default_rng(1).normal(size=(80, 8, 8, 4)).astype("f")
    plain = inline(model, tmp_path / "m.tflite", data=x, calibration="minmax")
    repaired = inline(model, tmp_path / "m.tflite", data=x)
    assert "cause is broken" in plain.verdict
    ratios = [r.quality.outputs[0].sqnr_db for r in (plain, repaired)]
    assert all(isinstance(r, Measured) for r in ratios)
    assert ratios[1].value > ratios[0].value + 15
    assert any("equalized" in told for told in repaired.improvements)
