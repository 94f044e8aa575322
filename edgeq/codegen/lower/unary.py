"""Unary operators: TFLM's arithmetic where it has one, else correctly rounded.

In int8 each is a table of 256 results; in int16 they are the Steps of `unary_16.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen import arithmetic as fixed
from edgeq.codegen.lower import unary_16
from edgeq.codegen.lower.common import (
    RANGE,
    activation_range,
    activations,
    in_place,
    multiplier,
    require,
    scale,
    zero_point,
)
from edgeq.codegen.lower.curve import curve_step
from edgeq.codegen.registry import lowering
from edgeq.codegen.step import Constant, Node, Step, Unsupported
from edgeq.graph.ir import Tensor, TensorType

Ints = NDArray[np.int64]
_BYTES = (TensorType.INT8, TensorType.UINT8)


def stored(tensor: Tensor) -> Ints:
    """Every value of an 8-bit tensor in the order of its byte 0..255; of an int16 tensor in ascending order."""
    if tensor.type is TensorType.INT16:
        return np.arange(-32768, 32768)
    values = np.arange(256, dtype=np.int64)
    return np.where(values > 127, values - 256, values) if tensor.type is TensorType.INT8 else values


def table_step(node: Node, source: Tensor, result: Tensor, values: Ints, method: str) -> Step:
    """A Step that looks every byte of `source` up; `values` are results by byte, clamped to the type's range."""
    low, high = RANGE[result.type]
    table = np.clip(values, low, high).astype(np.int64) & 0xFF
    return Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel="lookup_8",
        method=method,
        calls=(f"edgeq_lookup_8({{table}}, {{t{source.index}}}, {{t{result.index}}}, {source.elements});",),
        inputs=activations(source),
        outputs=(result.index,),
        constants=(Constant("table", "uint8_t", table.astype(np.uint8)),),
        overlaps=in_place(source, result),
        sources=("lookup_8.c",),
        headers=("elementwise.h",),
        cost=source.elements * 6,
        code_bytes=24,
    )


def correctly_rounded(source: Tensor, result: Tensor, function: Callable[[NDArray[Any]], object]) -> Ints:
    """function(real value) in the result's quantization, rounded to nearest, ties away from zero.

    Values that are nearly a tie in floating point are computed again in fractions, where the function is rational.
    """
    steps = stored(source) - zero_point(source)
    with np.errstate(all="ignore"):
        exact = np.asarray(function(steps * scale(source)), np.float64) / scale(result)
    low, high = RANGE[result.type]
    exact = np.clip(np.nan_to_num(exact, nan=0.0, posinf=1e9, neginf=-1e9), -1e9, 1e9)
    rounded = fixed.round_half_away(exact)
    unsure = np.abs(np.abs(exact) % 1 - 0.5) < 1e-9
    if unsure.any():
        values = np.array([Fraction(scale(source)) * int(q) for q in steps[unsure]], object)
        with suppress(TypeError, AttributeError):
            found = np.asarray(function(values)) / Fraction(scale(result))
            rounded[unsure] = [floor(abs(v) + Fraction(1, 2)) * (1 if v > 0 else -1) for v in found]
    return np.clip(rounded + zero_point(result), low, high).astype(np.int64)


def _unary(node: Node) -> tuple[Tensor, Tensor]:
    source, result = node.input(0), node.output()
    require(node, source, result, types=(TensorType.INT8,))
    if source.elements != result.elements:
        raise Unsupported("Its input and output differ in size.")
    return source, result


def _q4(source: Tensor) -> tuple[Ints, Ints, int]:
    """Input values without zero point, in Q4.27, and the radius beyond which the function saturates."""
    values = stored(source) - zero_point(source)
    factor, left = multiplier(scale(source) * 2.0**27, "input scale")
    return values, fixed.requantize(values, factor, left), fixed.input_radius(4, left)


def _is_wide(node: Node) -> bool:
    return node.input(0).type is TensorType.INT16


def _curve(node: Node, function: Callable[[NDArray[Any]], object]) -> Step:
    """A correctly rounded function in int16, for which TFLM has no kernel."""
    source, result = unary_16.unary_16(node)
    ratio = 1 / scale(result)
    wanted = correctly_rounded(source, result, function)
    return curve_step(node, lambda q: np.asarray(function(q * scale(source)), np.float64) * ratio, wanted)


def _wide_curve(node: Node) -> Step:
    from edgeq.codegen.lower.recurrent import curve_step

    source, result = node.input(0), node.output()
    require(node, result, types=(TensorType.INT16,))
    return curve_step(node, source, result)


@lowering("LOGISTIC")
def logistic(node: Node) -> Iterator[Step]:
    """Output scale 1/256, zero point -128 (reference_integer_ops::Logistic); 16x8: 1/32768, 0."""
    if _is_wide(node):
        yield _wide_curve(node)
        return
    source, result = _unary(node)
    if not math.isclose(scale(result), 1 / 256, rel_tol=1e-3) or zero_point(result) != -128:
        raise Unsupported("Its output's scale is not 1/256 with zero point -128.", "Convert the model again.")
    values, q4, radius = _q4(source)
    out = fixed.rounding_shift(fixed.logistic(q4), 23) - 128
    out = np.where(values <= -radius, -128, np.where(values >= radius, 127, out))
    yield table_step(node, source, result, out, "table")


@lowering("TANH")
def tanh(node: Node) -> Iterator[Step]:
    """Output scale 1/128, zero point 0 (reference_integer_ops::Tanh); 16x8: 1/32768, 0."""
    if _is_wide(node):
        yield _wide_curve(node)
        return
    source, result = _unary(node)
    if not math.isclose(scale(result), 1 / 128, rel_tol=1e-3) or zero_point(result) != 0:
        raise Unsupported("Its output's scale is not 1/128 with zero point 0.", "Convert the model again.")
    values, q4, radius = _q4(source)
    out = fixed.rounding_shift(fixed.tanh(q4), 24)
    out = np.where(values <= -radius, -128, np.where(values >= radius, 127, out))
    yield table_step(node, source, result, out, "table")


@lowering("RELU")
def relu(node: Node) -> Iterator[Step]:
    """max(0, x), requantized (ReluQuantized)."""
    if _is_wide(node):
        yield unary_16.two_slopes(node, 0.0)
        return
    source, result = _unary(node)
    factor = multiplier(scale(source) / scale(result))
    out = fixed.requantize(stored(source) - zero_point(source), *factor) + zero_point(result)
    yield table_step(node, source, result, np.maximum(out, zero_point(result)), "table")


@lowering("LEAKY_RELU")
def leaky_relu(node: Node) -> Iterator[Step]:
    """x, or alpha * x below 0 (QuantizeLeakyRelu)."""
    alpha = float(np.float32(node.options["alpha"]))
    if _is_wide(node):
        yield unary_16.two_slopes(node, alpha)
        return
    source, result = _unary(node)
    values = stored(source) - zero_point(source)
    if alpha < 0:
        yield table_step(
            node, source, result, correctly_rounded(source, result, lambda x: np.where(x < 0, alpha * x, x)), "table"
        )
        return
    above = fixed.requantize(values, *multiplier(scale(source) / scale(result)))
    below = fixed.requantize(values, *multiplier(scale(source) * alpha / scale(result)))
    yield table_step(node, source, result, np.where(values >= 0, above, below) + zero_point(result), "table")


@lowering("ABS")
def absolute(node: Node) -> Iterator[Step]:
    """|x| (AbsEvalQuantized)."""
    if _is_wide(node):
        yield unary_16.two_slopes(node, -1.0)
        return
    source, result = _unary(node)
    out = np.abs(stored(source) - zero_point(source))
    if scale(source) != scale(result):
        out = fixed.requantize(out, *multiplier(scale(source) / scale(result)))
    yield table_step(node, source, result, out + zero_point(result), "table")


def _inverse_root(value: int) -> tuple[int, int]:
    """1 / sqrt(value) as (multiplier, shift) (GetInvSqrtQuantizedMultiplierExp with reverse shift -1)."""
    if value <= 1:
        return fixed.INT32_MAX, 0
    shift = 11
    pairs = (32 - value.bit_length() - 1) // 2 - 1
    shift -= pairs
    value <<= 2 * pairs
    half = int(fixed.rounding_shift(value >> 1, 1))
    x = 1 << 28

    def mul(a: int, b: int) -> int:
        return int(fixed.doubling_high_mul(a, b))

    def widen(a: int, bits: int) -> int:
        return max(fixed.INT32_MIN, min(fixed.INT32_MAX, a << bits))

    for _ in range(5):
        cube = widen(mul(mul(x, x), x), 6)
        x = widen(mul((1 << 28) + (1 << 27), x) - mul(half, cube), 3)
    root = mul(x, 1518500250)
    if shift < 0:
        root, shift = root << -shift, 0
    return root, -shift


@lowering("RSQRT")
def rsqrt(node: Node) -> Iterator[Step]:
    """1 / sqrt(x) (RsqrtEvalQuantized); where x <= 0 TFLM stops at run time, here the result is the largest value."""
    real = 1.0 / (math.sqrt(scale(node.input(0))) * scale(node.output()))
    if _is_wide(node):
        yield unary_16.rsqrt(node, real)
        return
    source, result = _unary(node)
    factor, shift = multiplier(real)
    out = np.full(256, 127, np.int64)
    for at, value in enumerate(stored(source) - zero_point(source)):
        if value > 0:
            root, root_shift = _inverse_root(int(value))
            data = fixed.requantize(1, root, root_shift + 20)
            out[at] = fixed.requantize(data, factor, shift - 20) + zero_point(result)
    yield table_step(node, source, result, out, "table")


def _down_scale(factor: int) -> int:
    return 32767 if factor >= fixed.INT32_MAX - (1 << 15) else (factor + (1 << 15)) >> 16


@lowering("HARD_SWISH")
def hard_swish(node: Node) -> Iterator[Step]:
    """x * relu6(x + 3) / 6 in 16-bit fixed point (reference_ops::HardSwish); in int16 correctly rounded."""
    if _is_wide(node):
        yield _curve(node, lambda x: x * np.clip(x + 3, 0, 6) / 6)
        return
    source, result = _unary(node)
    hires = np.float32(1 / 128) * np.float32(scale(source))
    factor, exponent = multiplier(float(hires / np.float32(scale(result))))
    relu_factor, relu_exponent = multiplier(float(hires / np.float32(3.0 / 32768)))
    if exponent > 0:
        raise Unsupported("Its output scale is too small for its input scale.", "Convert the model again.")

    def clip16(x: Ints) -> Ints:
        return np.clip(x, -32768, 32767)

    def high_mul(a: Ints, b: int) -> Ints:
        return clip16((a * b + (1 << 14)) >> 15)

    value = (stored(source) - zero_point(source)) * 128
    before_shift = high_mul(value, _down_scale(factor))
    gate = value if relu_exponent <= 0 else clip16(value << (relu_exponent - 1))
    gate = high_mul(gate, _down_scale(relu_factor))
    if relu_exponent > 0:
        gate = clip16(gate << 1)
    elif relu_exponent < 0:
        gate = fixed.rounding_shift(gate, -relu_exponent)
    gate = (gate + (1 << 15)) >> 1
    product = gate * before_shift
    out = fixed.rounding_shift(np.sign(product) * (np.abs(product) >> 15), -exponent)
    yield table_step(node, source, result, out + zero_point(result), "table")


def _gelu(node: Node) -> Callable[[NDArray[Any]], object]:
    if node.options.get("approximate"):
        return lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return lambda x: 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


_REAL: dict[str, Callable[[NDArray[Any]], object]] = {
    "RELU6": lambda x: np.clip(x, 0, 6),
    "RELU_N1_TO_1": lambda x: np.clip(x, -1, 1),
    "RELU_0_TO_1": lambda x: np.clip(x, 0, 1),
    "ELU": lambda x: np.where(x > 0, x, np.expm1(x)),
    "EXP": np.exp,
    "LOG": np.log,
    "SQRT": np.sqrt,
    "SQUARE": np.square,
    "NEG": np.negative,
    "SIGN": np.sign,
    "SIN": np.sin,
    "COS": np.cos,
    "FLOOR": np.floor,
    "CEIL": np.ceil,
    "ROUND": np.rint,
}


@lowering("GELU", *_REAL)
def correctly_rounded_unary(node: Node) -> Iterator[Step]:
    """Where TFLM has no int8 kernel, or a wrong one (a standalone RELU6): the correctly rounded function as a table."""
    function = _gelu(node) if node.operator.name == "GELU" else _REAL[node.operator.name]
    if _is_wide(node):
        yield _curve(node, function)
        return
    source, result = _unary(node)
    yield table_step(node, source, result, correctly_rounded(source, result, function), "table, correctly rounded")


_WITH_A_CONSTANT: dict[str, Callable[[Any, Any], Any]] = {
    "POW": np.power,
    "ATAN2": np.arctan2,
    "FLOOR_DIV": np.floor_divide,
    "FLOOR_MOD": np.mod,
}


@lowering(*_WITH_A_CONSTANT)
def with_a_constant(node: Node) -> Iterator[Step]:
    """Operators of two inputs that TFLM has no integer kernel for; one is a constant number, so it is a table."""
    name, function = node.operator.name, _WITH_A_CONSTANT[node.operator.name]
    constant = next((i for i in (0, 1) if node.input(i).is_constant and node.input(i).elements == 1), None)
    if constant is None:
        raise Unsupported(f"Neither input of {name} is a constant number.", "Write the layer with other operators.")
    held, other = node.input(constant), node.input(1 - constant)
    number = (int(node.constant(constant, "operand").reshape(-1)[0]) - zero_point(held)) * scale(held)

    def applied(x: NDArray[Any]) -> object:
        return function(number, x) if constant == 0 else function(x, number)

    alone = replace(node, operator=replace(node.operator, inputs=(other.index,)))
    if _is_wide(alone):
        yield _curve(alone, applied)
        return
    source, result = _unary(alone)
    yield table_step(alone, source, result, correctly_rounded(source, result, applied), "table, correctly rounded")


@lowering("QUANTIZE")
def quantize(node: Node) -> Iterator[Step]:
    """From float32 (rounded half away), or between 8-bit quantizations (a table), or from and to int16."""
    source, result = node.input(0), node.output()
    require(node, source, types=(*_BYTES, TensorType.INT16, TensorType.FLOAT32))
    require(node, result, types=(*_BYTES, TensorType.INT16))
    if source.type in _BYTES and result.type in _BYTES:
        out = fixed.requantize(stored(source) - zero_point(source), *multiplier(scale(source) / scale(result)))
        yield table_step(node, source, result, out + zero_point(result), "table")
        return
    from edgeq.codegen.lower.conversion import quantize_step

    low, high = activation_range(node, result)
    yield quantize_step(node, source, result, low, high)
