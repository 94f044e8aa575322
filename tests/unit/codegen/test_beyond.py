"""Unary int8 operators that TFLM lacks or gets wrong: equal to the correctly rounded real function (90 digits)."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal, getcontext
from typing import Any

import numpy as np
import pytest
from single import T, model, outputs_of, values

getcontext().prec = 90


def _sqrt(x: Decimal) -> Decimal:
    return x.sqrt() if x >= 0 else Decimal(0)


def _series(x: Decimal, first: int) -> Decimal:
    """sin (first = 1) or cos (first = 0) by Taylor's series."""
    term = total = x if first else Decimal(1)
    for n in range(first + 1, 200, 2):
        term *= -x * x / (n * (n + 1))
        total += term
    return total


def _erf(x: Decimal) -> Decimal:
    """The error function by its series x - x^3/3 + x^5/10 - ..., times 2 / sqrt(pi)."""
    power = total = x
    for n in range(1, 400):
        power *= -x * x / n
        total += power / (2 * n + 1)
    pi = Decimal("3.14159265358979323846264338327950288419716939937510582097494")
    return total * 2 / pi.sqrt()


FUNCTIONS: dict[str, Any] = {
    "RELU6": lambda x: min(max(x, Decimal(0)), Decimal(6)),
    "RELU_N1_TO_1": lambda x: min(max(x, Decimal(-1)), Decimal(1)),
    "EXP": lambda x: x.exp(),
    "ELU": lambda x: x if x > 0 else x.exp() - 1,
    "SQRT": _sqrt,
    "SQUARE": lambda x: x * x,
    "NEG": lambda x: -x,
    "SIGN": lambda x: Decimal(int(x > 0) - int(x < 0)),
    "LOG": lambda x: x.ln() if x > 0 else Decimal(-(10**9)) if x == 0 else Decimal(0),
    "SIN": lambda x: _series(x, 1),
    "COS": lambda x: _series(x, 0),
    "FLOOR": lambda x: x.to_integral_value(ROUND_FLOOR),
    "CEIL": lambda x: x.to_integral_value(ROUND_CEILING),
    "ROUND": lambda x: x.to_integral_value(ROUND_HALF_EVEN),
    "GELU": lambda x: x / 2 * (1 + _erf(x / Decimal(2).sqrt())),
}


@pytest.mark.parametrize("scales", [(0.05, 0.031), (0.0123, 0.0457), (0.11, 0.11)])
@pytest.mark.parametrize(("name", "function"), FUNCTIONS.items(), ids=FUNCTIONS.keys())
def test_correctly_rounded(name: str, function: Any, scales: tuple[float, float]) -> None:
    source_scale, result_scale = (float(np.float32(s)) for s in scales)
    graph = model(name, [T((256,), scale=source_scale, zero=-4)], [T((256,), scale=result_scale, zero=9)])
    table = dict(zip(values(graph, 2)[0].tolist(), outputs_of(graph, (2,))[0][0].tolist(), strict=True))
    for q, got in table.items():
        real = function(Decimal(source_scale) * (q + 4)) / Decimal(result_scale)
        nearest = int(abs(real).to_integral_value(ROUND_HALF_UP).copy_sign(real))
        assert got == max(-128, min(127, nearest + 9)), f"{name}({q})"
