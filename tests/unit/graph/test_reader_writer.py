"""Reader and writer against LiteRT's own generated schema classes and its interpreter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import ai_edge_litert.schema_py_generated as schema
import numpy as np
import pytest

from edgeq.errors import ModelError
from edgeq.graph import Graph, Operator, Quantization, Tensor, TensorType, read, read_bytes, verify, write_bytes
from edgeq.graph.schema import OPERATOR_CODES, OPERATORS, OPTIONS
from edgeq.interpreter import Interpreter

MODELS = ["kws_ref_int8", "kws_ref_float", "ic_resnet8_int8", "vww_96_int8", "ad01_int8"]


def test_operator_codes_are_the_schemas() -> None:
    theirs = {name: code for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    theirs.pop("PLACEHOLDER_FOR_GREATER_OP_CODES")
    assert theirs == OPERATOR_CODES


def test_tensor_types_are_the_schemas() -> None:
    for kind in TensorType:
        assert getattr(schema.TensorType, kind.name) == kind.code


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_option_defaults_are_the_schemas(name: str) -> None:
    table = OPTIONS[name]
    assert getattr(schema.BuiltinOptions, f"{name}Options") == table.code
    theirs = getattr(schema, f"{name}OptionsT")()
    for f in table.fields:
        words = f.name.split("_")
        value = getattr(theirs, words[0] + "".join(w[:1].upper() + w[1:] for w in words[1:]))
        if f.kind.startswith("[") or f.kind == "str":
            assert value is None
        elif isinstance(f.default, str):
            assert read_enum(f.kind, value) == f.default
        else:
            assert value == f.default


def read_enum(kind: str, value: int) -> str:
    owner = {
        "padding": schema.Padding,
        "activation": schema.ActivationFunctionType,
        "type": schema.TensorType,
        "mirror_pad_mode": schema.MirrorPadMode,
        "weights_format": schema.FullyConnectedOptionsWeightsFormat,
        "lstm_kernel": schema.LSTMKernelType,
    }[kind]
    return next(name for name, code in vars(owner).items() if code == value and not name.startswith("_"))


@pytest.mark.parametrize("name", MODELS)
def test_reader_sees_what_the_schema_classes_see(shared: Path, name: str) -> None:
    data = (shared / "models" / f"{name}.tflite").read_bytes()
    graph, model = read_bytes(data), schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
    theirs = model.subgraphs[0]
    assert [OPERATOR_CODES[op.name] for op in graph.operators] == [
        max(model.operatorCodes[o.opcodeIndex].builtinCode, model.operatorCodes[o.opcodeIndex].deprecatedBuiltinCode)
        for o in theirs.operators
    ]
    assert [list(op.inputs) for op in graph.operators] == [list(o.inputs) for o in theirs.operators]
    for ours, other in zip(graph.tensors, theirs.tensors, strict=True):
        assert list(ours.shape) == list(other.shape)
        assert ours.type.code == other.type
        raw = model.buffers[other.buffer].data
        assert (ours.data is None) == (raw is None or len(raw) == 0)
        if ours.data is not None:
            assert ours.data.tobytes() == bytes(raw)
        if ours.quantization is not None:
            assert np.array_equal(np.float32(ours.quantization.scale), other.quantization.scale)
            assert list(ours.quantization.zero_point) == list(other.quantization.zeroPoint)


@pytest.mark.parametrize("name", MODELS)
def test_written_model_computes_the_same(shared: Path, name: str) -> None:
    data = (shared / "models" / f"{name}.tflite").read_bytes()
    graph = read_bytes(data)
    written = write_bytes(graph)
    assert write_bytes(read_bytes(written)) == written
    tensor = graph.tensor(graph.inputs[0])
    rng = np.random.default_rng(7)
    for _ in range(3):
        x = rng.integers(-128, 128, tensor.shape).astype(tensor.type.dtype)
        (expected,), (got,) = Interpreter(data).run([x]), Interpreter(written).run([x])
        assert np.array_equal(expected, got)


def _small_graph() -> Graph:
    q = Quantization((0.5,), (3,))
    tensors = (
        Tensor(0, "x", TensorType.INT8, (1, 4), (1, 4), q),
        Tensor(
            1,
            "w",
            TensorType.INT4,
            (3, 4),
            (3, 4),
            Quantization((0.1,), (0,)),
            np.arange(-6, 6, dtype=np.int8).reshape(3, 4),
        ),
        Tensor(2, "y", TensorType.INT8, (1, 3), (1, 3), q),
    )
    options = MappingProxyType({"fused_activation_function": "RELU", "keep_num_dims": True})
    return Graph("g", tensors, (Operator(0, "FULLY_CONNECTED", 4, (0, 1, -1), (2,), options),), (0,), (2,))


def test_round_trip_keeps_options_and_packed_weights() -> None:
    graph = read_bytes(write_bytes(_small_graph()))
    op = graph.operators[0]
    assert op.options["fused_activation_function"] == "RELU"
    assert op.options["keep_num_dims"] is True
    assert op.inputs == (0, 1, -1)
    assert np.array_equal(graph.tensors[1].data, np.arange(-6, 6, dtype=np.int8).reshape(3, 4))
    assert graph.tensors[1].size_bytes == 6


def test_every_operator_with_options_names_a_table() -> None:
    assert all(table is None or table in OPTIONS for _, table in OPERATORS.values())


def test_not_a_model_and_missing_file(tmp_path: Path) -> None:
    (tmp_path / "a.tflite").write_bytes(b"hello, this is no model")
    with pytest.raises(ModelError) as caught:
        read(tmp_path / "a.tflite")
    assert caught.value.code == "not-a-tflite-model"
    with pytest.raises(ModelError) as caught:
        read(tmp_path / "b.tflite")
    assert caught.value.code == "model-not-found"


def test_verifier_names_the_fault() -> None:
    graph = _small_graph()
    late = replace(graph, operators=(replace(graph.operators[0], inputs=(2, 1, -1)),))
    with pytest.raises(ModelError) as caught:
        verify(late)
    assert "before anything writes it" in (caught.value.why or "")
    with pytest.raises(ModelError):
        verify(replace(graph, operators=(*graph.operators, replace(graph.operators[0], index=1))))
