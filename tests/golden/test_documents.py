"""The documents' commands run as they stand: every line of every `sh` block, in order, on a real Keras model."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
HARDWARE = ("--host", "--port", "make ")


def commands(document: Path) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", document.read_text(), flags=re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith(("#", "pip "))]


def test_the_readmes_figures_are_those_of_the_last_benchmark() -> None:
    """Each cell `ours / peer` of its table, in the benchmark's row of that figure."""
    measured = (ROOT / "benchmarks" / "mcu.md").read_text().splitlines()
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("|") and " / " in line]
    assert len(rows) == 4
    for at, row in enumerate(rows):
        for figure, cell in zip(("instructions", "flash, bytes", "arena, bytes"), row.split("|")[2:5], strict=True):
            (line,) = (line for line in measured if line.startswith(f"| Cortex-M4F, balanced: {figure} |"))
            ours, peer = (number.strip() for number in cell.split("/"))
            assert f"**{ours}** " in line.split("|")[2 + at], (row, figure)
            assert f"peer {peer}," in line.split("|")[2 + at], (row, figure)


def test_every_link_leads_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_the_readme_has_all_five_verbs() -> None:
    verbs = {shlex.split(line)[1] for line in commands(ROOT / "README.md") if line.startswith("edgeq")}
    assert verbs >= {"convert", "check", "bundle", "flash", "bench"}


@pytest.mark.tensorflow
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_commands_run(document: Path, tmp_path: Path) -> None:
    lines = [line for line in commands(document) if not any(word in line for word in HARDWARE)]
    if not lines:
        return
    training = [sys.executable, "-m", "edgeq.demonstration.training", str(tmp_path)]
    subprocess.run(training, check=True, capture_output=True)
    (tmp_path / "digits.keras").rename(tmp_path / "model.keras")
    (tmp_path / "test.npz").rename(tmp_path / "data.npz")
    environment = {**os.environ, "EDGEQ_STATE": str(tmp_path / "state")}
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "edgeq", f"{document.name}: {line}"
        command = [sys.executable, "-m", "edgeq.cli.main", *words[1:]]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{document.name}: {line}\n{done.stdout}{done.stderr}"
