"""Single faults and what they are called; all kinds together are in the campaign."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_line import FaultyLine
from tiny_bundle import COMMAND_BYTES, INPUT_BYTES, write_tiny_bundle

from edgeq.boards import load_board
from edgeq.device.frames import Command
from edgeq.device.messages import RunFlag, Space, run_request
from edgeq.device.ports import Transport
from edgeq.device.session import Session, Timing
from edgeq.device.virtual import PoweredBoard, power_on
from edgeq.errors import DeviceError, LinkError
from edgeq.toolchain import Image, build

QUICK = Timing(hello_s=3.0, hello_repeat_s=0.05, reply_s=0.08, attempts=12, silence_s=2.0)
INPUT = bytes((i * 7 + i // 251) & 0xFF for i in range(INPUT_BYTES))
OUTPUT = b"\1" + bytes(value ^ 0x5A for value in INPUT[1:])


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    directory = tmp_path_factory.mktemp("link-faults")
    return build(write_tiny_bundle(directory / "bundle"), load_board("host"), directory / "image")


@pytest.fixture(scope="module")
def board(image: Image) -> Iterator[PoweredBoard]:
    with power_on(load_board("host"), image.elf) as powered:
        yield powered


def infer(transport: Transport) -> bytes:
    """One whole inference from the model's initial state, over a new session."""
    session = Session(transport, timing=QUICK)
    session.hello()
    session.reset_model()
    session.write_input(0, INPUT)
    session.write_input(1, bytes(COMMAND_BYTES))
    assert session.run(timed=True, profile=True).ticks[0] > 0
    assert len(session.layers()) == session.info.layers
    return session.read_output(0)


def test_light_faults_are_overcome(board: PoweredBoard) -> None:
    for seed in range(10):
        line = FaultyLine(board.transport, seed, probability=0.05)
        assert infer(line) == OUTPUT
    assert infer(board.transport) == OUTPUT


@pytest.mark.parametrize("stage", range(2, 14))
def test_a_reset_at_any_stage_is_told_as_such_or_without_effect(board: PoweredBoard, stage: int) -> None:
    line = FaultyLine(board.transport, 0, probability=0.0, reset_after=stage)
    try:
        assert infer(line) == OUTPUT
    except DeviceError as error:
        assert error.code == "board-reset", (error.what, error.why)
    assert infer(board.transport) == OUTPUT


def test_a_reset_in_mid_run_is_never_a_result(board: PoweredBoard) -> None:
    session = Session(FaultyLine(board.transport, 0, probability=0.0, reset_after=8), timing=QUICK)
    session.hello()
    with pytest.raises(DeviceError) as caught:
        for _ in range(20):
            session.infer([INPUT, bytes(COMMAND_BYTES)])
    assert caught.value.code == "board-reset"
    assert caught.value.exit_status == 3


def test_two_programs_on_one_board_are_told_apart_from_a_reset(board: PoweredBoard) -> None:
    first, second = (Session(board.transport, timing=QUICK) for _ in range(2))
    first.hello()
    second.hello()
    with pytest.raises(LinkError) as caught:
        first.memory()
    assert caught.value.code == "session-taken"


def test_a_pulled_cable(image: Image) -> None:
    with power_on(load_board("host"), image.elf) as powered:
        assert infer(powered.transport) == OUTPUT
        guard = powered._process.pid
        children = Path(f"/proc/{guard}/task/{guard}/children")
        if not children.is_file():
            pytest.skip("needs Linux's /proc to find the process")
        os.kill(int(children.read_text(encoding="ascii")), signal.SIGKILL)
        with pytest.raises(DeviceError) as caught:
            infer(powered.transport)
        assert caught.value.code in {"port-lost", "no-answer"}
        assert powered.explain(caught.value).code == "emulator-ended"


def test_the_model_s_own_failure_and_refusals(board: PoweredBoard) -> None:
    session = Session(board.transport, timing=QUICK)
    session.hello()
    with pytest.raises(DeviceError) as caught:
        session.infer([INPUT, b"\1\0\0\0"])
    assert caught.value.code == "model-failed"
    with pytest.raises(DeviceError) as caught:
        session.read(Space.OUTPUT, 5, 10)
    assert caught.value.code == "agent-error"
    assert "BAD_INDEX" in (caught.value.why or "")
    with pytest.raises(DeviceError) as caught:
        session.write_input(0, bytes(INPUT_BYTES + 1))
    assert "BAD_RANGE" in (caught.value.why or "")


def test_wrong_board_and_wrong_model(board: PoweredBoard) -> None:
    session = Session(board.transport, timing=QUICK)
    session.hello()
    session.expect(board="host", model_sha256=session.info.model_sha256)
    with pytest.raises(DeviceError) as caught:
        session.expect(board="virtual-m4")
    assert caught.value.code == "wrong-board"
    with pytest.raises(DeviceError) as caught:
        session.expect(model_sha256="00" * 32)
    assert caught.value.code == "wrong-model"


def test_a_long_run_shows_progress_and_is_run_once(board: PoweredBoard) -> None:
    timing = Timing(hello_s=3.0, reply_s=0.1, silence_s=10.0)
    session = Session(board.transport, timing=timing)
    session.hello()
    session.reset_model()
    session.write_input(0, INPUT)
    session.write_input(1, b"\0\xff\0\0")
    seen: list[tuple[int, int]] = []
    session.run(16, progress=lambda runs, layers: seen.append((runs, layers)))
    assert seen == sorted(seen)
    assert session.read_output(0)[0] == 16


def test_a_run_that_nobody_waits_for_any_more_is_waited_out(board: PoweredBoard) -> None:
    """The program that asked for it was interrupted; the next one opens its session when the board is free."""
    session = Session(board.transport, timing=QUICK)
    session.hello()
    session.write_input(0, INPUT)
    session.write_input(1, b"\0\xff\0\0")
    timing = Timing(hello_s=0.4, hello_repeat_s=0.05, silence_s=60.0)
    runs = session.info.max_runs
    took_s = []
    for _ in range(3):
        started = time.monotonic()
        session.run()
        took_s.append(time.monotonic() - started)
    more = int(5 * timing.hello_s / runs / min(took_s))  # so that on a processor of any speed they take longer
    session.write_input(0, INPUT)
    session.write_input(1, bytes([0, 0xFF, min(more, 0xFF), 0]))
    session._next_sequence()
    started = time.monotonic()
    board.transport.write(session._frame(Command.RUN, run_request(runs, RunFlag.TIMED, None, None)))
    hello = Session(board.transport, timing=timing).hello()
    assert time.monotonic() - started > timing.hello_s
    assert hello.layers == 3
    assert infer(board.transport) == OUTPUT


def test_nobody_answers() -> None:
    class Silence:
        name = "silence"

        def read(self, timeout_s: float) -> bytes:
            time.sleep(min(timeout_s, 0.01))
            return b""

        def write(self, data: bytes) -> None: ...

        def close(self) -> None: ...

    started = time.monotonic()
    with pytest.raises(LinkError) as caught:
        Session(Silence(), timing=Timing(hello_s=0.3)).hello()
    assert caught.value.code == "no-answer"
    assert time.monotonic() - started < 2


def test_only_rubbish_answers() -> None:
    class Rubbish:
        name = "rubbish"

        def read(self, timeout_s: float) -> bytes:
            time.sleep(min(timeout_s, 0.005))
            return b"Booting...\r\n\0"

        def write(self, data: bytes) -> None: ...

        def close(self) -> None: ...

    with pytest.raises(LinkError) as caught:
        Session(Rubbish(), timing=Timing(hello_s=0.3)).hello()
    assert caught.value.code == "corrupted-frames"
