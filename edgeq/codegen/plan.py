"""Graph x Board -> Plan: passes, a Step per operator, an address for every tensor."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from edgeq import __version__
from edgeq.boards.profile import Board
from edgeq.codegen import passes
from edgeq.codegen.buffers import VIEW, Placed, cut_tensors, is_view, place
from edgeq.codegen.memory import Arena
from edgeq.codegen.registry import candidates
from edgeq.codegen.select import leanest, select, smallest
from edgeq.codegen.step import C_TYPES, NHWC, Constant, Memo, Node, Optimize, Step, Target, Unsupported
from edgeq.errors import ModelError, UsageError
from edgeq.graph.ir import Graph, Operator

_C_KEYWORDS = frozenset(
    {
        "auto",
        "bool",
        "break",
        "case",
        "char",
        "const",
        "continue",
        "default",
        "do",
        "double",
        "edgeq",
        "else",
        "enum",
        "extern",
        "float",
        "for",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "main",
        "register",
        "restrict",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "typedef",
        "union",
        "unsigned",
        "void",
        "volatile",
        "while",
    }
)


_KERNEL_ALIGN = 4
"""What kernels for a certain core may assume of a tensor's address; the portable ones assume its type's alignment."""
_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Patches:
    """How the first layers are executed patch by patch, and what it costs.

    operators: of the stage; count: patches, of `rows` rows of its result. multiplications: of the whole stage;
    repeated: those done more than once, in addition. whole_arena_bytes: the arena without patches.
    """

    operators: int
    count: int
    rows: int
    multiplications: int
    repeated: int
    whole_arena_bytes: int


@dataclass(frozen=True, slots=True)
class Region:
    """A region of the board's RAM that holds a part of the arena: `size_bytes` from address `offset` on."""

    name: str
    offset: int
    size_bytes: int
    lower_bound_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Everything the emitter needs: the graph after passes, its steps, where each tensor lies, what it costs.

    `source` is the graph as read; `addresses` maps tensor -> arena offset; `scratch` maps step index -> offset.
    `regions`: where the arena lies, in the order of their offsets; empty: whole in the board's first region of RAM.
    `ram_bytes`: the limit that was asked for.
    """

    name: str
    source: Graph
    graph: Graph
    board: str
    compile_options: tuple[str, ...]
    optimize: Optimize
    tool_version: str
    steps: tuple[Step, ...]
    buffers: tuple[Placed, ...]
    addresses: Mapping[int, int]
    scratch: Mapping[int, int]
    arena: Arena
    patches: Patches | None = None
    ram_bytes: int | None = None
    regions: tuple[Region, ...] = ()

    @property
    def arena_bytes(self) -> int:
        return max(16, self.arena.size_bytes)

    @property
    def constants_bytes(self) -> int:
        """Weights, biases, tables: the arrays, equal ones once, without the kernels' parameter structures."""
        return _constants_bytes(self.steps)

    @property
    def macs(self) -> int:
        return sum(step.macs for step in self.steps)


@lru_cache(maxsize=8)
def _constants_bytes(steps: tuple[Step, ...]) -> int:
    arrays = [c for step in steps for c in step.constants if isinstance(c, Constant)]
    distinct = {(c.c_type, c.align_bytes, np.ascontiguousarray(c.data).tobytes()): c.size_bytes for c in arrays}
    return sum(distinct.values())


def c_name(name: str) -> str:
    """A model's name as a C identifier in lower case (`My-Model 1` -> `my_model_1`)."""
    identifier = re.sub(r"[^0-9a-z]+", "_", name.lower()).strip("_") or "model"
    if identifier[0].isdigit() or identifier in _C_KEYWORDS:
        identifier = f"model_{identifier}"
    return identifier


def target(board: Board | None, optimize: Optimize) -> Target:
    """What to generate for; without a board, a core without extensions."""
    if board is None:
        return Target("generic", frozenset(), optimize)
    fpu = board.core.architecture == "host" or bool({"fpu-sp", "fpu-dp"} & set(board.core.features))
    return Target(board.core.name, frozenset(board.core.features), optimize, fpu)


def _describe(graph: Graph, operator: Operator) -> str:
    def one(index: int) -> str:
        tensor = graph.tensors[index]
        return f"{tensor.name} ({tensor.type.name} {list(tensor.shape)})"

    tensors = [one(i) for i in operator.inputs if i >= 0 and not graph.tensors[i].is_constant]
    results = [one(i) for i in operator.outputs]
    flow = f"{', '.join(tensors)} -> {', '.join(results)}"
    return f"operator {operator.index} {operator.name} version {operator.version}: {flow}"


def _check_tensors(graph: Graph, operator: Operator) -> None:
    for index in (*operator.inputs, *operator.outputs):
        if index < 0:
            continue
        tensor = graph.tensors[index]
        if tensor.type not in C_TYPES and not (tensor.is_constant or tensor.type.name == "RESOURCE"):
            raise Unsupported(f"Its tensor {tensor.name} is {tensor.type.name}.", "Convert the model to int8.")
        if any(d <= 0 for d in tensor.shape):
            raise Unsupported(f"Its tensor {tensor.name} has the shape {list(tensor.shape)}.", "Fix every dimension.")
        if -1 in tensor.shape_signature[1:]:
            raise Unsupported(f"Its tensor {tensor.name} has a dynamic shape.", "Convert with fixed input shapes.")


def _candidates(graph: Graph, operator: Operator, for_target: Target, memo: Memo) -> list[Step]:
    if not is_view(operator):
        _check_tensors(graph, operator)
    try:
        return candidates(Node(graph, operator, for_target, memo))
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise Unsupported(f"It is malformed: {error}.", "Convert the model again.") from error


def unsupported(
    graph: Graph, *, board: Board | None = None, prepared: Graph | None = None, memo: Memo | None = None
) -> list[tuple[Operator, str, str]]:
    """Every operator that cannot be lowered: (operator, reason, what to try). `prepared`, `memo`: see plan.

    With a board, also those that its core does not compute (float32 without a floating-point unit).
    """
    memo = {} if memo is None else memo
    generic = replace(target(board, "balanced"), features=frozenset())
    found = []
    prepared = prepared or passes.run(graph)
    for operator in prepared.operators:
        if VIEW in operator.options:
            continue
        try:
            _candidates(prepared, operator, generic, memo)
        except Unsupported as error:
            found.append((operator, error.reason, error.try_))
    return found


def _compile_options(steps: Sequence[Step], optimize: Optimize) -> tuple[str, ...]:
    """What the bundle's CMakeLists.txt sets. Float kernels round every product: no fused multiply-add."""
    rounded = ("-ffp-contract=off",) if any(source.endswith("_f32.c") for s in steps for source in s.sources) else ()
    return ("-std=c99", "-Os" if optimize == "flash" else "-O2", *rounded)


def _suits(step: Step, cut: Mapping[int, int]) -> bool:
    """Whether a step leaves the rows of buffers that are cut where they are, and writes them where it can."""
    plain = all(step.layout(t) == NHWC for t in (*step.inputs, *step.outputs) if t in cut)
    return plain and (step.covers == 1 or all(cut.get(t, 0) % _KERNEL_ALIGN == 0 for t in step.outputs))


def plan(
    graph: Graph,
    board: Board,
    *,
    name: str | None = None,
    optimize: Optimize = "balanced",
    prepared: Graph | None = None,
    memo: Memo | None = None,
) -> Plan:
    """Decide everything about the generated code. Pure. `prepared` is passes.run(graph), if the caller has it.

    `memo`, of the same `prepared`, keeps for the next board what no board changes.

    ModelError `operator-not-supported` names the first operator that cannot be lowered, and how many there are.
    """
    if optimize not in ("speed", "balanced", "ram", "flash"):
        raise UsageError("bad-option", f"--optimize {optimize} is not known.", try_="speed, balanced, ram or flash")
    prepared = prepared or passes.run(graph)
    goal = target(board, optimize)
    memo = {} if memo is None else memo
    listed: list[list[Step]] = []
    failures: list[tuple[Operator, Unsupported]] = []
    cut = cut_tensors(prepared)
    for operator in prepared.operators:
        if VIEW in operator.options:
            continue
        aligned = all(cut.get(t, 0) % _KERNEL_ALIGN == 0 for t in (*operator.inputs, *operator.outputs))
        try:
            made = _candidates(prepared, operator, goal if aligned else replace(goal, features=_NONE, core=""), memo)
            if not is_view(operator):
                listed.append([step for step in made if _suits(step, cut)])
        except Unsupported as error:
            failures.append((operator, error))
    if failures:
        operator, reason = failures[0]
        more = (
            f" {len(failures) - 1} more operators are not supported; `edgeq check` lists them." if failures[1:] else ""
        )
        raise ModelError(
            "operator-not-supported",
            f"{operator.name} cannot be compiled to C.{more}",
            where=_describe(prepared, operator),
            why=reason.reason,
            try_=reason.try_ or (),
        )
    lowered = replace(prepared, operators=tuple(op for op in prepared.operators if not is_view(op)))
    if optimize == "ram":
        steps = smallest(lowered, listed, lambda chosen: place(prepared, chosen)[0].size_bytes)
    elif optimize == "flash":
        steps = leanest(lowered, listed)
    else:
        steps = select(lowered, listed, optimize)
    arena, (placed, addresses, scratch) = place(prepared, steps)
    return Plan(
        name=c_name(name or graph.name or "model"),
        source=graph,
        graph=prepared,
        board=board.id,
        compile_options=_compile_options(steps, optimize),
        optimize=optimize,
        tool_version=__version__,
        steps=steps,
        buffers=placed,
        addresses=addresses,
        scratch=scratch,
        arena=arena,
    )
