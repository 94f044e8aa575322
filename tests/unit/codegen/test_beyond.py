"""Unary int8 operators that TFLM lacks or gets wrong: equal to the correctly rounded real function (60 digits)."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal, getcontext
from typing import Any

import numpy as np
import pytest
from single import T, model, outputs_of, values

getcontext().prec = 60


def _sqrt(x: Decimal) -> Decimal:
    return x.sqrt() if x >= 0 else Decimal(0)


FUNCTIONS: dict[str, Any] = {
    "RELU6": lambda x: min(max(x, Decimal(0)), Decimal(6)),
    "RELU_N1_TO_1": lambda x: min(max(x, Decimal(-1)), Decimal(1)),
    "EXP": lambda x: x.exp(),
    "ELU": lambda x: x if x > 0 else x.exp() - 1,
    "SQRT": _sqrt,
    "SQUARE": lambda x: x * x,
    "NEG": lambda x: -x,
    "SIGN": lambda x: Decimal(int(x > 0) - int(x < 0)),
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
