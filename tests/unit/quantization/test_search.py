"""A search finds what is cheap and accurate enough, by measuring; the same everywhere it runs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.errors import AnswerNo, EnvironmentFailure, UsageError
from edgeq.graph import read
from edgeq.interpreter import Interpreter
from edgeq.measure import Computed, Estimated, Measured, Unknown
from edgeq.progress import silent
from edgeq.quantization import SearchGoal, layer_map
from edgeq.quantization.evaluation import quantize
from edgeq.quantization.search import LADDER, Search, Unit, on_curve
from edgeq.quantization.trials import Outcome, Trial

_BYTES = {"int4": 60.0, "int8": 100.0, "int16x8": 120.0, "float32": 400.0}
_WORK = {"int4": 1.1, "int8": 1.0, "int16x8": 3.0, "float32": 5.0}


class _World:
    """Layers whose errors and costs add up, so that every mixture's outcome is known."""

    def __init__(self, seed: int, count: int = 5) -> None:
        rng = np.random.default_rng(seed)
        self.units = [Unit(f"layer{n}", (f"layer{n}",), (n,), bool(rng.random() < 0.6)) for n in range(count)]
        base = np.exp(rng.uniform(np.log(0.02), np.log(2), count))
        self.loss = {s: base * f for s, f in zip(LADDER, (6.0, 1.0, 0.02, 0.0), strict=True)}
        self.size = rng.uniform(0.5, 2, count)
        self.operators = {n: "CONV_2D" if u.has_four_bit else "DEPTHWISE_CONV_2D" for n, u in enumerate(self.units)}

    def outcome(self, schemes: Sequence[str]) -> Outcome:
        error = sum(float(self.loss[s][n]) for n, s in enumerate(schemes))
        borders = sum(a != b for a, b in itertools.pairwise(schemes))
        size = sum(_BYTES[s] * self.size[n] for n, s in enumerate(schemes)) + 5 * borders
        work = sum(_WORK[s] * self.size[n] for n, s in enumerate(schemes)) + 0.1 * borders
        return Outcome(
            error,
            Measured(0.9 - error / 100, "fraction", "made up"),
            Computed(size, "bytes", "made up"),
            Computed(0, "bytes", "made up"),
            Estimated(work, "instructions", "made up"),
            Unknown("made up"),
            True,
            True,
            None,
        )

    def search(self, goal: SearchGoal) -> Search:
        def batch(trials: Sequence[Trial], _: object) -> list[Outcome]:
            return [self.outcome(trial.schemes) for trial in trials]

        return Search(self.units, self.operators, goal, reference=0.9, batch=batch, progress=silent)

    def everything(self) -> list[Outcome]:
        options = [LADDER if unit.has_four_bit else LADDER[1:] for unit in self.units]
        return [self.outcome(schemes) for schemes in itertools.product(*options)]


def _cost(outcome: Outcome) -> float:
    assert isinstance(outcome.cost_bytes, Computed)
    assert isinstance(outcome.work, Estimated)
    return outcome.cost_bytes.value * outcome.work.value


@pytest.mark.parametrize("seed", range(12))
def test_the_cheapest_of_all_mixtures_is_nearly_found(seed: int) -> None:
    world = _World(seed)
    drop = 2.0
    found = world.search(SearchGoal("host", max_drop=drop)).run()
    best = found.best[0]
    assert best.drop <= drop
    optimum = min(_cost(o) for o in world.everything() if o.error <= drop)
    assert _cost(best.outcome) <= 1.25 * optimum
    assert len(found.tried) < 80
    uniform = [t for t in found.tried if len(set(t.units)) == 1 and t.meets]
    assert all(best.cost <= t.cost for t in uniform)
    again = world.search(SearchGoal("host", max_drop=drop)).run()
    assert [t.units for t in again.tried] == [t.units for t in found.tried]


@pytest.mark.parametrize("seed", range(6))
def test_within_a_limit_the_most_accurate_is_nearly_found(seed: int) -> None:
    world = _World(seed)
    limit = 1.15 * sum(100.0 * s for s in world.size)
    found = world.search(SearchGoal("host", max_flash_bytes=limit)).run()
    sizes = [o.cost_bytes.value for o in world.everything() if isinstance(o.cost_bytes, Computed)]
    optimum = min(o.error for o, size in zip(world.everything(), sizes, strict=True) if size <= limit)
    best = found.best[0].outcome
    assert isinstance(best.cost_bytes, Computed)
    assert best.cost_bytes.value <= limit
    assert best.error <= 1.6 * optimum + 0.02


def test_the_curve_has_no_point_that_another_beats() -> None:
    found = _World(3).search(SearchGoal("host", max_drop=1.0)).run()
    curve = on_curve(found.tried)
    for one, other in itertools.pairwise(curve):
        assert one.cost <= other.cost
        assert one.drop > other.drop
    for tried in found.tried:
        assert any(p.cost <= tried.cost and p.drop <= tried.drop for p in curve)


def test_a_goal_that_nothing_meets_is_answered_with_what_comes_closest() -> None:
    with pytest.raises(AnswerNo) as caught:
        _World(0).search(SearchGoal("host", max_flash_bytes=1.0)).run()
    assert caught.value.code == "search-found-none"
    assert "points" in str(caught.value.why)
    with pytest.raises(AnswerNo) as caught:
        _World(0).search(SearchGoal("host", max_latency_us=1.0)).run()
    assert "latency" in caught.value.what


@pytest.mark.parametrize("fields", [{}, {"max_drop": -1.0}, {"max_drop": 1.0, "jobs": -1}])
def test_goals_without_meaning_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        SearchGoal("host", **fields)


@pytest.fixture(scope="module")
def digits() -> tuple[Any, np.ndarray, np.ndarray]:
    """A small network trained on handwritten digits, its channels scaled so far apart that int8 cannot hold all."""
    datasets = pytest.importorskip("sklearn.datasets")
    keras = pytest.importorskip("keras")
    x, y = datasets.load_digits(return_X_y=True)
    x = (x.reshape(-1, 8, 8, 1) / 16).astype(np.float32)
    keras.utils.set_random_seed(1)
    made = keras.layers
    inputs = keras.Input((8, 8, 1), name="picture")
    z = made.Conv2D(8, 3, activation="relu", name="stem")(inputs)
    z = made.Conv2D(8, 3, activation="tanh", name="middle")(z)
    z = made.Conv2D(12, 3, activation="relu", name="last")(z)
    model = keras.Model(inputs, made.Dense(10, activation="softmax", name="head")(made.Flatten(name="flat")(z)))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x[:1200], y[:1200], epochs=12, batch_size=32, verbose=0)
    stem, middle = model.get_layer("stem"), model.get_layer("middle")
    factor = np.array([60, 1, 1, 1, 1, 1, 1, 1 / 8], np.float32)
    stem.kernel.assign(np.asarray(stem.kernel) * factor)
    stem.bias.assign(np.asarray(stem.bias) * factor)
    middle.kernel.assign(np.asarray(middle.kernel) / factor[:, None])
    return model, x, y


def _searched(convert: Callable[..., Any], digits: Any, out: Path, **fields: Any) -> Any:
    model, x, y = digits
    goal = SearchGoal("nucleo-l4r5zi", max_drop=0.5, **fields)
    return convert(model, out, data=x[:100], eval_data=(x[1200:1500], y[1200:1500]), calibration="minmax", search=goal)


def _assert_files(report: Any, tmp_path: Path) -> None:
    """A table, and a page without anything from elsewhere."""
    from edgeq.report.search_html import search_files

    place = tmp_path / "<b>digits.tflite"
    files = {path.suffix: content.decode() for path, content in search_files(report, place).items()}
    document = json.loads(files[".json"])
    assert document["schema"] == "edgeq.search/1"
    assert document["sha256"] == report.sha256
    page = files[".html"]
    assert page.count("<circle") == sum(t["runs"] for t in document["trials"])
    assert "&lt;b&gt;digits" in page
    assert "<b>" not in page
    assert not [word for word in ("http:", "https:", "<script", "src=") if word in page]


@pytest.mark.tensorflow
def test_the_result_holds_the_goal_and_can_be_made_again(
    inline: Callable[..., Any], digits: Any, tmp_path: Path
) -> None:
    model, x, y = digits
    out = tmp_path / "digits.tflite"
    report = _searched(inline, digits, out, jobs=1)
    held_out, labels = x[1200:1500], y[1200:1500]
    graph, interpreter = read(out), Interpreter(out.read_bytes())
    source = graph.tensor(graph.inputs[0])
    right = [np.argmax(interpreter.run([quantize(v[None], source)])[0]) for v in held_out] == labels
    by_float = np.argmax(np.asarray(model(held_out)), axis=1) == labels
    assert np.mean(right) >= np.mean(by_float) - 0.005 - 1e-9
    trials = {tuple(t["schemes"]): t for t in report.search["trials"]}
    uniform = {scheme: trials[(scheme,) * 4] for scheme in ("int8", "int16x8")}
    [chosen] = [t for t in trials.values() if t["chosen"]]
    assert not uniform["int8"]["meets"]  # otherwise there would be nothing to search for
    assert chosen["meets"]
    assert chosen["cost"] < uniform["int16x8"]["cost"]
    felt = {u["name"]: u["sensitivity"]["int8"] for u in report.search["units"]}
    assert {name for name, error in felt.items() if error > 3 * felt["head"]} == {"stem", "middle"}
    told = layer_map.read_beside(out, report.sha256)
    assert told is not None
    assert {u["name"]: u["scheme"] for u in report.search["units"]} == {
        layer.name: layer.schemes[0] for layer in told.layers if layer.name in felt
    }
    again = inline(
        model,
        tmp_path / "again.tflite",
        data=x[:100],
        calibration="minmax",
        scheme=report.scheme,
        layers=report.mixture,
        io="int8",
    )
    assert again.sha256 == report.sha256
    _assert_files(report, tmp_path)


@pytest.mark.tensorflow
def test_a_model_without_classes_and_a_scheduler_that_is_not_there(
    inline: Callable[..., Any], digits: Any, tmp_path: Path
) -> None:
    import keras

    inputs = keras.Input((6,))
    copy = keras.Model(inputs, keras.layers.Dense(6)(inputs))
    x = np.random.default_rng(0).normal(size=(30, 6)).astype("f")
    with pytest.raises(UsageError) as caught:
        inline(copy, tmp_path / "m.tflite", data=x, search=SearchGoal("host", max_drop=1.0, jobs=1))
    assert caught.value.code == "search-without-classes"
    pytest.importorskip("distributed")
    with pytest.raises(EnvironmentFailure) as failed:
        _searched(inline, digits, tmp_path / "m.tflite", scheduler="tcp://127.0.0.1:9")
    assert failed.value.code == "scheduler-unreachable"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.tensorflow
def test_processes_and_a_cluster_find_what_one_process_finds(
    inline: Callable[..., Any], digits: Any, tmp_path: Path
) -> None:
    from distributed import LocalCluster

    alone = _searched(inline, digits, tmp_path / "alone.tflite", jobs=1)
    several = _searched(inline, digits, tmp_path / "several.tflite", jobs=2)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        spread = _searched(inline, digits, tmp_path / "spread.tflite", scheduler=cluster.scheduler_address)
    for other in (several, spread):
        assert other.sha256 == alone.sha256
        for field in ("trials", "units", "layers"):
            assert other.search[field] == alone.search[field]
