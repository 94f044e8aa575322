"""From bundle to image: what goes in, what comes out, what is refused and how."""

from __future__ import annotations

import json
import subprocess
import zlib
from pathlib import Path

import pytest
from tiny_bundle import ARENA_BYTES, DIGEST, SOURCE, write_tiny_bundle

from edgeq.boards import load_board
from edgeq.boards.profile import Board
from edgeq.errors import AnswerNo, BoardError, EdgeqError, InputError, OutputError, ToolError
from edgeq.toolchain import build, find_compiler, read_manifest
from edgeq.toolchain.build import _failure

BARE = "virtual-m4"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "bundle")


@pytest.fixture(params=["gcc", "zig"])
def compiler(request: pytest.FixtureRequest) -> str:
    try:
        find_compiler(load_board(BARE), request.param)
    except ToolError:
        pytest.skip(f"needs {request.param} for {BARE}")
    return str(request.param)


def with_memory(board: Board, **sizes: int) -> Board:
    memory = tuple(
        region.model_copy(update={"size_bytes": sizes.get(region.kind, region.size_bytes)}) for region in board.memory
    )
    return board.model_copy(update={"memory": memory})


def edit(bundle: Path, **fields: object) -> None:
    path = bundle / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_image_for_a_microcontroller(bundle: Path, tmp_path: Path, compiler: str):
    image = build(bundle, load_board(BARE), tmp_path / "out", compiler=compiler)
    assert (image.board, image.model_sha256, image.load_address) == (BARE, DIGEST, 0)
    assert image.bin is not None
    content = image.bin.read_bytes()
    stack_top, entry = int.from_bytes(content[:4], "little"), int.from_bytes(content[4:8], "little")
    assert stack_top == 0x20000000 + image.sizes.stack_bytes
    assert entry & 1
    assert entry & ~1 == image.entry & ~1
    assert abs(len(content) - image.sizes.flash_bytes) < 64
    assert image.sizes.bss_bytes > ARENA_BYTES
    location = image.locate(entry)
    assert location is not None
    assert location.function == "edgeq_reset_handler"
    assert Path(location.file).name == "startup.c"
    assert location.line > 0


def test_sizes_are_those_of_binutils(bundle: Path, tmp_path: Path, compiler: str):
    image = build(bundle, load_board(BARE), tmp_path / "out", compiler=compiler)
    answer = subprocess.run(["size", "-A", str(image.elf)], capture_output=True, text=True, check=True).stdout
    rows = {line.split()[0]: int(line.split()[1]) for line in answer.splitlines() if line.startswith(".")}
    assert image.sizes.text_bytes == rows[".text"]
    assert image.sizes.stack_bytes == rows[".stack"]
    assert image.sizes.data_bytes == rows.get(".data", 0)
    assert image.sizes.bss_bytes == rows[".bss"] + rows[".noinit"]


def test_symbols_of_every_size_lie_where_nm_says(bundle: Path, tmp_path: Path):
    image = build(bundle, load_board("host"), tmp_path / "out")
    answer = subprocess.run(["nm", str(image.elf)], capture_output=True, text=True, check=True).stdout
    symbols = {
        name: int(address, 16)
        for address, kind, name in (line.split() for line in answer.splitlines() if line[0] != " ")
    }
    for name in ("tiny_invoke", "tiny_input", "edgeq_crc32", "edgeq_agent_poll", "main"):
        location = image.locate(symbols[name])
        assert location is not None
        assert location.function == name
    assert image.locate(0x10) is None


def test_an_image_is_kept_until_something_changes(bundle: Path, tmp_path: Path):
    board, out = load_board("host"), tmp_path / "out"
    first = build(bundle, board, out)
    made = first.elf.stat().st_mtime_ns
    assert build(bundle, board, out) == first
    assert first.elf.stat().st_mtime_ns == made
    (bundle / "src/tiny.c").write_text(SOURCE.replace("^ 0x5A", "^ 0x5B"))
    build(bundle, board, out)
    assert first.elf.stat().st_mtime_ns != made


def test_a_damaged_image_is_built_anew(bundle: Path, tmp_path: Path):
    board, out = load_board("host"), tmp_path / "out"
    elf = build(bundle, board, out).elf
    whole = elf.read_bytes()
    elf.write_bytes(whole[: len(whole) // 2])
    build(bundle, board, out)
    assert zlib.crc32(elf.read_bytes()[:64]) == zlib.crc32(whole[:64])
    assert len(elf.read_bytes()) == len(whole)


def test_a_compiler_error_is_told_with_its_first_message(bundle: Path, tmp_path: Path, compiler: str):
    (bundle / "src/tiny.c").write_text(SOURCE.replace("bytes[0]++;", "bytes[0]++; undeclared = 1;"))
    with pytest.raises(ToolError) as caught:
        build(bundle, load_board(BARE), tmp_path / "out", compiler=compiler)
    assert caught.value.code == "build-failed"
    assert "undeclared" in str(caught.value.why)
    assert "tiny.c" in str(caught.value.why)
    assert not (tmp_path / "out").exists()


def test_a_missing_function_is_told_by_its_name(bundle: Path, tmp_path: Path, compiler: str):
    (bundle / "src/tiny.c").write_text(SOURCE.replace("void tiny_reset(", "void tiny_other("))
    with pytest.raises(ToolError) as caught:
        build(bundle, load_board(BARE), tmp_path / "out", compiler=compiler)
    assert "tiny_reset" in str(caught.value.why)


@pytest.mark.parametrize(("kind", "size"), [("ram", 8192), ("flash", 4096)])
def test_too_large_is_an_answer_and_says_by_how_much(bundle: Path, tmp_path: Path, compiler: str, kind: str, size: int):
    board = load_board(BARE)
    needed = build(bundle, board, tmp_path / "large", compiler=compiler).sizes
    with pytest.raises(AnswerNo) as caught:
        build(bundle, with_memory(board, **{kind: size}), tmp_path / "out", compiler=compiler)
    assert caught.value.code == "image-too-large"
    excess = int("".join(filter(str.isdigit, caught.value.what.split(" bytes")[0])))
    used = needed.ram_bytes if kind == "ram" else needed.flash_bytes
    assert abs(used - size - excess) < 6144, "frames and stack are smaller on a small RAM"
    assert not (tmp_path / "out").exists()


def test_no_compiler_says_how_to_install_one(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    for board in (BARE, "host"):
        with pytest.raises(ToolError) as caught:
            build(bundle, load_board(board), tmp_path / "out")
        assert caught.value.code == "compiler-not-found"
        assert any("install" in step for step in caught.value.try_)


def test_zig_stands_in_where_gcc_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("ziglang")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_compiler(load_board(BARE)).kind == "zig"
    assert find_compiler(load_board("host")).kind == "zig"


def test_boards_without_firmware_and_unknown_ports(bundle: Path, tmp_path: Path):
    board = load_board(BARE)
    with pytest.raises(BoardError) as caught:
        build(bundle, board.model_copy(update={"firmware": None}), tmp_path / "out")
    assert caught.value.code == "board-runs-no-firmware"
    assert board.firmware is not None
    elsewhere = board.model_copy(update={"firmware": board.firmware.model_copy(update={"port": "nowhere"})})
    with pytest.raises(BoardError) as caught:
        build(bundle, elsewhere, tmp_path / "out")
    assert caught.value.code == "port-unknown"
    assert "virtual" in caught.value.try_[0]


@pytest.mark.parametrize(
    "fields",
    [
        {"schema": "edgeq.bundle/9"},
        {"name": "x; }"},
        {"name": "../x"},
        {"model_sha256": "12"},
        {"arena_bytes": -1},
        {"arena_bytes": 2**40},
        {"inputs": []},
        {"compile_options": ["-fplugin=evil.so"]},
        {"compile_options": ["-o/etc/passwd"]},
        {"compile_options": ["@file"]},
        {"compile_options": ["-Wl,-T,evil.ld"]},
        {"files": {"../../etc/passwd": ""}},
        {"files": {"/etc/passwd": ""}},
        {"files": {"src/absent.c": ""}},
        {"files": {"include/tiny.h": ""}},
    ],
    ids=str,
)
def test_a_manifest_from_elsewhere_can_do_no_harm(bundle: Path, fields: dict[str, object]):
    edit(bundle, **fields)
    with pytest.raises(InputError) as caught:
        read_manifest(bundle)
    assert caught.value.code == "bundle-invalid"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"{}" * 10])
def test_a_manifest_that_is_none(bundle: Path, content: bytes):
    (bundle / "manifest.json").write_bytes(content)
    with pytest.raises(InputError):
        read_manifest(bundle)


def test_a_directory_that_is_no_bundle(tmp_path: Path):
    with pytest.raises(InputError) as caught:
        read_manifest(tmp_path)
    assert caught.value.code == "not-a-bundle"


def test_a_place_that_cannot_be_written(bundle: Path, tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError):
        build(bundle, load_board("host"), tmp_path / "file" / "out")


def test_a_directory_of_somebody_else_is_left_alone(bundle: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(EdgeqError) as caught:
        build(bundle, load_board("host"), tmp_path / "out")
    assert caught.value.code == "output-not-ours"
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"


def test_a_full_disk_under_the_linker_is_told() -> None:
    said = "ld: final link failed: No space left on device\ncollect2: error: ld returned 1 exit status\n"
    error = _failure(said, load_board("host"), "gcc")
    assert "No space left" in (error.why or "")
    assert "EDGEQ_STATE" in error.try_[0]
