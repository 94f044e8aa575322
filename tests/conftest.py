"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference models and real data beside the checkout, or $EDGEQ_SHARED."""
    path = Path(os.environ.get("EDGEQ_SHARED", Path(__file__).parents[2] / "shared"))
    if not (path / "models").is_dir():
        pytest.skip(f"needs the reference models and data in {path} (or EDGEQ_SHARED)")
    return path
