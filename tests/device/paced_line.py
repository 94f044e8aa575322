"""A serial line of a given speed: a pty on this side, a socket on the agent's, bytes no faster than the line's."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
import tty
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from edgeq.toolchain import Image

_QUANTUM_BYTES = 64
"""Bytes are passed on in portions of so many, as packets of a full-speed USB adapter hand them over."""


class _Direction:
    """Bytes of one direction with the time at which the line has carried each portion."""

    def __init__(self, source: int, target: int, baud: int) -> None:
        self.source, self.target = source, target
        self.count = 0
        self._byte_s = 10 / baud
        self._free_at = 0.0
        self._portions: deque[tuple[float, bytes]] = deque()

    def take(self) -> None:
        data = os.read(self.source, 4096)
        self.count += len(data)
        start = max(self._free_at, time.monotonic())
        for at in range(0, len(data), _QUANTUM_BYTES):
            portion = data[at : at + _QUANTUM_BYTES]
            start += len(portion) * self._byte_s
            self._portions.append((start, portion))
        self._free_at = start

    def pass_on(self) -> float:
        """Pass on what has arrived; seconds until there is more."""
        now = time.monotonic()
        ready = bytearray()
        while self._portions and self._portions[0][0] <= now:
            ready += self._portions.popleft()[1]
        if ready:
            os.write(self.target, ready)
        return max(self._portions[0][0] - now, 0.0) if self._portions else 1.0


def carry(elf: str, baud: int) -> None:
    """Run the agent `elf` behind the line, whose pty is named on standard output, until standard input ends."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen([elf], stdin=theirs, stdout=theirs)
    theirs.close()
    master, slave = os.openpty()
    tty.setraw(slave)
    ends = (_Direction(master, ours.fileno(), baud), _Direction(ours.fileno(), master, baud))
    print(os.ttyname(slave), flush=True)
    wait_s = 1.0
    while True:
        ready, _, _ = select.select([end.source for end in ends] + [0], [], [], wait_s)
        if 0 in ready:
            break
        for end in ends:
            if end.source in ready:
                end.take()
        wait_s = min(end.pass_on() for end in ends)
    process.kill()
    process.wait()


@contextmanager
def paced_board(image: Image, baud: int) -> Iterator[str]:
    """The board `host` behind a line of `baud`, eight data bits, no parity, one stop bit; the pty's name."""
    command = [sys.executable, __file__, str(image.elf.resolve()), str(baud)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            process.wait()


if __name__ == "__main__":
    carry(sys.argv[1], int(sys.argv[2]))
