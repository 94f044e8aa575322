"""The board `host` behind RFC 2217, as labgrid exports serial ports: pyserial's own server side on loopback."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import serial
import serial.rfc2217


class _Pty(serial.Serial):
    """A pty as a serial port: it has no modem lines to read or to set."""

    cts = dsr = ri = cd = property(lambda _: False)  # type: ignore[assignment]

    def _update_rts_state(self) -> None: ...

    def _update_dtr_state(self) -> None: ...

    def _update_break_state(self) -> None: ...


def _serve(connection: socket.socket, port: serial.Serial) -> None:
    """Carry bytes between one client and the port, with telnet's escapes and the client's settings."""
    lock = threading.Lock()

    class Answers:
        """What the port's manager says to the client goes between the bytes of the line."""

        def write(self, data: bytes) -> None:
            with lock:
                connection.sendall(data)

    manager = serial.rfc2217.PortManager(port, Answers())
    while True:
        ready, _, _ = select.select([connection, port.fileno()], [], [], 1.0)
        if port.fileno() in ready:
            data = b"".join(manager.escape(port.read(port.in_waiting or 1)))
            with lock:
                connection.sendall(data)
        if connection in ready:
            data = connection.recv(4096)
            if not data:
                return
            port.write(b"".join(manager.filter(data)))


@contextmanager
def rfc2217_board(elf: Path) -> Iterator[str]:
    """HOST:PORT of the server; the board is powered on once."""
    master, slave = os.openpty()
    process = subprocess.Popen([str(elf.resolve())], stdin=master, stdout=master)
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with _Pty(os.ttyname(slave), timeout=0) as port:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with connection, contextlib.suppress(OSError):
                    _serve(connection, port)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        process.kill()
        process.wait()
        thread.join(5)
        os.close(master)
        os.close(slave)
