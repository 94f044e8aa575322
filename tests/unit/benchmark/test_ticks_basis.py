"""A result says by which clock it was timed, and which caches were on: after HELLO's fields in PROTOCOL.md."""

from __future__ import annotations

import struct

import pytest

from edgeq.benchmark.run import _unit
from edgeq.boards import load_board
from edgeq.device.messages import Hello


@pytest.mark.parametrize(
    ("capabilities", "words"),
    [(0x00, ""), (0x20, ", instruction cache on"), (0x60, ", instruction and data cache on")],
)
def test_clock_and_caches(capabilities: int, words: str) -> None:
    payload = bytearray(208)
    payload[12] = 2
    struct.pack_into("<HIIIII", payload, 14, 1, 480_000_000, 480_000_000, 1024, 0, capabilities)
    struct.pack_into("<HHHHHH", payload, 36, 1024, 32, 0, 0, 1, 8)
    unit = _unit(Hello.parse(bytes(payload)), load_board("nucleo-h743zi"))
    assert unit == ("cycles", f"the timer of nucleo-h743zi at 480,000,000 Hz{words}")
