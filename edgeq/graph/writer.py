"""Graph → `.tflite` bytes. Deterministic: the same Graph gives the same bytes."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from numpy.typing import NDArray

from edgeq.graph.ir import Graph, Operator, Quantization, Signature, Tensor
from edgeq.graph.schema import ENUMS, OPERATOR_CODES, OPERATORS, OPTIONS

_PREPEND = {
    "i8": "PrependInt8Slot",
    "u8": "PrependUint8Slot",
    "bool": "PrependBoolSlot",
    "i32": "PrependInt32Slot",
    "u32": "PrependUint32Slot",
    "i64": "PrependInt64Slot",
    "f32": "PrependFloat32Slot",
}
_CUSTOM = OPERATOR_CODES["CUSTOM"]


def _table(builder: Any, slots: int, fields: list[tuple[str, int, Any, Any]]) -> int:
    """A table; fields are (kind, slot, value, default), kind "offset" for what was built before."""
    builder.StartObject(slots)
    for kind, slot, value, default in fields:
        if kind == "offset":
            builder.PrependUOffsetTRelativeSlot(slot, value, 0)
        else:
            getattr(builder, _PREPEND[kind])(slot, value, default)
    return int(builder.EndObject())


def _offsets(builder: Any, offsets: list[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _numbers(builder: Any, values: Any, dtype: str) -> int:
    return int(builder.CreateNumpyVector(np.ascontiguousarray(values, dtype=dtype)))


def _pack(data: NDArray[Any], bits: int) -> NDArray[Any]:
    per_byte = 8 // bits
    flat = data.reshape(-1).view(np.uint8) & ((1 << bits) - 1)
    padded = np.concatenate([flat, np.zeros(-len(flat) % per_byte, np.uint8)]).reshape(-1, per_byte)
    packed = np.zeros(len(padded), np.uint8)
    for i in range(per_byte):
        packed |= (padded[:, i] << np.uint8(bits * i)).astype(np.uint8)
    return packed


def _buffer(builder: Any, tensor: Tensor) -> int:
    assert tensor.data is not None
    bits = tensor.type.bits or 8
    data = np.ascontiguousarray(tensor.data)
    raw = _pack(data, bits) if bits < 8 else data.astype(data.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
    # Interpreters map constants in place and want them aligned as the converter aligns them.
    builder.StartVector(1, len(raw), 16)
    builder.head -= len(raw)
    builder.Bytes[builder.head : builder.head + len(raw)] = raw.tobytes()
    vector = int(builder.EndVector())
    return _table(builder, 3, [("offset", 0, vector, 0)])


def _quantization(builder: Any, q: Quantization) -> int:
    scale, zero_point = _numbers(builder, q.scale, "<f4"), _numbers(builder, q.zero_point, "<i8")
    fields = [("offset", 2, scale, 0), ("offset", 3, zero_point, 0), ("i32", 6, q.quantized_dimension, 0)]
    return _table(builder, 7, fields)


def _tensor(builder: Any, tensor: Tensor, buffer: int) -> int:
    fields: list[tuple[str, int, Any, Any]] = [
        ("offset", 0, _numbers(builder, tensor.shape, "<i4"), 0),
        ("i8", 1, tensor.type.code, 0),
        ("u32", 2, buffer, 0),
        ("offset", 3, builder.CreateString(tensor.name), 0),
    ]
    if tensor.quantization is not None:
        fields.append(("offset", 4, _quantization(builder, tensor.quantization), 0))
    fields.append(("bool", 5, tensor.is_variable, False))
    if tensor.shape_signature != tensor.shape:
        fields.append(("offset", 7, _numbers(builder, tensor.shape_signature, "<i4"), 0))
    fields.append(("bool", 8, True, False))
    return _table(builder, 9, fields)


def _options(builder: Any, op: Operator) -> tuple[int, int]:
    """The union's code and the table's offset; (0, 0) for an operator without options."""
    name = OPERATORS[OPERATOR_CODES[op.name]][1]
    if name is None:
        return 0, 0
    described = OPTIONS[name]
    fields: list[tuple[str, int, Any, Any]] = []
    for f in described.fields:
        value = op.options.get(f.name, f.default)
        if f.kind.startswith("["):
            dtype = {"[i32]": "<i4", "[f32]": "<f4", "[u8]": "u1"}[f.kind]
            fields.append(("offset", f.slot, _numbers(builder, value, dtype) if len(value) else 0, 0))
        elif f.kind == "str":
            fields.append(("offset", f.slot, builder.CreateString(value) if value else 0, 0))
        elif f.kind in ENUMS:
            names = ENUMS[f.kind]
            fields.append(("i8", f.slot, names.index(value), names.index(f.default)))
        else:
            fields.append((f.kind, f.slot, value, f.default))
    slots = max((f.slot + 1 for f in described.fields), default=0)
    return described.code, _table(builder, slots, fields)


def _operator(builder: Any, op: Operator, code: int) -> int:
    options_code, options = _options(builder, op)
    fields: list[tuple[str, int, Any, Any]] = [
        ("u32", 0, code, 0),
        ("offset", 1, _numbers(builder, op.inputs, "<i4"), 0),
        ("offset", 2, _numbers(builder, op.outputs, "<i4"), 0),
        ("u8", 3, options_code, 0),
        ("offset", 4, options, 0),
    ]
    if op.custom_options:
        fields.append(("offset", 5, _numbers(builder, np.frombuffer(op.custom_options, np.uint8), "u1"), 0))
    if op.intermediates:
        fields.append(("offset", 8, _numbers(builder, op.intermediates, "<i4"), 0))
    return _table(builder, 9, fields)


def _subgraph(builder: Any, graph: Graph, codes: dict[tuple[str, int, str | None], int], first_buffer: int) -> int:
    buffer = first_buffer
    tensors = []
    for tensor in graph.tensors:
        number = 0
        if tensor.is_constant:
            number, buffer = buffer, buffer + 1
        tensors.append(_tensor(builder, tensor, number))
    operators = [_operator(builder, op, codes[op.name, op.version, op.custom_code]) for op in graph.operators]
    fields = [
        ("offset", 0, _offsets(builder, tensors), 0),
        ("offset", 1, _numbers(builder, graph.inputs, "<i4"), 0),
        ("offset", 2, _numbers(builder, graph.outputs, "<i4"), 0),
        ("offset", 3, _offsets(builder, operators), 0),
        ("offset", 4, builder.CreateString(graph.name), 0),
    ]
    return _table(builder, 5, fields)


def _operator_code(builder: Any, name: str, version: int, custom: str | None) -> int:
    code = OPERATOR_CODES[name]
    text = builder.CreateString(custom) if custom else 0
    fields = [("i8", 0, min(code, 127), 0), ("offset", 1, text, 0), ("i32", 2, version, 1), ("i32", 3, code, 0)]
    return _table(builder, 4, fields)


def _signature(builder: Any, signature: Signature) -> int:
    def entries(names: Any) -> int:
        return _offsets(
            builder,
            [
                _table(builder, 2, [("offset", 0, text, 0), ("u32", 1, tensor, 0)])
                for text, tensor in [(builder.CreateString(name), t) for name, t in names.items()]
            ],
        )

    inputs, outputs = entries(signature.inputs), entries(signature.outputs)
    key = builder.CreateString(signature.key)
    return _table(builder, 5, [("offset", 0, inputs, 0), ("offset", 1, outputs, 0), ("offset", 2, key, 0)])


def write_bytes(graph: Graph) -> bytes:
    """The `.tflite` file of `graph` with all its subgraphs, readable by TFLite, LiteRT and TFLM."""
    builder = flatbuffers.Builder(1 << 16)
    parts = graph.subgraphs or (graph,)
    parts = (graph, *parts[1:])
    buffers, first = [_table(builder, 3, [])], []
    for part in parts:
        first.append(len(buffers))
        buffers += [_buffer(builder, t) for t in part.tensors if t.is_constant]
    operators = dict.fromkeys((op.name, op.version, op.custom_code) for part in parts for op in part.operators)
    codes = {key: i for i, key in enumerate(operators)}
    code_tables = [_operator_code(builder, *key) for key in codes]
    subgraphs = [_subgraph(builder, part, codes, start) for part, start in zip(parts, first, strict=True)]
    fields: list[tuple[str, int, Any, Any]] = [
        ("u32", 0, 3, 0),
        ("offset", 1, _offsets(builder, code_tables), 0),
        ("offset", 2, _offsets(builder, subgraphs), 0),
        ("offset", 3, builder.CreateString(graph.description or "EdgeQ"), 0),
        ("offset", 4, _offsets(builder, buffers), 0),
    ]
    if graph.signatures:
        fields.append(("offset", 7, _offsets(builder, [_signature(builder, s) for s in graph.signatures]), 0))
    root = _table(builder, 8, fields)
    builder.Finish(root, file_identifier=b"TFL3")
    return bytes(builder.Output())
