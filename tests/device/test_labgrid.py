"""A board in a lab: labgrid's own coordinator and exporter on loopback, and what its client's failures are called."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from glitchy_board import glitchy_board
from rfc2217_board import rfc2217_board
from tiny_bundle import SOURCE, write_tiny_bundle

from edgeq import api
from edgeq.boards import load_board
from edgeq.device.labgrid import acquired
from edgeq.errors import DeviceError, ToolError
from edgeq.toolchain import build

PROGRAMS = ("labgrid-coordinator", "labgrid-exporter", "labgrid-client")
FAKE = """#!{python}
import sys
open({log!r}, "a").write(sys.argv[3] + "\\n")
if sys.argv[3] == "show":
    print({shown!r})
sys.exit({status} if sys.argv[3] == "acquire" else 0)
"""
SHOWN = """Place 'desk':
  acquired: me
Acquired resource 'NetworkSerialPort' (exp/desk/NetworkSerialPort/NetworkSerialPort):
  {'acquired': 'desk',
   'avail': True,
   'cls': 'NetworkSerialPort',
   'params': {'host': 'lab', 'port': 4001, 'protocol': 'rfc2217', 'speed': 115200}}
"""


def fake(directory: Path, monkeypatch: pytest.MonkeyPatch, *, shown: str = SHOWN, status: int = 0) -> Path:
    client, log = directory / "labgrid-client", directory / "log"
    client.write_text(FAKE.format(python=sys.executable, log=str(log), shown=shown, status=status))
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory))
    return log


posix = pytest.mark.skipif(os.name != "posix", reason="the stand-in for the client is a script")


@posix
def test_the_place_is_released_whatever_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = fake(tmp_path, monkeypatch)
    with pytest.raises(RuntimeError), acquired("desk") as port:
        assert port == "rfc2217://lab:4001"
        raise RuntimeError
    assert log.read_text().split() == ["acquire", "show", "release"]


@posix
@pytest.mark.parametrize(
    "shown", ["", SHOWN + SHOWN, SHOWN.replace("True", "False"), SHOWN.replace("{'host'", "{{'host'")]
)
def test_a_place_without_one_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: str) -> None:
    log = fake(tmp_path, monkeypatch, shown=shown)
    with pytest.raises(DeviceError) as caught, acquired("desk"):
        pass
    assert caught.value.code == "place-without-port"
    assert log.read_text().split()[-1] == "release"


@posix
def test_a_place_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = fake(tmp_path, monkeypatch, status=1)
    with pytest.raises(DeviceError) as caught, acquired("desk"):
        pass
    assert caught.value.code == "place-refused"
    assert log.read_text().split() == ["acquire"]


def test_no_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError) as caught, acquired("desk"):
        pass
    assert caught.value.code == "labgrid-missing"


@pytest.fixture(params=["raw", "rfc2217"])
def lab(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """The place `desk` with the board `host`; the bundle that the board runs, and what its port's URL begins with."""
    if any(shutil.which(program) is None for program in PROGRAMS):
        pytest.skip("needs labgrid on the PATH, in an environment of its own")
    bundle = write_tiny_bundle(tmp_path / "bundle", source=SOURCE.replace("(bytes[COMMAND])", "(0)"))
    image = build(bundle, load_board("host"), tmp_path / "image")
    processes: list[subprocess.Popen[bytes]] = []
    with ExitStack() as stack:
        if request.param == "raw":
            port = stack.enter_context(glitchy_board(image.elf)).rpartition(":")[2]
        else:
            port = stack.enter_context(rfc2217_board(image.elf)).rpartition(":")[2]
        with socket.create_server(("127.0.0.1", 0)) as free:
            coordinator = f"127.0.0.1:{free.getsockname()[1]}"
        monkeypatch.setenv("LG_COORDINATOR", coordinator)
        (tmp_path / "exporter.yaml").write_text(
            f"desk:\n  NetworkSerialPort:\n    host: 127.0.0.1\n    port: {port}\n    speed: 115200\n"
            f"    protocol: {request.param}\n"
        )
        exporter = ["labgrid-exporter", "-c", coordinator, "--hostname", "localhost", "-n", "exp", "exporter.yaml"]
        for command in (["labgrid-coordinator", "-l", coordinator], exporter):
            silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            processes.append(subprocess.Popen(command, cwd=tmp_path, **silent))
            time.sleep(3)
        for arguments in (["create"], ["add-match", "exp/desk/*"]):
            subprocess.run(["labgrid-client", "-p", "desk", *arguments], check=True, timeout=60, capture_output=True)
        yield bundle, {"raw": "socket://", "rfc2217": "rfc2217://"}[request.param]
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_bench_through_a_lab(lab: tuple[Path, str]) -> None:
    bundle, scheme = lab
    report = api.bench(bundle, "host", place="desk", runs=2)
    assert report.ok
    assert report.comparison is not None
    assert report.link.port.startswith(scheme)
    shown = subprocess.run(["labgrid-client", "-p", "desk", "show"], capture_output=True, text=True, check=True).stdout
    assert "acquired: None" in shown
    with pytest.raises(DeviceError) as caught:
        api.bench(bundle, "host", place="nowhere", runs=1)
    assert caught.value.code == "place-refused"
