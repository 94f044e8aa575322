"""Framing against the vectors of PROTOCOL.md, and properties that hold for any bytes on the line."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.device.frames import Frame, FrameError, FrameReader, decode, encode
from edgeq.device.messages import (
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

PROTOCOL = Path(__file__).parents[3] / "firmware" / "PROTOCOL.md"

frames = st.builds(
    Frame,
    command=st.integers(0, 255),
    sequence=st.integers(0, 0xFFFF),
    session=st.integers(0, 0xFFFFFFFF),
    status=st.integers(0, 255),
    payload=st.binary(max_size=700),
)


def example_rows() -> list[list[str]]:
    section = PROTOCOL.read_text(encoding="utf-8").split("## Examples")[1]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("row", example_rows(), ids=lambda row: row[0])
def test_specified_examples(row: list[str]) -> None:
    _, command, sequence, session, status, payload, line = row
    frame = Frame(
        int(command, 0), int(sequence, 0), int(session, 0), int(status), bytes.fromhex(payload.replace("-", ""))
    )
    assert encode(frame).hex() == line
    assert decode(bytes.fromhex(line)[:-1]) == frame


def example_payload(beginning: str) -> str:
    return next(row[5] for row in example_rows() if row[0].startswith(beginning))


def test_specified_payloads() -> None:
    write = write_request(0, 2, bytes([0, 0x7F, 0x80, 0xFF]))
    assert write.hex() == example_payload("WRITE request")
    assert read_request(Space.OUTPUT, 1, 0, 12).hex() == example_payload("READ request")
    run = run_request(3, RunFlag.TIMED | RunFlag.PROFILE, None, 0xCBF43926)
    assert run.hex() == example_payload("RUN request")
    reply = RunResult.parse(bytes.fromhex(example_payload("RUN reply, 3 runs")))
    assert reply.ticks == (1000, 1001, 1002)
    assert reply.model_status == 0
    sampled = run_request(1, RunFlag(0), None, None, Sample(0x40, 1))
    assert sampled.hex() == example_payload("RUN request, 1 run, then a sample of register 1 at 0x40")
    reply = RunResult.parse(bytes.fromhex(example_payload("RUN reply, 1 run, not timed")))
    assert (reply.ticks, reply.sample) == ((0,), b"\x02\x80")


def test_specified_replies() -> None:
    hello = Hello.parse(bytes.fromhex(example_payload("HELLO reply")))
    assert (hello.session, hello.boot_count, hello.reset_reason) == (0x11223344, 1, "power-on")
    assert (hello.timer_kind, hello.timer_hz, hello.arena_bytes, hello.spare_bytes) == ("cycles", 64e6, 6144, 20_000)
    assert (hello.max_payload_bytes, hello.max_runs, hello.layers, hello.max_layers) == (1024, 32, 3, 127)
    assert hello.model_sha256 == bytes(range(32)).hex()
    assert (hello.board, hello.model) == ("arduino-nano-33-ble-sense", "tiny")
    assert (hello.input_bytes, hello.output_bytes) == ((490,), (12,))
    assert Capability.I2C in hello.capabilities
    assert Capability.DATA_CACHE not in hello.capabilities
    memory = MemoryUse.parse(bytes.fromhex(example_payload("MEMORY reply")))
    assert memory == MemoryUse(6144, 5120, 8192, 1200, 640, 0, 256, 40_000)
    fault = Fault.parse(bytes.fromhex(example_payload("FAULT reply")))
    assert (fault.kind, fault.pc, fault.layers_done, fault.faults) == ("bus fault", 0x08001234, 1, 1)
    assert "0xe2345678" in fault.cause()


def test_capture_sets_its_flag() -> None:
    payload = run_request(1, RunFlag(0), Capture(3, 16, 32), None)
    assert struct.unpack("<HHHHIII", payload) == (1, RunFlag.CAPTURE, 3, 0, 16, 32, 0)


@given(frames)
def test_round_trip(frame: Frame) -> None:
    line = encode(frame)
    assert line.count(0) == 1
    assert decode(line[:-1]) == frame


@given(st.lists(frames, max_size=5), st.integers(1, 40), st.binary(max_size=50))
def test_reader_finds_frames_in_any_portions_after_rubbish(sent: list[Frame], step: int, rubbish: bytes) -> None:
    reader = FrameReader()
    stream = rubbish + b"\0" + b"".join(map(encode, sent))
    received = [frame for i in range(0, len(stream), step) for frame in reader.feed(stream[i : i + step])]
    assert received[-len(sent) :] == sent if sent else received == []


@given(frames, st.data())
def test_a_flipped_bit_is_never_taken_for_a_frame(frame: Frame, data: st.DataObject) -> None:
    line = bytearray(encode(frame))
    bit = data.draw(st.integers(0, (len(line) - 1) * 8 - 1))
    line[bit // 8] ^= 1 << bit % 8
    assert FrameReader().feed(bytes(line)) == []


@given(st.binary(max_size=300))
def test_decoding_anything_is_a_frame_or_a_frame_error(line: bytes) -> None:
    try:
        frame = decode(line)
    except FrameError:
        return
    assert len(frame.payload) <= len(line)


@given(st.binary(max_size=400))
def test_hello_of_anything_is_parsed_or_refused(payload: bytes) -> None:
    try:
        hello = Hello.parse(payload)
    except FrameError:
        return
    assert len(payload) == 208 + 4 * (len(hello.input_bytes) + len(hello.output_bytes))


def test_a_line_that_never_ends_takes_bounded_memory() -> None:
    reader = FrameReader()
    for _ in range(100):
        assert reader.feed(b"\x01" * 10_000) == []
    assert reader.feed(b"\0" + encode(Frame(1, 2, 3))) == [Frame(1, 2, 3)]
    assert reader.invalid == 1
