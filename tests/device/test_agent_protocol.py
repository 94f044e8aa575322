"""The agent's side of firmware/PROTOCOL.md, asked of the host process."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator

import agent_link as al
import pytest
from agent_link import Link, encode, powered, run_request
from tiny_bundle import ARENA_BYTES, COMMAND_BYTES, DIGEST, INPUT_BYTES, LAYERS, STATUS_OF_FAILURE, write_tiny_bundle

from edgeq.boards import load_board
from edgeq.toolchain import Image, build

X = random.Random(1).randbytes(INPUT_BYTES)
QUIET = bytes(COMMAND_BYTES)
ZERO_INPUTS_CRC = zlib.crc32(bytes(INPUT_BYTES + COMMAND_BYTES))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    directory = tmp_path_factory.mktemp("tiny")
    return build(write_tiny_bundle(directory / "bundle"), load_board("host"), directory / "image")


@pytest.fixture
def link(image: Image) -> Iterator[Link]:
    with powered(image, load_board("host")) as link:
        link.hello()
        yield link


def command(*values: int) -> bytes:
    return bytes(values).ljust(COMMAND_BYTES, b"\0")


def expected(x: bytes, runs_since_reset: int) -> bytes:
    return bytes([runs_since_reset]) + bytes(byte ^ 0x5A for byte in x[1:])


def test_hello_tells_who_answers(image: Image):
    with powered(image, load_board("host")) as link:
        reply = link.hello()
    fixed = struct.unpack_from("<IIB3sBBHIIIIIHHHHHH32s64s64s", reply.payload)
    assert fixed[0] == link.session
    assert fixed[1] == 1
    assert fixed[5] == 1
    assert fixed[9] == ARENA_BYTES
    assert fixed[11] & 0b1111 == 0b1111
    assert fixed[14:17] == (2, 1, LAYERS)
    assert fixed[18] == bytes.fromhex(DIGEST)
    assert (fixed[19].rstrip(b"\0"), fixed[20].rstrip(b"\0")) == (b"host", b"tiny")
    assert struct.unpack("<III", reply.payload[208:]) == (INPUT_BYTES, COMMAND_BYTES, INPUT_BYTES)


def test_boot_event_comes_before_any_request(image: Image):
    with powered(image, load_board("host")) as link:
        event = link.receive()
    assert event is not None
    assert (event.command, event.sequence, event.session, event.status) == (0xA0, 0, 0, 0)
    assert event.payload == struct.pack("<II", 1, 0)


def test_inputs_go_in_outputs_come_out_and_inputs_are_kept(link: Link):
    link.write(0, X)
    link.write(1, QUIET)
    assert link.read(0, 0, INPUT_BYTES) == X
    for run in (1, 2, 3):
        assert link.run(1, al.CHECK_INPUTS, crc=zlib.crc32(X + QUIET)).status == al.OK
        assert link.read(1, 0, INPUT_BYTES) == expected(X, run)


def test_a_repeated_run_is_answered_again_and_not_run_again(link: Link):
    link.write(0, X)
    first = link.run(2, al.TIMED)
    for _ in range(3):
        assert link.ask(al.RUN, run_request(2, al.TIMED), new=False) == first
    assert link.read(1, 0, 1) == bytes([2])


def test_late_duplicates_are_refused_and_change_nothing(link: Link):
    link.write(0, X)
    run = encode(al.RUN, link.sequence + 1, link.session, run_request(1, 0))
    link.run()
    link.read(1, 0, 1)
    link.send(run)
    late = link.receive()
    assert late is not None
    assert late.status == al.STALE
    assert link.read(1, 0, 1) == bytes([1])
    link.send(encode(al.MEMORY, link.sequence, link.session))
    contradiction = link.receive()
    assert contradiction is not None
    assert contradiction.status == al.STALE


def test_sequence_numbers_wrap_around(link: Link):
    link.sequence = 0xFFFF - 1
    link.hello()
    for _ in range(3):
        assert link.ask(al.MEMORY).status == al.OK
    assert link.sequence < 3


def test_idempotent_requests_may_be_repeated(link: Link):
    link.write(0, X)
    link.run(1, al.PROFILE)
    for request in (
        (al.WRITE, struct.pack("<HHI", 1, 0, 0) + QUIET),
        (al.READ, struct.pack("<BBHII", 1, 0, 0, 0, 100)),
        (al.LAYERS, struct.pack("<HH", 0, LAYERS)),
        (al.MEMORY, b""),
        (al.FAULT, b"\0"),
        (al.RESET, b"\0"),
    ):
        first = link.ask(*request)
        assert first.status == al.OK
        assert link.ask(*request, new=False) == first


def test_hello_again_in_the_same_session_forgets_nothing(link: Link):
    link.run(1, al.PROFILE)
    link.send(encode(al.HELLO, link.sequence, link.session, struct.pack("<I", link.session)))
    again = link.receive()
    assert again is not None
    assert again.status == al.OK
    assert link.ask(al.LAYERS, struct.pack("<HH", 0, LAYERS)).status == al.OK


def test_without_a_session_nothing_is_done(image: Image):
    with powered(image, load_board("host")) as link:
        link.receive()
        for request in (al.WRITE, al.READ, al.RUN, al.LAYERS, al.MEMORY, al.RESET, al.FAULT, 0x30):
            reply = link.ask(request)
            assert (reply.status, reply.payload) == (al.NO_SESSION, bytes(4))
        link.session = 0
        assert link.ask(al.HELLO, bytes(4)).status == al.BAD_REQUEST
        link.hello()
        link.session += 1
        reply = link.ask(al.MEMORY)
        assert (reply.status, reply.payload) == (al.NO_SESSION, b"\1\0\0\0")


def test_layers_sum_up_to_less_than_the_profiled_run(link: Link):
    assert link.ask(al.LAYERS, struct.pack("<HH", 0, LAYERS)).status == al.NO_PROFILE
    link.write(1, command(0, 200))
    (total,) = struct.unpack_from("<Q", link.run(1, al.PROFILE).payload, 8)
    reply = link.ask(al.LAYERS, struct.pack("<HH", 0, LAYERS))
    first, count, *ticks = struct.unpack(f"<HH{LAYERS}Q", reply.payload)
    assert (first, count) == (0, LAYERS)
    assert sum(ticks) <= total
    assert ticks[1] > 0.9 * total
    part = link.ask(al.LAYERS, struct.pack("<HH", 1, 2))
    assert part.payload == struct.pack("<HHQQ", 1, 2, *ticks[1:])
    link.ask(al.RESET, b"\0")
    assert link.ask(al.LAYERS, struct.pack("<HH", 0, LAYERS)).status == al.NO_PROFILE


def test_a_long_run_sends_progress(link: Link):
    link.write(1, command(0, 255))
    frames = link.replies(al.RUN, run_request(32, al.TIMED))
    assert frames[-1].status == al.OK
    seen = [struct.unpack("<II", frame.payload) for frame in frames[:-1]]
    assert seen
    assert seen == sorted(seen)
    assert all(done < 32 and layers <= LAYERS for done, layers in seen)


def test_the_models_own_error_ends_the_run(link: Link):
    link.write(1, command(1))
    reply = link.run(3, 0)
    assert reply.status == al.MODEL_FAILED
    assert struct.unpack("<HHiQ", reply.payload) == (1, 0, STATUS_OF_FAILURE, 0)


def test_capture_shows_a_tensor_that_a_later_layer_overwrites(link: Link):
    link.write(0, X)
    assert link.run(1, al.CAPTURE, layer=1, offset=16, length=INPUT_BYTES).status == al.OK
    assert link.read(3, 0, INPUT_BYTES) == X
    assert link.read(2, 0, INPUT_BYTES, start=16) == bytes(INPUT_BYTES)


def test_reset_of_the_model_starts_its_state_anew(link: Link):
    link.run(5)
    link.ask(al.RESET, b"\0")
    link.run(1)
    assert link.read(1, 0, 1) == bytes([1])


def test_memory_counts_the_arena_up_to_the_last_changed_byte(link: Link):
    planned, before, *rest = struct.unpack("<8I", link.ask(al.MEMORY).payload)
    link.write(0, X)
    link.run()
    _, after, *_ = struct.unpack("<8I", link.ask(al.MEMORY).payload)
    assert (planned, before, after) == (ARENA_BYTES, 1, 32 + 2 * INPUT_BYTES)
    assert rest[3] == 0


def test_reset_of_the_board_is_noticed(link: Link):
    assert link.ask(al.RESET, b"\1").status == al.OK
    event = link.receive()
    assert event is not None
    assert event.payload == struct.pack("<II", 2, 1)
    assert link.ask(al.MEMORY).status == al.NO_SESSION
    reply = link.hello()
    assert struct.unpack_from("<IIB", reply.payload) == (link.session, 2, 1)


@pytest.mark.parametrize(
    ("request_", "payload", "status", "value"),
    [
        (al.WRITE, struct.pack("<HHI", 2, 0, 0), al.BAD_INDEX, 2),
        (al.WRITE, struct.pack("<HHI", 1, 0, 2) + bytes(3), al.BAD_RANGE, COMMAND_BYTES),
        (al.WRITE, struct.pack("<HHI", 0, 0, 0xFFFFFFFF) + bytes(2), al.BAD_RANGE, INPUT_BYTES),
        (al.WRITE, struct.pack("<HHI", 0, 1, 0), al.BAD_REQUEST, None),
        (al.WRITE, bytes(7), al.BAD_REQUEST, None),
        (al.READ, struct.pack("<BBHII", 1, 0, 1, 0, 1), al.BAD_INDEX, 1),
        (al.READ, struct.pack("<BBHII", 2, 0, 0, 0xFFFFFFF0, 0x20), al.BAD_RANGE, ARENA_BYTES),
        (al.READ, struct.pack("<BBHII", 2, 0, 0, 0, 0xFFFF), al.BAD_RANGE, ARENA_BYTES),
        (al.READ, struct.pack("<BBHII", 3, 0, 0, 0, 1), al.BAD_RANGE, 0),
        (al.READ, struct.pack("<BBHII", 4, 0, 0, 0, 1), al.BAD_REQUEST, None),
        (al.RUN, run_request(0, 0), al.BAD_REQUEST, None),
        (al.RUN, run_request(1, 32), al.BAD_REQUEST, None),
        (al.RUN, run_request(1, 16), al.NOT_SUPPORTED, None),
        (0x09, b"\x40\x02\x01", al.NOT_SUPPORTED, None),
        (0x09, b"\x40\x00", al.BAD_REQUEST, None),
        (0x09, b"\x40\x21", al.BAD_REQUEST, None),
        (0x09, b"\x40\x01" + bytes(33), al.BAD_REQUEST, None),
        (al.RUN, run_request(1, 0, layer=1), al.BAD_REQUEST, None),
        (al.RUN, run_request(33, 0), al.TOO_MANY_RUNS, 32),
        (al.RUN, run_request(1, al.CAPTURE, layer=LAYERS), al.BAD_INDEX, LAYERS),
        (al.RUN, run_request(1, al.CAPTURE, offset=1, length=ARENA_BYTES), al.BAD_RANGE, ARENA_BYTES),
        (
            al.RUN,
            run_request(1, al.CHECK_INPUTS, crc=1),
            al.INPUT_MISMATCH,
            zlib.crc32(bytes(INPUT_BYTES + COMMAND_BYTES)),
        ),
        (al.MEMORY, b"\0", al.BAD_REQUEST, None),
        (al.RESET, b"\2", al.BAD_REQUEST, None),
        (al.FAULT, b"", al.BAD_REQUEST, None),
        (0x0A, b"", al.UNKNOWN, None),
    ],
)
def test_unfit_requests_are_refused_with_a_reason(
    link: Link, request_: int, payload: bytes, status: int, value: int | None
):
    link.write(0, bytes(INPUT_BYTES))
    reply = link.ask(request_, payload)
    assert reply.status == status
    assert reply.payload == (b"" if value is None else struct.pack("<I", value))
    link.run()
    assert link.read(1, 0, 1) == bytes([1]), "a refused request has run the model"


def test_other_versions_are_told_ours(link: Link):
    link.send(encode(al.HELLO, 7, 8, bytes(4), version=2))
    reply = link.receive()
    assert reply is not None
    assert (reply.version, reply.command, reply.sequence, reply.session, reply.status) == (1, 0x81, 7, 8, al.VERSION)


def test_broken_frames_are_reported_and_do_not_disturb_the_next(link: Link):
    good = encode(al.MEMORY, link.sequence + 1, link.session)
    for broken in (good[:5] + bytes([good[5] ^ 0x7F]) + good[6:], good[:9] + b"\0", b"\xff\1\2\0", b"\1\0"):
        link.send(broken)
        reply = link.receive()
        assert reply is not None
        assert (reply.command, reply.status) == (0x80, al.CORRUPT)
    link.send(b"\x55" * 70000 + b"\0")
    reply = link.receive()
    assert reply is not None
    assert (reply.command, reply.status) == (0x80, al.TOO_LONG)
    assert link.ask(al.MEMORY).status == al.OK


def test_its_own_echo_and_empty_frames_are_ignored(link: Link):
    link.send(b"\0\0\0" + encode(al.MEMORY | 0x80, 5, link.session) + b"\0")
    assert link.receive(0.2) is None
    assert link.ask(al.MEMORY).status == al.OK


@pytest.mark.parametrize("number", [2, 3, 4])
def test_a_crash_leaves_a_record_that_names_the_function(link: Link, image: Image, number: int):
    link.write(1, command(number))
    link.send(encode(al.RUN, link.sequence + 1, link.session, run_request(1, 0)))
    event = link.receive()
    assert event is not None
    assert event.payload == struct.pack("<II", 2, 2)
    link.hello()
    record = struct.unpack("<24I", link.ask(al.FAULT, b"\0").payload)
    assert record[0] == 7
    assert record[14:18] == (al.RUN, 2, 1, 1)
    location = image.locate(record[1])
    assert location is not None
    assert location.function.startswith("tiny_overflow" if number == 4 else "tiny_misbehave")
    assert link.ask(al.FAULT, b"\1").payload == bytes(96)
    assert link.ask(al.FAULT, b"\0").payload == bytes(96)
    assert link.run().status == al.OK
