"""Where a quantized model loses: layer by layer, float against quantized on the same inputs, and a verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.graph import Graph, Operator, Tensor, TensorType, read_bytes
from edgeq.interpreter import Interpreter, for_measuring
from edgeq.quantization.evaluation import dequantize, quantize
from edgeq.quantization.layer_map import Origins
from edgeq.quantization.weights import WEIGHTED

SAMPLES = 16
_WIDE_CHANNELS = 20.0
_SATURATED = 0.01
_NOTABLE_NOISE = 0.01
_CODES = {TensorType.INT8: (-128, 127), TensorType.INT16: (-32768, 32767)}


@dataclass(frozen=True, slots=True)
class LayerLoss:
    """One operator's output, float against quantized.

    `layer` is the Keras layer's name. `sqnr_db` is the ratio of signal to all error so far, `own_noise` the error's
    share of the signal's power that this operator adds to its worst input's. `saturated` is the share of codes at
    either end of the range where float lies beyond it.
    `channel_spread` is the widest channel's magnitude over the median channel's; `low`, `high` the float range seen;
    `weight_low`, `weight_high` the range of its weights; `fed_by` the tensors it reads.
    """

    operator: int
    name: str
    layer: str
    tensor: str
    sqnr_db: float
    own_noise: float
    cosine: float
    saturated: float
    channel_spread: float
    low: float
    high: float
    weight_bits: int | None
    weight_low: float | None
    weight_high: float | None
    fed_by: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """The fields."""
        return asdict(self)


def analyse(
    float_tflite: bytes, result: bytes, samples: Sequence[Sequence[NDArray[Any]]], origins: Origins
) -> list[LayerLoss]:
    """The loss at each operator whose output exists, under the same name, in both graphs; in execution order.

    A sample is one float array per input, without batch axis.
    """
    original, quantized = read_bytes(float_tflite), read_bytes(result)
    theirs = {t.name: t for t in original.tensors if not t.is_constant and t.type is TensorType.FLOAT32}
    pairs = {
        op.outputs[0]: theirs[quantized.tensor(op.outputs[0]).name]
        for op in quantized.operators
        if quantized.tensor(op.outputs[0]).name in theirs and quantized.tensor(op.outputs[0]).type in _CODES
    }
    for code, real in zip(quantized.inputs, original.inputs, strict=True):
        if quantized.tensor(code).type in _CODES:
            pairs[code] = original.tensor(real)
    seen: dict[int, list[tuple[NDArray[Any], NDArray[Any]]]] = {i: [] for i in pairs}
    reference = Interpreter(float_tflite, preserve_all_tensors=True, reference=False)
    device = for_measuring(result, preserve_all_tensors=True)
    for sample in samples[:SAMPLES]:
        inputs = [quantized.tensor(i) for i in quantized.inputs]
        reference.reset()
        device.reset()
        reference.run(
            [v[None].astype(original.tensor(i).type.dtype) for v, i in zip(sample, original.inputs, strict=True)]
        )
        device.run([quantize(v, t).reshape(t.shape) for v, t in zip(sample, inputs, strict=True)])
        for index, twin in pairs.items():
            seen[index].append((reference.tensor(twin.index).copy(), device.tensor(index).copy()))
    ratio = {i: _sqnr(values, quantized.tensor(i)) for i, values in seen.items()}
    compared = [op for op in quantized.operators if op.outputs[0] in pairs]
    return [_loss(op, quantized, seen[op.outputs[0]], ratio, origins.layer(quantized, op)) for op in compared]


def _sqnr(values: Sequence[tuple[NDArray[Any], NDArray[Any]]], tensor: Tensor) -> float:
    real = np.stack([r for r, _ in values]).astype(np.float64)
    error = np.stack([dequantize(c, tensor) for _, c in values]) - real
    noise, signal = float(np.sum(error**2)), float(np.sum(real**2))
    return 120.0 if noise == 0 else min(120.0, 10 * np.log10(max(signal, 1e-30) / noise))


def _power(sqnr_db: float) -> float:
    return float(10 ** (-sqnr_db / 10))


def _loss(
    op: Operator,
    graph: Graph,
    values: Sequence[tuple[NDArray[Any], NDArray[Any]]],
    ratio: Mapping[int, float],
    layer: str,
) -> LayerLoss:
    tensor = graph.tensor(op.outputs[0])
    real = np.stack([r for r, _ in values]).astype(np.float64)
    codes = np.stack([c for _, c in values])
    back = dequantize(codes, tensor)
    low, high = _CODES[tensor.type]
    at_end = ((codes == low) & (real < (low - 0.5 - tensor.zero_point) * tensor.scale)) | (
        (codes == high) & (real > (high + 0.5 - tensor.zero_point) * tensor.scale)
    )
    magnitudes = np.abs(real).reshape(-1, real.shape[-1]).max(axis=0)
    typical = float(np.median(magnitudes[magnitudes > 0])) if np.any(magnitudes > 0) else 1.0
    before = [ratio[t] for t in op.inputs if t in ratio]
    norm = float(np.linalg.norm(real) * np.linalg.norm(back))
    bits = None
    span: tuple[float | None, float | None] = (None, None)
    if op.name in WEIGHTED:
        weights = graph.tensor(op.inputs[1])
        bits, span = weights.type.bits, _span(weights)
    return LayerLoss(
        op.index,
        op.name,
        layer,
        tensor.name,
        round(float(ratio[op.outputs[0]]), 2),
        float(f"{_power(ratio[op.outputs[0]]) - max(map(_power, before), default=0.0):.4g}"),
        round(float(np.sum(real * back)) / norm if norm else 1.0, 6),
        round(float(np.mean(at_end)), 6),
        round(float(magnitudes.max()) / typical, 2),
        float(real.min()),
        float(real.max()),
        bits,
        *span,
        tuple(graph.tensor(t).name for t in op.inputs if t in ratio),
    )


def _span(weights: Tensor) -> tuple[float | None, float | None]:
    """The smallest and largest real value of constant weights, quantized or not."""
    if weights.data is None:
        return None, None
    values = weights.data.astype(np.float64)
    if weights.quantization is not None:
        scale = np.asarray(weights.quantization.scale)
        shape = [1] * values.ndim
        shape[weights.quantization.quantized_dimension] = -1
        values = values * (scale.reshape(shape) if weights.quantization.per_channel else scale)
    return float(values.min()), float(values.max())


def verdict(losses: Sequence[LayerLoss]) -> str:
    """Which layer loses most, why, and what to try; empty if no layer loses much."""
    worst = max(losses, key=lambda loss: loss.own_noise, default=None)
    if worst is None or worst.own_noise < _NOTABLE_NOISE:
        return ""
    text = (
        f"{worst.layer} ({worst.name}) loses most: an error of {worst.own_noise:.1%} of the signal's power arises in "
        f"it, and the signal to noise ratio behind it is {worst.sqnr_db:.1f} dB."
    )
    # What narrow channels lose to a wide one hides behind the wide one, until the next layer mixes them.
    wide = next((loss for loss in losses if loss.tensor in worst.fed_by and loss.channel_spread > _WIDE_CHANNELS), None)
    if wide is not None:
        return (
            f"{text} The cause is {wide.layer} before it: its widest channel reaches {wide.channel_spread:.0f} times "
            "the typical one, and all share one scale. Equalize (--calibration auto), or leave both in float: "
            f"--layer {wide.layer}=float32 --layer {worst.layer}=float32."
        )
    if worst.saturated > _SATURATED:
        return (
            f"{text} {worst.saturated:.1%} of its values lie beyond its range: calibrate with more samples, or minmax."
        )
    if worst.weight_bits is not None and worst.weight_bits < 8:
        return f"{text} Its weights have {worst.weight_bits} bits: try --layer {worst.layer}=int8, or --qat."
    return f"{text} Eight bits are few for it: try --layer {worst.layer}=int16x8, or train with quantization (--qat)."
