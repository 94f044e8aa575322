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
from tiny_bundle import write_tiny_bundle

from edgeq.boards import load_board
from edgeq.device.messages import Space
from edgeq.device.ports import SocketTransport, open_port
from edgeq.device.session import Session, Timing
from edgeq.toolchain import Image, build

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs ptys and unix sockets")

ATTEMPTS = 30
"""The best of so many counts: a busy machine delays a line that is not busy."""
DATA_BYTES = 4 * 4088
"""Four frames of the largest payload."""
TURNAROUND_S = 0.001
"""What a full-speed USB adapter may add to each request and its reply: one of its frames."""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    directory = tmp_path_factory.mktemp("link-speed")
    bundle = write_tiny_bundle(directory / "bundle", arena_bytes=2 * DATA_BYTES + 64, input_bytes=DATA_BYTES)
    return build(bundle, load_board("host"), directory / "image")


class CountedLine(SocketTransport):
    """A line whose time is counted: ten bits a byte, one way at a time, and a turnaround for each request."""

    def __init__(self, connection: socket.socket, baud: int) -> None:
        super().__init__(connection, "counted")
        self.taken_s, self._byte_s = 0.0, 10 / baud

    def read(self, timeout_s: float) -> bytes:
        data = super().read(timeout_s)
        self.taken_s += len(data) * self._byte_s
        return data

    def write(self, data: bytes) -> None:
        self.taken_s += len(data) * self._byte_s + TURNAROUND_S
        super().write(data)


@pytest.mark.parametrize("baud", [115_200, 921_600])
def test_frames_and_turnarounds_leave_nine_tenths_of_the_line(image: Image, baud: int) -> None:
    """What the protocol itself costs, on any machine: headers, checksums, stuffing, replies, and waiting for them."""
    data, ideal_s = os.urandom(DATA_BYTES), DATA_BYTES * 10 / baud
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen([str(image.elf.resolve())], stdin=theirs, stdout=theirs)
    line = CountedLine(ours, baud)
    session = Session(line, timing=Timing(reply_s=30))
    session.hello()
    before_s, repeated = line.taken_s, session.statistics.repeated
    session.write_input(0, data)
    written_s = line.taken_s
    assert session.read(Space.INPUT, 0, DATA_BYTES) == data
    shares = {"write": ideal_s / (written_s - before_s), "read": ideal_s / (line.taken_s - written_s)}
    assert session.statistics.repeated == repeated
    session.close()
    process.wait(10)
    assert all(0.95 <= share < 1 for share in shares.values()), shares


@pytest.mark.parametrize(("baud", "repeats"), [(115_200, 1), (921_600, 3)])
def test_transfers_use_nine_tenths_of_the_line(image: Image, baud: int, repeats: int) -> None:
    from paced_line import paced_board

    data = os.urandom(DATA_BYTES)
    carried_bytes_a_second = baud / 10
    shares: dict[str, list[float]] = {"write": [], "read": []}
    with paced_board(image, baud) as port:
        session = Session(open_port(port, baud=baud), timing=Timing(baud=baud))
        session.hello()
        for _ in range(ATTEMPTS):
            started = time.monotonic()
            for _ in range(repeats):
                session.write_input(0, data)
            written = time.monotonic()
            for _ in range(repeats):
                assert session.read(Space.INPUT, 0, DATA_BYTES) == data
            ended = time.monotonic()
            for name, took_s in (("write", written - started), ("read", ended - written)):
                shares[name].append(repeats * DATA_BYTES / took_s / carried_bytes_a_second)
            if min(max(share) for share in shares.values()) >= 0.9:
                break
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
