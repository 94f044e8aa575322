"""Profiles: all valid and sourced, found by id, alias and device tree; each mistake has its sentence and line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgeq.boards import Board, board_of_model, list_boards, load_board, load_board_file
from edgeq.errors import BoardError

INVALID = sorted((Path(__file__).parent / "invalid").glob("*.toml"))


def expected(path: Path) -> tuple[int, str]:
    """Line and beginning of the sentence, which a fixture's first line names."""
    first = path.read_bytes().split(b"\n", 1)[0].decode()
    match = re.fullmatch(r"# line (\d+): (.*)", first)
    assert match, path
    return int(match[1]), match[2]


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_an_invalid_file_is_refused_by_line_and_reason(path):
    line, sentence = expected(path)
    with pytest.raises(BoardError) as caught:
        load_board_file(path)
    error = caught.value
    assert error.code == "board-file-invalid"
    assert error.why is not None
    assert error.why.startswith(sentence)
    assert error.where == f"{path}:{line}"
    assert error.try_


def test_no_two_mistakes_share_a_sentence():
    sentences = [expected(path)[1] for path in INVALID]
    assert len(set(sentences)) == len(sentences) >= 40


def test_there_are_24_boards_and_all_are_valid():
    boards = list_boards()
    assert len(boards) >= 24
    assert len({board.name for board in boards}) == len(boards)


@pytest.mark.parametrize(
    ("model", "board"),
    [
        ("Raspberry Pi 4 Model B Rev 1.4", "pi-4b"),
        ("Raspberry Pi 3 Model B Plus Rev 1.3", "pi-3b-plus"),
        ("Raspberry Pi 5 Model B Rev 1.0\0", "pi-5"),
        ("Raspberry Pi Zero 2 W Rev 1.0", "pi-zero-2w"),
    ],
)
def test_a_linux_board_is_told_by_its_device_tree(model, board):
    assert board_of_model(model).id == board


def test_an_unknown_device_tree_is_refused():
    with pytest.raises(BoardError, match="No profile"):
        board_of_model("Toaster")


def test_an_unknown_board_has_close_matches():
    with pytest.raises(BoardError) as caught:
        load_board("qemu-mps2-an38")
    assert caught.value.code == "board-unknown"
    assert "qemu-mps2-an386" in " ".join(caught.value.try_)


def test_pi_alone_is_ambiguous():
    with pytest.raises(BoardError) as caught:
        load_board("pi")
    assert caught.value.code == "board-ambiguous"


def test_a_missing_file_is_not_an_invalid_one(tmp_path):
    with pytest.raises(BoardError) as caught:
        load_board(tmp_path / "none.toml")
    assert caught.value.code == "board-file-not-found"


def test_a_user_adds_a_board_by_adding_a_file(tmp_path, monkeypatch):
    own = load_board("virtual-m4")
    text = Path(__file__).parents[3].joinpath("boards", "virtual-m4.toml").read_text()
    (tmp_path / "my-board.toml").write_text(text.replace('id = "virtual-m4"', 'id = "my-board"'))
    monkeypatch.setenv("EDGEQ_BOARDS", str(tmp_path))
    assert load_board("my-board").memory == own.memory
    assert "my-board" in {board.id for board in list_boards()}


def test_a_user_cannot_shadow_a_board(tmp_path, monkeypatch):
    (tmp_path / "virtual-m4.toml").write_text("not a profile")
    monkeypatch.setenv("EDGEQ_BOARDS", str(tmp_path))
    assert load_board("virtual-m4").name


@pytest.mark.parametrize("board", list_boards(), ids=lambda board: board.id)
def test_a_board_is_plausible(board: Board):
    if board.executor("generated-c") and board.core.architecture != "host":
        assert sum(region.usable_bytes for region in board.regions("ram")) >= 16 * 1024
    if board.timer != "instructions" and board.core.architecture != "host":
        assert board.core.clock_hz
    if board.virtual and board.core.architecture != "host":
        assert board.core.clock_hz is None, "an emulator has no clock"
