"""Resource variables become state tensors: VAR_HANDLE and CALL_ONCE go, READ_VARIABLE and ASSIGN_VARIABLE copy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.graph.ir import Graph, Operator, Tensor

_Name = tuple[str, str]


def _names(graph: Graph) -> dict[int, _Name]:
    """Resource tensor -> (container, shared name) of its variable."""
    return {
        op.outputs[0]: (str(op.options["container"]), str(op.options["shared_name"]))
        for op in graph.operators
        if op.name == "VAR_HANDLE"
    }


def _initial(graph: Graph) -> dict[_Name, NDArray[Any]] | None:
    """What the subgraphs of CALL_ONCE assign; None if one computes anything or assigns no constant."""
    found: dict[_Name, NDArray[Any]] = {}
    for call in (op for op in graph.operators if op.name == "CALL_ONCE"):
        index = int(call.options["init_subgraph_index"])
        if not 0 < index < len(graph.subgraphs):
            return None
        part = graph.subgraphs[index]
        names = _names(part)
        for op in part.operators:
            if op.name == "VAR_HANDLE":
                continue
            data = part.tensors[op.inputs[1]].data if op.name == "ASSIGN_VARIABLE" else None
            if data is None or op.inputs[0] not in names:
                return None
            found[names[op.inputs[0]]] = np.asarray(data)
    return found


def resolve_variables(graph: Graph) -> Graph:
    """Give every resource variable a state tensor; its initial value is the option `initial` of its first operator.

    A graph whose initialization is not plain constants is left as it is (its operators are then not supported).
    """
    names = _names(graph)
    initial = _initial(graph)
    accesses = [op for op in graph.operators if op.name in ("READ_VARIABLE", "ASSIGN_VARIABLE")]
    if not accesses or initial is None or any(op.inputs[0] not in names for op in accesses):
        return graph
    tensors = list(graph.tensors)
    states: dict[_Name, int] = {}
    operators: list[Operator] = []
    for op in graph.operators:
        if op.name in ("VAR_HANDLE", "CALL_ONCE"):
            continue
        if op.name not in ("READ_VARIABLE", "ASSIGN_VARIABLE"):
            operators.append(op)
            continue
        name = names[op.inputs[0]]
        options = dict(op.options)
        if name not in states:
            like = tensors[op.outputs[0] if op.name == "READ_VARIABLE" else op.inputs[1]]
            states[name] = len(tensors)
            tensors.append(
                Tensor(len(tensors), name[1], like.type, like.shape, like.shape, like.quantization, is_variable=True)
            )
            value = initial.get(name)
            options["initial"] = np.zeros(like.shape, like.type.dtype) if value is None else value
        operators.append(replace(op, inputs=(states[name], *op.inputs[1:]), options=options))
    return replace(graph, tensors=tuple(tensors), operators=tuple(operators))
