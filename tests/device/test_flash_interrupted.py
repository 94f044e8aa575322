"""Every flash method when its tool is missing, meets another chip, is killed while it writes, or finds other bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from stm32_rom import Stm32Rom
from test_flash_methods import CONTENT, image_for, posix, tools
from tiny_bundle import write_tiny_bundle

from edgeq.boards import Board, load_board
from edgeq.device.methods import put
from edgeq.errors import ToolError

__all__ = ["tools"]
pytestmark = posix

FAKE = """#!{python}
import os, signal, sys
from pathlib import Path
flash, plan = Path({flash!r}), Path({plan!r}).read_text()
words = ("write-flash", "-w", "load", "-D")
writes = any(word in words or word.startswith("program") or word.endswith(".hex") for word in sys.argv[1:])
print("Found a", "{chip}" if plan != "chip" else "Z80")
print("Found HalfKay Bootloader")
if plan == "chip" and (not writes or {alone}):
    sys.exit("{refusal}" or 0)
if not writes:
    sys.exit(0)
if plan == "killed":
    flash.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
if plan == "verify":
    flash.write_text("wrong")
    sys.exit("verify failed")
flash.write_text("whole")
"""


def board_with(method: str) -> Board:
    known = {"esptool": "esp32-c3", "openocd": "nucleo-f446re", "bossac": "arduino-nano-33-ble-sense"}
    board = load_board(known.get(method, "teensy-41" if method == "teensy" else "stm32f4-discovery"))
    target = {"bossac": "nRF52840", "stm32loader": "STM32F40"}.get(method, board.flash.target)
    return board.model_copy(
        update={"flash": board.flash.model_copy(update={"method": method, "target": target, "usb_ids": ()})}
    )


class Bench:
    """A board whose tool is a stand-in that does what `plan` says; `flash` is what the board holds then."""

    def __init__(self, place: Path, tools: Path, method: str) -> None:
        self.board = board_with(method)
        self._image = image_for(self.board.id, place, self.board.regions("flash")[0].start)
        self._flash, self._plan = place / "flash", place / "plan"
        self._flash.write_text("old")
        # bossac and stm32loader name the chip and leave it to us; the others refuse it
        refusal = "" if method in ("bossac", "stm32loader") else "Last page at 0x08000500 is not writeable"
        tool = tools / {"teensy": "teensy_loader_cli"}.get(method, method)
        facts = {"flash": str(self._flash), "plan": str(self._plan), "chip": self.board.flash.target}
        alone = method in ("dfu-util", "teensy")
        tool.write_text(FAKE.format(python=sys.executable, refusal=refusal, alone=alone, **facts))
        tool.chmod(0o755)

    def flash(self, plan: str) -> tuple[str, str]:
        """The error ("" without) and what the board holds."""
        self._plan.write_text(plan)
        try:
            put(self._image, self.board, "/dev/here")
        except ToolError as error:
            assert error.exit_status == 3
            assert error.try_
            assert error.why
            assert ("nothing was written" in error.what) != ("half" in error.what)
            return error.code, self._flash.read_text()
        return "", self._flash.read_text()


METHODS = ("esptool", "openocd", "pyocd", "stm32loader", "dfu-util", "bossac", "teensy")


@pytest.mark.parametrize("method", METHODS)
def test_killed_while_it_writes(tmp_path: Path, tools: Path, method: str) -> None:
    bench = Bench(tmp_path, tools, method)
    assert bench.flash("killed") == ("flash-failed", "half")
    assert bench.flash("well") == ("", "whole")


@pytest.mark.parametrize("method", METHODS)
def test_other_bytes_than_written(tmp_path: Path, tools: Path, method: str) -> None:
    bench = Bench(tmp_path, tools, method)
    assert bench.flash("verify") == ("flash-failed", "wrong")
    assert bench.flash("well") == ("", "whole")


@pytest.mark.parametrize("method", [method for method in METHODS if method != "teensy"])
def test_another_chip(tmp_path: Path, tools: Path, method: str) -> None:
    """Not teensy: its tool asks for no chip, and the boot loader tells none."""
    bench = Bench(tmp_path, tools, method)
    code, flash = bench.flash("chip")
    assert code == ("wrong-chip" if method in ("bossac", "stm32loader") else "flash-not-begun")
    assert flash == "old"
    assert bench.flash("well") == ("", "whole")


@pytest.mark.parametrize(("manager", "words"), [("apt-get", "apt-get install"), ("brew", "brew install")])
@pytest.mark.parametrize("method", METHODS)
def test_missing_and_how_to_install_it_here(tmp_path: Path, tools: Path, method: str, manager: str, words: str) -> None:
    (tools / manager).write_text("#!/bin/sh\n")
    (tools / manager).chmod(0o755)
    board = board_with(method)
    with pytest.raises(ToolError) as caught:
        put(image_for(board.id, tmp_path, 0x08000000), board, "/dev/here")
    assert caught.value.code == "flash-tool-missing"
    steps = [step for step in caught.value.try_ if "arduino-cli" not in step]
    assert len(steps) == 1
    assert ("pip install" if method in ("pyocd", "esptool", "stm32loader") else words) in steps[0]


REAL = """#!{python}
import sys, time, serial, stm32loader.uart
time.sleep = lambda _: None
serial.Serial = lambda port, **_: serial.serial_for_url(port, timeout=0.3)
stm32loader.uart.SerialConnection.timeout = property(lambda _: 0.3, lambda *_: None)
from stm32loader.main import main
main(*sys.argv[1:])
"""


@pytest.mark.skipif(find_spec("stm32loader") is None, reason="needs stm32loader (pip install stm32loader)")
def test_power_cut_under_the_real_stm32loader(tmp_path: Path, tools: Path) -> None:
    """The tool itself, over TCP in place of a serial port, with the ROM's boot loader after ST's AN3155."""
    (tools / "stm32loader").write_text(REAL.format(python=sys.executable))
    (tools / "stm32loader").chmod(0o755)
    board = board_with("stm32loader")
    image = image_for(board.id, tmp_path, 0x08000000)
    with Stm32Rom(cut_after=3) as rom:
        with pytest.raises(ToolError) as caught:
            put(image, board, rom.url)
        assert (caught.value.code, caught.value.exit_status) == ("flash-failed", 3)
        assert "half" in caught.value.what
        assert "Traceback" not in (caught.value.why or "")
        assert 0 < len(rom.flash) < len(CONTENT)
        with pytest.raises(ToolError) as caught:
            put(image, board, rom.url)
        assert caught.value.code == "flash-not-begun"
        rom.power()
        put(image, board, rom.url)
        assert bytes(rom.flash[0x08000000 + i] for i in range(len(CONTENT))) == CONTENT
        assert rom.started == 0x08000000
    with Stm32Rom(chip_id=0x435) as other, pytest.raises(ToolError) as caught:
        put(image, board, other.url)
    assert caught.value.code == "wrong-chip"
    assert "STM32L4" in (caught.value.why or "")
    assert not other.flash


@pytest.mark.usefixtures("control_c")
def test_control_c_while_it_writes(tmp_path: Path, tools: Path) -> None:
    """As a terminal sends it, to the whole group: exit status 130, and a word about the flash."""
    bundle = write_tiny_bundle(tmp_path / "bundle")
    began = tmp_path / "began"
    script = f"#!{sys.executable}\nimport sys, time\nfrom pathlib import Path\n"
    script += f"if 'write-flash' in sys.argv:\n    Path({str(began)!r}).touch()\n    time.sleep(60)\n"
    (tools / "esptool").write_text(script)
    (tools / "esptool").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:/usr/bin:/bin", "EDGEQ_STATE": str(tmp_path / "state")}
    command = [sys.executable, "-m", "edgeq.cli.main", "flash", str(bundle), "--board", "esp32-c3", "--port", "/dev/x"]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not began.exists() and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert "half of an image" in said
    assert "Traceback" not in said
    assert not out
