"""`edgeq boards list | show | validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli.common import DebugOption, JsonOption, QuietOption, Verb

boards_app = typer.Typer(help="The boards EdgeQ knows, and files that describe others.", no_args_is_help=True)


@boards_app.command("list")
def list_(json: JsonOption = False, quiet: QuietOption = False, debug: DebugOption = False) -> None:
    """List every board: the package's, then those of your own directory (EDGEQ_BOARDS)."""
    with Verb("boards", json=json, quiet=quiet, debug=debug) as verb:
        from edgeq.boards import list_boards
        from edgeq.report.boards_text import render_list

        boards = list_boards()
        verb.finish(
            {"boards": [board.model_dump(mode="json", exclude_defaults=True) for board in boards]},
            lambda console: render_list(console, boards),
        )


@boards_app.command()
def show(
    board: Annotated[str, typer.Argument(help="A board's id, or a .toml file.")],
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Show one board: core, memory, what executes operators, how to reach it, and the sources of the numbers."""
    with Verb("boards", json=json, quiet=quiet, debug=debug) as verb:
        from edgeq.boards import load_board
        from edgeq.report.boards_text import render_board

        found = load_board(board)
        verb.finish({"boards": [found.model_dump(mode="json")]}, lambda console: render_board(console, found))


@boards_app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(help="Board files (.toml).")],
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Check board files; the first mistake is told with its line and reason."""
    with Verb("boards", json=json, quiet=quiet, debug=debug) as verb:
        from edgeq.boards import load_board_file
        from edgeq.report.boards_text import render_list

        boards = tuple(load_board_file(file) for file in files)
        verb.finish(
            {"boards": [board.model_dump(mode="json", exclude_defaults=True) for board in boards]},
            lambda console: render_list(console, boards),
        )
