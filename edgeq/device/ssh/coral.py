"""Models for the Edge TPU: compiled ones are recognised, others go through `edgetpu_compiler` if it is installed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from edgeq.boards import Board
from edgeq.checks import coral as checker
from edgeq.errors import AnswerNo, ToolError
from edgeq.graph import Graph, read_bytes
from edgeq.measure import Computed, Estimated, Unknown

CUSTOM_CODE = "edgetpu-custom-op"
COMPILE_S = 900
_NO_ORIGINAL = "the model from before edgetpu_compiler is not known"


def is_compiled(graph: Graph) -> bool:
    """Whether `edgetpu_compiler` made this model."""
    return any(operator.custom_code == CUSTOM_CODE for operator in graph.operators)


def compiled_model(model: bytes, name: str, board: Board) -> bytes:
    """`model` if it is compiled for the Edge TPU already, else what the compiler makes of it.

    ToolError `model-not-compiled` without the compiler, AnswerNo `edgetpu-compiler-refused` if it gives no model.
    """
    if is_compiled(read_bytes(model, where=name)):
        return model
    compiler = shutil.which("edgetpu_compiler")
    if compiler is None:
        raise ToolError(
            "model-not-compiled",
            f"{name} is not compiled for the Edge TPU, and edgetpu_compiler is not installed here.",
            where=name,
            try_=(
                "Compile it where the compiler runs (Debian or Ubuntu on x86-64, package edgetpu-compiler of Coral's "
                f"package source): edgetpu_compiler {name}.tflite, and deploy {name}_edgetpu.tflite.",
                "Run it on the CPU of the device: --cpu",
            ),
        )
    version = _runtime_version(board)
    with tempfile.TemporaryDirectory(prefix="edgeq-edgetpu-") as scratch:
        source = Path(scratch) / "model.tflite"
        source.write_bytes(model)
        words = [compiler, "--min_runtime_version", str(version), "--out_dir", scratch, str(source)]
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=COMPILE_S, check=False, cwd=scratch
        )
        result = Path(scratch) / "model_edgetpu.tflite"
        if done.returncode or not result.is_file():
            lines = (done.stdout + done.stderr).strip().splitlines()
            raise AnswerNo(
                "edgetpu-compiler-refused",
                f"edgetpu_compiler makes no model of {name}.",
                where=name,
                why=lines[-1] if lines else f"It ended with status {done.returncode}.",
                try_=(f"See why: edgeq check {name}.tflite --board {board.id}", "Run it on the CPU: --cpu"),
            )
        return result.read_bytes()


def share_on_edge_tpu(original: Graph | None, compiled: Graph) -> Computed | Unknown:
    """The share of the original model's operators that the compiled one runs on the Edge TPU."""
    if original is None or is_compiled(original):
        return Unknown(_NO_ORIGINAL)
    on_cpu = sum(operator.custom_code != CUSTOM_CODE for operator in compiled.operators)
    total = len(original.operators)
    return Computed((total - on_cpu) / total, "ratio", f"{total - on_cpu} of {total} operators in the compiled file")


def predicted_share(original: Graph | None, board: Board) -> Estimated | Unknown:
    """The share of the original model's operators that the checker expects on the Edge TPU."""
    if original is None or is_compiled(original):
        return Unknown(_NO_ORIGINAL)
    predicted = checker.predict(original, _runtime_version(board))
    mapped, total = sum(entry.mapped for entry in predicted), len(predicted)
    return Estimated(mapped / total, "ratio", f"{mapped} of {total} operators by the rules of edgeq check")


def _runtime_version(board: Board) -> int:
    executor = board.executor("edge-tpu")
    return executor.runtime_version if executor is not None and executor.kind == "edge-tpu" else 14
