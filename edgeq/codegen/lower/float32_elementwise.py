"""float32: element-wise operators of one or two inputs."""

from __future__ import annotations

from collections.abc import Iterator

from edgeq.codegen.lower.common import in_place, require
from edgeq.codegen.lower.elementwise import binary_step, broadcast
from edgeq.codegen.lower.float32 import FLOAT, HEADERS, activation, floats, literal, step
from edgeq.codegen.registry import lowering
from edgeq.codegen.step import Fields, Node, Step, Struct, Unsupported

_LARGEST = "3.4028235e+38f"
_CLAMPS = {
    "RELU": f"0.0f, {_LARGEST}",
    "RELU6": "0.0f, 6.0f",
    "RELU_N1_TO_1": "-1.0f, 1.0f",
    "RELU_0_TO_1": "0.0f, 1.0f",
}
_FUNCTIONS = {
    "ABS": 4,
    "NEG": 4,
    "SQUARE": 5,
    "SQRT": 20,
    "RSQRT": 30,
    "EXP": 40,
    "LOG": 40,
    "LOGISTIC": 60,
    "TANH": 70,
    "ELU": 50,
    "HARD_SWISH": 25,
}
"""Operator -> estimated instructions an element on a core with an FPU."""


@lowering("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "PRELU", float32=True)
def binary(node: Node) -> Iterator[Step]:
    """Two broadcast inputs, either may be constant; ADD, SUB, MUL and DIV have a fused activation."""
    a, b, result = node.input(0), node.input(1), node.output()
    require(node, a, b, result, types=FLOAT)
    for position, tensor in enumerate((a, b)):
        if tensor.is_constant:
            floats(node, position, "values")
    sizes, a_steps, b_steps = broadcast(a.shape, b.shape, result.shape)
    fields: Fields = {"size": tuple(sizes), "a_stride": tuple(a_steps), "b_stride": tuple(b_steps), **activation(node)}
    kernel = f"{node.operator.name.lower()}_f32"
    yield binary_step(node, kernel, Struct("params", "broadcast_f32", fields), HEADERS, 15)


def _unary(node: Node, kernel: str, cost: float, *more: str) -> Step:
    """A call `kernel(input, output, count, ...)`, in place if need be."""
    source, result = node.input(0), node.output()
    require(node, source, result, types=FLOAT)
    if source.elements != result.elements:
        raise Unsupported("Its input and output differ in size.")
    call = ", ".join((f"{{t{source.index}}}", f"{{t{result.index}}}", str(source.elements), *more))
    overlaps = in_place(source, result)
    return step(node, kernel, call, (source,), cost=source.elements * cost, overlaps=overlaps, code_bytes=100)


@lowering(*_FUNCTIONS, float32=True)
def function(node: Node) -> Iterator[Step]:
    """One function of each element."""
    name = node.operator.name
    yield _unary(node, f"{name.lower()}_f32", _FUNCTIONS[name])


@lowering(*_CLAMPS, float32=True)
def clamp(node: Node) -> Iterator[Step]:
    """The RELU family: each element into a range; RELU's ends at the largest finite number."""
    yield _unary(node, "clamp_f32", 6, _CLAMPS[node.operator.name])


@lowering("LEAKY_RELU", float32=True)
def leaky_relu(node: Node) -> Iterator[Step]:
    """x, or alpha * x from 0 down."""
    yield _unary(node, "leaky_relu_f32", 6, literal(node.options["alpha"]))


@lowering("GELU", float32=True)
def gelu(node: Node) -> Iterator[Step]:
    """The form with tanh (`approximate`)."""
    if not node.options.get("approximate"):
        raise Unsupported("It is GELU with the error function.", "Use keras.activations.gelu(x, approximate=True).")
    yield _unary(node, "gelu_tanh_f32", 90)
