"""Models of one operator, for comparing the generated C with the tflite-micro wheel."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import emulated
import numpy as np
from bundles import Wheel, build

from edgeq.graph import Graph, Operator, Quantization, Tensor, TensorType, read_bytes, write_bytes

INT8, INT16, INT32, FLOAT32 = TensorType.INT8, TensorType.INT16, TensorType.INT32, TensorType.FLOAT32


@dataclass(frozen=True)
class T:
    """A tensor of a test model: shape, type, scale(s), zero point, value if constant."""

    shape: tuple[int, ...]
    type: TensorType = INT8
    scale: float | Sequence[float] | None = None
    zero: int = 0
    data: Any = None
    axis: int = 0
    variable: bool = False


def model(
    name: str,
    inputs: Sequence[T | None],
    outputs: Sequence[T],
    options: Mapping[str, Any] | None = None,
    version: int = 1,
) -> Graph:
    """A graph of one operator, as read from its file; inputs with data are constants."""
    tensors: list[Tensor] = []

    def add(spec: T | None) -> int:
        if spec is None:
            return -1
        quantization = None
        if spec.scale is not None:
            scales = np.atleast_1d(np.asarray(spec.scale, np.float32))
            quantization = Quantization(tuple(map(float, scales)), (spec.zero,) * len(scales), spec.axis)
        data = None if spec.data is None else np.asarray(spec.data, spec.type.dtype).reshape(spec.shape)
        index = len(tensors)
        tensors.append(Tensor(index, f"t{index}", spec.type, spec.shape, spec.shape, quantization, data, spec.variable))
        return index

    sources = tuple(add(t) for t in inputs)
    results = tuple(add(t) for t in outputs)
    given = tuple(
        i for i, t in zip(sources, inputs, strict=True) if t is not None and t.data is None and not t.variable
    )
    operator = Operator(0, name, version, sources, results, options or {})
    return read_bytes(write_bytes(Graph("model", tuple(tensors), (operator,), given, results)))


def values(graph: Graph, kind: int) -> list[np.ndarray]:
    """Inputs: 0 lowest, 1 highest, else seeded noise over the whole range (float: normal)."""
    generator = np.random.default_rng(kind)
    out = []
    for tensor in (graph.tensors[t] for t in graph.inputs):
        if tensor.type is FLOAT32:
            out.append((generator.standard_normal(tensor.shape) * (10.0**kind % 7)).astype(np.float32))
            continue
        info = np.iinfo(tensor.type.dtype)
        if kind < 2:
            out.append(np.full(tensor.shape, (info.min, info.max)[kind], tensor.type.dtype))
        else:
            out.append(generator.integers(info.min, info.max, tensor.shape, tensor.type.dtype, endpoint=True))
    return out


def run(graph: Graph, vectors: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """What the generated C gives for each vector, here or on the emulated core of the board EDGEQ_BOARD."""
    board = os.environ.get("EDGEQ_BOARD")
    with tempfile.TemporaryDirectory() as place:
        if board:
            return emulated.run(graph, vectors, board, Path(place))
        ours = build(graph, Path(place))
        return [[a.copy() for a in ours.run(vector)] for vector in vectors]


def outputs_of(graph: Graph, kinds: Sequence[int]) -> list[list[np.ndarray]]:
    """The same for seeded inputs of several kinds."""
    return run(graph, [values(graph, kind) for kind in kinds])


def same_as_wheel(graph: Graph, kinds: Sequence[int] = (0, 1, 2, 3)) -> None:
    """Assert that every output byte equals the wheel's."""
    got = outputs_of(graph, kinds)
    wheel = Wheel(write_bytes(graph), 1_000_000)
    for kind, arrays in zip(kinds, got, strict=True):
        expected = wheel.run(values(graph, kind), len(graph.outputs))
        for mine, theirs in zip(arrays, expected, strict=True):
            np.testing.assert_array_equal(mine, theirs.reshape(mine.shape), err_msg=f"input kind {kind}")


def noise_weights(shape: tuple[int, ...]) -> np.ndarray:
    """Seeded weights over the whole symmetric range."""
    return np.random.default_rng(7).integers(-127, 127, shape, endpoint=True)
