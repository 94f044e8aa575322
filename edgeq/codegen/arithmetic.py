"""The integer arithmetic of TFLM at generation time: multipliers, requantization, gemmlowp's fixed-point functions.

All functions take and give Python or numpy integers (int64 arrays); they reproduce TFLM's int32 results exactly.
Sources: tensorflow/lite/kernels/internal/{common.h, quantization_util.cc}, gemmlowp/fixedpoint/fixedpoint.h.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

INT32_MAX = 2**31 - 1
INT32_MIN = -(2**31)


def quantize_multiplier(real: float) -> tuple[int, int]:
    """A real factor as (multiplier, shift): multiplier * 2^(shift - 31), multiplier in [2^30, 2^31) or 0.

    ValueError for a negative, infinite or too large factor. Source: QuantizeMultiplier.
    """
    multipliers, shifts = quantize_multipliers(np.array([real]))
    return int(multipliers[0]), int(shifts[0])


def quantize_multipliers(reals: NDArray[np.float64]) -> tuple[Ints, Ints]:
    """`quantize_multiplier` of each."""
    wrong = ~np.isfinite(reals) | (reals < 0)
    if bool(wrong.any()):
        raise ValueError(f"a scale factor is {float(reals[wrong][0])}")
    fraction, shift = np.frexp(reals)
    multiplier = np.floor(fraction * 2**31 + 0.5).astype(np.int64)
    shift = np.where(multiplier == 2**31, shift + 1, shift).astype(np.int64)
    multiplier = np.where(multiplier == 2**31, 2**30, multiplier)
    if bool((shift > 30).any()):
        raise ValueError(f"a scale factor is {float(reals[shift > 30][0])}, more than 2^30")
    small = (shift < -31) | (multiplier == 0)
    return np.where(small, 0, multiplier), np.where(small, 0, shift)


def doubling_high_mul(a: Any, b: Any) -> Ints:
    """SaturatingRoundingDoublingHighMul: round(a * b / 2^31), ties up; both within int32."""
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    return np.asarray(np.minimum((product + (1 << 30)) >> 31, INT32_MAX), np.int64)


def rounding_shift(x: Any, exponent: Any) -> Ints:
    """RoundingDivideByPOT: x / 2^exponent, ties away from zero."""
    x = np.asarray(x, np.int64)
    mask = (np.int64(1) << np.asarray(exponent, np.int64)) - 1
    threshold = (mask >> 1) + (x < 0)
    return np.asarray((x >> exponent) + ((x & mask) > threshold), np.int64)


def requantize(x: Any, multiplier: Any, shift: int) -> Ints:
    """MultiplyByQuantizedMultiplier with TFLM's two roundings."""
    left = wrap32(np.asarray(x, np.int64) * (1 << max(shift, 0)))
    return rounding_shift(doubling_high_mul(left, multiplier), max(-shift, 0))


def requantize_64(x: Any, multiplier: int, shift: int) -> Ints:
    """MultiplyByQuantizedMultiplier of a 64-bit accumulator (16x8): a 16-bit multiplier and one rounding."""
    reduced = (multiplier + (1 << 15)) >> 16 if multiplier < 0x7FFF0000 else 0x7FFF
    total = 15 - shift
    return (np.asarray(x, np.int64) * reduced + (np.int64(1) << (total - 1))) >> total


def wrap32(x: Any) -> Ints:
    """Two's complement of 32 bits."""
    return ((np.asarray(x, np.int64) + 2**31) & 0xFFFFFFFF) - 2**31


def input_radius(integer_bits: int, left_shift: int) -> int:
    """CalculateInputRadius with 31 bits in all."""
    return math.floor(((1 << integer_bits) - 1) * 2.0 ** (31 - integer_bits) / 2.0**left_shift)


def _exp_near_zero(a: Ints) -> Ints:
    """exp on [-1/4, 0), Q0.31 in and out."""
    x = a + (1 << 28)
    x2 = doubling_high_mul(x, x)
    x3 = doubling_high_mul(x2, x)
    x4_over_4 = rounding_shift(doubling_high_mul(x2, x2), 2)
    tail = rounding_shift(doubling_high_mul(x4_over_4 + x3, 715827883) + x2, 1)
    return 1895147668 + doubling_high_mul(1895147668, x + tail)


def exp_negative(a: Any, integer_bits: int) -> Ints:
    """exp(a) for a <= 0; in with `integer_bits` (at most 5) before the point, out in Q0.31."""
    a = np.asarray(a, np.int64)
    fraction = 31 - integer_bits
    quarter = 1 << (fraction - 2)
    modulo = (a & (quarter - 1)) - quarter
    result = _exp_near_zero(modulo << integer_bits)
    remainder = modulo - a
    factors = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
    for exponent, factor in zip(range(-2, integer_bits), factors, strict=False):
        chosen = (remainder & (1 << (fraction + exponent))) != 0
        result = np.where(chosen, doubling_high_mul(result, factor), result)
    return np.where(a == 0, INT32_MAX, result)


def _newton(a: Ints) -> Ints:
    """2 / (1 + a) for a in [0, 1), Q0.31 in, Q2.29 out."""
    half = (a + INT32_MAX + 1) // 2
    x = 1515870810 + doubling_high_mul(half, -1010580540)
    for _ in range(3):
        rest = (1 << 29) - doubling_high_mul(half, x)
        x = x + np.clip(doubling_high_mul(x, rest) << 2, INT32_MIN, INT32_MAX)
    return x


def logistic(a: Any) -> Ints:
    """gemmlowp::logistic: Q4.27 in, Q0.31 out."""
    a = np.asarray(a, np.int64)
    positive = np.minimum(_newton(exp_negative(-np.abs(a), 4)) << 1, INT32_MAX)
    return np.where(a == 0, 1 << 30, np.where(a > 0, positive, INT32_MAX - positive))


def tanh(a: Any) -> Ints:
    """gemmlowp::tanh: Q4.27 in, Q0.31 out."""
    a = np.asarray(a, np.int64)
    positive = np.minimum((_newton(exp_negative(-np.abs(a), 5)) - (1 << 29)) << 2, INT32_MAX)
    return np.where(a == 0, 0, np.where(a > 0, positive, -positive))


def round_half_away(x: Any) -> NDArray[np.float64]:
    """std::round: to the nearest integer, ties away from zero."""
    x = np.asarray(x, np.float64)
    return np.asarray(np.trunc(x + np.copysign(np.nextafter(0.5, 0.0), x)), np.float64)
