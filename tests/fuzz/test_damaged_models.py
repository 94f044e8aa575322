"""Damaged `.tflite` bytes give a Graph or a ModelError, never another exception, and never take long."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeq.errors import ModelError
from edgeq.graph import read_bytes


def _survives(data: bytes) -> bool:
    try:
        read_bytes(data)
    except ModelError as error:
        assert error.code in ("model-damaged", "not-a-tflite-model")
        return False
    return True


@pytest.mark.parametrize("name", ["kws_ref_int8", "ad01_int8"])
def test_truncated(shared: Path, name: str) -> None:
    data = (shared / "models" / f"{name}.tflite").read_bytes()
    lengths = np.random.default_rng(1).integers(0, len(data), 60)
    assert not all(_survives(data[:n]) for n in lengths)
    assert not _survives(data[: len(data) // 3])


def test_flipped_bytes(shared: Path) -> None:
    data = (shared / "models" / "kws_ref_int8.tflite").read_bytes()
    rng = np.random.default_rng(2)
    outcomes = []
    for _ in range(300):
        damaged = bytearray(data)
        # Most of the file is weights: aim half of the damage at the tables in front and at the end.
        low, high = ((0, 600), (len(data) - 12000, len(data)), (0, len(data)))[rng.integers(3)]
        for position in rng.integers(low, high, 4):
            damaged[position] = rng.integers(256)
        outcomes.append(_survives(bytes(damaged)))
    assert any(outcomes)
    assert not all(outcomes)
