"""What the kernels for cores without DSP share: when they apply, and the requantization of each core, with its proof.

ARMv7-M: SMLAL adds acc * multiplier to a 64-bit constant that holds both roundings and the zero point; exact.
ARMv6-M has no long multiplication: two 32-bit products replace it, certified at every threshold of the exact function.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.arithmetic import Ints
from edgeq.codegen.proofs import Requantization
from edgeq.codegen.step import Node
from edgeq.graph.ir import TensorType

_FAR = 1 << 61
_DEEPEST = 22
"""The largest exponent of the long form."""
_SHIFT = 22
"""Fraction bits of a result of two products: 8 bits of result and their sign leave 22 in 32."""

_SLOPES = sorted(range(-12, 13), key=abs)
"""What the search adds to the factor's last place."""

_SEARCHED = ("coarse", "fine", "addend", "negative")


def applies(node: Node) -> bool:
    """Whether the core is one of these and the operator takes int8 in and out."""
    plain = all(t.type is TensorType.INT8 for t in (node.input(0), node.output()))
    return plain and node.target.family in ("armv6m", "armv7m")


def is_armv6m(node: Node) -> bool:
    return node.target.family == "armv6m"


@dataclass(frozen=True, slots=True, eq=False)
class LongForm:
    """result = saturate_int8(hi32(acc * multiplier + constant) >> shift), 2^31 less in the constant if acc < 0.

    constant = 2^30 + 2^(30 + e) + zero_point 2^(31 + e), shift = e - 1: the doubling multiplication's rounding, the
    right shift's, and the zero point. Subtracting 2^31 from negative sums rounds ties away from zero; where only
    results above the zero point survive the clamp, that is left out (`plain`).
    """

    exact: Requantization
    proven: NDArray[np.bool_]
    plain: bool
    multiplier: Ints
    constant: Ints
    shift: Ints

    def __call__(self, accumulator: Ints) -> Ints:
        sign = 0 if self.plain else np.where(accumulator < 0, np.int64(1) << 31, 0)
        total = accumulator * self.multiplier[:, None] + self.constant[:, None] - sign
        return np.asarray(np.clip(total >> (32 + self.shift[:, None]), -128, 127), np.int64)

    @property
    def parameters(self) -> Ints:
        """Per channel: multiplier, constant's low and high word, shift."""
        return np.stack([self.multiplier, self.constant & 0xFFFFFFFF, self.constant >> 32, self.shift], axis=1)


def long_form(exact: Requantization) -> LongForm | None:
    """The long form, with the channels for which it is proven to be the exact function; None if it is for none."""
    results, constant = exact.at_ends[:, 0], exact.constant
    possible = constant | ((exact.exponent >= 1) & (exact.exponent <= _DEEPEST))
    exponent = np.where(constant | ~possible, 1, exact.exponent)
    one = np.int64(1)
    value = (one << 30) + (one << 30 + exponent) + (np.int64(exact.zero_point) << 31 + exponent)
    form = LongForm(
        exact=exact,
        proven=possible,
        plain=exact.minimum == exact.zero_point,
        multiplier=np.where(constant, 0, exact.multiplier),
        constant=np.where(constant, results << 32, value),
        shift=np.where(constant, 0, exponent - 1),
    )
    if not form.plain and bool(constant.any()):
        form.constant[constant] += 1 << 31
    form = replace(form, proven=possible & _long_form_agrees(exact, form))
    return form if bool(form.proven.any()) else None


def _long_form_agrees(exact: Requantization, form: LongForm) -> NDArray[np.bool_]:
    """Per channel where exponents are 1 to 22: a plain form is one line, the other has a step at zero."""
    if not form.plain:
        return exact.agrees(form)
    least, most = exact.own_line
    inside = exact.constant | ((least <= form.constant) & (form.constant < most))
    return np.asarray(inside & (form(np.stack([exact.low, exact.high], axis=1)) == exact.at_ends).all(axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class TwoProducts:
    """result = (q + addend + (q < 0 ? negative : 0)) >> shift, q = u coarse + ((u >> drop) fine >> (fine_bits - drop)).

    u is the accumulator clamped to [least, most], where the result reaches its own limits. All in 32 bits.
    """

    exact: Requantization
    proven: NDArray[np.bool_]
    fine_bits: int
    drop: int
    least: Ints
    most: Ints
    coarse: Ints
    fine: Ints
    addend: Ints
    negative: Ints
    shift: Ints

    @property
    def plain(self) -> bool:
        """Whether u is never negative: the lower clamp is at 0 and `negative` is not needed."""
        return not bool(self.least[self.proven].any())

    def products(self, u: Ints) -> Ints:
        """Sums of the products, of clamped accumulators."""
        fine = (u >> self.drop) * self.fine[:, None] >> self.fine_bits - self.drop
        return np.asarray(u * self.coarse[:, None] + fine, np.int64)

    def __call__(self, accumulator: Ints) -> Ints:
        q = self.products(np.clip(accumulator, self.least[:, None], self.most[:, None]))
        total = q + self.addend[:, None] + np.where(q < 0, self.negative[:, None], 0)
        return np.asarray(total >> self.shift[:, None], np.int64)

    def in_32_bits(self) -> NDArray[np.bool_]:
        """Per channel whether nothing on the way leaves int32; all terms are monotone, so the ends decide."""
        inside = np.ones(len(self.least), bool)
        for end in (self.least, self.most):
            q = self.products(end[:, None])[:, 0]
            total = q + self.addend + np.where(q < 0, self.negative, 0)
            for term in (end * self.coarse, (end >> self.drop) * self.fine, q, total, self.addend, self.negative):
                inside &= np.abs(term) < 2**31
        return inside


def two_products(exact: Requantization) -> TwoProducts | None:
    """Constants that hit every threshold of the exact function, with the channels that have some; None if none has."""
    low, high, constant = exact.low, exact.high, exact.constant
    possible = constant | (exact.exponent >= 1)
    steps = exact.thresholds
    least = np.maximum(low, steps[:, 0] - 1)
    most = np.minimum(high, np.where(steps[:, -1] > high, high, steps[:, -1]))
    live = possible & ~constant
    least = np.where(least >= 0, 0, least) if bool((least[live] >= 0).all()) else np.minimum(least, 0)
    least, most = np.where(live, least, 0), np.where(live, np.maximum(most, 0), 0)
    reach = int(max(np.abs(least).max(), most.max(), 1))
    bits = reach.bit_length()
    drop = max(0, (2 * bits - 31) // 2)  # the factor's last place and the dropped bits then cost about the same
    fine_bits = min(15, 31 - bits + drop)
    shift = np.full(len(low), _SHIFT, np.int64)
    nearest = (exact.multiplier << fine_bits) + (np.int64(1) << 30 + exact.exponent - _SHIFT)
    nearest = nearest >> np.clip(31 + exact.exponent - _SHIFT, 0, 62)  # the factor in units of 2^-(_SHIFT + fine_bits)
    zero = np.zeros(len(low), np.int64)
    addend = np.where(constant, exact.at_ends[:, 0] << _SHIFT, 0)
    coarse, fine, negative = zero.copy(), zero.copy(), zero.copy()
    best = TwoProducts(exact, possible, fine_bits, drop, least, most, coarse, fine, addend, negative, shift)
    left = np.flatnonzero(live)
    for more in _SLOPES:
        if not len(left):
            break
        part = exact if len(left) == len(low) else exact.rows(left)
        factor = np.maximum(nearest[left] + more, 0)
        ends = least[left], most[left], factor >> fine_bits, factor & (1 << fine_bits) - 1
        form = TwoProducts(part, possible[left], fine_bits, drop, *ends, zero[left], zero[left], shift[left])
        form, fits = _with_addends(part, form)
        for name in _SEARCHED:
            getattr(best, name)[left[fits]] = getattr(form, name)[fits]
        left = left[~fits]
    proven = possible & best.in_32_bits()
    proven[left] = False
    return replace(best, proven=proven) if bool(proven.any()) else None


def _with_addends(exact: Requantization, form: TwoProducts) -> tuple[TwoProducts, NDArray[np.bool_]]:
    """The addends in the middle of what the thresholds allow: one interval for sums below zero, one for the others.

    And for which channels the form is then proven: both addends lie in their intervals, and the ends are right.
    """
    steps = exact.thresholds
    goal = exact.results << _SHIFT
    reached, missed = form.products(steps), form.products(steps - 1)  # thresholds that occur are not clamped
    is_reached, is_missed = steps <= exact.high[:, None], steps > exact.low[:, None]
    bounds = []
    for negative in (False, True):
        lower = np.where(is_reached & ((reached < 0) == negative), goal - reached, -_FAR).max(axis=1)
        upper = np.where(is_missed & ((missed < 0) == negative), goal - missed - 1, _FAR).min(axis=1)
        bounds.append((lower, upper))
    (lower, upper), (under, over) = bounds
    free, unused = (lower == -_FAR) & (upper == _FAR), (under == -_FAR) & (over == _FAR)
    addend = np.where(free, _inside(under, over), _inside(lower, upper))
    below = np.where(unused, addend, _inside(under, over))
    form = replace(form, addend=addend, negative=np.minimum(below - addend, 0))
    below = addend + form.negative
    fits = (lower <= addend) & (addend <= upper) & (under <= below) & (below <= over)
    return form, fits & (form(np.stack([exact.low, exact.high], axis=1)) == exact.at_ends).all(axis=1)


def _inside(lower: Ints, upper: Ints) -> Ints:
    """The middle of each interval, or its finite end."""
    middle = (lower + upper) // 2
    return np.where(lower == -_FAR, upper, np.where(upper == _FAR, lower, middle))


def short_form(node: Node, exact: Requantization) -> LongForm | TwoProducts | None:
    """The core's requantization with the channels for which it is proven; None if it is for none.

    The others take the general form, TFLM's own steps: `gemm` and `requantize` see to that.
    """
    return two_products(exact) if is_armv6m(node) else long_form(exact)
