"""One way over every line: pty, unix socket, TCP and RFC 2217 give the same outputs, layers and checks."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from glitchy_board import glitchy_board
from rfc2217_board import rfc2217_board
from tiny_bundle import COMMAND_BYTES, INPUT_BYTES, write_tiny_bundle

from edgeq.benchmark import bench
from edgeq.boards import load_board
from edgeq.device import flash

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs ptys and unix sockets")
X = [
    np.random.default_rng(7).integers(-128, 127, (3, INPUT_BYTES), dtype=np.int8),
    np.zeros((3, COMMAND_BYTES), np.int8),
]


@contextmanager
def on_a_pty(elf: Path, _place: Path) -> Iterator[str]:
    master, slave = os.openpty()
    with subprocess.Popen([str(elf)], stdin=master, stdout=master) as process:
        yield os.ttyname(slave)
        process.kill()
    os.close(master)
    os.close(slave)


@contextmanager
def on_a_unix_socket(elf: Path, place: Path) -> Iterator[str]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "line"))
        listener.listen(1)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, subprocess.Popen([str(elf)], stdin=connection, stdout=connection) as process:
                process.wait()

        threading.Thread(target=serve, daemon=True).start()
        yield str(place / "line")


@contextmanager
def over_tcp(elf: Path, _place: Path) -> Iterator[str]:
    with glitchy_board(elf) as port:
        yield port


@contextmanager
def over_rfc2217(elf: Path, _place: Path) -> Iterator[str]:
    with rfc2217_board(elf) as address:
        yield f"rfc2217://{address}"


@pytest.mark.parametrize("line", [on_a_pty, on_a_unix_socket, over_tcp, over_rfc2217])
def test_the_same_over_every_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line) -> None:
    monkeypatch.setenv("EDGEQ_STATE", str(tmp_path / "state"))
    bundle, board = write_tiny_bundle(tmp_path / "bundle"), load_board("host")
    elf = flash(bundle, board).image.elf
    with line(elf, tmp_path) as port:
        report = bench(bundle, board, port=port, x=X, runs=3)
    assert report.link.port == port
    assert report.comparison is not None
    assert (report.comparison.bytes_compared, report.comparison.bytes_differing) == (3 * INPUT_BYTES, 0)
    assert [layer.name for layer in report.layers] == ["XOR", "WAIT", "END"]
    assert report.link.invalid_frames == 0
