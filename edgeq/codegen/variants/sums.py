"""Sums of two int8 tensors of equal shape as one line, on any core, and the proof that it is TFLM's result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeq.codegen.arithmetic import Ints, requantize
from edgeq.codegen.lower.elementwise import add
from edgeq.codegen.step import Node, Struct, Unsupported
from edgeq.graph.ir import Tensor

_EVERY = np.arange(-128, 128, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Line:
    """(a * alpha >> drop) + (b * beta >> drop) + addend, shifted right, saturated to int8."""

    alpha: int
    beta: int
    addend: int
    shift: int
    drop: int

    def __call__(self, a: Ints, b: Ints) -> Ints:
        total = (a * self.alpha >> self.drop) + (b * self.beta >> self.drop) + self.addend
        return np.asarray(np.clip(total >> self.shift, -128, 127), np.int64)


def addends(fields: Mapping[str, Any]) -> tuple[Ints, Ints]:
    """What TFLM adds for each value of a and of b from -128 on, from the portable kernel's parameters."""
    p = {key: value for key, value in fields.items() if isinstance(value, int)}
    a = requantize((_EVERY + p["a_offset"]) << p["left_shift"], p["a_multiplier"], p["a_shift"])
    b = requantize((_EVERY + p["b_offset"]) << p["left_shift"], p["b_multiplier"], p["b_shift"]) * p["b_sign"]
    return a, b


def exact_sums(fields: Mapping[str, Any]) -> Ints:
    """TFLM's result for every pair: [a + 128, b + 128], from the portable kernel's parameters."""
    p = {key: value for key, value in fields.items() if isinstance(value, int)}
    a, b = addends(fields)
    total = requantize(a[:, None] + b[None, :], p["multiplier"], p["shift"]) + p["output_offset"]
    return np.clip(total, p["act_min"], p["act_max"])


def line(exact: Ints, alpha: float, beta: float, drop: int = 8) -> Line | None:
    """A line proven equal to `exact` on all pairs, or None; alpha, beta: real factors of a and b to the output.

    drop: bits that each product loses (8: SMLAW with the operand in the upper byte of a halfword).
    """
    shift = min(22, 30 - int(np.ceil(np.log2(max(abs(alpha), abs(beta))))) - 8)
    if not 1 <= shift <= 22:
        return None
    base_alpha, base_beta = round(alpha * 2 ** (shift + drop)), round(beta * 2 ** (shift + drop))
    for da, db in sorted(((i, j) for i in range(-6, 7) for j in range(-6, 7)), key=lambda d: abs(d[0]) + abs(d[1])):
        one, two = base_alpha + da, base_beta + db
        total = (_EVERY * one >> drop)[:, None] + (_EVERY * two >> drop)[None, :]
        addend = fitting_addend(total, exact, shift)
        if addend is not None:
            return Line(one, two, addend, shift, drop)
    return None


def fitting_addend(total: Ints, exact: Ints, shift: int) -> int | None:
    """The middle of the addends with which saturate((total + addend) >> shift) is `exact` for all pairs, or None.

    Every result k bounds it: from below by the pairs that must reach k, from above by those that must not. None too
    where a sum leaves 32 bits, or where all results are equal.
    """
    ranks, sums = exact.reshape(-1) + 128, total.reshape(-1)
    lowest, highest = np.full(256, 1 << 40), np.full(256, -(1 << 40))
    np.minimum.at(lowest, ranks, sums)
    np.maximum.at(highest, ranks, sums)
    above = np.minimum.accumulate(lowest[::-1])[::-1]
    below = np.maximum.accumulate(highest)
    steps = np.arange(int(ranks.min()) + 1, int(ranks.max()) + 1)
    if not len(steps):
        return None
    least = int(((steps - 128 << shift) - above[steps]).max())
    most = int(((steps - 128 << shift) - below[steps - 1]).min()) - 1
    addend = (least + most) // 2
    if least > most or np.abs(sums).max() + abs(addend) >= 2**31:
        return None
    return addend if bool((np.clip(total + addend >> shift, -128, 127) == exact).all()) else None


@dataclass(frozen=True, slots=True, eq=False)
class Sum:
    """ADD or SUB of two activations of one type and shape; `fields` are the portable kernel's parameters."""

    a: Tensor
    b: Tensor
    result: Tensor
    fields: Mapping[str, Any]
    exact: Ints
    alpha: float
    beta: float

    @staticmethod
    def of(node: Node) -> Sum | None:
        """None where shapes or types differ, an input is a constant, or the portable kernel does not apply."""
        try:
            a, b, result = node.input(0), node.input(1), node.output()
            portable = next(iter(add(node)))
        except Unsupported:
            return None
        if a.shape != b.shape or a.shape != result.shape or a.type is not b.type or a.is_constant or b.is_constant:
            return None
        fields = next(c.fields for c in portable.constants if isinstance(c, Struct))
        sign = -1 if node.operator.name == "SUB" else 1
        return Sum(a, b, result, fields, exact_sums(fields), a.scale / result.scale, sign * b.scale / result.scale)
