"""Certified short forms: what a fast kernel computes instead of the exact function, and the proof that it is the same.

Every requantization here is monotone in the accumulator (multipliers are not negative, clamps and floors keep order).
Two monotone integer functions are equal on an interval if they agree at its ends and on both sides of every step of one
of them. An int8 result has at most 255 steps, so a proof is a comparison at 512 points, for every accumulator that can
occur (`agrees`). For floor((acc m + c) / 2^n) each of these points bounds c, so that one interval of c holds all of the
proof (`line`). The accumulator's interval comes from the weights and the input's range (`accumulator_bounds`).

All arrays have one row a channel; integers are int64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.arithmetic import Ints, doubling_high_mul, rounding_shift

_NEAR, _WIDE, _DISTANT = 1 << 10, 1 << 15, 1 << 17
"""How large an offset added to the bias may be, in the order in which the search allows them."""

_MORE = (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, -6)
_SEARCH = (((0, _NEAR),), ((1, _NEAR), (0, _WIDE), (1, _WIDE)), (*((more, _WIDE) for more in _MORE[2:]), (0, _DISTANT)))
"""What the search adds to the multiplier, and the largest offset, in groups that are tried at once. Distant offsets are
for multipliers near a simple fraction of 2^32: their products with near ones take few values."""

_BATCH = 16
"""Channels that are searched at once in the last group: one that fails fails the form."""

_SAMPLE = 32
"""Channels that stand for many where a form is likely to fail."""

_FAR, _WORD = 1 << 61, (1 << 32) - 1


@dataclass(frozen=True, eq=False)
class Requantization:
    """The exact function acc -> int8 of a layer, one entry a channel.

    multiplier in [0, 2^31), exponent e = -shift >= 0: clamp(rounding_shift(doubling_high_mul(acc, multiplier), e) +
    zero_point, minimum, maximum). low, high: the accumulators that can occur, bias included.
    """

    multiplier: Ints
    exponent: Ints
    zero_point: int
    minimum: int
    maximum: int
    low: Ints
    high: Ints

    def __call__(self, accumulator: Ints) -> Ints:
        """The exact results; rows are channels."""
        high = doubling_high_mul(accumulator, self.multiplier[:, None])
        return np.clip(rounding_shift(high, self.exponent[:, None]) + self.zero_point, self.minimum, self.maximum)

    @cached_property
    def thresholds(self) -> Ints:
        """T[c, k]: the least accumulator in [low, high] whose result is >= minimum + 1 + k, else high + 1.

        Both roundings inverted: the right shift gives at least w from w 2^e - 2^(e-1) on, one later where w <= 0 (ties
        go away from zero); the doubling multiplication gives at least h from ceil((h 2^31 - 2^30) / multiplier) on.
        """
        wanted = np.arange(self.minimum + 1, self.maximum + 1, dtype=np.int64)[None, :] - self.zero_point
        exponent = self.exponent[:, None]
        high = (wanted << exponent) - ((np.int64(1) << exponent) >> 1) + ((wanted <= 0) & (exponent > 0))
        high = np.clip(high, -(1 << 31), 1 << 31)  # beyond what 32 bits can give
        least = -(((1 << 30) - (high << 31)) // np.maximum(self.multiplier, 1)[:, None])
        never = self.high[:, None] + 1
        least = np.where((self.multiplier == 0)[:, None], np.where(high <= 0, self.low[:, None], never), least)
        return np.clip(least, self.low[:, None], never)

    @cached_property
    def at_ends(self) -> Ints:
        """The exact results at low and high, [channels, 2]."""
        return self(np.stack([self.low, self.high], axis=1))

    @cached_property
    def constant(self) -> NDArray[np.bool_]:
        """Channels with one result only."""
        return np.asarray(self.at_ends[:, 0] == self.at_ends[:, 1])

    @property
    def results(self) -> Ints:
        """The result from `thresholds[c, k]` on, for each k."""
        return np.arange(self.minimum + 1, self.maximum + 1, dtype=np.int64)

    def agrees(self, short: Callable[[Ints], Ints]) -> NDArray[np.bool_]:
        """Per channel: whether a monotone function equals the exact one on all of [low, high].

        It is evaluated at each threshold that occurs, just before it, and at the ends.
        """
        low, high, steps = self.low[:, None], self.high[:, None], self.thresholds
        equal = (short(np.concatenate([low, high], axis=1)) == self.at_ends).all(axis=1)
        equal &= ((steps > high) | (short(np.minimum(steps, high)) >= self.results)).all(axis=1)
        return np.asarray(equal & ((steps <= low) | (short(np.maximum(steps - 1, low)) < self.results)).all(axis=1))

    def line(self, multiplier: Ints, bits: Ints, channels: Ints | slice = slice(None)) -> tuple[Ints, Ints]:
        """[least, most): the integers c for which floor((acc multiplier + c) / 2^bits) has the exact function's steps.

        That is, it reaches each result at its threshold and not before: a proof that it is equal, where at the ends it
        does not leave [minimum, maximum]. multiplier, bits: one entry for each of `channels`, which may
        repeat. bits <= 54.
        """
        steps, m = self.thresholds[channels], multiplier[:, None]
        below = (self.results << bits[:, None]) - steps * m
        least = np.where(steps <= self.high[channels, None], below, -_FAR).max(axis=1)
        return least, np.where(steps > self.low[channels, None], below + m, _FAR).min(axis=1)

    @cached_property
    def own_line(self) -> tuple[Ints, Ints]:
        """`line` for the exact function's own multiplier and rounding, for exponents up to 22."""
        return self.line(self.multiplier, 31 + np.minimum(self.exponent, 22))

    def rows(self, channels: Ints) -> Requantization:
        """The same function of some of the channels, which may repeat."""
        columns = (self.multiplier, self.exponent, self.low, self.high)
        multiplier, exponent, low, high = (column[channels] for column in columns)
        part = Requantization(multiplier, exponent, self.zero_point, self.minimum, self.maximum, low, high)
        part.__dict__.update({name: getattr(self, name)[channels] for name in ("thresholds", "at_ends")})
        return part


def accumulator_bounds(
    weights: NDArray[np.integer[Any]],
    bias: Ints,
    input_zero_point: int,
    input_low: Ints | int = -128,
    input_high: Ints | int = 127,
) -> tuple[Ints, Ints]:
    """Least and greatest accumulator per channel: bias + sum(w * (x - zero_point)), x anywhere in its interval.

    weights: (channels, taps); the interval's ends: a number, one for each tap, or one for each weight. The zero point
    must lie in the interval where the input may be padded.
    """
    positive, negative = np.maximum(weights, 0), np.minimum(weights, 0)
    least, most = (
        np.asarray(input_low, np.int64) - input_zero_point,
        np.asarray(input_high, np.int64) - input_zero_point,
    )
    low = _weighted(positive, least) + _weighted(negative, most)
    return bias + low, bias + _weighted(positive, most) + _weighted(negative, least)


def _weighted(weights: NDArray[np.integer[Any]], factors: Ints) -> Ints:
    """sum(w * factor) per channel."""
    if factors.ndim == 0:
        return np.asarray(weights.sum(axis=1, dtype=np.int64) * factors)
    if factors.ndim == 1:  # products of 17 bits: their sums are exact in double precision
        return np.asarray(weights.astype(np.float64) @ factors.astype(np.float64)).astype(np.int64)
    return np.asarray((weights * factors).sum(axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class ShortForm:
    """result = saturate_int8((((acc + delta << up) * multiplier >> 32) + addend) >> (shift + up)): SMMLA, SSAT.

    delta goes into the bias; up is 8 where the accumulator arrives multiplied by 256 (the upper channel of a packed
    pair), else 0. `shift` is the same for all channels because SSAT takes it as an immediate.
    """

    shift: int
    up: Ints
    delta: Ints
    multiplier: Ints
    addend: Ints

    def __call__(self, accumulator: Ints) -> Ints:
        scaled = (accumulator + self.delta[:, None]) << self.up[:, None]
        scaled = np.where(self.multiplier[:, None] == 0, 0, scaled)
        total = (scaled * self.multiplier[:, None] >> 32) + self.addend[:, None]
        return np.asarray(np.clip(total >> self.shift + self.up[:, None], -128, 127), np.int64)


def short_form(exact: Requantization, up: Ints, shift: int) -> ShortForm | None:
    """A short form with this shift that is proven equal for every channel, or None."""
    form, failed = _search_form(exact, up, shift)
    return None if len(failed) else form


def _search_form(exact: Requantization, up: Ints, shift: int, *, every: bool = False) -> tuple[ShortForm, Ints]:
    """The form that the search finds, and channels for which it has no proof: the first that are met, or `every`."""
    *constants, failed = _search(exact, up, np.full(len(up), shift, np.int64), every=every)
    return ShortForm(shift, up, *constants), failed


def _search(exact: Requantization, up: Ints, shift: Ints, *, every: bool) -> tuple[Ints, Ints, Ints, Ints]:
    """delta, multiplier and addend for a shift a channel, and channels without a proof: see `_search_form`.

    With m the multiplier times 2^up, the form is floor((acc m + c) / 2^(32 + shift + up)), c = delta m + addend 2^32.
    So the addend is an integer in [least - delta m, most - delta m) / 2^32, with the exact function's line for m: one
    line per channel, on which delta is searched.
    """
    coarse = ~exact.constant & (exact.exponent - 1 < shift)
    nearest = exact.multiplier >> np.clip(exact.exponent - 1 - shift, 0, 31)
    delta = np.zeros(len(up), np.int64)
    multiplier = np.where(exact.constant, 0, nearest)
    addend = np.where(exact.constant, exact.at_ends[:, 0] << shift + up, 0)

    def search(channels: Ints, order: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
        """Settle the channels for which an offset is found, the first in this order; which ones these are."""
        more, reach = np.array(order, np.int64).T[:, :, None]
        m = nearest[channels] + more
        scaled, many = m << up[channels], np.tile(channels, len(m))
        lines = exact.line(scaled.reshape(-1), (32 + shift + up)[many], many)
        least, most = (part.reshape(m.shape) for part in lines)
        offset = _least_offset(scaled, least, most)
        fits = np.abs(offset) <= reach
        found = fits.any(axis=0)
        done, at = channels[found], (fits.argmax(axis=0)[found], np.flatnonzero(found))
        delta[done], multiplier[done] = offset[at], m[at]
        addend[done] = -((offset[at] * scaled[at] - least[at]) >> 32)
        return np.asarray(found)

    def settle(left: Ints) -> Ints:
        """The channels of these for which nothing is found; where not every one is asked for, some are tried first."""
        first = left[:0] if every or len(left) <= _SAMPLE else _some(left)
        if len(first) and len(failed := settle(first)):
            return failed
        left = np.setdiff1d(left, first, assume_unique=True)
        for group in _SEARCH[:-1]:
            left = left[~search(left, group)] if len(left) else left
        if every:
            return left[~search(left, _SEARCH[-1])] if len(left) else left
        batches = (left[start : start + _BATCH] for start in range(0, len(left), _BATCH))
        return next((failed for batch in batches if len(failed := batch[~search(batch, _SEARCH[-1])])), left[:0])

    failed = np.flatnonzero(coarse)
    if every or not len(failed):
        failed = np.concatenate([failed, settle(np.flatnonzero(~exact.constant & ~coarse))])
    if every or not len(failed):
        proven = _proven(exact, up, shift, (delta, multiplier, addend))
        failed = np.union1d(failed, np.flatnonzero(~proven))
    return delta, multiplier, addend, failed


def _least_offset(m: Ints, least: Ints, most: Ints) -> Ints:
    """The delta next to zero (the negative one of two) that puts a multiple of 2^32 into [least, most) - delta m.

    That is (delta m - least) mod 2^32 < most - least; `_FAR` if there is none up to `_DISTANT`. Arrays of equal shape.
    """
    start, width = least & _WORD, np.clip(most - least, 0, _WORD)
    here = (-least & _WORD) < width
    low, high = np.where(here, 1, start), np.where(here, 0, start + width - 1)
    up, down = _least_factor(np.stack([m, -m]) & _WORD, np.stack([low, low]), np.stack([high, high]))
    return np.where(here, 0, np.where(down <= up, np.where(down == _FAR, _FAR, -down), up))


def _least_factor(step: Ints, low: Ints, high: Ints) -> Ints:
    """The least x with low <= step x mod 2^32 <= high, or `_FAR` if it exceeds `_DISTANT`; 0 < low, none if low > high.

    Euclid's algorithm: where no multiple of `step` lies in [low, high], the least number y of times that the modulus is
    subtracted solves the same question for modulus mod step, in [-high, -low], modulo `step`; and x is the least with
    step x >= low + modulus y. As x > 2^32 / step from there on, small steps need not be followed.
    """
    solution = np.full(step.size, _FAR)
    places = np.flatnonzero((low <= high) & (step > 0))
    a, low, high = (values.reshape(-1)[places] for values in (step, low, high))
    modulus = np.full_like(a, 1 << 32)
    levels: list[tuple[Ints, Ints, Ints, Ints]] = []
    while len(places):
        first = -(-low // a)
        direct = first * a <= high
        solution[places[direct]] = first[direct]
        further = ~direct & (a >= (1 << 32) // _DISTANT) & (modulus % a > 0)
        places, a, modulus, low, high = (values[further] for values in (places, a, modulus, low, high))
        levels.append((places, a, modulus, low))
        a, modulus, low, high = modulus % a, a, -high % a, -low % a
    for places, a, modulus, low in reversed(levels):
        y = solution[places]
        solution[places] = np.where(y > _DISTANT, _FAR, -(-(low + modulus * np.minimum(y, _DISTANT)) // a))
    return np.where(solution > _DISTANT, _FAR, solution).reshape(step.shape)


def _proven(exact: Requantization, up: Ints, shift: Ints, constants: tuple[Ints, Ints, Ints]) -> NDArray[np.bool_]:
    """Per channel: equal on the whole interval, and nothing leaves int32 on the way."""
    delta, multiplier, addend = constants
    scaled = multiplier << up
    least, most = exact.line(scaled, 32 + shift + up)
    constant = delta * scaled + (addend << 32)
    fits = exact.constant | ((least <= constant) & (constant < most))
    fits &= (np.abs(addend) < 2**31) & (multiplier < 2**31)
    for end, result in zip((exact.low, exact.high), exact.at_ends.T, strict=True):
        raw = np.where(multiplier != 0, (end + delta) << up, 0)
        total = (raw * multiplier >> 32) + addend
        fits &= (np.abs(raw) < 2**31) & (np.abs(total) < 2**31)
        fits &= np.clip(total >> shift + up, -128, 127) == result
    return np.asarray(fits)


def best_short_form(exact: Requantization, up: Ints, shifts: tuple[int, ...] = ()) -> ShortForm | None:
    """The first proven short form: preferred shifts (layers with the same one share code), then precise to coarse."""
    if bool(_has_none(exact).any()):
        return None
    live = ~exact.constant
    most = int(exact.exponent[live].min()) - 1 if bool(live.any()) else 8
    left = [s for s in dict.fromkeys((*shifts, *range(min(most, 12), 0, -1))) if 0 < s <= most]
    while left:
        form, failed = _search_form(exact, up, left[0])
        if not len(failed):
            return form
        some = _some(failed)  # what fails with one shift likely fails with the next
        left = [s for s, fits in zip(left[1:], _samples(exact, up, some, left[1:]), strict=True) if bool(fits.all())]
    return None


def _some(channels: Ints) -> Ints:
    """At most `_SAMPLE` of them, spread evenly."""
    return channels[:: max(1, -(-len(channels) // _SAMPLE))]


def _samples(exact: Requantization, up: Ints, channels: Ints, shifts: Sequence[int]) -> NDArray[np.bool_]:
    """Whether a short form is proven, [shifts, channels], all searched at once."""
    many = np.tile(channels, len(shifts))
    failed = _search(exact.rows(many), up[many], np.repeat(np.array(shifts, np.int64), len(channels)), every=True)[-1]
    proven = np.ones(len(many), bool)
    proven[failed] = False
    return proven.reshape(len(shifts), len(channels))


def _has_none(exact: Requantization) -> NDArray[np.bool_]:
    """Channels that have no short form, whatever the shift.

    Those with results on both sides of the zero point: ties away from zero put the steps below and above it on
    different lines. And those that the activation clamps where int8 does not, by two results and more: the form does
    not clamp there.
    """
    least, greatest = exact.at_ends.T
    free = replace(exact, minimum=-(1 << 31), maximum=1 << 31)(np.stack([exact.low, exact.high], axis=1))
    beyond = (exact.minimum > -128) & (free[:, 0] < exact.minimum - 1)
    beyond |= (exact.maximum < 127) & (free[:, 1] > exact.maximum + 1)
    return np.asarray((least < exact.zero_point) & (greatest > exact.zero_point) | beyond & ~exact.constant)


def partial_short_form(exact: Requantization, up: Ints, shifts: tuple[int, ...]) -> tuple[ShortForm, NDArray[np.bool_]]:
    """The short form that is proven for most channels, of those with one of these shifts; and for which it is.

    A shift is tried only if it is proven for one of some channels.
    """
    possible = np.flatnonzero(~_has_none(exact))
    nothing = (np.zeros(len(up), np.int64) for _ in range(3))
    best = ShortForm(shifts[0], up, *nothing), np.zeros(len(up), bool)
    if not len(possible):
        return best
    for shift, fits in zip(shifts, _samples(exact, up, _some(possible), shifts), strict=True):
        if not bool(fits.any()):
            continue
        part, failed = _search_form(exact.rows(possible), up[possible], shift, every=True)
        form = ShortForm(shift, up, *(np.zeros(len(up), np.int64) for _ in range(3)))
        for name in ("delta", "multiplier", "addend"):
            getattr(form, name)[possible] = getattr(part, name)
        proven = np.zeros(len(up), bool)
        proven[np.delete(possible, failed)] = True
        if proven.sum() > best[1].sum():
            best = form, proven
    return best


def fits_general_form(exact: Requantization) -> NDArray[np.bool_]:
    """Per channel whether SMMULR(2 acc, m), + sign, + addend, ASR e, SSAT #8 is exact up to the activation's clamp.

    SMMULR of the doubled accumulator is doubling_high_mul; a right shift with 2^(e-1) added rounds ties up, and adding
    the sign first makes that away from zero. Both terms must stay in int32: acc in 31 bits, 1 <= e <= 22.
    """
    small = np.maximum(np.abs(exact.low), np.abs(exact.high)) < 2**30
    return np.asarray(small & (exact.exponent >= 1) & (exact.exponent <= 22))


def general_addend(exact: Requantization) -> Ints:
    """The addend of the general form, where that fits: zero point and half, both in units of 2^-e."""
    exponent = np.clip(exact.exponent, 1, 22)
    return (np.int64(1) << (exponent - 1)) + (np.int64(exact.zero_point) << exponent)
