"""Flash methods: what the tools are asked to do, in which order, and what their failures are called."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from glitchy_board import glitchy_board
from tiny_bundle import write_tiny_bundle

from edgeq.boards import load_board
from edgeq.device import flash
from edgeq.device.methods import intel_hex, put
from edgeq.errors import BoardError, DeviceError, OutputError, ToolError
from edgeq.toolchain import Image, Sizes, build

CONTENT = bytes(range(256)) * 5

posix = pytest.mark.skipif(os.name != "posix", reason="the stand-ins for the tools are scripts")

FAKE = """#!{python}
import json, sys
from pathlib import Path
here = Path(__file__)
log = here.with_suffix(".log")
calls = json.loads(log.read_text()) if log.exists() else []
calls.append(sys.argv[1:])
log.write_text(json.dumps(calls))
print("Device       : nRF52840-QIAA")
for argument in sys.argv[1:]:
    if argument.endswith(".hex"):
        here.with_suffix(".seen").write_bytes(Path(argument).read_bytes())
if len(calls) == {fails_at}:
    sys.stderr.write("no such chip\\n")
    sys.exit(2)
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", str(place))
    monkeypatch.setattr("edgeq.device.install._beside", lambda: place)
    return place


def install(tools: Path, name: str, *, fails_at: int = 0) -> Path:
    path = tools / name
    path.write_text(FAKE.format(python=sys.executable, fails_at=fails_at))
    path.chmod(0o755)
    return path.with_suffix(".log")


def image_for(board_id: str, tmp_path: Path, address: int) -> Image:
    (tmp_path / "firmware.bin").write_bytes(CONTENT)
    sizes = Sizes(len(CONTENT), 0, 0, 0, 0)
    elf, bin_ = tmp_path / "firmware.elf", tmp_path / "firmware.bin"
    return Image(elf, bin_, address, address, board_id, "00" * 32, "none", (), sizes)


CASES = [
    ("esp32-c3", "esptool", 0x3C010000, ["--chip", "esp32c3"], ["write-flash", "0x10000"]),
    ("nucleo-f446re", "openocd", 0x08000000, ["target/stm32f4x.cfg"], ["target/stm32f4x.cfg"]),
    ("arduino-nano-33-ble-sense", "bossac", 0x10000, ["-i"], ["-e", "-w", "-v"]),
]


@posix
@pytest.mark.parametrize(("board_id", "tool", "address", "probe", "write"), CASES)
def test_the_chip_is_asked_before_anything_is_written(
    tmp_path: Path, tools: Path, board_id: str, tool: str, address: int, probe: list[str], write: list[str]
) -> None:
    log = install(tools, tool)
    put(image_for(board_id, tmp_path, address), load_board(board_id), "/dev/here")
    first, second = json.loads(log.read_text())
    assert set(probe) <= set(first)
    assert set(write) <= set(second)
    assert not any("firmware" in argument for argument in first)
    assert any("firmware" in argument for argument in second)


@posix
@pytest.mark.parametrize(
    ("fails_at", "code", "words"), [(1, "flash-not-begun", "nothing was written"), (2, "flash-failed", "half")]
)
@pytest.mark.parametrize(("board_id", "tool", "address"), [case[:3] for case in CASES])
def test_a_failure_says_what_the_flash_holds(
    tmp_path: Path, tools: Path, board_id: str, tool: str, address: int, fails_at: int, code: str, words: str
) -> None:
    log = install(tools, tool, fails_at=fails_at)
    with pytest.raises(ToolError) as caught:
        put(image_for(board_id, tmp_path, address), load_board(board_id), "/dev/here")
    assert caught.value.code == code
    assert words in caught.value.what
    assert caught.value.why == "no such chip"
    assert caught.value.exit_status == 3
    assert len(json.loads(log.read_text())) == fails_at


@posix
def test_a_tool_that_dies_while_it_writes(tmp_path: Path, tools: Path) -> None:
    """As when the power of a probe goes: no exit status, no words; the next flash works."""
    log = install(tools, "bossac", fails_at=2)
    script = tools / "bossac"
    script.write_text(
        script.read_text().replace('sys.stderr.write("no such chip\\n")', "import os; os.kill(os.getpid(), 9)")
    )
    board = load_board("arduino-nano-33-ble-sense")
    with pytest.raises(ToolError) as caught:
        put(image_for(board.id, tmp_path, 0x10000), board, "/dev/here")
    assert (caught.value.code, caught.value.exit_status) == ("flash-failed", 3)
    assert "half" in caught.value.what
    assert "signal 9" in (caught.value.why or "")
    put(image_for(board.id, tmp_path, 0x10000), board, "/dev/here")
    assert len(json.loads(log.read_text())) == 4


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_volume_that_goes_away_in_mid_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    volume = tmp_path / "RPI-RP2"
    volume.mkdir()
    (volume / "INFO_UF2.TXT").write_text("UF2 Bootloader v3.0\nModel: Raspberry Pi RP2\nBoard-ID: RPI-RP2\n")
    monkeypatch.setattr("edgeq.device.methods._volumes", lambda: iter([volume]))
    monkeypatch.setattr("edgeq.device.methods._VOLUME_WAIT_S", 0.0)

    def cut(descriptor: int) -> None:
        os.ftruncate(descriptor, int(share * os.fstat(descriptor).st_size))
        raise OSError(errno.EIO, "Input/output error")

    board = load_board("raspberry-pi-pico")
    image = image_for(board.id, tmp_path, board.regions("flash")[0].start)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", cut)
        with pytest.raises(OutputError) as caught:
            put(image, board, None)
    assert (caught.value.code, caught.value.exit_status) == ("flash-failed", 3)
    assert "half" in caught.value.what
    put(image, board, None)
    assert (volume / "edgeq.uf2").stat().st_size == 512 * 5


@posix
def test_a_board_that_answers_with_something_else_after_flashing(
    tmp_path: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tool is content, and still another board's firmware answers: no success, and no advice to flash first."""
    monkeypatch.setenv("EDGEQ_STATE", str(tmp_path / "state"))
    install(tools, "bossac")
    bundle = write_tiny_bundle(tmp_path / "bundle")
    other = build(bundle, load_board("host"), tmp_path / "host")
    with glitchy_board(other.elf) as port, pytest.raises(DeviceError) as caught:
        flash(bundle, load_board("arduino-nano-33-ble-sense"), port=port)
    assert (caught.value.code, caught.value.exit_status) == ("flash-not-verified", 3)
    assert "host" in (caught.value.why or "")


@posix
def test_teensy_gets_intel_hex(tmp_path: Path, tools: Path) -> None:
    log = install(tools, "teensy_loader_cli")
    put(image_for("teensy-41", tmp_path, 0x60000000), load_board("teensy-41"), None)
    (call,) = json.loads(log.read_text())
    assert "--mcu=TEENSY41" in call
    assert not Path(call[-1]).exists()
    assert decoded(log.with_suffix(".seen").read_text()) == (0x60000000, CONTENT)


@pytest.mark.parametrize("board_id", ["esp32-c3", "teensy-41", "nucleo-f446re"])
def test_a_missing_tool_says_how_to_install_it(tmp_path: Path, tools: Path, board_id: str) -> None:
    with pytest.raises(ToolError) as caught:
        put(image_for(board_id, tmp_path, 0x60000000), load_board(board_id), "/dev/here")
    assert caught.value.code == "flash-tool-missing"
    assert any("install" in step for step in caught.value.try_)


def test_a_board_without_a_method(tmp_path: Path) -> None:
    with pytest.raises(BoardError) as caught:
        put(image_for("x", tmp_path, 0), load_board("coral-dev-board-micro"), None)
    assert caught.value.code == "flash-method-missing"


@pytest.mark.parametrize("tool", ["esptool", "openocd", "pyocd", "teensy_loader_cli"])
def test_the_real_tool_takes_the_arguments(tmp_path: Path, tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a board each must get as far as looking for one; a wrong option would be refused by its parser."""
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}")
    monkeypatch.setattr("edgeq.device.methods._BUTTON_S", 2)
    board = load_board({"esptool": "esp32-c3", "teensy_loader_cli": "teensy-41"}.get(tool, "nucleo-f446re"))
    if tool == "pyocd":
        board = board.model_copy(
            update={"flash": board.flash.model_copy(update={"method": "pyocd", "target": "nrf52840"})}
        )
    address = board.regions("flash")[0].start
    with pytest.raises(ToolError) as caught:
        put(image_for(board.id, tmp_path, address), board, str(tmp_path / "no-port"))
    why = (caught.value.why or "").lower()
    looking = ("port", "unable to find", "open failed", "no connected", "waiting for teensy")
    assert any(words in why for words in looking), why
    assert "usage:" not in why
    assert caught.value.code == "flash-not-begun"


def decoded(text: str) -> tuple[int, bytes]:
    """Address and content of Intel HEX (Intel's specification of 1988, revision A): records 00, 01, 04."""
    upper, memory, ended = 0, {}, False
    for line in text.splitlines():
        record = bytes.fromhex(line.removeprefix(":"))
        assert line.startswith(":")
        assert not ended
        assert sum(record) & 0xFF == 0
        count, address, kind, data = record[0], int.from_bytes(record[1:3], "big"), record[3], record[4:-1]
        assert count == len(data)
        if kind == 4:
            upper = int.from_bytes(data, "big") << 16
        elif kind == 0:
            memory.update({upper + address + i: value for i, value in enumerate(data)})
        else:
            assert kind == 1
            ended = True
    assert ended
    start = min(memory)
    return start, bytes(memory[start + i] for i in range(len(memory)))


@pytest.mark.parametrize("address", [0, 0x0800FFF0, 0x6000FFE1, 0xFFFF])
@pytest.mark.parametrize("count", [1, 31, 32, 33, 70_000])
def test_intel_hex_holds_the_content(address: int, count: int) -> None:
    content = (CONTENT * 60)[:count]
    assert decoded(intel_hex(content, address)) == (address, content)
