"""Operators that can go without changing a byte of the outputs: found here, told by a rule, removed by --fix."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgeq.graph.ir import Graph, Operator, Tensor, TensorType

_RENAMING = {"RESHAPE", "SQUEEZE", "EXPAND_DIMS"}
_ACTIVATIONS = {"RELU", "RELU6", "RELU_N1_TO_1"}
_WITH_ACTIVATION = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "SUB", "MUL"}
_FUSED_TYPES = {TensorType.INT8, TensorType.UINT8, TensorType.FLOAT32}


def _alike(one: Tensor, other: Tensor) -> bool:
    return (one.type, one.shape, one.shape_signature, one.quantization) == (
        other.type,
        other.shape,
        other.shape_signature,
        other.quantization,
    )


def _whole(graph: Graph) -> Iterator[Operator]:
    """Operators that have a first input and an output; a file may hold others."""
    return (op for op in graph.operators if op.outputs and op.inputs[:1] >= (0,))


def no_ops(graph: Graph) -> Iterator[Operator]:
    """Operators inside the graph whose result is their first input: equal shapes, identity TRANSPOSE, empty PAD."""
    for op in _whole(graph):
        if op.name not in _RENAMING | {"TRANSPOSE", "PAD"} or op.outputs[0] in graph.outputs:
            continue
        source, result = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
        if source.is_constant or not _alike(source, result):
            continue
        if op.name in _RENAMING:
            yield op
        elif len(op.inputs) > 1 and (values := graph.tensors[op.inputs[1]].data) is not None:
            identity = np.arange(len(source.shape)) if op.name == "TRANSPOSE" else np.zeros_like(values)
            if np.array_equal(values, identity):
                yield op


def round_trips(graph: Graph) -> Iterator[tuple[Operator, Operator]]:
    """(DEQUANTIZE, QUANTIZE) back to the same type, scale and zero point: (q - z) * s / s, rounded, is q - z."""
    producers = graph.producers()
    for op in _whole(graph):
        before = producers.get(op.inputs[0]) if op.name == "QUANTIZE" else None
        if before is None or before.name != "DEQUANTIZE" or before.inputs[:1] < (0,) or op.outputs[0] in graph.outputs:
            continue
        source, result = graph.tensors[before.inputs[0]], graph.tensors[op.outputs[0]]
        if source.quantization is not None and not source.quantization.per_channel and _alike(source, result):
            yield before, op


def separate_activations(graph: Graph) -> Iterator[tuple[Operator, Operator]]:
    """(operator, RELU or the like) where the operator can clamp its result itself: one reader, equal scales."""
    producers, consumers = graph.producers(), graph.consumers()
    for op in _whole(graph):
        before = producers.get(op.inputs[0]) if op.name in _ACTIVATIONS else None
        if before is None or before.name not in _WITH_ACTIVATION or op.inputs[0] in graph.outputs:
            continue
        between, result = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
        free = before.options.get("fused_activation_function", "NONE") == "NONE"
        only = len(consumers[between.index]) == 1 and between.type in _FUSED_TYPES
        if free and only and _alike(between, result):
            yield before, op


def swishes(graph: Graph) -> Iterator[tuple[Operator, Operator]]:
    """(LOGISTIC, MUL) that together are SWISH: x * sigmoid(x), the sigmoid read by nobody else."""
    consumers = graph.consumers()
    for op in _whole(graph):
        partners = consumers.get(op.outputs[0], []) if op.name == "LOGISTIC" else []
        if len(partners) == 1 and partners[0].name == "MUL" and op.inputs[0] in partners[0].inputs:
            yield op, partners[0]
