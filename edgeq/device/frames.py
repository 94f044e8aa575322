"""Frames of the link, as `firmware/PROTOCOL.md` specifies them: COBS(header ‖ payload ‖ CRC-32) 0x00.

Pure: bytes in, frames out. The structures inside the payloads are in `edgeq.device.messages`.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

from cobs import cobs

VERSION = 1
REPLY = 0x80
"""Added to a request's command, it makes the command of the reply."""
HELLO_PAYLOAD_BYTES = 64
"""Most payload bytes of a request before HELLO told the agent's limit."""
_HEADER = struct.Struct("<BBHIBBH")
_CRC = struct.Struct("<I")
_LONGEST_BYTES = _HEADER.size + 0xFFFF + _CRC.size
_LONGEST_ENCODED_BYTES = _LONGEST_BYTES + _LONGEST_BYTES // 254 + 1
FRAME_OVERHEAD_BYTES = _HEADER.size + _CRC.size + 2
"""Bytes that a frame with less than 238 payload bytes adds on the line."""


class Command(IntEnum):
    """Requests, and the two frames that the agent sends unasked."""

    HELLO = 0x01
    WRITE = 0x02
    READ = 0x03
    RUN = 0x04
    LAYERS = 0x05
    MEMORY = 0x06
    RESET = 0x07
    FAULT = 0x08
    I2C = 0x09
    INVALID_FRAME = 0x80
    BOOT = 0xA0


class Status(IntEnum):
    """`status` of a reply."""

    OK = 0
    PROGRESS = 1
    CORRUPT = 2
    VERSION = 3
    UNKNOWN_COMMAND = 4
    BAD_LENGTH = 5
    BAD_INDEX = 6
    BAD_RANGE = 7
    NO_SESSION = 8
    STALE = 9
    TOO_LONG = 10
    MODEL_FAILED = 11
    NO_PROFILE = 12
    INPUT_MISMATCH = 13
    TOO_MANY_RUNS = 14
    NOT_SUPPORTED = 15
    I2C_FAILED = 16


class FrameError(ValueError):
    """Bytes that are not a frame; the message says why."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. `command` and `status` may be numbers that this version does not know."""

    command: int
    sequence: int
    session: int
    status: int = 0
    payload: bytes = b""
    version: int = VERSION


def encode(frame: Frame) -> bytes:
    """The bytes on the line, with the ending 0x00. ValueError if a field leaves its range."""
    if len(frame.payload) > 0xFFFF:
        raise ValueError(f"a payload of {len(frame.payload)} bytes, at most 65535")
    try:
        header = _HEADER.pack(
            frame.version, frame.command, frame.sequence, frame.session, frame.status, 0, len(frame.payload)
        )
    except struct.error as error:
        raise ValueError(str(error)) from error
    body = header + frame.payload
    encoded: bytes = cobs.encode(body + _CRC.pack(zlib.crc32(body)))
    return encoded + b"\0"


def decode(encoded: bytes) -> Frame:
    """The frame in `encoded`, the bytes before the ending 0x00. FrameError if it is none."""
    try:
        body: bytes = cobs.decode(encoded)
    except cobs.DecodeError as error:
        raise FrameError(f"not COBS: {error}") from error
    if len(body) < _HEADER.size + _CRC.size:
        raise FrameError(f"{len(body)} bytes, a frame has at least {_HEADER.size + _CRC.size}")
    content, (checksum,) = body[: -_CRC.size], _CRC.unpack(body[-_CRC.size :])
    if zlib.crc32(content) != checksum:
        raise FrameError("checksum differs")
    version, command, sequence, session, status, _reserved, payload_bytes = _HEADER.unpack_from(content)
    payload = content[_HEADER.size :]
    if len(payload) != payload_bytes:
        raise FrameError(f"the header names {payload_bytes} payload bytes, the frame has {len(payload)}")
    return Frame(command, sequence, session, status, payload, version)


class FrameReader:
    """Frames out of a stream of bytes that arrive in any portions, with rubbish between them.

    `invalid` counts what stood between two 0x00 and was not a frame; `last_error` is the last one's reason. At most one
    longest frame is kept in memory.
    """

    def __init__(self) -> None:
        self.invalid = 0
        self.last_error = ""
        self._buffer = bytearray()
        self._overflow = False

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes."""
        frames: list[Frame] = []
        *ended, rest = data.split(b"\0")
        for part in ended:
            self._append(part)
            if self._overflow:
                self._reject(f"more than {_LONGEST_ENCODED_BYTES} bytes without an end")
            elif self._buffer:
                try:
                    frames.append(decode(bytes(self._buffer)))
                except FrameError as error:
                    self._reject(str(error))
            self._buffer.clear()
            self._overflow = False
        self._append(rest)
        return frames

    def _append(self, part: bytes) -> None:
        if self._overflow or len(self._buffer) + len(part) > _LONGEST_ENCODED_BYTES:
            self._overflow = True
            self._buffer.clear()
        else:
            self._buffer += part

    def _reject(self, reason: str) -> None:
        self.invalid += 1
        self.last_error = reason
