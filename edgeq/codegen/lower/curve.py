"""Any function of one int16 value as piecewise cubics that are proven, input by input, to give the right result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from edgeq.codegen.lower.common import RANGE, activations, in_place
from edgeq.codegen.step import Constant, Node, Step, Struct, Unsupported
from edgeq.graph.ir import TensorType

Ints = NDArray[np.int64]
Reals = NDArray[np.float64]

FRACTION = 28
"""Bits after the point in the kernel's arithmetic; products stay below 2^62."""

MOST = 512
"""Pieces; more would take more flash than the function is worth."""

_LOW, _HIGH = RANGE[TensorType.INT16]


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A cubic over 2^bits inputs from `start` on: the coefficients, constant first, of t / 2^bits."""

    start: int
    bits: int
    coefficients: tuple[int, int, int, int]


def evaluate(piece: Piece) -> Ints | None:
    """What the kernel computes for each input of a piece; None where it might leave 64 bits."""
    if max(map(abs, piece.coefficients)) >= 1 << 60:
        return None
    t = np.arange(1 << piece.bits, dtype=np.int64)
    value = np.full(t.shape, piece.coefficients[3])
    for coefficient in piece.coefficients[2::-1]:
        if int(np.abs(value).max()) >= 1 << (62 - piece.bits):
            return None
        value = (value * t >> piece.bits) + coefficient
    return np.asarray(np.clip((value + (1 << (FRACTION - 1))) >> FRACTION, _LOW, _HIGH), np.int64)


def _fit(start: int, bits: int, real: Callable[[Reals], Reals], wanted: Ints) -> list[int]:
    """A cubic near `real` over the piece, in fixed point; through the wanted results where those are four or fewer."""
    size = 1 << bits
    if bits <= 2:
        at = np.arange(size) / size
        found = np.linalg.solve(np.vander(at, increasing=True), wanted.astype(np.float64))
    else:
        at = (chebyshev.chebpts1(4) + 1) / 2 * (size - 1)
        found = np.linalg.solve(np.vander(at / size, increasing=True), real(start + at))
    fixed = [round(float(c) * (1 << FRACTION)) for c in found]
    return fixed + [0] * (4 - len(fixed))


def _piece(start: int, bits: int, real: Callable[[Reals], Reals], wanted: Ints) -> Piece | None:
    """The piece if a cubic gives every wanted result; ties want a nudge up or down."""
    first, *rest = _fit(start, bits, real, wanted)
    for nudge in (0, 8, -8):
        piece = Piece(start, bits, (first + nudge, rest[0], rest[1], rest[2]))
        got = evaluate(piece)
        if got is not None and np.array_equal(got, wanted):
            return piece
    return None


def pieces(real: Callable[[Reals], Reals], wanted: Ints) -> list[Piece]:
    """Pieces over -32768..32767, halved until each gives `wanted`; `real` is the function in steps of the output."""
    found: list[Piece] = []
    open_ = [(_LOW, 16)]
    while open_:
        start, bits = open_.pop()
        part = wanted[start - _LOW : start - _LOW + (1 << bits)]
        piece = _piece(start, bits, real, part)
        if piece is not None:
            found.append(piece)
        else:
            open_ += [(start + (1 << (bits - 1)), bits - 1), (start, bits - 1)]
        if len(found) > MOST:
            raise Unsupported(f"It takes more than {MOST} cubics in int16.", "Use the layer in int8.")
    return found


def curve_step(node: Node, real: Callable[[Reals], Any], wanted: Ints) -> Step:
    """A Step that gives wanted[q + 32768] for every input q."""
    source, result = node.input(0), node.output()

    def bounded(q: Reals) -> Reals:
        with np.errstate(all="ignore"):
            return np.clip(np.nan_to_num(np.asarray(real(q), np.float64)), -(2.0**17), 2.0**17)

    found = pieces(bounded, wanted)
    coefficients = np.array([p.coefficients for p in found], np.int64).reshape(-1)
    return Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel="curve_s16",
        method=f"{len(found)} cubics, proven for every input",
        calls=(
            f"edgeq_curve_s16(&{{params}}, {{t{source.index}}}, {{starts}}, {{bits}}, {{coefficients}}, "
            f"{{t{result.index}}});",
        ),
        inputs=activations(source),
        outputs=(result.index,),
        constants=(
            Constant("starts", "int16_t", np.array([p.start for p in found], np.int16)),
            Constant("bits", "int8_t", np.array([p.bits for p in found], np.int8)),
            Constant("coefficients", "int64_t", coefficients),
            Struct("params", "curve_s16_params", {"count": source.elements, "pieces": len(found)}),
        ),
        overlaps=in_place(source, result),
        sources=("curve_s16.c",),
        headers=("elementwise.h",),
        cost=source.elements * 90,
        code_bytes=200,
    )
