"""Single operators against the Edge TPU compiler's documented constraints: what is mapped, and why what is not."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from edgeq.boards import load_board
from edgeq.checks import check
from edgeq.checks.coral import Predicted, predict
from edgeq.checks.coral_rules import RUNTIME
from edgeq.graph.ir import Graph, Operator, Quantization, Tensor, TensorType

I8, U8, I16, I32, F32 = TensorType.INT8, TensorType.UINT8, TensorType.INT16, TensorType.INT32, TensorType.FLOAT32
IMAGE, ROW = (1, 8, 8, 16), (1, 64)


@dataclass(frozen=True)
class Given:
    """A tensor: its shape, type, the value that fills it if it is a constant, and its signature if that differs."""

    shape: tuple[int, ...]
    type: TensorType = I8
    value: Any = None
    signature: tuple[int, ...] | None = None


def const(*shape: int, type_: TensorType = I8, value: int = 1) -> Given:
    return Given(shape, type_, value)


def numbers(*values: int) -> Given:
    return Given((len(values),), I32, list(values))


@dataclass(frozen=True)
class Case:
    """One operator; `breaks` is the rule expected, None where it is mapped."""

    name: str
    inputs: tuple[Given, ...]
    output: Given
    breaks: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    version: int = 1
    runtime: int = 14
    compiler: int = 16


def graph_of(case: Case) -> Graph:
    tensors = []
    for index, given in enumerate((*case.inputs, case.output)):
        dtype = given.type.dtype
        data = None if given.value is None else np.broadcast_to(np.asarray(given.value, dtype), given.shape)
        quantization = None if given.type in (F32, I32) else Quantization((0.1,), (0,))
        signature = given.signature or given.shape
        tensors.append(Tensor(index, f"t{index}", given.type, given.shape, signature, quantization, data))
    last = len(case.inputs)
    operator = Operator(0, case.name, case.version, tuple(range(last)), (last,), case.options)
    inputs = tuple(t.index for t in tensors[:last] if not t.is_constant)
    return Graph("one", tuple(tensors), (operator,), inputs, (last,))


def one(case: Case) -> Predicted:
    return predict(graph_of(case), case.runtime, compiler=case.compiler)[0]


def unary(name: str, shape: tuple[int, ...] = IMAGE, breaks: str | None = None, **more: Any) -> Case:
    return Case(name, (Given(shape),), Given(shape), breaks, **more)


def conv(breaks: str | None = None, kernel: tuple[int, int] = (3, 3), **more: Any) -> Case:
    weights = (const(16, *kernel, 16), const(16, type_=I32))
    return Case("CONV_2D", (Given(IMAGE), *weights), Given(IMAGE), breaks, **more)


def dense(*, rows: int = 1, breaks: str | None = None, **more: Any) -> Case:
    inputs = (Given((rows, 64)), const(10, 64), const(10, type_=I32))
    return Case("FULLY_CONNECTED", inputs, Given((rows, 10)), breaks, **more)


def reduce(name: str, source: tuple[int, ...], axes: tuple[int, ...], result: tuple[int, ...], **more: Any) -> Case:
    return Case(name, (Given(source), numbers(*axes)), Given(result), **more)


def reshape(name: str, source: tuple[int, ...], result: tuple[int, ...], breaks: str | None = None) -> Case:
    return Case(name, (Given(source),), Given(result), breaks)


CASES = [
    *(unary(name) for name in ("LOGISTIC", "TANH", "RELU", "RELU6", "RELU_N1_TO_1", "L2_NORMALIZATION", "RSQRT")),
    *(Case(name, (Given(IMAGE), Given(IMAGE)), Given(IMAGE)) for name in ("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM")),
    Case("MUL", (Given(IMAGE), const(1, 1, 1, 16)), Given(IMAGE)),
    Case("SQUARED_DIFFERENCE", (Given(IMAGE), Given(IMAGE)), Given(IMAGE)),
    *(
        unary(name, breaks="edge-tpu-operator")
        for name in ("HARD_SWISH", "EXP", "LEAKY_RELU", "GELU", "DEPTH_TO_SPACE")
    ),
    Case("GATHER", (Given(IMAGE), numbers(0)), Given(IMAGE), "edge-tpu-operator"),
    Case("ARG_MAX", (Given(ROW), numbers(1)), Given((1,), I32), "edge-tpu-operator"),
    # types
    Case("QUANTIZE", (Given(IMAGE, U8),), Given(IMAGE, I8)),
    Case("QUANTIZE", (Given(IMAGE, F32),), Given(IMAGE, I8), "edge-tpu-float-quantize"),
    Case("DEQUANTIZE", (Given(IMAGE),), Given(IMAGE, F32), "edge-tpu-type"),
    Case("RELU", (Given(IMAGE, F32),), Given(IMAGE, F32), "edge-tpu-type"),
    Case("RELU", (Given(IMAGE, I16),), Given(IMAGE, I16), "edge-tpu-type"),
    Case("ADD", (Given(IMAGE, I32), Given(IMAGE, I32)), Given(IMAGE, I32), "edge-tpu-type"),
    # ranks and sizes
    unary("RELU", (64,)),
    unary("RELU", (1, 1, 8, 8, 16)),
    unary("RELU", (2, 8, 8, 16), "edge-tpu-rank"),
    unary("RELU", (1, 2, 8, 8, 16), "edge-tpu-rank"),
    Case("RELU", (Given(IMAGE, signature=(-1, 8, 8, 16)),), Given(IMAGE, signature=(-1, 8, 8, 16))),
    Case("RELU", (Given(IMAGE, signature=(-1, -1, 8, 16)),), Given(IMAGE), "edge-tpu-dynamic"),
    Case("PACK", (Given(IMAGE), Given(IMAGE)), Given((2, *IMAGE)), "edge-tpu-rank", {"axis": 0}),
    Case("PACK", (Given((1, 8)), Given((1, 8))), Given((1, 2, 8)), options={"axis": 1}),
    unary("RELU", (1, 2, 600, 600), "edge-tpu-row"),
    # convolutions
    conv(),
    conv(kernel=(3, 3), options={"dilation_h_factor": 2, "dilation_w_factor": 2}),
    conv("edge-tpu-dilation", options={"dilation_h_factor": 2, "dilation_w_factor": 1}),
    conv(kernel=(3, 1), options={"dilation_h_factor": 2, "dilation_w_factor": 1}),
    Case("CONV_2D", (Given(IMAGE), Given((16, 3, 3, 16))), Given(IMAGE), "edge-tpu-constant-parameters"),
    Case(
        "CONV_2D",
        (Given(IMAGE), const(16, 3, 3, 16), Given((16,), I8)),
        Given(IMAGE),
        "edge-tpu-constant-parameters",
    ),
    Case("TRANSPOSE_CONV", (numbers(1, 16, 16, 8), const(8, 3, 3, 16), Given(IMAGE)), Given((1, 16, 16, 8)), version=3),
    Case("DEPTHWISE_CONV_2D", (Given(IMAGE), const(1, 3, 3, 16), const(16, type_=I32)), Given(IMAGE)),
    # dense
    dense(),
    dense(rows=2, breaks="edge-tpu-dense-rows"),
    dense(breaks="edge-tpu-weights-format", options={"weights_format": "SHUFFLED4x16INT8"}),
    Case("FULLY_CONNECTED", (Given(ROW), Given((10, 64))), Given((1, 10)), "edge-tpu-constant-parameters"),
    dense(version=5),
    dense(version=5, compiler=14, breaks="edge-tpu-compiler-version"),
    # pooling and concatenation
    *(unary(name) for name in ("MAX_POOL_2D", "AVERAGE_POOL_2D")),
    *(
        unary(name, breaks="edge-tpu-fused-activation", options={"fused_activation_function": "RELU"})
        for name in ("MAX_POOL_2D", "AVERAGE_POOL_2D")
    ),
    Case("CONCATENATION", (Given(IMAGE), Given(IMAGE)), Given((1, 8, 8, 32))),
    Case("CONCATENATION", (Given(IMAGE), const(*IMAGE, value=0)), Given((1, 8, 8, 32))),
    Case("CONCATENATION", (Given(IMAGE), const(*IMAGE)), Given((1, 8, 8, 32)), "edge-tpu-concatenated-constant"),
    # reductions
    reduce("MEAN", IMAGE, (1, 2), (1, 16)),
    reduce("MEAN", IMAGE, (3,), (1, 8, 8, 1)),
    reduce("MEAN", (1, 8, 8, 6), (3,), (1, 8, 8, 1), breaks="edge-tpu-mean"),
    reduce("MEAN", IMAGE, (3,), (1, 8, 8, 1), runtime=12, breaks="edge-tpu-mean"),
    *(reduce(n, IMAGE, (0, 1, 2, 3), (), breaks="edge-tpu-mean") for n in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN")),
    reduce("MEAN", (1, 256, 128, 3), (1, 2), (1, 3), breaks="edge-tpu-mean"),
    # layouts
    reshape("RESHAPE", IMAGE, (1, 1024)),
    reshape("RESHAPE", (1, 68, 40, 40), (1, 68, 1600), "edge-tpu-reshape"),
    reshape("SQUEEZE", (1, 1, 1, 10), (1, 10)),
    reshape("SQUEEZE", (1, 1, 5, 10), (5, 10)),
    reshape("SQUEEZE", (1, 5, 1, 10), (1, 5, 10), "edge-tpu-squeeze"),
    reshape("EXPAND_DIMS", (1, 10), (1, 1, 10)),
    Case("TRANSPOSE", (Given(IMAGE), numbers(0, 3, 1, 2)), Given((1, 16, 8, 8)), version=2),
    Case(
        "TRANSPOSE",
        (Given(IMAGE), numbers(0, 3, 1, 2)),
        Given((1, 16, 8, 8)),
        "edge-tpu-compiler-version",
        version=2,
        compiler=15,
    ),
    Case("PAD", (Given(IMAGE), const(4, 2, type_=I32)), Given((1, 10, 10, 16))),
    Case("PAD", (Given(IMAGE), const(4, 2, type_=I32)), Given((1, 8, 8, 18))),
    Case("PAD", (Given(IMAGE), const(4, 2, type_=I32)), Given((1, 8, 8, 18)), "edge-tpu-pad", runtime=12),
    Case("PAD", (Given(IMAGE), const(4, 2, type_=I32)), Given((2, 8, 8, 16)), "edge-tpu-rank"),
    Case("SPLIT", (numbers(3), Given(IMAGE)), Given((1, 8, 8, 8))),
    # slices
    Case("STRIDED_SLICE", (Given(IMAGE), *(numbers(0, 0, 0, 0),) * 2, numbers(1, 1, 1, 1)), Given((1, 4, 8, 16))),
    Case(
        "STRIDED_SLICE",
        (Given(IMAGE), *(numbers(0, 0, 0, 0),) * 2, numbers(1, 2, 2, 1)),
        Given((1, 4, 4, 16)),
        "edge-tpu-strided-slice",
    ),
    Case(
        "STRIDED_SLICE",
        (Given(IMAGE), *(numbers(0, 0, 0, 0),) * 2, numbers(1, 1, 1, 1)),
        Given((1, 1, 8, 8, 16)),
        "edge-tpu-strided-slice",
        {"new_axis_mask": 1},
    ),
    # resizing
    Case("RESIZE_BILINEAR", (Given(IMAGE), numbers(16, 16)), Given((1, 16, 16, 16))),
    Case("RESIZE_BILINEAR", (Given((1, 1, 1, 16)), numbers(33, 33)), Given((1, 33, 33, 16)), "edge-tpu-resize"),
    Case("RESIZE_NEAREST_NEIGHBOR", (Given(IMAGE), numbers(16, 16)), Given((1, 16, 16, 16)), version=3),
    Case(
        "RESIZE_NEAREST_NEIGHBOR",
        (Given(IMAGE), numbers(16, 16)),
        Given((1, 16, 16, 16)),
        "edge-tpu-compiler-version",
        version=3,
        compiler=14,
    ),
    # activations of their own kind
    unary("SOFTMAX", (1, 1000)),
    unary("SOFTMAX", (1, 20_000), "edge-tpu-softmax"),
    Case("PRELU", (Given(IMAGE), const(1, 1, 16)), Given(IMAGE)),
    Case("PRELU", (Given(IMAGE), const(8, 8, 16)), Given(IMAGE), "edge-tpu-prelu"),
    *(unary(name, breaks="edge-tpu-runtime", runtime=12) for name in ("RSQRT", "QUANTIZE")),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.breaks or 'mapped'}")
def test_a_single_operator(case):
    predicted = one(case)
    assert (predicted.rule and predicted.rule.id) == case.breaks, predicted
    assert predicted.mapped is (case.breaks is None)
    if predicted.rule is not None:
        assert predicted.found
        assert predicted.rule.sentence.endswith(".")


def test_every_operator_that_the_compiler_knows_is_in_the_table():
    recurrent = {"LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM"}
    same_as_others = {"PADV2", "SLICE", "SPACE_TO_DEPTH", "TILE"}
    assert set(RUNTIME) - {case.name for case in CASES if case.breaks is None} <= recurrent | same_as_others | {
        "REDUCE_MAX",
        "REDUCE_MIN",
        "SUM",
    }


def test_an_input_left_out_is_not_taken_for_the_last_tensor():
    graph = graph_of(CASES[0])
    operator = replace(graph.operators[0], name="PRELU", inputs=(0, -1))
    predicted = predict(replace(graph, operators=(operator,)))[0]
    assert not predicted.mapped
    assert "malformed" in predicted.found


@pytest.mark.parametrize(
    ("name", "version", "aborts"),
    [("TRANSPOSE_CONV", 3, False), ("TRANSPOSE_CONV", 4, True), ("CONV_2D", 6, True), ("FULLY_CONNECTED", 12, True)],
)
def test_operator_versions_beyond_the_compilers_interpreter_are_fatal(name, version, aborts):
    case = next(case for case in CASES if case.name == name and case.breaks is None)
    report = check(graph_of(replace(case, version=version)), load_board("coral-dev-board"))
    assert ("edge-tpu-version" in {f.rule for f in report.findings if f.severity == "error"}) is aborts


@pytest.mark.parametrize("computed", [False, True])
def test_a_size_that_is_computed_is_fatal(computed):
    shape = Given((2,), I32) if computed else numbers(1, 1024)
    graph = graph_of(Case("RESHAPE", (Given(IMAGE), shape), Given((1, 1024))))
    report = check(graph, load_board("coral-dev-board"))
    assert ("edge-tpu-dynamic-sized" in {f.rule for f in report.findings}) is computed
