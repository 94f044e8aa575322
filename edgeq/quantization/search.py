"""The cheapest scheme for each layer whose measured accuracy holds, or the most accurate within a limit.

1. Every scheme throughout: what each costs on the board, and which ones it runs at all.
2. The sensitivity of every layer: the error that it alone causes in a scheme, all others in float.
3. Between two schemes of which only the dearer one is accurate enough (or only the cheaper one small enough): the most
   sensitive layers get the dearer one, more and more of them. Every such mixture is built, run and priced.
4. The best is improved layer by layer as long as that pays.

Nothing is predicted: whatever is compared was built and measured. Which trials are made depends on the outcomes alone,
so the same model, data and goal give the same result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise

import numpy as np

from edgeq.errors import AnswerNo, UsageError
from edgeq.graph import Graph
from edgeq.measure import Quantity, Unknown
from edgeq.progress import Progress
from edgeq.quantization.layer_map import Origins
from edgeq.quantization.report import value_of
from edgeq.quantization.trials import Batch, Outcome, Trial

LADDER = ("int4", "int8", "int16x8", "float32")
"""From the cheapest to the most accurate, as a rule."""
_FOUR_BIT = ("CONV_2D", "FULLY_CONNECTED")
_WEIGHTED = (*_FOUR_BIT, "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "BATCH_MATMUL", "UNIDIRECTIONAL_SEQUENCE_LSTM")
_STEPS = 10
_DRAWN = 3
_ROUNDS = 3

Schemes = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SearchGoal:
    """What to search for. `board`: id or file of the board that costs are for.

    `max_drop`: percentage points of accuracy that may be lost against float; the cheapest such model is wanted. Without
    it, the most accurate model within `max_flash_bytes` and `max_latency_us`. `jobs`: processes here (0: one for each
    core, 4 at most); `scheduler`: the address of a Dask scheduler to use instead.
    """

    board: str
    max_drop: float | None = None
    max_flash_bytes: float | None = None
    max_latency_us: float | None = None
    jobs: int = 0
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.max_drop is None and self.max_flash_bytes is None and self.max_latency_us is None:
            raise UsageError(
                "search-without-goal",
                "A search needs something to hold to.",
                where="--search",
                try_="Give --max-drop 0.5 (points of accuracy), --max-flash 64k, or --max-latency 20ms.",
            )
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise UsageError(
                "bad-option",
                "--max-drop is in percentage points, 0 to 100.",
                where=f"--max-drop {self.max_drop:g}",
                try_="For example --max-drop 0.5.",
            )
        if self.jobs < 0:
            raise UsageError("bad-option", "--jobs counts processes.", where="--jobs", try_="Give 0 or more.")


@dataclass(frozen=True, slots=True)
class Unit:
    """Layers that get one scheme: those with weights, and what follows them up to the next."""

    name: str
    layers: tuple[str, ...]
    operators: tuple[int, ...]
    has_four_bit: bool


def units(graph: Graph, origins: Origins) -> list[Unit]:
    """The units of a float graph, in execution order. Operators of one Keras layer are never parted."""
    leader = list(range(len(graph.operators)))

    def find(i: int) -> int:
        while leader[i] != i:
            i = leader[i]
        return i

    producers = graph.producers()
    of_layer: dict[str, int] = {}
    for op in graph.operators:
        before = producers.get(op.inputs[0]) if op.inputs else None
        if op.name not in _WEIGHTED and before is not None:
            leader[find(op.index)] = find(before.index)
        for path in origins.of(graph, op):
            first = of_layer.setdefault(path, op.index)
            low, high = sorted((find(first), find(op.index)))
            leader[high] = low
    groups: dict[int, list[int]] = {}
    for op in graph.operators:
        groups.setdefault(find(op.index), []).append(op.index)
    return [_unit(graph, origins, members) for members in groups.values()]


def _unit(graph: Graph, origins: Origins, members: Sequence[int]) -> Unit:
    operators = [graph.operators[i] for i in members]
    main = next((op for op in operators if op.name in _WEIGHTED), operators[0])
    paths = dict.fromkeys(path for op in operators for path in origins.of(graph, op))
    four = any(op.name in _FOUR_BIT for op in operators)
    return Unit(origins.layer(graph, main), tuple(paths), tuple(members), four)


def throughout(found: Sequence[Unit], scheme: str) -> tuple[str, ...]:
    """Each unit's scheme where all have the same; int4 where there are kernels for it, else int8."""
    return tuple("int8" if scheme == "int4" and not unit.has_four_bit else scheme for unit in found)


@dataclass(frozen=True, slots=True)
class Tried:
    """A mixture that was built and measured. `drop`: percentage points of accuracy below float."""

    units: tuple[str, ...]
    outcome: Outcome
    drop: float
    meets: bool

    @property
    def cost(self) -> float:
        """What makes one of two mixtures the cheaper: bytes times instructions, where a board has a plan.

        A percent of flash thus weighs as much as a percent of time.
        """
        return (value_of(self.outcome.cost_bytes) or 0.0) * (value_of(self.outcome.work) or 1.0)


@dataclass(frozen=True, slots=True)
class Found:
    """All that was tried, the mixtures that meet the goal (the best first), and each unit's sensitivity by scheme."""

    units: tuple[Unit, ...]
    excluded: Mapping[str, str]
    sensitivity: Mapping[tuple[int, str], float]
    tried: tuple[Tried, ...]
    best: tuple[Tried, ...]


class Search:
    """One search. `reference`: float's accuracy, what drops are counted from."""

    def __init__(
        self,
        found: Sequence[Unit],
        operators: Mapping[int, str],
        goal: SearchGoal,
        *,
        reference: float,
        batch: Batch,
        progress: Progress,
    ) -> None:
        self._units, self._operators, self._goal = tuple(found), operators, goal
        self._reference, self._batch, self._progress = reference, batch, progress
        self._tried: dict[tuple[str, ...], Tried] = {}
        self._sensitivity: dict[tuple[int, str], float] = {}

    def run(self) -> Found:
        """AnswerNo `search-found-none` if nothing that was tried meets the goal."""
        uniform = self._try([self._all(scheme) for scheme in LADDER])
        excluded = {
            scheme: tried.outcome.problem or "the board cannot run it"
            for scheme, tried in zip(LADDER, uniform, strict=True)
            if not tried.outcome.runs
        }
        allowed = [scheme for scheme in LADDER if scheme not in excluded]
        self._feel([s for s in LADDER if s != "float32" and (s in allowed or s == "int8")])
        for low, high in combinations(allowed, 2):
            wanted = self._is_useful(low, high)
            if wanted or self._is_trade(low, high):
                self._mix(low, high, wanted)
        self._improve(allowed)
        if not self._meeting():
            raise self._none()
        return Found(self._units, excluded, self._sensitivity, tuple(self._tried.values()), tuple(self._meeting()))

    def _all(self, scheme: str) -> tuple[str, ...]:
        return throughout(self._units, scheme)

    def schemes(self, chosen: Sequence[str]) -> Schemes:
        """Each operator's scheme, from each unit's."""
        result = [""] * len(self._operators)
        for unit, scheme in zip(self._units, chosen, strict=True):
            for i in unit.operators:
                result[i] = "int8" if scheme == "int4" and self._operators[i] not in _FOUR_BIT else scheme
        return tuple(result)

    def _try(self, mixtures: Sequence[tuple[str, ...]]) -> list[Tried]:
        new = [m for m in dict.fromkeys(mixtures) if m not in self._tried]
        outcomes = self._batch([Trial(self.schemes(m)) for m in new], self._progress)
        for mixture, outcome in zip(new, outcomes, strict=True):
            accuracy = value_of(outcome.accuracy)
            drop = np.inf if accuracy is None else 100 * (self._reference - accuracy)
            self._tried[mixture] = Tried(mixture, outcome, drop, self._meets(outcome, drop))
        return [self._tried[m] for m in mixtures]

    def _accurate(self, drop: float) -> bool:
        return self._goal.max_drop is None or drop <= self._goal.max_drop + 1e-9

    def _affordable(self, outcome: Outcome) -> bool:
        limits = ((outcome.cost_bytes, self._goal.max_flash_bytes), (outcome.latency, self._goal.max_latency_us))
        return all(limit is None or (value_of(q) is not None and (value_of(q) or 0) <= limit) for q, limit in limits)

    def _meets(self, outcome: Outcome, drop: float) -> bool:
        return outcome.fits and self._accurate(drop) and self._affordable(outcome)

    def _feel(self, schemes: Sequence[str]) -> None:
        """Each unit alone in each scheme, all others in float."""
        asked = [
            (n, scheme)
            for scheme in schemes
            for n, unit in enumerate(self._units)
            if scheme != "int4" or unit.has_four_bit
        ]
        trials = []
        for n, scheme in asked:
            mixture = ["float32"] * len(self._units)
            mixture[n] = scheme
            trials.append(Trial(self.schemes(mixture), quick=True))

        def shown(_: str, done: int, total: int | None) -> None:
            self._progress("sensitivity of the layers", done, total)

        for key, outcome in zip(asked, self._batch(trials, shown), strict=True):
            self._sensitivity[key] = outcome.error

    def _is_useful(self, low: str, high: str) -> bool:
        cheap, dear = (self._tried[self._all(scheme)] for scheme in (low, high))
        better = self._accurate(dear.drop) and not self._accurate(cheap.drop)
        smaller = self._affordable(cheap.outcome) and not self._affordable(dear.outcome)
        fits = cheap.outcome.fits and not dear.outcome.fits
        return better or smaller or fits

    def _is_trade(self, low: str, high: str) -> bool:
        """Whether one costs less and the other loses less: a curve between them is worth drawing."""
        cheap, dear = (self._tried[self._all(scheme)] for scheme in (low, high))
        return cheap.cost < dear.cost and cheap.drop > dear.drop

    def _mix(self, low: str, high: str, wanted: bool) -> None:
        """The most sensitive units in `high`, the others in `low`: here and there, and where `wanted` all about the
        places where the goal begins to be met."""
        start, end = self._all(low), self._all(high)
        order = sorted(range(len(self._units)), key=lambda n: (-self._felt(n, low), n))
        order = [n for n in order if start[n] != end[n]]

        def mixture(count: int) -> tuple[str, ...]:
            raised = set(order[:count])
            return tuple(end[n] if n in raised else start[n] for n in range(len(start)))

        steps = _STEPS if wanted else _DRAWN
        counts = sorted({int(c) for c in np.linspace(0, len(order), steps + 2).round()})
        tried = self._try([mixture(c) for c in counts])
        if wanted:
            known = pairwise(zip(counts, tried, strict=True))
            edges = [(a, b) for (a, one), (b, other) in known if one.meets != other.meets]
            self._try([mixture(c) for a, b in edges for c in range(a + 1, b)])

    def _felt(self, unit: int, scheme: str) -> float:
        return self._sensitivity.get((unit, scheme), self._sensitivity.get((unit, "int8"), 0.0))

    def _improve(self, allowed: Sequence[str]) -> None:
        """Change single units of the best mixture while that gives a better one."""
        for _ in range(_ROUNDS):
            meeting = self._meeting()
            if not meeting:
                return
            best = meeting[0]
            cheaper = self._goal.max_drop is not None
            neighbours = []
            for n, scheme in enumerate(best.units):
                place = allowed.index(scheme) if scheme in allowed else -1
                step = place - 1 if cheaper else place + 1
                if place < 0 or not 0 <= step < len(allowed):
                    continue
                if allowed[step] == "int4" and not self._units[n].has_four_bit:
                    continue
                neighbours.append((*best.units[:n], allowed[step], *best.units[n + 1 :]))
            self._try(neighbours)
            if self._meeting()[0] is best:
                return

    def _meeting(self) -> list[Tried]:
        """Those that meet the goal: the cheapest first, or without a limit on the drop the most accurate first."""
        meeting = [t for t in self._tried.values() if t.meets]
        if self._goal.max_drop is not None:
            return sorted(meeting, key=lambda t: (t.cost, t.outcome.error))
        return sorted(meeting, key=lambda t: (t.drop, t.outcome.error, t.cost))

    def _none(self) -> AnswerNo:
        running = [t for t in self._tried.values() if t.outcome.runs]
        if not running:
            why = f"The board runs none of the schemes: {next(iter(self._tried.values())).outcome.problem}."
            return AnswerNo("search-found-none", "No scheme runs on this board.", where=self._goal.board, why=why)
        if self._goal.max_latency_us is not None and all(isinstance(t.outcome.latency, Unknown) for t in running):
            reason = next(t.outcome.latency.reason for t in running if isinstance(t.outcome.latency, Unknown))
            return AnswerNo(
                "search-found-none",
                "There is no latency to hold against --max-latency.",
                where=self._goal.board,
                why=reason,
                try_="Leave --max-latency out, or name a board with an estimate.",
            )
        accurate, small = min(running, key=lambda t: t.drop), min(running, key=lambda t: t.cost)
        return AnswerNo(
            "search-found-none",
            f"None of {len(running)} mixtures meets the goal.",
            where=self._goal.board,
            why=f"The most accurate loses {accurate.drop:.2f} points and takes {_bytes(accurate.outcome.cost_bytes)}; "
            f"the cheapest takes {_bytes(small.outcome.cost_bytes)} and loses {small.drop:.2f} points.",
            try_=("Allow more.", "Train with quantization: edgeq convert --qat."),
        )


def _bytes(quantity: Quantity) -> str:
    value = value_of(quantity)
    return "an unknown number of bytes" if value is None else f"{value:,.0f} bytes"


def default_and_layers(
    found: Sequence[Unit], chosen: Sequence[str], assign: Callable[[str, Mapping[str, str]], Schemes], wanted: Schemes
) -> tuple[str, dict[str, str]]:
    """The chosen mixture as `--scheme` and `--layer`: the scheme most operators have, and layers by name.

    `assign` is `mixture.assign` for the model; `wanted` the schemes it must come to.
    """
    default = Counter(scheme for unit, scheme in zip(found, chosen, strict=True) for _ in unit.operators).most_common(1)
    named = {path: scheme for unit, scheme in zip(found, chosen, strict=True) for path in unit.layers}
    # A pattern matches nested layers too, so these come later.
    ordered = dict(sorted(named.items(), key=lambda item: item[0].count("/")))
    few = {path: scheme for path, scheme in ordered.items() if scheme != default[0][0]}
    return default[0][0], few if assign(default[0][0], few) == wanted else ordered


def on_curve(tried: Sequence[Tried]) -> list[Tried]:
    """Of the mixtures that run, those that no other beats in both cost and accuracy; the cheapest first."""
    curve: list[Tried] = []
    for one in sorted((t for t in tried if t.outcome.runs), key=lambda t: (t.cost, t.drop, t.outcome.error)):
        if not curve or one.drop < curve[-1].drop:
            curve.append(one)
    return curve


@dataclass(frozen=True, slots=True)
class SearchReport:
    """What a search found. Costs are relative to the least.

    `metric` is `accuracy`, or `agreement` with float where the data have no labels. `default`, `layers`: the chosen
    mixture as `--scheme` and `--layer`.
    """

    goal: SearchGoal
    board: str
    metric: str
    reference: float
    samples: int
    found: Found
    chosen: Tried
    default: str
    layers: Mapping[str, str]

    def to_json(self) -> dict[str, object]:
        """The report as a JSON object."""
        curve = on_curve(self.found.tried)
        least = min(t.cost for t in self.found.tried if t.outcome.runs)
        uniform = {throughout(self.found.units, scheme) for scheme in LADDER}
        return {
            "goal": asdict(self.goal),
            "board": self.board,
            "metric": self.metric,
            "float": self.reference,
            "samples": self.samples,
            "scheme": self.default,
            "layers": dict(self.layers),
            "excluded": dict(self.found.excluded),
            "units": [
                {
                    "name": unit.name,
                    "layers": list(unit.layers),
                    "scheme": scheme,
                    "sensitivity": {
                        s: self.found.sensitivity[n, s] for s in LADDER if (n, s) in self.found.sensitivity
                    },
                }
                for n, (unit, scheme) in enumerate(zip(self.found.units, self.chosen.units, strict=True))
            ],
            "trials": [
                {
                    "schemes": list(t.units),
                    "accuracy": t.outcome.accuracy.to_json(),
                    "drop_points": t.drop if np.isfinite(t.drop) else None,
                    "cost": t.cost / least if t.outcome.runs else None,
                    "flash": t.outcome.cost_bytes.to_json(),
                    "work": t.outcome.work.to_json(),
                    "ram": t.outcome.ram_bytes.to_json(),
                    "latency": t.outcome.latency.to_json(),
                    "runs": t.outcome.runs,
                    "fits": t.outcome.fits,
                    "meets": t.meets,
                    "problem": t.outcome.problem,
                    "on_curve": t in curve,
                    "uniform": t.units in uniform,
                    "chosen": t is self.chosen,
                }
                for t in self.found.tried
            ],
        }
