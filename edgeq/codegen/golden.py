"""Golden vectors: seeded inputs and the outputs that the generated code must give, byte for byte.

The outputs come from LiteRT's reference kernels (`BUILTIN_REF`), which are not the code under test. They are written
only for models whose operators agree there with TFLM in every byte; FULLY_CONNECTED, which LiteRT rounds once and TFLM
twice, is given to the reference as the equal 1x1 CONV_2D. Models that are float32 throughout have outputs, too, and a
tolerance. For other models the inputs alone are written, and the README says so.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.plan import Plan
from edgeq.errors import ModelError
from edgeq.graph.ir import Graph, Operator, Quantization, Tensor, TensorType
from edgeq.graph.writer import write_bytes

COUNT = 4
SEED = 20261
LIMIT_BYTES = 1 << 20
"""Inputs larger than this in all are not written."""

FLOAT_TOLERANCE = 1e-5
"""Share of an output's largest magnitude up to which float32 outputs count as the same.

Sums are added in the reference's order and equal it; exponentials and what is computed from them differ in the last
units, and LiteRT's sigmoid ends in an approximation that is 1.5e-8 off.
"""

_AGREE = frozenset(
    {
        "ADD",
        "AVERAGE_POOL_2D",
        "CONCATENATION",
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "EXPAND_DIMS",
        "FULLY_CONNECTED",
        "MAXIMUM",
        "MAX_POOL_2D",
        "MINIMUM",
        "PAD",
        "RESHAPE",
        "SLICE",
        "SOFTMAX",
        "SQUEEZE",
        "STRIDED_SLICE",
        "TRANSPOSE",
    }
)


def inputs(graph: Graph, index: int) -> list[NDArray[Any]]:
    """The seeded input tensors of vector `index`, in the graph's order."""
    generator = np.random.default_rng([SEED, index])
    values = []
    for tensor in (graph.tensors[t] for t in graph.inputs):
        if tensor.type is TensorType.FLOAT32:
            values.append(generator.standard_normal(tensor.shape).astype(np.float32))
            continue
        dtype = tensor.type.dtype
        if dtype is None or dtype.kind == "b":
            values.append(generator.integers(0, 2, tensor.shape).astype(np.bool_))
        elif dtype.itemsize > 2:
            values.append(generator.integers(0, 2, tensor.shape).astype(dtype))
        else:
            limits = np.iinfo(dtype)
            values.append(generator.integers(limits.min, limits.max, tensor.shape, dtype=dtype, endpoint=True))
    return values


def _as_convolutions(graph: Graph) -> Graph:
    """The same function with every FULLY_CONNECTED written as RESHAPE, CONV_2D 1x1, RESHAPE."""
    tensors = list(graph.tensors)
    operators: list[Operator] = []

    def add(like: Tensor, name: str, shape: tuple[int, ...], **changes: Any) -> int:
        index = len(tensors)
        tensors.append(replace(like, index=index, name=name, shape=shape, shape_signature=shape, **changes))
        return index

    def constant_shape(shape: tuple[int, ...]) -> int:
        data = np.array(shape, np.int32)
        index = len(tensors)
        tensors.append(Tensor(index, f"shape{index}", TensorType.INT32, data.shape, data.shape, None, data))
        return index

    def reshape(source: int, result: int, shape: tuple[int, ...]) -> Operator:
        options = MappingProxyType({"new_shape": shape})
        return Operator(0, "RESHAPE", 1, (source, constant_shape(shape)), (result,), options)

    for operator in graph.operators:
        if operator.name != "FULLY_CONNECTED":
            operators.append(operator)
            continue
        source, filters, result = (graph.tensors[i] for i in (*operator.inputs[:2], operator.outputs[0]))
        units, depth = filters.shape
        rows = source.elements // depth
        quantization = filters.quantization
        if quantization is None or filters.data is None:
            raise ValueError("not a quantized layer with constant weights")
        scales = quantization.scale if quantization.per_channel else quantization.scale * units
        spread = Quantization(scales, (0,) * units, 0)
        wide = add(source, f"rows{len(tensors)}", (1, rows, 1, depth))
        data = np.asarray(filters.data).reshape(units, 1, 1, depth)
        kernel = add(filters, f"kernel{len(tensors)}", (units, 1, 1, depth), data=data, quantization=spread)
        summed = add(result, f"sums{len(tensors)}", (1, rows, 1, units))
        if len(operator.inputs) > 2 and operator.inputs[2] >= 0:
            bias = operator.inputs[2]
        else:
            zeros = np.zeros(units, np.int32)
            bias = len(tensors)
            tensors.append(Tensor(bias, f"bias{bias}", TensorType.INT32, (units,), (units,), None, zeros))
        options = {
            "padding": "VALID",
            "stride_h": 1,
            "stride_w": 1,
            "dilation_h_factor": 1,
            "dilation_w_factor": 1,
            "fused_activation_function": operator.options.get("fused_activation_function", "NONE"),
        }
        operators.append(reshape(source.index, wide, (1, rows, 1, depth)))
        operators.append(Operator(0, "CONV_2D", 3, (wide, kernel, bias), (summed,), MappingProxyType(options)))
        operators.append(reshape(summed, result.index, result.shape))
    numbered = tuple(replace(operator, index=i) for i, operator in enumerate(operators))
    return replace(graph, tensors=tuple(tensors), operators=numbered, subgraphs=(), signatures=())


def _is_float(graph: Graph) -> bool:
    """Whether every activation is float32."""
    return {graph.tensors[t].type for op in graph.operators for t in op.outputs} == {TensorType.FLOAT32}


def _expected(plan: Plan, vectors: list[list[NDArray[Any]]]) -> list[list[NDArray[Any]]] | None:
    """The reference's outputs, or None where it does not agree with TFLM or does not take the model."""
    from edgeq.interpreter import Interpreter

    graph = plan.source
    kinds = {graph.tensors[t].type for op in graph.operators for t in op.outputs}
    agrees = kinds == {TensorType.INT8} and {op.name for op in graph.operators} <= _AGREE
    dense = (op for op in graph.operators if op.name == "FULLY_CONNECTED")
    agrees = agrees and all(graph.tensors[op.inputs[1]].is_constant for op in dense)
    if not agrees and not _is_float(graph):
        return None
    try:
        interpreter = Interpreter(write_bytes(_as_convolutions(graph) if agrees else graph))
        return [interpreter.run(vector) for vector in vectors]
    except ModelError:
        return None


def vectors(plan: Plan) -> dict[str, bytes]:
    """The files under golden/."""
    graph = plan.source
    size = COUNT * sum(graph.tensors[t].size_bytes for t in graph.inputs)
    if size > LIMIT_BYTES:
        return {"golden/README.md": b"# Golden vectors\n\nNone: the model's inputs are too large to carry along.\n"}
    values = [inputs(graph, index) for index in range(COUNT)]
    outputs = _expected(plan, values)
    files = {}
    for index, vector in enumerate(values):
        for position, array in enumerate(vector):
            files[f"golden/{index}_input_{position}.bin"] = array.tobytes()
        for position, array in enumerate(outputs[index] if outputs is not None else ()):
            files[f"golden/{index}_output_{position}.bin"] = array.tobytes()
    text = """# Golden vectors

`N_input_I.bin` is what to write into input I for vector N: seeded noise over the type's whole range,
raw bytes as in the arena.
"""
    if outputs is not None and _is_float(graph):
        text += f"""`N_output_I.bin` is what LiteRT's reference kernels computed for output I, in float32. Each value
must be within {FLOAT_TOLERANCE:.0e} of the output's largest magnitude: exponentials differ in their last bits.
"""
    elif outputs is not None:
        text += """`N_output_I.bin` is what output I must then hold, every byte. LiteRT's reference kernels computed
it, with each FULLY_CONNECTED given as the equal 1x1 CONV_2D (LiteRT rounds the former once; the microcontroller's
arithmetic rounds twice).
"""
    else:
        text += """There are no expected outputs: no reference on a computer is known to agree with the
microcontroller's arithmetic in every byte for all operators of this model.
"""
    files["golden/README.md"] = text.encode()
    return files
