"""Fixtures for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference models and real data beside the checkout, or $EDGEQ_SHARED."""
    path = Path(os.environ.get("EDGEQ_SHARED", Path(__file__).parents[2] / "shared"))
    if not (path / "models").is_dir():
        pytest.skip(f"needs the reference models and data in {path} (or EDGEQ_SHARED)")
    return path


@pytest.fixture(autouse=True, scope="session")
def state_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Flashed images and results of tests never touch the user's own."""
    place = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEQ_STATE", str(place))
        yield place
