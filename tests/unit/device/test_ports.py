"""Lines of every kind carry the same bytes; each way that a port can fail has its own code."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgeq.device.frames import Frame, FrameReader, encode
from edgeq.device.ports import Transport, open_port
from edgeq.errors import LinkError, UsageError

posix = pytest.mark.skipif(os.name != "posix", reason="needs ptys and unix sockets")
FRAMES = [Frame(1, i, 7, 0, bytes(range(256)) * 3) for i in range(20)]


def echo(read: Callable[[], bytes], write: Callable[[bytes], object]) -> None:
    """Send back what comes until the line ends."""
    try:
        while data := read():
            write(data)
    except OSError:
        pass


@contextmanager
def echoing_socket(listener: socket.socket) -> Iterator[None]:
    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            echo(lambda: connection.recv(4096), connection.sendall)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        yield
        thread.join(5)


def check_echo(port: Transport) -> None:
    reader, received = FrameReader(), []
    for frame in FRAMES:
        port.write(encode(frame))
        while len(received) <= frame.sequence:
            data = port.read(5.0)
            assert data
            received += reader.feed(data)
    assert received == FRAMES
    assert port.read(0.01) == b""
    port.close()
    port.close()


@posix
def test_unix_socket(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "line"))
    listener.listen()
    with echoing_socket(listener):
        check_echo(open_port(str(tmp_path / "line")))


def test_tcp() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with echoing_socket(listener):
        check_echo(open_port(f"socket://127.0.0.1:{listener.getsockname()[1]}"))


@posix
def test_pty() -> None:
    import tty

    master, slave = os.openpty()
    tty.setraw(slave)
    thread = threading.Thread(
        target=echo, args=(lambda: os.read(master, 4096), lambda data: os.write(master, data)), daemon=True
    )
    thread.start()
    check_echo(open_port(os.ttyname(slave)))
    os.close(slave)
    thread.join(5)
    os.close(master)


def test_pyserial_url() -> None:
    check_echo(open_port("loop://"))


@pytest.mark.parametrize("port", ["/dev/edgeq-is-not-here", "socket://127.0.0.1:1"])
def test_missing(port: str) -> None:
    with pytest.raises(LinkError) as caught:
        open_port(port)
    assert caught.value.code == "port-missing"
    assert caught.value.exit_status == 3
    assert caught.value.try_


@pytest.mark.parametrize("port", ["socket://nowhere", "socket://host:99999999", "nonsense://x"])
def test_invalid_address(port: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_port(port)
    assert caught.value.code == "port-invalid"


@posix
def test_a_file_is_not_a_port(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LinkError) as caught:
        open_port(str(tmp_path / "file"))
    assert caught.value.code == "port-failed"


@posix
def test_busy() -> None:
    master, slave = os.openpty()
    first = open_port(os.ttyname(slave))
    with pytest.raises(LinkError) as caught:
        open_port(os.ttyname(slave))
    assert caught.value.code == "port-busy"
    first.close()
    os.close(slave)
    os.close(master)


@pytest.mark.skipif(not sys.platform.startswith("linux") or os.geteuid() == 0, reason="root may open everything")
def test_permission(tmp_path: Path) -> None:
    path = tmp_path / "port"
    path.write_bytes(b"")
    path.chmod(0)
    with pytest.raises(LinkError) as caught:
        open_port(str(path))
    assert caught.value.code == "port-permission"
    assert any("dialout" in step for step in caught.value.try_)


@posix
def test_unplugged() -> None:
    ours, theirs = socket.socketpair()
    from edgeq.device.ports import SocketTransport

    line = SocketTransport(ours, "line")
    theirs.close()
    with pytest.raises(LinkError) as caught:
        line.read(1.0)
    assert caught.value.code == "port-lost"
    with pytest.raises(LinkError) as caught:
        line.write(b"x" * 100_000)
    assert caught.value.code == "port-lost"
    line.close()
