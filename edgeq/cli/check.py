"""`edgeq check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli.common import DebugOption, JsonOption, QuietOption, Verb


def check(
    model: Annotated[Path, typer.Argument(help="A .tflite file.", show_default=False)],
    *,
    board: Annotated[
        list[str] | None, typer.Option("--board", "-b", help="A board's id; repeat it, or `all`, for a matrix.")
    ] = None,
    board_file: Annotated[list[Path] | None, typer.Option(help="A board's file; may be repeated.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Show every finding and every operator.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Will every operator run on the board, does the model fit, how fast, and if not, what to change.

    Exit status 0: it fits on every board named; 1: it does not.
    """
    with Verb("check", json=json, quiet=quiet, debug=debug) as verb:
        from edgeq import api
        from edgeq.boards import list_boards
        from edgeq.checks import document
        from edgeq.errors import UsageError
        from edgeq.report.check_text import render_check

        boards = [*(board or ()), *(board_file or ())]
        if not boards:
            raise UsageError(
                "board-missing", "No board is named.", try_="Give --board BOARD; `edgeq boards list` shows them."
            )
        named = list_boards() if "all" in boards else boards
        reports = api.check(model, named, progress=verb.progress)
        fits = all(report.fits for report in reports)
        verb.finish(document(reports), lambda console: render_check(console, reports, all_=all_), ok=fits)
