"""Every port compiles for every board that names it; what a boot ROM looks for is where it looks."""

from __future__ import annotations

from pathlib import Path

import pytest
from cobs import cobs
from elftools.elf.elffile import ELFFile
from tiny_bundle import write_tiny_bundle

from edgeq.boards import list_boards, load_board
from edgeq.boards.profile import Board
from edgeq.errors import BoardError, ToolError
from edgeq.files import data_directory
from edgeq.toolchain import Image, build
from edgeq.toolchain.elf import BOOT2_BYTES, crc32_mpeg2
from edgeq.toolchain.port import load_port

BOARDS = [board for board in list_boards() if board.firmware is not None]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


def built(bundle: Path, board: Board, out: Path, compiler: str | None) -> Image:
    try:
        return build(bundle, board, out, compiler=compiler)
    except ToolError as error:
        if error.code != "compiler-not-found":
            raise
        pytest.skip(f"needs {compiler or 'a compiler'} for {board.id}")


def load_address_of(image: Image, address: int) -> int:
    """Where the byte at a run-time address lies in flash."""
    with image.elf.open("rb") as stream:
        for segment in ELFFile(stream).iter_segments("PT_LOAD"):
            offset = address - segment["p_vaddr"]
            if 0 <= offset < segment["p_filesz"]:
                return int(segment["p_paddr"]) + offset
    raise AssertionError(f"{address:#x} is not loaded")


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.id)
def test_the_port_compiles_and_fits_its_memory(bundle: Path, board: Board, tmp_path: Path):
    image = built(bundle, board, tmp_path / "out", None)
    if board.memory:
        flash, ram = board.regions("flash")[0], board.regions("ram")[0]
        assert flash.start <= image.load_address
        assert load_address_of(image, image.entry & ~1) in range(flash.start, flash.start + flash.size_bytes)
        assert image.sizes.ram_bytes <= ram.usable_bytes


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["gcc", "zig"])
@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.id)
def test_the_port_compiles_with_each_compiler(bundle: Path, board: Board, compiler: str, tmp_path: Path):
    built(bundle, board, tmp_path / "out", compiler)


@pytest.mark.parametrize("compiler", ["gcc", "zig"])
@pytest.mark.parametrize("board_id", ["arduino-nano-33-ble-sense", "raspberry-pi-pico"])
def test_the_port_speaks_over_uart_or_usb(bundle: Path, tmp_path: Path, board_id: str, compiler: str):
    board = load_board(board_id)
    assert board.firmware is not None
    names = {}
    for name in ("usb", "uart"):
        chosen = board.model_copy(update={"firmware": board.firmware.model_copy(update={"serial": name})})
        image = built(bundle, chosen, tmp_path / name, compiler)
        with image.elf.open("rb") as stream:
            table = ELFFile(stream).get_section_by_name(".symtab")
            names[name] = {symbol.name for symbol in table.iter_symbols()}
    assert "edgeq_cdc_setup" in names["usb"]
    assert "edgeq_cdc_setup" not in names["uart"]


def test_a_line_that_the_port_does_not_have():
    board = load_board("raspberry-pi-pico-2")
    assert board.firmware is not None
    with pytest.raises(BoardError) as caught:
        load_port(board.model_copy(update={"firmware": board.firmware.model_copy(update={"serial": "usb"})}))
    assert caught.value.code == "serial-unknown"
    board = load_board("arduino-nano-33-ble-sense")
    with pytest.raises(BoardError) as caught:
        load_port(board.model_copy(update={"link": board.link.model_copy(update={"usb_ids": ()})}))
    assert caught.value.code == "usb-id-missing"


def test_every_port_belongs_to_a_board():
    ports = {path.parent.name for path in (data_directory("firmware") / "ports").glob("*/port.toml")}
    assert ports == {board.firmware.port for board in BOARDS if board.firmware is not None}


def test_checksum_of_the_catalogue():
    """The check value of CRC-32/MPEG-2 in the catalogue of parametrised CRC algorithms."""
    assert crc32_mpeg2(b"123456789") == 0x0376E6E7


@pytest.mark.parametrize("compiler", ["gcc", "zig"])
def test_rp2040_begins_with_a_sealed_boot_stage(bundle: Path, tmp_path: Path, compiler: str):
    image = built(bundle, load_board("raspberry-pi-pico"), tmp_path / "out", compiler)
    assert image.bin is not None
    content = image.bin.read_bytes()
    assert image.load_address == 0x10000000
    assert int.from_bytes(content[BOOT2_BYTES : BOOT2_BYTES + 4], "little") == crc32_mpeg2(content[:BOOT2_BYTES])
    assert int.from_bytes(content[256:260], "little") == 0x20000000 + image.sizes.stack_bytes
    assert int.from_bytes(content[260:264], "little") & ~1 == image.entry & ~1


@pytest.mark.parametrize("compiler", ["gcc", "zig"])
def test_rp2350_has_its_block_in_the_first_four_kilobytes(bundle: Path, tmp_path: Path, compiler: str):
    image = built(bundle, load_board("raspberry-pi-pico-2"), tmp_path / "out", compiler)
    assert image.bin is not None
    content = image.bin.read_bytes()
    at = content.index(bytes.fromhex("d3deffff"))
    assert image.load_address + at + 28 <= 0x10001000
    block = [int.from_bytes(content[at + 4 * i : at + 4 * i + 4], "little") for i in range(7)]
    assert block == [0xFFFFDED3, 0x10210142, 0x203, image.load_address, 0x3FF, 0, 0xAB123579]


@pytest.mark.parametrize("compiler", ["gcc", "zig"])
def test_esp32_c3_begins_as_its_rom_wants_for_direct_boot(bundle: Path, tmp_path: Path, compiler: str):
    """Two magic words at flash offset 0; the ROM jumps behind them, where the flash is mapped for instructions."""
    image = built(bundle, load_board("esp32-c3"), tmp_path / "out", compiler)
    assert image.bin is not None
    assert image.load_address == 0x3C000000
    assert image.bin.read_bytes()[:8] == bytes.fromhex("1d04dbae1d04dbae")
    assert image.entry == 0x42000008
    assert load_address_of(image, image.entry) == 0x3C000008
    with image.elf.open("rb") as stream:
        elf = ELFFile(stream)
        text, constants = elf.get_section_by_name(".text"), elf.get_section_by_name(".rodata")
        assert text["sh_addr"] == 0x42000000
        # Data are read through the other mapping, at the same offset in flash.
        assert constants["sh_addr"] == load_address_of(image, constants["sh_addr"])


@pytest.mark.parametrize("compiler", ["gcc", "zig"])
def test_imxrt1062_begins_with_what_its_boot_rom_reads(bundle: Path, tmp_path: Path, compiler: str):
    """System boot in the i.MX RT1060 reference manual: FlexSPI configuration at 0, image vector table at 0x1000."""
    image = built(bundle, load_board("teensy-41"), tmp_path / "out", compiler)
    assert image.bin is not None
    content = image.bin.read_bytes()
    words = {
        at: int.from_bytes(content[at : at + 4], "little") for at in (*range(0, 512, 4), *range(0x1000, 0x1040, 4))
    }
    assert image.load_address == 0x60000000
    assert content[:4] == b"FCFB"
    # Fast read on four lines of a W25Q64JV: command 0xEB, 24 bits of address, mode 0x20, 4 dummy cycles, data.
    assert [words[at] for at in (0x80, 0x84, 0x88)] == [0x0A1804EB, 0x32041E20, 0x7C012604]
    header, entry, _, _, data, itself = (words[0x1000 + 4 * i] for i in range(6))
    assert (header, itself) == (0x432000D1, 0x60001000)
    assert entry & 1
    assert load_address_of(image, entry & ~1) == entry & ~1
    start, length = words[data - 0x60000000], words[data - 0x60000000 + 4]
    assert start == 0x60000000
    assert len(content) <= length <= 8 << 20


class Heard(Exception):
    """Enough was said."""


class Silence:
    """A line that says nothing and listens to the first frame."""

    def __init__(self) -> None:
        self.said = bytearray()

    def waits(self) -> bool:
        return False

    def receive(self) -> int:
        return 0

    def send(self, byte: int) -> None:
        self.said.append(byte)
        if byte == 0 and any(self.said):
            raise Heard


def test_a_boot_loader_may_leave_any_stack_and_interrupts_off(bundle: Path, tmp_path: Path):
    """One that jumps from a thread with a stack of its own: the core's state is then not that after a reset."""
    unicorn = pytest.importorskip("unicorn", reason="needs the package unicorn (extra mcu)")
    from edgeq.device.virtual.cortex_m4 import RAM_START, CortexM4
    from edgeq.device.virtual.unicorn_process import load_segments

    registers = unicorn.arm_const
    image = built(bundle, load_board("virtual-m4"), tmp_path / "out", None)

    class AfterBootLoader(CortexM4):
        def _reset(self) -> int:
            entry = super()._reset()
            self._uc.reg_write(registers.UC_ARM_REG_PRIMASK, 1)
            self._uc.reg_write(registers.UC_ARM_REG_CONTROL, 2)  # a thread's stack: it ends 16 bytes above nothing
            self._uc.reg_write(registers.UC_ARM_REG_SP, RAM_START + 16)
            return entry

        def core(self) -> tuple[int, int]:
            return tuple(map(self._uc.reg_read, (registers.UC_ARM_REG_PRIMASK, registers.UC_ARM_REG_CONTROL)))

    line = Silence()
    board = AfterBootLoader(load_segments(image.elf), line)
    with pytest.raises(Heard):
        board.run()
    frames = [cobs.decode(frame) for frame in bytes(line.said).split(b"\0") if frame]
    assert [frame[1] for frame in frames] == [0xA0], "the BOOT event, once"
    primask, control = board.core()
    assert (primask, control & 2) == (0, 0)
