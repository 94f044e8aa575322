"""`compose_tables`: chains of element-wise operators become tables, with the tflite-micro wheel's bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from single import T
from test_operators import few, scales, zeros
from test_passes import Builder, same_as_wheel

from edgeq.codegen import passes
from edgeq.codegen.registry import TABLE, supported_operators
from edgeq.graph import Graph, TensorType

SHAPE = (2, 128)
NO_ACTIVATION: dict[str, Any] = {"fused_activation_function": "NONE"}
ADD: dict[str, Any] = {**NO_ACTIVATION, "pot_scale_int16": False}
OPTIONS: dict[str, dict[str, Any]] = {"ADD": ADD, "SUB": ADD, "MUL": NO_ACTIVATION, "LEAKY_RELU": {"alpha": 0.3}}


def of(scale: float, zero: int) -> T:
    return T(SHAPE, scale=scale, zero=zero)


def composed(graph: Graph) -> list[str]:
    """Names of the operators left, a table's with what it is made of."""
    done = passes.run(graph)
    return ["+".join(op.options["made_of"]) if TABLE in op.options else op.name for op in done.operators]


def swish(builder: Builder, source: int, result: T) -> int:
    gate = builder.add("LOGISTIC", [source], of(1 / 256, -128))
    return builder.add("MUL", [source, gate], result, **NO_ACTIVATION)


@few
@given(scales, zeros, scales, zeros)
def test_swish_is_one_table(scale: float, zero: int, result_scale: float, result_zero: int) -> None:
    builder = Builder()
    source = builder.tensor(of(scale, zero))
    graph = builder.graph(swish(builder, source, of(result_scale, result_zero)))
    assert composed(graph) == ["LOGISTIC+MUL"]
    same_as_wheel(graph, passes.run(graph))


@few
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ADD", "SUB", "MUL", "SQUARED_DIFFERENCE", "MAXIMUM", "MINIMUM", "LEAKY_RELU", "TANH"]),
            st.sampled_from(["constant", "itself", "begin"]),
            scales,
            zeros,
        ),
        min_size=1,
        max_size=4,
    ),
    st.integers(-128, 127),
)
def test_what_is_a_function_of_one_tensor(steps: list[tuple[str, str, float, int]], number: int) -> None:
    """Each operator reads the result before it, and beside it a constant number, the same, or the beginning."""
    builder = Builder()
    at = begin = builder.tensor(of(0.05, 4))
    before = of(0.05, 4)
    for name, wanted, scale, zero in steps:
        result, beside = of(max(scale, 0.01), zero), wanted  # TFLM takes no output scale far below its inputs'
        if name in ("MAXIMUM", "MINIMUM"):
            result, beside = before, "constant" if wanted == "begin" else wanted
        other = {
            "constant": T((1,), scale=before.scale, zero=before.zero, data=[number]),
            "itself": at,
            "begin": begin,
        }[beside]
        if name == "TANH":
            result = of(1 / 128, 0)
        unary = name in ("LEAKY_RELU", "TANH")
        at = builder.add(name, [at] if unary else [at, other], result, **OPTIONS.get(name, {}))
        before = result
    graph = builder.graph(at)
    done = passes.run(graph)
    assert len(done.operators) <= max(1, sum(beside == "begin" for _, beside, _, _ in steps) + 1)
    same_as_wheel(graph, done)


def test_what_others_read_stays() -> None:
    """A result that something else reads, or that is the graph's, is there; what follows it is a table of it."""
    builder = Builder()
    source = builder.tensor(of(0.05, 4))
    middle = builder.add("TANH", [source], of(1 / 128, 0))
    first = builder.add("ABS", [middle], of(1 / 128, 0))
    second = builder.add("NEG", [middle], of(1 / 128, 0))
    shown = builder.add("LOGISTIC", [first], of(1 / 256, -128))
    third = builder.add("LEAKY_RELU", [shown], of(0.02, 3), alpha=0.3)
    graph = builder.graph(second, shown, third)
    assert composed(graph) == ["TANH", "NEG", "ABS+LOGISTIC", "LEAKY_RELU"]


def test_what_depends_on_two_tensors_or_on_channels_stays() -> None:
    builder = Builder()
    source, other = builder.tensor(of(0.05, 4)), builder.tensor(of(0.05, 4))
    both = builder.add("MUL", [source, other], of(0.1, 4), **NO_ACTIVATION)
    channels = T((128,), scale=0.1, zero=0, data=np.arange(128) - 64)
    scaled = builder.add("MUL", [both, channels], of(0.1, 4), **NO_ACTIVATION)
    row = T((1, 128), scale=0.1, zero=0)
    graph = builder.graph(builder.add("ADD", [scaled, row], of(0.1, 4), **ADD))
    assert composed(graph) == ["MUL", "MUL", "ADD"]
    same_as_wheel(graph, passes.run(graph))


def test_unsigned_bytes_too() -> None:
    """uint8 into int8 by QUANTIZE, as a camera's picture comes, with what follows it."""
    builder = Builder()
    picture = T(SHAPE, TensorType.UINT8, scale=1 / 255, zero=0)
    signed = builder.add("QUANTIZE", [picture], of(1 / 255, -128))
    graph = builder.graph(builder.add("LEAKY_RELU", [signed], of(0.01, 0), alpha=0.3))
    assert composed(graph) == ["QUANTIZE+LEAKY_RELU"]
    same_as_wheel(graph, passes.run(graph))


def test_a_table_is_not_an_operator_of_the_format() -> None:
    assert TABLE not in supported_operators()
