"""Results that are kept, and what changed between two of them.

Kept as `.edgeq/results/<name>.json` in the working directory; a kept file holds what `edgeq bench --json` prints.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.errors import InputError, OutputError, UsageError
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
        """Whether it became worse by more than `share` (0.02: two percent): accuracy is better high, all else low.

        A number that the second result lacks is worse; from 0 on anything more is.
        """
        if self.before is None:
            return False
        if self.after is None:
            return True
        if self.unit == "fraction":
            return self.after < self.before * (1 - share)
        return self.after > self.before * (1 + share)

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
    """What changed from one result to another; `notes` name what the numbers do not say.

    same_board: whether the costs mean the same. outputs_broke: the second result's outputs differ from its reference's,
    the first one's did not.
    """

    before: str
    after: str
    changes: tuple[Change, ...]
    notes: tuple[str, ...]
    same_board: bool = True
    outputs_broke: bool = False

    def worse_by(self, share: float) -> tuple[str, ...]:
        """What is worse by more than `share` (0.02: two percent). InputError `results-incomparable` across boards."""
        if not self.same_board:
            raise InputError(
                "results-incomparable",
                "Results of different boards cannot be held against a gate.",
                where=f"{self.before}, {self.after}",
                why=self.notes[0],
                try_="Leave --gate out, or measure both on the same board.",
            )
        outputs = ("outputs",) if self.outputs_broke else ()
        return (*outputs, *(change.what for change in self.changes if change.worse_by(share)))

    def to_json(self) -> dict[str, object]:
        return {
            "before": self.before,
            "after": self.after,
            "changes": [change.to_json() for change in self.changes],
            "notes": list(self.notes),
        }


def kept(name: str) -> Path:
    """The place of the result called `name`; a path to a .json file is taken as it is.

    UsageError `result-name` for a name that is none, such as one with a directory in it.
    """
    if name.endswith(".json") and name != ".json":
        return Path(name)
    if not name or name.startswith(".") or any(sign in name for sign in "/\\:\0"):
        raise UsageError(
            "result-name",
            f"{name!r} is no name for a result.",
            try_="Use letters, digits, - and _, or a path that ends in .json.",
        )
    return RESULTS / f"{name}.json"


def room_for(path: Path) -> Path:
    """`path`, once it is known that a result can be kept there: before the measurement, not behind it.

    OutputError `result-not-writable`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent) as trial:
            trial.write(b"0" * 4096)
            trial.flush()
            os.fsync(trial.fileno())
    except OSError as error:
        raise OutputError(
            "result-not-writable",
            f"A result cannot be kept in {path.parent}; nothing was measured.",
            where=str(path),
            why=error.strerror or str(error),
            try_=("Choose another place: --keep PATH.json", "Make room, or give yourself the right to write there."),
        ) from error
    return path


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
        f"{words}: {old_value} and {new_value}."
        for words, old_value, new_value in (
            ("They ran on different boards", old.get("board"), new.get("board")),
            ("They ran different models", _digest(old), _digest(new)),
            ("They were built by different compilers", _at(old, "image", "compiler"), _at(new, "image", "compiler")),
            ("They were built with different flags", *_apart(_at(old, "image", "flags"), _at(new, "image", "flags"))),
            ("The core's clock was different", _at(old, "hello", "core_hz"), _at(new, "hello", "core_hz")),
            ("They had different data", old.get("data"), new.get("data")),
        )
        if old_value != new_value
    ]
    return ChangeReport(
        str(before),
        str(after),
        tuple(changes),
        tuple(notes),
        same_board=old.get("board") == new.get("board"),
        outputs_broke=old.get("ok") is True and new.get("ok") is False,
    )


def _at(document: Mapping[str, Any], *place: str) -> Any:
    found: Any = document
    for name in place:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _apart(before: Any, after: Any) -> tuple[str, str]:
    """The flags that only one side has."""
    sides = [[str(flag) for flag in side] if isinstance(side, list) else [] for side in (before, after)]
    return (
        " ".join(flag for flag in sides[0] if flag not in sides[1]) or "none",
        " ".join(flag for flag in sides[1] if flag not in sides[0]) or "none",
    )


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
            try_=("Keep one with: edgeq bench --keep NAME", *_names_kept()),
        ) from error
    except (ValueError, RecursionError) as error:
        raise _invalid(path, str(error)) from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise _invalid(path, f"Its schema is not {SCHEMA}.")
    return document


def _names_kept() -> tuple[str, ...]:
    names = sorted(path.stem for path in RESULTS.glob("*.json"))
    return (f"Kept here: {', '.join(names)}",) if names else ()


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
    found = _at(document, *place)
    value = found.get("value") if isinstance(found, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value), str(found.get("unit", ""))


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


def _digest(document: Mapping[str, Any]) -> str:
    return str(_at(document, "hello", "model_sha256"))[:12]
