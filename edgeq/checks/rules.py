"""The rules. A rule is a function whose docstring is the user's sentence; the tables of the manual come from here.

    @rule("float-input", "warning", "generated-c", remedy="Convert with --io int8.", fixable=True)
    def float_input(model: Model) -> Iterator[Found]:
        \"\"\"A float input is quantized on the device at every inference.\"\"\"
        ...

A rule yields one Found for each place it applies to, with the value found there, and nothing where all is well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from inspect import getdoc

from edgeq.boards.profile import Board
from edgeq.checks.findings import Finding, Severity
from edgeq.checks.simplify import no_ops, round_trips, separate_activations, swishes
from edgeq.graph.ir import Graph, Operator, TensorType

FLOATS = (TensorType.FLOAT32, TensorType.FLOAT16, TensorType.FLOAT64, TensorType.BFLOAT16)
QUANTIZED = (TensorType.INT8, TensorType.UINT8, TensorType.INT16, TensorType.INT4)


@dataclass(frozen=True, slots=True)
class Model:
    """What a rule sees."""

    graph: Graph
    board: Board
    unsupported: Sequence[tuple[Operator, str, str]]
    """What the generated C cannot do: operator, reason, what to try."""


@dataclass(frozen=True, slots=True)
class Found:
    """A place where a rule applies; `remedy` overrides the rule's own. by_hand: --fix cannot do it at this place."""

    value: str
    operator: Operator | None = None
    tensor: str | None = None
    remedy: str | None = None
    by_hand: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as registered; `executors` are the kinds of executor whose boards it concerns."""

    id: str
    severity: Severity
    executors: frozenset[str]
    sentence: str
    remedy: str | None
    fixable: bool
    function: Callable[[Model], Iterable[Found]]

    def findings(self, model: Model) -> Iterator[Finding]:
        for found in self.function(model):
            yield Finding(
                rule=self.id,
                severity=self.severity,
                sentence=self.sentence,
                found=found.value,
                operator=None if found.operator is None else found.operator.index,
                name=None if found.operator is None else found.operator.custom_code or found.operator.name,
                tensor=found.tensor,
                remedy=found.remedy or self.remedy,
                fixable=self.fixable and not found.by_hand,
            )


RULES: dict[str, Rule] = {}
ALL = ("generated-c", "litert-xnnpack", "edge-tpu", "ethos-u")


def rule(
    id_: str, severity: Severity, *executors: str, remedy: str | None = None, fixable: bool = False
) -> Callable[[Callable[[Model], Iterable[Found]]], Callable[[Model], Iterable[Found]]]:
    """Register a rule for boards with one of the executors (default: all)."""

    def register(function: Callable[[Model], Iterable[Found]]) -> Callable[[Model], Iterable[Found]]:
        sentence = " ".join((getdoc(function) or "").split())
        if id_ in RULES or not sentence:
            raise ValueError(f"rule {id_} is registered twice or has no sentence")
        RULES[id_] = Rule(id_, severity, frozenset(executors or ALL), sentence, remedy, fixable, function)
        return function

    return register


def run_rules(model: Model) -> tuple[Finding, ...]:
    """The findings of every rule that concerns the board's executors."""
    kinds = {executor.kind for executor in model.board.executors}
    return tuple(finding for one in RULES.values() if one.executors & kinds for finding in one.findings(model))


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape) or "scalar"


@rule(
    "operator-not-supported",
    "error",
    "generated-c",
)
def operator_not_supported(model: Model) -> Iterator[Found]:
    """Every operator must be one that EdgeQ can compile to C, with these types, shapes and options."""
    for operator, reason, try_ in model.unsupported:
        output = model.graph.tensors[operator.outputs[0]] if operator.outputs else None
        yield Found(
            f"version {operator.version}: {reason}", operator, None if output is None else output.name, try_ or None
        )


@rule(
    "custom-operator",
    "error",
    "litert-xnnpack",
    remedy="Convert without SELECT_TF_OPS, or replace the layer by built-in operators.",
)
def custom_operator(model: Model) -> Iterator[Found]:
    """The LiteRT wheel has no custom operators besides TFLite_Detection_PostProcess, and no Flex operators."""
    if model.board.executor("generated-c"):
        return
    for operator in model.graph.operators:
        code = operator.custom_code
        if code and code != "TFLite_Detection_PostProcess" and not code.startswith("edgetpu-custom-op"):
            yield Found(code, operator)


@rule("dynamic-shape", "warning", remedy="Fix every dimension when you convert: input_shape without None.")
def dynamic_shape(model: Model) -> Iterator[Found]:
    """A dimension that is only known at run time is taken as the file's placeholder."""
    for index in model.graph.inputs:
        tensor = model.graph.tensors[index]
        if -1 in tensor.shape_signature[1:]:
            yield Found(_shape(tensor.shape_signature).replace("-1", "?"), tensor=tensor.name)


@rule("dynamic-batch", "note", remedy="Fix the batch at 1.", fixable=True)
def dynamic_batch(model: Model) -> Iterator[Found]:
    """The batch is left open; it is taken as 1."""
    for index in model.graph.inputs:
        tensor = model.graph.tensors[index]
        if tensor.shape_signature[:1] == (-1,):
            yield Found(_shape(tensor.shape_signature).replace("-1", "?"), tensor=tensor.name)


@rule("float-model", "warning", remedy="Quantize the model: edgeq convert MODEL --data DATA.")
def float_model(model: Model) -> Iterator[Found]:
    """A float model takes four times the memory of an int8 one, and accelerators leave it on the CPU."""
    graph = model.graph
    weights = [t for t in graph.tensors if t.data is not None and t.elements > 1]
    heavy = sum(t.size_bytes for t in weights if t.type in FLOATS)
    if heavy > sum(t.size_bytes for t in weights) / 2:
        yield Found(f"{heavy:,} bytes of float constants")


@rule(
    "float-input",
    "warning",
    "generated-c",
    "edge-tpu",
    "ethos-u",
    remedy="Use int8 inputs: edgeq convert --io int8.",
    fixable=True,
)
def float_input(model: Model) -> Iterator[Found]:
    """A float input of a quantized model takes four times the memory, and is quantized on the device each time."""
    for index in model.graph.inputs:
        tensor = model.graph.tensors[index]
        readers = [op for op in model.graph.operators if index in op.inputs]
        quantize = next((op for op in readers if op.name == "QUANTIZE"), None)
        if tensor.type in FLOATS and quantize is not None:
            value = f"{tensor.type.name} {_shape(tensor.shape)}"
            yield Found(value, quantize, tensor.name, by_hand=len(readers) > 1)


@rule(
    "float-output",
    "warning",
    "generated-c",
    "edge-tpu",
    "ethos-u",
    remedy="Use int8 outputs: edgeq convert --io int8.",
    fixable=True,
)
def float_output(model: Model) -> Iterator[Found]:
    """A float output of a quantized model is computed on the device each time; the int8 value and its scale suffice."""
    for operator in model.graph.operators:
        if operator.name == "DEQUANTIZE" and operator.outputs[0] in model.graph.outputs:
            tensor = model.graph.tensors[operator.outputs[0]]
            if not model.graph.tensors[operator.inputs[0]].is_constant:
                value = f"{tensor.type.name} {_shape(tensor.shape)}"
                read = any(tensor.index in other.inputs for other in model.graph.operators)
                yield Found(value, operator, tensor.name, by_hand=read)


@rule(
    "float-island", "warning", remedy="Replace the layer by one with an int8 kernel, or let it stay float on purpose."
)
def float_island(model: Model) -> Iterator[Found]:
    """An operator computes in float inside a quantized model: slow without an FPU, and on no accelerator."""
    graph = model.graph
    quantized = any(t.type in QUANTIZED and t.quantization and not t.is_constant for t in graph.tensors)
    if not quantized:
        return
    for operator in graph.operators:
        if operator.name in ("QUANTIZE", "DEQUANTIZE", "CUSTOM", "CAST"):
            continue
        types = [graph.tensors[i].type for i in (*operator.inputs, *operator.outputs) if i >= 0]
        if any(t in FLOATS for t in types):
            tensor = graph.tensors[operator.outputs[0]]
            yield Found(f"{tensor.type.name} {_shape(tensor.shape)}", operator, tensor.name)


@rule("redundant-requantize", "note", remedy="Remove the pair; the scales are equal.", fixable=True)
def redundant_requantize(model: Model) -> Iterator[Found]:
    """A QUANTIZE changes neither type nor scale nor zero point, so it copies for nothing."""
    for operator in model.graph.operators:
        if operator.name != "QUANTIZE":
            continue
        source, result = (model.graph.tensors[i] for i in (operator.inputs[0], operator.outputs[0]))
        if source.type is result.type and source.quantization == result.quantization:
            value = f"{source.type.name} {_shape(source.shape)}"
            yield Found(value, operator, result.name, by_hand=result.index in model.graph.outputs)


@rule("no-operation", "note", remedy="Remove it; its result is its input.", fixable=True)
def no_operation(model: Model) -> Iterator[Found]:
    """An operator hands on what it gets, so it copies for nothing, and accelerators may not know it."""
    for operator in no_ops(model.graph):
        yield Found(_shape(model.graph.tensors[operator.outputs[0]].shape), operator)


@rule("quantize-round-trip", "note", remedy="Remove the pair; the values come back as they were.", fixable=True)
def quantize_round_trip(model: Model) -> Iterator[Found]:
    """A tensor is dequantized and quantized again with the same scale and zero point."""
    for before, after in round_trips(model.graph):
        yield Found(f"operators {before.index} and {after.index}", after)


@rule("separate-activation", "note", remedy="Let the operator before clamp its own result.", fixable=True)
def separate_activation(model: Model) -> Iterator[Found]:
    """An activation is an operator of its own although the one before could clamp its result itself."""
    for before, activation in separate_activations(model.graph):
        yield Found(f"{before.name} {before.index}, then {activation.name}", activation)


@rule(
    "rare-activation",
    "note",
    "edge-tpu",
    "generated-c",
    remedy="Replace SWISH (x * sigmoid(x)) by HARD_SWISH (edgeq check --fix --approximate), or by RELU6 in training.",
)
def rare_activation(model: Model) -> Iterator[Found]:
    """SWISH becomes LOGISTIC and MUL: two passes over the tensor where HARD_SWISH or RELU6 is one, or none."""
    pairs = list(swishes(model.graph))
    if pairs:
        yield Found(f"{len(pairs)} pairs of LOGISTIC and MUL", pairs[0][0])
