"""The Unicorn board as a process of its own: `python -m edgeq.device.virtual.unicorn_process IMAGE.elf LINE`.

LINE is the number of an inherited socket, or HOST:PORT to connect to. The process ends when the line does.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections import deque
from pathlib import Path

from edgeq.device.virtual.cortex_m4 import CortexM4, Locked

_IDLE_S = 1.0


class SocketLine:
    """The UART's other end. A thread receives; what is sent leaves with a 0x00, or when the board looks for input."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._received: deque[int] = deque()
        self._arrived = threading.Condition()
        self._pending = bytearray()
        threading.Thread(target=self._receive_forever, daemon=True).start()

    def waits(self) -> bool:
        if not self._received:
            self._flush()
            with self._arrived:
                self._arrived.wait_for(lambda: bool(self._received), timeout=_IDLE_S)
        return bool(self._received)

    def receive(self) -> int:
        return self._received.popleft() if self._received else 0

    def send(self, byte: int) -> None:
        self._pending.append(byte)
        if byte == 0 or len(self._pending) >= 4096:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            try:
                self._socket.sendall(self._pending)
            except OSError:
                os._exit(0)
            self._pending.clear()

    def _receive_forever(self) -> None:
        while True:
            try:
                data = self._socket.recv(65536)
            except OSError:
                data = b""
            if not data:
                os._exit(0)
            with self._arrived:
                self._received.extend(data)
                self._arrived.notify()


def connect(line: str) -> socket.socket:
    """The socket that `line` names."""
    if line.isdecimal():
        return socket.socket(fileno=int(line))
    host, _, port = line.rpartition(":")
    connection = socket.create_connection((host, int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def load_segments(image: Path) -> list[tuple[int, bytes]]:
    """Address and content of what an ELF file puts into flash."""
    from elftools.elf.elffile import ELFFile

    with image.open("rb") as stream:
        segments = [segment for segment in ELFFile(stream).iter_segments() if segment["p_type"] == "PT_LOAD"]
        return [(segment["p_paddr"], segment.data()) for segment in segments if segment["p_filesz"]]


def main(arguments: list[str]) -> int:
    """Run until the line ends; 3 if the core locks up."""
    image, line = arguments
    try:
        CortexM4(load_segments(Path(image)), SocketLine(connect(line))).run()
    except (Locked, ValueError) as error:
        sys.stderr.write(f"{error}\n")
    return 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
