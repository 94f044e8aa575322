"""What --fix removes or fuses leaves every byte as LiteRT's reference kernels compute it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from typer.testing import CliRunner

from edgeq.boards import load_board
from edgeq.checks import approximate, check, difference, fix
from edgeq.cli.main import app
from edgeq.graph import verify, write_bytes
from edgeq.graph.ir import Graph, Operator, Quantization, Tensor, TensorType
from edgeq.interpreter import Interpreter

SHAPE = (1, 5, 5, 4)
I8, I32, F32 = TensorType.INT8, TensorType.INT32, TensorType.FLOAT32
Q = Quantization((0.061,), (-7,))


def layer(kind: str, activation: str, float_: bool) -> Graph:
    """One layer, its activation as an operator of its own, then TANH, so that the activation is inside."""
    rng = np.random.default_rng(3)
    type_, q = (F32, None) if float_ else (I8, Q)
    out = (1, 6) if kind == "FULLY_CONNECTED" else SHAPE
    shapes = {"CONV_2D": (4, 3, 3, 4), "DEPTHWISE_CONV_2D": (1, 3, 3, 4), "FULLY_CONNECTED": (6, 100)}
    shape = shapes.get(kind, SHAPE)
    if float_:
        weights = rng.normal(0, 1, shape).astype(np.float32)
        scales = None
    else:
        weights = rng.integers(-127, 128, shape).astype(np.int8)
        scales = Quantization((0.011,), (0,))
    end = None if float_ else Quantization((1 / 128,), (0,))
    tensors = [
        Tensor(0, "x", type_, SHAPE, SHAPE, q),
        Tensor(1, "w", type_, shape, shape, scales, weights),
        Tensor(2, "a", type_, out, out, q),
        Tensor(3, "b", type_, out, out, q),
        Tensor(4, "y", type_, out, out, end),
    ]
    inputs: tuple[int, ...] = (0, 1)
    if kind in shapes:
        channels = out[-1]
        bias = rng.integers(-900, 900, channels)
        tensors.append(
            Tensor(5, "bias", F32, (channels,), (channels,), None, (bias / 900).astype(np.float32))
            if float_
            else Tensor(
                5, "bias", I32, (channels,), (channels,), Quantization((0.061 * 0.011,), (0,)), bias.astype(np.int32)
            )
        )
        inputs = (0, 1, 5)
    options = {"stride_w": 1, "stride_h": 1, "padding": "SAME", "depth_multiplier": 1} if "CONV" in kind else {}
    operators = (
        Operator(
            0,
            kind,
            3 if "CONV" in kind else 4 if kind == "FULLY_CONNECTED" else 2,
            inputs,
            (2,),
            MappingProxyType(options),
        ),
        Operator(1, activation, 2 if activation == "RELU" else 1, (2,), (3,)),
        Operator(2, "TANH", 2, (3,), (4,)),
    )
    return Graph("main", tuple(tensors), operators, (0,), (4,))


def equal(graph: Graph, fixed: Graph, cases: int = 16) -> None:
    before, after = Interpreter(write_bytes(graph)), Interpreter(write_bytes(fixed))
    rng = np.random.default_rng(4)
    results = set()
    for _ in range(cases):
        x = rng.integers(-128, 128, SHAPE).astype(np.int8)
        if graph.tensors[graph.inputs[0]].type is F32:
            x = rng.normal(0, 3, SHAPE).astype(np.float32)
        (expected,), (got,) = before.run([x]), after.run([x])
        assert np.array_equal(expected, got)
        results.add(got.tobytes())
    assert len(results) > cases // 2


@pytest.mark.parametrize("float_", [False, True], ids=["int8", "float"])
@pytest.mark.parametrize("activation", ["RELU", "RELU6", "RELU_N1_TO_1"])
@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "SUB", "MUL"])
def test_an_activation_is_fused(kind: str, activation: str, float_: bool) -> None:
    graph = layer(kind, activation, float_)
    assert "separate-activation" in {f.rule for f in check(graph, load_board("host")).findings}
    fixed, done = fix(graph)
    verify(fixed)
    assert [one.rule for one in done] == ["separate-activation"]
    assert [op.name for op in fixed.operators] == [kind, "TANH"]
    assert fixed.operators[0].options["fused_activation_function"] == activation
    equal(graph, fixed)


def test_an_activation_with_another_scale_or_reader_stays() -> None:
    graph = layer("CONV_2D", "RELU", False)
    tensors = list(graph.tensors)
    tensors[3] = Tensor(3, "b", I8, SHAPE, SHAPE, Quantization((0.03,), (-128,)))
    other = Graph("main", tuple(tensors), graph.operators, (0,), (4,))
    read_twice = Graph("main", graph.tensors, graph.operators, (0,), (4, 2))
    for one in (other, read_twice):
        assert fix(one)[1] == ()


def test_what_changes_nothing_is_removed() -> None:
    """TANH, then RESHAPE, TRANSPOSE, PAD that change nothing and a float round trip, then RELU."""
    tensors = [Tensor(0, "x", I8, SHAPE, SHAPE, Q)]
    tensors += [Tensor(i, f"t{i}", F32 if i == 5 else I8, SHAPE, SHAPE, None if i == 5 else Q) for i in range(1, 9)]
    tensors += [
        Tensor(9, "shape", I32, (4,), (4,), None, np.array(SHAPE, np.int32)),
        Tensor(10, "order", I32, (4,), (4,), None, np.arange(4, dtype=np.int32)),
        Tensor(11, "pads", I32, (4, 2), (4, 2), None, np.zeros((4, 2), np.int32)),
    ]
    tensors[8] = Tensor(8, "y", I8, SHAPE, SHAPE, Quantization((1 / 128,), (0,)))
    operators = (
        Operator(0, "RELU", 2, (0,), (1,)),
        Operator(1, "RESHAPE", 1, (1, 9), (2,)),
        Operator(2, "TRANSPOSE", 2, (2, 10), (3,)),
        Operator(3, "PAD", 2, (3, 11), (4,)),
        Operator(4, "DEQUANTIZE", 2, (4,), (5,)),
        Operator(5, "QUANTIZE", 1, (5,), (6,)),
        Operator(6, "TANH", 2, (6,), (8,)),
    )
    graph = Graph("main", tuple(tensors), operators, (0,), (8,))
    fixed, done = fix(graph)
    verify(fixed)
    assert [one.rule for one in done] == ["no-operation"] * 3 + ["quantize-round-trip"]
    assert [op.name for op in fixed.operators] == ["RELU", "TANH"]
    equal(graph, fixed)
    moved = list(graph.tensors)
    moved[11] = Tensor(11, "pads", I32, (4, 2), (4, 2), None, np.array([[0, 0], [1, -1], [0, 0], [0, 0]], np.int32))
    moved[10] = Tensor(10, "order", I32, (4,), (4,), None, np.array([0, 2, 1, 3], np.int32))
    kept, _ = fix(Graph("main", tuple(moved), operators, (0,), (8,)))
    assert [op.name for op in kept.operators] == ["RELU", "TRANSPOSE", "PAD", "TANH"]


def swish(float_: bool) -> Graph:
    """x * sigmoid(x)."""
    type_ = F32 if float_ else I8
    scales = (None,) * 3 if float_ else (Q, Quantization((1 / 256,), (-128,)), Quantization((0.04,), (-120,)))
    tensors = tuple(Tensor(i, n, type_, SHAPE, SHAPE, q) for i, (n, q) in enumerate(zip("xsy", scales, strict=True)))
    operators = (
        Operator(0, "LOGISTIC", 2, (0,), (1,)),
        Operator(1, "MUL", 2, (0, 1), (2,), MappingProxyType({"fused_activation_function": "NONE"})),
    )
    return Graph("main", tensors, operators, (0,), (2,))


@pytest.mark.parametrize("float_", [False, True], ids=["int8", "float"])
def test_swish_is_replaced_only_when_asked_for_and_the_difference_is_measured(float_: bool) -> None:
    graph = swish(float_)
    assert fix(graph)[1] == ()
    changed, done = approximate(graph)
    verify(changed)
    assert [op.name for op in changed.operators] == ["HARD_SWISH"]
    assert [one.rule for one in done] == ["rare-activation"]
    # x * sigmoid(x) and x * relu6(x + 3) / 6 are 0.1423 apart at most, where |x| = 3.
    step = 0.0 if float_ else 0.04
    measured = difference(graph, changed)
    assert 0.1423 - 2 * step - 0.01 < measured.largest < 0.1424 + 2 * step
    assert 0 < measured.mean < measured.largest
    x = np.linspace(-4, 4, 100, dtype=np.float32).reshape(SHAPE)
    if float_:
        (got,) = Interpreter(write_bytes(changed)).run([x])
        np.testing.assert_allclose(got, x * np.clip(x + 3, 0, 6) / 6, atol=1e-6)


def test_a_sigmoid_that_is_read_twice_stays() -> None:
    graph = swish(False)
    assert approximate(Graph("main", graph.tensors, graph.operators, (0,), (2, 1)))[1] == ()


def test_the_command_line_says_by_how_much_the_outputs_change(tmp_path: Path) -> None:
    model, out = tmp_path / "swish.tflite", tmp_path / "out.tflite"
    model.write_bytes(write_bytes(swish(False)))
    command = ["check", str(model), "-b", "virtual-m4", "--approximate"]
    done = CliRunner().invoke(app, [*command, "--fix", "-o", str(out), "--json"])
    assert done.exit_code == 0
    (fixed,) = json.loads(done.stdout)["fixed"]
    assert fixed["rule"] == "rare-activation"
    assert "outputs differ by 0.1" in fixed["kept"]
    assert "32 seeded random inputs" in fixed["kept"]
    assert CliRunner().invoke(app, command).exit_code == 2


def float_borders(*, shared: bool) -> Graph:
    """QUANTIZE, TANH, DEQUANTIZE; if shared, the float input and output are read by others too."""
    tensors = (
        Tensor(0, "x", F32, SHAPE, SHAPE),
        Tensor(1, "q", I8, SHAPE, SHAPE, Q),
        Tensor(2, "t", I8, SHAPE, SHAPE, Quantization((1 / 128,), (0,))),
        Tensor(3, "y", F32, SHAPE, SHAPE),
        Tensor(4, "z", F32, SHAPE, SHAPE),
    )
    operators = (
        Operator(0, "QUANTIZE", 1, (0,), (1,)),
        Operator(1, "TANH", 2, (1,), (2,)),
        Operator(2, "DEQUANTIZE", 2, (2,), (3,)),
        *((Operator(3, "ADD", 1, (0, 3), (4,)),) if shared else ()),
    )
    return Graph("main", tensors if shared else tensors[:4], operators, (0,), (3, 4) if shared else (3,))


@pytest.mark.parametrize("shared", [False, True])
def test_only_what_fix_does_is_said_to_be_fixable(shared: bool) -> None:
    graph = float_borders(shared=shared)
    found = {f.rule: f.fixable for f in check(graph, load_board("virtual-m4")).findings}
    assert found["float-input"] is found["float-output"] is not shared
    fixed, done = fix(graph)
    assert {one.rule for one in done} == (set() if shared else {"float-input", "float-output"})
    assert not any(f.fixable for f in check(fixed, load_board("virtual-m4")).findings)


def test_values_at_int8_borders_are_those_of_the_float_model() -> None:
    graph = float_borders(shared=False)
    fixed, _ = fix(graph)
    before, after = Interpreter(write_bytes(graph)), Interpreter(write_bytes(fixed))
    for seed in range(8):
        q = np.random.default_rng(seed).integers(-128, 128, SHAPE).astype(np.int8)
        (expected,), (got,) = before.run([((q + 7.0) * 0.061).astype(np.float32)]), after.run([q])
        assert np.array_equal(got.astype(np.float32) / 128, expected)


def test_a_batch_that_is_fixed_changes_nothing_else() -> None:
    graph = layer("CONV_2D", "RELU", False)
    graph = replace(graph, tensors=tuple(replace(t, shape_signature=(-1, *t.shape[1:])) for t in graph.tensors))
    fixed, done = fix(graph)
    assert "dynamic-batch" in {one.rule for one in done}
    assert all(t.shape_signature[0] > 0 for t in fixed.tensors)
    equal(graph, fixed)
