"""The demonstration: every verb once, on a model trained here, and one table in the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeq.errors import ToolError
from edgeq.measure import Measured
from edgeq.progress import Progress

if TYPE_CHECKING:
    from edgeq.benchmark import BenchReport
    from edgeq.checks import CheckReport
    from edgeq.quantization import ConversionReport

NEEDED = ("tensorflow", "keras", "sklearn")


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What each verb reported. `accuracy_float` is the Keras model's on the samples held out."""

    accuracy_float: Measured
    conversion: ConversionReport
    check: CheckReport
    bench: BenchReport

    @property
    def ok(self) -> bool:
        """The model fits, and board and host agree in every byte."""
        comparison = self.bench.comparison
        return self.check.fits and comparison is not None and comparison.equal

    def to_json(self) -> dict[str, object]:
        return {
            "accuracy_float": self.accuracy_float.to_json(),
            "convert": self.conversion.to_json(),
            "check": self.check.to_json(),
            "bench": self.bench.to_json(),
        }


def _train(directory: Path) -> Measured:
    """Train in a process of its own; ToolError with the last line it printed if that fails."""
    command = [sys.executable, "-m", "edgeq.demonstration.training", str(directory)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise ToolError(
            "demo-training-failed",
            "The demonstration's model could not be trained.",
            why=lines[-1] if lines else f"exit status {done.returncode}",
            try_=f"pip install 'edgeq[convert,mcu,demo]' (it needs {', '.join(NEEDED)}).",
        )
    accuracy = json.loads((directory / "float.json").read_text())["accuracy"]
    return Measured(accuracy, "fraction", "Keras on the held-out samples")


def run(directory: Path, board: str, progress: Progress) -> DemoReport:
    """Train, convert, check, bundle, flash and bench in `directory`, which keeps what each verb wrote."""
    from edgeq import api

    directory.mkdir(parents=True, exist_ok=True)
    progress("train", 0, None)
    accuracy = _train(directory)
    model, bundle = directory / "digits.tflite", directory / "bundle"
    conversion = api.convert(
        directory / "digits.keras",
        model,
        data=directory / "calibration.npz",
        eval_data=directory / "test.npz",
        progress=progress,
    )
    (checked,) = api.check(model, [board], progress=progress)
    api.bundle(model, board, bundle, name="digits")
    api.flash(bundle, board, progress=progress)
    measured = api.bench(bundle, board, data=directory / "test.npz", progress=progress)
    return DemoReport(accuracy, conversion, checked, measured)
