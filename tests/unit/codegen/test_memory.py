"""The arena: no two buffers share bytes that no rule allows, and the lower bound is one."""

from __future__ import annotations

import random
from itertools import product
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from test_operators import few

from edgeq.codegen.memory import ALIGN, Buffer, Rule, plan_arena


@few
@given(st.data())
def test_plan(data: Any) -> None:
    """Chains with side branches; a step's output may overlap its input by a random amount."""
    steps = data.draw(st.integers(1, 9))
    buffers, rules = [], []
    for step in range(-1, steps):
        keep = data.draw(st.integers(0, 3))
        last = min(steps, step + 1 + (keep if data.draw(st.booleans()) else 0))
        buffers.append(Buffer(f"t{step}", data.draw(st.integers(1, 900)), step, last))
    for i in range(steps):
        if buffers[i].last == buffers[i + 1].first and data.draw(st.booleans()):
            rules.append(Rule(i, i + 1, data.draw(st.integers(-200, 400))))
    arena = plan_arena(buffers, rules)
    allowed = {(r.input, r.output): r.before_bytes for r in rules}
    for i, a in enumerate(buffers):
        assert arena.offsets[i] % ALIGN == 0
        assert arena.offsets[i] + a.size_bytes <= arena.size_bytes
        for j, b in enumerate(buffers[:i]):
            if a.first > b.last or b.first > a.last:
                continue
            at, there = arena.offsets[i], arena.offsets[j]
            apart = at + a.size_bytes <= there or there + b.size_bytes <= at
            assert apart or ((j, i) in allowed and at <= there - allowed[j, i])
    assert arena.lower_bound_bytes <= arena.size_bytes


@few
@given(st.data())
def test_no_placement_is_smaller(data: Any) -> None:
    """Up to four buffers of one or two units: a plan that meets its bound is as small as any of all placements."""
    count = data.draw(st.integers(2, 4))
    buffers = []
    for i in range(count):
        first = data.draw(st.integers(0, 3))
        last = data.draw(st.integers(first, 3))
        buffers.append(Buffer(f"b{i}", ALIGN * data.draw(st.integers(1, 2)), first, last))
    rules = [
        Rule(i, j, data.draw(st.integers(-ALIGN, 2 * ALIGN)), exact=data.draw(st.booleans()))
        for i in range(count)
        for j in range(i + 1, count)
        if buffers[i].last == buffers[j].first and data.draw(st.booleans())
    ]

    def fits(offsets: tuple[int, ...]) -> bool:
        for j in range(count):
            for i in range(count):
                a, b = buffers[i], buffers[j]
                if i == j or a.first > b.last or b.first > a.last:
                    continue
                at, there = offsets[i], offsets[j]
                ruled = [r for r in rules if (r.input, r.output) in ((i, j), (j, i))]
                shared = any(
                    offsets[r.output] == offsets[r.input] - r.before_bytes
                    if r.exact
                    else offsets[r.output] <= offsets[r.input] - r.before_bytes
                    for r in ruled
                )
                if not (at + a.size_bytes <= there or there + b.size_bytes <= at or shared):
                    return False
        return True

    spots = range(0, 7 * ALIGN, ALIGN)
    smallest = min(
        max(at + b.size_bytes for at, b in zip(offsets, buffers, strict=True))
        for offsets in product(spots, repeat=count)
        if fits(offsets)
    )
    arena = plan_arena(buffers, rules)
    assert fits(arena.offsets)
    assert arena.lower_bound_bytes <= smallest <= arena.size_bytes
    assert arena.lower_bound_bytes == arena.size_bytes


def test_a_large_graph_is_planned_soon_and_without_overlap() -> None:
    """Hundreds of buffers, many alive at once: no search, and no recursion as deep as the graph."""
    generator = random.Random(7)
    buffers = [
        Buffer(f"b{i}", generator.randint(16, 50_000), i, min(600, i + generator.randint(1, 30))) for i in range(600)
    ]
    arena = plan_arena(buffers, [])
    for i, (a, at) in enumerate(zip(buffers, arena.offsets, strict=True)):
        for b, there in zip(buffers[i + 1 :], arena.offsets[i + 1 :], strict=True):
            if a.first <= b.last and b.first <= a.last:
                assert at + a.size_bytes <= there or there + b.size_bytes <= at
    assert arena.lower_bound_bytes <= arena.size_bytes
