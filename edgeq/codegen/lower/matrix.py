"""TRANSPOSE_CONV, BATCH_MATMUL and L2_NORMALIZATION."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from edgeq.codegen.lower.common import (
    SUFFIX,
    activation_range,
    activations,
    c_type,
    multiplier,
    plain_step,
    pointer,
    require,
    same_type,
    scale,
    zero_point,
)
from edgeq.codegen.lower.convolution import accumulators_fit, transposed_geometry, weights_of
from edgeq.codegen.lower.elementwise import broadcast
from edgeq.codegen.registry import lowering
from edgeq.codegen.step import Constant, Fields, Node, Step, Struct, Unsupported
from edgeq.graph.ir import TensorType

_ACTIVATIONS = (TensorType.INT8, TensorType.INT16)


@lowering("TRANSPOSE_CONV")
def transpose_conv(node: Node) -> Iterator[Step]:
    """Inputs: output shape, weights [out, kh, kw, in], activations, optional bias. Each output gathers its taps."""
    inputs = node.operator.inputs
    plain = replace(node, operator=replace(node.operator, inputs=(inputs[2], inputs[1], *inputs[3:])))
    source, filters, result = plain.input(0), plain.input(1), plain.output()
    require(node, source, result, types=_ACTIVATIONS)
    activation = same_type(source, result)
    geometry = transposed_geometry(plain, filters.shape)
    out_c, filter_h, filter_w, _ = filters.shape
    stride = f"{geometry['stride_h']}x{geometry['stride_w']}"
    constants = weights_of(plain, out_c)
    flat = constants.weights.reshape(out_c, -1)
    if activation is TensorType.INT8 and not accumulators_fit(flat, constants.bias, source):
        raise Unsupported("Its accumulators may exceed 32 bits.", "Use fewer input channels in this layer.")
    low, high = activation_range(node, result)
    wide = activation is TensorType.INT16
    fields: Fields = {
        **geometry,
        "input_offset": -zero_point(source),
        "output_offset": zero_point(result),
        "act_min": low,
        "act_max": high,
    }
    kernel = f"transpose_conv_{SUFFIX[activation]}"
    macs = source.elements * filter_h * filter_w * out_c
    yield Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel=kernel,
        method=f"{filter_h}x{filter_w}, stride {stride}, each output gathers its taps",
        calls=(
            f"edgeq_{kernel}(&{{params}}, {{t{source.index}}}, {{weights}}, {{bias}}, {{multipliers}}, {{shifts}}, "
            f"{{t{result.index}}});",
        ),
        inputs=activations(source),
        outputs=(result.index,),
        constants=(
            Constant("weights", "int8_t", constants.weights.reshape(-1)),
            Constant("bias", "int64_t" if wide else "int32_t", constants.bias.astype(np.int64 if wide else np.int32)),
            Constant("multipliers", "int32_t", constants.multipliers),
            Constant("shifts", "int8_t", constants.shifts),
            Struct("params", "conv_params", fields),
        ),
        sources=(f"{kernel}.c",),
        headers=("convolution.h", "arithmetic.h"),
        macs=macs,
        cost=macs * 10,
        code_bytes=500,
    )


@lowering("BATCH_MATMUL")
def batch_matmul(node: Node) -> Iterator[Step]:
    """[..., m, k] x [..., k, n], either side transposed (adj_x, adj_y), leading dimensions broadcast."""
    shapes = node.input(0).shape, node.input(1).shape, node.output().shape
    yield _product(node, shapes, (bool(node.options.get("adj_x")), bool(node.options.get("adj_y"))))


def computed_weights(node: Node) -> Step:
    """FULLY_CONNECTED whose weights [units, depth] are computed at run time: rows of `depth` by their transpose."""
    weights, rows = node.input(1), node.input(0).elements // node.input(1).shape[1]
    if node.optional(2) is not None:
        raise Unsupported(
            "Its weights are computed at run time, and it has a bias.", "Add the bias in a layer of its own."
        )
    return _product(node, ((rows, weights.shape[1]), weights.shape, (rows, weights.shape[0])), (False, True))


def product_loops(shapes: tuple[tuple[int, ...], ...], adjoint: tuple[bool, bool]) -> dict[str, Any]:
    """Sizes and strides of the product of two inputs of the first two shapes into the third, either transposed."""
    a_shape, b_shape, out_shape = shapes
    if min(len(a_shape), len(b_shape)) < 2:
        raise Unsupported("An input has rank 1.", "Reshape it to a matrix.")
    adjoint_a, adjoint_b = adjoint
    m, k = a_shape[-2:][::-1] if adjoint_a else a_shape[-2:]
    k_b, n = b_shape[-2:][::-1] if adjoint_b else b_shape[-2:]
    if k != k_b or out_shape[-2:] != (m, n):
        raise Unsupported(f"Matrices {list(a_shape)} and {list(b_shape)} do not multiply to {list(out_shape)}.")
    sizes, a_steps, b_steps = broadcast(a_shape[:-2], b_shape[:-2], out_shape[:-2])
    return {
        "size": tuple(sizes),
        "a_stride": tuple(s * m * k for s in a_steps),
        "b_stride": tuple(s * k * n for s in b_steps),
        "m": m,
        "n": n,
        "k": k,
        "a_row": 1 if adjoint_a else k,
        "a_step": m if adjoint_a else 1,
        "b_column": k if adjoint_b else 1,
        "b_step": 1 if adjoint_b else n,
    }


def _product(node: Node, shapes: tuple[tuple[int, ...], ...], adjoint: tuple[bool, bool]) -> Step:
    """The product of the first two inputs, read with the given shapes, either of them transposed."""
    a, b, result = node.input(0), node.input(1), node.output()
    require(node, a, b, result, types=_ACTIVATIONS)
    activation = same_type(a, b, result)
    loops = product_loops(shapes, adjoint)
    m, n, k = (loops[name] for name in "mnk")
    if activation is TensorType.INT8 and k * 255 * 255 >= 2**31:
        raise Unsupported("Its accumulators may exceed 32 bits.", "Multiply smaller matrices.")
    factor, shift = multiplier(scale(a) * scale(b) / scale(result))
    low, high = activation_range(node, result)
    fields: Fields = {
        **loops,
        "a_offset": -zero_point(a),
        "b_offset": -zero_point(b),
        "multiplier": factor,
        "shift": shift,
        "output_offset": zero_point(result),
        "act_min": low,
        "act_max": high,
    }
    kernel = f"batch_matmul_{SUFFIX[activation]}"
    macs = result.elements * k
    values = [(n, t) for n, t in (("a", a), ("b", b)) if t.data is not None]
    return Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel=kernel,
        method=f"{m}x{k} by {k}x{n}, portable C",
        calls=(f"edgeq_{kernel}(&{{params}}, {pointer(a, 'a')}, {pointer(b, 'b')}, {{t{result.index}}});",),
        inputs=activations(a, b),
        outputs=(result.index,),
        constants=(
            *(Constant(name, c_type(t), np.asarray(t.data).reshape(-1)) for name, t in values),
            Struct("params", "batch_matmul_params", fields),
        ),
        sources=(f"{kernel}.c",),
        headers=("matrix.h", "elementwise.h", "arithmetic.h"),
        macs=macs,
        cost=macs * 10,
        code_bytes=300,
    )


@lowering("L2_NORMALIZATION")
def l2_normalization(node: Node) -> Iterator[Step]:
    """Over the last axis; the output's scale is 1/128, its zero point 0 (reference_integer_ops::L2Normalization)."""
    source, result = node.input(0), node.output()
    require(node, source, result, types=(TensorType.INT8,))
    if not math.isclose(scale(result), 1 / 128, rel_tol=1e-3) or zero_point(result) != 0:
        raise Unsupported("Its output's scale is not 1/128 with zero point 0.", "Convert the model again.")
    depth = source.shape[-1]
    if depth * 255 * 255 >= 2**31:
        raise Unsupported("Its sum of squares may exceed 32 bits.", "Normalize fewer elements.")
    fields: Fields = {"rows": source.elements // depth, "depth": depth, "input_offset": -zero_point(source)}
    yield plain_step(
        node,
        "l2_normalization_s8",
        (Struct("params", "l2_normalization_params", fields),),
        headers=("matrix.h", "elementwise.h", "arithmetic.h"),
        cost=source.elements * 40,
        code_bytes=400,
    )
