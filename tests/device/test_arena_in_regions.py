"""An arena in two regions of an emulated board's RAM: the agent's view of it, and the way from bundle to result."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import agent_link as al
import numpy as np
import pytest
from agent_link import Link, powered
from elftools.elf.elffile import ELFFile
from single import values
from test_regions import small, with_ram

from edgeq import codegen
from edgeq.benchmark import bench
from edgeq.boards import load_board
from edgeq.boards.profile import Board
from edgeq.device import flash
from edgeq.errors import AnswerNo, InputError, ToolError
from edgeq.toolchain import Image, build

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="needs qemu-system-arm"),
]
ARENA = 2
CAPTURE_CAPACITY = 28
"""Its place in HELLO's reply."""
PAINT = b"\xa5"


class Split:
    """The same network for the same core, in one region and in two that are too small for it alone."""

    def __init__(self, place: Path) -> None:
        self.graph = small()
        self.whole_board = load_board("qemu-mps2-an386")
        whole = codegen.plan(self.graph, self.whole_board, name="model")
        speeds = ["fast", "tightly-coupled"]
        self.board = with_ram(self.whole_board, [whole.arena_bytes - 16] * 2, whole, speeds)
        made = codegen.spread(codegen.plan(self.graph, self.board, name="model"), self.board)
        assert len(made.regions) == 2
        self.whole, self.made = codegen.emit(whole), codegen.emit(made)
        codegen.write_bundle(self.whole, place / "whole")
        codegen.write_bundle(self.made, place / "split")
        self.place = place

    def image(self, name: str, board: Board, compiler: str) -> Image:
        try:
            return build(self.place / name, board, self.place / f"{name}-{compiler}", compiler=compiler)
        except ToolError as error:
            if error.code == "compiler-not-found":
                pytest.skip(f"needs {compiler}")
            raise


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return Split(tmp_path_factory.mktemp("regions"))


@contextmanager
def running(split: Split, name: str, board: Board, compiler: str) -> Iterator[Link]:
    with powered(split.image(name, board, compiler), board) as link:
        link.hello()
        yield link


def captures(link: Link, manifest: Any, given: bytes) -> list[bytes]:
    """What lies in the arena after each layer, by CAPTURE, and by READ the output."""
    found = []
    capacity = struct.unpack_from("<I", link.hello().payload, CAPTURE_CAPACITY)[0]
    assert capacity > 0
    for layer in manifest["layers"]:
        taken = b""
        while (left := layer["output_bytes"] - len(taken)) > 0:
            link.ask(al.RESET, b"\0")
            link.write(0, given)
            place = {"offset": layer["output_offset"] + len(taken), "length": min(left, capacity)}
            assert link.run(1, al.CAPTURE, layer=layer["index"], **place).status == al.OK
            taken += link.read(3, 0, place["length"])
        found.append(taken)
    return [*found, link.read(1, 0, manifest["outputs"][0]["bytes"])]


@pytest.mark.parametrize("compiler", ["gcc", "zig"])
def test_the_agent_sees_one_arena(split: Split, compiler: str) -> None:
    """Layer by layer the bytes of a plan in one piece; MEMORY and READ count through both pieces."""
    given = np.ascontiguousarray(values(split.graph, 2)[0]).tobytes()
    with running(split, "whole", split.whole_board, compiler) as link:
        expected = captures(link, split.whole.manifest, given)
    manifest = split.made.manifest
    with running(split, "split", split.board, compiler) as link:
        assert captures(link, manifest, given) == expected
        total, first = manifest["arena_bytes"], manifest["regions"][0]["bytes"]
        assert total == sum(region["bytes"] for region in manifest["regions"])
        planned, used, *_ = struct.unpack("<8I", link.ask(al.MEMORY).payload)
        assert (planned, 0 < used <= total) == (total, True)
        whole = link.read(ARENA, 0, total)
        assert link.read(ARENA, 0, 64, start=first - 32) == whole[first - 32 : first + 32]
        assert link.ask(al.READ, struct.pack("<BBHII", ARENA, 0, 0, total - 8, 9)).status == al.BAD_RANGE
        link.ask(al.RESET, b"\0")
        assert link.read(ARENA, 0, total) == PAINT * total


def test_each_piece_lies_in_its_region(split: Split) -> None:
    """The linked image has both arenas where the profile puts the regions, aligned; nothing of them is in flash."""
    image = split.image("split", split.board, "gcc")
    with image.elf.open("rb") as stream:
        symbols = {s.name: s["st_value"] for s in ELFFile(stream).get_section_by_name(".symtab").iter_symbols()}
    regions = split.board.regions("ram")
    for index, piece in enumerate(split.made.manifest["regions"]):
        region = next(r for r in regions if r.name == piece["name"])
        start = symbols[f"arena_{index}"]
        assert start % 16 == 0
        assert region.start <= start <= start + piece["bytes"] <= region.start + region.size_bytes
    assert image.bin is not None
    assert image.bin.stat().st_size <= image.sizes.flash_bytes + 64


def test_from_bundle_to_result(split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """flash and bench: the board's outputs are this computer's, whose arena is one piece."""
    monkeypatch.setenv("EDGEQ_STATE", str(tmp_path))
    flash(split.place / "split", split.board)
    codegen.write_bundle(codegen.emit(codegen.plan(split.graph, load_board("host"), name="model")), tmp_path / "host")
    x = np.concatenate([values(split.graph, kind)[0] for kind in (1, 2, 3)])
    report = bench(split.place / "split", split.board, x=x, runs=2, host_bundle=tmp_path / "host")
    assert report.ok
    assert report.comparison is not None
    assert report.comparison.bytes_compared > 0
    assert report.comparison.bytes_differing == 0
    assert report.memory.arena_planned.value == split.made.manifest["arena_bytes"]


def test_another_board_is_refused(split: Split, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="region of RAM") as caught:
        build(split.place / "split", split.whole_board, tmp_path / "out")
    assert caught.value.code == "region-unknown"
    second = split.board.regions("ram")[1]
    memory = [r.model_copy(update={"size_bytes": 64}) if r == second else r for r in split.board.memory]
    with pytest.raises(AnswerNo) as too_large:
        build(split.place / "split", split.board.model_copy(update={"memory": tuple(memory)}), tmp_path / "out")
    assert second.name in (too_large.value.where or "")
