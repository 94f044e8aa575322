"""Kept results and what changed between them; order statistics."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.benchmark import compare, keep, kept
from edgeq.benchmark.result import Ticks
from edgeq.errors import InputError


def result(cost: float, *, board: str = "a", layer: float = 5, accuracy: float | None = None) -> dict[str, Any]:
    document: dict[str, Any] = {
        "board": board,
        "hello": {"model_sha256": "0" * 64},
        "ticks": {"median": {"kind": "measured", "value": cost, "unit": "instructions"}},
        "memory": {"arena_used": {"kind": "unknown", "reason": "none"}},
        "layers": [
            {"index": 0, "name": "CONV_2D", "output": "t", "cost": {"value": layer, "unit": "instructions"}},
            {"index": 1, "name": "SOFTMAX", "output": "u", "cost": {"value": 7, "unit": "instructions"}},
        ],
    }
    if accuracy is not None:
        document["accuracy"] = {"board": {"value": accuracy, "unit": "fraction"}}
    return document


def changed(tmp_path: Path, before: dict[str, Any], after: dict[str, Any]) -> Any:
    keep(before, tmp_path / "before.json")
    keep(after, tmp_path / "after.json")
    return compare(tmp_path / "before.json", tmp_path / "after.json")


def test_what_changed(tmp_path: Path) -> None:
    report = changed(tmp_path, result(100, accuracy=0.9), result(110, layer=8, accuracy=0.8))
    found = {change.what: (change.before, change.after) for change in report.changes}
    assert found == {"cost": (100, 110), "accuracy": (0.9, 0.8), "layer 0 CONV_2D": (5, 8)}
    assert set(report.worse_by(0.09)) == {"cost", "accuracy", "layer 0 CONV_2D"}
    assert set(report.worse_by(0.2)) == {"layer 0 CONV_2D"}
    assert report.notes == ()


def test_better_is_not_worse(tmp_path: Path) -> None:
    report = changed(tmp_path, result(110, accuracy=0.8), result(100, layer=4, accuracy=0.9))
    assert report.worse_by(0) == ()


def test_other_boards_are_noted(tmp_path: Path) -> None:
    (note,) = changed(tmp_path, result(1), result(1, board="b")).notes
    assert "boards" in note


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": "edgeq.flash/1"}', "[" * 100_000, "\x00"])
def test_not_a_result(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(InputError) as caught:
        compare(tmp_path / "x.json", tmp_path / "x.json")
    assert caught.value.code == "result-invalid"


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        compare(tmp_path / "x.json", tmp_path / "x.json")
    assert caught.value.code == "result-missing"


def test_hostile_fields_are_left_out(tmp_path: Path) -> None:
    hostile = {**result(1), "layers": [1, {"cost": "x"}, {"index": "a", "cost": {"value": 1}}], "hello": 3, "ticks": []}
    (tmp_path / "x.json").write_text(json.dumps({"schema": "edgeq.bench/1", **hostile}))
    assert compare(tmp_path / "x.json", tmp_path / "x.json").changes == ()


def test_names_and_paths() -> None:
    assert kept("first") == Path(".edgeq/results/first.json")
    assert kept("a/b.json") == Path("a/b.json")


@given(st.lists(st.integers(0, 2**63), min_size=1, max_size=50))
def test_percentiles_are_samples_and_in_order(samples: list[int]) -> None:
    ticks = Ticks(tuple(samples), "cycles", "a timer")
    values = [ticks.percentile(percent).value for percent in (0, 50, 90, 99, 100)]
    assert values == sorted(values)
    assert values[0] == min(samples)
    assert values[-1] == max(samples)
    assert ticks.median.value == statistics.median_low(samples)
