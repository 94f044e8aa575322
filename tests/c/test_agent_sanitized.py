"""The agent under AddressSanitizer and UndefinedBehaviorSanitizer, fed with what no host would send."""

from __future__ import annotations

import random
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import agent_link as al
import pytest
from agent_link import Link, encode, run_request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_bundle import COMMAND_BYTES, INPUT_BYTES, write_tiny_bundle

from edgeq.boards import load_board
from edgeq.toolchain import model_source, read_manifest
from edgeq.toolchain.port import AGENTS

FIRMWARE = Path(__file__).parents[2] / "firmware"
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-g")
FRAMES = 3000


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The host's agent, compiled with sanitizers."""
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs gcc or clang")
    directory = tmp_path_factory.mktemp("sanitized")
    bundle = write_tiny_bundle(directory / "bundle")
    glue = directory / "glue.c"
    glue.write_text(model_source(read_manifest(bundle), load_board("host")))
    sources = [
        *(FIRMWARE / "agent" / name for name in AGENTS["edgeq"]),
        FIRMWARE / "ports/host/port.c",
        bundle / "src/tiny.c",
        glue,
    ]
    options = [f"-I{FIRMWARE / 'agent'}", f"-I{bundle / 'include'}", "-DEDGEQ_PROFILE_HOOK=edgeq_agent_layer"]
    subprocess.run([compiler, *SANITIZERS, *options, *map(str, sources), "-o", str(directory / "agent")], check=True)
    return directory / "agent"


@contextmanager
def running(agent: Path) -> Iterator[Link]:
    """The agent; at the end it must have left by itself and without a complaint."""
    here, there = socket.socketpair()
    process = subprocess.Popen([str(agent)], stdin=there, stdout=there, stderr=subprocess.PIPE)
    there.close()
    try:
        yield Link(here)
        here.shutdown(socket.SHUT_WR)
        _, complaint = process.communicate(timeout=30)
        assert (process.returncode, complaint) == (0, b"")
    finally:
        process.kill()
        here.close()


def still_sound(link: Link) -> None:
    """After any rubbish a plain session works."""
    x = bytes(range(256)) * (INPUT_BYTES // 256 + 1)
    link.hello()
    link.ask(al.RESET, b"\0")
    link.write(0, x[:INPUT_BYTES])
    link.write(1, bytes(COMMAND_BYTES))
    assert link.run(2, al.PROFILE).status == al.OK
    assert link.read(1, 0, INPUT_BYTES) == b"\2" + bytes(byte ^ 0x5A for byte in x[1:INPUT_BYTES])


def test_random_bytes(agent: Path):
    with running(agent) as link:
        for seed in range(50):
            link.send(random.Random(seed).randbytes(4000))
            while link.receive(0.01):
                pass
        still_sound(link)


def test_random_requests_in_a_session(agent: Path):
    """Whole frames with right checksums and any content; board resets and runs that crash on purpose left out."""
    source = random.Random(7)
    with running(agent) as link:
        link.hello()
        for _ in range(FRAMES):
            command = source.choice((al.HELLO, al.WRITE, al.READ, al.RUN, al.LAYERS, al.MEMORY, al.FAULT, 9, 0, 127))
            payload = source.randbytes(source.choice((0, 1, 4, 8, 12, 20, source.randrange(1100))))
            if source.random() < 0.7:
                payload = bytes(byte if source.random() < 0.3 else 0 for byte in payload)
            if command == al.WRITE:
                payload = payload[:8]
            link.sequence = (link.sequence + source.choice((0, 1, 1, 1, 0x8000))) & 0xFFFF
            link.send(encode(command, link.sequence, link.session, payload))
            reply = link.receive()
            while reply is not None and reply.status == al.PROGRESS:
                reply = link.receive()
            assert reply is not None
        still_sound(link)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 40), flip=st.integers(0, 39), bit=st.integers(0, 7), again=st.integers(1, 3))
def test_damaged_requests_never_do_anything(agent: Path, cut: int, flip: int, bit: int, again: int):
    """A frame cut off or with a bit turned is answered by CORRUPT, or as some other frame; the run count stays."""
    with running(agent) as link:
        link.hello()
        whole = encode(al.RUN, link.sequence + 1, link.session, run_request(1, 0))
        damaged = bytearray(whole[: len(whole) - cut] if cut < len(whole) else b"")
        if flip < len(damaged) - 1:
            damaged[flip] ^= 1 << bit
        for _ in range(again):
            # What lost its last zero alone is whole: a zero follows.
            if bytes(damaged).rstrip(b"\0") != whole.rstrip(b"\0"):
                link.send(bytes(damaged) + b"\0")
        while reply := link.receive(0.05):
            assert reply.status == al.CORRUPT
        link.run()
        assert link.read(1, 0, 1) == b"\1"


def test_protocol_examples(agent: Path):
    """The agent takes the requests of PROTOCOL.md's examples, to the byte."""
    text = (FIRMWARE / "PROTOCOL.md").read_text().split("## Examples")[1]
    rows = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in text.splitlines() if "`" in line
    ]
    frames = {row[0].split(",")[0]: bytes.fromhex(row[6]) for row in rows if len(row) == 7}
    with running(agent) as link:
        link.receive()
        for name, status in (("HELLO request", al.OK), ("MEMORY request", al.OK), ("WRITE request", al.OK)):
            link.send(frames[name])
            reply = link.receive()
            assert reply is not None
            assert reply.status == status
        assert reply.payload == struct.pack("<I", 6)
        assert link.last_frame + b"\0" == frames["WRITE reply"]
        link.send(frames["RUN request"])
        reply = link.receive()
        assert reply is not None
        assert reply.status == al.INPUT_MISMATCH
        assert link.buffer == b""
