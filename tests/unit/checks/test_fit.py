"""Predicted flash and RAM against linked images; what happens where it does not fit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgeq import api
from edgeq.boards import load_board
from edgeq.checks import check
from edgeq.graph import read
from edgeq.toolchain import build

FAST = [
    ("kws_ref_int8", "qemu-mps2-an386"),
    ("ad01_int8", "qemu-mps2-an385"),
    ("ic_resnet8_int8", "qemu-mps3-an547"),
    ("kws_ref_int8", "arduino-nano-33-ble-sense"),
]
SLOW = [
    ("kws_ref_int8", "qemu-mps2-an385"),
    ("kws_ref_int8", "qemu-netduinoplus2"),
    ("ad01_int8", "qemu-mps2-an386"),
    ("ad01_int8", "virtual-m4"),
    ("ic_resnet8_int8", "qemu-mps2-an385"),
    ("ic_resnet8_int8", "qemu-mps2-an386"),
    ("vww_96_int8", "qemu-mps2-an385"),
    ("vww_96_int8", "qemu-mps2-an386"),
    ("vww_96_int8", "qemu-mps3-an547"),
    ("kws_ref_int8", "raspberry-pi-pico"),
    ("vww_96_int8", "raspberry-pi-pico"),
    ("ic_resnet8_int8", "raspberry-pi-pico"),
    ("ad01_int8", "raspberry-pi-pico"),
    ("kws_ref_int8", "qemu-riscv32-virt"),
    ("ic_resnet8_int8", "esp32-c3"),
    ("vww_96_int8", "teensy-41"),
    ("kws_ref_int8", "nucleo-l4r5zi"),
]


@pytest.mark.parametrize(("model", "board"), [*FAST, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in SLOW)])
def test_flash_and_ram_are_within_2_percent_of_the_linked_image(shared, tmp_path, model, board):
    gcc = f"{load_board(board).firmware.gcc_prefix}gcc"
    if shutil.which(gcc) is None:
        pytest.skip(f"needs {gcc}")
    path = shared / "models" / f"{model}.tflite"
    api.bundle(path, board, tmp_path / "bundle")
    sizes = build(tmp_path / "bundle", load_board(board), tmp_path / "image", compiler="gcc").sizes
    report = api.check(path, [board])[0]
    flash, ram = report.use("flash"), report.use("ram")
    linked_flash = sizes.text_bytes + sizes.rodata_bytes + sizes.data_bytes
    linked_ram = sizes.data_bytes + sizes.bss_bytes + sizes.stack_bytes
    assert flash.needed.value == pytest.approx(linked_flash, rel=0.02)
    assert ram.needed.value == pytest.approx(linked_ram, rel=0.02)


def small_board(tmp_path: Path, kind: str, size: int) -> Path:
    """A board file like virtual-m4 with one memory of another size."""
    text = Path(__file__).parents[3].joinpath("boards", "virtual-m4.toml").read_text()
    before = {"flash": "size_bytes = 0x100000", "ram": "size_bytes = 0x40000"}[kind]
    assert before in text
    path = tmp_path / "small.toml"
    path.write_text(text.replace('id = "virtual-m4"', 'id = "small"').replace(before, f"size_bytes = {size}"))
    return path


@pytest.mark.parametrize("kind", ["flash", "ram"])
def test_a_board_too_small_is_told_with_the_missing_bytes(shared, tmp_path, kind):
    graph = read(shared / "models" / "ad01_int8.tflite")
    needed = int(check(graph, load_board("virtual-m4")).use(kind).needed.value)
    for size, fits in ((needed + 16, True), (needed - 16, False)):
        report = check(graph, load_board(small_board(tmp_path, kind, size)))
        if kind == "flash" or size >= 32 * 1024:
            assert report.fits is fits
        rules = {finding.rule for finding in report.findings}
        assert (f"{kind}-too-small" in rules) is not report.fits
