"""Lines to a board: serial ports, ptys, unix sockets, TCP, pipes of a process; all with bounded waiting.

open_port("/dev/ttyACM0", baud=115200)     a serial port or a pty, by pyserial
open_port("rfc2217://host:port")           any other URL that pyserial knows
open_port("socket://host:port")            TCP
open_port("/tmp/board.sock")               a unix socket
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import stat
import sys
import time
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from edgeq.errors import LinkError, UsageError

DEFAULT_BAUD = 115_200
TOUCH_BAUD = 1_200
_POLL_S = 0.02
_CONNECT_TIMEOUT_S = 5.0
_WRITE_TIMEOUT_S = 10.0


class Transport(Protocol):
    """A line of bytes in both directions. Every failure is a LinkError; no call waits without bound."""

    name: str

    def read(self, timeout_s: float) -> bytes:
        """What has arrived, waiting up to `timeout_s` for the first byte; empty if nothing came."""
        ...

    def write(self, data: bytes) -> None:
        """Send all of `data`."""
        ...

    def close(self) -> None:
        """Let the line go; closing twice is fine."""
        ...


def port_lost(name: str, why: str) -> LinkError:
    """The line went away while it was in use."""
    return LinkError(
        "port-lost",
        f"The line to the board at {name} went away.",
        where=name,
        why=why,
        try_=("Check the cable and the board's power, then run the command again.", "List the ports: edgeq devices"),
    )


class SocketTransport:
    """A connected stream socket."""

    def __init__(self, connection: socket.socket, name: str) -> None:
        self.name = name
        self._socket = connection
        self._socket.settimeout(_WRITE_TIMEOUT_S)
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read(self, timeout_s: float) -> bytes:
        try:
            ready, _, _ = select.select([self._socket], [], [], max(timeout_s, 0))
            if not ready:
                return b""
            data = self._socket.recv(65536)
        except (OSError, ValueError) as error:
            raise port_lost(self.name, str(error)) from error
        if not data:
            raise port_lost(self.name, "The other side closed the connection.")
        return data

    def write(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise port_lost(self.name, str(error)) from error

    def close(self) -> None:
        self._socket.close()


class SerialTransport:
    """A port that pyserial opened, with a short timeout of its own."""

    def __init__(self, port: object, name: str) -> None:
        self.name = name
        self._port: _SerialPort = port  # type: ignore[assignment]

    def read(self, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        try:
            while True:
                data = self._port.read(max(1, int(self._port.in_waiting)))
                if data or time.monotonic() >= deadline:
                    return data
        except (OSError, TypeError, ValueError) as error:  # pyserial raises TypeError after a disconnect
            if "multiple access" in str(error) and not self._hung_up():
                raise self._shared(str(error)) from error
            raise port_lost(self.name, str(error)) from error

    def _hung_up(self) -> bool:
        """Whether the other end is gone: pyserial cannot tell that from another reader, the system can."""
        poll = getattr(select, "poll", None)
        if poll is None:
            return True
        try:
            watched = poll()
            watched.register(self._port.fileno(), 0)
            return bool(watched.poll(0))
        except (OSError, ValueError, TypeError):
            return True

    def _shared(self, why: str) -> LinkError:
        return LinkError(
            "port-busy",
            f"Another program reads from the port {self.name}, too, and takes bytes away.",
            where=self.name,
            why=why,
            try_=("Close the serial monitor or IDE that holds it.", "See who holds it: edgeq doctor"),
        )

    def write(self, data: bytes) -> None:
        try:
            self._port.write(data)
        except (OSError, ValueError) as error:
            raise port_lost(self.name, str(error)) from error

    def close(self) -> None:
        with contextlib.suppress(OSError):  # an unplugged port cannot be closed any better
            self._port.close()


class _SerialPort(Protocol):
    in_waiting: int

    def read(self, size: int) -> bytes: ...
    def fileno(self) -> int: ...
    def write(self, data: bytes) -> int | None: ...
    def close(self) -> None: ...


def open_port(port: str, *, baud: int | None = None) -> Transport:
    """Open `port`, a device name, a path or a URL.

    LinkError `port-missing`, `port-busy`, `port-permission`, `port-failed`; UsageError `port-invalid` for an address
    that is none.
    """
    if not port.strip():
        raise UsageError("port-invalid", "The port has no name.", where="--port", try_="List the ports: edgeq devices")
    if port.startswith("socket://"):
        return _open_tcp(port)
    if "://" not in port and _is_unix_socket(port):
        return _open_unix(port)
    return _open_serial(port, baud or DEFAULT_BAUD)


def touch(port: str) -> None:
    """Open the serial port at 1200 baud and close it: the sign for an application to start the boot loader.

    LinkError as `open_port`. A board that obeys may be gone before the port is closed.
    """
    import serial

    try:
        opened = serial.Serial(port, TOUCH_BAUD, exclusive=True)
    except (OSError, ValueError) as error:
        raise _open_error(port, error) from error
    with contextlib.suppress(OSError):  # a pty has no such line
        opened.dtr = False
    with contextlib.suppress(OSError):
        opened.close()


def _is_unix_socket(port: str) -> bool:
    try:
        return stat.S_ISSOCK(Path(port).stat().st_mode)
    except (OSError, ValueError):
        return False


def _open_tcp(url: str) -> Transport:
    try:
        parts = urlsplit(url)
        host, number = parts.hostname, parts.port
    except ValueError:
        host, number = None, None
    if host is None or number is None:
        raise UsageError(
            "port-invalid", f"{url} is not an address.", where="--port", try_="Write it as socket://HOST:PORT."
        )
    try:
        return SocketTransport(socket.create_connection((host, number), timeout=_CONNECT_TIMEOUT_S), url)
    except OSError as error:
        raise _open_error(url, error) from error


def _open_unix(path: str) -> Transport:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_CONNECT_TIMEOUT_S)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise _open_error(path, error) from error
    return SocketTransport(connection, path)


def _open_serial(port: str, baud: int) -> Transport:
    import serial

    try:
        opened = serial.serial_for_url(port, do_not_open=True, baudrate=baud, timeout=_POLL_S)
        if "://" not in port:  # pyserial's RFC 2217 client refuses both
            opened.write_timeout = _WRITE_TIMEOUT_S
            opened.exclusive = True
        opened.open()
    except (OSError, ValueError) as error:  # SerialException is an OSError
        if isinstance(error, ValueError) and "://" in port:
            raise UsageError(
                "port-invalid",
                f"{port} is not a port that pyserial knows.",
                where="--port",
                why=str(error),
                try_="Use a device name, socket://HOST:PORT or rfc2217://HOST:PORT.",
            ) from error
        raise _open_error(port, error) from error
    return SerialTransport(opened, port)


def _open_error(port: str, error: Exception) -> LinkError:
    """The reason by errno; where pyserial gives none (Windows, a failed lock), by the words of its message."""
    number, text = getattr(error, "errno", None), str(error)
    if number == errno.EACCES or ("PermissionError" in text and not sys.platform.startswith("win")):
        return LinkError(
            "port-permission",
            f"The port {port} may not be opened by this user.",
            where=port,
            why=text,
            try_=(
                "Linux: sudo usermod -aG dialout $USER, then log in again (the group may be `uucp`).",
                "Or install a udev rule for the board; `edgeq doctor` prints it.",
            ),
        )
    if number in (errno.EBUSY, errno.EAGAIN) or "exclusively lock" in text or "PermissionError" in text:
        return LinkError(
            "port-busy",
            f"The port {port} is in use by another program.",
            where=port,
            why=text,
            try_=("Close the serial monitor or IDE that holds it.", "See who holds it: edgeq doctor"),
        )
    if number in (errno.ENOENT, errno.ECONNREFUSED, errno.ENODEV, errno.ENXIO) or any(
        words in text for words in ("FileNotFoundError", "Connection refused", "actively refused")
    ):
        return LinkError(
            "port-missing",
            f"There is no port {port}, or nobody listens there.",
            where=port,
            why=text,
            try_=("List the ports: edgeq devices", "Check that the cable carries data and the board has power."),
        )
    return LinkError(
        "port-failed", f"The port {port} cannot be opened.", where=port, why=text, try_="List the ports: edgeq devices"
    )
