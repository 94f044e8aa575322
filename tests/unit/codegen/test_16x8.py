"""int16 activations with int8 weights: byte-equal to the tflite-micro wheel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from single import FLOAT32, INT8, INT16, T, model, same_as_wheel
from test_operators import activations, convolutions, dense, few, pairs, scales

from edgeq.graph import Graph, TensorType, read_bytes, write_bytes


def widened(graph: Graph) -> Graph:
    """The same operator with int16 activations: zero points 0, smaller scales, 64-bit biases."""
    operator = graph.operators[0]
    tensors = []
    for tensor in graph.tensors:
        if tensor.type is TensorType.INT32 and tensor.index == operator.inputs[-1] and len(operator.inputs) == 3:
            data = None if tensor.data is None else np.asarray(tensor.data).astype(np.int64)
            scale = tuple(float(np.float32(s / 256)) for s in tensor.quantization.scale)
            quantization = replace(tensor.quantization, scale=scale)
            tensors.append(replace(tensor, type=TensorType.INT64, data=data, quantization=quantization))
        elif tensor.type is INT8 and tensor.index in (operator.inputs[0], *operator.outputs):
            quantization = replace(tensor.quantization, scale=(float(np.float32(tensor.scale / 256)),), zero_point=(0,))
            tensors.append(replace(tensor, type=INT16, quantization=quantization))
        else:
            tensors.append(tensor)
    return read_bytes(write_bytes(replace(graph, tensors=tuple(tensors), subgraphs=())))


@pytest.mark.parametrize("kind", [convolutions(False), convolutions(True), dense()], ids=["conv", "depthwise", "fc"])
@few
@given(data=st.data())
def test_with_weights(kind: Any, data: Any) -> None:
    graph = widened(data.draw(kind))
    if graph.operators[0].options.get("dilation_w_factor", 1) == 1:
        same_as_wheel(graph)


def wide(tensor: T) -> T:
    data = None if tensor.data is None else np.asarray(tensor.data) * 250
    return replace(tensor, type=INT16, scale=float(np.float32(tensor.scale / 256)), zero=0, data=data)


@pytest.mark.parametrize("name", ["ADD", "SUB", "MUL"])
@few
@given(case=pairs(), activation=activations)
def test_arithmetic(name: str, case: Any, activation: str) -> None:
    tensors = [wide(t) for t in case[0]]
    same_as_wheel(model(name, tensors, [wide(case[1])], {"fused_activation_function": activation}, 4))


@pytest.mark.parametrize("name", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
@few
@given(h=st.integers(2, 9), w=st.integers(2, 9), scale=scales, activation=activations)
def test_pool(name: str, h: int, w: int, scale: float, activation: str) -> None:
    source, result = T((1, h, w, 3), INT16, scale=scale), T((1, h - 1, w - 1, 3), INT16, scale=scale)
    options = {"padding": "VALID", "stride_h": 1, "stride_w": 1, "filter_height": 2, "filter_width": 2}
    same_as_wheel(model(name, [source], [result], {**options, "fused_activation_function": activation}, 3))


@few
@given(a=scales, b=scales)
def test_quantize_and_dequantize(a: float, b: float) -> None:
    wide_tensor, narrow = T((64,), INT16, scale=a / 256), T((64,), INT8, scale=b, zero=7)
    same_as_wheel(model("QUANTIZE", [wide_tensor], [narrow]))
    same_as_wheel(model("QUANTIZE", [wide_tensor], [T((64,), INT16, scale=b / 256)]))
    same_as_wheel(model("QUANTIZE", [T((64,), FLOAT32)], [wide_tensor]))
    same_as_wheel(model("DEQUANTIZE", [wide_tensor], [T((64,), FLOAT32)]))


@few
@given(rows=st.integers(1, 5), depth=st.integers(1, 9), a=scales, b=scales)
def test_mean(rows: int, depth: int, a: float, b: float) -> None:
    axis = T((1,), TensorType.INT32, data=[1])
    tensors = [T((1, rows, depth), INT16, scale=a / 256), axis]
    same_as_wheel(model("MEAN", tensors, [T((1, depth), INT16, scale=b / 256)], {"keep_dims": False}))
