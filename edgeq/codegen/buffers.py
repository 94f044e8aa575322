"""Steps -> buffers of the arena with their lives, and their addresses.

A tensor lies in a buffer of its own, or is a view of another one: RESHAPE and the like only rename memory, and what
`patches.py` cuts into pieces are runs of rows, which lie contiguously in it. Different bytes of such a buffer live over
different steps; what that allows two buffers to share becomes a `Rule`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from edgeq.codegen.memory import Arena, Buffer, Part, Rule, lower_bound, plan_arena, plan_regions
from edgeq.codegen.step import Step
from edgeq.graph.ir import Graph, Operator

RENAMING = frozenset({"RESHAPE", "SQUEEZE", "EXPAND_DIMS"})
"""Operators that only rename memory: they produce no code."""

VIEW = "view"
"""Option of a SLICE or CONCATENATION that `patches.py` made: its tensors are runs of bytes of the whole one."""


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A buffer of the arena: tensors that share it (aliases), or a step's scratch. Step -1 is the caller.

    parts: as in memory.Buffer.
    """

    name: str
    tensors: tuple[int, ...]
    offset: int
    size_bytes: int
    first: int
    last: int
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class _Use:
    """Bytes start..end of a buffer, touched by a step."""

    start: int
    end: int
    step: int


def is_view(operator: Operator) -> bool:
    """Whether an operator produces no code: its result lies in its input, or its inputs in its result."""
    return operator.name in RENAMING or VIEW in operator.options


def views(graph: Graph) -> dict[int, tuple[int, int]]:
    """Tensor -> the tensor whose memory it shares (itself, if none), and at which byte of it it starts."""
    parents: dict[int, tuple[int, int]] = {}
    for operator in graph.operators:
        if not is_view(operator):
            continue
        if operator.name == "CONCATENATION":
            at = 0
            for part in operator.inputs:
                parents[part] = (operator.outputs[0], at)
                at += graph.tensors[part].size_bytes
        else:
            parents[operator.outputs[0]] = (operator.inputs[0], int(operator.options.get(VIEW, 0)))

    def resolve(tensor: int) -> tuple[int, int]:
        offset = 0
        while tensor in parents:
            tensor, more = parents[tensor]
            offset += more
        return tensor, offset

    return {t.index: resolve(t.index) for t in graph.tensors}


def cut_tensors(graph: Graph) -> dict[int, int]:
    """Tensors of buffers that are cut into runs of rows -> at which byte of the buffer they start."""
    tensors = {t for op in graph.operators if VIEW in op.options for t in (*op.inputs, *op.outputs)}
    view = views(graph)
    bases = {view[t][0] for t in tensors if not graph.tensors[t].is_constant}
    return {tensor: at for tensor, (base, at) in view.items() if base in bases}


def _lives(uses: Sequence[_Use]) -> tuple[Part, ...]:
    """The buffer cut where uses begin and end; each part lives from its first use to its last."""
    cuts = sorted({use.start for use in uses} | {use.end for use in uses})
    parts = []
    for start, end in pairwise(cuts):
        steps = [use.step for use in uses if use.start < end and start < use.end]
        if steps:
            parts.append(Part(start, end, min(steps), max(steps)))
    return tuple(parts)


class _Buffers:
    """The buffers of a list of steps: which tensors lie in them, who may overlap whom."""

    def __init__(self, graph: Graph, steps: Sequence[Step]) -> None:
        self.graph, self.steps = graph, steps
        self.view = views(graph)
        self.cut = any(VIEW in operator.options for operator in graph.operators)
        uses = self._uses()
        self.bases = sorted(uses, key=lambda base: (min(u.step for u in uses[base]), base))
        self.position = {base: i for i, base in enumerate(self.bases)}
        self.buffers = [self._buffer(graph.tensors[base].name, uses[base]) for base in self.bases]
        self.scratch: dict[int, int] = {}
        for index, step in enumerate(steps):
            if step.scratch_bytes:
                self.scratch[index] = len(self.buffers)
                name = f"scratch of {step.name} {index}"
                self.buffers.append(Buffer(name, step.scratch_bytes, index, index))

    def _uses(self) -> dict[int, list[_Use]]:
        uses: dict[int, list[_Use]] = {}

        def touch(tensor: int, step: int, bytes_: int = 0) -> None:
            base, at = self.view[tensor]
            size = bytes_ or self.graph.tensors[tensor].size_bytes
            uses.setdefault(base, []).append(_Use(at, at + size, step))

        for tensor in self.graph.inputs:
            touch(tensor, -1)
        for index, step in enumerate(self.steps):
            for tensor in (*step.inputs, *step.outputs):
                touch(tensor, index, step.layout(tensor).size_bytes)
        for tensor in self.graph.outputs:
            touch(tensor, len(self.steps))
        for t in self.graph.tensors:
            if t.is_variable and self.view[t.index][0] in uses:
                touch(t.index, -1)
                touch(t.index, len(self.steps))
        return uses

    def _buffer(self, name: str, uses: Sequence[_Use]) -> Buffer:
        size, first, last = max(u.end for u in uses), min(u.step for u in uses), max(u.step for u in uses)
        parts = _lives(uses) if self.cut else ()
        return Buffer(name, size, first, last, parts if len(parts) > 1 else ())

    def members(self, base: int) -> tuple[int, ...]:
        return tuple(tensor for tensor, (owner, _) in self.view.items() if owner == base)

    def rules(self) -> Iterator[Rule]:
        """Overlaps that the steps allow, and those that follow from the lives of parts."""
        split = [i for i, buffer in enumerate(self.buffers) if buffer.parts]
        for index, step in enumerate(self.steps):
            for pair in {(self.view[o.input][0], self.view[o.output][0]) for o in step.overlaps}:
                source, result = (self.position[base] for base in pair)
                if source != result and source not in split and result not in split:
                    yield from self._in_place(index, source, result)
        pairs = {
            (i, j)
            for i in split
            for j, b in enumerate(self.buffers)
            if i != j and self.buffers[i].first <= b.last and b.first <= self.buffers[i].last
        }
        for i, j in sorted(pairs | {(j, i) for i, j in pairs}):
            needs = [
                (q.end - p.start, self._allowed(i, p, j, q))
                for p in self.buffers[i].whole
                for q in self.buffers[j].whole
                if p.first <= q.last and q.first <= p.last
            ]
            before = max((need if allowed is None else min(need, allowed) for need, allowed in needs), default=-_FAR)
            yield Rule(i, j, before, separate=all(allowed is None for _, allowed in needs))

    def accesses(self) -> list[int]:
        """Bytes read and written of each buffer in one inference, estimated from the operators.

        An output is written once; an input is read once for each multiplication that it takes part in, or once, and
        scratch is written and read like the inputs that it holds.
        """
        counts = [0] * len(self.buffers)
        for index, step in enumerate(self.steps):
            read_bytes = sum(self.graph.tensors[t].size_bytes for t in step.inputs)
            reads = max(1, step.macs // max(1, read_bytes))
            for tensor in step.inputs:
                counts[self.position[self.view[tensor][0]]] += reads * self.graph.tensors[tensor].size_bytes
            for tensor in step.outputs:
                counts[self.position[self.view[tensor][0]]] += self.graph.tensors[tensor].size_bytes
            if index in self.scratch:
                counts[self.scratch[index]] += (reads + 1) * step.scratch_bytes
        return counts

    def _in_place(self, index: int, source: int, result: int) -> Iterator[Rule]:
        """The rule of a step whose input dies when its output is born."""
        if self.buffers[source].last != index or self.buffers[result].first != index:
            return
        step = self.steps[index]
        read = [t for t in step.inputs if self.position[self.view[t][0]] == source]
        found = [o for o in step.overlaps if self.position[self.view[o.output][0]] == result and o.input in read]
        if {o.input for o in found} == set(read):
            worst = max(found, key=lambda o: (o.exact, o.before_bytes))
            yield Rule(source, result, worst.before_bytes, worst.exact)

    def _allowed(self, i: int, p: Part, j: int, q: Part) -> int | None:
        """How far before buffer i buffer j must start for one step, which ends p and begins q; None if no step does."""
        if p.last != q.first or max(i, j) >= len(self.bases) or not 0 <= p.last < len(self.steps):
            return None
        step = self.steps[p.last]
        read = [t for t in step.inputs if self._covers(t, i, p)]
        written = [t for t in step.outputs if self._covers(t, j, q)]
        if not read or len(written) != 1:
            return None
        overlaps = {o.input: o for o in step.overlaps if o.output == written[0] and not o.exact}
        if not set(read) <= set(overlaps):
            return None
        start = self.view[written[0]][1]
        return max(start + overlaps[t].before_bytes - self.view[t][1] for t in read)

    def _covers(self, tensor: int, buffer: int, part: Part) -> bool:
        base, at = self.view[tensor]
        return (
            self.position[base] == buffer and at < part.end and part.start < at + self.graph.tensors[tensor].size_bytes
        )


_FAR = 1 << 30
"""Farther than any arena: two buffers of which no bytes ever live at once."""


def demand_bytes(graph: Graph, steps: Sequence[Step]) -> int:
    """The largest sum of what is alive at one step of a plan: no arena is smaller."""
    found = _Buffers(graph, steps)
    return lower_bound(found.buffers, list(found.rules()))


Places = tuple[tuple[Placed, ...], Mapping[int, int], Mapping[int, int]]
"""The buffers, tensor -> address, step -> address of its scratch, all in bytes."""


def _places(found: _Buffers, offsets: Sequence[int]) -> Places:
    tensors: Iterable[tuple[int, ...]] = (*map(found.members, found.bases), *(() for _ in found.scratch))
    placed = tuple(
        Placed(b.name, members, offset, b.size_bytes, b.first, b.last, b.parts)
        for b, members, offset in zip(found.buffers, tensors, offsets, strict=True)
    )
    addresses = {
        tensor: offsets[found.position[base]] + at
        for tensor, (base, at) in found.view.items()
        if base in found.position
    }
    return placed, addresses, {step: offsets[i] for step, i in found.scratch.items()}


def place(graph: Graph, steps: Sequence[Step]) -> tuple[Arena, Places]:
    """One arena for everything, and what lies where in it."""
    found = _Buffers(graph, steps)
    arena = plan_arena(found.buffers, list(found.rules()))
    return arena, _places(found, arena.offsets)


def place_in_regions(
    graph: Graph, steps: Sequence[Step], capacities: Sequence[int]
) -> tuple[tuple[Arena, ...], Places] | None:
    """An arena for each region of so many bytes, the fastest first, and what lies where; None if it does not fit.

    Addresses count through: those of a region begin where the arena of the one before ends.
    """
    found = _Buffers(graph, steps)
    planned = plan_regions(found.buffers, list(found.rules()), found.accesses(), capacities)
    if planned is None:
        return None
    regions, arenas = planned
    starts = [0, *accumulate(arena.size_bytes for arena in arenas)]
    within = [iter(arena.offsets) for arena in arenas]
    return arenas, _places(found, [starts[region] + next(within[region]) for region in regions])
