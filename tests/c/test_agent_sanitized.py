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
BUS = r"""
#include <string.h>
#include "agent.h"

void host_info(edgeq_port_info_t *info);

void edgeq_port_info(edgeq_port_info_t *info) {
    host_info(info);
    info->capabilities |= EDGEQ_CAN_I2C;
}

/* At 0x40 a chip whose register 1 is 02 80, others of its number and 00; at 0x41 one that holds the bus. */
uint32_t edgeq_port_i2c(uint8_t address, const uint8_t *out, uint32_t out_bytes, uint8_t *in, uint32_t in_bytes) {
    static uint8_t at;
    if (address != 0x40) {
        return address == 0x41 ? EDGEQ_I2C_STUCK : EDGEQ_I2C_NO_ANSWER;
    }
    for (uint32_t i = 0; i < out_bytes; ++i) {
        at = i == 0 ? out[0] : at;
    }
    memset(in, 0, in_bytes);
    if (in_bytes != 0) {
        in[0] = at == 1 ? 0x02 : at;
    }
    if (in_bytes > 1) {
        in[1] = at == 1 ? 0x80 : 0;
    }
    return EDGEQ_I2C_OK;
}
"""
"""An I2C bus for the host's agent, which has none."""


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The host's agent, compiled with sanitizers and given a bus."""
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs gcc or clang")
    directory = tmp_path_factory.mktemp("sanitized")
    bundle = write_tiny_bundle(directory / "bundle")
    glue = directory / "glue.c"
    glue.write_text(model_source(read_manifest(bundle), load_board("host")))
    sources = [
        *(FIRMWARE / "agent" / name for name in AGENTS["edgeq"]),
        bundle / "src/tiny.c",
        glue,
        directory / "bus.c",
        directory / "port.o",
    ]
    (directory / "bus.c").write_text(BUS)
    options = [f"-I{FIRMWARE / 'agent'}", f"-I{bundle / 'include'}", "-DEDGEQ_PROFILE_HOOK=edgeq_agent_layer"]
    port = ["-Dedgeq_port_info=host_info", "-c", str(FIRMWARE / "ports/host/port.c"), "-o", str(directory / "port.o")]
    subprocess.run([compiler, *SANITIZERS, *options, *port], check=True)
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


def chip(source: random.Random) -> tuple[int, int]:
    """An address where something may answer, and the byte behind it."""
    return source.choice((0x07, 0x40, 0x41, 0x42, 0x78)), source.randrange(40)


def test_random_requests_in_a_session(agent: Path):
    """Whole frames with right checksums and any content; board resets and runs that crash on purpose left out."""
    source = random.Random(7)
    with running(agent) as link:
        link.hello()
        for _ in range(FRAMES):
            command = source.choice((*range(al.HELLO, al.I2C + 1), 0, 127))
            payload = source.randbytes(source.choice((0, 1, 4, 8, 12, 20, source.randrange(1100))))
            if source.random() < 0.7:
                payload = bytes(byte if source.random() < 0.3 else 0 for byte in payload)
            if command == al.WRITE:
                payload = payload[:8]
            elif command == al.RESET:
                payload = b"" if payload[:1] == b"\1" else payload
            elif command == al.RUN and source.random() < 0.3:
                payload = struct.pack("<HHHBB12x", source.randrange(3), 16, 0, *chip(source))
            elif command == al.I2C and source.random() < 0.7:
                payload = bytes((*chip(source), source.randrange(40))) + source.randbytes(source.randrange(40))
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
    """The agent takes the requests of PROTOCOL.md's examples in their order, and answers what is foretold."""
    text = (FIRMWARE / "PROTOCOL.md").read_text().split("## Examples")[1]
    rows = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in text.splitlines() if "`" in line
    ]
    rows = [row for row in rows if len(row) == 7]
    requests = [row for row in rows if " request" in row[0]]
    foretold = 0
    with running(agent) as link:
        link.receive()
        for row in requests:
            link.send(bytes.fromhex(row[6]))
            reply = link.receive()
            assert reply is not None
            assert (reply.command, reply.sequence) == (int(row[1], 0) | 0x80, int(row[2], 0)), row[0]
            shown = [other for other in rows if (int(other[1], 0), other[2]) == (reply.command, row[2])]
            if reply.command & 0x7F in (al.WRITE, al.I2C, al.RESET) or "sample" in row[0] or "input 0" in row[0]:
                assert (link.last_frame + b"\0").hex() == shown[0][6], row[0]
                foretold += 1
        assert foretold == 8
        assert len(requests) == 14
        assert link.buffer == b""
