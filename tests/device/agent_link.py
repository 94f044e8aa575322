"""A host's end of the link for tests of the agent, after firmware/PROTOCOL.md and with other people's COBS and CRC."""

from __future__ import annotations

import select
import socket
import struct
import subprocess
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cobs import cobs

from edgeq.boards.profile import Board
from edgeq.toolchain import Image

HELLO, WRITE, READ, RUN, LAYERS, MEMORY, RESET, FAULT, I2C = range(1, 10)
OK, PROGRESS, CORRUPT, VERSION, UNKNOWN, BAD_REQUEST, BAD_INDEX, BAD_RANGE, NO_SESSION, STALE, TOO_LONG = range(11)
MODEL_FAILED, NO_PROFILE, INPUT_MISMATCH, TOO_MANY_RUNS, NOT_SUPPORTED = range(11, 16)
TIMED, PROFILE, CHECK_INPUTS, CAPTURE = 1, 2, 4, 8


@dataclass(frozen=True)
class Reply:
    version: int
    command: int
    sequence: int
    session: int
    status: int
    payload: bytes


def encode(command: int, sequence: int, session: int, payload: bytes = b"", *, version: int = 1) -> bytes:
    body = struct.pack("<BBHIBBH", version, command, sequence, session, 0, 0, len(payload)) + payload
    return cobs.encode(body + struct.pack("<I", zlib.crc32(body))) + b"\0"


def decode(frame: bytes) -> Reply:
    body = cobs.decode(frame)
    version, command, sequence, session, status, reserved, length = struct.unpack_from("<BBHIBBH", body)
    assert zlib.crc32(body[:-4]) == int.from_bytes(body[-4:], "little")
    assert reserved == 0
    assert length == len(body) - 16
    return Reply(version, command, sequence, session, status, body[12:-4])


class Link:
    """Sends raw bytes, receives frames; `ask` does a request of the open session."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self.buffer = b""
        self.last_frame = b""
        self.session = 0x1000
        self.sequence = 0

    def send(self, data: bytes) -> None:
        self.stream.sendall(data)

    def receive(self, timeout_s: float = 20.0) -> Reply | None:
        """The next frame, None if there is none in time."""
        deadline = time.monotonic() + timeout_s
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.stream], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return None
            received = self.stream.recv(65536)
            if not received:
                raise EOFError("the agent has hung up")
            self.buffer += received
        frame, self.buffer = self.buffer.split(b"\0", 1)
        if not frame:
            return self.receive(timeout_s)
        self.last_frame = frame
        return decode(frame)

    def replies(self, command: int, payload: bytes = b"", *, new: bool = True) -> list[Reply]:
        """Progress frames and the reply to a request, which is repeated as it was if not `new`."""
        self.sequence = (self.sequence + new) & 0xFFFF
        self.send(encode(command, self.sequence, self.session, payload))
        found: list[Reply] = []
        while not found or found[-1].status == PROGRESS:
            reply = self.receive()
            assert reply is not None, "no answer"
            if (reply.command, reply.sequence, reply.session) in (
                (command | 0x80, self.sequence, self.session),
                (0x80, 0, 0),
            ):
                found.append(reply)
        return found

    def ask(self, command: int, payload: bytes = b"", *, new: bool = True) -> Reply:
        return self.replies(command, payload, new=new)[-1]

    def hello(self) -> Reply:
        """Opens a new session; repeats the probe, which is lost where the board is still starting."""
        self.session += 1
        self.sequence = (self.sequence + 1) & 0xFFFF
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            self.send(b"\0" + encode(HELLO, self.sequence, self.session, struct.pack("<I", self.session)))
            while reply := self.receive(1.0):
                if (reply.command, reply.sequence, reply.session) == (HELLO | 0x80, self.sequence, self.session):
                    return reply
        raise AssertionError("no answer to HELLO")

    def write(self, index: int, data: bytes, chunk: int = 400) -> None:
        for offset in range(0, len(data), chunk):
            part = data[offset : offset + chunk]
            reply = self.ask(WRITE, struct.pack("<HHI", index, 0, offset) + part)
            assert (reply.status, reply.payload) == (OK, struct.pack("<I", offset + len(part)))

    def read(self, space: int, index: int, length: int, chunk: int = 400, start: int = 0) -> bytes:
        data = b""
        while len(data) < length:
            want = min(chunk, length - len(data))
            reply = self.ask(READ, struct.pack("<BBHII", space, 0, index, start + len(data), want))
            assert reply.status == OK
            data += reply.payload
        return data

    def run(self, runs: int = 1, flags: int = 0, **fields: int) -> Reply:
        return self.ask(RUN, run_request(runs, flags, **fields))


def run_request(runs: int, flags: int, *, layer: int = 0, offset: int = 0, length: int = 0, crc: int = 0) -> bytes:
    return struct.pack("<HHHHIII", runs, flags, layer, 0, offset, length, crc)


@contextmanager
def powered(image: Image, board: Board) -> Iterator[Link]:
    """The image under way on a board that is a process or a QEMU machine."""
    here, there = socket.socketpair()
    assert board.virtual is not None
    if board.virtual.emulator == "process":
        process = subprocess.Popen([str(image.elf.resolve())], stdin=there, stdout=there)
    else:
        command = [board.virtual.emulator, "-M", str(board.virtual.machine), *board.virtual.arguments]
        command += ["-nographic", "-monitor", "none", "-chardev", f"socket,id=line,fd={there.fileno()}"]
        command += ["-serial", "chardev:line", "-kernel", str(image.elf)]
        process = subprocess.Popen(command, pass_fds=[there.fileno()], stdin=subprocess.DEVNULL)
    there.close()
    try:
        yield Link(here)
    finally:
        process.kill()
        process.wait()
        here.close()
