"""A conversation with the agent on a board: one request at a time, repeated until a reply comes, never executed twice.

Each cause of failure is an error of its own: no-answer, corrupted-frames, board-reset, board-fault, session-taken,
agent-version, agent-error, wrong-board, wrong-model, model-failed, run-stalled, and the ports' own codes.
"""

from __future__ import annotations

import secrets
import struct
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from edgeq.device.frames import REPLY, VERSION, Command, Frame, FrameError, FrameReader, Status, encode
from edgeq.device.messages import (
    WRITE_HEAD_BYTES,
    Capability,
    Capture,
    Fault,
    Hello,
    MemoryUse,
    RunFlag,
    RunResult,
    Sample,
    Space,
    read_request,
    run_request,
    write_request,
)
from edgeq.device.ports import Transport
from edgeq.errors import DeviceError, LinkError

_T = TypeVar("_T")
_MOST_HINTS = 4
"""Of the agent's hints to repeat at once, in one request; more are left to the timeout."""
RunProgress = Callable[[int, int], None]
"""Called with the runs done and the layers done of the present run."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the host waits, seconds.

    hello_s: for a board that starts. reply_s: for a reply before the request is repeated; the line's own time for the
    bytes comes on top. attempts: how often a request is sent. silence_s: how long a RUN may go without a sign of life.
    baud: of a real line, None where bytes take no time.
    """

    hello_s: float = 5.0
    hello_repeat_s: float = 0.3
    reply_s: float = 1.0
    attempts: int = 6
    silence_s: float = 60.0
    baud: int | None = None

    def line_s(self, count_bytes: int) -> float:
        """The time `count_bytes` take on the line, at ten bits a byte."""
        return 0.0 if self.baud is None else count_bytes * 10 / self.baud


@dataclass(slots=True)
class LinkStatistics:
    """What the link went through."""

    requests: int = 0
    repeated: int = 0
    invalid_frames: int = 0


class Session:
    """Open with `hello()`; then the other requests. Not for several threads."""

    def __init__(self, transport: Transport, *, timing: Timing | None = None) -> None:
        self.transport = transport
        self.timing = timing or Timing()
        self.statistics = LinkStatistics()
        self._reader = FrameReader()
        self._received: list[Frame] = []
        self._session = 0
        self._sequence = secrets.randbelow(1 << 16)
        self._hello: Hello | None = None
        self._inputs: dict[int, bytearray] = {}
        self._booted: Frame | None = None
        self._hints = 0
        self._strangers = 0
        """Frames that were not the answer waited for."""

    @property
    def info(self) -> Hello:
        """The reply to the last `hello()`, which must have come first."""
        if self._hello is None:
            raise RuntimeError("hello() comes first")
        return self._hello

    def hello(self) -> Hello:
        """Open a session: what rubbish stands on the line is skipped, a board that is starting is waited for.

        So is one that is busy with what an earlier session asked for, such as a RUN that nobody waits for any more:
        while its frames come, up to the silence allowed.
        """
        self._session = secrets.randbelow((1 << 32) - 1) + 1
        self._next_sequence()
        self._booted = None
        payload = struct.pack("<I", self._session)
        frame = self._frame(Command.HELLO, payload)
        started = time.monotonic()
        deadline = started + self.timing.hello_s
        invalid_before = self._reader.invalid
        self._strangers = 0
        first = True
        while time.monotonic() < deadline:
            self._send(frame, prefix=b"\0", repeated=not first)
            first, strangers = False, self._strangers
            wait_s = self.timing.hello_repeat_s + self.timing.line_s(400)
            reply = self._wait(Command.HELLO, min(time.monotonic() + wait_s, deadline))
            if reply is None:
                if self._strangers > strangers:
                    deadline = max(
                        deadline, min(time.monotonic() + self.timing.hello_s, started + self.timing.silence_s)
                    )
                continue
            self._raise_for_status(Command.HELLO, reply)
            self._booted = None
            self._hello = self._parse(Hello.parse, reply)
            self._inputs = {}
            return self._hello
        raise self._no_answer(Command.HELLO, self._reader.invalid - invalid_before, time.monotonic() - started)

    def expect(self, *, board: str | None = None, model_sha256: str | None = None) -> None:
        """DeviceError `wrong-board` or `wrong-model` if another one than expected answered `hello()`."""
        if board is not None and self.info.board != board:
            raise DeviceError(
                "wrong-board",
                f"The board at {self.transport.name} says that it is `{self.info.board}`, not `{board}`.",
                where=self.transport.name,
                try_=(f"Name it: --board {self.info.board}", "Choose another port: edgeq devices"),
            )
        if model_sha256 is not None and self.info.model_sha256 != model_sha256:
            raise DeviceError(
                "wrong-model",
                f"The board runs another model (`{self.info.model}`, {self.info.model_sha256[:12]}) than the one given "
                f"({model_sha256[:12]}).",
                where=self.transport.name,
                why="The board was flashed before, and the model or bundle changed since.",
                try_=f"Flash it first: edgeq flash MODEL --board {self.info.board}",
            )

    def write_input(self, index: int, data: bytes, *, offset: int = 0) -> None:
        """Write `data` into input `index` from `offset` on, chunk by chunk."""
        chunk_bytes = self.info.max_payload_bytes - WRITE_HEAD_BYTES
        for start in range(0, len(data), chunk_bytes):
            chunk, place = data[start : start + chunk_bytes], offset + start
            reply = self._request(Command.WRITE, write_request(index, place, chunk))
            if self._parse(_u32, reply) != place + len(chunk):
                raise self._agent_error(Command.WRITE, "the reply names another offset than the one written up to")
        if index < len(self.info.input_bytes):
            known = self._inputs.setdefault(index, bytearray(self.info.input_bytes[index]))
            known[offset : offset + len(data)] = data

    def read(self, space: Space, index: int, length: int, *, offset: int = 0) -> bytes:
        """`length` bytes of an input, an output, the arena or the capture."""
        result = bytearray()
        while len(result) < length:
            count = min(length - len(result), self.info.max_payload_bytes)
            reply = self._request(
                Command.READ, read_request(space, index, offset + len(result), count), reply_bytes=count
            )
            if len(reply.payload) != count:
                raise self._agent_error(Command.READ, f"{len(reply.payload)} bytes came where {count} were asked for")
            result += reply.payload
        return bytes(result)

    def read_output(self, index: int) -> bytes:
        """All bytes of output `index`."""
        return self.read(Space.OUTPUT, index, self.info.output_bytes[index])

    def run(
        self,
        runs: int = 1,
        *,
        timed: bool = False,
        profile: bool = False,
        capture: Capture | None = None,
        sample: Sample | None = None,
        progress: RunProgress | None = None,
    ) -> RunResult:
        """Invoke the model `runs` times in one request (at most `info.max_runs`) with the inputs that were written.

        DeviceError `model-failed` if invoke returns an error. The agent verifies the inputs' checksum where all were
        written in this session.
        """
        flags = RunFlag(0)
        if timed or profile:
            flags |= RunFlag.TIMED
        if profile:
            flags |= RunFlag.PROFILE
        checksum = None
        if self._inputs.keys() == set(range(len(self.info.input_bytes))):
            checksum = 0
            for index in sorted(self._inputs):
                checksum = zlib.crc32(self._inputs[index], checksum)
        reply = self._request(Command.RUN, run_request(runs, flags, capture, checksum, sample), progress=progress)
        result = self._parse(RunResult.parse, reply)
        if len(result.ticks) != runs:
            raise self._agent_error(Command.RUN, f"{len(result.ticks)} runs reported where {runs} were asked for")
        return result

    def infer(self, inputs: Sequence[bytes]) -> list[bytes]:
        """Write all inputs, run once, read all outputs."""
        for index, data in enumerate(inputs):
            self.write_input(index, data)
        self.run()
        return [self.read_output(index) for index in range(len(self.info.output_bytes))]

    def layers(self) -> tuple[int, ...]:
        """Ticks of each layer in the last profiled run."""
        ticks: list[int] = []
        while len(ticks) < self.info.layers:
            count = min(self.info.max_layers, self.info.layers - len(ticks))
            reply = self._request(Command.LAYERS, struct.pack("<HH", len(ticks), count))
            if len(reply.payload) != 4 + 8 * count or struct.unpack_from("<HH", reply.payload) != (len(ticks), count):
                raise self._agent_error(Command.LAYERS, "the reply names other layers than those asked for")
            ticks += struct.unpack_from(f"<{count}Q", reply.payload, 4)
        return tuple(ticks)

    def memory(self) -> MemoryUse:
        """Arena and stack, planned and used."""
        return self._parse(MemoryUse.parse, self._request(Command.MEMORY))

    def fault(self, *, clear: bool = False) -> Fault:
        """The last fault's record."""
        return self._parse(Fault.parse, self._request(Command.FAULT, bytes([clear])))

    def i2c(self, address: int, write: bytes, read_bytes: int) -> bytes:
        """Write to a device on the board's I2C bus, then read; at most 32 bytes each. DeviceError `i2c-failed`."""
        reply = self._request(Command.I2C, bytes([address, read_bytes]) + write)
        if len(reply.payload) != read_bytes:
            raise self._agent_error(Command.I2C, f"{len(reply.payload)} bytes came where {read_bytes} were asked for")
        return reply.payload

    def reset_model(self) -> None:
        """Set the model's state back and paint the arena anew."""
        self._request(Command.RESET, b"\0")

    def reset_board(self) -> Hello:
        """Restart the board and open a new session with it."""
        before = self.info.boot_count
        self._request(Command.RESET, b"\1")
        deadline = time.monotonic() + self.timing.hello_s
        while True:
            hello = self.hello()
            if hello.boot_count != before or time.monotonic() > deadline:
                return hello

    def close(self) -> None:
        """Let the port go."""
        self.transport.close()

    def _next_sequence(self) -> None:
        self._sequence = (self._sequence + 1) & 0xFFFF

    def _frame(self, command: Command, payload: bytes) -> bytes:
        return encode(Frame(command, self._sequence, self._session, 0, payload))

    def _send(self, frame: bytes, *, prefix: bytes = b"", repeated: bool = False) -> None:
        self.statistics.requests += not repeated
        self.statistics.repeated += repeated
        self.transport.write(prefix + frame)

    def _request(
        self, command: Command, payload: bytes = b"", *, reply_bytes: int = 0, progress: RunProgress | None = None
    ) -> Frame:
        """Send, wait, repeat; the OK reply. For RUN the waiting doubles, so that a busy agent is not flooded."""
        if self._hello is None:
            raise RuntimeError("hello() comes first")
        self._next_sequence()
        frame = self._frame(command, payload)
        invalid_before, self._hints = self._reader.invalid, 0
        wait_s = self.timing.reply_s + self.timing.line_s(len(frame) + reply_bytes + 64)
        started = time.monotonic()
        deadline = started + (self.timing.silence_s if command == Command.RUN else wait_s * self.timing.attempts)
        prefix = b""
        while (now := time.monotonic()) < deadline:
            self._send(frame, prefix=prefix, repeated=bool(prefix))
            strangers = self._strangers
            reply = self._wait(command, min(now + wait_s, deadline), progress)
            if reply is not None:
                self._raise_for_status(command, reply)
                return reply
            if self._strangers > strangers:  # the board still answers what was repeated before
                deadline = max(deadline, min(now + wait_s * self.timing.attempts, started + self.timing.silence_s))
            prefix = b"\0"
            if command == Command.RUN:
                wait_s = min(wait_s * 2, 16.0)
        raise self._no_answer(command, self._reader.invalid - invalid_before, time.monotonic() - started)

    def _wait(self, command: Command, until: float, progress: RunProgress | None = None) -> Frame | None:
        """The reply to the present request, or None when to send it again: the time is over, or the agent says that it
        started or that a frame was broken.

        PROGRESS that moves on prolongs the waiting by the silence allowed; PROGRESS that stands still is `run-stalled`.
        """
        done = (-1, -1)
        while True:
            while self._received:
                frame = self._received.pop(0)
                if frame.command in (Command.BOOT, Command.INVALID_FRAME):
                    self._booted = frame if frame.command == Command.BOOT else self._booted
                    self._hints += 1
                    if self._hints <= _MOST_HINTS:
                        return None
                    continue
                foreign = frame.session != self._session and frame.status not in (Status.NO_SESSION, Status.VERSION)
                if foreign or (frame.command, frame.sequence) != (command + REPLY, self._sequence):
                    self._strangers += 1
                    continue
                if frame.status != Status.PROGRESS:
                    return frame
                now_done = _runs_and_layers(frame)
                if now_done is not None and now_done > done:
                    done = now_done
                    until = time.monotonic() + self.timing.silence_s
                    if progress is not None:
                        progress(*done)
            remaining = until - time.monotonic()
            if remaining <= 0:
                if done != (-1, -1):
                    raise self._stalled(done)
                return None
            invalid = self._reader.invalid
            self._received += self._reader.feed(self.transport.read(min(remaining, 0.25)))
            self.statistics.invalid_frames += self._reader.invalid - invalid

    def _parse(self, parse: Callable[[bytes], _T], reply: Frame) -> _T:
        try:
            return parse(reply.payload)
        except FrameError as error:
            raise self._agent_error(Command(reply.command - REPLY), str(error)) from error

    def _raise_for_status(self, command: Command, reply: Frame) -> None:
        match reply.status:
            case Status.OK:
                return
            case Status.NO_SESSION:
                raise self._reset_error(command, taken=reply.payload != bytes(4))
            case Status.MODEL_FAILED:
                result = self._parse(RunResult.parse, reply)
                raise DeviceError(
                    "model-failed",
                    f"The model on the board ended with status {result.model_status} in run {len(result.ticks)}.",
                    where=self.transport.name,
                    try_="Build and flash it anew: edgeq flash",
                )
            case Status.VERSION:
                raise DeviceError(
                    "agent-version",
                    f"The agent on the board speaks version {reply.version} of the link, this edgeq {VERSION}.",
                    where=self.transport.name,
                    try_="Flash the board anew with this edgeq: edgeq flash",
                )
            case Status.I2C_FAILED:
                stuck = reply.payload == (2).to_bytes(4, "little")
                raise DeviceError(
                    "i2c-failed",
                    "The board cannot read the sensor on its I2C bus.",
                    where=self.transport.name,
                    why="The bus stands still." if stuck else "Nothing on the bus acknowledges.",
                    try_=(
                        "Check SDA, SCL, ground and the sensor's supply; both lines need pull-ups.",
                        "Check the sensor's address: --meter ina219:0x41",
                    ),
                )
            case Status.INPUT_MISMATCH:
                raise LinkError(
                    "input-mismatch",
                    "The inputs on the board are not the ones that were sent.",
                    where=self.transport.name,
                    why="Their checksum differs.",
                    try_="Run the command again; if it stays, flash the board anew.",
                )
            case _:
                raise self._agent_error(command, f"status {_name(reply.status)}", reply.payload)

    def _agent_error(self, command: Command, why: str, payload: bytes = b"") -> DeviceError:
        limit = f" ({struct.unpack('<I', payload)[0]})" if len(payload) == 4 else ""
        return DeviceError(
            "agent-error",
            f"The agent on the board refused or could not answer {command.name}.",
            where=self.transport.name,
            why=why + limit,
            try_="Flash the board anew with this edgeq: edgeq flash",
        )

    def _stalled(self, done: tuple[int, int]) -> DeviceError:
        return DeviceError(
            "run-stalled",
            f"The board stopped in run {done[0] + 1} after layer {done[1]}.",
            where=self.transport.name,
            why=f"No progress for {self.timing.silence_s:g} s.",
            try_="Reset the board and run again.",
        )

    def _no_answer(self, command: Command, invalid: int, waited_s: float) -> DeviceError:
        if self._booted is not None and command != Command.HELLO:
            return self._reset_error(command, taken=False)
        if invalid:
            return LinkError(
                "corrupted-frames",
                f"Bytes arrive from {self.transport.name}, but no valid answer to {command.name}.",
                where=self.transport.name,
                why=f"{invalid} broken frames, the last one: {self._reader.last_error}.",
                try_=(
                    "Check the baud rate and the wiring (ground, length).",
                    "Check that the board runs EdgeQ's agent and nothing else prints on this port.",
                ),
            )
        return LinkError(
            "no-answer",
            f"The board at {self.transport.name} does not answer {command.name}.",
            where=self.transport.name,
            why=f"No valid frame in {waited_s:.1f} s."
            if command != Command.HELLO or not self._strangers
            else f"It still answers an earlier session after {waited_s:.1f} s.",
            try_=(
                "Flash it first: edgeq flash MODEL --board BOARD",
                "Check the port (edgeq devices), press the board's reset button.",
            ),
        )

    def _reset_error(self, command: Command, *, taken: bool) -> DeviceError:
        """Why the session is gone: asks the board itself, as far as it answers.

        taken: another session may be open. After a loss of power boot_count is 1 again and tells nothing; but then no
        session is open, and the BOOT event may have come.
        """
        taken = taken and self._booted is None
        before = self._hello
        where, try_ = self.transport.name, "Run the command again; check the board's power supply."
        try:
            now = self.hello()
            fault = self.fault() if Capability.FAULT_RECORD in now.capabilities else None
        except DeviceError as error:
            return DeviceError(
                "board-reset", f"The board restarted during {command.name}.", where=where, why=error.what, try_=try_
            )
        if taken and before is not None and now.boot_count == before.boot_count:
            return LinkError(
                "session-taken",
                "Another program talks to this board.",
                where=where,
                why="The agent did not restart, yet its session is another's.",
                try_="Close the other program.",
            )
        if now.reset_reason == "fault" and fault is not None and fault.happened:
            return BoardFault(command, where, fault)
        return DeviceError(
            "board-reset",
            f"The board restarted during {command.name}.",
            where=where,
            why=f"Boot {now.boot_count}, reason: {now.reset_reason}.",
            try_=try_,
        )


class BoardFault(DeviceError):
    """The firmware crashed and restarted; `fault` is its record."""

    def __init__(self, command: Command, where: str, fault: Fault, place: str | None = None) -> None:
        super().__init__(
            "board-fault",
            f"The firmware crashed during {command.name}: {fault.kind} at {place or f'pc {fault.pc:#010x}'}.",
            where=where,
            why=f"{fault.cause()}; lr {fault.lr:#010x}, sp {fault.sp:#010x}, {fault.layers_done} layers done.",
            try_="Flash the board anew; if it stays, check the stack with `edgeq bench` and report the fault.",
        )
        self.command = command
        self.fault = fault


def _u32(payload: bytes) -> int:
    if len(payload) != 4:
        raise FrameError(f"a reply of {len(payload)} bytes, expected 4")
    return int.from_bytes(payload, "little")


def _runs_and_layers(frame: Frame) -> tuple[int, int] | None:
    if len(frame.payload) != 8:
        return None
    runs, layers = struct.unpack("<II", frame.payload)
    return runs, layers


def _name(status: int) -> str:
    return Status(status).name if status in list(Status) else str(status)
