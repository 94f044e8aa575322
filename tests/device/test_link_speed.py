"""How much of the line the link uses, and how long a round trip takes."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_bundle import INPUT_BYTES, write_tiny_bundle

from edgeq.boards import load_board
from edgeq.device.messages import Space
from edgeq.device.ports import open_port
from edgeq.device.session import Session, Timing
from edgeq.toolchain import Image, build

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs ptys and unix sockets")

ATTEMPTS = 10
"""The best of so many counts: a busy machine delays a line that is not busy."""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    directory = tmp_path_factory.mktemp("link-speed")
    return build(write_tiny_bundle(directory / "bundle"), load_board("host"), directory / "image")


@pytest.mark.parametrize(("baud", "repeats"), [(115_200, 4), (921_600, 12)])
def test_transfers_use_nine_tenths_of_the_line(image: Image, baud: int, repeats: int) -> None:
    from paced_line import paced_board

    data = os.urandom(INPUT_BYTES)
    carried_bytes_a_second = baud / 10
    shares: dict[str, list[float]] = {"write": [], "read": []}
    with paced_board(image, baud) as port:
        session = Session(open_port(port, baud=baud), timing=Timing(baud=baud))
        session.hello()
        repeated = session.statistics.repeated
        for _ in range(ATTEMPTS):
            started = time.monotonic()
            for _ in range(repeats):
                session.write_input(0, data)
            written = time.monotonic()
            for _ in range(repeats):
                assert session.read(Space.INPUT, 0, INPUT_BYTES) == data
            ended = time.monotonic()
            for name, took_s in (("write", written - started), ("read", ended - written)):
                shares[name].append(repeats * INPUT_BYTES / took_s / carried_bytes_a_second)
            if min(max(share) for share in shares.values()) >= 0.9:
                break
        assert session.statistics.repeated == repeated
        session.close()
    for name, share in shares.items():
        assert 0.9 <= max(share) <= 1.0, f"{name}: {share}"


@pytest.fixture
def socket_port(image: Image, tmp_path: Path) -> Iterator[str]:
    """The board `host` behind a unix socket, as `edgeq bench --port PATH` opens one."""
    path = tmp_path / "board.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        processes: list[subprocess.Popen[bytes]] = []

        def serve() -> None:
            connection, _ = listener.accept()
            processes.append(subprocess.Popen([str(image.elf.resolve())], stdin=connection, stdout=connection))
            connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield str(path)
        thread.join(5)
    for process in processes:
        process.kill()
        process.wait()


def test_a_round_trip_over_a_unix_socket_is_under_three_milliseconds(socket_port: str) -> None:
    session = Session(open_port(socket_port))
    session.hello()
    took_s = []
    for _ in range(200):
        started = time.monotonic()
        session.memory()
        took_s.append(time.monotonic() - started)
    session.close()
    assert statistics.median(took_s) < 0.003, took_s
