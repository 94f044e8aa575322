"""Google's compiler for the Edge TPU, called as a process where `edgetpu_compiler` is on the PATH."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from edgeq.boards.profile import EdgeTpu
from edgeq.checks.coral_compiler import CompilerResult, left_on_cpu, parse_log
from edgeq.errors import ModelError
from edgeq.graph import read, read_bytes

COMMAND = "edgetpu_compiler"
TIMEOUT_S = 300
"""The compiler's own limit is 180 s."""


def run_edgetpu(model: Path, executor: EdgeTpu) -> CompilerResult | None:
    """Compile a model for an Edge TPU; None where the compiler is not installed. Its failure is part of the result."""
    command = shutil.which(COMMAND)
    if command is None:
        return None
    with tempfile.TemporaryDirectory(prefix="edgeq-edgetpu-") as place:
        directory = Path(place)
        shutil.copyfile(model, directory / "model.tflite")
        arguments = ["--show_operations", "--min_runtime_version", str(executor.runtime_version)]
        arguments += ["--out_dir", place, str(directory / "model.tflite")]
        try:
            done = subprocess.run(
                [command, *arguments],
                cwd=directory,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return CompilerResult(failure=str(error))
        result = parse_log(done.stdout + "\n" + done.stderr)
        if done.returncode != 0 and result.failure is None:
            return replace(result, failure=f"exit status {done.returncode}")
        return result if result.failure is not None else replace(result, on_cpu=_on_cpu(model, directory, result))


def _on_cpu(model: Path, directory: Path, result: CompilerResult) -> frozenset[int] | None:
    """By the compiled model beside the log; None where it is not there or cannot be read."""
    try:
        return left_on_cpu(read(model), read_bytes((directory / "model_edgetpu.tflite").read_bytes()), result)
    except (OSError, ModelError):
        return None
