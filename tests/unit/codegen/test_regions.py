"""An arena in several regions of RAM: sound plans, the same bytes, writes only inside, refusals."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from bundles import HOST, WARNINGS, HostModel
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from single import values
from test_memory_patches import Chain, assert_plan_is_sound, assert_same_as_wheel, draw_chain
from test_operators import few
from test_recurrent import counter

from edgeq import codegen
from edgeq.boards import load_board
from edgeq.boards.profile import Board, Memory
from edgeq.checks import check
from edgeq.codegen import passes, patches
from edgeq.codegen.memory import ALIGN, Buffer, Rule, plan_regions
from edgeq.codegen.plan import Plan
from edgeq.codegen.regions import agent_ram_bytes
from edgeq.graph import Graph, read
from edgeq.measure import Computed
from edgeq.report.memory import memory_picture, memory_table, regions_text


def with_ram(board: Board, rooms: Sequence[int], made: Plan, speeds: Sequence[str] = ()) -> Board:
    """The board with regions of RAM, 16 MiB apart, that leave so many bytes to the arena of a plan."""
    others = tuple(region for region in board.memory if region.kind != "ram")
    taken = 0
    for _ in range(3):
        regions = [
            Memory(
                name=f"ram{i}",
                kind="ram",
                start=0x20000000 + 0x1000000 * i,
                size_bytes=room + (0 if i else taken),
                speed=speeds[i] if speeds else "fast",
                source="a test",
            )
            for i, room in enumerate(rooms)
        ]
        found = board.model_copy(update={"memory": (*others, *regions)})
        taken = found.stack_bytes + agent_ram_bytes(found, len(made.steps))
    return found


def split(graph: Graph, share: float, *, prepared: Graph | None = None) -> Plan:
    """The graph's plan in two regions, each of which has this share of the arena."""
    made = codegen.plan(graph, HOST, name="model", prepared=prepared)
    room = int(made.arena_bytes * share) // ALIGN * ALIGN
    return codegen.spread(made, with_ram(HOST, [room, room], made))


@few
@given(st.data())
def test_planned_regions(data: Any) -> None:
    """In any region no two buffers that live at once share bytes that no rule allows; no region is too full."""
    steps = data.draw(st.integers(1, 9))
    buffers, rules = [], []
    for step in range(-1, steps):
        keep = data.draw(st.integers(0, 3))
        buffers.append(Buffer(f"t{step}", data.draw(st.integers(1, 900)), step, min(steps, step + 1 + keep)))
    for i in range(steps):
        if buffers[i].last == buffers[i + 1].first and data.draw(st.booleans()):
            rules.append(Rule(i, i + 1, data.draw(st.integers(-200, 400))))
    capacities = data.draw(st.lists(st.integers(1, 120).map(lambda n: n * ALIGN), min_size=1, max_size=4))
    accesses = [data.draw(st.integers(0, 100_000)) for _ in buffers]
    planned = plan_regions(buffers, rules, accesses, capacities)
    if planned is None:
        assert all(sum(-(-b.size_bytes // ALIGN) * ALIGN for b in buffers) > capacity for capacity in capacities)
        return
    regions, arenas = planned
    within = [iter(arena.offsets) for arena in arenas]
    offsets = [next(within[region]) for region in regions]
    allowed = {(r.input, r.output): r.before_bytes for r in rules}
    for arena, capacity in zip(arenas, capacities, strict=True):
        assert arena.lower_bound_bytes <= arena.size_bytes <= capacity
    for i, a in enumerate(buffers):
        assert offsets[i] % ALIGN == 0
        assert offsets[i] + a.size_bytes <= arenas[regions[i]].size_bytes
        for j, b in enumerate(buffers[:i]):
            if regions[i] != regions[j] or a.first > b.last or b.first > a.last:
                continue
            at, there = offsets[i], offsets[j]
            apart = at + a.size_bytes <= there or there + b.size_bytes <= at
            assert apart or ((j, i) in allowed and at <= there - allowed[j, i])


@few
@given(st.data())
def test_what_fits_one_region_is_planned(data: Any) -> None:
    """Buffers that live at once fit wherever their sum does, and the most accessed lies in the fastest region."""
    sizes = data.draw(st.lists(st.integers(1, 50).map(lambda n: n * ALIGN), min_size=2, max_size=8))
    buffers = [Buffer(f"b{i}", size, 0, 1) for i, size in enumerate(sizes)]
    hot = data.draw(st.integers(0, len(sizes) - 1))
    accesses = [size * (100 if i == hot else 1) for i, size in enumerate(sizes)]
    planned = plan_regions(buffers, [], accesses, [sizes[hot], sum(sizes)])
    assert planned is not None
    regions, arenas = planned
    assert regions[hot] == 0
    assert sum(arena.size_bytes for arena in arenas) == sum(sizes)


@few
@given(st.data())
def test_chains_in_two_regions_equal_the_wheel(data: Any) -> None:
    """Layers whole, or the first of them in patches."""
    graph = draw_chain(data)
    if not graph.operators:
        return
    prepared = passes.run(graph)
    stages = list(patches.stages(prepared)) if data.draw(st.booleans()) else []
    if stages:
        stage = data.draw(st.sampled_from(stages))
        patched = patches.cut(stage, data.draw(st.integers(1, stage.rows)))
        prepared = patched.graph if patched is not None else prepared
    made = split(graph, data.draw(st.sampled_from([0.7, 0.9, 0.999])), prepared=prepared)
    assert_plan_is_sound(made)
    assert_same_as_wheel(made, graph, (1, 2, 3))


@pytest.mark.parametrize(("name", "share"), [("kws_ref_int8", 0.8), ("ic_resnet8_int8", 0.6), ("ad01_int8", 0.9)])
def test_published_models_in_two_regions(shared: Path, name: str, share: float) -> None:
    """Too large for either region, not for both: the same bytes, writes only inside of both arenas."""
    graph = read(shared / "models" / f"{name}.tflite")
    whole = codegen.plan(graph, HOST, name="model")
    made = split(graph, share)
    assert len(made.regions) == 2
    assert all(region.lower_bound_bytes <= region.size_bytes <= share * whole.arena_bytes for region in made.regions)
    assert sum(region.size_bytes for region in made.regions) == made.arena_bytes
    assert_same_as_wheel(made, graph, (0, 1, 2))


def small() -> Graph:
    chain = Chain(24, 12, 2)
    for _ in range(3):
        chain.window("CONV_2D", (3, 3), 1, True, 8, 1)
    chain.window("CONV_2D", (3, 3), 2, True, 4, 1)
    return chain.graph()


def test_the_regions_that_are_taken() -> None:
    """As few as have room, slow ones last, the arena whole where it can be, the fastest region filled first."""
    graph = small()
    made = codegen.plan(graph, HOST, name="model")
    size = made.arena_bytes

    def names(rooms: Sequence[int], *speeds: str) -> list[str]:
        return [region.name for region in codegen.spread(made, with_ram(HOST, rooms, made, speeds)).regions]

    assert codegen.spread(made, with_ram(HOST, [size, 2 * size], made)) is made
    assert codegen.spread(made, HOST) is made
    assert codegen.spread(made, with_ram(HOST, [size - ALIGN], made)) is made
    assert codegen.spread(made, with_ram(HOST, [64, 64, 64], made)) is made
    assert names([size - ALIGN, size]) == ["ram1"]
    assert names([size - ALIGN, 2 * size, size], "fast", "slow", "fast") == ["ram2"]
    assert names([size - ALIGN, 2 * size], "fast", "slow") == ["ram0", "ram1"]
    assert names([size - ALIGN, size - ALIGN], "fast", "tightly-coupled") == ["ram1", "ram0"]
    assert names([size - ALIGN, 2 * size, size - ALIGN], "fast", "slow", "fast") == ["ram0", "ram2"]


def test_one_arena_in_another_region_is_the_same_c() -> None:
    made = codegen.plan(small(), HOST, name="model")
    moved = codegen.spread(made, with_ram(HOST, [64, made.arena_bytes], made))
    assert [region.name for region in moved.regions] == ["ram1"]
    here, there = codegen.emit(made), codegen.emit(moved)
    assert {**here.files, "manifest.json": b""} == {**there.files, "manifest.json": b""}
    assert "regions" not in here.manifest
    assert there.manifest["regions"][0]["bytes"] == made.arena_bytes == there.manifest["arena_bytes"]


def test_refuses_bad_arenas(tmp_path: Path) -> None:
    made = split(small(), 0.9)
    ours = HostModel(codegen.emit(made), made.source, tmp_path)
    first, second = ours.arenas
    invoke = ours.library.model_invoke

    def given_(*arenas: int | None) -> ctypes.Array[Any]:
        return (ctypes.c_void_p * 2)(*arenas)

    assert invoke(given_(first, second)) == 0
    assert invoke(None) == invoke(given_(None, second)) == invoke(given_(first, None)) == -1
    assert invoke(given_(first + 8, second)) == invoke(given_(first, second + 8)) == -2
    assert ours.library.model_input(given_(first, None), 0) is None
    assert ours.library.model_output(None, 0) is None
    assert ours.library.model_input(ours.arena, 1) is None
    assert ours.library.model_output(ours.arena, -1) is None


def test_state_lies_in_either_region(tmp_path: Path) -> None:
    """Two instances of a model with state, each with arenas of its own, in turns with one in a single arena."""
    graph = counter([-7, 20, 100])
    whole = codegen.plan(graph, HOST, name="model")
    for order in (0, 1):
        made = codegen.spread(whole, with_ram(HOST, [whole.arena_bytes - ALIGN, ALIGN][:: 1 - 2 * order], whole))
        assert len(made.regions) == 2
        ours = HostModel(codegen.emit(made), graph, tmp_path / f"split{order}")
        instances = [ours, ours.another()]
        single = [HostModel(codegen.emit(whole), graph, tmp_path / f"whole{order}{i}") for i in range(2)]
        for turn in range(3):
            for one, other in zip(instances, single, strict=True):
                given_ = values(graph, turn)
                for mine, theirs in zip(one.run(given_), other.run(given_), strict=True):
                    np.testing.assert_array_equal(mine, theirs)


def test_compiles_as_c_and_cpp_without_a_warning(tmp_path: Path) -> None:
    made = split(small(), 0.9)
    codegen.write_bundle(codegen.emit(made), tmp_path / "bundle")
    main = tmp_path / "main.cpp"
    main.write_text(
        '#include "model.h"\nalignas(16) static uint8_t a[MODEL_ARENA_0_BYTES], b[MODEL_ARENA_1_BYTES];\n'
        "static void *const arenas[MODEL_ARENAS] = {a, b};\nint main() { return model_invoke(arenas); }\n"
    )
    include = f"-I{tmp_path / 'bundle' / 'include'}"
    sources = sorted((tmp_path / "bundle" / "src").glob("*.c"))
    for cc in (cc for cc in ("gcc", "clang") if shutil.which(cc)):
        subprocess.run([cc, "-std=c99", *WARNINGS, include, "-fsyntax-only", *sources], check=True)
    subprocess.run(["gcc", "-std=c99", include, "-c", *sources], check=True, cwd=tmp_path)
    objects = sorted(tmp_path.glob("*.o"))
    subprocess.run(["g++", "-Wall", "-Wextra", "-Werror", include, main, *objects, "-o", tmp_path / "main"], check=True)
    assert subprocess.run([tmp_path / "main"], check=False).returncode == 0


def test_check_and_bundle_tell_the_regions(tmp_path: Path) -> None:
    """What check counts is what bundle takes, by region; the picture has a lane and the table a column for each."""
    graph = small()
    whole = codegen.plan(graph, load_board("virtual-m4"), name="model")
    board = with_ram(load_board("virtual-m4"), [whole.arena_bytes - 16, whole.arena_bytes // 2], whole)
    report = check(graph, board)
    assert report.fits
    made = codegen.spread(codegen.plan(graph, board, name="model"), board)
    use = report.use("ram")
    assert use is not None
    for region in made.regions:
        part = use.parts[f"arena in {region.name}"]
        assert isinstance(part, Computed)
        assert part.value == region.size_bytes
    assert use.available_bytes == sum(region.usable_bytes for region in board.regions("ram"))
    manifest = codegen.emit(made).manifest
    assert [region["bytes"] for region in manifest["regions"]] == [region.size_bytes for region in made.regions]
    picture = ElementTree.fromstring(memory_picture(manifest))
    words = "".join(picture.itertext())
    console = Console(width=200, file=StringIO())
    console.print(memory_table(manifest))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for region in made.regions:
        assert region.name in words
        assert region.name in shown
        assert f"{region.size_bytes:,} bytes in {region.name}" in regions_text(manifest)
    small_board = with_ram(load_board("virtual-m4"), [64, 64], whole)
    assert "ram-too-small" in {finding.rule for finding in check(graph, small_board).findings}


def test_the_limit_of_ram_holds_for_all_regions() -> None:
    graph = small()
    whole = codegen.plan(graph, HOST, name="model")
    board = with_ram(HOST, [whole.arena_bytes - ALIGN] * 2, whole)
    total = codegen.spread(whole, board).arena_bytes
    assert total > whole.arena_bytes
    for limit, regions in ((total, 2), (total - ALIGN, 0)):
        made = codegen.spread(codegen.plan_within(graph, HOST, limit, name="model"), board)
        assert len(made.regions) == regions
        assert made.arena_bytes <= limit
        assert codegen.emit(made).manifest["options"] == {"optimize": "balanced", "ram": limit}


def test_a_float_model_on_a_board_whose_regions_are_each_too_small(shared: Path, tmp_path: Path) -> None:
    """ResNet-8 in float32 needs 133 KB; an STM32F407 has 128 KiB of SRAM and 64 KiB of CCM: the same bytes, in both."""
    graph, board = read(next((shared / "models").rglob("ic_resnet8_float.tflite"))), load_board("stm32f4-discovery")
    whole = codegen.plan(graph, board, name="model")
    assert whole.arena_bytes > max(region.usable_bytes for region in board.regions("ram"))
    assert check(graph, board).fits
    made = codegen.spread(whole, board)
    assert {region.name for region in made.regions} == {"sram", "ccm"}
    one = HostModel(codegen.emit(whole), graph, tmp_path / "whole")
    two = HostModel(codegen.emit(made), graph, tmp_path / "split")
    for kind in (1, 2):
        given_ = values(graph, kind)
        np.testing.assert_array_equal(one.run(given_)[0], two.run(given_)[0])
