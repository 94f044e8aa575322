"""The certificates of short forms: brute force over every accumulator, and attempts to get a wrong form through."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeq.codegen import proofs
from edgeq.codegen.proofs import Requantization, accumulator_bounds, fits_general_form, general_addend, short_form
from edgeq.codegen.variants.dsp.common import Run, endings

INT32 = 2**32


def tflm(acc: int, multiplier: int, exponent: int, zero_point: int, minimum: int, maximum: int) -> int:
    """MultiplyByQuantizedMultiplier and the clamp, from gemmlowp's definitions in plain integers."""
    product = acc * multiplier
    nudge = 2**30 if product >= 0 else 1 - 2**30
    high = abs(product + nudge) // 2**31 * (1 if product + nudge >= 0 else -1)
    mask = (1 << exponent) - 1
    threshold = (mask >> 1) + (1 if high < 0 else 0)
    rounded = (high >> exponent) + (1 if (high & mask) > threshold else 0)
    return max(minimum, min(maximum, rounded + zero_point))


def layer(
    multiplier: list[int], exponent: list[int], zero: int, minimum: int, low: list[int], high: list[int]
) -> Requantization:
    as_ints = (np.array(v, np.int64) for v in (multiplier, exponent))
    return Requantization(*as_ints, zero, minimum, 127, np.array(low, np.int64), np.array(high, np.int64))


multipliers = st.integers(2**30, 2**31 - 1)


@given(multipliers, st.integers(0, 14), st.integers(-128, 127), st.integers(-(2**30), 2**30))
def test_exact_function_is_tflms(multiplier: int, exponent: int, zero: int, acc: int) -> None:
    exact = layer([multiplier], [exponent], zero, -128, [-(2**30)], [2**30])
    points = np.array([[acc, -acc, acc // 2**10]], np.int64)
    assert exact(points)[0].tolist() == [tflm(int(a), multiplier, exponent, zero, -128, 127) for a in points[0]]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(multipliers, st.integers(4, 7), st.sampled_from([0, 8])), min_size=1, max_size=4))
def test_proven_short_form_equals_exact_everywhere(channels: list[tuple[int, int, int]]) -> None:
    """A form that the search returns agrees with brute force over the whole interval, in wrapping 32-bit arithmetic."""
    m, e, up = (list(column) for column in zip(*channels, strict=True))
    reach = 20_000
    exact = layer(m, e, -128, -128, [-reach] * len(m), [reach] * len(m))
    form = short_form(exact, np.array(up, np.int64), 3)
    if form is None:
        return
    acc = np.arange(-reach, reach + 1, dtype=np.int64)[None, :].repeat(len(m), 0)
    scaled = ((acc + form.delta[:, None]) << form.up[:, None]) % INT32
    scaled = np.where(scaled >= 2**31, scaled - INT32, scaled)
    smmla = (scaled * form.multiplier[:, None] + (form.addend[:, None] << 32)) >> 32
    smmla = (smmla + 2**31) % INT32 - 2**31
    got = np.clip(smmla >> (form.shift + form.up[:, None]), -128, 127)
    np.testing.assert_array_equal(got, exact(acc))


def test_search_succeeds_on_relu() -> None:
    """The short form is found for ordinary ReLU layers (else fast kernels would silently fall back)."""
    generator = np.random.default_rng(7)
    m = generator.integers(2**30, 2**31, 32)
    exact = layer(m.tolist(), [7] * 32, -128, -128, [-300_000] * 32, [300_000] * 32)
    form = proofs.best_short_form(exact, np.tile([0, 8], 16))
    assert form is not None
    assert form.shift <= 6


@settings(deadline=None, max_examples=60)
@given(multipliers, st.integers(4, 7), st.sampled_from(["addend", "multiplier", "delta"]), st.integers(-9, 9))
def test_agrees_is_brute_force(multiplier: int, exponent: int, what: str, change: int) -> None:
    """For a form with one wrong number the proof says exactly what brute force says."""
    exact = layer([multiplier], [exponent], -128, -128, [-9000], [30_000])
    form = short_form(exact, np.zeros(1, np.int64), 3)
    if form is None:
        return
    wrong = replace(form, **{what: getattr(form, what) + change})
    acc = np.arange(-9000, 30_001, dtype=np.int64)[None, :]
    assert bool(exact.agrees(wrong)[0]) == bool((wrong(acc) == exact(acc)).all())


@settings(deadline=None, max_examples=60)
@given(multipliers, st.integers(1, 9), st.sampled_from([(-128, -128), (0, 0), (0, -128)]), st.integers(-2, 2))
def test_line_is_brute_force(multiplier: int, exponent: int, clamp: tuple[int, int], change: int) -> None:
    """The constants of a line are those for which the linear function, clamped, is the exact one; none beside them."""
    low, high = -9000, 30_000
    exact = layer([multiplier], [exponent], *clamp, [low], [high])
    least, most = exact.own_line
    acc = np.arange(low, high + 1, dtype=np.int64)[None, :]
    for constant in (least + change, most - 1 + change):
        raw = acc * multiplier + constant[:, None] >> 31 + exponent
        same = bool((np.clip(raw, exact.minimum, exact.maximum) == exact(acc)).all())
        assert same == bool(least[0] <= constant[0] < most[0])


def test_a_form_that_does_not_clamp_is_none() -> None:
    """int8 saturation is no clamp at -20: where results fall below, no shift has a form; where they do not, one has."""
    exact = layer([1_500_000_000] * 2, [7] * 2, -20, -20, [-50_000, 0], [50_000, 10_000])
    assert proofs.best_short_form(exact, np.zeros(2, np.int64)) is None
    form, proven = proofs.partial_short_form(exact, np.zeros(2, np.int64), (3, 4, 5))
    assert proven.tolist() == [False, True]
    every = np.arange(10_001)[None, :].repeat(2, 0)
    np.testing.assert_array_equal(form(every)[1], exact(every)[1])


def test_agrees_refuses_a_wrong_form() -> None:
    exact = layer([1_500_000_000], [6], -128, -128, [-50_000], [50_000])
    form = short_form(exact, np.zeros(1, np.int64), 4)
    assert form is not None
    assert exact.agrees(form).all()
    assert not exact.agrees(replace(form, addend=form.addend + 2)).any()
    assert not exact.agrees(replace(form, shift=form.shift + 1)).any()


def test_overflow_is_no_proof() -> None:
    """An upper channel whose accumulator times 256 leaves int32 must not be licensed."""
    exact = layer([1_500_000_000], [12], -128, -128, [-(2**24)], [2**24])
    assert short_form(exact, np.array([8]), 6) is None


def test_two_signs_have_no_short_form() -> None:
    exact = layer([1_500_000_000], [7], 0, -128, [-50_000], [50_000])
    assert proofs.best_short_form(exact, np.zeros(1, np.int64)) is None


@settings(deadline=None, max_examples=60)
@given(multipliers, st.integers(1, 20), st.integers(-128, 127), st.integers(-(2**30) + 1, 2**30 - 1))
def test_general_form_equals_tflm(multiplier: int, exponent: int, zero: int, acc: int) -> None:
    """lsl, smmulr, add the sign, add the addend, asr, ssat: in 32-bit steps, against TFLM's definition."""
    exact = layer([multiplier], [exponent], zero, -128, [-(2**30) + 1], [2**30 - 1])
    assert fits_general_form(exact).all()
    for value in (acc, -acc, acc >> exponent, -(acc >> exponent)):
        high = (2 * value * multiplier + 2**31) >> 32
        total = high + (high >> 31) + int(general_addend(exact)[0])
        assert -(2**31) <= total < 2**31
        assert max(-128, min(127, total >> exponent)) == tflm(value, multiplier, exponent, zero, -128, 127)


@pytest.mark.parametrize(("exponent", "reach"), [(0, 1000), (23, 1000), (5, 2**30)])
def test_general_form_knows_its_limits(exponent: int, reach: int) -> None:
    """Channel by channel: the one beside it fits."""
    exact = layer([2**30] * 2, [exponent, 5], 0, -128, [-reach, -1000], [reach, 1000])
    assert fits_general_form(exact).tolist() == [False, True]


channel = st.tuples(multipliers, st.sampled_from([0, 1, 2, 5, 6, 7, 23]), st.sampled_from([900, 20_000, 2**23]))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(channel, min_size=8, max_size=8),
    st.sampled_from([(-128, -128), (-20, -20), (3, -128)]),
    st.sampled_from([90, 127]),
    st.integers(0, 2**32 - 1),
)
def test_every_channel_ends_by_a_form_that_is_exact_for_it(
    channels: list[tuple[int, int, int]], low: tuple[int, int], maximum: int, seed: int
) -> None:
    """All ways that `endings` offers, in 32-bit arithmetic as the instructions do it, pairs packed, groups of 4."""
    generator = np.random.default_rng(seed)
    m, e, reach = (np.array(column, np.int64) for column in zip(*channels, strict=True))
    exact = Requantization(m, e, low[0], low[1], maximum, -reach, reach)
    flat = generator.integers(-128, 128, (8, 3))
    steps = np.clip(exact.thresholds, 1 - reach[:, None], reach[:, None])
    acc = np.concatenate([steps, steps - 1, generator.integers(-reach[:, None], reach[:, None] + 1, (8, 2000))], axis=1)
    none = np.zeros(8, np.int64)
    for ending in endings(exact, flat, none, up=np.tile([0, 8], 4), preferred=(5, 4, 6), group=4):
        assert sorted(c for run in ending.runs for c in range(run.first, run.last)) == list(range(8))
        kept = np.where(np.isin(np.arange(8), ending.rest)[:, None], 0, flat)
        halves = kept[0::2] + 256 * kept[1::2]
        assert ((halves >= -(2**15)) & (halves < 2**15)).all()
        for run in ending.runs:
            for c in range(run.first, run.last):
                if c not in ending.rest:
                    assert (ended(run, c - run.first, acc[c]) == exact(acc)[c]).all()


def ended(run: Run, row: int, acc: np.ndarray) -> np.ndarray:
    """Results of a run's channel, the upper one of a pair where odd, whose accumulator arrives times 256."""
    upper, end = 8 * (row % 2), run.end

    def wrap(values: np.ndarray) -> np.ndarray:
        return (values + 2**31) % INT32 - 2**31

    raw = wrap(acc + end.bias[row] << upper)
    multiplier, addend, *exponent = (int(value) for value in end.parameters[row])
    if end.short is not None:
        total = wrap((raw * multiplier + (addend << 32)) >> 32)
        return np.clip(total >> end.shift(upper), -128, 127)
    doubled = raw >> 7 if upper else wrap(raw << 1)
    high = (doubled * multiplier + 2**31) >> 32
    total = wrap(high + (high >> 31) + addend)
    return np.clip(np.clip(total >> exponent[0], -128, 127), end.minimum, end.maximum)


@given(st.integers(0, 2**32 - 1), st.integers(-128, 127))
def test_bounds_hold_and_are_attained(seed: int, zero: int) -> None:
    generator = np.random.default_rng(seed)
    weights = generator.integers(-127, 128, (3, 9))
    bias = generator.integers(-9999, 9999, 3)
    low, high = accumulator_bounds(weights, bias, zero)
    inputs = generator.integers(-128, 128, (50, 9)) - zero
    sums = inputs @ weights.T + bias
    assert (sums >= low).all()
    assert (sums <= high).all()
    for row, least, most in zip(weights, low - bias, high - bias, strict=True):
        assert int((row * (np.where(row > 0, -128, 127) - zero)).sum()) == least
        assert int((row * (np.where(row > 0, 127, -128) - zero)).sum()) == most


def test_a_multiplier_near_a_simple_fraction_needs_a_distant_offset() -> None:
    """A channel of the published keyword model: its multiplier is 0.3000001 of 2^32. Equal for every accumulator."""
    low, high = -263109, 306306
    one = np.ones(1, np.int64)
    exact = Requantization(one * 1288495350, one * 7, -128, -128, 127, one * low, one * high)
    form = short_form(exact, np.zeros(1, np.int64), 5)
    assert form is not None
    every = np.arange(low, high + 1)[None, :]
    np.testing.assert_array_equal(form(every), exact(every))
