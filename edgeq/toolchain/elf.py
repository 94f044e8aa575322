"""ELF files: sections, what goes into flash, functions, lines (pyelftools)."""

from __future__ import annotations

import zlib
from pathlib import Path

from elftools.common.exceptions import DWARFError, ELFError
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from edgeq.errors import ToolError
from edgeq.toolchain.image import Sizes

BOOT2_BYTES = 252
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def read_sizes(path: Path) -> tuple[int, Sizes]:
    """Entry address and sizes of an ELF file. ToolError `image-unreadable`."""
    counts = {"text": 0, "rodata": 0, "data": 0, "bss": 0, "stack": 0}
    try:
        with path.open("rb") as stream:
            elf = ELFFile(stream)
            for section in elf.iter_sections():
                flags = section["sh_flags"]
                if flags & SH_FLAGS.SHF_ALLOC:
                    counts[_kind(section.name, section["sh_type"], flags)] += section["sh_size"]
            entry = int(elf["e_entry"])
    except (OSError, ELFError) as error:
        raise ToolError("image-unreadable", f"{path} is not an ELF image.", where=str(path), why=str(error)) from error
    return entry, Sizes(**{f"{kind}_bytes": size for kind, size in counts.items()})


def flash_content(path: Path) -> tuple[int, bytes]:
    """Load address and bytes of everything that an ELF file puts into flash, gaps filled with 0xFF."""
    with path.open("rb") as stream:
        segments = [
            (segment["p_paddr"], segment.data())
            for segment in ELFFile(stream).iter_segments()
            if segment["p_type"] == "PT_LOAD" and segment["p_filesz"]
        ]
    start = min(address for address, _ in segments)
    content = bytearray(b"\xff" * (max(address + len(data) for address, data in segments) - start))
    for address, data in segments:
        content[address - start : address - start + len(data)] = data
    return start, bytes(content)


def write_boot2_checksum(path: Path) -> None:
    """Puts the checksum of the first 252 bytes of .boot2 behind them, little-endian (RP2040 data sheet, 2.8.1.3.1)."""
    with path.open("r+b") as stream:
        section = ELFFile(stream).get_section_by_name(".boot2")
        content, offset = section.data(), section["sh_offset"]
        stream.seek(offset + BOOT2_BYTES)
        stream.write(crc32_mpeg2(content[:BOOT2_BYTES]).to_bytes(4, "little"))


def crc32_mpeg2(data: bytes) -> int:
    """CRC-32/MPEG-2: zlib's polynomial and initial value, bits not reflected, no final complement."""
    reflected = zlib.crc32(data.translate(_REVERSED)) ^ 0xFFFFFFFF
    return int(f"{reflected:032b}"[::-1], 2)


def _kind(name: str, type_: str, flags: int) -> str:
    if name == ".stack":
        return "stack"
    if type_ == "SHT_NOBITS":
        return "bss"
    if flags & SH_FLAGS.SHF_EXECINSTR:
        return "text"
    return "data" if flags & SH_FLAGS.SHF_WRITE else "rodata"


def functions(path: Path) -> tuple[tuple[int, int, str], ...]:
    """(address, bytes, name) of every function, by address."""
    with path.open("rb") as stream:
        return tuple(
            sorted(
                (symbol["st_value"] & ~1, symbol["st_size"], symbol.name)
                for section in ELFFile(stream).iter_sections()
                if isinstance(section, SymbolTableSection)
                for symbol in section.iter_symbols()
                if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_shndx"] != "SHN_UNDEF"
            )
        )


def line(path: Path, address: int) -> tuple[str, int]:
    """File and line of an address by DWARF's line table; ("", 0) without one."""
    with path.open("rb") as stream:
        return _line(ELFFile(stream), address)


def _line(elf: ELFFile, address: int) -> tuple[str, int]:
    if not elf.has_dwarf_info():
        return "", 0
    try:
        for unit in elf.get_dwarf_info().iter_CUs():
            program = elf.get_dwarf_info().line_program_for_CU(unit)
            if program is None:
                continue
            before = None
            for entry in program.get_entries():
                state = entry.state
                if state is None:
                    continue
                if before is not None and before.address <= address < state.address:
                    first = 0 if program["version"] >= 5 else 1
                    name = program["file_entry"][before.file - first].name
                    return name.decode(errors="replace"), int(before.line)
                before = None if state.end_sequence else state
    except (DWARFError, ELFError, IndexError, KeyError):
        return "", 0
    return "", 0
