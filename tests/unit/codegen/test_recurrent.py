"""LSTM, SVDF and the 16-bit curves: byte-equal to the tflite-micro wheel, state carried over several invokes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import Wheel, build
from hypothesis import given
from hypothesis import strategies as st
from single import INT8, INT16, INT32, T, model, same_as_wheel, values
from test_operators import few, noise, scales, seeds, zeros

from edgeq.graph import Graph, Operator, Quantization, Tensor, TensorType, read_bytes, write_bytes

KINDS = (2, 3, 0, 1, 4)
"""Inputs of successive invokes; the state goes from one to the next on both sides."""


@st.composite
def lstms(draw: Any, wide: bool) -> Graph:
    batches, steps, depth, units = (draw(st.integers(1, n)) for n in (2, 5, 9, 9))
    seed, by_time = draw(seeds), draw(st.booleans())
    kind, zero = (INT16, 0) if wide else (INT8, draw(zeros))
    divisor = 256 if wide else 1
    lead = (steps, batches) if by_time else (batches, steps)
    source = T((*lead, depth), kind, scale=draw(scales) / divisor, zero=zero)
    state_zero = 0 if wide else draw(zeros)
    hidden = T((batches, units), kind, scale=draw(st.floats(1e-3, 0.02)) / divisor, zero=state_zero, variable=True)
    cell = T((batches, units), INT16, scale=2.0 ** -draw(st.integers(9, 15)), variable=True)

    def matrix(columns: int, number: int) -> T:
        factor = draw(st.floats(1e-3, 0.03))
        return T((units, columns), scale=factor, data=noise(seed + number, (units, columns)))

    inputs = [matrix(depth, g) for g in range(4)]
    recurrent = [matrix(units, g + 4) for g in range(4)]
    bias_type = TensorType.INT64 if wide else INT32
    biases = [
        T((units,), bias_type, scale=w.scale * source.scale, data=noise(seed + 9, (units,), -9000, 9000))
        for w in inputs
    ]
    absent: list[T | None] = [None] * 9
    tensors = [source, *inputs, *recurrent, *absent[:3], *biases, None, None, hidden, cell, *absent[:4]]
    result = replace(hidden, shape=(*lead, units), variable=False)
    options = {
        "fused_activation_function": "TANH",
        "time_major": by_time,
        "cell_clip": draw(st.sampled_from([0.0, 1.5, 10.0])),
    }
    return model("UNIDIRECTIONAL_SEQUENCE_LSTM", tensors, [result], options)


@pytest.mark.parametrize("wide", [False, True], ids=["int8", "16x8"])
@few
@given(data=st.data())
def test_lstm(wide: bool, data: Any) -> None:
    same_as_wheel(data.draw(lstms(wide)), KINDS)


@pytest.mark.parametrize("kind", [INT8, INT16], ids=["int8", "int16"])
@few
@given(data=st.data())
def test_svdf(kind: TensorType, data: Any) -> None:
    draw = data.draw
    batches, depth, units, rank, memory = (draw(st.integers(1, n)) for n in (2, 9, 5, 2, 6))
    filters, seed = units * rank, draw(seeds)
    top = 127 if kind is INT8 else 2000
    source = T((batches, depth), scale=draw(scales), zero=draw(zeros))
    features = T((filters, depth), scale=draw(st.floats(1e-3, 0.02)), data=noise(seed, (filters, depth)))
    times = T((filters, memory), kind, scale=draw(scales) / top, data=noise(seed + 1, (filters, memory), -top, top))
    state_zero = draw(st.integers(-20, 20)) if kind is INT8 else 0
    reach = 1.3 * source.scale * features.scale * depth * 255 * 127  # never saturates: there the wheel wraps around
    state = T((batches, filters * memory), kind, scale=reach / top, zero=state_zero, variable=True)
    factor = state.scale * times.scale
    bias = T((units,), INT32, scale=factor, data=noise(seed + 2, (units,), -9000, 9000))
    result = T((batches, units), scale=factor * top * top, zero=draw(zeros))
    options = {"rank": rank, "fused_activation_function": "NONE"}
    same_as_wheel(model("SVDF", [source, features, times, bias, state], [result], options, 3), KINDS)


@pytest.mark.parametrize("name", ["LOGISTIC", "TANH"])
@few
@given(scale=st.one_of(st.floats(1e-5, 2e-3), st.sampled_from([2.0**-12, 2.0**-11, 2.0**-13])))
def test_curve_16x8(name: str, scale: float) -> None:
    shape = (65536,)
    graph = model(name, [T(shape, INT16, scale=float(np.float32(scale)))], [T(shape, INT16, scale=2.0**-15)])
    same_as_wheel(graph, (2, 3))


def counter(initial: list[int]) -> Graph:
    """y = x + v; v = y: a running sum that starts at `initial`."""
    shape, quantization = (1, len(initial)), Quantization((0.5,), (3,))
    names = {"container": "", "shared_name": "v"}

    def tensor(index: int, name: str, kind: TensorType = INT8, data: Any = None) -> Tensor:
        resource = kind is TensorType.RESOURCE
        lies = () if resource else shape
        return Tensor(index, name, kind, lies, lies, None if resource else quantization, data)

    start = np.array([initial], np.int8)
    resource = TensorType.RESOURCE
    once = Graph(
        "once",
        (tensor(0, "start", data=start), tensor(1, "handle", resource)),
        (Operator(0, "VAR_HANDLE", 1, (), (1,), names), Operator(1, "ASSIGN_VARIABLE", 1, (1, 0), ())),
        (),
        (),
    )
    operators = (
        Operator(0, "CALL_ONCE", 1, (), (), {"init_subgraph_index": 1}),
        Operator(1, "VAR_HANDLE", 1, (), (1,), names),
        Operator(2, "READ_VARIABLE", 1, (1,), (2,)),
        Operator(3, "ADD", 2, (0, 2), (3,)),
        Operator(4, "ASSIGN_VARIABLE", 1, (1, 3), ()),
    )
    tensors = (tensor(0, "x"), tensor(1, "handle", resource), tensor(2, "v"), tensor(3, "y"))
    main = Graph("main", tensors, operators, (0,), (3,))
    return read_bytes(write_bytes(replace(main, subgraphs=(main, once))))


@pytest.mark.parametrize("initial", [[3, 3, 3], [-7, 20, 100]])
def test_variable(initial: list[int], tmp_path: Path) -> None:
    graph = counter(initial)
    ours, wheel = build(graph, tmp_path), Wheel(write_bytes(graph))
    for kind in (2, 3, 4, 5):
        np.testing.assert_array_equal(ours.run(values(graph, kind))[0], wheel.run(values(graph, kind))[0])
    ours._function("reset")(ours.arena)
    fresh = Wheel(write_bytes(graph))
    np.testing.assert_array_equal(ours.run(values(graph, 2))[0], fresh.run(values(graph, 2))[0])
