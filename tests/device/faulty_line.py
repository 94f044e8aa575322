"""A line that damages what passes: bit flips, drops, duplicates, rubbish, delays and more, both ways, seeded."""

from __future__ import annotations

import random
import time

from edgeq.device.frames import Command, Frame, FrameError, decode, encode
from edgeq.device.ports import Transport

KINDS = ("flip", "drop", "duplicate", "truncate", "rubbish", "delay", "reorder", "split")


class FaultyLine:
    """Wraps a transport. Each write and each read is damaged with `probability` by one of `kinds`.

    `reset_after`: behind so many requests it slips in a RESET of the board under the session's own number, as a power
    glitch would come.
    """

    def __init__(
        self,
        inner: Transport,
        seed: int,
        *,
        probability: float = 0.2,
        kinds: tuple[str, ...] = KINDS,
        reset_after: int | None = None,
    ) -> None:
        self.name = inner.name
        self.injected = 0
        self._inner = inner
        self._random = random.Random(seed)
        self._probability = probability
        self._kinds = kinds
        self._reset_after = reset_after
        self._written = 0
        self._held = b""

    def write(self, data: bytes) -> None:
        self._inner.write(self._damage(data))
        self._written += 1
        if self._written == self._reset_after:
            self._inner.write(_reset_behind(data))

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
            case "reorder":
                damaged = data[place:] + data[:place]
            case "split":
                damaged, self._held = data[:place], data[place:]
            case _:
                time.sleep(0.02)
                damaged = data
        return damaged


def _reset_behind(request: bytes) -> bytes:
    try:
        frame = decode(request.strip(b"\0"))
    except FrameError:
        return b""
    return encode(Frame(Command.RESET, (frame.sequence + 1) & 0xFFFF, frame.session, 0, b"\1"))
