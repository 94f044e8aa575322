"""The same agent on emulated boards, built with each compiler: bytes, exact counts, memory, faults, reset."""

from __future__ import annotations

import random
import shutil
import struct
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import agent_link as al
import pytest
from agent_link import Link, encode, powered, run_request
from tiny_bundle import COMMAND_BYTES, INPUT_BYTES, LAYERS, write_tiny_bundle

from edgeq.boards import load_board
from edgeq.errors import ToolError
from edgeq.toolchain import Image, build

BOARDS = (
    *("qemu-mps2-an385", "qemu-mps2-an386", "qemu-mps2-an500", "qemu-mps2-an505", "qemu-mps3-an547"),
    *("qemu-netduinoplus2", "qemu-microbit", "qemu-riscv32-virt"),
)
X = random.Random(2).randbytes(INPUT_BYTES)
FAULT_KINDS = (1, 2, 3, 4, 6)

pytestmark = pytest.mark.qemu


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="module", params=list(product(BOARDS, ("gcc", "zig"))), ids="-".join)
def image(request: pytest.FixtureRequest, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    board, compiler = request.param
    virtual = load_board(board).virtual
    assert virtual is not None
    if shutil.which(virtual.emulator) is None:
        pytest.skip(f"needs {virtual.emulator}")
    try:
        return build(bundle, load_board(board), tmp_path_factory.mktemp("image") / "out", compiler=compiler)
    except ToolError as error:
        if error.code == "compiler-not-found":
            pytest.skip(f"needs {compiler} for {board}")
        raise


@pytest.fixture(scope="module")
def link(image: Image) -> Iterator[Link]:
    with powered(image, load_board(image.board)) as link:
        yield link


@pytest.fixture(autouse=True)
def new_session(link: Link) -> None:
    link.hello()
    link.ask(al.RESET, b"\0")
    link.write(1, bytes(COMMAND_BYTES))


def layer_ticks(link: Link, command: bytes) -> list[int]:
    link.write(1, command.ljust(COMMAND_BYTES, b"\0"))
    assert link.run(1, al.PROFILE).status == al.OK
    return list(struct.unpack(f"<HH{LAYERS}Q", link.ask(al.LAYERS, struct.pack("<HH", 0, LAYERS)).payload)[2:])


def test_bytes_come_out_as_on_the_host(link: Link):
    link.write(0, X)
    assert link.run(2).status == al.OK
    assert link.read(1, 0, INPUT_BYTES) == b"\2" + bytes(byte ^ 0x5A for byte in X[1:])


def test_the_timer_counts_single_instructions(link: Link):
    """100,000 turns of a loop of two instructions (tiny_wait) are 200,000 instructions more, on any compiler."""
    short, long = layer_ticks(link, b"\0\1"), layer_ticks(link, b"\0\2")
    assert abs(long[1] - short[1] - 200_000) <= 2
    assert abs(long[0] - short[0]) <= 2


def test_runs_are_counted_alike_with_and_without_profile(link: Link):
    plain = struct.unpack_from("<3Q", link.run(3, al.TIMED).payload, 8)
    profiled = struct.unpack_from("<3Q", link.run(3, al.PROFILE).payload, 8)
    assert max(plain) - min(plain) <= 2
    assert abs(plain[0] - profiled[0]) <= 10 * LAYERS


def test_memory_of_stack_and_sections(link: Link, image: Image):
    link.run()
    memory = struct.unpack("<8I", link.ask(al.MEMORY).payload)
    assert memory[2] == image.sizes.stack_bytes
    assert 0 < memory[4] < memory[3] < memory[2]
    assert memory[6] == image.sizes.data_bytes
    assert 0 <= image.sizes.bss_bytes - memory[7] <= 256


@pytest.mark.parametrize(("number", "function"), [(2, "tiny_misbehave"), (3, "tiny_misbehave"), (4, None)])
def test_a_fault_is_recorded_over_the_restart(link: Link, image: Image, number: int, function: str | None):
    boots = struct.unpack_from("<II", link.hello().payload)[1]
    link.write(1, bytes([number, 0, 0, 0]))
    link.send(encode(al.RUN, link.sequence + 1, link.session, run_request(1, 0)))
    event = link.receive()
    assert event is not None
    assert event.command == 0xA0
    assert struct.unpack("<II", event.payload) == (boots + 1, 2)
    assert link.ask(al.MEMORY).status == al.NO_SESSION
    link.hello()
    record = struct.unpack("<24I", link.ask(al.FAULT, b"\0").payload)
    assert record[0] in FAULT_KINDS
    assert record[14:17] == (al.RUN, 2, boots)
    if function is not None:
        location = image.locate(record[1])
        assert location is not None
        assert location.function == function
        assert Path(location.file).name == "tiny.c"
    assert link.ask(al.FAULT, b"\1").payload == bytes(96)


def test_reset_of_the_board(link: Link):
    boots = struct.unpack_from("<II", link.hello().payload)[1]
    assert link.ask(al.RESET, b"\1").status == al.OK
    event = link.receive()
    assert event is not None
    assert struct.unpack("<II", event.payload) == (boots + 1, 1)
