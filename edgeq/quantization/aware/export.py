"""What training fixed, carried into the `.tflite`: ranges of activations, codes and scales of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.graph import Graph
from edgeq.quantization.rewriting.editing import compact
from edgeq.quantization.weights import Choice, layers, with_weights

_UINT8_TOP = 255


@dataclass(frozen=True, slots=True, eq=False)
class TrainedWeights:
    """A layer's scale of each output channel, and the bits that its codes take in the file."""

    scale: NDArray[np.float64]
    bits: int


def without_fake_quantization(graph: Graph) -> tuple[Graph, dict[int, tuple[float, float]]]:
    """The float graph that the fake quantization stood in, and the trained range of each tensor behind which it stood.

    The converter writes fake quantization as a pair of QUANTIZE and DEQUANTIZE through UINT8.
    """
    readers = graph.consumers()
    instead: dict[int, int] = {}
    spans: dict[int, tuple[float, float]] = {}
    dropped: set[int] = set()
    for op in graph.operators:
        following = readers.get(op.outputs[0], []) if op.name == "QUANTIZE" else []
        if [reader.name for reader in following] != ["DEQUANTIZE"]:
            continue
        code, back = graph.tensor(op.outputs[0]), following[0]
        source = instead.get(op.inputs[0], op.inputs[0])
        spans[source] = (-code.zero_point * code.scale, (_UINT8_TOP - code.zero_point) * code.scale)
        instead[back.outputs[0]] = source
        dropped |= {op.index, back.index}

    def now(tensor: int) -> int:
        return instead.get(tensor, tensor)

    operators = [replace(op, inputs=tuple(map(now, op.inputs))) for op in graph.operators if op.index not in dropped]
    signatures = tuple(
        replace(s, outputs={name: now(tensor) for name, tensor in s.outputs.items()}) for s in graph.signatures
    )
    bare = replace(graph, outputs=tuple(map(now, graph.outputs)), signatures=signatures)
    result, number = compact(bare, operators)
    return result, {number[t]: span for t, span in spans.items() if t in number}


def with_trained_weights(quantized: Graph, original: Graph, trained: Mapping[str, TrainedWeights]) -> Graph:
    """The int8 graph with the weights of the layers in `trained` (by name) on the very grid they were trained on."""
    graph = quantized
    for layer in layers(quantized, original):
        name = quantized.tensor(layer.operator.inputs[1]).name
        owner = next((part.split("/")[0] for part in name.split(";") if part.split("/")[0] in trained), None)
        if owner is None:
            continue
        weights = trained[owner]
        shape = [1] * layer.weights.ndim
        shape[layer.axis] = -1
        codes = np.round(layer.weights / weights.scale.reshape(shape))
        choice = Choice(codes, weights.scale, np.zeros(len(weights.scale)))
        graph = with_weights(graph, layer, choice, weights.bits)
    return graph


def trained_weights(model: Any) -> dict[str, TrainedWeights]:
    """The trained grids of a quantization-aware model's layers below 8 bits, by layer name."""
    from edgeq.quantization.aware.layers import GRIDS, QuantizedWeights

    found = {}
    for layer in model._flatten_layers():
        if isinstance(layer, QuantizedWeights) and layer.grid != "8":
            scale = np.asarray(layer.scales(layer.folded()[0]), np.float64).reshape(-1)
            found[layer.name] = TrainedWeights(scale, 4 if GRIDS[layer.grid][0] <= 7 else 8)
    return found
