"""A search's result as files: JSON, and a page with the trade-off as a picture, without anything from elsewhere."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from edgeq.quantization.report import ConversionReport

WIDTH, HEIGHT, MARGIN = 720, 360, 56

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{ out }}: schemes by layer</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .2rem .7rem; text-align: right }
th:first-child, td:first-child, td.text { text-align: left } tr:nth-child(even) { background: #f4f4f4 }
tr.chosen { background: #d9f2dd } svg text { font: 12px system-ui, sans-serif } code { background: #f0f0f0 }
</style>
<h1>{{ out }}</h1>
<p>{{ search.trials | length }} mixtures of schemes were built and measured on {{ search.samples }} samples for the
board {{ search.board }}: {{ search.metric }} on TFLite's reference kernels; float has
{{ "%.2f" % (100 * search.float) }} %.
Flash and latency are the checker's estimates.</p>
<svg viewBox="0 0 {{ width }} {{ height }}" width="{{ width }}" height="{{ height }}" role="img"
 aria-label="points of {{ search.metric }} lost against cost">
<rect x="{{ m }}" y="{{ m / 2 }}" width="{{ width - 1.5 * m }}" height="{{ height - 1.5 * m }}"
 fill="none" stroke="#999"/>
{% for tick in x_ticks %}<line x1="{{ tick.at }}" x2="{{ tick.at }}" y1="{{ height - m }}" y2="{{ height - m + 5 }}"
 stroke="#999"/><text x="{{ tick.at }}" y="{{ height - m + 18 }}" text-anchor="middle">{{ tick.label }}</text>
{% endfor %}{% for tick in y_ticks %}<line x1="{{ m - 5 }}" x2="{{ m }}" y1="{{ tick.at }}" y2="{{ tick.at }}"
 stroke="#999"/><text x="{{ m - 8 }}" y="{{ tick.at + 4 }}" text-anchor="end">{{ tick.label }}</text>
{% endfor %}{% if limit %}<line x1="{{ m }}" x2="{{ width - m / 2 }}" y1="{{ limit }}" y2="{{ limit }}" stroke="#c33"
 stroke-dasharray="5 4"/>{% endif %}
<polyline points="{{ line }}" fill="none" stroke="#36c" stroke-width="2"/>
{% for p in points %}<circle cx="{{ p.x }}" cy="{{ p.y }}" r="{{ 7 if p.chosen else 4 }}"
 fill="{{ '#2a9d3a' if p.chosen else '#36c' if p.curve else '#bbb' }}"><title>{{ p.title }}</title></circle>
{% endfor %}<text x="{{ width / 2 }}" y="{{ height - 12 }}" text-anchor="middle">cost, relative to the least</text>
<text x="14" y="{{ height / 2 }}" text-anchor="middle" transform="rotate(-90 14 {{ height / 2 }})">points of
{{ search.metric }} lost</text>
</svg>
<h2>Trade-off</h2>
<p>Cost is flash times instructions, so that a percent of either weighs the same (flash alone where the board has no
plan), relative to the least.</p>
<table><tr><th>layers</th><th>cost</th><th>flash, bytes</th><th>RAM, bytes</th><th>latency, us</th>
<th>{{ search.metric }}</th><th>points lost</th></tr>
{% for t in curve %}<tr{% if t.chosen %} class="chosen"{% endif %}><td>{{ t.layers }}</td><td>{{ t.cost }}</td>
<td>{{ t.flash }}</td><td>{{ t.ram }}</td><td>{{ t.latency }}</td><td>{{ t.accuracy }}</td>
<td>{{ "%.2f" % t.drop }}</td></tr>
{% endfor %}</table>
<h2>Layers</h2>
<p>Sensitivity: the error at the model's output, in units of its deviation, that the layer alone causes, all others in
float.</p>
<table><tr><th>layer</th>{% for s in schemes %}<th>{{ s }}</th>{% endfor %}<th>chosen</th></tr>
{% for u in search.units %}<tr><td>{{ u.name }}</td>{% for s in schemes %}<td>{% if s in u.sensitivity
%}{{ "%.4f" % u.sensitivity[s] }}{% endif %}</td>{% endfor %}<td class="text">{{ u.scheme }}</td></tr>
{% endfor %}</table>
{% if search.excluded %}<h2>Left out</h2><ul>
{% for s, why in search.excluded.items() %}<li>{{ s }}: {{ why }}</li>{% endfor %}</ul>{% endif %}
<h2>The chosen schemes as options</h2>
<p>Ranges and rounding are then chosen anew.</p>
<p><code>--scheme {{ search.scheme }}{% for p, s in search.layers.items() %} --layer '{{ p }}={{ s }}'{% endfor
%}</code></p>
</html>
"""


def search_paths(out: Path) -> tuple[Path, Path]:
    """`kws.search.json` and `kws.search.html` for `kws.tflite`."""
    stem = out.stem if out.suffix == ".tflite" else out.name
    return out.with_name(f"{stem}.search.json"), out.with_name(f"{stem}.search.html")


def search_files(report: ConversionReport, out: Path) -> dict[Path, bytes]:
    """The content of both files. The report must be one of a search."""
    assert report.search is not None
    document = {"schema": "edgeq.search/1", "out": report.out, "sha256": report.sha256, **report.search}
    table, page = search_paths(out)
    return {table: json.dumps(document, indent=1).encode() + b"\n", page: _page(report.search, out.name).encode()}


def _page(search: Mapping[str, Any], out: str) -> str:
    trials = [t for t in search["trials"] if t["runs"] and t["drop_points"] is not None]
    costs, drops = [math.log2(t["cost"]) for t in trials], [t["drop_points"] for t in trials]
    across = _Axis(min(costs), max(costs), MARGIN, WIDTH - MARGIN / 2)
    limit = search["goal"]["max_drop"]
    up = _Axis(min(0.0, *drops), max(*drops, limit or 0.0, 0.1), HEIGHT - MARGIN, MARGIN / 2)
    points = [
        {
            "x": across(math.log2(t["cost"])),
            "y": up(t["drop_points"]),
            "chosen": t["chosen"],
            "curve": t["on_curve"],
            "title": f"{_layers(t['schemes'])}: {_number(t['flash'])} bytes, {t['drop_points']:.2f} points lost",
        }
        for t in trials
    ]
    curve = shown_trials(search)
    rows = [
        {
            "layers": _layers(t["schemes"]),
            "cost": f"{t['cost']:.2f}",
            "flash": _number(t["flash"]),
            "ram": _number(t["ram"]),
            "latency": _number(t["latency"]),
            "accuracy": f"{100 * t['accuracy']['value']:.2f} %",
            "drop": t["drop_points"],
            "chosen": t["chosen"],
        }
        for t in curve
    ]
    # Autoescape: names of layers come from the user's model.
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(_PAGE)
    return template.render(
        out=out,
        search=search,
        width=WIDTH,
        height=HEIGHT,
        m=MARGIN,
        points=sorted(points, key=lambda p: (p["curve"], p["chosen"])),
        line=" ".join(f"{across(math.log2(t['cost']))},{up(t['drop_points'])}" for t in curve if t["on_curve"]),
        limit=None if limit is None else up(limit),
        x_ticks=across.ticks(lambda doublings: f"{2**doublings:.2f}"),
        y_ticks=up.ticks(lambda points: f"{points:.2f}"),
        curve=rows,
        schemes=sorted({s for u in search["units"] for s in u["sensitivity"]}),
    )


def shown_trials(search: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The trials for a table: the curve, what was chosen, and each scheme throughout; the cheapest first."""
    told = [t for t in search["trials"] if t["runs"] and (t["on_curve"] or t["chosen"] or t["uniform"])]
    return sorted(told, key=lambda t: float(t["cost"]))


class _Axis:
    """Values to pixels."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        room = (high - low or abs(high) or 1.0) * 0.05
        self._low, self._high, self._start, self._end = low - room, high + room, start, end

    def __call__(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low)
        return round(self._start + share * (self._end - self._start), 1)

    def ticks(self, label: Callable[[float], str]) -> list[dict[str, Any]]:
        """Five labels, evenly spread."""
        values = [self._low + (self._high - self._low) * (i + 0.5) / 5 for i in range(5)]
        return [{"at": self(value), "label": label(value)} for value in values]


def _layers(schemes: Sequence[str]) -> str:
    return ", ".join(f"{schemes.count(s)} {s}" for s in sorted(set(schemes)))


def _number(quantity: Mapping[str, Any]) -> str:
    return "unknown" if quantity["kind"] == "unknown" else f"{quantity['value']:,.0f}"
