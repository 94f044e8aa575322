"""A pass that removes channels which no input can change: their value goes into the next layer's bias.

Intervals of every channel's int8 values are propagated from the input (any int8) through convolutions, depthwise
convolutions and pooling, exactly: requantization is monotone, so the ends of the accumulator's interval give the ends
of the result's. Tensors that operators pass on channel by channel (depthwise, pooling, RESHAPE of 1x1) form a chain;
it starts at a CONV_2D and ends where CONV_2D or FULLY_CONNECTED read it. A channel that is constant at every end of
its chain is removed from all of it. Where an end is padded, the constant must be the zero point: else the sum depends
on the position. The number of channels stays a multiple of 4, for the kernels' sake.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.arithmetic import Ints
from edgeq.codegen.lower.common import activation_range, zero_point
from edgeq.codegen.lower.convolution import accumulators_fit, geometry, weights_of
from edgeq.codegen.proofs import Requantization, accumulator_bounds
from edgeq.codegen.step import Node, Target, Unsupported
from edgeq.graph.ir import Graph, Operator, Quantization, Tensor, TensorType

_ANY = Target("", frozenset(), "balanced")
_CHANNELWISE = frozenset({"DEPTHWISE_CONV_2D", "AVERAGE_POOL_2D", "MAX_POOL_2D", "RESHAPE"})
_GRANULE = 4

Interval = tuple[Ints, Ints]


def fold_constant_channels(graph: Graph) -> Graph:
    """Remove channels that are the same for every input; the result's bytes stay."""
    if graph.subgraphs[1:]:
        return graph
    intervals = _propagate(graph)
    for chain in _chains(graph):
        removable = _removable(graph, chain, intervals)
        keep = _kept(removable)
        if len(keep) < len(removable):
            graph = _without(graph, chain, keep, intervals)
    return graph


@dataclass(slots=True)
class _Chain:
    """Tensors with the same channels: where they come from, who passes them on, who reads them last."""

    source: Operator
    tensors: list[int]
    through: list[Operator] = field(default_factory=list)
    ends: list[Operator] = field(default_factory=list)


def _padded(node: Node, filter_h: int, filter_w: int) -> bool:
    shape = geometry(node, filter_h, filter_w)
    reach_h = (shape["out_h"] - 1) * shape["stride_h"] + (filter_h - 1) * shape["dilation_h"] + 1 - shape["pad_top"]
    reach_w = (shape["out_w"] - 1) * shape["stride_w"] + (filter_w - 1) * shape["dilation_w"] + 1 - shape["pad_left"]
    return bool(shape["pad_top"] or shape["pad_left"] or reach_h > shape["in_h"] or reach_w > shape["in_w"])


def _flat(node: Node) -> NDArray[np.int8] | None:
    """Weights as [channels, taps, input channels that each reads], or None for what is not looked at."""
    filters = node.input(1)
    values = filters.data
    if values is None or filters.type is not TensorType.INT8:
        return None
    if node.operator.name == "CONV_2D":
        whole = len(filters.shape) == 4 and filters.shape[3] == node.input(0).shape[-1]
        return values.reshape(filters.shape[0], -1, filters.shape[3]) if whole else None
    if node.operator.name == "DEPTHWISE_CONV_2D":
        single = len(filters.shape) == 4 and filters.shape[3] == node.input(0).shape[-1]
        return values.reshape(-1, filters.shape[3]).T[:, :, None] if single else None
    source = node.input(0)
    flat = len(filters.shape) == 2 and filters.shape[1] == source.elements == source.shape[-1]
    return values.reshape(filters.shape[0], 1, -1) if flat else None


def _exact(node: Node, interval: Interval) -> Interval | None:
    """Ends of a convolution's results per channel, or None where it is not looked at."""
    flat = _flat(node)
    source, result = node.input(0), node.output()
    if flat is None or source.type is not TensorType.INT8 or result.type is not TensorType.INT8:
        return None
    channels = len(flat)
    constants = weights_of(node, channels)
    if not accumulators_fit(flat.reshape(channels, -1), constants.bias, source) or bool((constants.shifts > 0).any()):
        return None
    low, high = interval
    zero = zero_point(source)
    if node.operator.name != "FULLY_CONNECTED" and _padded(node, *node.input(1).shape[1:3]):
        low, high = np.minimum(low, zero), np.maximum(high, zero)
    depthwise = node.operator.name == "DEPTHWISE_CONV_2D"
    low, high = (
        np.repeat(v[:, None], flat.shape[1], 1) if depthwise else np.tile(v, flat.shape[1]) for v in (low, high)
    )
    bounds = accumulator_bounds(flat.reshape(channels, -1), constants.bias, zero, low, high)
    exact = Requantization(
        constants.multipliers.astype(np.int64),
        -constants.shifts.astype(np.int64),
        zero_point(result),
        *activation_range(node, result),
        *bounds,
    )
    return exact(bounds[0][:, None])[:, 0], exact(bounds[1][:, None])[:, 0]


def _propagate(graph: Graph) -> dict[int, Interval]:
    """Tensor -> least and greatest value of each channel; only tensors that are not plainly -128..127."""
    found: dict[int, Interval] = {}
    for operator in graph.operators:
        node = Node(graph, operator, _ANY)
        if not operator.inputs or operator.inputs[0] < 0:
            continue
        source = graph.tensors[operator.inputs[0]]
        if source.type is not TensorType.INT8 or not source.shape:
            continue
        channels = source.shape[-1]
        interval = found.get(source.index, (np.full(channels, -128), np.full(channels, 127)))
        if operator.name in {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}:
            try:
                result = _exact(node, interval)
            except Unsupported:
                continue
            if result is not None:
                found[operator.outputs[0]] = result
        elif _passes(graph, operator):
            found[operator.outputs[0]] = interval
    return found


def _passes(graph: Graph, operator: Operator) -> bool:
    """Whether an operator hands channels on one by one, values staying within a channel's interval."""
    if operator.name not in _CHANNELWISE or operator.name == "DEPTHWISE_CONV_2D":
        return False
    source, result = graph.tensors[operator.inputs[0]], graph.tensors[operator.outputs[0]]
    if source.type is not TensorType.INT8 or result.type is not TensorType.INT8:
        return False
    if operator.name == "RESHAPE":
        return source.elements == source.shape[-1] == result.shape[-1]
    same = source.quantization == result.quantization
    return same and operator.options.get("fused_activation_function", "NONE") == "NONE"


def _chains(graph: Graph) -> Iterator[_Chain]:
    """Chains whose channels might be removed: all readers are known, no tensor is an input or output of the model."""
    readers = graph.consumers()
    for operator in graph.operators:
        if operator.name != "CONV_2D" or _flat(Node(graph, operator, _ANY)) is None:
            continue
        chain = _Chain(operator, [])
        waiting, closed = [operator.outputs[0]], True
        while waiting and closed:
            tensor = waiting.pop()
            chain.tensors.append(tensor)
            closed = tensor not in graph.outputs and graph.tensors[tensor].type is TensorType.INT8
            for reader in readers.get(tensor, []):
                one = _flat(Node(graph, reader, _ANY)) if reader.name.endswith(("CONV_2D", "CONNECTED")) else None
                if reader.inputs[0] != tensor or reader.inputs.count(tensor) > 1:
                    closed = False
                elif _passes(graph, reader) or (reader.name == "DEPTHWISE_CONV_2D" and one is not None):
                    chain.through.append(reader)
                    waiting.append(reader.outputs[0])
                elif reader.name in {"CONV_2D", "FULLY_CONNECTED"} and one is not None:
                    chain.ends.append(reader)
                else:
                    closed = False
        if closed and chain.ends:
            yield chain


def _removable(graph: Graph, chain: _Chain, intervals: dict[int, Interval]) -> NDArray[np.bool_]:
    """Per channel: whether it is constant at every end of the chain."""
    channels = graph.tensors[chain.source.outputs[0]].shape[-1]
    constant = np.ones(channels, bool)
    for end in chain.ends:
        if end.inputs[0] not in intervals:
            return np.zeros(channels, bool)
        low, high = intervals[end.inputs[0]]
        constant &= low == high
        node = Node(graph, end, _ANY)
        if end.name == "CONV_2D" and _padded(node, *node.input(1).shape[1:3]):
            constant &= low == zero_point(node.input(0))
    return constant


def _kept(removable: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Indices of the channels that stay: all live ones, and constant ones up to a multiple of the granule."""
    live, constant = np.flatnonzero(~removable), np.flatnonzero(removable)
    wanted = max(_GRANULE, -(-len(live) // _GRANULE) * _GRANULE)
    return np.sort(np.concatenate([live, constant[: max(0, wanted - len(live))]]))


class _Editor:
    """A graph under change: tensors replaced or added."""

    def __init__(self, graph: Graph) -> None:
        self.tensors = list(graph.tensors)

    def add(self, like: Tensor, data: NDArray[Any], quantization: Quantization | None) -> int:
        index = len(self.tensors)
        shape = tuple(int(d) for d in data.shape)
        self.tensors.append(
            replace(like, index=index, shape=shape, shape_signature=shape, data=data, quantization=quantization)
        )
        return index

    def take(self, index: int, keep: NDArray[np.intp], axis: int) -> int:
        """A constant with only the kept entries of an axis; its scales too if they run along that axis."""
        tensor = self.tensors[index]
        assert tensor.data is not None
        quantization = tensor.quantization
        if quantization is not None and quantization.per_channel and quantization.quantized_dimension == axis:
            quantization = replace(
                quantization,
                scale=tuple(quantization.scale[i] for i in keep),
                zero_point=tuple(quantization.zero_point[i] for i in keep)
                if len(quantization.zero_point) > 1
                else quantization.zero_point,
            )
        return self.add(tensor, np.take(tensor.data, keep, axis=axis), quantization)


def _without(graph: Graph, chain: _Chain, keep: NDArray[np.intp], intervals: dict[int, Interval]) -> Graph:
    editor = _Editor(graph)
    current = {op.index: op for op in graph.operators}
    changed: dict[int, Operator] = {}
    source = current[chain.source.index]
    changed[source.index] = _slice_inputs(editor, source, keep, 0)
    for operator in (current[o.index] for o in chain.through):
        if operator.name == "DEPTHWISE_CONV_2D":
            changed[operator.index] = _slice_inputs(editor, operator, keep, 3)
        elif operator.name == "RESHAPE":
            changed[operator.index] = _reshape(editor, operator, len(keep))
    for end in (current[o.index] for o in chain.ends):
        folded = _fold(graph, editor, changed.get(end.index, end), keep, intervals[end.inputs[0]][0])
        if folded is None:
            return graph
        changed[end.index] = folded
    for index in chain.tensors:
        tensor = editor.tensors[index]
        shape = (*tensor.shape[:-1], len(keep))
        editor.tensors[index] = replace(tensor, shape=shape, shape_signature=shape)
        if index in intervals:
            low, high = intervals[index]
            intervals[index] = (low[keep], high[keep])
    operators = tuple(changed.get(op.index, op) for op in graph.operators)
    return replace(graph, tensors=tuple(editor.tensors), operators=operators)


def _slice_inputs(editor: _Editor, operator: Operator, keep: NDArray[np.intp], axis: int) -> Operator:
    """Weights along `axis` and bias of the kept output channels."""
    inputs = [operator.inputs[0], editor.take(operator.inputs[1], keep, axis), *operator.inputs[2:]]
    if len(inputs) > 2 and inputs[2] >= 0:
        inputs[2] = editor.take(inputs[2], keep, 0)
    return replace(operator, inputs=tuple(inputs))


def _reshape(editor: _Editor, operator: Operator, channels: int) -> Operator:
    shape = (*editor.tensors[operator.outputs[0]].shape[:-1], channels)
    inputs: Sequence[int] = operator.inputs
    if len(inputs) > 1 and inputs[1] >= 0:
        wanted = editor.tensors[inputs[1]]
        inputs = (inputs[0], editor.add(wanted, np.array(shape, np.int32), None))
    options = {**operator.options, "new_shape": shape}
    return replace(operator, inputs=tuple(inputs), options=MappingProxyType(options))


def _fold(graph: Graph, editor: _Editor, end: Operator, keep: NDArray[np.intp], values: Ints) -> Operator | None:
    """The reader without the removed inputs, their share in its bias; None where the bias would leave int32."""
    weights = editor.tensors[end.inputs[1]]
    assert weights.data is not None
    removed = np.setdiff1d(np.arange(len(values)), keep)
    offsets = values[removed] - zero_point(graph.tensors[end.inputs[0]])
    rows = weights.data.astype(np.int64).reshape(weights.shape[0], -1, len(values))[:, :, removed]
    share = (rows * offsets).sum(axis=(1, 2))
    inputs = [end.inputs[0], editor.take(end.inputs[1], keep, len(weights.shape) - 1), *end.inputs[2:3]]
    if len(inputs) < 3 or inputs[2] < 0:
        return None
    bias = editor.tensors[inputs[2]]
    assert bias.data is not None
    total = bias.data.astype(np.int64) + share
    if np.abs(total).max(initial=0) >= 2**31:
        return None
    inputs[2] = editor.add(bias, total.astype(np.int32), bias.quantization)
    return replace(end, inputs=tuple(inputs))
