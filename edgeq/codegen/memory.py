"""The arena: every buffer gets an offset so that buffers alive at the same time do not share bytes they must not.

A buffer lives over the steps [first, last]. Two that live at once are disjoint, except where a kernel allows its
output to overlap its input (`Rule`). Several greedy orders are tried and, for small graphs, improved by local search
over the orders; the lower bound is the largest sum of sizes alive at one step, less what may be shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

ALIGN = 16


@dataclass(frozen=True, slots=True)
class Buffer:
    """A piece of the arena: `size_bytes` over steps first..last (inclusive). `name` is for tables and pictures."""

    name: str
    size_bytes: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Rule:
    """Buffer `output` may overlap buffer `input` where output offset <= input offset - before_bytes (exact: ==)."""

    input: int
    output: int
    before_bytes: int
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Arena:
    """Offsets per buffer, the total and the lower bound, in bytes. `method` is how it was found."""

    offsets: tuple[int, ...]
    size_bytes: int
    lower_bound_bytes: int
    method: str


def aligned(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


def _floor(offset: int) -> int:
    return offset // ALIGN * ALIGN


class _Problem:
    """Buffers, who conflicts with whom, and under which rule they may overlap."""

    def __init__(self, buffers: Sequence[Buffer], rules: Sequence[Rule]) -> None:
        self.buffers = buffers
        self.sizes = [aligned(b.size_bytes) for b in buffers]
        self.rules: dict[tuple[int, int], int] = {(r.input, r.output): r.before_bytes for r in rules}
        self.exact = {(r.input, r.output) for r in rules if r.exact}
        self.conflicts: list[list[int]] = [
            [j for j, b in enumerate(buffers) if j != i and a.first <= b.last and b.first <= a.last]
            for i, a in enumerate(buffers)
        ]

    def compatible(self, i: int, at: int, j: int, there: int) -> bool:
        """Whether buffer i at `at` and buffer j at `there` may live at once."""
        if at + self.sizes[i] <= there or there + self.sizes[j] <= at:
            return True
        return self._allowed(i, at, j, there) or self._allowed(j, there, i, at)

    def _allowed(self, source: int, source_at: int, result: int, result_at: int) -> bool:
        """Whether a rule lets `result` overlap `source` at these offsets."""
        if (source, result) not in self.rules:
            return False
        latest = source_at - self.rules[source, result]
        return result_at == latest if (source, result) in self.exact else result_at <= latest

    def lowest(self, i: int, placed: Mapping[int, int]) -> int:
        """The lowest offset at which buffer i fits beside the placed ones."""
        spots = {0}
        neighbours = [j for j in self.conflicts[i] if j in placed]
        for j in neighbours:
            spots.add(placed[j] + self.sizes[j])
            if (i, j) in self.rules:
                spots.add(aligned(max(0, placed[j] + self.rules[i, j])))
            if (j, i) in self.rules:
                spots.add(max(0, _floor(placed[j] - self.rules[j, i])))
        return next(at for at in sorted(spots) if all(self.compatible(i, at, j, placed[j]) for j in neighbours))

    def place(self, order: Sequence[int]) -> tuple[dict[int, int], int]:
        placed: dict[int, int] = {}
        top = 0
        for i in order:
            placed[i] = self.lowest(i, placed)
            top = max(top, placed[i] + self.sizes[i])
        return placed, top

    def shared(self, i: int, j: int) -> int:
        """Bytes that output i and input j may share at most: the output lies at the input's start or before."""
        if (j, i) not in self.rules:
            return 0
        return max(0, min(self.sizes[i] - max(0, self.rules[j, i]), self.sizes[j]))

    def lower_bound(self) -> int:
        """Largest demand of one step: sizes alive, less what rules allow each output to share."""
        last = max((b.last for b in self.buffers), default=0)
        bound = 0
        for step in range(-1, last + 1):
            alive = [i for i, b in enumerate(self.buffers) if b.first <= step <= b.last]
            saved = sum(min(self.sizes[i], sum(self.shared(i, j) for j in alive)) for i in alive)
            bound = max(bound, sum(self.sizes[i] for i in alive) - saved)
        return bound


def _orders(problem: _Problem) -> list[tuple[str, Callable[[int], tuple[int, ...]]]]:
    buffers, sizes = problem.buffers, problem.sizes
    return [
        ("largest first", lambda i: (-sizes[i], buffers[i].first, i)),
        ("longest lived first", lambda i: (-(buffers[i].last - buffers[i].first), -sizes[i], i)),
        ("in order of execution", lambda i: (buffers[i].first, -sizes[i], i)),
        ("against the order of execution", lambda i: (-buffers[i].last, -sizes[i], i)),
        ("largest area first", lambda i: (-sizes[i] * (buffers[i].last - buffers[i].first + 1), i)),
    ]


def _improve(problem: _Problem, order: list[int], top: int, bound: int, rounds: int) -> tuple[list[int], int]:
    """Move one buffer of the order at a time to another position while that lowers the top; deterministic."""
    for _ in range(rounds):
        best: tuple[int, list[int]] | None = None
        for source in range(len(order)):
            for target in range(len(order)):
                if source == target:
                    continue
                trial = order.copy()
                trial.insert(target, trial.pop(source))
                _, height = problem.place(trial)
                if height < top and (best is None or height < best[0]):
                    best = (height, trial)
        if best is None:
            break
        top, order = best
        if top == bound:
            break
    return order, top


def plan_arena(buffers: Sequence[Buffer], rules: Sequence[Rule]) -> Arena:
    """Offsets for all buffers: the best of several greedy orders, improved by local search for up to 40 buffers."""
    problem = _Problem(buffers, rules)
    bound = problem.lower_bound()
    indices = range(len(buffers))
    tried = []
    for name, key in _orders(problem):
        order = sorted(indices, key=key)
        tried.append((problem.place(order)[1], name, order))
    tried.sort(key=lambda entry: entry[0])
    top, method, order = tried[0]
    if top > bound and len(buffers) <= 40:
        for height, name, start in tried:
            moved, reached = _improve(problem, start, height, bound, rounds=4)
            if reached < top:
                top, order, method = reached, moved, f"{name}, improved"
    placed, top = problem.place(order)
    return Arena(tuple(placed[i] for i in indices), top, bound, method)
