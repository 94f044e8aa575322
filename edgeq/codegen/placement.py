"""Exact placement of buffers in the arena by branch and bound, for what the greedy orders of `memory.py` leave open.

Every conflict between two buffers is one choice: the one below the other, or overlapping as a rule allows. All of
these are differences between offsets (b >= a + c), so choices made so far have a least solution, and the search goes
on only where that solution still violates a conflict. A window [low, high] of offsets per buffer decides most choices
without branching. The number of nodes is limited, not the time: the same problem gives the same plan everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_Edge = tuple[int, int, int]
"""(a, b, c): offset of b >= offset of a + c."""

_Choice = tuple[_Edge, ...]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two buffers that live at once, and the ways in which both can be placed; one of them must hold."""

    first: int
    second: int
    choices: tuple[_Choice, ...]


def _holds(choice: _Choice, offsets: Sequence[int]) -> bool:
    return all(offsets[b] >= offsets[a] + c for a, b, c in choice)


def _open(choices: tuple[_Choice, ...], low: list[int], high: list[int]) -> tuple[_Choice, ...] | None:
    """The choices that the windows still allow; None where one of them holds wherever the buffers lie in theirs."""
    possible = []
    for choice in choices:
        holds = allowed = True
        for a, b, c in choice:
            if high[a] + c > low[b]:
                holds = False
                if low[a] + c > high[b]:
                    allowed = False
                    break
        if holds:
            return None
        if allowed:
            possible.append(choice)
    return tuple(possible)


class Search:
    """Placements lower than a limit. `exhausted` says whether the last `below` has seen all of them."""

    def __init__(self, sizes: Sequence[int], conflicts: Sequence[Conflict], nodes: int) -> None:
        self._sizes = sizes
        self._conflicts = sorted(conflicts, key=lambda c: -min(sizes[c.first], sizes[c.second]))
        self._after: list[list[tuple[int, int]]] = [[] for _ in sizes]
        self._before: list[list[tuple[int, int]]] = [[] for _ in sizes]
        self._nodes = nodes
        self.exhausted = False

    def below(self, limit: int) -> list[int] | None:
        """Offsets with a top of at most `limit` bytes, or None where there are none or the nodes are used up."""
        low = [0] * len(self._sizes)
        high = [limit - size for size in self._sizes]
        self.exhausted = False
        found = self._descend(low, high, self._conflicts) if min(high, default=0) >= 0 else None
        self.exhausted = found is None and self._nodes > 0
        return found

    def _push(self, edges: _Choice, low: list[int], high: list[int]) -> bool:
        """Add edges and narrow the windows; False if one becomes empty."""
        for a, b, c in edges:
            self._after[a].append((b, c))
            self._before[b].append((a, c))
        raised, lowered = [a for a, _, _ in edges], [b for _, b, _ in edges]
        while raised:
            a = raised.pop()
            for b, c in self._after[a]:
                if low[a] + c > low[b]:
                    low[b] = low[a] + c
                    if low[b] > high[b]:
                        return False
                    raised.append(b)
        while lowered:
            b = lowered.pop()
            for a, c in self._before[b]:
                if high[b] - c < high[a]:
                    high[a] = high[b] - c
                    if low[a] > high[a]:
                        return False
                    lowered.append(a)
        return True

    def _pop(self, edges: _Choice) -> None:
        for a, b, _ in edges:
            self._after[a].pop()
            self._before[b].pop()

    def _decide(
        self, low: list[int], high: list[int], conflicts: Sequence[Conflict], forced: list[_Choice]
    ) -> list[Conflict] | None:
        """Conflicts that the windows leave open, their impossible choices dropped; None where one cannot be settled.

        Choices without an alternative are pushed and appended to `forced`, until nothing more follows.
        """
        while True:
            open_, before = [], len(forced)
            for conflict in conflicts:
                possible = _open(conflict.choices, low, high)
                if possible is None:
                    continue
                if len(possible) > 1:
                    all_left = len(possible) == len(conflict.choices)
                    open_.append(conflict if all_left else Conflict(conflict.first, conflict.second, possible))
                    continue
                forced.extend(possible)
                if not possible or not self._push(possible[0], low, high):
                    return None
            conflicts = open_
            if len(forced) == before:
                return open_

    def _descend(self, low: list[int], high: list[int], conflicts: Sequence[Conflict]) -> list[int] | None:
        """Decide what the windows decide, then branch on the largest conflict that the least solution violates."""
        self._nodes -= 1
        if self._nodes <= 0:
            return None
        forced: list[_Choice] = []
        try:
            remaining = self._decide(low, high, conflicts, forced)
            if remaining is None:
                return None
            violated = next((c for c in remaining if not any(_holds(choice, low) for choice in c.choices)), None)
            if violated is None:
                return low
            for choice in sorted(violated.choices, key=lambda ch: max(low[a] + c - low[b] for a, b, c in ch)):
                lower, upper = low.copy(), high.copy()
                found = self._descend(lower, upper, remaining) if self._push(choice, lower, upper) else None
                self._pop(choice)
                if found is not None:
                    return found
            return None
        finally:
            for choice in reversed(forced):
                self._pop(choice)
