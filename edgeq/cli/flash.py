"""`edgeq flash`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli.common import DebugOption, JsonOption, QuietOption, Verb


def flash(
    model: Annotated[Path, typer.Argument(help="A .tflite file or a bundle directory.", show_default=False)],
    *,
    board: Annotated[str, typer.Option("--board", "-b", help="A board's id or file.", show_default=False)],
    port: Annotated[str | None, typer.Option(help="The board's port; by default it is looked for.")] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Build the firmware, put it onto the board, and hear from the board that it runs."""
    with Verb("flash", json=json, quiet=quiet, debug=debug) as verb:
        from edgeq import api
        from edgeq.report.device_text import render_flash

        report = api.flash(model, board, port=port, progress=verb.progress)
        verb.finish(report.to_json(), lambda console: render_flash(console, report))
