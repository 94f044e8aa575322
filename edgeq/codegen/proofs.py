"""Certified short forms: what a fast kernel computes instead of the exact function, and the proof that it is the same.

Every requantization here is monotone in the accumulator (multipliers are not negative, clamps and floors keep order).
Two monotone integer functions are equal on an interval if they agree at its ends and on both sides of every step of one
of them. An int8 result has at most 255 steps, so a proof is a comparison at 512 points, for every accumulator that can
occur. The interval comes from the weights and the input's range (`accumulator_bounds`).

All arrays have one row a channel; integers are int64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.arithmetic import Ints, doubling_high_mul, rounding_shift

_NEAR = np.array(sorted(range(-1024, 1025), key=abs), np.int64)
_WIDE = np.array(sorted(range(-32768, 32769), key=abs), np.int64)
_DISTANT = np.array(sorted(range(-(1 << 17), (1 << 17) + 1), key=abs), np.int64)
"""Offsets that the search adds to the bias, the small ones first."""

_MORE = (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, -6)
_SEARCH = [(_NEAR, 0), (_NEAR, 1), *((_WIDE, more) for more in _MORE), (_DISTANT, 0)]
"""In which order the search tries offsets, and what it adds to the multiplier. Distant offsets are for multipliers near
a simple fraction of 2^32: their products with near ones take few values."""

_FAR = 1 << 61

_BATCH = 16
"""Channels that are searched at once: their offsets stay in the processor's cache."""

_BRACKET = 8
"""How far from its real-valued place a step is looked for first."""


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
        """T[c, k]: the least accumulator in [low, high] whose result is >= minimum + 1 + k, else high + 1."""
        wanted = np.arange(self.minimum + 1, self.maximum + 1, dtype=np.int64)[None, :]
        least, end = self.low[:, None] - 1, self.high[:, None] + 1
        per_step = np.ldexp(1.0, self.exponent + 31) / np.maximum(self.multiplier, 1)
        guess = (wanted - self.zero_point - 0.5) * per_step[:, None]
        guess = np.clip(guess, least, end).astype(np.int64)
        below, above = np.maximum(guess - _BRACKET, least), np.minimum(guess + _BRACKET, end)
        below = np.where((below > least) & (self(below) >= wanted), least, below)
        above = np.where((above < end) & (self(above) < wanted), end, above)
        while bool((above - below > 1).any()):
            middle = (below + above) >> 1
            reached = self(middle) >= wanted
            above, below = np.where(reached, middle, above), np.where(reached, below, middle)
        return above

    def agrees(self, short: Callable[[Ints], Ints]) -> NDArray[np.bool_]:
        """Per channel: whether a monotone function equals the exact one on all of [low, high]."""
        steps = self.thresholds
        ends = np.stack([self.low, self.high], axis=1)
        points = np.clip(np.concatenate([steps, steps - 1, ends], axis=1), self.low[:, None], self.high[:, None])
        return np.asarray((short(points) == self(points)).all(axis=1))


def accumulator_bounds(
    weights: Ints, bias: Ints, input_zero_point: int, input_low: Ints | int = -128, input_high: Ints | int = 127
) -> tuple[Ints, Ints]:
    """Least and greatest accumulator per channel: bias + sum(w * (x - zero_point)), x anywhere in its interval.

    weights: (channels, taps). The zero point must lie in the interval where the input may be padded.
    """
    low = weights * (np.asarray(input_low, np.int64) - input_zero_point)
    high = weights * (np.asarray(input_high, np.int64) - input_zero_point)
    return bias + np.minimum(low, high).sum(axis=1), bias + np.maximum(low, high).sum(axis=1)


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
    """A short form with this shift that is proven equal for every channel, or None.

    Step k wants (T_k + delta) m / 2^32 + addend >= k 2^s > (T_k - 1 + delta) m / 2^32 + addend, with s = shift + up and
    m the multiplier times 2^up. So the addend is an integer in [a - delta m, b - delta m) / 2^32, where a = max(k
    2^(s+32) - T_k m) and b = min(k 2^(s+32) - (T_k - 1) m) over all steps: one line per channel, on which delta is
    searched.
    """
    low, high = exact.low[:, None], exact.high[:, None]
    constant = exact(low)[:, 0] == exact(high)[:, 0]
    room = exact.exponent - 1 - shift
    if bool((~constant & (room < 0)).any()):
        return None
    nearest = exact.multiplier >> np.clip(room, 0, 31)
    delta = np.zeros(len(up), np.int64)
    multiplier = np.where(constant, 0, nearest)
    addend = np.where(constant, exact(low)[:, 0] << shift + up, 0)
    left = np.flatnonzero(~constant)

    def search(channels: Ints, deltas: Ints, more: int, line: tuple[Ints, Ints]) -> NDArray[np.bool_]:
        """Settle the channels for which an offset is found; which ones these are."""
        m = (nearest[channels] + more) << up[channels]
        first, found = _first_offset(deltas, m, *line)
        done = channels[found]
        delta[done] = deltas[first[found]]
        addend[done] = -((delta[done] * m[found] - line[0][found]) >> 32)
        multiplier[done] = nearest[done] + more
        return found

    (deltas, more), *further = _SEARCH
    left = left[~search(left, deltas, more, _line(exact, up, shift, left, nearest + more))]
    lines = {more: _line(exact, up, shift, left, nearest + more) for more in {more for _, more in further}}
    widest = np.max([most - least for least, most in lines.values()], axis=0)
    if bool((widest <= 0).any()):
        return None
    hardest_first = np.argsort(widest, kind="stable")
    for batch in np.split(hardest_first, [1, 4, *range(_BATCH, len(left), _BATCH)]):
        rest = batch
        for deltas, more in further:
            least, most = lines[more]
            rest = rest[~search(left[rest], deltas, more, (least[rest], most[rest]))]
        if len(rest):
            return None
    form = ShortForm(shift, up, delta, multiplier, addend)
    return form if _proven(exact, form) else None


def _line(exact: Requantization, up: Ints, shift: int, channels: Ints, multipliers: Ints) -> tuple[Ints, Ints]:
    """[a, b) of short_form's line, one a channel of `channels`."""
    steps = exact.thresholds[channels]
    m = (multipliers << up)[channels, None]
    wanted = np.arange(exact.minimum + 1, exact.maximum + 1, dtype=np.int64)[None, :]
    below = (wanted << (shift + 32 + up[channels, None])) - steps * m
    least = np.where(steps <= exact.high[channels, None], below, -_FAR).max(axis=1)
    most = np.where(steps > exact.low[channels, None], below + m, _FAR).min(axis=1)
    return least, most


def _first_offset(deltas: Ints, m: Ints, least: Ints, most: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Per channel the first delta that puts a multiple of 2^32 into [least, most) - delta m, and whether one does.

    That is (delta m - least) mod 2^32 < most - least; 32-bit words wrap by themselves.
    """
    width = np.clip(most - least, 0, 2**32 - 1).astype(np.uint32)
    rest = deltas.astype(np.uint32)[None, :] * m.astype(np.uint32)[:, None]
    rest -= least.astype(np.uint32)[:, None]
    fits = rest < width[:, None]
    return fits.argmax(axis=1), fits.any(axis=1)


def _proven(exact: Requantization, form: ShortForm) -> bool:
    """Equal on the whole interval, and nothing leaves int32 on the way."""
    live = form.multiplier != 0
    for end in (exact.low, exact.high):
        scaled = np.where(live, (end + form.delta) << form.up, 0)
        total = (scaled * form.multiplier >> 32) + form.addend
        if bool((np.abs(scaled) >= 2**31).any() or (np.abs(total) >= 2**31).any()):
            return False
    if bool((np.abs(form.addend) >= 2**31).any() or (form.multiplier >= 2**31).any()):
        return False
    return bool(exact.agrees(form).all())


def best_short_form(exact: Requantization, up: Ints, shifts: tuple[int, ...] = ()) -> ShortForm | None:
    """The first proven short form: preferred shifts (layers with the same one share code), then precise to coarse."""
    least, greatest = exact(exact.low[:, None])[:, 0], exact(exact.high[:, None])[:, 0]
    if bool(((least < exact.zero_point) & (greatest > exact.zero_point)).any()):
        return None  # ties away from zero put the steps below and above the zero point on different lines
    live = least != greatest
    most = int(exact.exponent[live].min()) - 1 if bool(live.any()) else 8
    for shift in (*shifts, *range(min(most, 12), 0, -1)):
        if 0 < shift <= most and (form := short_form(exact, up, shift)) is not None:
            return form
    return None


def fits_general_form(exact: Requantization) -> bool:
    """Whether SMMULR(2 acc, m), + sign, + addend, ASR e, SSAT #8 is exact: acc in 31 bits, 1 <= e, all of int8.

    SMMULR of the doubled accumulator is doubling_high_mul; a right shift with 2^(e-1) added rounds ties up, and adding
    the sign first makes that away from zero. Both terms must stay in int32.
    """
    small = bool((np.maximum(np.abs(exact.low), np.abs(exact.high)) < 2**30).all())
    whole = exact.minimum == -128 and exact.maximum == 127
    return small and whole and bool(((exact.exponent >= 1) & (exact.exponent <= 22)).all())


def general_addend(exact: Requantization) -> Ints:
    """The addend of the general form: zero point and half, both in units of 2^-e."""
    return (np.int64(1) << (exact.exponent - 1)) + (np.int64(exact.zero_point) << exact.exponent)
