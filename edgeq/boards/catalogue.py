"""The catalogue: finds, reads and validates board profiles.

Profiles come from the package's `boards/`, from the user's directory, and from single files. The user's directory is
`EDGEQ_BOARDS` if the caller's environment has it, else `boards` in the configuration directory; a profile there may not
take the id of a profile of the package.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from edgeq.boards.locate import key_lines, line_of
from edgeq.boards.profile import Board
from edgeq.errors import BoardError
from edgeq.files import data_directory

MAX_FILE_BYTES = 64 * 1024
"""A profile is a page of text; more is not a profile."""

_TAG_DEPTH = 2
"""Path entries before the kind that pydantic inserts into the place of an error in `executors`."""


def user_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Where a user's own profiles lie; the directory need not exist."""
    if own := environment.get("EDGEQ_BOARDS"):
        return Path(own)
    if sys.platform == "win32":
        base = Path(environment.get("APPDATA", "~"))
    elif sys.platform == "darwin":
        base = Path("~/Library/Application Support")
    else:
        base = Path(environment.get("XDG_CONFIG_HOME") or "~/.config")
    return base.expanduser() / "edgeq" / "boards"


def board_files() -> dict[str, Path]:
    """Board id -> its file, the package's boards first, each directory in alphabetical order."""
    files: dict[str, Path] = {}
    for directory in (data_directory("boards"), user_directory()):
        if directory.is_dir():
            for path in sorted(directory.glob("*.toml")):
                files.setdefault(path.stem, path)
    return files


def list_boards() -> tuple[Board, ...]:
    """All profiles of the package and of the user's directory. BoardError if one of them is invalid."""
    return tuple(load_board_file(path) for path in board_files().values())


def load_board(board: Board | str | Path) -> Board:
    """The profile with an id, or in a file (a path, or a name that ends in .toml); a Board is returned as it is.

    BoardError `board-unknown`, `board-file-not-found`, `board-file-invalid`; `board-ambiguous` for the alias `pi`,
    which needs the device's answer (`board_of_model`).
    """
    if isinstance(board, Board):
        return board
    if isinstance(board, Path) or board.endswith(".toml"):
        return load_board_file(Path(board))
    if board == "pi":
        raise BoardError(
            "board-ambiguous",
            "'pi' stands for whichever Raspberry Pi answers; without a device there is no answer.",
            where=board,
            try_=("Name the board: pi-3b-plus, pi-4b, pi-5 or pi-zero-2w.", "Give the device with --host USER@HOST."),
        )
    files = board_files()
    if board in files:
        return load_board_file(files[board])
    close = get_close_matches(board, files, n=3, cutoff=0.5)
    raise BoardError(
        "board-unknown",
        f"There is no board {board!r}.",
        where=board,
        try_=(
            *(f"Did you mean {name}?" for name in close),
            "List the boards with `edgeq boards list`.",
            "Describe your own in a file and give it with --board-file (boards/SCHEMA.md says how).",
        ),
    )


def board_of_model(model: str) -> Board:
    """The Linux board whose `/proc/device-tree/model` this is, by the longest beginning. BoardError `board-unknown`."""
    text = model.rstrip("\0\n ")
    matches = [
        (len(beginning), board)
        for board in list_boards()
        if board.linux is not None
        for beginning in board.linux.models
        if text.startswith(beginning)
    ]
    if not matches:
        raise BoardError("board-unknown", f"No profile is of a {text!r}.", try_="Name the board with --board.")
    return max(matches, key=lambda match: match[0])[1]


def load_board_file(path: Path) -> Board:
    """Read and validate one profile. BoardError `board-file-not-found` or `board-file-invalid` (line and reason)."""
    try:
        content = path.read_bytes() if path.stat().st_size <= MAX_FILE_BYTES else None
    except OSError as error:
        raise BoardError(
            "board-file-not-found",
            f"Cannot read the board file {path}.",
            where=str(path),
            why=error.strerror or str(error),
            try_="Check the path.",
        ) from error
    if content is None:
        raise _invalid(path, 1, f"The file is larger than {MAX_FILE_BYTES // 1024} KiB; it is not a board profile.")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise _invalid(path, line, "The file is not UTF-8 text.") from error
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        line, reason = _syntax(text, error)
        raise _invalid(path, line, f"Not valid TOML: {reason}.") from error
    try:
        board = Board.model_validate(data)
    except ValidationError as error:
        lines = key_lines(text)
        found = sorted((line_of(lines, place), sentence) for place, sentence in map(_sentence, error.errors()))
        found.sort(key=lambda one: "did you mean" not in one[1])
        line, sentence = found[0]
        more = tuple(f"Also wrong, line {other}: {reason}" for other, reason in found[1:])
        raise _invalid(path, line, sentence, more) from error
    if board.id != path.stem:
        line = line_of(key_lines(text), ("id",))
        raise _invalid(path, line, f"id: it is {board.id!r} but the file is named {path.stem!r}; they must be equal.")
    return board


def _invalid(path: Path, line: int, sentence: str, more: tuple[str, ...] = ()) -> BoardError:
    return BoardError(
        "board-file-invalid",
        f"The board file {path.name} is invalid, line {line}.",
        where=f"{path}:{line}",
        why=sentence,
        try_=(*more, "Compare with boards/SCHEMA.md, or with a profile that `edgeq boards show ID` prints."),
    )


def _syntax(text: str, error: Exception) -> tuple[int, str]:
    """Line and reason of a syntax error; the message ends in `(at line 3, column 7)` or `(at end of document)`."""
    message, _, place = str(error).partition(" (at ")
    if place.startswith("line "):
        return int(place.removeprefix("line ").split(",")[0]), message
    return max(1, len(text.splitlines())), message or "it is nested too deeply"


def _sentence(error: Any) -> tuple[tuple[str | int, ...], str]:
    """Place in the file and sentence for one of pydantic's errors."""
    place: tuple[str | int, ...] = tuple(error["loc"])
    if len(place) > _TAG_DEPTH and place[0] == "executors":
        place = place[:_TAG_DEPTH] + place[_TAG_DEPTH + 1 :]
    named = [part for part in place if isinstance(part, str)]
    key = named[-1] if named else "board"
    table = f"[{named[-2]}]" if len(named) > 1 else "the profile"
    value, kind, context = error.get("input"), error["type"], error.get("ctx", {})
    shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    match kind:
        case "missing":
            place, sentence = place[:-1], f"{key}: {table} lacks this key."
        case "extra_forbidden":
            close = get_close_matches(key, _keys_of(place), n=1)
            sentence = f"{key}: {table} has no such key" + (f"; did you mean {close[0]!r}?" if close else ".")
        case "value_error":
            sentence = str(error["msg"]).removeprefix("Value error, ")
            place = (*place, sentence.partition(":")[0])
        case "literal_error":
            several = "," in context["expected"] or " or " in context["expected"]
            sentence = f"{key}: {shown} is {'none of' if several else 'not'} {context['expected']}."
        case "union_tag_invalid":
            sentence = f"kind: {value.get('kind')!r} is none of {context['expected_tags']}."
        case "union_tag_not_found":
            sentence = f"kind: a table of {key} lacks this key."
        case "string_pattern_mismatch":
            sentence = f"{key}: {shown} does not have the form {context['pattern']}."
        case _:
            message = str(error["msg"])
            sentence = f"{key}: {message[0].lower()}{message[1:]}; found {shown}."
    return place, sentence


def _keys_of(place: tuple[str | int, ...]) -> list[str]:
    """The keys that the table around a place may have."""
    models: list[type[BaseModel]] = [Board]
    for part in place[:-1]:
        if isinstance(part, str):
            models = [
                m
                for model in models
                if part in model.model_fields
                for m in _models(model.model_fields[part].annotation)
            ]
    return sorted({name for model in models for name in model.model_fields})


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]
