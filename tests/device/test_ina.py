"""INA219 and INA226 over the agent: a stand-in for the chip on the virtual board's bus, and QEMU's own TWI."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ina_chip
import pytest
from agent_link import powered
from tiny_bundle import INPUT_BYTES, SOURCE, write_tiny_bundle
from typer.testing import CliRunner

from edgeq.benchmark.energy import measure_by_sensor
from edgeq.boards import load_board
from edgeq.cli.main import app
from edgeq.device.ina import KINDS, InaMeter, InaSensor
from edgeq.device.messages import Sample
from edgeq.device.ports import SocketTransport
from edgeq.device.session import Session
from edgeq.errors import DeviceError
from edgeq.toolchain import Image, build

pytestmark = pytest.mark.skipif(os.name != "posix", reason="hands a socket to a process")
IDLE_A, RUNNING_A, SHUNT_OHM, VOLTS = 0.004, 0.020, 0.1, 3.3
LONG_RUN = bytes((0, 60, 0, 0))
"""12 million instructions."""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    pytest.importorskip("unicorn")
    directory = tmp_path_factory.mktemp("ina")
    return build(write_tiny_bundle(directory / "bundle"), load_board("virtual-m4"), directory / "image")


@contextmanager
def board_with(image: Image, kind: str, *, running_a: float = RUNNING_A) -> Iterator[Session]:
    ours, theirs = socket.socketpair()
    numbers = map(str, (IDLE_A, running_a, SHUNT_OHM, VOLTS))
    command = [sys.executable, ina_chip.__file__, str(image.elf), str(theirs.fileno()), kind, *numbers]
    with theirs:
        process = subprocess.Popen(command, pass_fds=(theirs.fileno(),))
    session = Session(SocketTransport(ours, kind))
    try:
        session.hello()
        yield session
    finally:
        session.close()
        process.kill()
        process.wait()


@pytest.mark.parametrize("kind", KINDS)
def test_power_of_the_waiting_and_of_the_running_board(image: Image, kind: str) -> None:
    meter = InaMeter(KINDS[kind], ina_chip.ADDRESS, SHUNT_OHM)

    with board_with(image, kind) as session:

        def write() -> None:
            session.write_input(0, bytes(INPUT_BYTES))
            session.write_input(1, LONG_RUN)

        report = measure_by_sensor(meter, session, write, None)
    step_mw = KINDS[kind].shunt_volts / SHUNT_OHM * VOLTS * 1e3
    assert report.supply_mv == 3300
    # The waiting board wakes for each reading, and a busy computer makes that last.
    assert IDLE_A * VOLTS * 1e3 - step_mw <= report.idle.value < 1.5 * IDLE_A * VOLTS * 1e3
    assert report.running.value == pytest.approx(RUNNING_A * VOLTS * 1e3, abs=step_mw)  # type: ignore[union-attr]
    document = report.to_json()
    assert [document[name]["kind"] for name in ("idle", "running", "per_run")] == ["measured", "measured", "unknown"]  # type: ignore[index]


def test_a_run_of_known_time_has_an_energy(image: Image) -> None:
    """66 mW for what the caller says a run takes; the board runs long enough in truth."""
    meter = InaMeter(KINDS["ina226"], ina_chip.ADDRESS, SHUNT_OHM)
    with board_with(image, "ina226") as session:

        def write() -> None:
            session.write_input(0, bytes(INPUT_BYTES))
            session.write_input(1, LONG_RUN)

        report = measure_by_sensor(meter, session, write, 0.002)
    assert report.per_run.value == pytest.approx(66e-3 * 0.002 * 1e6, rel=0.01)  # type: ignore[union-attr]


def test_what_is_no_such_sensor(image: Image) -> None:
    with board_with(image, "ina226") as session:
        with pytest.raises(DeviceError) as wrong_kind:
            InaSensor(InaMeter(KINDS["ina219"], ina_chip.ADDRESS, SHUNT_OHM), session)
        with pytest.raises(DeviceError) as wrong_address:
            InaSensor(InaMeter(KINDS["ina226"], 0x40, SHUNT_OHM), session)
        with pytest.raises(DeviceError) as in_run:
            session.run(1, sample=Sample(0x40, 1))
        assert session.run(1).ticks == (0,), "the next run works"
    assert (wrong_kind.value.code, wrong_address.value.code) == ("meter-missing", "i2c-failed")
    assert in_run.value.code == "i2c-failed"


def test_more_current_than_the_shunt_is_for(image: Image) -> None:
    meter = InaMeter(KINDS["ina219"], ina_chip.ADDRESS, SHUNT_OHM)
    with board_with(image, "ina219", running_a=4.0) as session:
        sensor = InaSensor(meter, session)
        sensor.average_over(532e-6)
        session.write_input(1, LONG_RUN)
        with pytest.raises(DeviceError) as caught:
            sensor.running_amperes(4)
    assert caught.value.code == "meter-range"


@pytest.mark.qemu
@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="needs qemu-system-arm")
def test_the_driver_on_qemus_model_of_the_same_bus(tmp_path: Path) -> None:
    """QEMU's micro:bit answers what its bus reads with a fixed sequence."""
    board = load_board("qemu-microbit")
    image = build(write_tiny_bundle(tmp_path / "bundle"), board, tmp_path / "image")
    with powered(image, board) as link:
        link.hello()
        assert link.ask(0x09, b"\x1d\x02\x0d").payload == b"\x5a\x5a"
        assert link.ask(0x09, b"\x1d\x01\x0d").payload == b"\x40"


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("unicorn")
    monkeypatch.setenv("EDGEQ_STATE", str(tmp_path / "state"))
    source = SOURCE.replace("(bytes[COMMAND])", "(0)").replace("bytes[COMMAND + 1] != 0", "0")
    bundle = write_tiny_bundle(tmp_path / "bundle", source=source)

    def edgeq(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
        document = json.loads(result.stdout)
        return result.exit_code, document.get("error", {}).get("code", "")

    for board, wrong, expected in (
        ("host", ["--meter", "ina219"], (2, "shunt-missing")),
        ("host", ["--meter", "ina219", "--shunt-ohm", "0"], (2, "shunt-range")),
        ("host", ["--meter", "ina219:0x50", "--shunt-ohm", "0.1"], (2, "meter-unknown")),
        ("host", ["--meter", "ina226", "--shunt-ohm", "0.1"], (3, "meter-missing")),
        ("virtual-m4", ["--meter", "ina226", "--shunt-ohm", "0.1"], (3, "i2c-failed")),
    ):
        assert edgeq("flash", bundle, "--board", board)[0] == 0
        assert edgeq("bench", bundle, "--board", board, "--runs", "3", *wrong) == expected
