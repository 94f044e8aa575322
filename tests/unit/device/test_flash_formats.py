"""Flash methods: the UF2 format after its specification, and the tools' command lines.

The tools are stand-ins that write down how they were called: no probe is at hand, and nothing here says that a board
was flashed.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.boards import Board, load_board
from edgeq.device import methods
from edgeq.errors import DeviceError
from edgeq.toolchain import Image, Sizes

posix = pytest.mark.skipif(os.name != "posix", reason="the stand-ins are scripts")


@pytest.fixture
def image(tmp_path: Path) -> Image:
    elf, binary = tmp_path / "firmware.elf", tmp_path / "firmware.bin"
    elf.write_bytes(b"elf")
    binary.write_bytes(bytes(range(256)) * 5)
    return Image(elf, binary, 0x08000000, 0x08000100, "b", "0" * 64, "gcc", (), Sizes(1280, 0, 0, 0, 0))


def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str) -> Path:
    calls = tmp_path / f"{tool}.json"
    script = tmp_path / "bin" / tool
    script.parent.mkdir(exist_ok=True)
    keep = f"import json, sys; json.dump(sys.argv[1:], open({str(calls)!r}, 'w')); print('Chip: STM32F4x')"
    script.write_text(f"#!{sys.executable}\n{keep}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent))
    return calls


def with_method(board_id: str, method: str, target: str | None = None) -> Board:
    board = load_board(board_id)
    flash = board.flash.model_copy(update={"method": method, "target": target or board.flash.target})
    return board.model_copy(update={"flash": flash})


@given(st.binary(min_size=1, max_size=2000), st.integers(0, 2**31).map(lambda n: n & ~255))
def test_uf2_blocks(content: bytes, address: int) -> None:
    blocks = methods.uf2(content, address, 0xE48BFF56)
    assert len(blocks) % 512 == 0
    restored = b""
    for index in range(len(blocks) // 512):
        block = blocks[512 * index : 512 * index + 512]
        first, second, flags, place, size, number, count, family = struct.unpack_from("<8I", block)
        assert (first, second) == (0x0A324655, 0x9E5D5157)
        assert struct.unpack_from("<I", block, 508) == (0x0AB16F30,)
        assert (flags, size, number, count, family) == (0x2000, 256, index, len(blocks) // 512, 0xE48BFF56)
        assert place == address + 256 * index
        restored += block[32 : 32 + size]
    assert restored[: len(content)] == content
    assert set(restored[len(content) :]) <= {0xFF}


@posix
@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("pyocd", ["load", "--no-wait", "--target", "stm32f4x", "--format", "elf", "ELF"]),
        ("stm32loader", ["-p", "PORT", "-e", "-w", "-v", "-a", "0x08000000", "-g", "0x08000000", "BIN"]),
        ("bossac", ["-p", "PORT", "-e", "-w", "-v", "-R", "BIN"]),
        ("dfu-util", ["-d", "0483:374b", "-a", "0", "-s", "0x08000000:leave", "-D", "BIN"]),
        (
            "openocd",
            ["-f", "interface/stlink.cfg", "-f", "target/stm32f4x.cfg", "-c", "program {ELF} verify reset exit"],
        ),
    ],
)
def test_command_lines(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, expected: list[str]
) -> None:
    calls = stand_in(tmp_path, monkeypatch, method)
    methods.put(image, with_method("stm32f4-discovery", method), "PORT")
    names = {"ELF": str(image.elf), "BIN": str(image.bin)}
    filled = [argument.replace("ELF", names["ELF"]).replace("BIN", names["BIN"]) for argument in expected]
    assert json.loads(calls.read_text()) == filled


def test_uf2_goes_to_the_right_volume(image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pico, other = tmp_path / "pico", tmp_path / "other"
    for volume, name in ((pico, "RPI-RP2"), (other, "nRF52840-feather")):
        volume.mkdir()
        (volume / "INFO_UF2.TXT").write_text(f"UF2 Bootloader v3.0\nModel: x\nBoard-ID: {name}\n")
    monkeypatch.setattr(methods, "_volumes", lambda: iter((other, pico)))
    monkeypatch.setattr(methods, "_VOLUME_WAIT_S", 0.0)
    methods.put(image, load_board("raspberry-pi-pico"), None)
    assert image.bin is not None
    assert (pico / "edgeq.uf2").stat().st_size == 512 * 5
    assert not (other / "edgeq.uf2").exists()
    monkeypatch.setattr(methods, "_volumes", lambda: iter((other,)))
    with pytest.raises(DeviceError) as caught:
        methods.put(image, load_board("raspberry-pi-pico"), None)
    assert caught.value.code == "uf2-volume-missing"
