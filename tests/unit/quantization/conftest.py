"""Fixtures for the quantizer's tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeq.quantization import ConversionReport, convert


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ConversionReport]:
    """`convert` with the child's work done in this process; what it hands over and answers is the same."""
    pytest.importorskip("tensorflow")
    import edgeq.quantization.conversion as parent
    from edgeq.progress import silent
    from edgeq.quantization.pipeline import run

    def child(directory: Path, *_: object) -> dict[str, Any]:
        job = json.loads((directory / "job.json").read_text())
        told = run(directory, job, silent)
        answer: dict[str, Any] = json.loads(json.dumps(told))
        return answer

    monkeypatch.setattr(parent, "_run_child", child)
    return convert
