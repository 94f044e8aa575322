"""Both ends of the link on the same hostile bytes: the C decoder under sanitizers and Python's reader must agree."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
import time
import zlib
from pathlib import Path

import pytest
from cobs import cobs

from edgeq.device.frames import REPLY, Command, Frame, FrameError, FrameReader, Status, decode, encode
from edgeq.device.messages import Sample, Space
from edgeq.device.session import Session, Timing
from edgeq.errors import DeviceError

FIRMWARE = Path(__file__).parents[2] / "firmware"
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-g")
STREAMS = 300
HARNESS = r"""
#include <stdio.h>
#include <stdlib.h>
#include "wire.h"

static void put(const uint8_t *bytes, uint32_t length) {
    for (uint32_t i = 0; i < length; ++i) printf("%02x", bytes[i]);
}

/* Decodes standard input; each whole frame is encoded again, too: "W content encoded", "C" for what is none. */
int main(void) {
    const uint32_t capacity = 70000;
    uint8_t *buffer = malloc(capacity);
    edgeq_decoder_t decoder;
    edgeq_encoder_t encoder = {.write = put};
    edgeq_decoder_init(&decoder, buffer, capacity);
    for (int byte = getchar(); byte != EOF; byte = getchar()) {
        switch (edgeq_decode(&decoder, (uint8_t)byte)) {
        case EDGEQ_FRAME_NONE: break;
        case EDGEQ_FRAME_WHOLE:
            printf("W ");
            put(buffer, decoder.length - EDGEQ_CRC_BYTES);
            printf(" ");
            edgeq_encode_begin(&encoder);
            edgeq_encode(&encoder, buffer, decoder.length - EDGEQ_CRC_BYTES);
            edgeq_encode_end(&encoder);
            printf("\n");
            break;
        default: printf("C\n"); break;
        }
    }
    free(buffer);
    return 0;
}
"""


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs gcc or clang")
    directory = tmp_path_factory.mktemp("frames")
    (directory / "harness.c").write_text(HARNESS)
    agent = FIRMWARE / "agent"
    command = [compiler, "-std=c99", *SANITIZERS, f"-I{agent}", str(directory / "harness.c"), str(agent / "wire.c")]
    subprocess.run([*command, "-o", str(directory / "harness")], check=True)
    return directory / "harness"


def stream(seed: int) -> bytes:
    """Frames of any content, some with a header that lies, damaged and mixed with rubbish."""
    source = random.Random(seed)
    parts = []
    for _ in range(source.randrange(1, 12)):
        payload = source.randbytes(source.choice((0, 1, 13, 253, 254, 255, 508, source.randrange(4200))))
        if source.random() < 0.4:
            payload = bytes(byte * (source.random() < 0.2) for byte in payload)
        fields = (source.randrange(256), source.randrange(256), source.randrange(1 << 16), source.randrange(1 << 32))
        length = len(payload) if source.random() < 0.9 else source.randrange(1 << 16)
        body = struct.pack("<BBHIBBH", *fields, source.randrange(256), 0, length) + payload
        data = bytearray(cobs.encode(body + struct.pack("<I", zlib.crc32(body))) + b"\0")
        match source.randrange(6):
            case 0:
                data[source.randrange(len(data))] ^= 1 << source.randrange(8)
            case 1:
                del data[source.randrange(len(data)) :]
            case 2:
                data[:0] = source.randbytes(source.randrange(300))
            case 3:
                data += bytes(source.randrange(4))
        parts.append(bytes(data))
    return b"".join(parts)


def test_c_and_python_see_the_same_frames(harness: Path) -> None:
    whole = broken = 0
    for seed in range(STREAMS):
        data = stream(seed)
        done = subprocess.run([harness], input=data, capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, b""), seed
        lines = [line.split(" ") for line in done.stdout.decode("ascii").splitlines()]
        contents = [bytes.fromhex(line[1]) for line in lines if line[0] == "W"]
        told = [content for content in contents if int.from_bytes(content[10:12], "little") == len(content) - 12]
        reader, frames, source = FrameReader(), list[Frame](), random.Random(seed)
        while data:
            count = source.randrange(1, 700)
            frames += reader.feed(data[:count])
            data = data[count:]
        assert [frame.payload for frame in frames] == [content[12:] for content in told], seed
        assert [(frame.command, frame.sequence) for frame in frames] == [
            struct.unpack_from("<BH", content, 1) for content in told
        ]
        lying = len(contents) - len(told)
        assert reader.invalid == sum(line[0] == "C" for line in lines) + lying, seed
        for line in lines:
            if line[0] == "W":
                content = bytes.fromhex(line[1])
                theirs = cobs.encode(content + struct.pack("<I", zlib.crc32(content))) + b"\0"
                assert bytes.fromhex(line[2]) == theirs, seed
        whole, broken = whole + len(told), broken + reader.invalid
    assert whole > 300
    assert broken > 300


class HostileAgent:
    """Answers every request, with the right sequence number and session, by anything."""

    name = "hostile"

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._pending = b""

    def write(self, data: bytes) -> None:
        try:
            request = decode(data.strip(b"\0"))
        except FrameError:
            return
        for _ in range(self._random.randrange(1, 4)):
            self._pending += encode(self._answer(request))

    def read(self, timeout_s: float) -> bytes:
        if not self._pending:
            time.sleep(min(timeout_s, 0.002))
        data, self._pending = self._pending, b""
        return data

    def close(self) -> None: ...

    def _answer(self, request: Frame) -> Frame:
        source = self._random
        if request.command == Command.HELLO and source.random() < 0.8:
            return Frame(Command.HELLO + REPLY, request.sequence, request.session, 0, self._hello())
        status = Status.OK if source.random() < 0.7 else source.randrange(20)
        payload = source.randbytes(source.choice((0, 4, 8, 16, 32, 96, source.randrange(300))))
        return Frame((request.command + REPLY) & 0xFF, request.sequence, request.session, status, payload)

    def _hello(self) -> bytes:
        source = self._random
        inputs, outputs = source.randrange(20), source.randrange(20)
        sizes = [source.choice((0, 1, 490, 0xFFFFFFFF)) for _ in range(inputs + outputs)]
        head = bytearray(source.randbytes(208))
        struct.pack_into("<HHHHHH", head, 36, source.choice((0, 64, 1024)), 1, inputs, outputs, 3, 8)
        return bytes(head) + struct.pack(f"<{len(sizes)}I", *sizes)


def test_whatever_the_agent_answers_is_a_result_or_a_named_error() -> None:
    timing = Timing(hello_s=0.05, hello_repeat_s=0.01, reply_s=0.005, attempts=2, silence_s=0.05)
    named = done = 0
    for seed in range(STREAMS):
        session = Session(HostileAgent(seed), timing=timing)
        for act in (
            session.hello,
            lambda session=session: session.write_input(0, bytes(100)),
            lambda session=session: session.run(1, timed=True, profile=True),
            session.layers,
            session.memory,
            session.fault,
            lambda session=session: session.run(2, sample=Sample(0x40, 1)),
            lambda session=session: session.i2c(0x40, b"\1", 2),
            session.reset_model,
            lambda session=session: session.read(Space.OUTPUT, 0, 100),
        ):
            try:
                act()
                done += 1
            except DeviceError as error:
                assert error.code
                assert error.what
                named += 1
                if act == session.hello:
                    break
    assert named > STREAMS
    assert done > STREAMS // 4


def loaded(source: random.Random) -> bytes:
    """Commands that load 640 floats of any bits, NaN and infinity among them, and infer."""
    data = struct.pack(
        "<640I", *(source.choice((0, 0x7FC00000, 0xFF800000, source.getrandbits(32))) for _ in range(640))
    )
    if source.random() < 0.5:
        data = struct.pack("<640f", *(source.uniform(-1e9, 1e9) for _ in range(640)))
    lines = "".join(f"db {data[at : at + 31].hex()}%" for at in range(0, len(data), 31))
    return f"db load 2560%{lines}infer 2 1%".encode("ascii")


def test_mlperf_commands_of_any_kind(shared: Path, tmp_path: Path) -> None:
    """The MLPerf Tiny firmware under sanitizers: commands out of its own words, numbers and rubbish."""
    from edgeq import api
    from edgeq.boards import load_board
    from edgeq.toolchain import model_source, read_manifest
    from edgeq.toolchain.port import AGENTS

    compiler = shutil.which("gcc") or pytest.skip("needs gcc")
    bundle = tmp_path / "bundle"
    api.bundle(shared / "models" / "ad01_int8.tflite", "host", bundle, name="ad01", agent="mlperf")
    manifest = read_manifest(bundle)
    (tmp_path / "glue.c").write_text(model_source(manifest, load_board("host")))
    sources = [FIRMWARE / "agent" / name for name in AGENTS["mlperf"]]
    sources += [FIRMWARE / "ports/host/port.c", tmp_path / "glue.c", *(bundle / name for name in manifest.sources())]
    include = [f"-I{FIRMWARE / 'agent'}", f"-I{bundle / 'include'}"]
    command = [
        compiler,
        "-std=gnu99",
        *SANITIZERS,
        "-fsanitize=float-cast-overflow",
        *include,
        *map(str, sources),
        "-lm",
        "-o",
        str(tmp_path / "agent"),
    ]
    subprocess.run(command, check=True)
    words = ["db", "load", "print", "infer", "results", "name", "profile", "timestamp", "help", "", " ", "\r\n", "2560"]
    for seed in range(20):
        source = random.Random(seed)
        said = loaded(source)
        for _ in range(400):
            parts = [source.choice([*words, str(source.randrange(4)), source.randbytes(4).hex(), "7fc00000" * 7])]
            parts += [source.choice([*words, str(source.randrange(3)), source.randbytes(31).hex()]) for _ in range(2)]
            if parts[0] == "infer":  # a handful of runs is enough
                parts[1:] = [part.replace("2560", "3") for part in parts[1:]]
            said += " ".join(parts).encode("ascii") + b"%"
            if source.random() < 0.1:
                said += source.randbytes(100)
        done = subprocess.run([tmp_path / "agent"], input=said, capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, b""), seed
        assert b"m-infer-done" in done.stdout
        # One at the start, one each; the first command's falls away, as another one follows at once.
        assert done.stdout.count(b"m-ready\r\n") == said.count(b"%")
