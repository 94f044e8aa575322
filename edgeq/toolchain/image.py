"""A firmware image: what it holds, which function lies at an address. `elf` reads the file, loaded when it must."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of an image by kind of section. `bss_bytes` includes the arena, `stack_bytes` is what was reserved."""

    text_bytes: int
    rodata_bytes: int
    data_bytes: int
    bss_bytes: int
    stack_bytes: int

    @property
    def flash_bytes(self) -> int:
        """What lies in flash: code, constants, initial values."""
        return self.text_bytes + self.rodata_bytes + self.data_bytes

    @property
    def ram_bytes(self) -> int:
        """What lies in RAM, the stack included."""
        return self.data_bytes + self.bss_bytes + self.stack_bytes


@dataclass(frozen=True, slots=True)
class Location:
    """Where an address lies in the program; `line` is 0 if the image does not say."""

    function: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Image:
    """A linked image for one board and one model.

    `bin` is the flash content from `load_address` on; None on the host.
    """

    elf: Path
    bin: Path | None
    load_address: int
    entry: int
    board: str
    model_sha256: str
    compiler: str
    flags: tuple[str, ...]
    sizes: Sizes

    def functions(self) -> tuple[tuple[int, int, str], ...]:
        """(address, bytes, name) of every function, by address."""
        from edgeq.toolchain.elf import functions

        return functions(self.elf)

    def locate(self, address: int) -> Location | None:
        """The function, file and line at a code address (bit 0 is ignored); None if it is in no function."""
        from edgeq.toolchain.elf import line

        known, at = self.functions(), address & ~1
        index = bisect_right([start for start, _, _ in known], at) - 1
        if index < 0 or at >= known[index][0] + max(known[index][1], 2):
            return None
        return Location(known[index][2], *line(self.elf, at))
