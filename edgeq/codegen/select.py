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


_SLACKS = (1.04, 1.15)
"""How much larger than the smallest known an arena may be for the goal `ram`, if that is faster."""
_RAM_EXPONENT = 2
"""The goal `ram` pays one per cent of arena for two per cent of instructions."""

_FLASH_SLACK = 1.06
"""How much larger than the smallest known code and constants may be for the goal `flash`, if that is faster."""
_FLASH_PRICES = (1e6, 3e4, 2e4, 1e4, 5e3, 3e3, 1e3, 300.0)
"""Instructions for a byte of flash, dearest first: the trade-offs that the goal `flash` looks at."""

WEIGHTS: dict[Optimize, Weights] = {
    "speed": Weights(flash=0.0, ram=0.01),
    "balanced": Weights(flash=8.0, ram=2.0),
    "ram": Weights(flash=8.0, ram=2.0),
    "flash": Weights(flash=_FLASH_PRICES[0], ram=2.0),
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


def select(
    graph: Graph, candidates: Sequence[Sequence[Step]], optimize: Optimize, *, weights: Weights | None = None
) -> tuple[Step, ...]:
    """The cheapest agreeing Steps in execution order; `candidates[i]` are those that start at operator i.

    A portable candidate is NHWC on all sides, so a combination always exists. `weights` are the goal's by default.
    """
    weights = weights or WEIGHTS[optimize]
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


def leanest(graph: Graph, candidates: Sequence[Sequence[Step]]) -> tuple[Step, ...]:
    """The fastest choice whose code and constants are within `_FLASH_SLACK` of the smallest: for the goal `flash`."""
    choices = [
        select(graph, candidates, "flash", weights=Weights(price, WEIGHTS["flash"].ram)) for price in _FLASH_PRICES
    ]
    limit = min(map(flash_bytes, choices)) * _FLASH_SLACK
    return min((chosen for chosen in choices if flash_bytes(chosen) <= limit), key=cost)


def flash_bytes(steps: Sequence[Step]) -> int:
    """Estimated code, each kernel once, and constants of all steps."""
    code = {_code(step): step.code_bytes for step in steps}
    return sum(code.values()) + sum(step.constants_bytes for step in steps)


def cost(steps: Sequence[Step]) -> float:
    """Estimated instructions of all steps."""
    return sum(step.cost for step in steps)


def smallest(
    graph: Graph, candidates: Sequence[Sequence[Step]], arena_bytes: Callable[[Sequence[Step]], int]
) -> tuple[Step, ...]:
    """A fast choice whose arena is close to the smallest that is known: for the goal `ram`.

    Of the choices within each of `_SLACKS`, the one that is best by instructions times arena^`_RAM_EXPONENT`.
    """
    thrifty = [_least_scratch(steps) for steps in candidates]
    fast, small = select(graph, candidates, "ram"), select(graph, thrifty, "ram")
    fast_bytes, small_bytes = arena_bytes(fast), arena_bytes(small)
    least = min(fast_bytes, small_bytes)
    choices = []
    for limit in [least * slack for slack in _SLACKS]:
        if fast_bytes <= limit:
            choices.append(fast)
            break
        choices.append(_within(graph, candidates, thrifty, arena_bytes, limit))
    return min(choices, key=lambda chosen: cost(chosen) * arena_bytes(chosen) ** _RAM_EXPONENT)


def _within(
    graph: Graph,
    candidates: Sequence[Sequence[Step]],
    thrifty: Sequence[Sequence[Step]],
    arena_bytes: Callable[[Sequence[Step]], int],
    limit: float,
) -> tuple[Step, ...]:
    """The layers that need most memory take their Steps of least scratch: as few as it takes for `limit` bytes."""

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
