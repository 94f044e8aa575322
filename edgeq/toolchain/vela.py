"""Arm's Vela compiler for Ethos-U, called as a process (`pip install ethos-u-vela`)."""

from __future__ import annotations

import csv
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from edgeq.boards.profile import Board, EthosU
from edgeq.checks.ethos import VelaResult

TIMEOUT_S = 300


def vela_command() -> list[str] | None:
    """How to start Vela, or None where it is not installed."""
    if importlib.util.find_spec("ethosu") is not None:
        return [sys.executable, "-m", "ethosu.vela"]
    found = shutil.which("vela")
    return [found] if found else None


def hint(board: Board) -> str | None:
    """What a board's Ethos-U lacks here, and how to get it; None where there is nothing to say."""
    if board.executor("ethos-u") is None or vela_command() is not None:
        return None
    return "Vela is not installed, so there is nothing for the Ethos-U: pip install 'edgeq[ethosu]', then bundle again."


def run_vela(model: Path, executor: EthosU) -> VelaResult | None:
    """Compile a model for an Ethos-U; None where Vela is not installed. Its failure is part of the result."""
    command = vela_command()
    if command is None:
        return None
    with tempfile.TemporaryDirectory(prefix="edgeq-vela-") as directory:
        options = ["--accelerator-config", executor.accelerator, "--config", "Arm/vela.ini"]
        options += ["--system-config", executor.system_config, "--memory-mode", executor.memory_mode]
        arguments = [*command, str(model), *options, "--verbose-performance", "--output-dir", directory]
        try:
            done = subprocess.run(
                arguments, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return VelaResult(failure=str(error))
        if done.returncode != 0:
            lines = (done.stderr or done.stdout).strip().splitlines()
            return VelaResult(failure=lines[-1] if lines else f"exit status {done.returncode}")
        return _read(Path(directory))


def _read(directory: Path) -> VelaResult:
    """Vela's own tables: a summary, and one row for each operator."""
    with next(directory.glob("*_summary_*.csv")).open(newline="", encoding="utf-8") as stream:
        summary = next(csv.DictReader(stream))
    with next(directory.glob("*_per-layer.csv")).open(newline="", encoding="utf-8") as stream:
        targets = [row["Target"] for row in csv.DictReader(stream)]
    kib = 1024
    return VelaResult(
        npu_operators=targets.count("NPU"),
        cpu_operators=len(targets) - targets.count("NPU"),
        sram_bytes=round(float(summary["sram_memory_used"]) * kib),
        flash_bytes=round(
            (float(summary["off_chip_flash_memory_used"]) + float(summary["on_chip_flash_memory_used"])) * kib
        ),
        cycles=int(float(summary["cycles_total"])),
        clock_hz=int(float(summary["core_clock"])),
        model=next(directory.glob("*_vela.tflite")).read_bytes(),
    )
