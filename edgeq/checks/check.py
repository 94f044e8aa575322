"""Graph x Board -> CheckReport. Pure: nothing is generated, executed or read."""

from __future__ import annotations

from functools import cached_property

from edgeq.boards.profile import Board, EdgeTpu, EthosU, LiteRt
from edgeq.checks import coral, coral_compiler, ethos, linux, speed
from edgeq.checks.coral_compiler import CompilerResult
from edgeq.checks.ethos import VelaResult
from edgeq.checks.findings import CheckReport, Finding, Placement, Use
from edgeq.checks.fit import memory_findings, memory_of
from edgeq.checks.rules import Model, run_rules
from edgeq.codegen import passes
from edgeq.codegen.plan import Plan, plan, target, unsupported
from edgeq.codegen.regions import spread
from edgeq.codegen.step import Family, Memo
from edgeq.errors import ModelError
from edgeq.graph.ir import Graph, Operator, Tensor, TensorType
from edgeq.measure import Quantity, Unknown

Refused = list[tuple[Operator, str, str]]

_ORDER = {"error": 0, "warning": 1, "note": 2}


class Plans:
    """What the compiler says of one graph, kept from board to board: boards with the same kernels share a plan."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._plans: dict[tuple[Family, bool], Plan] = {}
        self._unsupported: dict[bool, Refused] = {}
        self._memo: Memo = {}

    @cached_property
    def _prepared(self) -> Graph:
        return passes.run(self._graph)

    def unsupported(self, board: Board) -> Refused:
        """Every operator that cannot be lowered for a board, with reason and what to try."""
        fpu = self.key(board)[1]
        if fpu not in self._unsupported:
            self._unsupported[fpu] = unsupported(self._graph, board=board, prepared=self._prepared, memo=self._memo)
        return self._unsupported[fpu]

    def of(self, board: Board) -> Plan:
        """The plan for a board's kernels. ModelError where there is none."""
        key = self.key(board)
        if key not in self._plans:
            self._plans[key] = plan(self._graph, board, prepared=self._prepared, memo=self._memo)
        return self._plans[key]

    def key(self, board: Board) -> tuple[Family, bool]:
        """What a plan depends on of a board: the core's family of kernels, and whether it computes in float32."""
        goal = target(board, "balanced")
        return goal.family, goal.fpu or not self._has_floats

    @cached_property
    def _has_floats(self) -> bool:
        return any(tensor.type is TensorType.FLOAT32 for tensor in self._graph.tensors)


def check(
    graph: Graph,
    board: Board,
    *,
    name: str | None = None,
    plans: Plans | None = None,
    vela: VelaResult | None = None,
    edge_tpu: CompilerResult | None = None,
) -> CheckReport:
    """Will every operator run where the user thinks it runs, does it fit, how fast, and if not, what to change.

    `plans` are those of the same graph, if it is checked against several boards; `vela` is what Vela said of the model,
    on a board with an Ethos-U, `edge_tpu` what edgetpu_compiler said, on one with an Edge TPU.
    """
    plans = plans or Plans(graph)
    findings = list(run_rules(Model(graph, board, plans.unsupported(board) if board.executor("generated-c") else ())))
    placements: tuple[Placement, ...] = ()
    memory: tuple[Use, ...] = ()
    details: dict[str, Quantity] = {}
    latency: Quantity = Unknown("there is no basis for an estimate on this board")
    if board.executor("generated-c"):
        blocked = {f.operator for f in findings if f.rule == "operator-not-supported" and f.operator is not None}
        plan = None if blocked else _plan(plans, board, findings)
        placements = _generated(graph, plan, blocked)
        if plan is not None:
            memory = memory_of(plan, board)
            latency = speed.of_plan(plan, board)
            findings.extend(memory_findings(memory, board))
    tpu = board.executor("edge-tpu")
    runtime = board.executor("litert-xnnpack")
    if isinstance(runtime, LiteRt):
        placements = linux.placements(graph)
        memory = linux.memory_of(graph, board)
        findings.extend(linux.findings(memory, board))
        latency = speed.of_linux(graph, board)
    if isinstance(tpu, EdgeTpu):
        predicted = coral.predict(graph, tpu.runtime_version, compiler=tpu.compiler_major)
        findings.extend(coral_compiler.findings(predicted, edge_tpu))
        placed = predicted if edge_tpu is None else coral_compiler.compiled_as(predicted, edge_tpu)
        placements = coral.placements(graph, placed)
        findings.extend(coral.findings(graph, placed, tpu))
        details = coral.details(graph, placed, tpu)
        if edge_tpu is not None:
            details |= coral_compiler.details(predicted, edge_tpu)
        latency = speed.of_edge_tpu(graph, placed, tpu)
    npu = board.executor("ethos-u")
    if isinstance(npu, EthosU):
        latency = ethos.latency(vela, npu, board.core.clock_hz)
        if vela is not None:
            findings.extend(ethos.findings(vela))
            details = ethos.details(vela)
    findings.sort(key=lambda f: (_ORDER[f.severity], -1 if f.operator is None else f.operator))
    return CheckReport(
        board=board.id,
        board_name=board.name,
        model=name or graph.name,
        model_sha256=graph.digest,
        findings=tuple(findings),
        placements=placements,
        memory=memory,
        latency=latency,
        details=details,
    )


def _plan(plans: Plans, board: Board, findings: list[Finding]) -> Plan | None:
    """The compile plan; where there is none although each operator is supported, the reason is a finding."""
    try:
        return spread(plans.of(board), board)
    except ModelError as error:
        findings.append(
            Finding(
                rule=error.code,
                severity="error",
                sentence=error.what,
                found=error.why or error.where or "",
                remedy=error.try_[0] if error.try_ else None,
            )
        )
        return None


def _generated(graph: Graph, plan: Plan | None, blocked: set[int]) -> tuple[Placement, ...]:
    """One placement for each step of the plan, or, without a plan, for each operator."""
    if plan is None:
        return tuple(
            _placement(graph.tensors[op.outputs[0]], op.index, op.custom_code or op.name, None)
            if op.index in blocked
            else _placement(graph.tensors[op.outputs[0]], op.index, op.name, "supported")
            for op in graph.operators
            if op.outputs
        )
    tensors = plan.graph.tensors
    return tuple(
        _placement(tensors[step.outputs[0]], step.operator, step.name, step.kernel, step.macs) for step in plan.steps
    )


def _placement(output: Tensor, operator: int, name: str, status: str | None, macs: int = 0) -> Placement:
    executor = "none" if status is None else "generated-c"
    status = status or "not supported"
    return Placement(operator, name, output.name, output.shape, output.type.name, executor, status, macs)
