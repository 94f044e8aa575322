"""What the DSP kernels share: whole functions in assembly inside C, the requantization at their end, packed weights.

Kernels are emitted as top-level assembly: gcc and clang then run the same instructions at every optimization level, and
nothing spills. They are leaf functions that keep to the AAPCS; tensors are NHWC int8, 4-byte aligned.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.arithmetic import Ints, wrap32
from edgeq.codegen.lower.common import activation_range, zero_point
from edgeq.codegen.lower.convolution import Weights, accumulators_fit
from edgeq.codegen.proofs import (
    Requantization,
    ShortForm,
    accumulator_bounds,
    best_short_form,
    fits_general_form,
    general_addend,
)
from edgeq.codegen.step import Node
from edgeq.graph.ir import TensorType

BUDGET = 4095
"""The largest immediate offset of a byte load or store."""


def applies(node: Node) -> bool:
    """Whether the core has the extension and the operator takes int8 in and out."""
    plain = all(t.type is TensorType.INT8 for t in (node.input(0), node.output()))
    return node.target.family == "dsp" and plain


def function(name: str, comment: str, lines: Iterable[str]) -> str:
    """A leaf function as C text: the comment, then top-level assembly in a section of its own (for --gc-sections)."""
    head = [
        f'    .pushsection .text.{name}, \\"ax\\", %progbits', "    .syntax unified", "    .thumb", "    .balign 4",
        f"    .global {name}", f"    .type {name}, %function", f"    {name}:",
    ]  # fmt: skip
    tail = [f"    .size {name}, . - {name}", "    .popsection"]
    body = "\n".join(f'    "{line}\\n"' for line in (*head, *lines, *tail))
    text = f"/* {comment} */\n__asm__(\n{body});\n"
    if len(text) <= 4000:
        return text
    quiet = '#pragma GCC diagnostic ignored "-Woverlength-strings" /* longer than the 4,095 characters of C99 */'
    return f"#pragma GCC diagnostic push\n{quiet}\n{text}#pragma GCC diagnostic pop\n"


def requantization(node: Node, constants: Weights, flat: NDArray[np.int8]) -> Requantization | None:
    """The exact function of a convolution-like operator with weights [channels, taps].

    None where it shifts left, or where the activation leaves a single result.
    """
    return node.once(("requantization", flat.shape), lambda: _requantization(node, constants, flat))


def _requantization(node: Node, constants: Weights, flat: NDArray[np.int8]) -> Requantization | None:
    source, result = node.input(0), node.output()
    if not accumulators_fit(flat, constants.bias, source) or bool((constants.shifts > 0).any()):
        return None
    low, high = accumulator_bounds(flat, constants.bias, zero_point(source))
    minimum, maximum = activation_range(node, result)
    if minimum == maximum:
        return None
    return Requantization(
        multiplier=constants.multipliers.astype(np.int64),
        exponent=-constants.shifts.astype(np.int64),
        zero_point=zero_point(result),
        minimum=minimum,
        maximum=maximum,
        low=low,
        high=high,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Tail:
    """How a kernel ends: the short form (proven) or the general one; `bias` is what accumulators start with.

    parameters: per channel (multiplier, addend) or (multiplier, addend, exponent).
    """

    short: ShortForm | None
    bias: Ints
    parameters: Ints

    @property
    def name(self) -> str:
        """For the kernel's name: kernels with equal names are the same code."""
        return "general" if self.short is None else f"q{self.short.shift}"

    def shift(self, up: int) -> int:
        """SSAT's shift of the short form; `up` is 8 for the upper channel of a pair."""
        assert self.short is not None
        return self.short.shift + up


def tail(exact: Requantization, folded: Ints, up: Ints, preferred: tuple[int, ...]) -> Tail | None:
    """The short form if it is proven for all channels, else the general one if that is exact, else None.

    folded: bias - input zero point * sum(weights). up: 8 for channels whose accumulator arrives times 256.
    """
    short = best_short_form(exact, up, preferred)
    if short is not None:
        bias = np.where(short.multiplier == 0, 0, folded + short.delta)
        return Tail(short, bias, np.stack([short.multiplier, short.addend], axis=1))
    if not fits_general_form(exact):
        return None
    return Tail(None, folded, np.stack([exact.multiplier, general_addend(exact), exact.exponent], axis=1))


def packable(exact: Requantization, flat: Ints, result: Tail) -> bool:
    """Whether channels (2i, 2i+1) can share halves: w0 + 256 w1 fits int16, 256 times the second's sum fits int32."""
    halves = flat[0::2] + 256 * flat[1::2]
    delta = 0 if result.short is None else result.short.delta
    reach = np.maximum(np.abs(exact.low + delta), np.abs(exact.high + delta))
    live = np.ones(len(flat), bool) if result.short is None else result.short.multiplier != 0
    upper = np.where(live, reach, 0)[1::2]
    return bool((np.abs(halves + 0.5) < 2**15).all() and (upper < 2**23).all())


def pair_words(weights: Ints) -> Ints:
    """Weights [2n, pairs, 2] as words [n, pairs]: 16-bit halves w[2i, k] + 256 w[2i+1, k] for both k of a pair."""
    halves = weights[0::2] + 256 * weights[1::2] & 0xFFFF
    return np.asarray(halves[..., 0] | halves[..., 1] << 16, np.int64)


def pair_bias(bias: Ints) -> Ints:
    """Starting accumulators [channels]: raw = b0 + 256 b1 and low = b0 of each pair, interleaved."""
    return np.stack([bias[0::2] + 256 * bias[1::2], bias[0::2]], axis=1).reshape(-1)


def as_words(values: Ints) -> NDArray[np.int32]:
    """Modulo 2^32, as int32."""
    return wrap32(values).astype(np.int32).reshape(-1)
