"""The one intermediate representation: Graph, Operator, Tensor, Quantization, in the TFLite schema's own words.

Frozen: a pass takes a Graph and returns a new one. Operators stand in execution order, as in the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray


class TensorType(Enum):
    """The schema's TensorType: (code in the file, numpy dtype name, bits an element; None where undefined)."""

    FLOAT32 = (0, "float32", 32)
    FLOAT16 = (1, "float16", 16)
    INT32 = (2, "int32", 32)
    UINT8 = (3, "uint8", 8)
    INT64 = (4, "int64", 64)
    STRING = (5, None, None)
    BOOL = (6, "bool", 8)
    INT16 = (7, "int16", 16)
    COMPLEX64 = (8, "complex64", 64)
    INT8 = (9, "int8", 8)
    FLOAT64 = (10, "float64", 64)
    COMPLEX128 = (11, "complex128", 128)
    UINT64 = (12, "uint64", 64)
    RESOURCE = (13, "int32", 32)
    VARIANT = (14, None, None)
    UINT32 = (15, "uint32", 32)
    UINT16 = (16, "uint16", 16)
    INT4 = (17, "int8", 4)
    BFLOAT16 = (18, None, 16)
    INT2 = (19, "int8", 2)
    UINT4 = (20, "uint8", 4)

    @property
    def code(self) -> int:
        """The number in the file."""
        return int(self.value[0])

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """numpy's type for unpacked elements (INT4 and INT2 unpack into int8)."""
        name = self.value[1]
        return None if name is None else np.dtype(name)

    @property
    def bits(self) -> int | None:
        """Bits an element takes in the file."""
        bits: int | None = self.value[2]
        return bits


@dataclass(frozen=True, slots=True)
class Quantization:
    """real = scale[c] * (q - zero_point[c]); one entry per tensor, or one per index of `quantized_dimension`.

    Scales are the file's float32 values, held exactly in Python floats.
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    quantized_dimension: int = 0

    @property
    def per_channel(self) -> bool:
        return len(self.scale) > 1


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A tensor of a subgraph. `data` is the constant's value with shape `shape`, or None for an activation.

    `shape_signature` has -1 where a dimension is dynamic; it equals `shape` where nothing is dynamic.
    """

    index: int
    name: str
    type: TensorType
    shape: tuple[int, ...]
    shape_signature: tuple[int, ...]
    quantization: Quantization | None = None
    data: NDArray[Any] | None = None
    is_variable: bool = False

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes in memory as the file packs them; 0 for a type without a fixed size."""
        return (self.elements * (self.type.bits or 0) + 7) // 8

    @property
    def is_constant(self) -> bool:
        return self.data is not None

    @property
    def scale(self) -> float:
        """The per-tensor scale. ValueError if the tensor has none, or one per channel."""
        if self.quantization is None or len(self.quantization.scale) != 1:
            raise ValueError(f"tensor {self.index} ({self.name}) has no per-tensor scale")
        return self.quantization.scale[0]

    @property
    def zero_point(self) -> int:
        """The per-tensor zero point. ValueError if the tensor has none, or one per channel."""
        if self.quantization is None or len(self.quantization.zero_point) != 1:
            raise ValueError(f"tensor {self.index} ({self.name}) has no per-tensor zero point")
        return self.quantization.zero_point[0]


@dataclass(frozen=True, slots=True, eq=False)
class Operator:
    """An operator: the schema's name (`CONV_2D`), tensor indices (-1: optional input absent), options.

    `options` holds every field of the schema's options table under its snake_case name, enums as their names
    (`padding`: "SAME"), with the schema's defaults filled in. `intermediates` are tensors whose quantization alone
    counts (that of an int8 LSTM's hidden state).
    """

    index: int
    name: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    custom_code: str | None = None
    custom_options: bytes = b""
    intermediates: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Signature:
    """A signature of the model: name in Keras -> tensor index, in the file's order."""

    key: str
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """One subgraph with its tensors; `subgraphs` are all of the file (this one first), for CALL_ONCE and the like.

    `digest` is the SHA-256 of the file in hex, or empty for a graph made in memory.
    """

    name: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    signatures: tuple[Signature, ...] = ()
    subgraphs: tuple[Graph, ...] = ()
    description: str = ""
    digest: str = ""

    def tensor(self, index: int) -> Tensor:
        """The tensor at `index`; IndexError for -1 (an absent optional input)."""
        if index < 0:
            raise IndexError("an absent optional input has no tensor")
        return self.tensors[index]

    def producers(self) -> dict[int, Operator]:
        """Tensor index -> the operator that writes it."""
        return {t: op for op in self.operators for t in op.outputs}

    def consumers(self) -> dict[int, list[Operator]]:
        """Tensor index -> the operators that read it, in order, each once."""
        readers: dict[int, list[Operator]] = {}
        for op in self.operators:
            for t in dict.fromkeys(op.inputs):
                if t >= 0:
                    readers.setdefault(t, []).append(op)
        return readers
