"""The arena: every buffer gets an offset so that buffers alive at the same time do not share bytes they must not.

A buffer lives over the steps [first, last], parts of it maybe shorter. Two that live at once are disjoint, except where
a kernel allows its output to overlap its input, or where their parts do not live at once (`Rule`). Several greedy
orders are tried, then branch and bound (`placement.py`). The lower bound is the largest sum alive at one step, less
what may be shared, or what an exhausted search has proven. `plan_regions` deals the buffers out to several regions of
RAM, each with an arena of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

from edgeq.codegen.placement import Conflict, Search

ALIGN = 16

NODES = 1500
"""Limit of the search in nodes, a few hundred microseconds each for a model of 60 buffers."""
_PERMUTED = 3
"""Regions that are filled in every order; of more, from the fastest and from the slowest."""
SEARCHED_CONFLICTS = 120
"""The search descends one level a conflict, and each level looks at all of them: beyond this it takes seconds."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes start..end of a buffer that live over steps first..last (inclusive)."""

    start: int
    end: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Buffer:
    """A piece of the arena: `size_bytes` over steps first..last (inclusive). `name` is for tables and pictures.

    parts: where some bytes live shorter than the whole, what lives when; disjoint, in ascending order.
    """

    name: str
    size_bytes: int
    first: int
    last: int
    parts: tuple[Part, ...] = ()

    @property
    def whole(self) -> tuple[Part, ...]:
        """The parts; of a buffer that lives and dies as one, itself."""
        return self.parts or (Part(0, self.size_bytes, self.first, self.last),)

    def alive_bytes(self, step: int) -> int:
        """Bytes that are needed during a step, in whole multiples of the alignment if it is not cut into parts."""
        if self.parts:
            return sum(part.end - part.start for part in self.parts if part.first <= step <= part.last)
        return aligned(self.size_bytes) if self.first <= step <= self.last else 0


@dataclass(frozen=True, slots=True)
class Rule:
    """Buffer `output` may overlap buffer `input` where output offset <= input offset - before_bytes (exact: ==).

    separate: the overlap follows from the lives of their parts; no byte is shared by both at any one step.
    """

    input: int
    output: int
    before_bytes: int
    exact: bool = False
    separate: bool = False


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
        self.separate = {(r.input, r.output) for r in rules if r.separate}
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
        if (j, i) not in self.rules or (j, i) in self.separate:
            return 0
        return max(0, min(self.sizes[i] - max(0, self.rules[j, i]), self.sizes[j]))

    def lower_bound(self) -> int:
        """Largest demand of one step: sizes alive, less what rules allow each output to share."""
        alive: dict[int, dict[int, int]] = {}
        for i, buffer in enumerate(self.buffers):
            for step in range(buffer.first, buffer.last + 1):
                if bytes_ := buffer.alive_bytes(step):
                    alive.setdefault(step, {})[i] = bytes_
        sources: dict[int, list[tuple[int, int]]] = {}
        for j, i in self.rules:
            if shared := self.shared(i, j):
                sources.setdefault(i, []).append((j, shared))

        def demand(at_step: Mapping[int, int]) -> int:
            saved = 0
            for i, bytes_ in at_step.items():
                if i in sources:
                    saved += min(bytes_, sum(shared for j, shared in sources[i] if j in at_step))
            return sum(at_step.values()) - saved

        return max(map(demand, alive.values()), default=0)


def _orders(problem: _Problem) -> list[tuple[str, Callable[[int], tuple[int, ...]]]]:
    buffers, sizes = problem.buffers, problem.sizes
    return [
        ("largest first", lambda i: (-sizes[i], buffers[i].first, i)),
        ("longest lived first", lambda i: (-(buffers[i].last - buffers[i].first), -sizes[i], i)),
        ("in order of execution", lambda i: (buffers[i].first, -sizes[i], i)),
        ("against the order of execution", lambda i: (-buffers[i].last, -sizes[i], i)),
        ("largest area first", lambda i: (-sizes[i] * (buffers[i].last - buffers[i].first + 1), i)),
        ("cut ones first, the last first", lambda i: (not buffers[i].parts, -buffers[i].last, -sizes[i], i)),
    ]


def _choices(problem: _Problem, i: int, j: int) -> tuple[tuple[tuple[int, int, int], ...], ...]:
    """The ways to place buffers i and j that live at once, as differences of offsets (see placement.py)."""
    below = {(i, j): ((i, j, problem.sizes[i]),), (j, i): ((j, i, problem.sizes[j]),)}
    overlapping: list[tuple[tuple[int, int, int], ...]] = []
    for source, result in ((i, j), (j, i)):
        if (source, result) not in problem.rules:
            continue
        before = problem.rules[source, result]
        if (source, result) in problem.exact:
            if before % ALIGN == 0:
                overlapping.append(((result, source, before), (source, result, -before)))
        else:
            apart = below.pop((result, source))[0][2]
            overlapping.append(((result, source, min(apart, aligned(before))),))
    return (*overlapping, *below.values())


def _search(problem: _Problem, top: int, bound: int, nodes: int) -> tuple[list[int] | None, int, int]:
    """Ever lower placements by branch and bound: (offsets or None, top, lower bound), the bound raised if exhausted."""
    conflicts = [
        Conflict(i, j, _choices(problem, i, j)) for i, others in enumerate(problem.conflicts) for j in others if i < j
    ]
    search = Search(problem.sizes, conflicts, nodes)
    best = None
    while top > bound:
        found = search.below(top - ALIGN)
        if found is None:
            return best, top, top if search.exhausted else bound
        best = found
        top = max(at + size for at, size in zip(found, problem.sizes, strict=True))
    return best, top, bound


def lower_bound(buffers: Sequence[Buffer], rules: Sequence[Rule]) -> int:
    """What no arena for these buffers is smaller than, in bytes: the largest demand of one step."""
    return aligned(_Problem(buffers, rules).lower_bound())


def plan_arena(buffers: Sequence[Buffer], rules: Sequence[Rule], *, nodes: int = NODES) -> Arena:
    """Offsets for all buffers: the best of several greedy orders, then branch and bound with at most `nodes` nodes.

    A graph with more than `SEARCHED_CONFLICTS` pairs of buffers that live at once keeps the best greedy order.
    """
    problem = _Problem(buffers, rules)
    bound = aligned(problem.lower_bound())
    indices = range(len(buffers))
    tried = [(problem.place(sorted(indices, key=key)), name) for name, key in _orders(problem)]
    (placed, top), method = min(tried, key=lambda entry: entry[0][1])
    offsets = [placed[i] for i in indices]
    found = None
    if sum(map(len, problem.conflicts)) <= 2 * SEARCHED_CONFLICTS:
        found, top, bound = _search(problem, top, bound, nodes)
    if found is not None:
        offsets, method = found, "branch and bound"
    return Arena(tuple(offsets), top, bound, method)


def _dealt(
    problem: _Problem, order: Sequence[int], capacities: Sequence[int], *, demand: bool
) -> tuple[int, ...] | None:
    """A region for each buffer, in this order the first with room; None where one finds none.

    Room is an offset beside what lies there already, or, with `demand`, a sum within the capacity at each step: less
    than that no arena takes, but one may take more.
    """
    placed: list[dict[int, int]] = [{} for _ in capacities]
    alive: list[dict[int, int]] = [{} for _ in capacities]
    region = [0] * len(order)
    for i in order:
        steps = range(problem.buffers[i].first, problem.buffers[i].last + 1)
        for r, capacity in enumerate(capacities):
            if demand:
                after = {step: alive[r].get(step, 0) + problem.buffers[i].alive_bytes(step) for step in steps}
                if max(after.values()) > capacity:
                    continue
                alive[r] |= after
            else:
                at = problem.lowest(i, placed[r])
                if at + problem.sizes[i] > capacity:
                    continue
                placed[r][i] = at
            region[i] = r
            break
        else:
            return None
    return tuple(region)


def _part(buffers: Sequence[Buffer], rules: Sequence[Rule], members: Sequence[int]) -> tuple[list[Buffer], list[Rule]]:
    """Some of the buffers, and the rules between them."""
    position = {i: k for k, i in enumerate(members)}
    inner = [
        replace(rule, input=position[rule.input], output=position[rule.output])
        for rule in rules
        if rule.input in position and rule.output in position
    ]
    return [buffers[i] for i in members], inner


def plan_regions(
    buffers: Sequence[Buffer], rules: Sequence[Rule], accesses: Sequence[int], capacities: Sequence[int]
) -> tuple[tuple[int, ...], tuple[Arena, ...]] | None:
    """The region of each buffer, and the arena in each region, whose `offsets` are of its own buffers in their order.

    accesses: bytes read and written of each buffer in one inference. capacities: bytes of the regions, the fastest
    first. Buffers are dealt out in several orders, one by accesses per byte, to the regions in several orders; of
    those whose arenas fit, the one with the most accesses in the fastest regions is taken. None where none fits.
    """
    problem = _Problem(buffers, rules)
    indices = range(len(buffers))
    most_accessed: tuple[str, Callable[[int], tuple[int, ...]]] = (
        "most accessed first",
        lambda i: (-(accesses[i] << 10) // problem.sizes[i], buffers[i].first, i),
    )

    def deals() -> Iterator[tuple[int, ...]]:
        every = tuple(range(len(capacities)))
        for ranks in permutations(every) if len(every) <= _PERMUTED else (every, every[::-1]):
            rooms = [capacities[r] for r in ranks]
            for _, key in (most_accessed, *_orders(problem)):
                for demand in (False, True):
                    dealt = _dealt(problem, sorted(indices, key=key), rooms, demand=demand)
                    if dealt is not None:
                        yield tuple(ranks[r] for r in dealt)

    def distance(regions: tuple[int, ...]) -> int:
        return sum(count * region for count, region in zip(accesses, regions, strict=True))

    for regions in sorted(dict.fromkeys(deals()), key=distance):
        members = [[i for i in indices if regions[i] == r] for r in range(len(capacities))]
        arenas = tuple(plan_arena(*_part(buffers, rules, own)) for own in members)
        if all(arena.size_bytes <= capacity for arena, capacity in zip(arenas, capacities, strict=True)):
            return regions, arenas
    return None
