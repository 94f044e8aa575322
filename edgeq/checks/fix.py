"""Remedies that are mechanical: `edgeq check --fix`. What each keeps of the outputs is part of its result.

Those of `fix` keep every output, as a number. `approximate` ones do not, and are applied only when asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from edgeq.checks.rules import FLOATS
from edgeq.checks.simplify import no_ops, round_trips, separate_activations, swishes
from edgeq.graph.ir import Graph, Operator, Signature, Tensor, TensorType


@dataclass(frozen=True, slots=True)
class Fixed:
    """A remedy as applied: the rule it answers, what was changed, what is kept of the outputs."""

    rule: str
    what: str
    kept: str

    def to_json(self) -> dict[str, object]:
        return {"rule": self.rule, "what": self.what, "kept": self.kept}


def fix(graph: Graph) -> tuple[Graph, tuple[Fixed, ...]]:
    """The graph with every mechanical remedy applied, and what was done."""
    done: list[Fixed] = []
    remedies = (_fix_batch, _drop_redundant, _drop_no_ops, _drop_round_trips, _fuse, _int8_inputs, _int8_outputs)
    for remedy in remedies:
        graph, fixed = remedy(graph)
        done.extend(fixed)
    return (_compact(graph) if done else graph), tuple(done)


def approximate(graph: Graph) -> tuple[Graph, tuple[Fixed, ...]]:
    """The graph with each SWISH replaced by HARD_SWISH, which keeps the tensors' scales; the outputs change."""
    fixed: list[Fixed] = []
    for logistic, product in swishes(graph):
        source, result = graph.tensors[logistic.inputs[0]], graph.tensors[product.outputs[0]]
        plain = product.options.get("fused_activation_function", "NONE") == "NONE"
        if not plain or source.type is not result.type or source.type not in (TensorType.FLOAT32, TensorType.INT8):
            continue
        if source.shape != result.shape or logistic.outputs[0] in graph.outputs:
            continue
        hard = Operator(product.index, "HARD_SWISH", 1, (source.index,), product.outputs)
        kept = (hard if op is product else op for op in graph.operators if op is not logistic)
        graph = replace(graph, operators=tuple(kept))
        what = f"LOGISTIC {logistic.index} and MUL {product.index} replaced by HARD_SWISH"
        fixed.append(Fixed("rare-activation", what, "outputs change"))
    return (_compact(graph) if fixed else graph), tuple(fixed)


def _fix_batch(graph: Graph) -> tuple[Graph, list[Fixed]]:
    open_inputs = [i for i in graph.inputs if graph.tensors[i].shape_signature[:1] == (-1,)]
    if not open_inputs:
        return graph, []
    tensors = tuple(
        replace(t, shape_signature=(t.shape[0], *t.shape_signature[1:])) if t.shape_signature[:1] == (-1,) else t
        for t in graph.tensors
    )
    names = ", ".join(graph.tensors[i].name for i in open_inputs)
    return replace(graph, tensors=tensors), [Fixed("dynamic-batch", f"batch of {names} fixed at 1", "outputs equal")]


def _drop_redundant(graph: Graph) -> tuple[Graph, list[Fixed]]:
    """Readers of a QUANTIZE that changes nothing read its input; one that makes an output of the model stays."""
    fixed: list[Fixed] = []
    for op in graph.operators:
        if op.name != "QUANTIZE" or op.outputs[0] in graph.outputs:
            continue
        source, result = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
        if source.type is result.type and source.quantization == result.quantization:
            graph = _without(graph, op, {result.index: source.index})
            fixed.append(Fixed("redundant-requantize", f"QUANTIZE {op.index} removed", "outputs equal"))
    return graph, fixed


def _drop_no_ops(graph: Graph) -> tuple[Graph, list[Fixed]]:
    fixed: list[Fixed] = []
    while (op := next(no_ops(graph), None)) is not None:
        graph = _without(graph, op, {op.outputs[0]: op.inputs[0]})
        fixed.append(Fixed("no-operation", f"{op.name} {op.index} removed", "outputs equal"))
    return graph, fixed


def _drop_round_trips(graph: Graph) -> tuple[Graph, list[Fixed]]:
    """The QUANTIZE goes; the DEQUANTIZE too if nobody else reads what it makes."""
    fixed: list[Fixed] = []
    while (pair := next(round_trips(graph), None)) is not None:
        before, after = pair
        graph = _without(graph, after, {after.outputs[0]: before.inputs[0]})
        if before.outputs[0] not in graph.outputs and not graph.consumers().get(before.outputs[0]):
            graph = _without(graph, graph.producers()[before.outputs[0]], {})
        what = f"DEQUANTIZE {before.index} and QUANTIZE {after.index} removed"
        fixed.append(Fixed("quantize-round-trip", what, "outputs equal"))
    return graph, fixed


def _fuse(graph: Graph) -> tuple[Graph, list[Fixed]]:
    """An activation becomes an option of the operator before, which writes the activation's result."""
    fixed: list[Fixed] = []
    while (pair := next(separate_activations(graph), None)) is not None:
        before, activation = pair
        options = {**before.options, "fused_activation_function": activation.name}
        fused = replace(before, options=options, outputs=activation.outputs)
        operators = tuple(fused if op is before else op for op in graph.operators if op is not activation)
        graph = replace(graph, operators=operators)
        what = f"{activation.name} {activation.index} fused into {before.name} {before.index}"
        fixed.append(Fixed("separate-activation", what, "outputs equal"))
    return graph, fixed


def _int8_inputs(graph: Graph) -> tuple[Graph, list[Fixed]]:
    fixed: list[Fixed] = []
    for index in graph.inputs:
        readers = [op for op in graph.operators if index in op.inputs]
        tensor = graph.tensors[index]
        if tensor.type not in FLOATS or len(readers) != 1 or readers[0].name != "QUANTIZE":
            continue
        inner = graph.tensors[readers[0].outputs[0]]
        graph = _without(graph, readers[0], {index: inner.index})
        fixed.append(
            Fixed(
                "float-input",
                f"input {tensor.name} is {_values(inner)}",
                "outputs equal for round(x / scale) + zero_point as input",
            )
        )
    return graph, fixed


def _int8_outputs(graph: Graph) -> tuple[Graph, list[Fixed]]:
    fixed: list[Fixed] = []
    producers = graph.producers()
    for index in graph.outputs:
        op = producers.get(index)
        if op is None or op.name != "DEQUANTIZE" or any(index in reader.inputs for reader in graph.operators):
            continue
        inner = graph.tensors[op.inputs[0]]
        if inner.is_constant or inner.type in FLOATS:
            continue
        graph = _without(graph, op, {index: inner.index})
        fixed.append(
            Fixed(
                "float-output",
                f"output {graph.tensors[index].name} is {_values(inner)}",
                "(q - zero_point) * scale equals the former output",
            )
        )
    return graph, fixed


def _values(tensor: Tensor) -> str:
    scale = "" if tensor.quantization is None else f", scale {tensor.scale:.9g}, zero point {tensor.zero_point}"
    return f"{tensor.type.name}{scale}"


def _without(graph: Graph, operator: Operator, renamed: Mapping[int, int]) -> Graph:
    """The graph without an operator; every use of a tensor in `renamed`, as input or output too, becomes its value."""

    def use(indices: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(renamed.get(i, i) for i in indices)

    return replace(
        graph,
        operators=tuple(replace(op, inputs=use(op.inputs)) for op in graph.operators if op is not operator),
        inputs=use(graph.inputs),
        outputs=use(graph.outputs),
        signatures=tuple(_resigned(signature, renamed) for signature in graph.signatures),
    )


def _resigned(signature: Signature, renamed: Mapping[int, int]) -> Signature:
    return replace(
        signature,
        inputs={name: renamed.get(i, i) for name, i in signature.inputs.items()},
        outputs={name: renamed.get(i, i) for name, i in signature.outputs.items()},
    )


def _compact(graph: Graph) -> Graph:
    """The graph without tensors that nothing uses, tensors and operators numbered anew."""
    read = {i for op in graph.operators for i in (*op.inputs, *op.outputs, *op.intermediates) if i >= 0}
    used = read | {*graph.inputs, *graph.outputs}
    number = {old: new for new, old in enumerate(sorted(used))} | {-1: -1}
    return replace(
        graph,
        tensors=tuple(replace(graph.tensors[old], index=number[old]) for old in sorted(used)),
        operators=tuple(
            replace(
                op,
                index=i,
                inputs=tuple(number[t] for t in op.inputs),
                outputs=tuple(number[t] for t in op.outputs),
                intermediates=tuple(number[t] for t in op.intermediates),
            )
            for i, op in enumerate(graph.operators)
        ),
        inputs=tuple(number[t] for t in graph.inputs),
        outputs=tuple(number[t] for t in graph.outputs),
        signatures=tuple(_resigned(signature, number) for signature in graph.signatures),
        digest="",
    )
