"""`.tflite` bytes → Graph. The file may be hostile: every offset is checked, every count bounded by the file's size."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import ModelError
from edgeq.graph.ir import Graph, Operator, Quantization, Signature, Tensor, TensorType
from edgeq.graph.schema import ENUMS, OPERATORS, OPTIONS, OPTIONS_BY_CODE, TENSOR_TYPES, OptionsTable
from edgeq.graph.verifier import verify

MAXIMUM_BYTES = 2**31 - 1
_IDENTIFIER = b"TFL3"
_SCALARS = {"i8": "<b", "u8": "<B", "bool": "<?", "i32": "<i", "u32": "<I", "i64": "<q", "f32": "<f", "u64": "<Q"}
_MAXIMUM_RANK = 8
_MAXIMUM_ELEMENTS = 2**31 - 1


class _Malformed(Exception):
    """An offset or count that leaves the file."""


class _Table:
    """A flatbuffer table: fields by slot, each access checked against the buffer's bounds."""

    __slots__ = ("_data", "_position", "_vtable", "_vtable_bytes")

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self._position = position
        self._vtable = position - int(self._scalar("<i", position))
        self._vtable_bytes = int(self._scalar("<H", self._vtable))
        if self._vtable_bytes < 4:
            raise _Malformed(f"vtable at {self._vtable} is {self._vtable_bytes} bytes long")

    def _scalar(self, code: str, position: int) -> Any:
        if not 0 <= position <= len(self._data) - struct.calcsize(code):
            raise _Malformed(f"offset {position} lies outside of the file")
        return struct.unpack_from(code, self._data, position)[0]

    def _where(self, slot: int) -> int | None:
        entry = 4 + 2 * slot
        if entry + 2 > self._vtable_bytes:
            return None
        offset = int(self._scalar("<H", self._vtable + entry))
        return self._position + offset if offset else None

    def scalar(self, slot: int, kind: str, default: Any) -> Any:
        where = self._where(slot)
        return default if where is None else self._scalar(_SCALARS[kind], where)

    def _target(self, where: int) -> int:
        return where + int(self._scalar("<I", where))

    def _vector(self, slot: int, element_bytes: int) -> tuple[int, int] | None:
        where = self._where(slot)
        if where is None:
            return None
        start = self._target(where)
        count = int(self._scalar("<I", start))
        if start + 4 + count * element_bytes > len(self._data):
            raise _Malformed(f"a vector of {count} elements at {start} leaves the file")
        return start + 4, count

    def array(self, slot: int, dtype: str) -> NDArray[Any] | None:
        """A vector of scalars, or None where the field is absent. A read-only view of the file."""
        vector = self._vector(slot, np.dtype(dtype).itemsize)
        return None if vector is None else np.frombuffer(self._data, dtype, vector[1], vector[0])

    def integers(self, slot: int, dtype: str = "<i4") -> tuple[int, ...]:
        array = self.array(slot, dtype)
        return () if array is None else tuple(int(v) for v in array)

    def text(self, slot: int) -> str:
        array = self.array(slot, "u1")
        return "" if array is None else array.tobytes().decode("utf-8", "replace")

    def table(self, slot: int) -> _Table | None:
        where = self._where(slot)
        return None if where is None else _Table(self._data, self._target(where))

    def tables(self, slot: int) -> Iterator[_Table]:
        vector = self._vector(slot, 4)
        if vector is not None:
            start, count = vector
            for i in range(count):
                yield _Table(self._data, self._target(start + 4 * i))


def _options(table: _Table | None, described: OptionsTable | None) -> MappingProxyType[str, Any]:
    values: dict[str, Any] = {}
    for f in described.fields if described else ():
        if table is None:
            values[f.name] = f.default
        elif f.kind.startswith("["):
            dtype = {"[i32]": "<i4", "[f32]": "<f4", "[u8]": "u1"}[f.kind]
            array = table.array(f.slot, dtype)
            values[f.name] = () if array is None else tuple(array.tolist())
        elif f.kind == "str":
            values[f.name] = table.text(f.slot)
        elif f.kind in ENUMS:
            names = ENUMS[f.kind]
            number = table.scalar(f.slot, "i8", names.index(f.default))
            if not 0 <= number < len(names):
                raise _Malformed(f"{described.name if described else ''}.{f.name} is {number}, beyond its enumeration")
            values[f.name] = names[number]
        else:
            values[f.name] = table.scalar(f.slot, f.kind, f.default)
    return MappingProxyType(values)


def _quantization(table: _Table | None) -> Quantization | None:
    scale = None if table is None else table.array(2, "<f4")
    if table is None or scale is None or len(scale) == 0:
        return None
    zero_point = table.integers(3, "<i8") or (0,) * len(scale)
    if len(zero_point) == 1 and len(scale) > 1:
        zero_point *= len(scale)
    if len(zero_point) != len(scale):
        raise _Malformed(f"{len(scale)} scales but {len(zero_point)} zero points")
    return Quantization(tuple(float(s) for s in scale), zero_point, int(table.scalar(6, "i32", 0)))


def _unpack(raw: NDArray[Any], bits: int, count: int, signed: bool) -> NDArray[Any]:
    """`count` elements of 4 or 2 bits, lowest bits first, as int8 or uint8."""
    per_byte = 8 // bits
    fields = np.stack([(raw >> (bits * i)) & ((1 << bits) - 1) for i in range(per_byte)], axis=-1).reshape(-1)[:count]
    if not signed:
        return fields.astype(np.uint8)
    half = 1 << (bits - 1)
    return ((fields.astype(np.int16) ^ half) - half).astype(np.int8)


def _constant(raw: NDArray[Any] | None, kind: TensorType, shape: tuple[int, ...], name: str) -> NDArray[Any] | None:
    dtype, bits = kind.dtype, kind.bits
    if raw is None or len(raw) == 0 or dtype is None or bits is None:
        return None
    count = int(np.prod(shape, dtype=np.int64))
    if len(raw) < (count * bits + 7) // 8:
        raise _Malformed(f"tensor {name!r} has {len(raw)} bytes for {count} elements of {kind.name}")
    if bits < 8:
        return _unpack(raw, bits, count, signed=kind is not TensorType.UINT4).reshape(shape)
    return np.frombuffer(raw.tobytes(), dtype.newbyteorder("<"), count).reshape(shape)


def _tensor(index: int, table: _Table, buffers: list[NDArray[Any] | None]) -> Tensor:
    code = int(table.scalar(1, "i8", 0))
    if code not in TENSOR_TYPES:
        raise _Malformed(f"tensor {index} has the unknown type {code}")
    shape, name = table.integers(0), table.text(3)
    if len(shape) > _MAXIMUM_RANK or any(d < 0 for d in shape):
        raise _Malformed(f"tensor {index} has the shape {shape}")
    if np.prod(np.array(shape, dtype=object), initial=1) > _MAXIMUM_ELEMENTS:
        raise _Malformed(f"tensor {index} has the shape {shape}: too many elements")
    buffer = int(table.scalar(2, "u32", 0))
    if buffer >= len(buffers):
        raise _Malformed(f"tensor {index} names buffer {buffer} of {len(buffers)}")
    return Tensor(
        index=index,
        name=name,
        type=TENSOR_TYPES[code],
        shape=shape,
        shape_signature=table.integers(7) or shape,
        quantization=_quantization(table.table(4)),
        data=_constant(buffers[buffer] if buffer else None, TENSOR_TYPES[code], shape, name),
        is_variable=bool(table.scalar(5, "bool", False)),
    )


def _operator(index: int, table: _Table, codes: list[tuple[str, int, str | None]]) -> Operator:
    code = int(table.scalar(0, "u32", 0))
    if code >= len(codes):
        raise _Malformed(f"operator {index} names code {code} of {len(codes)}")
    name, version, custom = codes[code]
    described = OPTIONS_BY_CODE.get(int(table.scalar(3, "u8", 0)))
    if described is None:
        own = next((o for n, o in OPERATORS.values() if n == name), None)
        described, values = OPTIONS.get(own or ""), None
    else:
        values = table.table(4)
    raw = table.array(5, "u1")
    return Operator(
        index=index,
        name=name,
        version=version,
        inputs=table.integers(1),
        outputs=table.integers(2),
        options=_options(values, described),
        custom_code=custom,
        custom_options=b"" if raw is None else raw.tobytes(),
        intermediates=table.integers(8),
    )


def _operator_code(table: _Table) -> tuple[str, int, str | None]:
    # The builtin code outgrew a byte: files since schema 3a hold the larger of the two fields.
    code = max(int(table.scalar(0, "i8", 0)), int(table.scalar(3, "i32", 0)))
    if code not in OPERATORS:
        raise _Malformed(f"unknown operator code {code}")
    return OPERATORS[code][0], int(table.scalar(2, "i32", 1)), table.text(1) or None


def _graph(table: _Table, codes: list[tuple[str, int, str | None]], buffers: list[NDArray[Any] | None]) -> Graph:
    return Graph(
        name=table.text(4),
        tensors=tuple(_tensor(i, t, buffers) for i, t in enumerate(table.tables(0))),
        operators=tuple(_operator(i, t, codes) for i, t in enumerate(table.tables(3))),
        inputs=table.integers(1),
        outputs=table.integers(2),
    )


def _signatures(root: _Table) -> tuple[Signature, ...]:
    def names(table: _Table, slot: int) -> MappingProxyType[str, int]:
        return MappingProxyType({t.text(0): int(t.scalar(1, "u32", 0)) for t in table.tables(slot)})

    return tuple(Signature(t.text(2), names(t, 0), names(t, 1)) for t in root.tables(7) if t.scalar(4, "u32", 0) == 0)


def _buffer(table: _Table, data: bytes) -> NDArray[Any] | None:
    # Files beyond 2 GB keep buffers behind the flatbuffer: offset and size instead of a vector.
    offset, size = int(table.scalar(1, "u64", 0)), int(table.scalar(2, "u64", 0))
    if offset > 1:
        if offset + size > len(data):
            raise _Malformed(f"a buffer at {offset} of {size} bytes leaves the file")
        return np.frombuffer(data, np.uint8, size, offset)
    return table.array(0, "u1")


def _read(data: bytes) -> Graph:
    root = _Table(data, int.from_bytes(data[:4], "little"))
    codes = [_operator_code(t) for t in root.tables(1)]
    buffers = [_buffer(t, data) for t in root.tables(4)]
    subgraphs = tuple(_graph(t, codes, buffers) for t in root.tables(2))
    if not subgraphs:
        raise _Malformed("the file has no subgraph")
    return replace(
        subgraphs[0],
        signatures=_signatures(root),
        subgraphs=subgraphs if len(subgraphs) > 1 else (),
        description=root.text(3),
        digest=hashlib.sha256(data).hexdigest(),
    )


def read_bytes(data: bytes, *, where: str = "the model") -> Graph:
    """The Graph of a `.tflite` file's bytes, verified. ModelError if they are not one, or not a sound one."""
    if len(data) < 8 or data[4:8] != _IDENTIFIER:
        raise ModelError(
            "not-a-tflite-model",
            f"{where} is not a .tflite model.",
            where=where,
            why="The file does not carry the identifier TFL3.",
            try_="Convert the Keras model first: edgeq convert MODEL -o OUT.tflite --data DATA",
        )
    graph = _guarded(lambda: _read(data), where)
    verify(graph, where=where)
    return graph


def _guarded(work: Callable[[], Graph], where: str) -> Graph:
    try:
        return work()
    except (_Malformed, struct.error, ValueError, OverflowError, MemoryError, RecursionError) as error:
        raise ModelError(
            "model-damaged",
            f"{where} is damaged.",
            where=where,
            why=str(error),
            try_=("Copy or download the file again.", "Convert the Keras model again."),
        ) from error


def read_file(path: Path) -> bytes:
    """The bytes of a model's file. ModelError with `model-not-found` or `model-too-large`."""
    try:
        if path.stat().st_size > MAXIMUM_BYTES:
            raise ModelError("model-too-large", f"{path} is larger than 2 GB.", where=str(path))
        return path.read_bytes()
    except OSError as error:
        raise ModelError(
            "model-not-found",
            f"Cannot read {path}.",
            where=str(path),
            why=error.strerror,
            try_="Check the path; a model is a .tflite file.",
        ) from error


def read(path: Path) -> Graph:
    """Read and verify a `.tflite` file. ModelError as `read_file` and `read_bytes` raise it."""
    return read_bytes(read_file(path), where=str(path))
