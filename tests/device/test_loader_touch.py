"""The touch at 1200 baud: a pty is the application's USB port, and a board's doings follow what is done to it."""

from __future__ import annotations

import json
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from glitchy_board import glitchy_board
from test_flash_methods import image_for, install
from tiny_bundle import write_tiny_bundle

from edgeq.boards import load_board
from edgeq.device import connect, flash, flashing
from edgeq.device.discover import find_port
from edgeq.device.methods import put
from edgeq.errors import DeviceError, LinkError
from edgeq.toolchain import build

if sys.platform == "win32":
    pytest.skip("needs ptys", allow_module_level=True)

import termios

NANO = load_board("arduino-nano-33-ble-sense")
APPLICATION, LOADER = (0x2341, 0x805A), (0x2341, 0x005A)


@dataclass
class Bus:
    """What pyserial lists."""

    entries: list[Any] = field(default_factory=list)

    def plug(self, device: str, ids: tuple[int, int], serial_number: str = "A1") -> None:
        self.entries.append(
            SimpleNamespace(device=device, vid=ids[0], pid=ids[1], description="", serial_number=serial_number)
        )

    def unplug(self, device: str) -> None:
        self.entries = [entry for entry in self.entries if entry.device != device]


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Bus:
    found = Bus()
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda: list(found.entries))
    return found


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", str(place))
    monkeypatch.setattr("edgeq.device.install._beside", lambda: place)
    return place


@contextmanager
def application(touched: Callable[[str], None]) -> Iterator[str]:
    """A pty whose `touched` is called once it was set to 1200 baud and closed."""
    master, slave = os.openpty()
    name = os.ttyname(slave)
    stopped = threading.Event()

    def watch() -> None:
        os.close(slave)
        poll = select.poll()
        poll.register(master, select.POLLIN)
        while not stopped.wait(0.01):
            closed = any(event & select.POLLHUP for _, event in poll.poll(0))
            if closed and termios.tcgetattr(master)[4] == termios.B1200:
                touched(name)
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield name
    finally:
        stopped.set()
        thread.join()
        os.close(master)


def test_bossac_speaks_to_the_boot_loader_behind_a_touch(tmp_path: Path, tools: Path, bus: Bus) -> None:
    loader = tmp_path / "ttyACM9"
    loader.touch()

    def touched(name: str) -> None:
        bus.unplug(name)
        bus.plug(str(loader), LOADER)

    log = install(tools, "bossac")
    with application(touched) as port:
        bus.plug(port, APPLICATION)
        put(image_for(NANO.id, tmp_path, 0x10000), NANO, None)
    calls = json.loads(log.read_text())
    assert [call[:2] for call in calls] == [["-p", str(loader)]] * 2


def test_a_boot_loader_with_the_name_of_the_application(tmp_path: Path, tools: Path, bus: Bus) -> None:
    def touched(name: str) -> None:
        bus.unplug(name)
        bus.plug(name, LOADER, serial_number="B7")

    log = install(tools, "bossac")
    with application(touched) as port:
        bus.plug(port, APPLICATION)
        put(image_for(NANO.id, tmp_path, 0x10000), NANO, port)
    assert json.loads(log.read_text())[0][:2] == ["-p", port]


def test_a_board_in_its_boot_loader_is_not_touched(
    tmp_path: Path, tools: Path, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeq.device.loader.touch", lambda _: pytest.fail("touched"))
    log = install(tools, "bossac")
    bus.plug("/dev/here", LOADER)
    put(image_for(NANO.id, tmp_path, 0x10000), NANO, None)
    put(image_for(NANO.id, tmp_path, 0x10000), NANO, "/dev/here")
    put(image_for(NANO.id, tmp_path, 0x10000), NANO, "/dev/not-usb")
    assert [call[1] for call in json.loads(log.read_text())[::2]] == ["/dev/here", "/dev/here", "/dev/not-usb"]


def test_an_application_that_ignores_the_touch(
    tmp_path: Path, tools: Path, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another board's boot loader, there all the time, is not taken for its own."""
    monkeypatch.setattr("edgeq.device.loader._LOADER_S", 0.5)
    log = install(tools, "bossac")
    with application(lambda _: None) as port:
        bus.plug(port, APPLICATION)
        bus.plug("/dev/somebody-else", LOADER, "B2")
        with pytest.raises(DeviceError) as caught:
            put(image_for(NANO.id, tmp_path, 0x10000), NANO, port)
    assert (caught.value.code, caught.value.exit_status) == ("loader-missing", 3)
    assert "nothing was written" in caught.value.what
    assert not log.exists()


def test_two_boards_and_none_named(tmp_path: Path, tools: Path, bus: Bus) -> None:
    log = install(tools, "bossac")
    bus.plug("/dev/a", APPLICATION, "A1")
    bus.plug("/dev/b", LOADER, "B2")
    with pytest.raises(LinkError) as caught:
        put(image_for(NANO.id, tmp_path, 0x10000), NANO, None)
    assert caught.value.code == "port-ambiguous"
    assert {"A1", "B2"} <= set((caught.value.where or "").replace("(", " ").replace(")", " ").split())
    assert not log.exists()


def test_two_probes_and_none_named(tmp_path: Path, tools: Path, bus: Bus) -> None:
    """openocd would take the first; the serial number of the probe whose port is named decides."""
    board = load_board("nucleo-f446re")
    log = install(tools, "openocd")
    bus.plug("/dev/a", (0x0483, 0x374B), "066AFF")
    bus.plug("/dev/b", (0x0483, 0x374B), "066BFF")
    with pytest.raises(LinkError) as caught:
        put(image_for(board.id, tmp_path, 0x08000000), board, None)
    assert caught.value.code == "port-ambiguous"
    assert not log.exists()
    put(image_for(board.id, tmp_path, 0x08000000), board, "/dev/b")
    assert all("adapter serial 066BFF" in call for call in json.loads(log.read_text()))


def test_a_board_in_its_boot_loader_runs_no_model(bus: Bus) -> None:
    bus.plug("/dev/here", LOADER)
    with pytest.raises(LinkError) as caught:
        find_port(NANO)
    assert caught.value.code == "board-in-loader"
    assert find_port(NANO, loader=True) == "/dev/here"


def test_what_answers_tells_one_of_several_ports(tmp_path: Path, bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Boards with the same probe: the handshake knows; two of the same kind stay for the user to choose from."""
    host = load_board("host")
    bundle = write_tiny_bundle(tmp_path / "bundle")
    ours = build(bundle, host.model_copy(update={"id": NANO.id}), tmp_path / "ours")
    other = build(bundle, host.model_copy(update={"id": "other"}), tmp_path / "other")
    monkeypatch.setattr("edgeq.device.connection._WHO_S", 1.0)
    with glitchy_board(other.elf) as one, glitchy_board(ours.elf) as two, glitchy_board(ours.elf) as three:
        bus.plug(one, APPLICATION)
        bus.plug("/dev/gone", APPLICATION)
        with pytest.raises(LinkError) as caught, connect(NANO):
            pass
        assert caught.value.code == "port-ambiguous"
        assert caught.value.where == f"/dev/gone (no answer), {one} (says other)"
        bus.plug(two, APPLICATION)
        with connect(NANO) as session:
            assert session.transport.name == two
        bus.plug(three, APPLICATION)
        with pytest.raises(LinkError) as caught, connect(NANO):
            pass
        assert (caught.value.where or "").count(NANO.id) == 2
        assert f"Choose one: --port {three}" in caught.value.try_


def test_a_volume_behind_a_touch(tmp_path: Path, bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    pico = load_board("raspberry-pi-pico")
    volume = tmp_path / "RPI-RP2"
    volume.mkdir()
    monkeypatch.setattr("edgeq.device.methods._volumes", lambda: iter([volume] if any(volume.iterdir()) else []))
    monkeypatch.setattr("edgeq.device.methods._VOLUME_WAIT_S", 0.0)

    def touched(name: str) -> None:
        bus.unplug(name)
        (volume / "INFO_UF2.TXT").write_text("UF2 Bootloader v3.0\nModel: Raspberry Pi RP2\nBoard-ID: RPI-RP2\n")

    with application(touched) as port:
        bus.plug(port, (0x2E8A, 0x000A))
        put(image_for(pico.id, tmp_path, 0x10000000), pico, None)
    assert (volume / "edgeq.uf2").stat().st_size == 512 * 5


def test_the_application_may_come_back_under_another_name(
    tmp_path: Path, tools: Path, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flashed through the boot loader's port, which is gone then; a twin that is there all the time is not asked."""
    bundle = write_tiny_bundle(tmp_path / "bundle")
    firmware = build(bundle, load_board("host"), tmp_path / "host")
    board = NANO.model_copy(update={"id": "host"})
    monkeypatch.setattr(flashing, "build_image", lambda *_, **__: firmware)
    with glitchy_board(firmware.elf) as port:
        bus.plug("/dev/twin", APPLICATION, "B2")
        bus.plug("/dev/loader", LOADER)

        def written(*_: object) -> None:
            bus.unplug("/dev/loader")
            bus.plug(port, APPLICATION)

        monkeypatch.setattr(flashing, "put", written)
        assert flash(bundle, board, port="/dev/loader").port == port
