"""What the Edge TPU compiler maps: one rule a constraint, each a function whose docstring is the user's sentence.

A rule gets a Node and yields nothing if the operator keeps to it, else the value that breaks it. The documented
constraints are those of coral.ai's table of supported operations (kept by developer.axis.com, and google-coral/edgetpu
CHANGES.md); what only users' logs tell names the thread; `Limits` holds the sizes that no document gives, as observed.
The rules reason by types, ranks, layouts and element counts; an activation is seen as [y, x, z], its three innermost
dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import getdoc
from itertools import dropwhile
from math import prod

import numpy as np

from edgeq.graph.ir import Graph, Operator, Tensor, TensorType

MAPPED = "Mapped to Edge TPU"
NOT_SUPPORTED = "Operation not supported"
DATA_TYPE = "Operation is working on an unsupported data type"
LIMITATION = "Operation is otherwise supported, but not mapped due to some unspecified limitation"
SUBGRAPH = "More than one subgraph is not supported"
RANK = "Tensor has unsupported rank (up to 3 innermost dimensions mapped)"
VERSION = "Operation version not supported"
NOT_CONSTANT = "Filter, bias, or other param is not constant at compile-time"
"""The compiler's own status sentences."""

RUNTIME = {
    **dict.fromkeys(
        (
            *("ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"),
            *("L2_NORMALIZATION", "LOGISTIC", "MAXIMUM", "MAX_POOL_2D", "MEAN", "MINIMUM", "MUL", "PAD", "PADV2"),
            *("RELU", "RELU6", "RELU_N1_TO_1", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SLICE"),
            *("SOFTMAX", "SPACE_TO_DEPTH", "SPLIT", "SQUEEZE", "STRIDED_SLICE", "SUB", "TANH", "TILE"),
        ),
        10,
    ),
    **dict.fromkeys(("EXPAND_DIMS", "PACK", "PRELU", "QUANTIZE", "SUM", "TRANSPOSE_CONV"), 13),
    **dict.fromkeys(
        (
            *("LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM", "REDUCE_MAX", "REDUCE_MIN", "RSQRT", "SQUARED_DIFFERENCE"),
            "TRANSPOSE",
        ),
        14,
    ),
}
"""Operator -> lowest runtime version that executes it. TILE is not documented, but seen mapped."""

LAST_COMPILER = 16
"""Major version of the last compiler that was released; what is said of no other holds for it."""

EARLIER_COMPILERS = {"FULLY_CONNECTED": 4, "RESIZE_NEAREST_NEIGHBOR": 2, "TRANSPOSE": 0}
"""Operator -> newest version that compilers before 16 map: google-coral/edgetpu#187 and #242, compiled by 14.1, #342 by
15.0; a FULLY_CONNECTED that keeps its dimensions has version 5 and was refused by 14.1."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes beyond which the compiler leaves an operator on the CPU: geometric mean of largest mapped and smallest not.

    `benchmarks/coral.py` computes them from compiled models and shows the bounds.
    """

    row_elements: float = 229_600.0
    """x * z of any activation: 174,447 (LOGISTIC of 1917 x 91) mapped, 302,400 (CONCATENATION to 144 x 2100) not."""
    reshape_row_elements: float = 105_300.0
    """x * z of a RESHAPE's result: 102,000 (1200 x 85) mapped, 108,800 (68 x 1600) not."""
    reshape_elements: float = 816_000.0
    """Elements of a RESHAPE: 408,000 mapped, 1,632,000 not."""
    transpose_elements: float = 76_800.0
    """Elements of a TRANSPOSE: 57,600 mapped, 102,400 not."""
    resize_factor: float = 5.7
    """Growth of a side in a RESIZE: 2 mapped, 16 and 33 not."""
    softmax_elements: float = 16_384.0
    """Innermost size of a SOFTMAX: 16,000 documented, 16,384 mapped."""
    softmax_row_elements: float = 146_600.0
    """x * z of a SOFTMAX: 134,400 reported as supported, 160,000 not mapped."""
    mean_window: float = 5_970.0
    """Positions that a MEAN averages: 1,089 mapped (as AVERAGE_POOL_2D), 32,768 not."""


@dataclass(frozen=True, slots=True)
class Node:
    """An operator as the rules see it.

    runtime: the highest runtime version that the model may demand. compiler: the compiler's major version.
    """

    graph: Graph
    operator: Operator
    limits: Limits
    runtime: int
    compiler: int = LAST_COMPILER

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Inputs and outputs that exist."""
        return tuple(self.graph.tensors[i] for i in (*self.operator.inputs, *self.operator.outputs) if i >= 0)

    @property
    def activations(self) -> tuple[Tensor, ...]:
        """Inputs and outputs that are computed."""
        return tuple(tensor for tensor in self.tensors if not tensor.is_constant)

    @property
    def input(self) -> Tensor:
        """The first computed input, else the first input."""
        present = [self.graph.tensors[i] for i in self.operator.inputs if i >= 0]
        return next((tensor for tensor in present if not tensor.is_constant), present[0])

    @property
    def output(self) -> Tensor:
        return self.graph.tensors[self.operator.outputs[0]]

    def parameter(self, position: int) -> Tensor:
        """The input at a position. IndexError if the operator leaves it out."""
        index = self.operator.inputs[position]
        if index < 0:
            raise IndexError(position)
        return self.graph.tensors[index]


Breach = Iterator[str]


@dataclass(frozen=True, slots=True)
class EdgeRule:
    """A constraint: the operators it concerns (empty: all), the compiler's status when it is broken, the remedy."""

    id: str
    operators: tuple[str, ...]
    status: str
    sentence: str
    remedy: str | None
    function: Callable[[Node], Breach]


RULES: list[EdgeRule] = []


def constraint(
    id_: str, *operators: str, status: str = LIMITATION, remedy: str | None = None
) -> Callable[[Callable[[Node], Breach]], Callable[[Node], Breach]]:
    """Register a constraint; the order of registration is the order of telling."""

    def register(function: Callable[[Node], Breach]) -> Callable[[Node], Breach]:
        RULES.append(EdgeRule(id_, operators, status, " ".join((getdoc(function) or "").split()), remedy, function))
        return function

    return register


def breach(node: Node) -> tuple[EdgeRule, str] | None:
    """The first constraint that an operator breaks, with the value found, or None if it can be mapped."""
    for one in RULES:
        if one.operators and node.operator.name not in one.operators:
            continue
        try:
            for value in one.function(node):
                return one, value
        except (IndexError, ZeroDivisionError):
            return one, "the operator is malformed: an input or a dimension is missing"
    return None


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape as 1x40x40x144."""
    return "x".join(map(str, shape)) or "scalar"


def _row(tensor: Tensor) -> int:
    return prod(tensor.shape[-2:])


_TYPES = (TensorType.INT8, TensorType.UINT8)
_LSTM = ("LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM")


@constraint(
    "edge-tpu-float-quantize",
    "QUANTIZE",
    remedy="Use int8 or uint8 input: edgeq convert --io int8; quantize on the host.",
)
def float_quantize(node: Node) -> Breach:
    """A QUANTIZE from float stays on the CPU; only 8-bit to 8-bit is mapped."""
    if node.input.type not in _TYPES:
        yield f"{node.input.type.name} -> {node.output.type.name}"


@constraint(
    "edge-tpu-type",
    status=DATA_TYPE,
    remedy="Quantize the whole model to int8, inputs and outputs too (edgeq convert --io int8).",
)
def data_type(node: Node) -> Breach:
    """Activations must be int8 or uint8; the parameters of an operator int8, uint8, or int32 biases and indices."""
    name = node.operator.name
    if name == "CUSTOM":
        yield node.operator.custom_code or name
    for tensor in node.tensors:
        allowed: tuple[TensorType, ...] = _TYPES
        if tensor.is_constant:
            allowed = (*_TYPES, TensorType.INT32, TensorType.INT64)
        elif name in _LSTM:
            allowed = (*_TYPES, TensorType.INT16)
        if tensor.type not in allowed and name in RUNTIME | {"DEQUANTIZE": 0, "CUSTOM": 0}:
            yield f"{tensor.type.name} {shape_text(tensor.shape)}"


@constraint("edge-tpu-operator", status=NOT_SUPPORTED)
def known_operator(node: Node) -> Breach:
    """The compiler must know the operator."""
    if node.operator.name not in RUNTIME:
        yield node.operator.name


@constraint("edge-tpu-compiler-version", status=VERSION, remedy="Compile with edgetpu_compiler 16.0.")
def compiler_version(node: Node) -> Breach:
    """Compilers before 16.0 do not know the operator, or not in this version."""
    newest = EARLIER_COMPILERS.get(node.operator.name, node.operator.version)
    if node.compiler < LAST_COMPILER and node.operator.version > newest:
        yield f"version {node.operator.version}, compiler {node.compiler}"


@constraint("edge-tpu-runtime", status=VERSION, remedy="Update the Edge TPU runtime.")
def runtime_version(node: Node) -> Breach:
    """The board's Edge TPU runtime must be new enough for the operator."""
    needed = RUNTIME.get(node.operator.name, 0)
    if needed > node.runtime:
        yield f"needs runtime {needed}, the board has {node.runtime}"


@constraint(
    "edge-tpu-constant-parameters",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
    "TRANSPOSE_CONV",
    "PRELU",
    status=NOT_CONSTANT,
)
def constant_parameters(node: Node) -> Breach:
    """Weights, biases and slopes must be constants of the model."""
    needed, optional = ((0, 1), 3) if node.operator.name == "TRANSPOSE_CONV" else ((1,), 2)
    tensors = [node.parameter(position) for position in needed]
    if len(node.operator.inputs) > optional and node.operator.inputs[optional] >= 0:
        tensors.append(node.parameter(optional))
    for tensor in tensors:
        if not tensor.is_constant:
            yield f"{tensor.name} is computed"


@constraint("edge-tpu-rank", status=RANK, remedy="Fix the batch size at 1 and reshape to three dimensions.")
def rank(node: Node) -> Breach:
    """Only the three innermost dimensions of an activation may be larger than 1; so the batch must be 1."""
    for tensor in node.activations:
        if prod(tensor.shape[:-3]) > 1:
            yield shape_text(tensor.shape)


@constraint("edge-tpu-dynamic", remedy="Fix every dimension when you convert.")
def dynamic(node: Node) -> Breach:
    """Sizes must be constant at compile time; only the batch may be left open."""
    for tensor in node.activations:
        if -1 in tensor.shape_signature[1:]:
            yield shape_text(tensor.shape_signature)


@constraint(
    "edge-tpu-fused-activation",
    "AVERAGE_POOL_2D",
    "MAX_POOL_2D",
    "CONCATENATION",
    remedy="Keep the activation as a layer of its own.",
)
def fused_activation(node: Node) -> Breach:
    """Pooling and concatenation are mapped only without a fused activation."""
    activation = node.operator.options.get("fused_activation_function", "NONE")
    if activation != "NONE":
        yield str(activation)


@constraint("edge-tpu-dilation", "CONV_2D", "DEPTHWISE_CONV_2D", remedy="Use the same dilation in x and y.")
def dilation(node: Node) -> Breach:
    """The dilation must be the same in x and y, except across a side of the kernel that is 1."""
    options = node.operator.options
    y, x = int(options.get("dilation_h_factor", 1)), int(options.get("dilation_w_factor", 1))
    kernel = node.parameter(1).shape
    if y != x and not (kernel[1] == 1 or kernel[2] == 1):
        yield f"{y}x{x} with a {kernel[1]}x{kernel[2]} kernel"


@constraint("edge-tpu-weights-format", "FULLY_CONNECTED")
def weights_format(node: Node) -> Breach:
    """A FULLY_CONNECTED must have the default weights format."""
    layout = node.operator.options.get("weights_format", "DEFAULT")
    if layout != "DEFAULT":
        yield str(layout)


@constraint("edge-tpu-dense-rows", "FULLY_CONNECTED", remedy="Write the layer as a 1x1 convolution.")
def dense_rows(node: Node) -> Breach:
    """The result of a FULLY_CONNECTED must be one-dimensional."""
    if prod(node.output.shape[:-1]) > 1:
        yield shape_text(node.output.shape)


@constraint(
    "edge-tpu-concatenated-constant", "CONCATENATION", remedy="Add the constant by PAD, or leave it to the host."
)
def concatenated_constant(node: Node) -> Breach:
    """A constant may be concatenated only with one other input, and only if it is all zeros."""
    inputs = [node.graph.tensors[i] for i in node.operator.inputs if i >= 0]
    constants = [tensor for tensor in inputs if tensor.data is not None]
    if constants and (len(inputs) != 2 or any(np.any(tensor.data != _zero(tensor)) for tensor in constants)):
        yield f"{len(constants)} constants among {len(inputs)} inputs"


def _zero(tensor: Tensor) -> int:
    return tensor.quantization.zero_point[0] if tensor.quantization and tensor.quantization.zero_point else 0


@constraint("edge-tpu-strided-slice", "STRIDED_SLICE", remedy="Slice with stride 1; split the 5x5 stride into steps.")
def strided_slice(node: Node) -> Breach:
    """All strides of a STRIDED_SLICE must be 1, without ellipsis and new axes."""
    options = node.operator.options
    if options.get("ellipsis_mask", 0) or options.get("new_axis_mask", 0):
        yield "ellipsis or new axis"
    strides = node.parameter(3).data
    if strides is not None and np.any(np.abs(strides) > 1):
        yield f"strides {np.asarray(strides).tolist()}"


@constraint("edge-tpu-squeeze", "SQUEEZE", remedy="Use RESHAPE instead, or squeeze leading dimensions only.")
def squeeze(node: Node) -> Breach:
    """A SQUEEZE is mapped only where it takes leading dimensions of 1 away, so that nothing moves."""
    if _without_leading_ones(node.input.shape) != _without_leading_ones(node.output.shape):
        yield f"{shape_text(node.input.shape)} -> {shape_text(node.output.shape)}"


def _without_leading_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(dropwhile(lambda size: size == 1, shape))


@constraint("edge-tpu-pad", "PAD", "PADV2", remedy="Pad x and y only, or update the Edge TPU runtime.")
def pad(node: Node) -> Breach:
    """Runtimes before 13 pad along x and y only."""
    if node.runtime < 13 and node.input.shape[-1:] != node.output.shape[-1:]:
        yield f"{shape_text(node.input.shape)} -> {shape_text(node.output.shape)}"


@constraint(
    "edge-tpu-row", remedy="Split the tensor, or leave its post-processing out of the model and do it on the host."
)
def row(node: Node) -> Breach:
    """One row of an activation, its two innermost dimensions together, must be small enough."""
    if node.operator.name == "SOFTMAX":
        return
    for tensor in node.activations:
        if _row(tensor) > node.limits.row_elements:
            yield f"{shape_text(tensor.shape)}: {_row(tensor):,} elements in a row"


@constraint("edge-tpu-reshape", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", remedy="Reshape on the host, after the outputs.")
def reshape(node: Node) -> Breach:
    """A large RESHAPE is not mapped: neither one with long rows in its result nor one of many elements."""
    result = node.output
    rows_kept = node.input.shape[-2:] == result.shape[-2:]
    if _row(result) > node.limits.reshape_row_elements and not rows_kept:
        yield f"{shape_text(result.shape)}: {_row(result):,} elements in a row"
    if result.elements > node.limits.reshape_elements:
        yield f"{result.elements:,} elements"


@constraint("edge-tpu-transpose", "TRANSPOSE", remedy="Keep the channels last, so that no TRANSPOSE is needed.")
def transpose(node: Node) -> Breach:
    """A large TRANSPOSE is not mapped."""
    if node.output.elements > node.limits.transpose_elements:
        yield f"{node.output.elements:,} elements"


@constraint(
    "edge-tpu-resize",
    "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR",
    remedy="Resize by 2 several times, use TRANSPOSE_CONV, or resize on the host.",
)
def resize(node: Node) -> Breach:
    """A RESIZE that enlarges a side many times would lose precision and is not mapped."""
    source, result = node.input.shape, node.output.shape
    if len(source) == 4:
        factor = max(result[1] / source[1], result[2] / source[2])
        if factor > node.limits.resize_factor:
            yield f"{source[1]}x{source[2]} -> {result[1]}x{result[2]}, {factor:.3g} times"


@constraint("edge-tpu-softmax", "SOFTMAX", remedy="Leave the SOFTMAX out of the model; the host computes it faster.")
def softmax(node: Node) -> Breach:
    """A SOFTMAX is mapped up to some 16,000 elements along its axis, and not over long rows."""
    shape = node.input.shape
    if shape and shape[-1] > node.limits.softmax_elements:
        yield f"{shape[-1]:,} elements"
    if _row(node.input) > node.limits.softmax_row_elements:
        yield f"{_row(node.input):,} elements in a row"


@constraint(
    "edge-tpu-mean", "MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", remedy="Replace MEAN by AVERAGE_POOL_2D in two steps."
)
def mean(node: Node) -> Breach:
    """A reduction keeps the batch; over channels it needs a multiple of 4 of them, over positions not too many."""
    source = node.input.shape
    axes = node.parameter(1)
    if len(source) > 3 and axes.elements == len(source):
        yield "over every dimension, the batch too"
    if not source or node.output.elements == node.input.elements:
        return
    reduced = node.input.elements / node.output.elements
    last = node.output.shape[-1:] != source[-1:]
    if last and source[-1] % 4:
        yield f"{source[-1]} channels"
    elif last and node.runtime < 13:
        yield f"over channels, with runtime {node.runtime}"
    elif not last and reduced > node.limits.mean_window:
        yield f"{reduced:,.0f} positions"


@constraint("edge-tpu-prelu", "PRELU", remedy="Share the slopes: PReLU(shared_axes=[1, 2]).")
def prelu(node: Node) -> Breach:
    """PRELU must have one slope a channel."""
    slopes = node.parameter(1).shape
    if prod(slopes[:-1]) > 1:
        yield shape_text(slopes)
