"""One of each kind of fault through the command line: exit status, error, and that the next run works."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from fault_lab import LINE_ERRORS, on_a_pty, second_program
from faulty_line import KINDS
from glitchy_board import glitchy_board
from tiny_bundle import SOURCE, write_tiny_bundle
from typer.testing import CliRunner

from edgeq.cli.main import app
from edgeq.device.flashed import load_flashed
from edgeq.device.frames import Command, Frame

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs ptys and signals")
QUIET = SOURCE.replace("* 100000", "* 1").replace("(bytes[COMMAND])", "(0)")


def edgeq(*arguments: object) -> tuple[int, dict[str, object]]:
    """Exit status and document, checked against each other: a result is right, an error has all that it must have."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    document = json.loads(result.stdout)
    error = document.get("error")
    if error is None:
        assert result.exit_code == 0, document
    else:
        assert result.exit_code == error["exit_status"]
        assert error["what"].endswith(".")
        assert error["where"] or error["why"]
        assert error["try"]
    return result.exit_code, document


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("cli") / "bundle", source=QUIET)


@pytest.fixture(autouse=True, scope="module")
def elf(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The image of the board `host`, as flashed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEQ_STATE", str(tmp_path_factory.mktemp("state")))
        assert edgeq("flash", bundle, "--board", "host")[0] == 0
        flashed = load_flashed("host")
        assert flashed is not None
        yield flashed.image.elf


def bench(bundle: Path, port: str) -> tuple[int, str]:
    """Exit status and the error's code; "right" where every byte is."""
    status, document = edgeq("bench", bundle, "--board", "host", "--port", port, "--runs", "3")
    if status != 0:
        return status, document["error"]["code"]  # type: ignore[index]
    assert document["comparison"]["bytes_differing"] == 0  # type: ignore[index]
    assert document["comparison"]["bytes_compared"] > 0  # type: ignore[index]
    return status, "right"


def works(bundle: Path, elf: Path) -> None:
    with glitchy_board(elf) as port:
        assert bench(bundle, port) == (0, "right")


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_that_damages(bundle: Path, elf: Path, kind: str) -> None:
    with glitchy_board(elf, seed=1, kinds=(kind,), probability=0.1) as port:
        status, found = bench(bundle, port)
    assert found in LINE_ERRORS
    assert status == (0 if found == "right" else 3)
    works(bundle, elf)


@pytest.mark.parametrize(
    ("event", "code"),
    [("power", "board-reset"), ("power unheard", "board-reset"), ("cable", "port-lost"), ("hang", "no-answer")],
)
def test_a_board_that_goes_away(bundle: Path, elf: Path, event: str, code: str) -> None:
    """While inputs are written, in the first connection alone: the next one is the next run."""
    met: list[str] = []

    def glitch(_count: int, request: Frame) -> str | None:
        if request.command != Command.WRITE or met:
            return None
        met.append(event)
        return event

    with glitchy_board(elf, glitch) as port:
        assert bench(bundle, port) == (3, code)
        assert bench(bundle, port) == (0, "right")


@pytest.mark.parametrize(
    ("fault", "code"),
    [({"reset_after": 5}, "board-reset"), ({"taken_after": 5}, "session-taken"), ({"version": 2}, "agent-version")],
)
def test_a_board_that_is_somewhere_else(bundle: Path, elf: Path, fault: dict[str, int], code: str) -> None:
    with glitchy_board(elf, **fault) as port:
        assert bench(bundle, port) == (3, code)
    works(bundle, elf)


def test_a_port_that_another_program_has(bundle: Path, elf: Path) -> None:
    flashed = load_flashed("host")
    assert flashed is not None
    with on_a_pty(flashed.image) as port:
        with second_program(port, "lock"):
            assert bench(bundle, port) == (3, "port-busy")
        with second_program(port, "read"):
            status, found = bench(bundle, port)
            assert found in LINE_ERRORS | {"port-busy"}
            assert status == (0 if found == "right" else 3)
        assert bench(bundle, port) == (0, "right")


def test_another_board_and_another_model(bundle: Path, elf: Path, tmp_path: Path) -> None:
    other = write_tiny_bundle(tmp_path / "other", source=QUIET)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "model_sha256": "ab" * 32}))
    with glitchy_board(elf) as port:
        status, document = edgeq("bench", bundle, "--board", "virtual-m4", "--port", port)
        assert (status, document["error"]["code"]) == (3, "wrong-board")  # type: ignore[index]
        assert bench(other, port) == (3, "wrong-model")
        assert bench(bundle, port) == (0, "right")


@pytest.mark.parametrize(
    ("arena_bytes", "status", "code"), [(4096, 3, "build-failed"), (1 << 26, 1, "image-too-large")]
)
def test_too_small_an_arena(tmp_path: Path, arena_bytes: int, status: int, code: str) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle", source=QUIET, arena_bytes=arena_bytes)
    got, document = edgeq("flash", bundle, "--board", "qemu-mps2-an386")
    assert (got, document["error"]["code"]) == (status, code)  # type: ignore[index]


@pytest.mark.skipif(find_spec("unicorn") is None, reason="needs unicorn")
def test_a_crash_names_function_and_line(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle", source=SOURCE.replace("(bytes[COMMAND])", "(2)"))
    assert edgeq("flash", bundle, "--board", "virtual-m4")[0] == 0
    status, document = edgeq("bench", bundle, "--board", "virtual-m4")
    error = document["error"]
    assert (status, error["code"]) == (3, "board-fault")  # type: ignore[index]
    line = 1 + SOURCE.splitlines().index("    if (command == 2) return *(volatile int32_t *)(uintptr_t)0xE2345678u;")
    assert f"tiny_misbehave (tiny.c:{line})" in error["what"]  # type: ignore[index]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc to find the emulator")
def test_an_emulator_that_ends(bundle: Path, elf: Path) -> None:
    command = [sys.executable, "-m", "edgeq.cli.main", "bench", str(bundle), "--board", "host", "--runs", "100000"]
    with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (found := _running(process.pid, elf)) and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.1)
        os.kill(found[0], signal.SIGKILL)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 3
    assert json.loads(out)["error"]["code"] == "emulator-ended"
    works(bundle, elf)


def _running(parent: int, elf: Path) -> list[int]:
    """Descendants of `parent` that run `elf`."""
    found = []
    for pid in _children(parent):
        try:
            if Path(f"/proc/{pid}/exe").resolve() == elf.resolve():
                found.append(pid)
        except OSError:
            continue
        found += _running(pid, elf)
    return found


def _children(pid: int) -> list[int]:
    try:
        return [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return []
