"""The passes `drop_no_ops` and `join_conversions`: operators that only copy, and conversions there and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen import arithmetic
from edgeq.graph.ir import Graph, Operator, Tensor, TensorType

_BYTES = (TensorType.INT8, TensorType.UINT8)


def drop_no_ops(graph: Graph) -> Graph:
    """Operators whose result is their input's bytes: PAD by nothing, SLICE of everything, TRANSPOSE that moves no
    element, CONCATENATION of one, TILE once, QUANTIZE to equal parameters, and so on.

    Their readers read the input instead; where the shape changes, or the result is the graph's, a RESHAPE is left,
    which is only another name.
    """
    renamed: dict[int, int] = {}
    kept: list[Operator] = []
    for operator in graph.operators:
        now = replace(operator, inputs=tuple(renamed.get(i, i) for i in operator.inputs))
        at = _copied(graph, now)
        if at is None:
            kept.append(now)
            continue
        source, result = graph.tensors[now.inputs[at]], graph.tensors[now.outputs[0]]
        if source.shape == result.shape and result.index not in graph.outputs:
            renamed[result.index] = source.index
        else:
            kept.append(_rename(now, source.index))
    return replace(graph, operators=tuple(kept))


def _rename(operator: Operator, source: int) -> Operator:
    return replace(operator, name="RESHAPE", inputs=(source,), options=MappingProxyType({}))


def _copied(graph: Graph, operator: Operator) -> int | None:
    """The input position whose bytes the only output has; None where it is more than a copy."""
    check = _COPIES.get(operator.name)
    if check is None or len(operator.outputs) != 1:
        return None
    at = 1 if operator.name == "SPLIT" else 0
    if at >= len(operator.inputs) or operator.inputs[at] < 0:
        return None
    source, result = graph.tensors[operator.inputs[at]], graph.tensors[operator.outputs[0]]
    plain = not (source.is_constant or source.is_variable or result.is_variable)
    if not plain or not _same_meaning(source, result) or source.elements != result.elements:
        return None
    return at if check(graph, operator) else None


def _same_meaning(a: Tensor, b: Tensor) -> bool:
    """Equal type, scale and zero point."""

    def meaning(tensor: Tensor) -> tuple[object, ...]:
        q = tensor.quantization
        return (tensor.type, q.scale, q.zero_point) if q is not None and q.scale else (tensor.type,)

    return meaning(a) == meaning(b)


def _numbers(graph: Graph, operator: Operator, position: int) -> list[int] | None:
    """A constant input's elements; None if it is computed."""
    data = graph.tensors[operator.inputs[position]].data
    return None if data is None else [int(v) for v in np.asarray(data).reshape(-1)]


def _all_of_it(graph: Graph, operator: Operator) -> bool:
    """The result has as many elements as the source, and the operator keeps their order."""
    return graph.tensors[operator.inputs[0]].shape == graph.tensors[operator.outputs[0]].shape


def _by_nothing(graph: Graph, operator: Operator) -> bool:
    return not any(_numbers(graph, operator, 1) or (1,))


def _forward(graph: Graph, operator: Operator) -> bool:
    strides = _numbers(graph, operator, 3)
    return strides is not None and min(strides, default=1) > 0 and not operator.options.get("new_axis_mask")


def _keeps_order(graph: Graph, operator: Operator) -> bool:
    """A permutation that leaves the axes longer than 1 in their order."""
    order = _numbers(graph, operator, 1)
    shape = graph.tensors[operator.inputs[0]].shape
    if order is None or sorted(order) != list(range(len(shape))):
        return False
    long = [axis for axis in order if shape[axis] > 1]
    return long == sorted(long)


def _one_part(_graph: Graph, operator: Operator) -> bool:
    return len(operator.inputs) == 1 and operator.options.get("fused_activation_function", "NONE") == "NONE"


def _always(_graph: Graph, _operator: Operator) -> bool:
    return True


_COPIES = {
    "PAD": _by_nothing,
    "PADV2": _by_nothing,
    "MIRROR_PAD": _by_nothing,
    "SLICE": _all_of_it,
    "STRIDED_SLICE": _forward,
    "TILE": _all_of_it,
    "BROADCAST_TO": _all_of_it,
    "TRANSPOSE": _keeps_order,
    "CONCATENATION": _one_part,
    "PACK": _one_part,
    "SPLIT": _always,
    "UNPACK": _always,
    "QUANTIZE": _always,
    "CAST": _always,
    "SPACE_TO_DEPTH": _all_of_it,
    "DEPTH_TO_SPACE": _all_of_it,
}
"""Operator -> whether it copies, given that type, quantization and the number of elements stay."""


def join_conversions(graph: Graph) -> Graph:
    """DEQUANTIZE and then QUANTIZE, or QUANTIZE twice, becomes one QUANTIZE (`drop_no_ops` drops a copy).

    Only if every one of the 256 values gets the same byte both ways, or if both ends are the same quantization and
    the way between is float32, which is finer than any quantization.
    """
    writers = {t: op for op in graph.operators for t in op.outputs}
    changed: dict[int, Operator] = {}
    for operator in graph.operators:
        first = writers.get(operator.inputs[0]) if operator.inputs else None
        if operator.name != "QUANTIZE" or first is None or first.name not in ("QUANTIZE", "DEQUANTIZE"):
            continue
        begin, middle, end = (graph.tensors[i] for i in (first.inputs[0], first.outputs[0], operator.outputs[0]))
        if begin.is_constant or begin.elements != end.elements or not all(map(_one_scale, _quantized(begin, end))):
            continue
        narrow = begin.type in (*_BYTES, TensorType.INT16)
        same_ends = narrow and middle.type is TensorType.FLOAT32 and _same_meaning(begin, end)
        if same_ends or _same_bytes(begin, middle, end):
            changed[end.index] = replace(operator, inputs=(begin.index,))
    operators = tuple(changed.get(op.outputs[0], op) if op.outputs else op for op in graph.operators)
    return replace(graph, operators=operators)


def _quantized(*tensors: Tensor) -> Iterator[Tensor]:
    yield from (tensor for tensor in tensors if tensor.type is not TensorType.FLOAT32)


def _one_scale(tensor: Tensor) -> bool:
    q = tensor.quantization
    return q is not None and len(q.scale) == 1 == len(q.zero_point) and q.scale[0] > 0


def _same_bytes(begin: Tensor, middle: Tensor, end: Tensor) -> bool:
    """Whether QUANTIZE from `begin` gives what the two conversions give, for every 8-bit value."""
    if begin.type not in _BYTES or end.type not in _BYTES:
        return False
    low = -128 if begin.type is TensorType.INT8 else 0
    values = np.arange(low, low + 256, dtype=np.int64)
    try:
        once = _requantized(values, begin, end)
        if middle.type is TensorType.FLOAT32:
            real = np.float32(begin.scale) * (values - begin.zero_point).astype(np.float32)
            scaled = np.clip(real / np.float32(end.scale), -1e6, 1e6)
            twice = _clamped(arithmetic.round_half_away(scaled).astype(np.int64) + end.zero_point, end)
        elif middle.type in _BYTES and _one_scale(middle):
            twice = _requantized(_requantized(values, begin, middle), middle, end)
        else:
            return False
    except ValueError:  # scales too far apart to be expressed
        return False
    return bool(np.array_equal(twice, once))


def _clamped(values: NDArray[np.int64], tensor: Tensor) -> NDArray[np.int64]:
    low = -128 if tensor.type is TensorType.INT8 else 0
    return np.clip(values, low, low + 255)


def _requantized(values: NDArray[np.int64], source: Tensor, result: Tensor) -> NDArray[np.int64]:
    """QUANTIZE between 8-bit types, as its lowering computes it."""
    factor = arithmetic.quantize_multiplier(source.scale / result.scale)
    return _clamped(arithmetic.requantize(values - source.zero_point, *factor) + result.zero_point, result)
