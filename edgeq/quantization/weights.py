"""The weights of a quantized `.tflite` chosen anew: fewer bits, better scales, rounding that keeps each layer's output.

Works on the int8 graph and the float graph it came from. Layers keep their names, so a layer's float weights are the
constant of the same name. Bias follows the scales: bias codes = bias / (input scale * weight scale).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.graph import Graph, Operator, Quantization, Tensor, TensorType
from edgeq.interpreter import Interpreter
from edgeq.progress import Progress, silent

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
# Rows of a layer's input matrix that the reconstruction sees: more cost time and change little.
_ROWS = 20_000
_WIDEST = 4096
_DAMPING = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A weighted operator of the quantized graph with its float weights and bias; `axis` counts output channels."""

    operator: Operator
    weights: NDArray[np.float64]
    bias: NDArray[np.float64] | None
    axis: int


def layers(quantized: Graph, original: Graph) -> list[Layer]:
    """The weighted layers whose float weights are found in `original`, in execution order."""
    by_name: dict[str, Tensor] = {t.name: t for t in original.tensors if t.is_constant and t.type is TensorType.FLOAT32}
    found = []
    consumers = quantized.consumers()
    for op in quantized.operators:
        if op.name not in WEIGHTED or not quantized.tensor(op.inputs[1]).is_constant:
            continue
        weights = quantized.tensor(op.inputs[1])
        if weights.quantization is None:
            continue
        real = by_name.get(weights.name)
        if real is None or real.data is None or real.shape != weights.shape or len(consumers[weights.index]) != 1:
            continue
        if any(len(consumers[t]) != 1 for t in op.inputs[2:3] if t >= 0):
            continue
        bias = None
        if len(op.inputs) > 2 and op.inputs[2] >= 0:
            # The converter may name a bias anew; its codes are exact to half a step of a fine grid.
            tensor = quantized.tensor(op.inputs[2])
            assert tensor.data is not None and tensor.quantization is not None
            bias = tensor.data.reshape(-1) * np.asarray(tensor.quantization.scale, np.float64)
        axis = weights.quantization.quantized_dimension if weights.quantization is not None else 0
        found.append(Layer(op, real.data.astype(np.float64), bias, 3 if op.name == "DEPTHWISE_CONV_2D" else axis))
    return found


def _per_channel(layer: Layer, scale: NDArray[np.float64]) -> NDArray[np.float64]:
    shape = [1] * layer.weights.ndim
    shape[layer.axis] = -1
    return scale.reshape(shape)


def least_squares_scale(weights: NDArray[np.float64], axis: int, bits: int) -> NDArray[np.float64]:
    """The symmetric scale of each channel with the least squared rounding and clipping error."""
    top = 2 ** (bits - 1) - 1
    rows = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)
    reach = np.maximum(np.abs(rows).max(axis=1), 1e-12)
    best, least = reach / top, np.full(len(rows), np.inf)
    for share in np.linspace(1.0, 0.4, 61):
        scale = reach * share / top
        codes = np.clip(np.round(rows / scale[:, None]), -top, top)
        error = ((codes * scale[:, None] - rows) ** 2).sum(axis=1)
        better = error < least
        best, least = np.where(better, scale, best), np.where(better, error, least)
    return np.asarray(best, np.float64)


def patches(layer: Layer, values: NDArray[Any], limit: int = _ROWS) -> NDArray[np.float64]:
    """The layer's input matrix: (positions, weights a channel), or (positions, channels, taps) for depthwise.

    At most `limit` positions, spread evenly over samples and places.
    """
    op, weights = layer.operator, layer.weights
    if op.name == "FULLY_CONNECTED":
        rows = values.reshape(-1, weights.shape[1])
        return rows[_spread(len(rows), limit)].astype(np.float64)
    height, width = weights.shape[1:3]
    stride = (op.options["stride_h"], op.options["stride_w"])
    dilation = (op.options["dilation_h_factor"], op.options["dilation_w_factor"])
    extent = ((height - 1) * dilation[0] + 1, (width - 1) * dilation[1] + 1)
    if op.options["padding"] == "SAME":
        values = _padded_same(values, extent, stride)
    windows = np.lib.stride_tricks.sliding_window_view(values, extent, axis=(1, 2))
    windows = windows[:, :: stride[0], :: stride[1], :, :: dilation[0], :: dilation[1]]
    shape = windows.shape[:3]
    chosen = windows[np.unravel_index(_spread(shape[0] * shape[1] * shape[2], limit), shape)].astype(np.float64)
    if op.name == "DEPTHWISE_CONV_2D":
        return chosen.reshape(len(chosen), -1, height * width)
    return chosen.transpose(0, 2, 3, 1).reshape(len(chosen), -1)


def _spread(count: int, limit: int) -> NDArray[np.int64]:
    return np.linspace(0, count - 1, min(count, limit)).astype(np.int64)


def _padded_same(values: NDArray[Any], extent: tuple[int, int], stride: tuple[int, int]) -> NDArray[Any]:
    widths = []
    for size, reach, step in zip(values.shape[1:3], extent, stride, strict=True):
        total = max((-(-size // step) - 1) * step + reach - size, 0)
        widths.append((total // 2, total - total // 2))
    return np.pad(values, ((0, 0), widths[0], widths[1], (0, 0)))


def reconstruct(
    rows: NDArray[np.float64], scale: NDArray[np.float64], hessian: NDArray[np.float64], bits: int
) -> NDArray[np.float64]:
    """Codes (channels, inputs) that keep the layer's output: rounding errors are carried into weights not yet rounded.

    GPTQ (Frantar et al., 2022), on the Hessian X^T X of the layer's inputs, inputs of most energy first.
    """
    top = 2 ** (bits - 1) - 1
    size = rows.shape[1]
    order = np.argsort(-np.diag(hessian), kind="stable")
    damped = hessian[np.ix_(order, order)] + np.eye(size) * (_DAMPING * max(float(np.mean(np.diag(hessian))), 1e-12))
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    left, codes = rows[:, order].copy(), np.zeros_like(rows)
    for i in range(size):
        codes[:, i] = np.clip(np.round(left[:, i] / scale), -top, top)
        error = (left[:, i] - codes[:, i] * scale) / upper[i, i]
        left[:, i + 1 :] -= error[:, None] * upper[i, i + 1 :]
    result = np.empty_like(codes)
    result[:, order] = codes
    return result


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """Weight codes in the weights' shape, the scale of each channel, and what they take off its mean output."""

    codes: NDArray[np.float64]
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]


def choose(layer: Layer, scale: NDArray[np.float64], bits: int, matrix: NDArray[np.float64], rounding: bool) -> Choice:
    """Codes for the layer's weights: nearest, or with `rounding` those that keep its output on the rows of `matrix`."""
    top = 2 ** (bits - 1) - 1
    weights = layer.weights
    codes = np.clip(np.round(weights / _per_channel(layer, scale)), -top, top)
    channels = weights.shape[layer.axis]
    if layer.operator.name == "DEPTHWISE_CONV_2D":
        rows = np.moveaxis(weights, 3, 0).reshape(channels, -1)
        if matrix.shape[1] != channels:
            return Choice(codes, scale, np.zeros(channels))
        if rounding:
            hessians = np.einsum("pct,pcu->ctu", matrix, matrix)
            chosen = np.concatenate(
                [reconstruct(rows[c : c + 1], scale[c : c + 1], hessians[c], bits) for c in range(channels)]
            )
            codes = np.moveaxis(chosen.reshape(channels, *weights.shape[:3]), 0, 3)
        lost = rows - np.moveaxis(codes, 3, 0).reshape(channels, -1) * scale[:, None]
        return Choice(codes, scale, (lost * matrix.mean(axis=0)).sum(axis=1))
    rows = weights.reshape(channels, -1)
    if matrix.shape[1] != rows.shape[1]:
        # A grouped convolution: each channel sees a part of the input only.
        return Choice(codes, scale, np.zeros(channels))
    if rounding and rows.shape[1] <= _WIDEST:
        codes = reconstruct(rows, scale, matrix.T @ matrix, bits).reshape(weights.shape)
    lost = rows - codes.reshape(channels, -1) * scale[:, None]
    return Choice(codes, scale, lost @ matrix.mean(axis=0))


def with_weights(graph: Graph, layer: Layer, choice: Choice, bits: int, *, per_channel: bool = True) -> Graph:
    """The graph with the layer's weights as chosen, and the bias that goes with them and makes up for their shift.

    Without `per_channel` all scales chosen are the same, and one is written.
    """
    tensors = list(graph.tensors)
    weights = tensors[layer.operator.inputs[1]]
    scales = tuple(float(np.float32(s)) for s in choice.scale)
    kept = scales if per_channel else scales[:1]
    tensors[weights.index] = replace(
        weights,
        type=TensorType.INT4 if bits <= 4 and layer.operator.name != "DEPTHWISE_CONV_2D" else TensorType.INT8,
        data=choice.codes.astype(np.int8),
        quantization=Quantization(kept, (0,) * len(kept), layer.axis),
    )
    if layer.bias is not None:
        bias = tensors[layer.operator.inputs[2]]
        assert bias.data is not None
        steps = graph.tensor(layer.operator.inputs[0]).scale * np.asarray(scales)
        limit = np.iinfo(bias.data.dtype)
        values = np.clip(np.round((layer.bias + choice.shift) / steps), limit.min, limit.max).astype(bias.data.dtype)
        quantization = Quantization(tuple(float(np.float32(s)) for s in steps[: len(kept)]), (0,) * len(kept), 0)
        tensors[bias.index] = replace(bias, data=values.reshape(bias.shape), quantization=quantization)
    return replace(graph, tensors=tuple(tensors), subgraphs=(), digest="")


def requantize(
    quantized: Graph,
    original: Graph,
    original_bytes: bytes,
    samples: Sequence[Sequence[NDArray[Any]]],
    bits: Mapping[int, int],
    *,
    rounding: bool = True,
    per_channel: bool = True,
    progress: Progress = silent,
) -> Graph:
    """Choose scales and codes of the weights anew. `bits`: operator index -> bits; other operators stay as they are.

    With `rounding`, codes reconstruct each layer's output on `samples` (batch-1 float arrays), as the float model sees
    them; without, they are the nearest. Biases make up for the mean error of either.
    """
    chosen = [layer for layer in layers(quantized, original) if layer.operator.index in bits]
    inputs = _layer_inputs(quantized, original, original_bytes, chosen, samples)
    graph = quantized
    for done, layer in enumerate(chosen):
        progress("rounding weights", done, len(chosen))
        values, wanted = inputs.get(layer.operator.index), bits[layer.operator.index]
        if values is None:
            continue
        q = quantized.tensor(layer.operator.inputs[1]).quantization
        if wanted == 8 and q is not None:
            scale = np.broadcast_to(np.asarray(q.scale, np.float64), layer.weights.shape[layer.axis])
        else:
            rows, axis = (layer.weights, layer.axis) if per_channel else (layer.weights[None], 0)
            scale = least_squares_scale(rows, axis, wanted)
            scale = np.broadcast_to(scale, layer.weights.shape[layer.axis])
        choice = choose(layer, scale, wanted, patches(layer, values), rounding)
        graph = with_weights(graph, layer, choice, wanted, per_channel=per_channel)
    return graph


def _layer_inputs(
    quantized: Graph, original: Graph, original_bytes: bytes, chosen: Sequence[Layer], samples: Sequence[Any]
) -> dict[int, NDArray[Any]]:
    """Operator index of the quantized graph -> its float inputs on the samples, as the float model computes them."""
    weights = {original.tensor(op.inputs[1]).name: op for op in original.operators if op.name in WEIGHTED}
    sources = {}
    for layer in chosen:
        twin = weights.get(quantized.tensor(layer.operator.inputs[1]).name)
        if twin is not None:
            sources[layer.operator.index] = twin.inputs[0]
    interpreter = Interpreter(original_bytes, preserve_all_tensors=True, reference=False)
    kept: dict[int, list[NDArray[Any]]] = {tensor: [] for tensor in sources.values()}
    for sample in samples:
        interpreter.run(sample)
        for tensor, values in kept.items():
            values.append(interpreter.tensor(tensor))
    return {i: np.concatenate(kept[tensor]) for i, tensor in sources.items()}
