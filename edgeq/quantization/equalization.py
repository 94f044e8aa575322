"""Cross-layer equalization on the float `.tflite`: channels of neighbouring layers share their range fairly.

Scaling channel c of a layer's output by 1/s[c] and the next layer's weights for it by s[c] leaves the network's
function as it is wherever nothing but ReLU stands between. After Nagel et al., "Data-Free Quantization Through
Weight Equalization and Bias Correction" (2019), with measured activation ranges in place of the first layer's weights:
those are quantized per channel, so that only the activation between the layers has one scale for all channels.

ReLU6 is split: its lower bound stays in the layer, its upper bound becomes a MINIMUM with 6 / s[c] for each channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgeq.graph import Graph, Operator, Tensor, TensorType

_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
# Operators that keep channels apart and commute with a positive factor on each.
_PASSING = ("MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "PAD")
_LARGEST_FACTOR = 1e4
_SIX = 6.0

Constants = dict[int, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Pair:
    """`first`'s output reaches `second` alone, through channel-wise operators only. `channels` is its last axis."""

    first: Operator
    second: Operator
    between: tuple[int, ...]
    channels: int

    @property
    def is_clamped(self) -> bool:
        """Whether `first` ends in ReLU6."""
        return bool(self.first.options.get("fused_activation_function") == "RELU6")


def pairs(graph: Graph) -> list[Pair]:
    """Every pair of layers that can be equalized, in execution order."""
    consumers = graph.consumers()
    found = []
    for first in graph.operators:
        if first.name not in _WEIGHTED or not _is_homogeneous(first, "RELU6"):
            continue
        if not _owns_constants(graph, first, consumers):
            continue
        between = [first.outputs[0]]
        while True:
            readers = consumers.get(between[-1], [])
            if between[-1] in graph.outputs or len(readers) != 1:
                break
            reader = readers[0]
            if reader.name in _PASSING and _is_channelwise(graph, reader):
                between.append(reader.outputs[0])
                continue
            if _takes_channels(graph, reader, between[-1]) and _owns_constants(graph, reader, consumers):
                channels = graph.tensor(first.outputs[0]).shape[-1]
                found.append(Pair(first, reader, tuple(between), channels))
            break
    return found


def _is_homogeneous(op: Operator, *more: str) -> bool:
    return op.options.get("fused_activation_function", "NONE") in ("NONE", "RELU", *more)


def _owns_constants(graph: Graph, op: Operator, consumers: Mapping[int, list[Operator]]) -> bool:
    """Whether the layer's weights and bias are its own; biases of nothing but zeros are shared, and may be."""
    for tensor in (graph.tensor(t) for t in op.inputs[1:3] if t >= 0):
        if tensor.data is None or tensor.type is not TensorType.FLOAT32:
            return False
        if len(consumers[tensor.index]) > 1 and np.any(tensor.data):
            return False
    return len(op.inputs) >= 2


def _is_channelwise(graph: Graph, op: Operator) -> bool:
    source, sink = graph.tensor(op.inputs[0]), graph.tensor(op.outputs[0])
    if not _is_homogeneous(op) or len(source.shape) != 4 or not sink.shape or sink.shape[-1] != source.shape[-1]:
        return False
    if op.name == "MEAN":
        axes = graph.tensor(op.inputs[1]).data
        return axes is not None and all(int(a) % 4 != 3 for a in axes.reshape(-1))
    return True


def _takes_channels(graph: Graph, op: Operator, tensor: int) -> bool:
    if op.name not in _WEIGHTED or op.inputs[0] != tensor:
        return False
    source, weights = graph.tensor(tensor), graph.tensor(op.inputs[1])
    if op.name == "DEPTHWISE_CONV_2D":
        return op.options.get("depth_multiplier", 1) == 1 and weights.shape[-1] == source.shape[-1]
    return weights.shape[-1] == source.shape[-1]


def equalize(graph: Graph, magnitudes: Mapping[int, NDArray[np.float64]]) -> tuple[Graph, int]:
    """The float graph with its channels equalized, and between how many pairs of layers.

    `magnitudes`: activation tensor -> the largest absolute value of each channel on representative data. A MINIMUM that
    splits a ReLU6 writes the tensor that the layer wrote; the layer then writes one called `NAME;unclamped`.
    """
    constants: Constants = {}
    clamps: dict[int, NDArray[np.float64]] = {}
    scaled = {i: m.copy() for i, m in magnitudes.items()}
    changed = 0
    for pair in pairs(graph):
        seen = scaled.get(pair.first.outputs[0])
        if seen is None or len(seen) != pair.channels:
            continue
        factor = _factors(graph, constants, pair, seen)
        if np.all(np.abs(np.log(factor)) < 1e-3):
            continue
        changed += 1
        _scale_outputs(graph, constants, pair.first, 1 / factor)
        _scale_inputs(graph, constants, pair.second, factor)
        if pair.is_clamped:
            clamps[pair.first.index] = _SIX / factor
        for tensor in pair.between:
            if tensor in scaled:
                scaled[tensor] = scaled[tensor] / factor
    return _changed(graph, constants, clamps), changed


def _changed(graph: Graph, constants: Constants, clamps: Mapping[int, NDArray[np.float64]]) -> Graph:
    """The graph with these values of constants, and a MINIMUM behind each operator in `clamps`."""
    tensors = [replace(t, data=constants.get(t.index, t.data)) for t in graph.tensors]
    operators: list[Operator] = []
    for op in graph.operators:
        if op.index not in clamps:
            operators.append(replace(op, index=len(operators)))
            continue
        output = tensors[op.outputs[0]]
        bound = clamps[op.index].astype(np.float32)
        free = replace(output, index=len(tensors), name=f"{output.name};unclamped")
        limit = Tensor(
            len(tensors) + 1, f"{output.name};clamp", TensorType.FLOAT32, bound.shape, bound.shape, data=bound
        )
        tensors += [free, limit]
        options = {**op.options, "fused_activation_function": "RELU"}
        operators.append(replace(op, index=len(operators), outputs=(free.index,), options=options))
        inputs = (free.index, limit.index)
        operators.append(Operator(len(operators), "MINIMUM", 1, inputs, (output.index,)))
    return replace(graph, tensors=tuple(tensors), operators=tuple(operators), subgraphs=(), digest="")


def widest_spread(graph: Graph, magnitudes: Mapping[int, NDArray[np.float64]]) -> float:
    """The largest ratio of the widest channel to the median one, over all activations that can be equalized."""
    spreads = [1.0]
    for pair in pairs(graph):
        seen = magnitudes[pair.first.outputs[0]]
        if np.any(seen > 0):
            spreads.append(float(seen.max() / np.median(seen[seen > 0])))
    return max(spreads)


def _value(graph: Graph, constants: Constants, tensor: int) -> NDArray[np.float32]:
    data = graph.tensor(tensor).data
    assert data is not None
    return constants.get(tensor, data.astype(np.float32))


def _factors(graph: Graph, constants: Constants, pair: Pair, seen: NDArray[np.float64]) -> NDArray[np.float64]:
    """s[c]: behind a depthwise layer, whose channels have scales of their own, the activation alone counts."""
    alive = seen > 0
    if not alive.any():
        return np.ones(pair.channels)
    if pair.second.name == "DEPTHWISE_CONV_2D":
        wanted = seen / seen[alive].max()
    else:
        weights = np.abs(_value(graph, constants, pair.second.inputs[1])).astype(np.float64)
        reach = weights.reshape(-1, pair.channels).max(axis=0)
        alive &= reach > 0
        if not alive.any():
            return np.ones(pair.channels)
        wanted = np.sqrt(np.where(alive, seen, 1) / np.where(alive, reach, 1))
        wanted = wanted / np.exp(np.mean(np.log(wanted[alive])))
    factor = np.where(alive, wanted, 1.0)
    # Powers of two keep the float function the same to the last bit.
    return np.asarray(np.exp2(np.round(np.log2(np.clip(factor, 1 / _LARGEST_FACTOR, _LARGEST_FACTOR)))))


def _scale_outputs(graph: Graph, constants: Constants, op: Operator, factor: NDArray[np.float64]) -> None:
    weights = _value(graph, constants, op.inputs[1])
    by_channel = factor if op.name == "DEPTHWISE_CONV_2D" else factor.reshape(-1, *[1] * (weights.ndim - 1))
    constants[op.inputs[1]] = (weights * by_channel).astype(np.float32)
    if len(op.inputs) > 2 and op.inputs[2] >= 0:
        bias = _value(graph, constants, op.inputs[2])
        if np.any(bias):
            constants[op.inputs[2]] = (bias * factor).astype(np.float32)


def _scale_inputs(graph: Graph, constants: Constants, op: Operator, factor: NDArray[np.float64]) -> None:
    constants[op.inputs[1]] = (_value(graph, constants, op.inputs[1]) * factor).astype(np.float32)
