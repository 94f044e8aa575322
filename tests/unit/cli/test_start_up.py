"""Start-up: what is imported, and how long `--help` takes beside an empty typer application."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("tensorflow", "keras", "ai_edge_litert", "tflite_runtime", "numpy")


def _imported(statement: str) -> set[str]:
    code = f"import sys, json\n{statement}\nprint(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("statement", ["import edgeq", "import edgeq.cli.main"])
def test_import_is_light(statement: str) -> None:
    assert not _imported(statement) & set(HEAVY)


def test_the_verbs_of_a_device_never_import_tensorflow() -> None:
    rooms = "edgeq.api, edgeq.checks, edgeq.codegen, edgeq.toolchain, edgeq.device, edgeq.benchmark, edgeq.report"
    assert not _imported(f"import {rooms}") & {"tensorflow", "keras"}


def test_public_names() -> None:
    import edgeq

    assert set(edgeq.__all__) == {
        "EdgeqError",
        "__version__",
        "bench",
        "bundle",
        "check",
        "convert",
        "demo",
        "flash",
        "bench_hosts",
        "deploy",
        "fix",
        "rollback",
        "uninstall",
        "load_board",
        "quantize_aware",
    }
    assert all(getattr(edgeq, name) is not None for name in edgeq.__all__)


def test_help_is_nearly_as_fast_as_an_empty_typer_application(tmp_path: Path) -> None:
    empty = tmp_path / "empty.py"
    empty.write_text(
        "import typer\napp = typer.Typer(add_completion=False)\n"
        "@app.callback(invoke_without_command=True)\ndef main() -> None: ...\napp()\n"
    )
    theirs, ours = [], []
    for _ in range(11):  # side by side, each pair under the same load of the machine
        for command, times in (([str(empty)], theirs), (["-m", "edgeq.cli.main"], ours)):
            times.append(_processor_seconds([*command, "--help"]))
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    assert statistics.median(ratios) <= 1.3, ratios


def _processor_seconds(arguments: list[str]) -> float:
    """User and system time of one run of this Python: what else the machine does is not in it."""
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_utime + used.ru_stime
