"""A plan whose arena is at most so many bytes: whole where that fits, else with the first layers patch by patch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import get_args

from edgeq.boards.profile import Board
from edgeq.codegen import passes, patches
from edgeq.codegen.plan import Patches, Plan, plan
from edgeq.codegen.select import cost, flash_bytes
from edgeq.codegen.step import Memo, Optimize
from edgeq.errors import AnswerNo
from edgeq.graph.ir import Graph

TRIED = 10
"""Ways to cut that are planned in full, a second or so each for a model of sixty layers."""
_SMALLEST_TRIED = 3


@dataclass(frozen=True, slots=True, eq=False)
class _Way:
    """A way to cut, and what its arena takes at least."""

    patched: patches.Patched
    least_bytes: int


@dataclass(frozen=True, slots=True)
class Goal:
    """What `--optimize` with one goal costs: the arena computed, flash and instructions estimated."""

    optimize: Optimize
    arena_bytes: int
    flash_bytes: int
    instructions: int
    chosen: bool


def goals(graph: Graph, board: Board, chosen: Optimize) -> tuple[Goal, ...]:
    """All goals for a model and a board, layers whole."""
    prepared, memo = passes.run(graph), Memo()
    found = []
    for goal in get_args(Optimize):
        made = plan(graph, board, optimize=goal, prepared=prepared, memo=memo)
        found.append(Goal(goal, made.arena_bytes, flash_bytes(made.steps), round(cost(made.steps)), goal == chosen))
    return tuple(found)


def plan_within(
    graph: Graph, board: Board, ram_bytes: int, *, name: str | None = None, optimize: Optimize = "balanced"
) -> Plan:
    """The plan of fewest estimated instructions that was found with an arena of at most `ram_bytes`. Pure.

    Tried are: the goal asked for; the goal `ram`; the first layers in patches, those that repeat fewest multiplications
    first. AnswerNo `ram-too-small` says the smallest arena that was found.
    """
    prepared, memo = passes.run(graph), Memo()
    asked = plan(graph, board, name=name, optimize=optimize, prepared=prepared, memo=memo)
    if asked.arena_bytes <= ram_bytes:
        return replace(asked, ram_bytes=ram_bytes)
    planned = [asked]
    if optimize != "ram":
        planned.append(plan(graph, board, name=name, optimize="ram", prepared=prepared, memo=memo))
    goal: Optimize = "balanced" if optimize == "ram" else optimize

    def in_patches(way: _Way) -> Plan:
        patched = way.patched
        made = plan(graph, board, name=name, optimize=goal, prepared=patched.graph)
        operators = len(patched.stage.operators)
        work = patched.multiplications, patched.repeated
        return replace(made, patches=Patches(operators, patched.count, patched.rows, *work, asked.arena_bytes))

    ways = _worth_trying(_ways(prepared))
    promising = [way for way in ways if way.least_bytes <= ram_bytes] or ways
    for way in [*promising[:: -(-len(promising) // TRIED) or 1], *ways[-_SMALLEST_TRIED:]]:
        planned.append(in_patches(way))
        if planned[-1].arena_bytes <= ram_bytes:
            break
    fitting = [made for made in planned if made.arena_bytes <= ram_bytes]
    if fitting:
        return replace(min(fitting, key=lambda made: cost(made.steps)), ram_bytes=ram_bytes)
    least = min(planned, key=lambda made: made.arena_bytes)
    raise AnswerNo(
        "ram-too-small",
        f"The model's arena does not fit into {ram_bytes:,} bytes.",
        why=f"The smallest found takes {least.arena_bytes:,} bytes, with {_described(least)}; "
        f"inputs and outputs are part of it.",
        try_=(f"--ram {least.arena_bytes}", "Take smaller inputs or fewer channels in the first layers."),
    )


def _ways(graph: Graph) -> Iterator[_Way]:
    for stage in patches.stages(graph):
        for rows in patches.cuts(stage):
            if (patched := patches.cut(stage, rows)) is not None:
                yield _Way(patched, patches.least_bytes(patched.graph))


def _worth_trying(ways: Iterable[_Way]) -> list[_Way]:
    """Those of which no other repeats less and needs less; the fewest repetitions first, the smallest arena last."""
    kept: list[_Way] = []
    for way in sorted(ways, key=lambda way: (way.patched.repeated, way.least_bytes, way.patched.count)):
        if not kept or way.least_bytes < kept[-1].least_bytes:
            kept.append(way)
    return kept


def _described(made: Plan) -> str:
    if made.patches is None:
        return f"--optimize {made.optimize}"
    return f"{made.patches.operators} layers in {made.patches.count} patches"
