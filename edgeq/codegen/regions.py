"""Plan x Board -> the same plan, its arena where the board has room for it: another region of RAM, or several.

A plan is made for one arena in the first region of RAM. Where the region has no room for it beside the agent, the arena
goes whole to another region that is not slow, and is the same C; else the buffers are dealt out to as few regions as
hold them, slow ones last, what is accessed most to the fastest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, combinations

from edgeq.boards.profile import Board, Memory
from edgeq.codegen.buffers import Places, place_in_regions
from edgeq.codegen.memory import ALIGN, Arena
from edgeq.codegen.plan import Plan, Region

AGENT_RAM_BYTES = 1_120
"""The agent's variables without its frame buffers."""
_USB_RAM_BYTES = 2_464
"""Rings and packets of a serial port over USB, linked by zig; 2,448 by gcc."""
STEP_RAM_BYTES = 8
"""The agent's tick counter of each step."""

_ANY = 1 << 40
"""Bytes: more than any memory."""

_SPEEDS = ("tightly-coupled", "fast", "slow")


def agent_ram_bytes(board: Board, steps: int) -> int:
    """RAM of the agent beside a model of so many steps, its stack excluded."""
    line = _USB_RAM_BYTES if board.firmware is not None and board.firmware.serial == "usb" else 0
    return AGENT_RAM_BYTES + line + board.payload_bytes + STEP_RAM_BYTES * steps


def spread(plan: Plan, board: Board) -> Plan:
    """The plan with `regions`, where the arena does not fit into the board's first region of RAM beside the agent.

    Unchanged where it does, where the board has one region, and where all regions together are too small, or would take
    more than the limit that was asked for.
    """
    rooms = _rooms(plan, board)
    if len(rooms) < 2 or plan.arena_bytes <= rooms[0][1]:
        return plan
    fast = [(region, room) for region, room in rooms if region.speed != "slow"]
    for region, room in fast:
        if plan.arena_bytes <= room:
            bound = plan.arena.lower_bound_bytes
            return replace(plan, regions=(Region(region.name, 0, plan.arena_bytes, bound),))
    for chosen in _choices(rooms):
        capacities = [room for _, room in chosen]
        if sum(capacities) >= plan.arena.lower_bound_bytes:
            found = place_in_regions(plan.graph, plan.steps, capacities)
            if found is not None and sum(arena.size_bytes for arena in found[0]) <= (plan.ram_bytes or _ANY):
                return _with(plan, [region for region, _ in chosen], *found)
    return plan


_Room = tuple[Memory, int]
"""A region, and the bytes of it that an arena may take."""


def _rooms(plan: Plan, board: Board) -> list[_Room]:
    """The regions of RAM in the file's order; stack and agent lie in the first."""
    taken = board.stack_bytes + agent_ram_bytes(board, len(plan.steps))
    rooms = []
    for position, region in enumerate(board.regions("ram")):
        room = max(0, region.usable_bytes - (taken if position == 0 else 0))
        rooms.append((region, room // ALIGN * ALIGN))
    return rooms


def _choices(rooms: Sequence[_Room]) -> Iterator[tuple[_Room, ...]]:
    """Two regions or more, each time the fastest first: those with the fewest slow ones, then the fewest, first."""
    ranked = sorted((room for room in rooms if room[1]), key=lambda room: _SPEEDS.index(room[0].speed))
    choices = [chosen for count in range(2, len(ranked) + 1) for chosen in combinations(ranked, count)]
    yield from sorted(choices, key=lambda chosen: sum(region.speed == "slow" for region, _ in chosen))


def _with(plan: Plan, regions: Sequence[Memory], arenas: Sequence[Arena], places: Places) -> Plan:
    sizes = [arena.size_bytes for arena in arenas]
    starts = [0, *accumulate(sizes)]
    placed, addresses, scratch = places
    offsets = tuple(buffer.offset for buffer in placed)
    bounds = [arena.lower_bound_bytes for arena in arenas]
    return replace(
        plan,
        arena=Arena(offsets, sum(sizes), sum(bounds), "in regions"),
        buffers=placed,
        addresses=addresses,
        scratch=scratch,
        regions=tuple(
            Region(region.name, start, size, bound)
            for region, start, size, bound in zip(regions, starts, sizes, bounds, strict=False)
            if size
        ),
    )
