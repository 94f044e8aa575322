"""A line that damages what passes: bit flips, drops, duplicates, rubbish, delays and more, both ways, seeded."""

from __future__ import annotations

import random
import struct
import time
import zlib

from cobs import cobs

from edgeq.device.frames import Command, Frame, FrameError, decode, encode
from edgeq.device.ports import Transport

KINDS = ("flip", "drop", "duplicate", "truncate", "rubbish", "before", "behind", "delay", "reorder", "split")
"""`rubbish` strikes anywhere in what passes, `before` and `behind` leave it whole."""


class FaultyLine:
    """Wraps a transport. Each write and each read is damaged with `probability` by one of `kinds`.

    `reset_after`: behind so many requests it slips in a RESET of the board under the session's own number, as a power
    glitch would come; `taken_after`: another program's HELLO. `version`: what the requests claim to speak.
    """

    def __init__(
        self,
        inner: Transport,
        seed: int,
        *,
        probability: float = 0.2,
        kinds: tuple[str, ...] = KINDS,
        reset_after: int | None = None,
        taken_after: int | None = None,
        version: int | None = None,
    ) -> None:
        self.name = inner.name
        self.injected = 0
        self._inner = inner
        self._random = random.Random(seed)
        self._probability = probability
        self._kinds = kinds
        self._reset_after = reset_after
        self._taken_after = taken_after
        self._version = version
        self._written = 0
        self._held = b""

    def write(self, data: bytes) -> None:
        if self._version is not None:
            data = _claiming(data, self._version)
        self._inner.write(self._damage(data))
        self._written += 1
        if self._written == self._reset_after:
            self._inner.write(_reset_behind(data))
        if self._written == self._taken_after:
            session = self._random.randrange(1, 1 << 32)
            self._inner.write(encode(Frame(Command.HELLO, 7, session, 0, session.to_bytes(4, "little"))))

    def read(self, timeout_s: float) -> bytes:
        data = self._inner.read(timeout_s)
        return self._damage(data) if data else data

    def close(self) -> None:
        self._inner.close()

    def _damage(self, data: bytes) -> bytes:
        data, self._held = self._held + data, b""
        if self._random.random() >= self._probability:
            return data
        self.injected += 1
        place = self._random.randrange(len(data) + 1)
        match self._random.choice(self._kinds):
            case "flip":
                bits = bytearray(data)
                bits[place % len(data)] ^= 1 << self._random.randrange(8)
                damaged = bytes(bits)
            case "drop":
                damaged = data[:place] + data[place + self._random.randrange(1, 4) :]
            case "duplicate":
                damaged = data + data
            case "truncate":
                damaged = data[:place]
            case "rubbish":
                damaged = data[:place] + self._random.randbytes(self._random.randrange(1, 80)) + data[place:]
            case "before":
                damaged = self._random.randbytes(self._random.randrange(1, 80)) + b"\0" + data
            case "behind":
                damaged = data + self._random.randbytes(self._random.randrange(1, 80))
            case "reorder":
                damaged = data[place:] + data[:place]
            case "split":
                damaged, self._held = data[:place], data[place:]
            case _:
                time.sleep(0.12 * self._random.random())
                damaged = data
        return damaged


def _reset_behind(request: bytes) -> bytes:
    try:
        frame = decode(request.strip(b"\0"))
    except FrameError:
        return b""
    return encode(Frame(Command.RESET, (frame.sequence + 1) & 0xFFFF, frame.session, 0, b"\1"))


def _claiming(request: bytes, version: int) -> bytes:
    """`request` with another version of the link in its header, and the checksum that goes with it."""
    body = bytearray(cobs.decode(request.strip(b"\0")))
    body[0] = version
    return b"\0" + cobs.encode(bytes(body[:-4]) + struct.pack("<I", zlib.crc32(body[:-4]))) + b"\0"
