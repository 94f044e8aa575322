"""The boot loader in an STM32's ROM after ST's AN3155, on a TCP port; a power cut leaves its flash half written.

It knows Get, Get ID, Read Memory, Write Memory, Extended Erase and Go: what stm32loader asks for.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import socket
import threading
from types import TracebackType

_ACK, _NACK = b"\x79", b"\x1f"
_COMMANDS = bytes((0x00, 0x02, 0x11, 0x21, 0x31, 0x44))


class Stm32Rom:
    """Listens at `url` while the `with` block lasts. `flash`: its bytes by address; `started`: where Go jumped to.

    chip_id: what Get ID answers. cut_after: so many blocks it writes, in the middle of the next it falls silent, for
    all connections until `power()`.
    """

    def __init__(self, *, chip_id: int = 0x413, cut_after: int | None = None) -> None:
        self.flash: dict[int, int] = {}
        self.started: int | None = None
        self.cut_after = cut_after
        self._chip_id = chip_id
        self._dead = False
        self._connection: socket.socket | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"socket://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def power(self) -> None:
        """Power is back, for good."""
        self.cut_after, self._dead = None, False

    def __enter__(self) -> Stm32Rom:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                self._connection, _ = self._listener.accept()
            except OSError:
                return
            with self._connection, contextlib.suppress(ConnectionError):
                self._converse()

    def _converse(self) -> None:
        while True:
            (byte,) = self._take(1)
            if self._dead:
                continue
            if byte == 0x7F:
                self._say(_ACK)
                continue
            if self._take(1)[0] != byte ^ 0xFF:
                self._say(_NACK)
                continue
            self._say(_ACK)
            self._obey(byte)

    def _obey(self, command: int) -> None:
        match command:
            case 0x00:
                self._say(bytes((len(_COMMANDS), 0x31)) + _COMMANDS + _ACK)
            case 0x02:
                self._say(b"\x01" + self._chip_id.to_bytes(2, "big") + _ACK)
            case 0x11:
                address = self._address()
                count = self._take(2)[0] + 1
                self._say(_ACK + bytes(self.flash.get(address + i, 0xFF) for i in range(count)))
            case 0x21:
                self.started = self._address()
            case 0x31:
                self._write(self._address())
            case 0x44:
                assert self._take(3) == b"\xff\xff\x00"
                self.flash.clear()
                self._say(_ACK)

    def _address(self) -> int:
        *address, checksum = self._take(5)
        assert functools.reduce(operator.xor, address) == checksum
        self._say(_ACK)
        return int.from_bytes(address, "big")

    def _write(self, address: int) -> None:
        count = self._take(1)[0] + 1
        *data, checksum = self._take(count + 1)
        assert functools.reduce(operator.xor, data, count - 1) == checksum
        if self.cut_after == 0:
            self.flash.update({address + i: value for i, value in enumerate(data[: count // 2])})
            self._dead = True
            return
        if self.cut_after is not None:
            self.cut_after -= 1
        self.flash.update({address + i: value for i, value in enumerate(data)})
        self._say(_ACK)

    def _take(self, count: int) -> bytes:
        assert self._connection is not None
        got = b""
        while len(got) < count:
            part = self._connection.recv(count - len(got))
            if not part:
                raise ConnectionError
            got += part
        return got

    def _say(self, data: bytes) -> None:
        assert self._connection is not None
        self._connection.sendall(data)
