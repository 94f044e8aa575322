"""CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED: int8 activations and weights, int16 activations with int8 weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.lower.common import (
    RANGE,
    SUFFIX,
    activation_range,
    activations,
    channel_multipliers,
    require,
    same_type,
    scale,
    zero_point,
)
from edgeq.codegen.registry import lowering
from edgeq.codegen.step import Constant, Node, Overlap, Step, Struct, Unsupported
from edgeq.graph.ir import Tensor, TensorType

_ACTIVATIONS = (TensorType.INT8, TensorType.INT16)
_WEIGHTS = (TensorType.INT8, TensorType.INT4)


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """A convolution's constants: weights, bias (int64 in 16x8), and a multiplier and a shift per output channel."""

    weights: NDArray[np.int8]
    bias: NDArray[np.int64]
    multipliers: NDArray[np.int32]
    shifts: NDArray[np.int8]


def weights_of(node: Node, channels: int) -> Weights:
    """The checked constants of a convolution-like operator with `channels` outputs."""
    return node.once(("weights", channels), lambda: _weights_of(node, channels))


def _weights_of(node: Node, channels: int) -> Weights:
    source, filters, result = node.input(0), node.input(1), node.output()
    require(node, filters, types=_WEIGHTS)
    values = node.constant(1, "weights").astype(np.int8)
    quantization = filters.quantization
    if quantization is None or len(quantization.scale) not in (1, channels):
        raise Unsupported(f"The weights {filters.name} have no scale per tensor or per channel.")
    if any(quantization.zero_point):
        raise Unsupported("Its weights have a zero point other than 0.", "Convert the model with symmetric weights.")
    with np.errstate(over="ignore"):  # what is infinite is refused below
        factors = scale(source) * np.array(quantization.scale) / scale(result)
    multipliers, shifts = channel_multipliers(factors)
    tensor = node.optional(2)
    bias = np.zeros(channels, np.int64) if tensor is None else node.constant(2, "bias").astype(np.int64).reshape(-1)
    if bias.shape != (channels,):
        raise Unsupported(f"Its bias has {bias.size} values for {channels} channels.")
    every = np.zeros(channels, np.int32)
    return Weights(values, bias, every + multipliers.astype(np.int32), (every + shifts).astype(np.int8))


def weights_constant(node: Node, values: NDArray[np.int8]) -> tuple[Constant, str]:
    """The weights as the portable kernel of int8 activations reads them, and its suffix: s4 packs two in a byte."""
    if node.input(1).type is not TensorType.INT4:
        return Constant("weights", "int8_t", values.reshape(-1)), "s8"
    nibbles = np.append(values.reshape(-1), np.zeros(values.size % 2, np.int8)).astype(np.uint8) & 0xF
    return Constant("weights", "uint8_t", nibbles[::2] | nibbles[1::2] << 4), "s4"


def accumulators_fit(weights: NDArray[np.int8], bias: NDArray[np.int64], source: Tensor) -> bool:
    """Whether no partial sum can leave int32: weights [channels, taps], any input, padding included."""
    zero = zero_point(source)
    low, high = RANGE[source.type]
    reach = max(high - zero, zero - low)
    total = np.abs(weights.astype(np.int64)).sum(axis=1) * reach + np.abs(bias)
    return bool(total.max(initial=0) < 2**31)


def same_padding(size: int, filter_size: int, stride: int, dilation: int, out: int) -> int:
    """Padding before the first element under SAME (ComputePadding)."""
    effective = (filter_size - 1) * dilation + 1
    return max(0, ((out - 1) * stride + effective - size) // 2)


def window_overlap(node: Node, fields: dict[str, int]) -> int:
    """How many bytes before the input an output, written pixel by pixel in order, must start (for Overlap).

    When pixel p is written up to byte (p + 1) * out_c, nothing that pixel p or a later one reads may be gone.
    """
    element = 2 if node.input(0).type is TensorType.INT16 else 1
    y = np.arange(fields["out_h"]) * fields["stride_h"] - fields["pad_top"]
    x = np.arange(fields["out_w"]) * fields["stride_w"] - fields["pad_left"]
    first = np.maximum(y, 0)[:, None] * fields["in_w"] + np.maximum(x, 0)[None, :]
    one = first.reshape(-1)
    image = fields["in_h"] * fields["in_w"]
    reads = np.concatenate([one + b * image for b in range(fields["batches"])]) * fields["in_c"]
    still = np.minimum.accumulate(reads[::-1])[::-1]
    written = (np.arange(reads.size) + 1) * fields["out_c"]
    return int((written - still).max()) * element


def geometry(node: Node, filter_h: int, filter_w: int) -> dict[str, int]:
    """Batches, sizes, strides, dilations and padding of a windowed operator, checked against the shapes."""
    source, result, options = node.input(0), node.output(), node.options
    if len(source.shape) != 4 or len(result.shape) != 4:
        raise Unsupported(f"Its input has rank {len(source.shape)}, not 4.")
    batches, in_h, in_w, _ = source.shape
    _, out_h, out_w, _ = result.shape
    stride_h, stride_w = int(options["stride_h"]), int(options["stride_w"])
    dilation_h, dilation_w = int(options.get("dilation_h_factor", 1)), int(options.get("dilation_w_factor", 1))
    if min(stride_h, stride_w, dilation_h, dilation_w) < 1:
        raise Unsupported("A stride or dilation is less than 1.")
    top = bottom = left = right = 0
    if explicit := options.get("explicit_padding"):
        top, bottom, left, right = explicit
    extent_h, extent_w = (filter_h - 1) * dilation_h + 1, (filter_w - 1) * dilation_w + 1
    if options["padding"] == "SAME":
        expected = -(-in_h // stride_h), -(-in_w // stride_w)
        top = same_padding(in_h, filter_h, stride_h, dilation_h, out_h)
        left = same_padding(in_w, filter_w, stride_w, dilation_w, out_w)
    else:
        height, width = in_h + top + bottom, in_w + left + right
        expected = -(-(height - extent_h + 1) // stride_h), -(-(width - extent_w + 1) // stride_w)
    if (out_h, out_w) != expected or batches != result.shape[0]:
        raise Unsupported(f"Its output has the shape {list(result.shape)}, expected height and width {expected}.")
    padding = {"pad_top": top, "pad_left": left}
    strides = {"stride_h": stride_h, "stride_w": stride_w, "dilation_h": dilation_h, "dilation_w": dilation_w}
    return {**_sizes(node), "filter_h": filter_h, "filter_w": filter_w, **strides, **padding}


def _sizes(node: Node) -> dict[str, int]:
    """Of input and output, both of rank 4."""
    batches, in_h, in_w, in_c = node.input(0).shape
    _, out_h, out_w, out_c = node.output().shape
    return {
        "batches": batches,
        "in_h": in_h,
        "in_w": in_w,
        "in_c": in_c,
        "out_h": out_h,
        "out_w": out_w,
        "out_c": out_c,
    }


def transposed_geometry(node: Node, shape: tuple[int, ...]) -> dict[str, int]:
    """The same for TRANSPOSE_CONV with weights of `shape` [out, kh, kw, in]; the pads are those the output loses."""
    source, result = node.input(0), node.output()
    if len(source.shape) != 4 or len(shape) != 4 or len(result.shape) != 4:
        raise Unsupported("Its tensors do not have rank 4.")
    out_c, filter_h, filter_w, filter_c = shape
    _, out_h, out_w, _ = result.shape
    if filter_c != source.shape[3] or out_c != result.shape[3]:
        raise Unsupported(f"Weights {list(shape)} do not fit {source.shape[3]} input channels.")
    stride_h, stride_w = int(node.options["stride_h"]), int(node.options["stride_w"])
    same = node.options["padding"] == "SAME"
    return {
        **_sizes(node),
        "filter_h": filter_h,
        "filter_w": filter_w,
        "filter_c": filter_c,
        "stride_h": stride_h,
        "stride_w": stride_w,
        "pad_top": same_padding(out_h, filter_h, stride_h, 1, -(-out_h // stride_h)) if same else 0,
        "pad_left": same_padding(out_w, filter_w, stride_w, 1, -(-out_w // stride_w)) if same else 0,
    }


def _windowed(node: Node, kind: str, fields: dict[str, int], taps: int, cost: float) -> Step:
    source, result = node.input(0), node.output()
    require(node, source, result, types=_ACTIVATIONS)
    activation = same_type(source, result)
    constants = weights_of(node, result.shape[3])
    by_channel = constants.weights.reshape(-1, result.shape[3]).T if kind == "depthwise_conv_2d" else None
    flat = constants.weights.reshape(result.shape[3], -1) if by_channel is None else by_channel
    fit = accumulators_fit(flat, constants.bias, source)
    if activation is TensorType.INT8 and not fit:
        raise Unsupported("Its accumulators may exceed 32 bits.", "Use fewer input channels in this layer.")
    # TFLM honours a 32-bit bias in CONV_2D only, and there it accumulates in 32 bits.
    bias = node.optional(2)
    narrow = kind == "conv_2d" and fit and bias is not None and bias.type is TensorType.INT32
    wide = activation is TensorType.INT16 and not narrow
    low, high = activation_range(node, result)
    macs = result.elements * taps
    weights, suffix = Constant("weights", "int8_t", constants.weights.reshape(-1)), SUFFIX[activation]
    if activation is TensorType.INT8 and kind == "conv_2d":
        weights, suffix = weights_constant(node, constants.weights)
    elif activation is TensorType.INT16 and narrow:
        suffix = "s16_b32"
    kernel = f"{kind}_{suffix}"
    shape = f"{fields['filter_h']}x{fields['filter_w']}"
    return Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel=kernel,
        method=f"{shape}, stride {fields['stride_h']}x{fields['stride_w']}, portable C",
        calls=(
            f"edgeq_{kernel}(&{{params}}, {{t{source.index}}}, {{weights}}, {{bias}}, {{multipliers}}, {{shifts}}, "
            f"{{t{result.index}}});",
        ),
        inputs=activations(source),
        outputs=(result.index,),
        constants=(
            weights,
            Constant("bias", "int64_t" if wide else "int32_t", constants.bias.astype(np.int64 if wide else np.int32)),
            Constant("multipliers", "int32_t", constants.multipliers),
            Constant("shifts", "int8_t", constants.shifts),
            Struct(
                "params",
                "conv_params",
                {
                    **fields,
                    "input_offset": -zero_point(source),
                    "output_offset": zero_point(result),
                    "act_min": low,
                    "act_max": high,
                },
            ),
        ),
        overlaps=(Overlap(source.index, result.index, window_overlap(node, fields)),),
        sources=(f"{kernel}.c",),
        headers=("convolution.h", "arithmetic.h"),
        macs=macs,
        cost=macs * cost + result.elements * 40,
        code_bytes=600,
    )


@lowering("CONV_2D")
def conv_2d(node: Node) -> Iterator[Step]:
    """Input [n, h, w, c], weights [out, kh, kw, c / groups], optional bias [out]."""
    filters = node.input(1)
    if len(filters.shape) != 4:
        raise Unsupported(f"Its weights have rank {len(filters.shape)}, not 4.")
    out_c, filter_h, filter_w, filter_c = filters.shape
    fields = {**geometry(node, filter_h, filter_w), "filter_c": filter_c}
    if fields["in_c"] % filter_c or out_c % (fields["in_c"] // filter_c) or out_c != fields["out_c"]:
        raise Unsupported(f"Weights {list(filters.shape)} do not fit {fields['in_c']} input channels.")
    yield _windowed(node, "conv_2d", fields, filter_h * filter_w * filter_c, 8)


@lowering("DEPTHWISE_CONV_2D")
def depthwise_conv_2d(node: Node) -> Iterator[Step]:
    """Input [n, h, w, c], weights [1, kh, kw, c * multiplier], optional bias."""
    filters = node.input(1)
    if len(filters.shape) != 4 or filters.shape[0] != 1:
        raise Unsupported(f"Its weights have the shape {list(filters.shape)}.")
    _, filter_h, filter_w, out_c = filters.shape
    fields = geometry(node, filter_h, filter_w)
    if out_c != fields["out_c"] or out_c % fields["in_c"]:
        raise Unsupported(f"Weights {list(filters.shape)} do not fit {fields['in_c']} input channels.")
    fields |= {"filter_c": 1, "multiplier": out_c // fields["in_c"]}
    yield _windowed(node, "depthwise_conv_2d", fields, filter_h * filter_w, 14)


@lowering("FULLY_CONNECTED")
def fully_connected(node: Node) -> Iterator[Step]:
    """Input of any rank, read as rows of `depth`; weights [units, depth]; optional bias [units]."""
    source, filters, result = node.input(0), node.input(1), node.output()
    require(node, source, result, types=_ACTIVATIONS)
    activation = same_type(source, result)
    if len(filters.shape) != 2 or node.options.get("weights_format", "DEFAULT") != "DEFAULT":
        raise Unsupported("Its weights are not a matrix in the default format.")
    if not filters.is_constant:
        from edgeq.codegen.lower.matrix import computed_weights

        yield computed_weights(node)
        return
    units, depth = filters.shape
    batches = source.elements // depth
    if source.elements % depth or result.elements != batches * units:
        raise Unsupported(f"Weights {list(filters.shape)} do not fit the input {list(source.shape)}.")
    constants = weights_of(node, units)
    wide = activation is TensorType.INT16
    matrix = constants.weights.reshape(units, depth)
    if not wide and not accumulators_fit(matrix, constants.bias, source):
        raise Unsupported("Its accumulators may exceed 32 bits.", "Use fewer inputs in this layer.")
    folded = constants.bias - zero_point(source) * matrix.astype(np.int64).sum(axis=1)
    per_channel = filters.quantization is not None and filters.quantization.per_channel
    factors = units if per_channel else 1
    low, high = activation_range(node, result)
    weights, suffix = Constant("weights", "int8_t", matrix.reshape(-1)), SUFFIX[activation]
    if not wide:
        weights, suffix = weights_constant(node, matrix)
    kernel = f"fully_connected_{suffix}"
    yield Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel=kernel,
        method="row by row, portable C",
        calls=(
            f"edgeq_{kernel}(&{{params}}, {{t{source.index}}}, {{weights}}, {{bias}}, {{multipliers}}, {{shifts}}, "
            f"{{t{result.index}}});",
        ),
        inputs=activations(source),
        outputs=(result.index,),
        constants=(
            weights,
            Constant("bias", "int64_t" if wide else "int32_t", folded.astype(np.int64 if wide else np.int32)),
            Constant("multipliers", "int32_t", constants.multipliers[:factors]),
            Constant("shifts", "int8_t", constants.shifts[:factors]),
            Struct(
                "params",
                "fully_connected_params",
                {
                    "batches": batches,
                    "depth": depth,
                    "units": units,
                    "per_channel": int(per_channel),
                    "output_offset": zero_point(result),
                    "act_min": low,
                    "act_max": high,
                },
            ),
        ),
        sources=(f"{kernel}.c",),
        headers=("convolution.h", "arithmetic.h"),
        macs=batches * units * depth,
        cost=batches * units * (depth * 6 + 40),
        code_bytes=200,
    )
