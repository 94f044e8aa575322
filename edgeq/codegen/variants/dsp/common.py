"""What the DSP kernels share: whole functions in assembly inside C, the requantization at their end, packed weights.

Kernels are emitted as top-level assembly: gcc and clang then run the same instructions at every optimization level, and
nothing spills. They are leaf functions that keep to the AAPCS; tensors are NHWC int8, 4-byte aligned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.arithmetic import Ints
from edgeq.codegen.proofs import (
    Requantization,
    ShortForm,
    best_short_form,
    fits_general_form,
    general_addend,
    partial_short_form,
)
from edgeq.codegen.step import Node
from edgeq.graph.ir import TensorType

BUDGET = 4095
"""The largest immediate offset of a byte load or store."""


def applies(node: Node) -> bool:
    """Whether the core has the extension and the operator takes int8 in and out."""
    plain = all(t.type is TensorType.INT8 for t in (node.input(0), node.output()))
    return node.target.family == "dsp" and plain


@dataclass(frozen=True, slots=True, eq=False)
class Tail:
    """How a kernel ends: the short form (proven) or the general one; `bias` is what accumulators start with.

    parameters: per channel (multiplier, addend) or (multiplier, addend, exponent). minimum, maximum: the activation's
    clamp, which the general form needs where it is narrower than int8; a short form has it in its proof.
    """

    short: ShortForm | None
    bias: Ints
    parameters: Ints
    minimum: int = -128
    maximum: int = 127

    @property
    def name(self) -> str:
        """For the kernel's name: kernels with equal names are the same code."""
        if self.short is not None:
            return f"q{self.short.shift}"
        return f"general{self.minimum + 128}to{self.maximum + 128}" if self.clamped else "general"

    @property
    def clamped(self) -> bool:
        return (self.minimum, self.maximum) != (-128, 127)

    def shift(self, up: int) -> int:
        """SSAT's shift of the short form; `up` is 8 for the upper channel of a pair."""
        assert self.short is not None
        return self.short.shift + up

    def rows(self, channels: slice | Ints) -> Tail:
        """The same end of some of the channels."""
        return replace(self, bias=self.bias[channels], parameters=self.parameters[channels])


def general_value(result: Tail, value: str, up: int) -> Iterator[str]:
    """TFLM's two roundings: round(2 acc m / 2^32), then half and sign added, shift, saturate, clamp.

    r2, r3, r4 hold multiplier, addend, exponent.
    """
    yield from general_product(value, up, "r2", "r3")
    yield from general_result(result, value, "r4")


def general_product(value: str, up: int, factor: str, addend: str) -> Iterator[str]:
    """The part of `general_value` up to the shift."""
    yield f"    asr {value}, {value}, #7" if up else f"    lsl {value}, {value}, #1"
    yield f"    smmulr {value}, {value}, {factor}"
    yield f"    add {value}, {value}, {value}, asr #31"
    yield f"    add {value}, {value}, {addend}"


def general_result(result: Tail, value: str, exponent: str) -> Iterator[str]:
    """The part of `general_value` from the shift on."""
    yield f"    asr {value}, {value}, {exponent}"
    yield f"    ssat {value}, #8, {value}"
    if result.minimum > -128:
        yield from (f"    cmp {value}, #{result.minimum}", "    it lt", f"    movlt {value}, #{result.minimum}")
    if result.maximum < 127:
        yield from (f"    cmp {value}, #{result.maximum}", "    it gt", f"    movgt {value}, #{result.maximum}")


def _short_tail(short: ShortForm, folded: Ints) -> Tail:
    bias = np.where(short.multiplier == 0, 0, folded + short.delta)
    return Tail(short, bias, np.stack([short.multiplier, short.addend], axis=1))


def _general_tail(exact: Requantization, folded: Ints) -> Tail:
    parameters = np.stack([exact.multiplier, general_addend(exact), exact.exponent], axis=1)
    return Tail(None, folded.copy(), parameters, exact.minimum, exact.maximum)


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Channels first .. last - 1, which end alike; `end` holds these channels only."""

    first: int
    last: int
    end: Tail


@dataclass(frozen=True, slots=True, eq=False)
class Ending:
    """How a layer's channels end: each by a form that is proven for it.

    rest: channels without one, or whose weights cannot be packed: TFLM's own steps, in C, afterwards. In the runs
    their parameters are 0, and so must be their weights.
    """

    runs: tuple[Run, ...]
    rest: Ints

    @property
    def uniform(self) -> bool:
        return len(self.runs) == 1 and not len(self.rest)

    def without_rest(self) -> Iterator[Run]:
        """The runs without the rest's channels."""
        for run in self.runs:
            inside = [channel for channel in self.rest.tolist() if run.first <= channel < run.last]
            for before, after in pairwise([run.first - 1, *inside, run.last]):
                if after - before > 1:
                    yield Run(before + 1, after, run.end.rows(slice(before + 1 - run.first, after - run.first)))

    @property
    def general(self) -> int:
        """Channels in runs of the general form."""
        return sum(run.last - run.first for run in self.runs if run.end.short is None)

    @property
    def method(self) -> str:
        channels = self.runs[-1].last
        words = "general" if self.general == channels else "certified"
        parts = [(self.general, "general"), (len(self.rest), "TFLM's steps")]
        some = [f"{what} for {count} of {channels} channels" for count, what in parts if 0 < count < channels]
        return ", ".join([f"{words} requantization", *some])


def endings(
    exact: Requantization, flat: Ints, folded: Ints, *, up: Ints, preferred: tuple[int, ...], group: int
) -> Iterator[Ending]:
    """Ways to end a layer whose kernels take `group` channels at a time.

    flat: weights [channels, taps]; folded: bias - input zero point * sum(weights); up: 8 for channels whose accumulator
    arrives times 256, as the upper ones of packed pairs do, else 0; preferred: shifts of short forms, tried in order.
    The short form where it is proven for all channels; else the general form, and where the short form is proven for
    some groups, both forms, each for its groups.
    """
    short, fits = best_short_form(exact, up, preferred), fits_general_form(exact)
    proven = [np.ones(len(up), bool)]
    if short is None:
        short, part = partial_short_form(exact, up, preferred)
        proven = [np.zeros(len(up), bool), part] if bool(part.any()) else [np.zeros(len(up), bool)]
    for able in proven:
        decided = able | ~fits  # a channel that no kernel can do decides nothing
        quickly = np.repeat(decided.reshape(-1, group).all(axis=1), group) & bool(able.any())
        rest = ~np.where(quickly, able, fits)
        if bool(up.any()):
            for form, groups in ((short, quickly), (None, ~quickly)):
                failed = unpackable(exact, flat, form, rest)
                rest[failed[groups[failed]]] = True
        if bool(rest.all()):
            continue
        quick, general = _short_tail(short, folded), _general_tail(exact, folded)
        for end in (quick, general):
            end.bias[rest] = 0
            end.parameters[rest] = 0
        edges = [0, *(np.flatnonzero(np.diff(quickly.astype(np.int8))) + 1).tolist(), len(up)]
        runs = tuple(
            Run(first, last, (quick if quickly[first] else general).rows(slice(first, last)))
            for first, last in pairwise(edges)
        )
        yield Ending(runs, np.flatnonzero(rest))


def unpackable(
    exact: Requantization, flat: Ints, short: ShortForm | None, out: NDArray[np.bool_] | None = None
) -> Ints:
    """Upper channels (2i + 1) that cannot share halves: w0 + 256 w1 leaves int16, or 256 times their sum int32.

    short: the form that ends them, whose constants count only where its multiplier is not 0; out: channels whose
    weights are taken to be 0.
    """
    out = np.zeros(len(flat), bool) if out is None else out
    wide = ((flat[1::2] == -128) & (flat[0::2] < 0)).any(axis=1) & ~out[0::2] & ~out[1::2]
    delta, idle = (0, out) if short is None else (short.delta, out | (short.multiplier == 0))
    reach = np.where(idle, 0, np.maximum(np.abs(exact.low + delta), np.abs(exact.high + delta)))
    return 2 * np.flatnonzero(wide | (reach[1::2] >= 2**23)) + 1


def pair_words(weights: Ints) -> Ints:
    """Weights [2n, pairs, 2] as words [n, pairs]: 16-bit halves w[2i, k] + 256 w[2i+1, k] for both k of a pair."""
    halves = weights[0::2] + 256 * weights[1::2] & 0xFFFF
    return np.asarray(halves[..., 0] | halves[..., 1] << 16, np.int64)


def pair_bias(bias: Ints) -> Ints:
    """Starting accumulators [channels]: raw = b0 + 256 b1 and low = b0 of each pair, interleaved."""
    return np.stack([bias[0::2] + 256 * bias[1::2], bias[0::2]], axis=1).reshape(-1)
