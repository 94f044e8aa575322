"""A folder of invalid models, each a mistake with a sentence of its own; made here from one small sound model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeq.boards import load_board
from edgeq.checks import check
from edgeq.codegen import plan
from edgeq.errors import ModelError
from edgeq.graph import read, write_bytes
from edgeq.graph.ir import Graph, Operator, Quantization, Tensor, TensorType

Q = Quantization((0.5,), (3,))
I8, F32 = TensorType.INT8, TensorType.FLOAT32


def sound(**options: object) -> Graph:
    """x[1,4,4,2] -> CONV_2D 3x3 -> RELU."""
    shape, filters = (1, 4, 4, 2), (2, 3, 3, 2)
    tensors = (
        Tensor(0, "x", I8, shape, shape, Q),
        Tensor(1, "w", I8, filters, filters, Quantization((0.25, 0.5), (0, 0)), np.ones(filters, np.int8)),
        Tensor(2, "b", TensorType.INT32, (2,), (2,), Quantization((0.125, 0.25), (0, 0)), np.ones(2, np.int32)),
        Tensor(3, "y", I8, shape, shape, Q),
        Tensor(4, "z", I8, shape, shape, Q),
    )
    settings = {"padding": "SAME", "stride_w": 1, "stride_h": 1, "fused_activation_function": "RELU", **options}
    operators = (Operator(0, "CONV_2D", 3, (0, 1, 2), (3,), settings), Operator(1, "RELU", 1, (3,), (4,)))
    return Graph("main", tensors, operators, (0,), (4,))


def tensor(index: int, **changes: object) -> Graph:
    graph = sound()
    tensors = list(graph.tensors)
    tensors[index] = replace(tensors[index], **changes)  # type: ignore[arg-type]
    return replace(graph, tensors=tuple(tensors))


def operator(index: int, **changes: object) -> Graph:
    graph = sound()
    operators = list(graph.operators)
    operators[index] = replace(operators[index], **changes)  # type: ignore[arg-type]
    return replace(graph, operators=tuple(operators))


def patched(one: Graph, other: Graph, value: int) -> bytes:
    """The file of `one` with `value` in the bytes in which it differs from the file of `other`."""
    first, second = bytearray(write_bytes(one)), write_bytes(other)
    assert len(first) == len(second)
    places = [i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
    assert places
    for place in places:
        first[place] = value
    return bytes(first)


def scaled(*scale: float, zero: tuple[int, ...] = (0,), dimension: int = 0) -> Quantization:
    return Quantization(scale, zero, dimension)


def activation(name: str) -> Graph:
    return sound(fused_activation_function=name)


def whole_without_subgraph() -> bytes:
    """A file whose list of subgraphs is there, with none in it."""
    import flatbuffers

    builder = flatbuffers.Builder(64)
    builder.StartObject(8)
    builder.PrependUint32Slot(0, 3, 0)
    builder.Finish(builder.EndObject(), file_identifier=b"TFL3")
    return bytes(builder.Output())


def vtable_of(length: int) -> bytes:
    """The root table's vtable says that it is `length` bytes long."""
    data = bytearray(write_bytes(sound()))
    root = int.from_bytes(data[:4], "little")
    vtable = root - int.from_bytes(data[root : root + 4], "little", signed=True)
    data[vtable : vtable + 2] = length.to_bytes(2, "little")
    return bytes(data)


MODELS: dict[str, tuple[Callable[[], bytes | Graph], str]] = {
    "empty": (lambda: b"", "does not carry the identifier"),
    "no-subgraph": (whole_without_subgraph, "has no subgraph"),
    "root-outside": (lambda: b"\xff\xff\xff\x7f" + write_bytes(sound())[4:], "lies outside of the file"),
    "vtable-short": (lambda: vtable_of(2), "vtable at"),
    "cut": (lambda: write_bytes(sound())[:-300], "offset"),
    "tensor-type": (lambda: patched(tensor(4, type=I8), tensor(4, type=TensorType.INT16), 77), "the unknown type 77"),
    "negative-dimension": (lambda: tensor(0, shape=(1, -4, 4, 2)), "has the shape (1, -4"),
    "rank-nine": (lambda: tensor(0, shape=(1,) * 9), "has the shape (1, 1, 1, 1, 1, 1, 1, 1, 1)"),
    "too-many-elements": (lambda: tensor(0, shape=(1 << 20, 1 << 20)), "too many elements"),
    "constant-too-short": (lambda: tensor(1, data=np.ones((2, 3, 3, 1), np.int8)), "bytes for 36 elements of INT8"),
    "scale-nan": (lambda: tensor(0, quantization=scaled(float("nan"))), "not a finite number"),
    "scale-negative": (lambda: tensor(3, quantization=scaled(-1.0)), "tensor 3 (y) has a scale that is not"),
    "scales-and-zero-points": (
        lambda: tensor(1, quantization=scaled(0.5, 0.5, zero=(0, 0, 0))),
        "2 scales but 3 zero points",
    ),
    "scales-of-channels": (
        lambda: tensor(1, quantization=scaled(0.5, 0.5, 0.5, zero=(0, 0, 0))),
        "3 scales for dimension 0",
    ),
    "quantized-dimension": (
        lambda: tensor(1, quantization=scaled(0.5, 0.5, zero=(0, 0), dimension=7)),
        "2 scales for dimension 7",
    ),
    "operator-code": (lambda: patched(operator(1, name="RELU6"), operator(1, name="TANH"), 251), "operator code 251"),
    "enumeration": (lambda: patched(activation("RELU"), activation("RELU6"), 99), "fused_activation_function is 99"),
    "reads-beyond": (lambda: operator(1, inputs=(50,)), "reads tensor 50 of 5"),
    "reads-negative": (lambda: operator(1, inputs=(-7,)), "reads tensor -7 of 5"),
    "writes-beyond": (lambda: operator(1, outputs=(9,)), "writes tensor 9 of 5"),
    "reads-its-own": (lambda: operator(0, inputs=(4, 1, 2)), "reads tensor 4 (z) before anything writes it"),
    "writes-twice": (lambda: operator(1, outputs=(3,)), "writes tensor 3 (y), which has a value already"),
    "writes-a-constant": (lambda: operator(1, outputs=(2,)), "writes tensor 2 (b), which has a value already"),
    "input-beyond": (lambda: replace(sound(), inputs=(0, 8)), "inputs or outputs name tensor 8 of 5"),
    "output-unwritten": (
        lambda: replace(sound(), operators=sound().operators[:1]),
        "nothing writes the output tensor 4",
    ),
}

NOT_COMPILED: dict[str, tuple[Callable[[], Graph], str]] = {
    "unknown-operator": (lambda: operator(1, name="CUSTOM", custom_code="Mystery"), "no kernel for custom operator"),
    "no-weights": (lambda: operator(0, inputs=(0,)), "Input 1 is missing"),
    "no-scale": (lambda: tensor(0, quantization=None), "x has no single scale"),
    "scale-zero": (lambda: tensor(3, quantization=scaled(0.0)), "y has the scale 0"),
    "zero-point-beyond": (lambda: tensor(0, quantization=scaled(0.5, zero=(200,))), "x has the zero point 200"),
    "weights-zero-point": (
        lambda: tensor(1, quantization=scaled(0.5, 0.5, zero=(1, 0))),
        "weights have a zero point other than 0",
    ),
    "bias-of-one": (
        lambda: tensor(2, shape=(1,), shape_signature=(1,), data=np.ones(1, np.int32), quantization=None),
        "bias has 1 values for 2 channels",
    ),
    "empty-dimension": (lambda: tensor(0, shape=(1, 0, 4, 2)), "x has the shape"),
    "dynamic": (lambda: tensor(0, shape_signature=(1, -1, 4, 2)), "x has a dynamic shape"),
    "stride-zero": (lambda: sound(stride_h=0), "stride"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("invalid")
    for name, (make, _) in {**MODELS, **NOT_COMPILED}.items():
        content = make()
        (place / f"{name}.tflite").write_bytes(content if isinstance(content, bytes) else write_bytes(content))
    return place


def test_the_model_they_are_made_of_is_sound(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(write_bytes(sound()))
    assert len(plan(read(tmp_path / "m.tflite"), load_board("host")).steps) == 2


@pytest.mark.parametrize("name", MODELS)
def test_an_invalid_model_is_refused_by_its_sentence(folder: Path, name: str) -> None:
    with pytest.raises(ModelError) as caught:
        read(folder / f"{name}.tflite")
    assert MODELS[name][1] in (caught.value.why or "")
    assert caught.value.try_


@pytest.mark.parametrize("name", NOT_COMPILED)
def test_a_model_that_cannot_be_compiled_says_why(folder: Path, name: str) -> None:
    with pytest.raises(ModelError) as caught:
        plan(read(folder / f"{name}.tflite"), load_board("host"))
    assert NOT_COMPILED[name][1] in (caught.value.why or "")


@pytest.mark.parametrize("name", NOT_COMPILED)
def test_the_check_of_such_a_model_answers_on_every_kind_of_board(folder: Path, name: str) -> None:
    graph = read(folder / f"{name}.tflite")
    for board in ("host", "nucleo-l4r5zi", "qemu-mps3-an547", "coral-dev-board", "pi-4b", "corstone-300-u55"):
        report = check(graph, load_board(board))
        if board in ("host", "nucleo-l4r5zi", "qemu-mps3-an547"):
            assert not report.fits


def test_no_two_share_a_sentence(folder: Path) -> None:
    said = set()
    for path in folder.iterdir():
        with pytest.raises(ModelError) as caught:
            plan(read(path), load_board("host"))
        said.add(caught.value.why)
    assert len(said) == len(MODELS) + len(NOT_COMPILED) >= 30
