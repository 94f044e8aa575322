"""The analysis of a model that was broken on purpose names what was broken, as the user named it."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.measure import Measured

pytestmark = pytest.mark.tensorflow


def _ratio(report: Any) -> float:
    ratio = report.quality.outputs[0].sqnr_db
    assert isinstance(ratio, Measured)
    return ratio.value


def _pictures(low: float, high: float) -> np.ndarray:
    return np.random.default_rng(1).uniform(low, high, size=(60, 8, 8, 3)).astype(np.float32)


def _network(outlier: float = 1.0, *before: Any) -> Any:
    """Three convolutions; one channel of the second is `outlier` times as large, and the third makes up for it."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            *before,
            layers.Conv2D(8, 3, activation="relu", name="first"),
            layers.Conv2D(8, 3, activation="relu", name="second"),
            layers.Conv2D(8, 3, activation="relu", name="third"),
            layers.Flatten(name="flat"),
            layers.Dense(5, name="head"),
        ]
    )
    second, third = model.get_layer("second"), model.get_layer("third")
    kernel, after = np.array(second.kernel), np.array(third.kernel)
    kernel[..., 2] *= outlier
    after[:, :, 2] /= outlier
    second.kernel.assign(kernel)
    third.kernel.assign(after)
    return model


def test_an_outlier_channel_is_named_and_its_remedies_help(inline: Callable[..., Any], tmp_path: Path) -> None:
    x = _pictures(-1, 1)
    sound = inline(_network(), tmp_path / "m.tflite", data=x, calibration="minmax")
    broken = inline(_network(300), tmp_path / "m.tflite", data=x, calibration="minmax")
    assert _ratio(broken) < _ratio(sound) - 10
    assert "cause is second" in broken.verdict
    assert "widest channel" in broken.verdict
    assert "second" not in sound.verdict
    worst = max(broken.layers, key=lambda loss: loss["own_noise"])
    assert worst["layer"] == "third"
    spread = {loss["layer"]: loss["channel_spread"] for loss in broken.layers}
    assert max(spread, key=lambda name: spread[name]) == "second"
    assert "--layer second=float32" in broken.verdict
    mixed = {"second": "float32", "third": "float32"}
    for remedy in ({"calibration": "auto"}, {"calibration": "minmax", "layers": mixed}):
        repaired = inline(_network(300), tmp_path / "m.tflite", data=x, **remedy)
        assert _ratio(repaired) > _ratio(broken) + 8


def test_the_numbers_are_those_of_the_definition(inline: Callable[..., Any], tmp_path: Path) -> None:
    from edgeq.graph import read
    from edgeq.interpreter import Interpreter
    from edgeq.quantization.evaluation import quantize

    x = _pictures(-1, 1)
    out = tmp_path / "m.tflite"
    report = inline(_network(), out, data=x, calibration="minmax")
    head = next(loss for loss in report.layers if loss["layer"] == "head")
    model, graph, interpreter = _network(), read(out), Interpreter(out.read_bytes())
    source, sink = graph.tensor(graph.inputs[0]), graph.tensor(graph.outputs[0])
    samples = x[:16]
    expected = np.asarray(model(samples), np.float64)
    codes = np.concatenate([interpreter.run([quantize(v[None], source)])[0] for v in samples]).astype(np.float64)
    actual = (codes - sink.zero_point) * sink.scale
    ratio = 10 * np.log10(np.sum(expected**2) / np.sum((actual - expected) ** 2))
    cosine = np.sum(expected * actual) / np.linalg.norm(expected) / np.linalg.norm(actual)
    assert head["sqnr_db"] == pytest.approx(ratio, abs=0.05)
    assert head["cosine"] == pytest.approx(cosine, abs=1e-5)
    kernel = np.asarray(model.get_layer("head").kernel)
    assert (head["weight_low"], head["weight_high"]) == pytest.approx((kernel.min(), kernel.max()), rel=0.02)
    assert (head["low"], head["high"]) == pytest.approx((expected.min(), expected.max()), rel=1e-4)


@pytest.mark.parametrize(
    ("twice", "data", "code", "named"),
    [
        (True, (0.0, 255.0), "normalized-twice", ("scale_again", "scale")),
        (False, (0.0, 1.0), "normalized-twice", ("scale", "data")),
        (False, (0.0, 65535.0), "not-normalized", ("scale", "another unit")),
        (False, (0.0, 255.0), None, ()),
    ],
)
def test_a_double_normalization_is_named(
    inline: Callable[..., Any], tmp_path: Path, twice: bool, data: tuple[float, float], code: str | None, named: Any
) -> None:
    import keras

    rescaling = keras.layers.Rescaling
    again = [rescaling(1 / 255, name="scale_again")] if twice else []
    model = _network(1.0, rescaling(1 / 255, name="scale"), *again)
    report = inline(model, tmp_path / "m.tflite", data=_pictures(*data), calibration="minmax")
    found = [w for w in report.warnings if w.code in ("normalized-twice", "not-normalized")]
    assert [w.code for w in found] == ([] if code is None else [code])
    for warned in found:
        assert warned.what.startswith(named[0])
        assert named[1] in warned.what
        assert warned.what in report.verdict
        assert warned.try_


def test_a_normalization_with_its_own_statistics_is_held_against_the_data(
    inline: Callable[..., Any], tmp_path: Path
) -> None:
    import keras

    norm = keras.layers.Normalization(mean=100.0, variance=60.0**2, name="standardize")
    model = _network(1.0, norm)
    sound, broken = (
        inline(model, tmp_path / "m.tflite", data=x, calibration="minmax")
        for x in (_pictures(0, 200), _pictures(-1.7, 1.7))
    )
    assert "normalized-twice" not in {w.code for w in sound.warnings}
    [warned] = [w for w in broken.warnings if w.code == "normalized-twice"]
    assert warned.what.startswith("standardize (Normalization)")


def test_the_confusion_matrix_is_that_of_the_files_own_answers(inline: Callable[..., Any], tmp_path: Path) -> None:
    from rich.console import Console

    from edgeq.graph import read
    from edgeq.interpreter import Interpreter
    from edgeq.quantization.evaluation import quantize
    from edgeq.report.convert_text import render_conversion

    confusion_matrix = pytest.importorskip("sklearn.metrics").confusion_matrix
    x, y = _pictures(-1, 1), np.random.default_rng(2).integers(0, 5, 60)
    out = tmp_path / "m.tflite"
    report = inline(_network(), out, data=x, eval_data=(x, y), calibration="minmax")
    graph, interpreter = read(out), Interpreter(out.read_bytes())
    source = graph.tensor(graph.inputs[0])
    chosen = [int(np.argmax(interpreter.run([quantize(v[None], source)])[0])) for v in x]
    assert report.quality.confusion == tuple(map(tuple, confusion_matrix(y, chosen, labels=range(5)).tolist()))
    assert report.to_json()["quality"]["confusion"] == [list(row) for row in report.quality.confusion]
    console = Console(record=True, width=100, file=StringIO())
    render_conversion(console, report)
    assert "by the class chosen" in console.export_text()
    assert inline(_network(), out, data=x, calibration="minmax").quality.confusion is None
