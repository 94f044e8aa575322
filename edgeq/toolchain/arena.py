"""Where a bundle's arena lies in an image: in the board's first region of RAM, in another, or in pieces in several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeq.boards.profile import Board, Memory
from edgeq.errors import InputError
from edgeq.toolchain.manifest import Manifest

_SECTION, _REGION = ".edgeq_arena_", "EDGEQ_ARENA_"


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the arena: its bytes, and, where it does not lie beside the other variables, section and region."""

    bytes: int
    section: str = ""
    region: Memory | None = None


def arena_pieces(manifest: Manifest, board: Board) -> tuple[Piece, ...]:
    """The pieces of a bundle's arena on a board. InputError `region-unknown` where the board lacks a region."""
    ram = board.regions("ram")
    if not manifest.regions or not ram:
        sizes = [region.bytes for region in manifest.regions] or [manifest.arena_bytes]
        return tuple(Piece(size) for size in sizes)
    found = []
    for wanted in manifest.regions:
        position = next((i for i, region in enumerate(ram) if region.name == wanted.name), None)
        if position is None:
            raise InputError(
                "region-unknown",
                f"The bundle's arena lies in a region of RAM that {board.id} does not have.",
                where=wanted.name,
                why=f"It has {', '.join(region.name for region in ram)}; the bundle was made for another board.",
                try_=f"Write the bundle anew with: edgeq bundle MODEL.tflite --board {board.id} -o DIR",
            )
        elsewhere = Piece(wanted.bytes, f"{_SECTION}{position}", ram[position])
        found.append(elsewhere if position else Piece(wanted.bytes))
    return tuple(found)


def arena_sections(pieces: Sequence[Piece]) -> str:
    """What a linker script needs besides for pieces outside of the first region; nothing of them is in flash."""
    text = ""
    for piece in pieces:
        if piece.region is not None:
            name = piece.section.replace(_SECTION, _REGION)
            start, size = piece.region.start + piece.region.reserved_bytes, piece.region.usable_bytes
            text += (
                f"MEMORY {{ {name} (rw) : ORIGIN = {start:#x}, LENGTH = {size:#x} }}\n"
                f"SECTIONS {{ {piece.section} (NOLOAD) : {{ *({piece.section}) }} > {name} }}\n"
            )
    return text


def region_at_fault(name: str, board: Board) -> Memory:
    """The board's region that a linker calls so."""
    if name.startswith(_REGION):
        return board.regions("ram")[int(name.removeprefix(_REGION))]
    return board.regions("flash" if name == "FLASH" else "ram")[0]
