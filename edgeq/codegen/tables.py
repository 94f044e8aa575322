"""The pass `compose_tables`: chains of element-wise 8-bit operators become one table of 256 results.

x * sigmoid(x), a GELU that was written as seven operators, x * x + 1, TANH and the QUANTIZE behind it: as long as all
that such operators read comes from one 8-bit tensor and from single constants, every result is a function of that
tensor's byte. The table is made by the very arithmetic of the operators, so no byte changes; what lay between needs
neither memory nor time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.arithmetic import requantize
from edgeq.codegen.lower.unary import table_step
from edgeq.codegen.registry import TABLE, candidates, lowering
from edgeq.codegen.step import Constant, Node, Step, Struct, Target, Unsupported
from edgeq.graph.ir import Graph, Operator, Tensor, TensorType

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]

_ANY = Target("generic", frozenset(), "balanced")
_ALL_BYTES: Bytes = np.arange(256, dtype=np.uint8)
_8_BIT = (TensorType.INT8, TensorType.UINT8)


@dataclass(frozen=True, eq=False)
class _Function:
    """What a tensor is of `root`: `table[byte of root]`, by these operators in order."""

    root: int
    table: Bytes
    made_of: tuple[str, ...] = ()


@lowering(TABLE)
def table(node: Node) -> Iterator[Step]:
    """What `compose_tables` made."""
    result = node.output()
    source = next(node.input(i) for i in range(len(node.operator.inputs)) if not node.input(i).is_constant)
    values = np.asarray(node.options[TABLE]).view(np.int8 if result.type is TensorType.INT8 else np.uint8)
    method = "table of " + ", ".join(node.options["made_of"])
    yield table_step(node, source, result, values.astype(np.int64), method)


def compose_tables(graph: Graph) -> Graph:
    """Operators that are together a function of one 8-bit tensor read that tensor and a table."""
    readers = graph.consumers()
    known: dict[int, _Function] = {}
    operators = []
    for operator in graph.operators:
        found = _composed(graph, operator, known)
        operators.append(operator if found is None else _with_table(operator, found))
        result = operator.outputs[0] if operator.outputs else -1
        if found is not None and len(readers.get(result, ())) == 1 and result not in graph.outputs:
            known[result] = found
    return replace(graph, operators=tuple(operators))


def _with_table(operator: Operator, found: _Function) -> Operator:
    """One of several operators is nothing but its table; to a single one of two inputs it is one way among others."""
    options = {**operator.options, TABLE: found.table, "made_of": found.made_of}
    if len(found.made_of) > 1:
        return replace(operator, inputs=(found.root,), options=options)
    return replace(operator, options=options) if operator.name in _BINARY else operator


def _composed(graph: Graph, operator: Operator, known: Mapping[int, _Function]) -> _Function | None:
    """The operator's result as a function of one tensor; None where it is none."""
    if operator.name not in _UNARY and operator.name not in _BINARY:
        return None
    tensors = [graph.tensors[i] for i in operator.inputs if i >= 0]
    result = graph.tensors[operator.outputs[0]]
    sources = [t for t in tensors if t.data is None]
    bytewise = all(t.type in _8_BIT and not t.is_variable for t in (*tensors, result))
    alike = all(t.shape == result.shape if t.data is None else t.elements == 1 for t in tensors)
    functions = [known.get(t.index, _Function(t.index, _ALL_BYTES)) for t in sources]
    if not bytewise or not alike or len({f.root for f in functions}) != 1:
        return None
    table = _table(Node(graph, operator, _ANY), {t.index: f.table for t, f in zip(sources, functions, strict=True)})
    made_of = [name for f in dict.fromkeys(functions) for name in f.made_of]
    return None if table is None else _Function(functions[0].root, table, (*made_of, operator.name))


def _table(node: Node, read: Mapping[int, Bytes]) -> Bytes | None:
    """The result's byte for every byte of the root; `read` gives the bytes of the inputs."""
    try:
        step = candidates(node)[0]
    except (Unsupported, ValueError, IndexError, KeyError, TypeError):  # malformed: its lowering says how
        return None
    if node.operator.name in _UNARY:
        (source,) = (read[i] for i in node.operator.inputs if i in read)
        tables = [c.data for c in step.constants if isinstance(c, Constant) and c.name == "table"]
        return tables[0].reshape(-1)[source] if step.kernel == "lookup_8" and len(tables) == 1 else None
    a, b = (_integers(node.input(position), read) for position in (0, 1))
    values = _BINARY[node.operator.name](_fields(step), a, b)
    return np.asarray(values & 0xFF, np.uint8)


def _integers(tensor: Tensor, read: Mapping[int, Bytes]) -> Ints:
    """The stored values of an input for every byte of the root."""
    if tensor.data is not None:
        return np.full(256, int(np.asarray(tensor.data).reshape(-1)[0]), np.int64)
    return read[tensor.index].view(np.int8 if tensor.type is TensorType.INT8 else np.uint8).astype(np.int64)


def _fields(step: Step) -> Mapping[str, Any]:
    return next((c.fields for c in step.constants if isinstance(c, Struct)), {})


def _finished(p: Mapping[str, Any], value: Ints) -> Ints:
    return np.asarray(np.clip(value + p["output_offset"], p["act_min"], p["act_max"]), np.int64)


def _common(p: Mapping[str, Any], a: Ints, b: Ints) -> tuple[Ints, Ints]:
    """Both inputs on the common scale (`edgeq_add_params`)."""
    a, b = ((x + p[f"{n}_offset"]) << p["left_shift"] for n, x in (("a", a), ("b", b)))
    return (
        requantize(a, p["a_multiplier"], p["a_shift"]),
        p["b_sign"] * requantize(b, p["b_multiplier"], p["b_shift"]),
    )


def _add(p: Mapping[str, Any], a: Ints, b: Ints) -> Ints:
    """`edgeq_add_s8`."""
    a, b = _common(p, a, b)
    return _finished(p, requantize(a + b, p["multiplier"], p["shift"]))


def _mul(p: Mapping[str, Any], a: Ints, b: Ints) -> Ints:
    """`edgeq_mul_s8`."""
    return _finished(p, requantize((a + p["a_offset"]) * (b + p["b_offset"]), p["multiplier"], p["shift"]))


def _squared_difference(p: Mapping[str, Any], a: Ints, b: Ints) -> Ints:
    """`edgeq_squared_difference_s8`."""
    a, b = _common(p, a, b)
    return _finished(p, requantize((a + b) * (a + b), p["multiplier"], p["shift"]))


_BINARY: Mapping[str, Callable[[Mapping[str, Any], Ints, Ints], Ints]] = {
    "ADD": _add,
    "SUB": _add,
    "MUL": _mul,
    "SQUARED_DIFFERENCE": _squared_difference,
    "MAXIMUM": lambda _, a, b: np.maximum(a, b),
    "MINIMUM": lambda _, a, b: np.minimum(a, b),
}
_UNARY = frozenset({"ABS", "CEIL", "COS", "ELU", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG", "LOGISTIC"})
_UNARY |= {"NEG", "QUANTIZE", "RELU", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1", "ROUND", "RSQRT", "SIGN", "SIN", "SQRT"}
_UNARY |= {"SQUARE", "TANH"}
