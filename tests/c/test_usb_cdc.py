"""The firmware's USB serial port on a bus in memory, under sanitizers; the host follows USB 2.0 and CDC 1.2."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import agent_link as al
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_bundle import write_tiny_bundle

from edgeq.boards import load_board
from edgeq.toolchain import model_source, read_manifest
from edgeq.toolchain.port import AGENTS

FIRMWARE = Path(__file__).parents[2] / "firmware"
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-g")
PACKET_BYTES, RING_BYTES = 64, 1024
OUT, IN, NOTIFY = 0x02, 0x82, 0x81
FROM_DEVICE, TO_ENDPOINT, TO_CLASS, FROM_CLASS = 0x80, 0x02, 0x21, 0xA1
GET_STATUS, CLEAR_FEATURE, SET_FEATURE, SET_ADDRESS, GET_DESCRIPTOR = 0, 1, 3, 5, 6
GET_CONFIGURATION, SET_CONFIGURATION = 8, 9
SET_LINE_CODING, GET_LINE_CODING, SET_CONTROL_LINE_STATE = 0x20, 0x21, 0x22
DEVICE, CONFIGURATION, STRING, QUALIFIER = 1, 2, 3, 6


class Stalled(Exception):
    """The device refuses the request."""


class Facts(NamedTuple):
    """What the harness knows of the device."""

    address: int
    configured: bool
    listening: bool
    drained: bool
    left_slow: bool


class Host:
    """Tokens on the bus, and the control transfers made of them."""

    def __init__(self, program: Path) -> None:
        self.has_serial_number = self.stays_after_touch = program.name == "ideal"
        self.process = subprocess.Popen(
            [str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def give(self, what: str, endpoint: int = 0, data: bytes = b"", count: int = 0) -> None:
        """An order whose answer is asked for later."""
        assert self.process.stdin is not None
        self.process.stdin.write(what.encode() + struct.pack("<BH", endpoint & 0x7F, count or len(data)) + data)
        self.process.stdin.flush()

    def answer(self) -> tuple[str, bytes]:
        stdout = self.process.stdout
        assert stdout is not None
        head = stdout.read(3)
        if len(head) != 3:
            raise AssertionError(self.process.communicate()[1].decode())
        kind, length = struct.unpack("<cH", head)
        return kind.decode(), stdout.read(length)

    def order(self, what: str, endpoint: int = 0, data: bytes = b"", count: int = 0) -> tuple[str, bytes]:
        self.give(what, endpoint, data, count)
        return self.answer()

    def reset(self) -> None:
        self.order("R")

    def facts(self) -> Facts:
        return Facts(*self.order("?")[1])

    def setup(self, kind: int, request: int, value: int, index: int, length: int) -> None:
        assert self.order("S", data=struct.pack("<BBHHH", kind, request, value, index, length))[0] == "A"

    def control_in(self, kind: int, request: int, value: int, index: int, length: int) -> bytes:
        """Data until a short packet or as many as asked for, then the status stage (USB 2.0, 8.5.3)."""
        self.setup(kind, request, value, index, length)
        reply = b""
        while len(reply) < length:
            state, packet = self.order("I")
            if state == "S":
                raise Stalled
            assert state == "D", "data that never come"
            reply += packet
            if len(packet) < PACKET_BYTES:
                break
        assert len(reply) <= length
        state, _ = self.order("O") if length else self.order("I")
        if state == "S":
            raise Stalled
        assert state == "A" if length else state in "DN"
        return reply

    def control_out(self, kind: int, request: int, value: int, index: int = 0, data: bytes = b"") -> None:
        self.setup(kind, request, value, index, len(data))
        for start in range(0, len(data), PACKET_BYTES):
            state, _ = self.order("O", data=data[start : start + PACKET_BYTES])
            if state == "S":
                raise Stalled
            assert state == "A"
        state, packet = self.order("I")
        if state == "S":
            raise Stalled
        assert (state, packet) == ("D", b"")

    def descriptor(self, kind: int, index: int = 0, length: int = 255, language: int = 0) -> bytes:
        return self.control_in(FROM_DEVICE, GET_DESCRIPTOR, kind << 8 | index, language, length)

    def open_terminal(self) -> None:
        self.reset()
        self.control_out(0, SET_CONFIGURATION, 1)
        self.control_out(TO_CLASS, SET_CONTROL_LINE_STATE, 3)

    def read_all(self) -> bytes:
        """Bulk IN until there is nothing."""
        data = b""
        while (answer := self.order("I", IN))[0] == "D":
            data += answer[1]
        assert answer[0] == "N"
        return data


@pytest.fixture(scope="module", params=["ideal", "rp2040"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent above a controller that is nothing but cdc.h's contract, and above RP2040's driver and registers."""
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs gcc or clang")
    here, ports = Path(__file__).parent, FIRMWARE / "ports"
    directory = tmp_path_factory.mktemp("usb")
    bundle = write_tiny_bundle(directory / "bundle")
    glue = directory / "glue.c"
    glue.write_text(model_source(read_manifest(bundle), load_board("host")))
    sources = [
        *(FIRMWARE / "agent" / name for name in AGENTS["edgeq"]),
        ports / "usb/cdc.c",
        here / "usb_bus.c",
        bundle / "src/tiny.c",
        glue,
    ]
    include = [FIRMWARE / "agent", ports / "usb", here, bundle / "include"]
    options = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-DEDGEQ_PROFILE_HOOK=edgeq_agent_layer"]
    if request.param == "rp2040":
        if sys.platform != "linux" or sys.maxsize < 1 << 32:
            pytest.skip("maps memory at the chip's addresses")
        sources += [here / "usb_rp2040/bus.c", ports / "rp2/usb.c"]
        include = [here / "usb_rp2040", *include, ports / "rp2", ports / "rp2040"]
        options += ["-DEDGEQ_USB_VENDOR=0x2341u", "-DEDGEQ_USB_PRODUCT=0x805Au", "-Wno-int-to-pointer-cast"]
    else:
        sources.append(here / "usb_ideal.c")
    line = [compiler, *SANITIZERS, *options, *(f"-I{place}" for place in include), *map(str, sources)]
    subprocess.run([*line, "-o", str(directory / request.param)], check=True)
    return directory / request.param


@pytest.fixture(scope="module")
def shared_host(program: Path) -> Iterator[Host]:
    """One device for all; at the end it must leave without a complaint."""
    host = Host(program)
    try:
        yield host
        _, complaint = host.process.communicate(timeout=30)
        assert (host.process.returncode, complaint) == (0, b"")
    finally:
        host.process.kill()


@pytest.fixture
def host(shared_host: Host) -> Host:
    shared_host.reset()
    return shared_host


def test_enumeration_as_a_host_does_it(host: Host):
    """Device descriptor's first 8 bytes at address 0, reset, address, the rest (USB 2.0, 9.1.2)."""
    first = host.control_in(FROM_DEVICE, GET_DESCRIPTOR, DEVICE << 8, 0, 8)
    assert len(first) == 8 and first[7] == PACKET_BYTES
    host.reset()
    host.setup(0, SET_ADDRESS, 5, 0, 0)
    assert host.facts().address == 0, "the address holds from the status stage on"
    assert host.order("I") == ("D", b"")
    assert host.facts().address == 5
    device = struct.unpack("<BBHBBBBHHHBBBB", host.descriptor(DEVICE))
    assert device[:3] == (18, DEVICE, 0x0200)
    assert device[7:9] == (0x2341, 0x805A)
    assert device[13] == 1
    for index in device[10:13]:
        string = host.descriptor(STRING, index, language=0x0409)
        assert string[:2] == bytes((len(string), STRING))
        assert string[2:].decode("utf-16-le").isprintable()
    assert host.descriptor(STRING, 0) == bytes((4, STRING, 9, 4))
    assert host.control_in(FROM_DEVICE, GET_CONFIGURATION, 0, 0, 1) == b"\0"
    host.control_out(0, SET_CONFIGURATION, 1)
    assert host.control_in(FROM_DEVICE, GET_CONFIGURATION, 0, 0, 1) == b"\1"
    for wrong in (QUALIFIER, 7, 0x0F):
        with pytest.raises(Stalled):
            host.descriptor(wrong)
    host.reset()
    assert host.facts()[:3] == (0, False, False)


def test_descriptors_after_the_tables_of_the_specifications(host: Host):
    """USB 2.0 tables 9-10, 9-12, 9-13; the association of the interface ECN; CDC 1.2 table 15, PSTN 1.2 table 4."""
    head = host.descriptor(CONFIGURATION, length=9)
    (total,) = struct.unpack_from("<H", head, 2)
    whole = host.descriptor(CONFIGURATION, length=total)
    assert len(whole) == total and host.descriptor(CONFIGURATION, length=4096) == whole
    parts = []
    while whole:
        assert 2 <= whole[0] <= len(whole)
        parts.append(whole[: whole[0]])
        whole = whole[whole[0] :]
    of = {kind: [part for part in parts if part[1] == kind] for kind in (2, 4, 5, 11, 0x24)}
    assert [len(of[kind]) for kind in (2, 4, 5, 11)] == [1, 2, 3, 1] and sum(map(len, of.values())) == len(parts)
    assert {kind: {len(part) for part in of[kind]} for kind in (2, 4, 5, 11)} == {2: {9}, 4: {9}, 5: {7}, 11: {8}}
    assert head[4] == len(of[4]) and head[7] & 0x9F == 0x80
    assert [(part[2], part[4], part[5]) for part in of[4]] == [(0, 1, 2), (1, 2, 10)]
    assert of[11][0][2:6] == bytes((0, 2, 2, 2))
    assert {part[2]: part[2:] for part in of[0x24]} == {
        0: b"\0\x20\1",
        1: b"\1\0\1",
        2: b"\2\2",
        6: b"\6\0\1",
    }
    assert of[0x24][0][2] == 0, "the header comes first"
    assert {part[2]: (part[3], *struct.unpack_from("<H", part, 4)) for part in of[5]} == {
        NOTIFY: (3, 8),
        OUT: (2, 64),
        IN: (2, 64),
    }


def test_a_reply_of_whole_packets_ends_in_an_empty_one(host: Host):
    """The harness's serial number fills 64 bytes; asked for exactly, nothing follows (USB 2.0, 5.5.3)."""
    if not host.has_serial_number:
        pytest.skip("has no serial number")
    host.setup(FROM_DEVICE, GET_DESCRIPTOR, STRING << 8 | 3, 0x0409, 255)
    assert len(host.order("I")[1]) == PACKET_BYTES
    assert host.order("I") == ("D", b"")
    assert host.order("O")[0] == "A"
    assert len(host.descriptor(STRING, 3, length=PACKET_BYTES, language=0x0409)) == PACKET_BYTES


def test_line_coding_and_the_touch_at_1200_baud(host: Host):
    host.open_terminal()
    coding = struct.pack("<IBBB", 1200, 0, 0, 8)
    host.control_out(TO_CLASS, SET_LINE_CODING, 0, data=coding)
    assert host.control_in(FROM_CLASS, GET_LINE_CODING, 0, 0, 7) == coding
    assert host.facts().listening and not host.facts().left_slow
    if host.stays_after_touch:  # the others leave for a boot loader
        host.control_out(TO_CLASS, SET_CONTROL_LINE_STATE, 2)
        assert not host.facts().listening and host.facts().left_slow
    host.open_terminal()
    host.control_out(TO_CLASS, SET_CONTROL_LINE_STATE, 0)
    assert not host.facts().left_slow
    with pytest.raises(Stalled):
        host.control_out(TO_CLASS, SET_LINE_CODING, 0, data=coding[:6])


@pytest.mark.parametrize("endpoint", [OUT, IN, NOTIFY])
def test_halt(host: Host, endpoint: int):
    with pytest.raises(Stalled):
        host.control_out(TO_ENDPOINT, SET_FEATURE, 0, endpoint)  # not configured
    host.open_terminal()
    host.control_out(TO_ENDPOINT, SET_FEATURE, 0, endpoint)
    assert host.control_in(0x82, GET_STATUS, 0, endpoint, 2) == b"\1\0"
    assert host.order("O" if endpoint == OUT else "I", endpoint)[0] == "S"
    host.order("w", data=b"held back")
    host.control_out(TO_ENDPOINT, CLEAR_FEATURE, 0, endpoint)
    assert host.control_in(0x82, GET_STATUS, 0, endpoint, 2) == b"\0\0"
    assert host.read_all() == b"held back"
    assert host.order("O", OUT, b"on")[0] == "A"
    assert host.order("r", count=9)[1] == b"on"


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 127, 128, 129, 1024])
def test_bulk_both_ways(host: Host, length: int):
    host.open_terminal()
    data = bytes((7 * i + i // 256) & 0xFF for i in range(length))
    for start in range(0, length, PACKET_BYTES):
        assert host.order("O", OUT, data[start : start + PACKET_BYTES])[0] == "A"
    assert host.order("r", count=RING_BYTES)[1] == data
    assert host.order("w", data=data)[1] == struct.pack("<H", length)
    packets = []
    while (answer := host.order("I", IN))[0] == "D":
        packets.append(answer[1])
    assert b"".join(packets) == data
    assert not packets or len(packets[-1]) < PACKET_BYTES, "the host must see an end"
    assert host.facts().drained


def test_a_full_ring_holds_the_host_back_and_loses_nothing(host: Host):
    host.open_terminal()
    sent = b""
    while host.order("O", OUT, packet := bytes(((len(sent) >> 6) + 1,)) * PACKET_BYTES)[0] == "A":
        sent += packet
    assert len(sent) == RING_BYTES + PACKET_BYTES, "one more lies in the endpoint"
    assert host.order("O", OUT, packet)[0] == "N"
    assert host.order("r", count=PACKET_BYTES)[1] == sent[:PACKET_BYTES]
    assert host.order("O", OUT, packet)[0] == "A"
    rest = b""
    while part := host.order("r", count=200)[1]:
        rest += part
    assert rest == sent[PACKET_BYTES:] + packet


def test_clearing_a_halt_forgets_the_packet_that_waited(host: Host):
    host.open_terminal()
    while host.order("O", OUT, bytes(PACKET_BYTES))[0] == "A":
        pass
    host.control_out(TO_ENDPOINT, SET_FEATURE, 0, OUT)
    host.control_out(TO_ENDPOINT, CLEAR_FEATURE, 0, OUT)
    assert host.order("r", count=RING_BYTES)[1] == bytes(RING_BYTES)
    assert host.order("O", OUT, b"on")[0] == "A"
    assert host.order("r", count=9)[1] == b"on"


def test_output_is_dropped_where_nobody_listens(host: Host):
    for prepare in (host.reset, lambda: host.control_out(0, SET_CONFIGURATION, 1)):
        prepare()
        assert host.order("w", data=bytes(4000))[1] == struct.pack("<H", 4000)
        assert host.facts().drained
    assert host.order("I", IN)[0] == "N"
    host.control_out(TO_CLASS, SET_CONTROL_LINE_STATE, 1)
    assert host.order("w", data=bytes(4000))[1] == struct.pack("<H", RING_BYTES)
    host.control_out(TO_CLASS, SET_CONTROL_LINE_STATE, 0)
    assert host.facts().drained
    assert len(host.read_all()) <= PACKET_BYTES, "what lay in the endpoint already"


def test_a_reset_or_a_new_setup_amid_a_transfer(host: Host):
    host.open_terminal()
    host.order("w", data=bytes(300))
    host.order("O", OUT, b"old")
    host.setup(FROM_DEVICE, GET_DESCRIPTOR, CONFIGURATION << 8, 0, 255)
    assert len(host.order("I")[1]) == PACKET_BYTES
    assert host.descriptor(DEVICE)[0] == 18
    host.setup(TO_CLASS, SET_LINE_CODING, 0, 0, 7)
    assert host.descriptor(DEVICE)[0] == 18
    host.reset()
    assert host.order("I", IN)[0] == "T"
    host.open_terminal()
    assert host.read_all() == b"" and host.order("r", count=9)[1] == b""


requests = st.tuples(
    st.sampled_from((0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x21, 0xA1)) | st.integers(0, 255),
    st.sampled_from((0, 1, 3, 5, 6, 8, 9, 10, 11, 0x20, 0x21, 0x22)) | st.integers(0, 255),
    st.sampled_from((0, 1, 2, 0x100, 0x200, 0x300, 0x301, 0x302, 0x303)) | st.integers(0, 0xFFFF),
    st.sampled_from((0, 1, OUT, IN, NOTIFY)) | st.integers(0, 0xFFFF),
    st.sampled_from((0, 1, 2, 7, 8, 9, 18, 64, 75, 255)) | st.integers(0, 0xFFFF),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(st.tuples(requests, st.integers(0, 3), st.binary(max_size=PACKET_BYTES)), max_size=12))
def test_any_request_is_refused_or_answered_within_its_length(
    host: Host, script: list[tuple[tuple[int, int, int, int, int], int, bytes]]
):
    """Whatever comes, amid whatever; afterwards the device enumerates and echoes."""
    for request, tokens, packet in script:
        host.setup(*request)
        for _ in range(tokens):
            host.order("O", OUT, packet)
            host.order("w", data=packet)
            host.order("I", IN)
        kind, _, _, _, length = request
        received, state = 0, "D"
        if kind & 0x80 and length:
            while state == "D" and received < length:
                state, data = host.order("I")
                received += len(data)
                if len(data) < PACKET_BYTES:
                    break
            assert state in "DS" and received <= length
            assert host.order("I")[0] in "NS", "no more than what was asked for"
            assert host.order("O")[0] == ("A" if state == "D" else "S")
        else:
            if length:
                host.order("O", data=packet[:length])
            host.order("I")
    host.open_terminal()
    host.order("r", count=RING_BYTES)
    host.order("O", OUT, b"ping")
    assert host.order("r", count=9)[1] == b"ping"
    host.order("w", data=b"pong")
    assert host.read_all() == b"pong"


def test_the_agent_answers_hello(host: Host):
    host.open_terminal()
    request = b"\0" + al.encode(al.HELLO, 1, 1, struct.pack("<I", 1))
    for start in range(0, len(request), PACKET_BYTES):
        assert host.order("O", OUT, request[start : start + PACKET_BYTES])[0] == "A"
    host.order("a")
    frames = [frame for frame in host.read_all().split(b"\0") if frame]
    assert [al.decode(frame).command & 0x7F for frame in frames] == [al.HELLO]
    assert al.decode(frames[0]).sequence == 1


def test_control_transfers_in_the_middle_of_a_run(host: Host):
    """A host that opens the port anew, or asks for anything else, while the model computes is answered at once."""
    host.open_terminal()
    replies = []
    for command, payload, orders in ((al.HELLO, struct.pack("<I", 7), 0), (al.RUN, struct.pack("<H18x", 1), 7)):
        assert host.order("O", OUT, al.encode(command, 1 + orders, 7, payload))[0] == "A"
        host.give("a", count=orders)
        if orders:
            coding = struct.pack("<IBBB", 921_600, 0, 0, 8)
            host.control_out(TO_CLASS, SET_LINE_CODING, 0, data=coding)
            assert host.control_in(FROM_CLASS, GET_LINE_CODING, 0, 0, 7) == coding
            assert host.order("I", IN)[0] == "N", "the run has not ended"
        assert host.answer()[0] == "A"
        replies += [al.decode(frame) for frame in host.read_all().split(b"\0") if frame]
    assert [(reply.command & 0x7F, reply.status) for reply in replies] == [(al.HELLO, al.OK), (al.RUN, al.OK)]


def test_the_port_is_closed_and_the_bus_reset_in_the_middle_of_a_run(host: Host):
    """Nothing of the run's reply reaches whoever opens the port next, and HELLO is answered."""
    host.open_terminal()
    for command, payload, orders in ((al.HELLO, struct.pack("<I", 9), 0), (al.RUN, struct.pack("<H18x", 1), 3)):
        host.order("O", OUT, al.encode(command, 1 + orders, 9, payload))
        host.give("a", count=orders)
        if orders:
            host.control_out(TO_CLASS, SET_CONTROL_LINE_STATE, 0)
            host.reset()
        assert host.answer()[0] == "A"
    host.control_out(0, SET_CONFIGURATION, 1)
    host.control_out(TO_CLASS, SET_CONTROL_LINE_STATE, 3)
    assert host.read_all() == b""
    assert host.order("O", OUT, al.encode(al.HELLO, 1, 10, struct.pack("<I", 10)))[0] == "A"
    host.order("a")
    (reply,) = [al.decode(frame) for frame in host.read_all().split(b"\0") if frame]
    assert (reply.command & 0x7F, reply.status) == (al.HELLO, al.OK)
