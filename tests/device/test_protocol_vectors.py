"""The example frames of firmware/PROTOCOL.md, encoded with the cobs package and zlib."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from cobs import cobs

PROTOCOL = Path(__file__).parents[2] / "firmware" / "PROTOCOL.md"


def example_rows() -> list[list[str]]:
    section = PROTOCOL.read_text(encoding="utf-8").split("## Examples")[1]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def test_examples_are_what_cobs_and_zlib_make_of_their_fields():
    rows = example_rows()
    assert len(rows) == 32
    for what, command, sequence, session, status, payload_hex, frame_hex in rows:
        payload = bytes.fromhex(payload_hex.replace("-", ""))
        body = struct.pack(
            "<BBHIBBH", 1, int(command, 0), int(sequence, 0), int(session, 0), int(status), 0, len(payload)
        )
        body += payload
        expected = cobs.encode(body + struct.pack("<I", zlib.crc32(body))) + b"\0"
        assert frame_hex == expected.hex(), what


def test_every_command_has_a_request_and_a_reply():
    commands = PROTOCOL.read_text(encoding="utf-8").split("## Commands")[1].split("\n\n")[0]
    named = {int(line.split("|")[1], 0): line.split("|")[2].strip() for line in commands.splitlines() if "| 0x" in line}
    assert len(named) == 10
    shown = {(int(row[1], 0), row[0].split(" ")[0].rstrip(",")) for row in example_rows()}
    for value, name in named.items():
        assert (value, name) in shown
        assert value & 0x80 or (value | 0x80, name) in shown
