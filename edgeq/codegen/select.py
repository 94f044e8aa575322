"""Choose one Step per operator: the cheapest combination whose neighbours agree on every tensor's layout.

A dynamic program over operators in execution order. A state is the layout of every live tensor that is not plain
NHWC; graph inputs and outputs are NHWC. Exact up to `_STATES` states at once, beyond that the best are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeq.codegen.step import NHWC, Layout, Optimize, Step
from edgeq.graph.ir import Graph

_STATES = 512

_State = tuple[tuple[int, Layout], ...]


@dataclass(frozen=True, slots=True)
class Weights:
    """What the goal is willing to pay: cost units for a byte of flash (code or constants) or of RAM."""

    flash: float
    ram: float


_SLACK = 1.08
"""How much larger than the smallest known an arena may be for the goal `ram`, if that is faster."""

WEIGHTS: dict[Optimize, Weights] = {
    "speed": Weights(flash=0.0, ram=0.01),
    "balanced": Weights(flash=8.0, ram=2.0),
    "ram": Weights(flash=8.0, ram=2.0),
    "flash": Weights(flash=1e6, ram=2.0),
}


def _code(step: Step) -> frozenset[str]:
    """What layers that run the same code have in common: the first emitted source, or the kernel."""
    return frozenset({step.emitted[0].stem if step.emitted else step.kernel})


def _price(step: Step, weights: Weights, seen: frozenset[str]) -> float:
    code = 0 if _code(step) <= seen else step.code_bytes
    padding = sum(max(0, layout.size_bytes) for layout in step.layouts.values())
    return step.cost + weights.flash * (code + step.constants_bytes) + weights.ram * (step.scratch_bytes + padding)


def _advance(state: _State, step: Step, graph: Graph, dead: frozenset[int]) -> _State | None:
    """The state after a step, or None where the step disagrees with the layouts so far."""
    layouts = dict(state)
    for tensor in step.inputs:
        if layouts.get(tensor, NHWC) != step.layout(tensor):
            return None
    for tensor in step.outputs:
        layout = step.layout(tensor)
        if layout != NHWC:
            if tensor in graph.outputs:
                return None
            layouts[tensor] = layout
    return tuple(sorted((t, layout) for t, layout in layouts.items() if t not in dead))


def select(graph: Graph, candidates: Sequence[Sequence[Step]], optimize: Optimize) -> tuple[Step, ...]:
    """The cheapest agreeing Steps in execution order; `candidates[i]` are those that start at operator i.

    A portable candidate is NHWC on all sides, so a combination always exists.
    """
    weights = WEIGHTS[optimize]
    last_use = {t: position for position, op in enumerate(graph.operators) for t in op.inputs}
    count = len(graph.operators)
    frontier: list[dict[_State, tuple[float, tuple[Step, ...], frozenset[str]]]] = [{} for _ in range(count + 1)]
    frontier[0][()] = (0.0, (), frozenset())
    for position in range(count):
        best = sorted(frontier[position].items(), key=lambda item: item[1][0])[:_STATES]
        frontier[position].clear()
        for state, (price, chosen, seen) in best:
            for step in candidates[position]:
                after = position + step.covers
                if after > count:
                    continue
                dead = frozenset(t for t, last in last_use.items() if last < after)
                moved = _advance(state, step, graph, dead)
                if moved is None:
                    continue
                total = price + _price(step, weights, seen)
                known = frontier[after].get(moved)
                if known is None or total < known[0]:
                    frontier[after][moved] = (total, (*chosen, step), seen | _code(step))
    return min(frontier[count].values(), key=lambda entry: entry[0])[1]


def smallest(
    graph: Graph, candidates: Sequence[Sequence[Step]], arena_bytes: Callable[[Sequence[Step]], int]
) -> tuple[Step, ...]:
    """A fast choice whose arena is within `_SLACK` of the smallest that is known: for the goal `ram`.

    Where the fast choice is not small enough, the layers that need most memory take their Steps of least scratch:
    as few as it takes.
    """
    thrifty = [_least_scratch(steps) for steps in candidates]
    fast, small = select(graph, candidates, "ram"), select(graph, thrifty, "ram")
    fast_bytes, small_bytes = arena_bytes(fast), arena_bytes(small)
    limit = min(fast_bytes, small_bytes) * _SLACK
    if fast_bytes <= limit:
        return fast

    def needs(position: int) -> int:
        operator = graph.operators[position]
        tensors = {t for t in (*operator.inputs, *operator.outputs) if t >= 0 and not graph.tensors[t].is_constant}
        return sum(graph.tensors[t].size_bytes for t in tensors)

    def choice(tight: set[int]) -> tuple[Step, ...]:
        return select(graph, [thrifty[i] if i in tight else candidates[i] for i in range(len(candidates))], "ram")

    by_need = sorted(range(len(candidates)), key=needs, reverse=True)
    count = next((n for n in range(1, len(by_need)) if arena_bytes(choice(set(by_need[:n]))) <= limit), len(by_need))
    tight = set(by_need[:count])
    for position in reversed(by_need[:count]):
        if arena_bytes(choice(tight - {position})) <= limit:
            tight.remove(position)
    return choice(tight)


def _least_scratch(steps: Sequence[Step]) -> list[Step]:
    least = min(step.scratch_bytes for step in steps)
    return [step for step in steps if step.scratch_bytes == least]
