"""What lowerings share: type checks, quantization parameters, activation ranges, overlap rules."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.arithmetic import Ints, quantize_multipliers, round_half_away
from edgeq.codegen.step import C_TYPES, Constant, Node, Overlap, Step, Struct, Unsupported
from edgeq.graph.ir import Tensor, TensorType

RANGE = {TensorType.INT8: (-128, 127), TensorType.UINT8: (0, 255), TensorType.INT16: (-32768, 32767)}
"""Integer ranges of the quantized activation types."""

SUFFIX = {
    TensorType.INT8: "s8",
    TensorType.UINT8: "u8",
    TensorType.INT16: "s16",
    TensorType.INT32: "s32",
    TensorType.FLOAT32: "f32",
}
"""Kernel name suffixes."""

BYTES = {TensorType.INT8: 1, TensorType.UINT8: 1, TensorType.BOOL: 1, TensorType.INT16: 2, TensorType.INT32: 4}
BYTES |= {TensorType.INT64: 8, TensorType.FLOAT32: 4}


def require(node: Node, *tensors: Tensor, types: Sequence[TensorType]) -> None:
    """Unsupported unless every tensor has one of the types."""
    for tensor in tensors:
        if tensor.type not in types:
            names = ", ".join(t.name for t in types)
            advice = "Convert the model with full int8 quantization." if TensorType.INT8 in types else ""
            if tensor.type is TensorType.FLOAT32 and TensorType.INT8 in types:
                advice = "Convert the model with full int8 quantization: `edgeq convert --scheme int8`."
            if tensor.type is TensorType.INT64 and TensorType.INT32 in types:
                advice = 'Use int32 in the model: Input(dtype="int32"), tf.argmax(x, output_type=tf.int32).'
            raise Unsupported(
                f"Tensor {tensor.name} is {tensor.type.name}; {node.operator.name} takes {names}.", advice
            )


def same_type(*tensors: Tensor) -> TensorType:
    """The tensors' common type; Unsupported if they differ."""
    if len({t.type for t in tensors}) != 1:
        shown = ", ".join(t.type.name for t in tensors)
        raise Unsupported(f"Its tensors have different types: {shown}.", "Convert the model again.")
    return tensors[0].type


def scale(tensor: Tensor) -> float:
    """The per-tensor scale; Unsupported if there is none or it is not positive."""
    if tensor.quantization is None or len(tensor.quantization.scale) != 1:
        raise Unsupported(f"Tensor {tensor.name} has no single scale.", "Convert the model with full quantization.")
    value = tensor.quantization.scale[0]
    if not 0 < value < float("inf"):
        raise Unsupported(f"Tensor {tensor.name} has the scale {value}.", "Convert the model again.")
    return value


def zero_point(tensor: Tensor) -> int:
    """The per-tensor zero point, within the type's range."""
    scale(tensor)
    if tensor.quantization is None or len(tensor.quantization.zero_point) != 1:
        raise Unsupported(f"Tensor {tensor.name} has no single zero point.")
    value = tensor.quantization.zero_point[0]
    low, high = RANGE.get(tensor.type, (0, 0))
    if not low <= value <= high or (tensor.type is TensorType.INT16 and value != 0):
        raise Unsupported(f"Tensor {tensor.name} has the zero point {value}.", "Convert the model again.")
    return value


def multiplier(real: float, what: str = "scale") -> tuple[int, int]:
    """quantize_multiplier, its failure as Unsupported."""
    multipliers, shifts = channel_multipliers(np.array([real]), what)
    return int(multipliers[0]), int(shifts[0])


def channel_multipliers(reals: NDArray[np.float64], what: str = "channel scale") -> tuple[Ints, Ints]:
    """Multipliers and shifts of all channels; a failure is Unsupported."""
    try:
        return quantize_multipliers(reals)
    except ValueError as error:
        raise Unsupported(f"Its {what} cannot be expressed: {error}.", "Convert the model again.") from error


def activation_range(node: Node, output: Tensor) -> tuple[int, int]:
    """Clamping range of the fused activation in the output's quantization (CalculateActivationRangeQuantized)."""
    low, high = RANGE[output.type]
    name = node.options.get("fused_activation_function", "NONE")
    if name == "NONE":
        return low, high
    bounds = {"RELU": (0.0, None), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}.get(name)
    if bounds is None:
        raise Unsupported(f"Its fused activation {name} is not supported.", "Use a separate activation layer.")
    step, zero = np.float32(scale(output)), zero_point(output)

    def quantized(real: float) -> int:
        return zero + int(round_half_away(np.float32(real) / step))

    lowest = max(low, quantized(bounds[0] or 0.0))
    highest = high if bounds[1] is None else min(high, quantized(bounds[1]))
    return min(lowest, high), max(highest, low)


def in_place(source: Tensor, result: Tensor) -> tuple[Overlap, ...]:
    """Element-wise in ascending order: the result may take the source's place if its elements are not larger."""
    if source.is_constant or BYTES[result.type] > BYTES[source.type] or result.elements != source.elements:
        return ()
    return (Overlap(source.index, result.index, 0),)


def pointer(tensor: Tensor, constant_name: str) -> str:
    """A placeholder for a tensor as a call's argument: its address, or the constant's name."""
    return f"{{{constant_name}}}" if tensor.is_constant else f"{{t{tensor.index}}}"


def activations(*tensors: Tensor | None) -> tuple[int, ...]:
    """Indices of those that are not constant, each once."""
    return tuple(dict.fromkeys(t.index for t in tensors if t is not None and not t.is_constant))


def plain_step(
    node: Node,
    kernel: str,
    constants: Sequence[Constant | Struct],
    *,
    headers: tuple[str, ...],
    cost: float,
    code_bytes: int,
    method: str = "portable C",
    overlaps: tuple[Overlap, ...] = (),
) -> Step:
    """One input, one output: a call `kernel(&params, input, constants..., output)`; the one Struct is `params`."""
    source, result = node.input(0), node.output()
    tables = [f"{{{c.name}}}" for c in constants if isinstance(c, Constant)]
    arguments = ", ".join(("&{params}", f"{{t{source.index}}}", *tables, f"{{t{result.index}}}"))
    return Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel=kernel,
        method=method,
        calls=(f"edgeq_{kernel}({arguments});",),
        inputs=activations(source),
        outputs=(result.index,),
        constants=tuple(constants),
        overlaps=overlaps,
        sources=(f"{kernel}.c",),
        headers=headers,
        cost=cost,
        code_bytes=code_bytes,
    )


def c_type(tensor: Tensor) -> str:
    return C_TYPES[tensor.type]


def strides(shape: Sequence[int]) -> list[int]:
    """Row-major strides in elements."""
    return [prod(shape[i + 1 :]) for i in range(len(shape))]


def axis_of(axis: int, rank: int) -> int:
    """An axis in 0..rank-1; Unsupported outside."""
    if not -rank <= axis < rank:
        raise Unsupported(f"Its axis {axis} is outside of a tensor of rank {rank}.")
    return axis % rank


def int_list(values: NDArray[np.generic]) -> list[int]:
    return [int(v) for v in values.reshape(-1)]
