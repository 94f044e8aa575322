"""The board `host` behind TCP, where a test cuts the power, pulls the cable or hangs the board at a chosen request,
or damages what passes."""

from __future__ import annotations

import select
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from faulty_line import FaultyLine

from edgeq.device.frames import Frame, FrameReader
from edgeq.device.ports import SocketTransport
from edgeq.errors import LinkError

EVENTS = ("power", "power unheard", "cable", "hang")
"""Power lost and back, with the BOOT event or without it; the connection closed; the board silent for good."""
Glitch = Callable[[int, Frame], str | None]
"""Given how many requests there were before, and the request that the board is about to get: the event instead."""


class _Board:
    """One connection's board: a process that can lose its power."""

    def __init__(self, elf: Path, connection: socket.socket, glitch: Glitch, faults: dict[str, Any]) -> None:
        self._elf = elf
        self._connection = connection
        self._glitch = glitch
        self._faults = {"seed": 0, "probability": 0.0, **faults}
        self._reader = FrameReader()
        self._count = 0
        self._deaf = False
        self._power_on()

    def _power_on(self) -> None:
        self._line, theirs = socket.socketpair()
        self._process = subprocess.Popen([str(self._elf.resolve())], stdin=theirs, stdout=theirs)
        theirs.close()
        self._wire = FaultyLine(SocketTransport(self._line, "board"), **self._faults)

    def power_off(self) -> None:
        self._process.kill()
        self._process.wait()
        self._line.close()

    def serve(self) -> None:
        """Carry bytes until the host hangs up or the cable is pulled."""
        while True:
            ready, _, _ = select.select([self._connection, self._line], [], [])
            if self._line in ready:
                self._connection.sendall(self._wire.read(0))
            if self._connection in ready:
                data = self._connection.recv(65536)
                if not data or not self._requests(data):
                    return

    def _requests(self, data: bytes) -> bool:
        """Pass `data` on, but for the request that an event meets; False when the cable is pulled."""
        for frame in self._reader.feed(data):
            event = self._glitch(self._count, frame)
            self._count += 1
            if event == "cable":
                return False
            if event is not None:
                self._deaf = event == "hang"
                self.power_off()
                self._power_on()
                said = b""
                while event != "power" and said.count(0) < 2:
                    said += self._line.recv(4096)
                return True
        if not self._deaf:
            self._wire.write(data)
        return True


@contextmanager
def glitchy_board(elf: Path, glitch: Glitch = lambda *_: None, **faults: Any) -> Iterator[str]:
    """The port's address. Every connection meets a board that was just powered on; `faults` are FaultyLine's."""
    server = socket.create_server(("127.0.0.1", 0))
    boards: list[_Board] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection:
                board = _Board(elf, connection, glitch, faults)
                boards.append(board)
                try:
                    board.serve()
                except (OSError, LinkError):
                    pass
                finally:
                    board.power_off()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"socket://127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(10)
