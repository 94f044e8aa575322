"""The table of layers: every one of a small model, those that take most of a large one."""

from __future__ import annotations

from io import StringIO
from types import SimpleNamespace

import pytest
from rich.console import Console

from edgeq.benchmark.result import LayerCost, Ticks
from edgeq.measure import Measured
from edgeq.report.device_text import _layers


def table(costs: list[int]) -> list[str]:
    layers = tuple(
        LayerCost(i, "ADD", None, "add_s8", None, Measured(cost, "cycles", "t")) for i, cost in enumerate(costs)
    )
    report = SimpleNamespace(layers=layers, ticks=Ticks((sum(costs),), "cycles", "t"))
    text = StringIO()
    _layers(Console(file=text, width=100), report)  # type: ignore[arg-type]
    return text.getvalue().splitlines()


@pytest.mark.parametrize("count", [1, 39, 40])
def test_a_small_model_is_shown_whole(count: int) -> None:
    assert len(table(list(range(count)))) == 1 + count


def test_of_a_large_model_the_costly_ones_in_order() -> None:
    costs = [1] * 300
    costs[7::10] = range(1000, 1030)
    costs[208:217] = range(500, 509)
    costs[0] = 2
    *rows, last = table(costs)[1:]
    assert [int(row.split()[0]) for row in rows] == sorted({0, *range(7, 300, 10), *range(208, 217)})
    assert "260 layers" in last
    assert "--json" in last
