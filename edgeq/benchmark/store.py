"""Results that are kept, and what changed between two of them.

Kept as `.edgeq/results/<name>.json` in the working directory; a kept file holds what `edgeq bench --json` prints.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.errors import InputError
from edgeq.files import write_file

RESULTS = Path(".edgeq") / "results"
SCHEMA = "edgeq.bench/1"
_MAX_BYTES = 64 << 20
_COMPARED = (
    ("cost", ("ticks", "median")),
    ("flash", ("image", "flash_bytes")),
    ("RAM", ("image", "ram_bytes")),
    ("arena used", ("memory", "arena_used")),
    ("energy of a run", ("energy", "per_run")),
    ("stack by the model", ("memory", "stack_used_by_run")),
    ("accuracy", ("accuracy", "board")),
)


@dataclass(frozen=True, slots=True)
class Change:
    """One number before and after; None where a side has none."""

    what: str
    unit: str
    before: float | None
    after: float | None

    @property
    def ratio(self) -> float | None:
        """after / before; None where that means nothing."""
        return None if not self.before or self.after is None else self.after / self.before

    def worse_by(self, share: float) -> bool:
        """Whether it became worse by more than `share` (0.02: two percent): accuracy is better high, all else low."""
        if self.ratio is None:
            return False
        return self.ratio < 1 - share if self.unit == "fraction" else self.ratio > 1 + share

    def to_json(self) -> dict[str, object]:
        return {
            "what": self.what,
            "unit": self.unit,
            "before": self.before,
            "after": self.after,
            "ratio": self.ratio,
        }


@dataclass(frozen=True, slots=True)
class ChangeReport:
    """What changed from one result to another; `notes` name what makes them incomparable."""

    before: str
    after: str
    changes: tuple[Change, ...]
    notes: tuple[str, ...]

    def worse_by(self, share: float) -> tuple[Change, ...]:
        """The changes for the worse by more than `share` (0.02: two percent)."""
        return tuple(change for change in self.changes if change.worse_by(share))

    def to_json(self) -> dict[str, object]:
        return {
            "before": self.before,
            "after": self.after,
            "changes": [change.to_json() for change in self.changes],
            "notes": list(self.notes),
        }


def kept(name: str) -> Path:
    """The place of the result called `name`; a path to a .json file is taken as it is."""
    return Path(name) if name.endswith(".json") else RESULTS / f"{name}.json"


def keep(document: Mapping[str, object], path: Path) -> None:
    """Write a result (BenchReport.to_json()) to `path`, whole or not at all."""
    write_file(path, (json.dumps({"schema": SCHEMA, **document}, indent=1) + "\n").encode())


def compare(before: Path, after: Path) -> ChangeReport:
    """What changed. InputError `result-missing`, `result-invalid`."""
    old, new = _load(before), _load(after)
    changes = []
    for what, place in _COMPARED:
        change = _change(what, _quantity(old, place), _quantity(new, place))
        if change is not None:
            changes.append(change)
    changes += _layer_changes(old, new)
    notes = [
        f"They ran on different {what}: {old_value} and {new_value}."
        for what, old_value, new_value in (
            ("boards", old.get("board"), new.get("board")),
            ("models", _digest(old), _digest(new)),
        )
        if old_value != new_value
    ]
    return ChangeReport(str(before), str(after), tuple(changes), tuple(notes))


def _load(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError("too large")
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(
            "result-missing",
            f"There is no result {path}.",
            why=error.strerror,
            try_="Keep one with: edgeq bench --keep",
        ) from error
    except (ValueError, RecursionError) as error:
        raise _invalid(path, str(error)) from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise _invalid(path, f"Its schema is not {SCHEMA}.")
    return document


def _invalid(path: Path, why: str) -> InputError:
    return InputError(
        "result-invalid",
        f"{path} is not a result of edgeq bench.",
        where=str(path),
        why=why,
        try_="Keep one with: edgeq bench --keep NAME",
    )


def _quantity(document: Mapping[str, Any], place: tuple[str, ...]) -> tuple[float, str] | None:
    """Value and unit of the quantity at `place`, or None if there is none."""
    found: Any = document
    for name in place:
        found = found.get(name) if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping) or not isinstance(found.get("value"), (int, float)):
        return None
    return float(found["value"]), str(found.get("unit", ""))


def _change(what: str, before: tuple[float, str] | None, after: tuple[float, str] | None) -> Change | None:
    known = before or after
    if known is None or (before and after and before[1] != after[1]):
        return None
    return Change(what, known[1], before[0] if before else None, after[0] if after else None)


def _layer_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """The layers that compute the same tensor on both sides and whose cost differs."""
    before, after = _layers(old), _layers(new)
    changes = []
    for output in before.keys() & after.keys():
        (index, name, cost), (_, _, new_cost) = before[output], after[output]
        if cost[1] == new_cost[1] and cost[0] != new_cost[0]:
            changes.append((index, Change(f"layer {index} {name}", cost[1], cost[0], new_cost[0])))
    return [change for _, change in sorted(changes, key=lambda entry: entry[0])]


def _layers(document: Mapping[str, Any]) -> dict[str, tuple[int, str, tuple[float, str]]]:
    found = {}
    layers = document.get("layers")
    for layer in layers if isinstance(layers, list) else []:
        cost = _quantity(layer, ("cost",)) if isinstance(layer, Mapping) else None
        if cost is not None and isinstance(layer.get("output"), str) and isinstance(layer.get("index"), int):
            found[layer["output"]] = (layer["index"], str(layer.get("name", "")), cost)
    return found


def _digest(document: Mapping[str, Any]) -> object:
    hello = document.get("hello")
    return hello.get("model_sha256") if isinstance(hello, Mapping) else None
