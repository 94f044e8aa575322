"""The pass `fold_constants`: operators whose inputs are all constants are computed at generation.

Only where the value is the same on every side: bytes that are moved, casts and dequantizations, whole numbers (the
arithmetic of shapes), float32 sums, products and quotients, and int8 functions of one input, by their own table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.registry import candidates
from edgeq.codegen.step import Constant, Node, Target, Unsupported
from edgeq.graph.ir import Graph, Operator, Tensor, TensorType

Array = NDArray[Any]

_LIMIT_BYTES = 1 << 16
_GROWTH = 4
"""A result is kept as a constant up to 64 KiB, or up to this many times its inputs (int8 weights into float32)."""

_INTEGERS = (TensorType.INT32, TensorType.INT64)
_ARITHMETIC: Mapping[str, Callable[[Array, Array], Array]] = {
    "ADD": np.add,
    "SUB": np.subtract,
    "MUL": np.multiply,
    "MAXIMUM": np.maximum,
    "MINIMUM": np.minimum,
}
_SHAPES: Mapping[str, Callable[..., Any]] = {
    "RANGE": lambda start, limit, delta: range(start.item(), limit.item(), delta.item())[:_LIMIT_BYTES],
    "BROADCAST_ARGS": lambda a, b: np.broadcast_shapes(tuple(a), tuple(b)),
}
"""Of whole numbers alone: what shapes and positions are computed with."""


def fold_constants(graph: Graph) -> Graph:
    """Compute operators whose inputs are all constants; SHAPE and RANK need no values.

    A result of the graph that is a constant is copied into the arena by an operator of its own.
    """
    tensors = list(graph.tensors)
    kept: list[Operator] = []
    for operator in graph.operators:
        values = None
        ready = operator.name in ("SHAPE", "RANK") or all(
            tensors[i].data is not None for i in operator.inputs if i >= 0
        )
        if ready and operator.name in _KNOWN and operator.outputs:
            current = replace(graph, tensors=tuple(tensors))
            values = _values(Node(current, operator, Target("generic", frozenset(), "balanced")))
        if values is None:
            kept.append(operator)
            continue
        for index, value in zip(operator.outputs, values, strict=True):
            tensors[index] = replace(tensors[index], data=value)
    outputs, writers = list(graph.outputs), graph.producers()
    for position, index in enumerate(outputs):
        if tensors[index].data is not None:
            outputs[position] = len(tensors)
            tensors.append(replace(tensors[index], index=len(tensors), data=None))
            at = writers[index].index if index in writers else 0
            kept.append(Operator(at, "BROADCAST_TO", 2, (index,), (outputs[position],)))
    return replace(graph, tensors=tuple(tensors), operators=tuple(kept), outputs=tuple(outputs))


def _values(node: Node) -> list[Array] | None:
    """The operator's outputs, each of its tensor's shape and type; None where it is not folded."""
    operator, tensors = node.operator, node.graph.tensors
    outputs = [tensors[i] for i in operator.outputs]
    if operator.name in ("SHAPE", "RANK"):
        shape = node.input(0).shape
        found: list[Array] = [np.array(shape if operator.name == "SHAPE" else len(shape))]
    else:
        inputs = [tensors[i] for i in operator.inputs if i >= 0]
        if not inputs:
            return None
        size = sum(t.size_bytes for t in inputs)
        if sum(t.size_bytes for t in outputs) > max(_LIMIT_BYTES, _GROWTH * size):
            return None
        try:
            found = _compute(node, inputs, outputs)
        except (ValueError, IndexError, KeyError, TypeError):  # malformed: its lowering says how
            return None
    fits = len(found) == len(outputs) and all(
        value.shape == t.shape and t.type.dtype is not None for value, t in zip(found, outputs, strict=True)
    )
    return [v.astype(t.type.dtype) for v, t in zip(found, outputs, strict=True)] if fits else None


def _compute(node: Node, inputs: list[Tensor], outputs: list[Tensor]) -> list[Array]:
    """The outputs' values; an empty list for what is left to run time."""
    name, result = node.operator.name, outputs[0]
    if name in _MOVES:
        return _moved(node, outputs)
    if name == "DEQUANTIZE":
        return _dequantized(inputs[0], result)
    if name == "CAST":
        whole = (*_INTEGERS, TensorType.INT8, TensorType.UINT8, TensorType.BOOL)
        plain = inputs[0].type in whole and result.type in (*_INTEGERS, TensorType.FLOAT32)
        return [_data(inputs[0])] if plain else []
    if name in _ARITHMETIC or name in _SHAPES or name == "DIV":
        return _arithmetic(node, inputs, result)
    return _looked_up(node, inputs[0], result)


def _data(tensor: Tensor) -> Array:
    return np.asarray(tensor.data)


def _dequantized(source: Tensor, result: Tensor) -> list[Array]:
    """float16 widened, or scale * (q - zero_point), by tensor or by channel."""
    if result.type is not TensorType.FLOAT32:
        return []
    if source.type is TensorType.FLOAT16:
        return [_data(source)]
    quantization = source.quantization
    if quantization is None or not quantization.scale:
        return []
    spread = [1] * len(source.shape)
    if quantization.per_channel:
        spread[quantization.quantized_dimension] = -1
    scale = np.array(quantization.scale, np.float32).reshape(spread)
    zero = np.array(quantization.zero_point, np.int64).reshape(spread)
    return [scale * (_data(source).astype(np.int64) - zero).astype(np.float32)]


def _arithmetic(node: Node, inputs: list[Tensor], result: Tensor) -> list[Array]:
    """Whole numbers, shapes, or float32 without an activation, where IEEE 754 leaves nothing open."""
    types, name = {t.type for t in (*inputs, result)}, node.operator.name
    if name in _SHAPES:
        return [np.asarray(_SHAPES[name](*map(_data, inputs)))] if types <= {*_INTEGERS} else []
    if len(types) > 1 or len(inputs) != 2 or node.options.get("fused_activation_function", "NONE") != "NONE":
        return []
    a, b = (_data(t) for t in inputs)
    if np.broadcast_shapes(a.shape, b.shape) != result.shape:
        return []
    if result.type in _INTEGERS and name in _ARITHMETIC:
        return [np.asarray(_ARITHMETIC[name](a, b))]
    if result.type is not TensorType.FLOAT32:
        return []
    with np.errstate(all="ignore"):
        value = np.asarray(np.divide(a, b) if name == "DIV" else _ARITHMETIC[name](a, b))
    return [value] if np.isfinite(value).all() else []


def _looked_up(node: Node, source: Tensor, result: Tensor) -> list[Array]:
    """An int8 function of one input, by the table that its lowering would put into flash."""
    if {source.type, result.type} != {TensorType.INT8} or source.shape != result.shape:
        return []
    tensors = tuple(replace(t, data=None) if t.index == source.index else t for t in node.graph.tensors)
    try:
        steps = candidates(replace(node, graph=replace(node.graph, tensors=tensors), memo={}))
    except Unsupported:
        return []
    for step in steps:
        tables = [c for c in step.constants if isinstance(c, Constant) and c.name == "table"]
        if step.kernel == "lookup_8" and len(tables) == 1:
            found = tables[0].data.reshape(-1)[_data(source).view(np.uint8)]
            return [found.astype(np.uint8).view(np.int8)]
    return []


def _moved(node: Node, outputs: list[Tensor]) -> list[Array]:
    """Bytes that change place; shapes are compared before anything is made."""
    name = node.operator.name
    listed = name in ("CONCATENATION", "PACK")
    tensors = [node.input(i) for i in range(len(node.operator.inputs))] if listed else [_source(node)]
    kinds = {(t.type, _meaning(t)) for t in (*tensors, *outputs)}
    if len(kinds) > 1 or node.options.get("fused_activation_function", "NONE") != "NONE":
        return []
    return _MOVES[name](node, [_data(t) for t in tensors], outputs)


def _sliced(node: Node, source: Array) -> Array:
    pairs = zip(_list(node, 1), _list(node, 2), strict=True)
    return np.asarray(source[tuple(slice(b, None if s == -1 else b + s) for b, s in pairs)])


def _gathered(node: Node, source: Array) -> list[Array]:
    """Along one axis; an index outside of it is left to the kernel."""
    indices = _data(node.input(1))
    inside = indices.size > 0 and indices.min() >= 0 and not node.options.get("batch_dims")
    return [np.take(source, indices, axis=int(node.options.get("axis", 0)))] if inside else []


def _tiled(node: Node, source: Array, result: Tensor) -> list[Array]:
    times = _list(node, 1)
    fits = tuple(d * t for d, t in zip(source.shape, times, strict=True)) == result.shape
    return [np.tile(source, times)] if fits else []


def _reshaped(_node: Node, data: list[Array], outputs: list[Tensor]) -> list[Array]:
    return [data[0].reshape(outputs[0].shape)]


def _spread(_node: Node, data: list[Array], outputs: list[Tensor]) -> list[Array]:
    return [np.broadcast_to(data[0], outputs[0].shape).copy()]


_MOVES: Mapping[str, Callable[[Node, list[Array], list[Tensor]], list[Array]]] = {
    "RESHAPE": _reshaped,
    "SQUEEZE": _reshaped,
    "EXPAND_DIMS": _reshaped,
    "TRANSPOSE": lambda node, data, _: [data[0].transpose(_list(node, 1))],
    "CONCATENATION": lambda node, data, _: [np.concatenate(data, axis=int(node.options["axis"]))],
    "PACK": lambda node, data, _: [np.stack(data, axis=int(node.options["axis"]))],
    "SPLIT": lambda node, data, outputs: list(np.split(data[0], len(outputs), axis=_list(node, 0)[0])),
    "UNPACK": lambda node, data, _: list(np.moveaxis(data[0], int(node.options["axis"]), 0)),
    "SLICE": lambda node, data, _: [_sliced(node, data[0])],
    "STRIDED_SLICE": lambda node, data, _: _strided(node, data[0]),
    "GATHER": lambda node, data, _: _gathered(node, data[0]),
    "TILE": lambda node, data, outputs: _tiled(node, data[0], outputs[0]),
    "BROADCAST_TO": _spread,
    "FILL": _spread,
}


def _source(node: Node) -> Tensor:
    """The input whose bytes are moved."""
    return node.input(1 if node.operator.name in ("SPLIT", "FILL") else 0)


def _meaning(tensor: Tensor) -> tuple[tuple[float, ...], tuple[int, ...]] | None:
    quantization = tensor.quantization
    return (quantization.scale, quantization.zero_point) if quantization and quantization.scale else None


def _list(node: Node, position: int) -> list[int]:
    return [int(v) for v in _data(node.input(position)).reshape(-1)]


def _strided(node: Node, source: Array) -> list[Array]:
    """begin:end:stride with masks, as numpy slices; without new axes, ellipses and offsets."""
    options = node.options
    if options.get("ellipsis_mask") or options.get("new_axis_mask") or options.get("offset"):
        return []
    picked: list[int | slice] = []
    for axis, (begin, end, stride) in enumerate(zip(*(_list(node, i) for i in (1, 2, 3)), strict=True)):
        bit = 1 << axis
        if options.get("shrink_axis_mask", 0) & bit:
            picked.append(begin)
            continue
        low = None if options.get("begin_mask", 0) & bit else begin
        picked.append(slice(low, None if options.get("end_mask", 0) & bit else end, stride))
    return [np.asarray(source[tuple(picked)])]


_UNARY = {"ABS", "RELU", "RELU6", "LEAKY_RELU", "LOGISTIC", "TANH", "HARD_SWISH", "RSQRT", "QUANTIZE", "NEG", "EXP"}
_UNARY |= {"SQRT", "SQUARE", "ELU", "GELU", "LOG"}
_KNOWN = set(_MOVES) | set(_ARITHMETIC) | set(_SHAPES) | _UNARY | {"SHAPE", "RANK", "DEQUANTIZE", "CAST", "DIV"}
