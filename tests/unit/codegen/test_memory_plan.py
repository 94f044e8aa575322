"""What is shown of a memory plan agrees with the plan; the goals keep what they promise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console
from test_memory_patches import Chain

from edgeq import api, codegen
from edgeq.boards import load_board
from edgeq.graph import read, write_bytes
from edgeq.report.memory import memory_picture, memory_table

SVG = "{http://www.w3.org/2000/svg}"
MODELS = ("kws_ref_int8", "vww_96_int8", "ic_resnet8_int8", "ad01_int8")


def network(place: Path) -> Path:
    chain = Chain(24, 12, 2)
    for _ in range(3):
        chain.window("CONV_2D", (3, 3), 1, True, 8, 1)
    chain.window("CONV_2D", (3, 3), 2, True, 4, 1)
    path = place / "chain.tflite"
    path.write_bytes(write_bytes(chain.graph()))
    return path


def life(buffer: dict[str, Any], byte: int, step: int) -> tuple[int, int] | None:
    """First and last step of an arena's byte for a buffer, if a plan needs it during a step."""
    parts = buffer.get("parts") or [{**buffer, "start": 0, "end": buffer["bytes"]}]
    at = byte - buffer["offset"]
    ends = [(p["first"], p["last"]) for p in parts if p["start"] <= at < p["end"]]
    return next((end for end in ends if end[0] <= step <= end[1]), None)


@pytest.mark.parametrize("ram", [None, 2_400])
def test_bundle_shows_its_plan(tmp_path: Path, ram: int | None) -> None:
    made = api.bundle(network(tmp_path), "virtual-m4", tmp_path / "bundle", ram=ram)
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert ("patches" in manifest) == (ram is not None)
    assert manifest["arena_bytes"] <= (ram or 1 << 30)
    buffers = manifest["buffers"]
    demands = []
    for step in range(-1, len(manifest["layers"]) + 1):
        demand = 0
        for byte in range(manifest["arena_bytes"]):
            lives = {i: ends for i, b in enumerate(buffers) if (ends := life(b, byte, step)) is not None}
            demand += bool(lives)
            born = [i for i, (first, _) in lives.items() if first == step]
            died = [i for i, (_, last) in lives.items() if last == step and i not in born]
            assert len(lives) <= 1 or (len(born) == 1 and len(died) == len(lives) - 1)
        demands.append(demand)
    assert max(demands) <= manifest["arena_lower_bound_bytes"] <= manifest["arena_bytes"]
    root = ElementTree.fromstring((tmp_path / "bundle" / "memory.svg").read_text())
    titles = [box.find(f"{SVG}title") for box in root.iter(f"{SVG}rect")]
    assert sum(title is not None for title in titles) == sum(len(b.get("parts", [b])) for b in buffers)
    assert f"arena {manifest['arena_bytes']:,} bytes" in "".join(root.itertext())
    console = Console(width=200, record=True, quiet=True)
    console.print(memory_table(made.manifest))
    assert memory_table(made.manifest).row_count == len(buffers)


def test_names_are_escaped(tmp_path: Path) -> None:
    made = api.bundle(network(tmp_path), "virtual-m4", tmp_path / "bundle")
    buffers = [{**b, "name": "<b>&[red]", "tensors": ["<b>"]} for b in made.manifest["buffers"]]
    manifest = {**made.manifest, "buffers": buffers}
    ElementTree.fromstring(memory_picture(manifest))
    Console(quiet=True).print(memory_table(manifest))


@pytest.mark.parametrize("model", MODELS)
def test_goals_keep_their_promises(shared: Path, model: str) -> None:
    """speed is fastest; ram within 15 % of the least arena, flash within 6 % of the least flash that any goal has."""
    graph = read(shared / "models" / f"{model}.tflite")
    goals = {goal.optimize: goal for goal in codegen.goals(graph, load_board("qemu-mps2-an386"), "ram")}
    assert [name for name, goal in goals.items() if goal.chosen] == ["ram"]
    assert goals["speed"].instructions == min(goal.instructions for goal in goals.values())
    assert goals["ram"].arena_bytes <= 1.15 * min(goal.arena_bytes for goal in goals.values())
    assert goals["flash"].flash_bytes <= 1.06 * min(goal.flash_bytes for goal in goals.values())
