"""Boards for the campaign of faults, and one function for each kind of fault: what happened, in one word.

A run's outcome is "right" (every byte as it must be) or an error's code. Each kind says which are allowed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from faulty_line import KINDS as LINE_KINDS
from faulty_line import FaultyLine
from glitchy_board import glitchy_board
from tiny_bundle import COMMAND_BYTES, INPUT_BYTES, SOURCE, write_tiny_bundle

from edgeq.boards import load_board
from edgeq.device import connect
from edgeq.device.ports import Transport, open_port
from edgeq.device.session import Session, Timing
from edgeq.device.virtual import PoweredBoard, power_on
from edgeq.errors import EdgeqError
from edgeq.toolchain import Image, build

QUICK = Timing(hello_s=3.0, hello_repeat_s=0.05, reply_s=0.1, attempts=12, silence_s=2.0)
EMULATED = Timing(hello_s=10.0, hello_repeat_s=0.3, reply_s=2.0, attempts=4, silence_s=8.0, baud=57_600)
"""QEMU's UARTs take a byte at a time: repeating sooner than they take a request would only fill them up."""
PATIENT = Timing(hello_s=30.0, reply_s=10.0, silence_s=60.0)
LONGEST_S = 60.0
"""Seven requests, each bounded by its attempts, and what they left on the line; a virtual board's start."""
INPUT = bytes((i * 7 + i // 251) & 0xFF for i in range(INPUT_BYTES))
REQUESTS = 9
"""One more than HELLO, RESET, two of WRITE, RUN, LAYERS and READ; the last stages do not strike."""
LINE_ERRORS = {"right", "no-answer", "corrupted-frames"}


def expected(key: int = 0x5A) -> bytes:
    return b"\1" + bytes(value ^ key for value in INPUT[1:])


def infer(transport: Transport, *, timing: Timing = QUICK) -> bytes:
    """One whole inference from the model's initial state, over a new session."""
    session = Session(transport, timing=timing)
    session.hello()
    return infer_in(session)


def infer_in(session: Session) -> bytes:
    session.reset_model()
    session.write_input(0, INPUT)
    session.write_input(1, bytes(COMMAND_BYTES))
    assert session.run(timed=True, profile=True).ticks[0] > 0
    assert len(session.layers()) == session.info.layers
    return session.read_output(0)


def outcome(act: Callable[[], bytes], right: bytes | None = None) -> str:
    """The error's code, or "right"; anything else that comes back is a failure of the test itself."""
    try:
        got = act()
    except EdgeqError as error:
        assert error.what.endswith("."), error.what
        assert error.try_, error.code
        assert error.exit_status == (1 if error.code == "image-too-large" else 3), error.code
        return error.code
    assert got == (right or expected()), "a wrong result passed for a right one"
    return "right"


@dataclass(frozen=True)
class Lab:
    """Boards that run all the time, and what is needed to start others."""

    place: Path
    images: dict[str, Image]
    powered: dict[str, PoweredBoard]
    struck: set[str] = field(default_factory=set)
    """Those that a fault met since the last look at whether they work."""

    def infer(self, source: Random, **faults: object) -> str:
        """An inference over a faulty line on any of the boards, most often the quick one."""
        name = source.choices(list(self.powered), (15, 4, 1))[0]
        self.struck.add(name)
        line = FaultyLine(self.powered[name].transport, source.getrandbits(32), **faults)  # type: ignore[arg-type]
        return outcome(lambda: infer(line, timing=EMULATED if name.startswith("qemu") else QUICK))

    def works(self) -> None:
        """The next run works, on every board that was struck."""
        while self.struck:
            assert infer(self.powered[self.struck.pop()].transport, timing=PATIENT) == expected()


@contextmanager
def lab(place: Path, boards: tuple[str, ...]) -> Iterator[Lab]:
    bundle = write_tiny_bundle(place / "bundle")
    images = {name: build(bundle, load_board(name), place / name) for name in boards}
    with ExitStack() as stack:
        yield Lab(
            place,
            images,
            {name: stack.enter_context(power_on(load_board(name), images[name].elf)) for name in boards},
        )


Kind = Callable[[Lab, Random], str]


def damaged(kind: str) -> Kind:
    """A line that damages what passes."""

    def run(lab: Lab, source: Random) -> str:
        return lab.infer(source, kinds=(kind,), probability=source.choice((0.02, 0.1, 0.3, 0.6)))

    return run


def board_reset(lab: Lab, source: Random) -> str:
    """The board restarts behind any request, its RAM kept."""
    return lab.infer(source, probability=0.0, reset_after=source.randrange(1, REQUESTS))


def session_taken(lab: Lab, source: Random) -> str:
    """Another program says HELLO to the same board."""
    return lab.infer(source, probability=0.0, taken_after=source.randrange(1, REQUESTS))


def glitch(event: str) -> Kind:
    """Power lost, cable pulled or board hung at any request."""

    def run(lab: Lab, source: Random) -> str:
        stage = source.randrange(1, REQUESTS)
        struck: list[int] = []

        def strike(count: int, _request: object) -> str | None:
            if count == stage and not struck:
                struck.append(count)
                return event
            return None

        with glitchy_board(lab.images["host"].elf, strike) as url:
            found = outcome(lambda: _over(url))
            struck.append(stage)  # what has not struck by now never does: repetitions count as requests, too
            assert _over(url, timing=PATIENT) == expected()
        return found

    return run


def _over(port: str, *, timing: Timing = QUICK) -> bytes:
    transport = open_port(port)
    try:
        return infer(transport, timing=timing)
    finally:
        transport.close()


def emulator_ends(lab: Lab, source: Random) -> str:
    """The emulator is killed at any request: what a board is like that was unplugged."""
    name = source.choice([board for board in lab.images if board != "host"])
    powered = power_on(load_board(name), lab.images[name].elf)
    stage = source.randrange(1, REQUESTS)

    class Killing(FaultyLine):
        def write(self, data: bytes) -> None:
            super().write(data)
            if self._written == stage:
                os.kill(_emulator(powered), signal.SIGKILL)

    with powered:

        def act() -> bytes:
            try:
                return infer(Killing(powered.transport, 0, probability=0.0), timing=EMULATED)
            except EdgeqError as error:
                raise powered.explain(error) from error  # type: ignore[arg-type]

        return outcome(act)


def _emulator(powered: PoweredBoard) -> int:
    """The process that runs the image: the guard's child, or Unicorn's own."""
    pid = powered._process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return int(children[0]) if children else pid


@contextmanager
def on_a_pty(image: Image) -> Iterator[str]:
    """The board `host` behind a pty that nobody holds."""
    master, slave = os.openpty()
    process = subprocess.Popen([str(image.elf.resolve())], stdin=master, stdout=master)
    try:
        yield os.ttyname(slave)
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


_HOLDER = """
import fcntl, os, sys, termios
port = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
if sys.argv[2] == "lock":
    fcntl.flock(port, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("held", flush=True)
if sys.argv[2] == "lock":
    sys.stdin.read()
while True:
    os.read(port, 64)
"""


@contextmanager
def second_program(port: str, what: str) -> Iterator[None]:
    command = [sys.executable, "-I", "-S", "-c", _HOLDER, port, what]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        try:
            yield
        finally:
            process.kill()


def port_stolen(what: str) -> Kind:
    """Another program has locked the port, or reads it without a lock and takes bytes away."""

    def run(lab: Lab, source: Random) -> str:
        with on_a_pty(lab.images["host"]) as port:
            with second_program(port, what):
                found = outcome(lambda: _over(port))
            assert _over(port, timing=PATIENT) == expected()
        return found

    return run


def stale_firmware(lab: Lab, source: Random) -> str:
    """Board and host speak different versions of the link."""
    return lab.infer(source, probability=0.0, version=source.choice((0, 2, 3, 200)))


def another(what: str) -> Kind:
    """The board answers, but it is another one, or it runs another model."""

    def run(lab: Lab, source: Random) -> str:
        board = load_board("virtual-m4" if what == "board" else "host")

        def act() -> bytes:
            with connect(board, port=url, image=lab.images["host"]) as session:
                session.expect(model_sha256=source.randbytes(32).hex())
                return infer_in(session)

        with glitchy_board(lab.images["host"].elf, lambda *_: None) as url:
            found = outcome(act)
            assert _over(url, timing=PATIENT) == expected()
        return found

    return run


def arena_too_small(lab: Lab, source: Random) -> str:
    """A manifest that reserves less than the code needs, or a board whose RAM is less than the arena."""
    place = lab.place / f"arena{source.getrandbits(32)}"
    board = load_board("qemu-mps2-an386")
    sizes = (source.randrange(16, 6144, 16), 1 << source.randrange(23, 30))
    bundle = write_tiny_bundle(place / "bundle", arena_bytes=source.choice(sizes))
    return outcome(lambda: bytes(bool(build(bundle, board, place / "image"))))


def crash(lab: Lab, source: Random) -> str:
    """The firmware crashes: the record names function, and line where the crash can be placed."""
    name = source.choice([board for board in lab.images if board != "host"])
    command = source.choice((2, 3, 4))
    found = ""

    def act() -> bytes:
        with connect(load_board(name), image=lab.images[name]) as session:
            return session.infer([INPUT, bytes((command, 0, 0, 0))])[0]

    try:
        act()
    except EdgeqError as error:
        found = error.code
        place = "the stack ran out" if command == 4 else "tiny_misbehave ("
        assert place in error.what, error.what
        assert command == 4 or "tiny.c:" in error.what, error.what
        assert error.exit_status == 3
    return found


def flash_cut(lab: Lab, source: Random) -> str:
    """`edgeq flash` is killed at any moment: the board holds the old image or the new one, whole."""
    keys = {0x5A: lab.place / "key5a", 0x5B: lab.place / "key5b"}
    for key, directory in keys.items():
        if not directory.is_dir():
            write_tiny_bundle(directory, source=SOURCE.replace("0x5A", f"{key:#x}"))
    old, new = source.sample(list(keys), 2)
    started = time.monotonic()
    assert _flash_process(keys[old]).wait() == 0
    process = _flash_process(keys[new])
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=source.uniform(0.0, 1.5) * (time.monotonic() - started))
    process.kill()
    process.wait()
    with connect(load_board("host")) as session:
        got = infer_in(session)
    return {expected(old): "old image", expected(new): "new image"}[got]


def _flash_process(bundle: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "edgeq.cli.main", "flash", str(bundle), "--board", "host", "--quiet"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@dataclass(frozen=True)
class Fault:
    """A kind: how to cause it, what may come of it, and how many of a thousand runs are its."""

    run: Kind
    allowed: set[str]
    share: int


FAULTS: dict[str, Fault] = {
    **{f"line: {kind}": Fault(damaged(kind), LINE_ERRORS, 55) for kind in LINE_KINDS},
    "board reset": Fault(board_reset, {"right", "board-reset"}, 110),
    "session taken": Fault(session_taken, {"right", "session-taken"}, 60),
    "power cut": Fault(glitch("power"), {"right", "board-reset"}, 60),
    "power cut, BOOT unheard": Fault(glitch("power unheard"), {"right", "board-reset"}, 50),
    "cable pulled": Fault(glitch("cable"), {"right", "port-lost"}, 50),
    "board hangs": Fault(glitch("hang"), {"right", "no-answer"}, 25),
    "emulator killed": Fault(emulator_ends, {"right", "emulator-ended"}, 30),
    "port locked": Fault(port_stolen("lock"), {"port-busy"}, 25),
    "port read by another": Fault(port_stolen("read"), LINE_ERRORS | {"port-busy"}, 25),
    "stale firmware": Fault(stale_firmware, {"agent-version"}, 25),
    "wrong board": Fault(another("board"), {"wrong-board"}, 15),
    "wrong model": Fault(another("model"), {"wrong-model"}, 15),
    "arena too small": Fault(arena_too_small, {"build-failed", "image-too-large"}, 15),
    "crash": Fault(crash, {"board-fault"}, 30),
    "power cut while flashing": Fault(flash_cut, {"old image", "new image"}, 25),
}
