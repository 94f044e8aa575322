"""Structures inside the payloads of the link (`firmware/PROTOCOL.md`): little-endian, packed.

`parse` of each raises FrameError if the payload is not one.
"""

from __future__ import annotations

import struct
from dataclasses import asdict, dataclass
from enum import IntEnum, IntFlag
from typing import ClassVar

from edgeq.device.frames import FrameError

UNKNOWN = 0xFFFFFFFF
"""A number that the port does not know."""


class Space(IntEnum):
    """Where READ reads."""

    INPUT = 0
    OUTPUT = 1
    ARENA = 2
    CAPTURE = 3


class RunFlag(IntFlag):
    """`flags` of RUN."""

    TIMED = 1
    PROFILE = 2
    CHECK_INPUTS = 4
    CAPTURE = 8
    SAMPLE = 16


class Capability(IntFlag):
    """`capabilities` of HELLO."""

    INPUTS_KEPT = 1
    PROFILE = 2
    FAULT_RECORD = 4
    BOARD_RESET = 8
    STACK_MEASURED = 16
    INSTRUCTION_CACHE = 32
    DATA_CACHE = 64
    I2C = 128


TIMER_KINDS = ("none", "instructions", "cycles", "microseconds", "nanoseconds")
RESET_REASONS = ("power-on", "asked", "fault")


def _unpack(layout: struct.Struct, payload: bytes, what: str) -> tuple[int, ...]:
    if len(payload) != layout.size:
        raise FrameError(f"{what} of {len(payload)} bytes, expected {layout.size}")
    return layout.unpack(payload)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", errors="replace")


@dataclass(frozen=True, slots=True)
class Hello:
    """Who answers: the reply to HELLO. Sizes in bytes, clocks in hertz."""

    session: int
    boot_count: int
    reset_reason: str
    firmware_version: str
    timer_kind: str
    timer_resolution: int
    timer_hz: int
    core_hz: int
    arena_bytes: int
    spare_bytes: int
    capabilities: Capability
    max_payload_bytes: int
    max_runs: int
    layers: int
    max_layers: int
    model_sha256: str
    board: str
    model: str
    input_bytes: tuple[int, ...]
    output_bytes: tuple[int, ...]

    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<IIB3BBBHIIIIIHHHHHH32s64s64s")

    @classmethod
    def parse(cls, payload: bytes) -> Hello:
        """From a HELLO reply's payload."""
        size = cls._LAYOUT.size
        if len(payload) < size:
            raise FrameError(f"HELLO reply of {len(payload)} bytes, expected at least {size}")
        (
            session, boot_count, reason, major, minor, patch, kind, _max_requests, resolution, timer_hz, core_hz, arena,
            spare, capabilities, max_payload, max_runs, inputs, outputs, layers, max_layers, digest, board, model,
        ) = cls._LAYOUT.unpack_from(payload)  # fmt: skip
        if inputs > 16 or outputs > 16 or len(payload) != size + 4 * (inputs + outputs):
            raise FrameError(f"HELLO reply of {len(payload)} bytes for {inputs} inputs and {outputs} outputs")
        if max_payload < 64 or max_runs < 1 or (layers and not max_layers):
            raise FrameError(f"HELLO reply with limits that cannot work: {max_payload} payload bytes, {max_runs} runs")
        sizes = struct.unpack_from(f"<{inputs + outputs}I", payload, size)
        return cls(
            session=session,
            boot_count=boot_count,
            reset_reason=RESET_REASONS[reason] if reason < len(RESET_REASONS) else f"reason {reason}",
            firmware_version=f"{major}.{minor}.{patch}",
            timer_kind=TIMER_KINDS[kind] if kind < len(TIMER_KINDS) else f"kind {kind}",
            timer_resolution=resolution,
            timer_hz=timer_hz,
            core_hz=core_hz,
            arena_bytes=arena,
            spare_bytes=spare,
            capabilities=Capability(capabilities),
            max_payload_bytes=max_payload,
            max_runs=max_runs,
            layers=layers,
            max_layers=max_layers,
            model_sha256=digest.hex(),
            board=_text(board),
            model=_text(model),
            input_bytes=sizes[:inputs],
            output_bytes=sizes[inputs:],
        )

    def to_json(self) -> dict[str, object]:
        """All fields; capabilities by name."""
        names = [flag.name.lower() for flag in Capability if flag in self.capabilities and flag.name]
        return {**asdict(self), "capabilities": names}


@dataclass(frozen=True, slots=True)
class RunResult:
    """The reply to RUN: the model's status (0, or a negative `edgeq_status`), ticks of each run, the sample's bytes."""

    flags: int
    model_status: int
    ticks: tuple[int, ...]
    sample: bytes = b""

    _HEAD: ClassVar[struct.Struct] = struct.Struct("<HHi")

    @classmethod
    def parse(cls, payload: bytes) -> RunResult:
        """From a RUN reply's payload."""
        if len(payload) < cls._HEAD.size:
            raise FrameError(f"RUN reply of {len(payload)} bytes")
        runs, flags, status = cls._HEAD.unpack_from(payload)
        end = cls._HEAD.size + 8 * runs
        sample_bytes = 2 if flags & RunFlag.SAMPLE and status == 0 else 0
        if len(payload) != end + sample_bytes:
            raise FrameError(f"RUN reply of {len(payload)} bytes for {runs} runs")
        return cls(flags, status, struct.unpack_from(f"<{runs}Q", payload, cls._HEAD.size), payload[end:])


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """The reply to MEMORY, bytes; None where the port does not know."""

    arena_planned_bytes: int | None
    arena_used_bytes: int | None
    stack_reserved_bytes: int | None
    stack_used_bytes: int | None
    stack_used_by_run_bytes: int | None
    heap_bytes: int | None
    data_bytes: int | None
    bss_bytes: int | None

    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<8I")

    @classmethod
    def parse(cls, payload: bytes) -> MemoryUse:
        """From a MEMORY reply's payload."""
        values = _unpack(cls._LAYOUT, payload, "MEMORY reply")
        return cls(*(None if value == UNKNOWN else value for value in values))


FAULT_KINDS = (
    "none",
    "hard fault",
    "memory management fault",
    "bus fault",
    "usage fault",
    "secure fault",
    "trap",
    "signal",
)


@dataclass(frozen=True, slots=True)
class Fault:
    """The reply to FAULT: the last crash. Registers as numbers, `kind` in words."""

    kind: str
    pc: int
    lr: int
    sp: int
    psr: int
    r0: int
    r1: int
    r2: int
    r3: int
    r12: int
    cfsr: int
    hfsr: int
    mmfar: int
    bfar: int
    command: int
    layers_done: int
    boot_count: int
    faults: int

    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<18I24x")

    @classmethod
    def parse(cls, payload: bytes) -> Fault:
        """From a FAULT reply's payload."""
        kind, *rest = _unpack(cls._LAYOUT, payload, "FAULT reply")
        return cls(FAULT_KINDS[kind] if kind < len(FAULT_KINDS) else f"kind {kind}", *rest)

    @property
    def happened(self) -> bool:
        """Whether there is a record at all."""
        return self.kind != "none"

    def cause(self) -> str:
        """What the fault status registers say, in words (Armv7-M Architecture Reference Manual, B3.2.15)."""
        if self.kind == "signal":
            return f"signal {self.cfsr} at address {self.bfar:#010x}"
        named = [text for bit, text in _CFSR_BITS.items() if self.cfsr >> bit & 1]
        if self.cfsr >> 15 & 1:
            named.append(f"address {self.bfar:#010x}")
        if self.cfsr >> 7 & 1:
            named.append(f"address {self.mmfar:#010x}")
        return ", ".join(named) or f"cfsr {self.cfsr:#010x}"


_CFSR_BITS = {
    0: "instruction fetch not allowed",
    1: "data access not allowed",
    3: "memory fault on leaving an exception",
    4: "stack overflow into protected memory",
    8: "instruction fetch from a bus error",
    9: "bus error on a data access",
    10: "late bus error on a data access",
    11: "bus error on leaving an exception",
    12: "bus error on the stack",
    16: "undefined instruction",
    17: "invalid state (not Thumb)",
    18: "invalid return address",
    19: "coprocessor or FPU not enabled",
    20: "stack limit crossed",
    24: "unaligned access",
    25: "division by zero",
}


def write_request(index: int, offset: int, data: bytes) -> bytes:
    """Payload of WRITE."""
    return struct.pack("<HHI", index, 0, offset) + data


WRITE_HEAD_BYTES = 8


def read_request(space: Space, index: int, offset: int, length: int) -> bytes:
    """Payload of READ."""
    return struct.pack("<BBHII", space, 0, index, offset, length)


@dataclass(frozen=True, slots=True)
class Capture:
    """Bytes of the arena to be kept after a layer: RUN's CAPTURE."""

    layer: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Sample:
    """A register of an I2C device to be read behind the last run: RUN's SAMPLE."""

    address: int
    register: int


def run_request(
    runs: int, flags: RunFlag, capture: Capture | None, inputs_crc32: int | None, sample: Sample | None = None
) -> bytes:
    """Payload of RUN; `capture`, `inputs_crc32` and `sample` set their flags."""
    if capture is not None:
        flags |= RunFlag.CAPTURE
    if inputs_crc32 is not None:
        flags |= RunFlag.CHECK_INPUTS
    if sample is not None:
        flags |= RunFlag.SAMPLE
    place, of = capture or Capture(0, 0, 0), sample or Sample(0, 0)
    values = (runs, flags, place.layer, of.address, of.register, place.offset, place.length, inputs_crc32 or 0)
    return struct.pack("<HHHBBIII", *values)
