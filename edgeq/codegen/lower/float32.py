"""float32: convolutions, matrices, pooling, reductions, rows. Weights are float32 constants.

The kernels add in the order of TFLM's and LiteRT's reference kernels; what is left to differ is the last unit or two of
exponentials (`firmware/include/edgeq/float32.h`). `registry.py` takes these lowerings where an operator computes in
float32; operators that only move bytes have one lowering for every type.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.lower.common import activations, in_place, pointer, require
from edgeq.codegen.lower.convolution import geometry, transposed_geometry, window_overlap
from edgeq.codegen.lower.matrix import product_loops
from edgeq.codegen.lower.reduction import loops
from edgeq.codegen.registry import lowering
from edgeq.codegen.step import Constant, Fields, Node, Overlap, Step, Struct, Unsupported
from edgeq.graph.ir import Tensor, TensorType

HEADERS = ("float32.h", "elementwise.h", "reduction.h")
FLOAT = (TensorType.FLOAT32,)
_LARGEST = float(np.finfo(np.float32).max)
_RANGES = {
    "NONE": (-_LARGEST, _LARGEST),
    "RELU": (0.0, _LARGEST),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
}


def activation(node: Node) -> Fields:
    """The fused activation's range (CalculateActivationRange): the largest finite numbers where there is none."""
    name = node.options.get("fused_activation_function", "NONE")
    if name not in _RANGES:
        raise Unsupported(f"Its fused activation {name} is not supported.", "Use a separate activation layer.")
    low, high = _RANGES[name]
    return {"act_min": low, "act_max": high}


def floats(node: Node, position: int, what: str) -> NDArray[np.float32]:
    """A constant float32 input; Unsupported if it is computed, of another type (hybrid layers), or not finite."""
    tensor = node.input(position)
    if tensor.type is not TensorType.FLOAT32:
        raise Unsupported(
            f"Its {what} are {tensor.type.name} and its activations FLOAT32 (dynamic range quantization).",
            "Convert the model to int8 (`edgeq convert --scheme int8`), or wholly to float32.",
        )
    values = node.constant(position, what)
    if not np.isfinite(values).all():
        raise Unsupported(f"Its {what} are not all finite.", "Train the model again: a weight is NaN or infinite.")
    return values.astype(np.float32)


def _bias(node: Node, position: int, channels: int) -> Constant:
    tensor = node.optional(position)
    values = np.zeros(channels, np.float32) if tensor is None else floats(node, position, "bias").reshape(-1)
    if values.shape != (channels,):
        raise Unsupported(f"Its bias has {values.size} values for {channels} channels.")
    return Constant("bias", "float", values)


def step(
    node: Node,
    kernel: str,
    call: str,
    sources: tuple[Tensor, ...],
    constants: tuple[Constant | Struct, ...] = (),
    *,
    cost: float,
    macs: int = 0,
    overlaps: tuple[Overlap, ...] = (),
    method: str = "float32, portable C",
    code_bytes: int = 300,
) -> Step:
    """A Step that calls `edgeq_<kernel>(<call>)`."""
    return Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel=kernel,
        method=method,
        calls=(f"edgeq_{kernel}({call});",),
        inputs=activations(*sources),
        outputs=(node.output().index,),
        constants=constants,
        overlaps=overlaps,
        sources=(f"{kernel}.c",),
        headers=HEADERS,
        macs=macs,
        cost=cost,
        code_bytes=code_bytes,
    )


def _windowed(node: Node, kernel: str, weights: NDArray[np.float32], fields: dict[str, int], macs: int) -> Step:
    """A call `kernel(&params, input, weights, bias, output)`; the bias is input 2."""
    source, result = node.input(0), node.output()
    require(node, source, result, types=FLOAT)
    ordered = node.operator.name != "TRANSPOSE_CONV"
    overlaps = (Overlap(source.index, result.index, 4 * window_overlap(node, fields)),) if ordered else ()
    constants = (
        Constant("weights", "float", weights.reshape(-1)),
        _bias(node, 2, result.shape[-1]),
        Struct("params", "conv_f32_params", {**fields, **activation(node)}),
    )
    return step(
        node,
        kernel,
        f"&{{params}}, {{t{source.index}}}, {{weights}}, {{bias}}, {{t{result.index}}}",
        (source,),
        constants,
        cost=macs * (5 if kernel == "conv_2d_f32" else 10) + result.elements * 30,
        macs=macs,
        overlaps=overlaps,
        method=f"{fields['filter_h']}x{fields['filter_w']}, stride {fields['stride_h']}x{fields['stride_w']}, float32",
    )


@lowering("CONV_2D", float32=True)
def conv_2d(node: Node) -> Iterator[Step]:
    """Input [n, h, w, c], weights [out, kh, kw, c / groups], optional bias [out]."""
    weights = floats(node, 1, "weights")
    if weights.ndim != 4:
        raise Unsupported(f"Its weights have rank {weights.ndim}, not 4.")
    out_c, filter_h, filter_w, filter_c = weights.shape
    fields = {**geometry(node, filter_h, filter_w), "filter_c": filter_c}
    if fields["in_c"] % filter_c or out_c % (fields["in_c"] // filter_c) or out_c != fields["out_c"]:
        raise Unsupported(f"Weights {list(weights.shape)} do not fit {fields['in_c']} input channels.")
    macs = node.output().elements * filter_h * filter_w * filter_c
    yield _windowed(node, "conv_2d_f32", weights, fields, macs)


@lowering("DEPTHWISE_CONV_2D", float32=True)
def depthwise_conv_2d(node: Node) -> Iterator[Step]:
    """Input [n, h, w, c], weights [1, kh, kw, c * multiplier], optional bias."""
    weights = floats(node, 1, "weights")
    if weights.ndim != 4 or weights.shape[0] != 1:
        raise Unsupported(f"Its weights have the shape {list(weights.shape)}.")
    _, filter_h, filter_w, out_c = weights.shape
    fields = geometry(node, filter_h, filter_w)
    if out_c != fields["out_c"] or out_c % fields["in_c"]:
        raise Unsupported(f"Weights {list(weights.shape)} do not fit {fields['in_c']} input channels.")
    fields |= {"filter_c": 1, "multiplier": out_c // fields["in_c"]}
    macs = node.output().elements * filter_h * filter_w
    yield _windowed(node, "depthwise_conv_2d_f32", weights, fields, macs)


@lowering("TRANSPOSE_CONV", float32=True)
def transpose_conv(node: Node) -> Iterator[Step]:
    """Inputs: output shape, weights [out, kh, kw, in], activations, optional bias. Each output gathers its taps."""
    inputs = node.operator.inputs
    plain = replace(node, operator=replace(node.operator, inputs=(inputs[2], inputs[1], *inputs[3:])))
    weights = floats(plain, 1, "weights")
    fields = transposed_geometry(plain, weights.shape)
    macs = plain.input(0).elements * weights.size // weights.shape[3]
    yield _windowed(plain, "transpose_conv_f32", weights, fields, macs)


@lowering("FULLY_CONNECTED", float32=True)
def fully_connected(node: Node) -> Iterator[Step]:
    """Input of any rank, read as rows of `depth`; weights [units, depth]; optional bias [units]."""
    source, result, weights = node.input(0), node.output(), floats(node, 1, "weights")
    require(node, source, result, types=FLOAT)
    if weights.ndim != 2 or node.options.get("weights_format", "DEFAULT") != "DEFAULT":
        raise Unsupported("Its weights are not a matrix in the default format.")
    units, depth = weights.shape
    batches = source.elements // depth
    if source.elements % depth or result.elements != batches * units:
        raise Unsupported(f"Weights {list(weights.shape)} do not fit the input {list(source.shape)}.")
    fields: Fields = {"batches": batches, "depth": depth, "units": units, **activation(node)}
    constants = (
        Constant("weights", "float", weights.reshape(-1)),
        _bias(node, 2, units),
        Struct("params", "fully_connected_f32_params", fields),
    )
    call = f"&{{params}}, {{t{source.index}}}, {{weights}}, {{bias}}, {{t{result.index}}}"
    macs = batches * units * depth
    yield step(
        node,
        "fully_connected_f32",
        call,
        (source,),
        constants,
        cost=macs * 4 + result.elements * 20,
        macs=macs,
        code_bytes=120,
    )


@lowering("BATCH_MATMUL", float32=True)
def batch_matmul(node: Node) -> Iterator[Step]:
    """[..., m, k] x [..., k, n], either side transposed (adj_x, adj_y), leading dimensions broadcast."""
    a, b, result = node.input(0), node.input(1), node.output()
    require(node, a, b, result, types=FLOAT)
    adjoint = bool(node.options.get("adj_x")), bool(node.options.get("adj_y"))
    fields = product_loops((a.shape, b.shape, result.shape), adjoint)
    values = tuple(
        Constant(name, "float", floats(node, at, "values").reshape(-1))
        for at, (name, tensor) in enumerate((("a", a), ("b", b)))
        if tensor.is_constant
    )
    call = f"&{{params}}, {pointer(a, 'a')}, {pointer(b, 'b')}, {{t{result.index}}}"
    macs = result.elements * fields["k"]
    params = Struct("params", "batch_matmul_f32_params", {**fields})
    yield step(node, "batch_matmul_f32", call, (a, b), (*values, params), cost=macs * 8, macs=macs)


@lowering("AVERAGE_POOL_2D", "MAX_POOL_2D", float32=True)
def pool_2d(node: Node) -> Iterator[Step]:
    """Padding is left out of the mean and the maximum."""
    source, result, options = node.input(0), node.output(), node.options
    require(node, source, result, types=FLOAT)
    fields = geometry(node, int(options["filter_height"]), int(options["filter_width"]))
    if fields["in_c"] != fields["out_c"]:
        raise Unsupported("It changes the number of channels.")
    overlap = Overlap(source.index, result.index, 4 * window_overlap(node, fields))
    for unused in ("dilation_h", "dilation_w", "out_c"):
        fields.pop(unused)
    params = Struct("params", "pool_f32_params", {**fields, **activation(node)})
    call = f"&{{params}}, {{t{source.index}}}, {{t{result.index}}}"
    cost = result.elements * (fields["filter_h"] * fields["filter_w"] * 6 + 20)
    yield step(node, f"{node.operator.name.lower()}_f32", call, (source,), (params,), cost=cost, overlaps=(overlap,))


@lowering("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", float32=True)
def reduce(node: Node) -> Iterator[Step]:
    """Over constant axes, elements in ascending order; MEAN divides the sum."""
    source, result, name = node.input(0), node.output(), node.operator.name
    require(node, source, result, types=FLOAT)
    shape = loops(node)
    kernel, params = f"{name.lower()}_f32", Struct("params", "reduce_params", {**shape})
    if name in ("MEAN", "SUM"):
        divisor = float(prod(shape["reduced_size"])) if name == "MEAN" else 1.0
        kernel, params = "sum_f32", Struct("params", "reduce_f32_params", {**shape, "divisor": divisor})
    call = f"&{{params}}, {{t{source.index}}}, {{t{result.index}}}"
    yield step(node, kernel, call, (source,), (params,), cost=source.elements * 8 + result.elements * 30)


def _rows(node: Node, kernel: str, cost: float, *more: str) -> Step:
    """A call `kernel(input, output, rows, depth, ...)` over the last axis."""
    source, result = node.input(0), node.output()
    require(node, source, result, types=FLOAT)
    if not source.shape or source.shape != result.shape:
        raise Unsupported(f"It turns {list(source.shape)} into {list(result.shape)}.")
    depth = source.shape[-1]
    call = ", ".join((f"{{t{source.index}}}", f"{{t{result.index}}}", str(source.elements // depth), str(depth), *more))
    return step(node, kernel, call, (source,), cost=source.elements * cost, overlaps=in_place(source, result))


def literal(value: float) -> str:
    """A finite number as a C float."""
    if not np.isfinite(value):
        raise Unsupported(f"One of its options is {value}.", "Convert the model again.")
    text = repr(float(np.float32(value)))
    return f"{text}f"


@lowering("SOFTMAX", float32=True)
def softmax(node: Node) -> Iterator[Step]:
    """exp(beta * (x - largest)) over its sum, over the last axis."""
    yield _rows(node, "softmax_f32", 60, literal(node.options["beta"]))


@lowering("LOG_SOFTMAX", float32=True)
def log_softmax(node: Node) -> Iterator[Step]:
    """x - largest - ln(sum of exp(x - largest)), over the last axis."""
    yield _rows(node, "log_softmax_f32", 60)


@lowering("L2_NORMALIZATION", float32=True)
def l2_normalization(node: Node) -> Iterator[Step]:
    """Each row over its Euclidean length, which counts as 1e-6 at least."""
    yield _rows(node, "l2_normalization_f32", 25)


@lowering("RESIZE_BILINEAR", float32=True)
def resize_bilinear(node: Node) -> Iterator[Step]:
    """Rows, columns and their shares are tables made at generation, in float32 (ComputeInterpolationValues)."""
    source, result = node.input(0), node.output()
    require(node, source, result, types=FLOAT)
    (n, h, w, c), (_, oh, ow, _) = source.shape, result.shape

    def table(size: int, out: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """For each output position: lower and upper source position; the upper one's share."""
        corners = bool(node.options.get("align_corners")) and out > 1
        ratio = np.float32(size - 1) / np.float32(out - 1) if corners else np.float32(size) / np.float32(out)
        at = np.arange(out, dtype=np.float32)
        half = np.float32(0.5)
        at = (at + half) * ratio - half if node.options.get("half_pixel_centers") else at * ratio
        lower = np.maximum(np.floor(at), 0)
        upper = np.minimum(np.ceil(at), size - 1)
        return np.stack([lower, upper], axis=1).reshape(-1).astype(np.int32), (at - lower).astype(np.float32)

    (rows, row_parts), (columns, column_parts) = table(h, oh), table(w, ow)
    fields: Fields = {"batches": n, "in_h": h, "in_w": w, "channels": c, "out_h": oh, "out_w": ow}
    constants = (
        Constant("row_places", "int32_t", rows),
        Constant("row_parts", "float", row_parts),
        Constant("column_places", "int32_t", columns),
        Constant("column_parts", "float", column_parts),
        Struct("params", "resize_f32_params", fields),
    )
    call = (
        f"&{{params}}, {{t{source.index}}}, {{row_places}}, {{row_parts}}, {{column_places}}, {{column_parts}}, "
        f"{{t{result.index}}}"
    )
    yield step(node, "resize_bilinear_f32", call, (source,), constants, cost=result.elements * 25)
