"""`edgeq demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli.common import DebugOption, JsonOption, QuietOption, Verb


def demo(
    *,
    board: Annotated[str, typer.Option("--board", "-b", help="A virtual board's id.")] = "virtual-m4",
    keep: Annotated[Path | None, typer.Option(help="Keep model, data and bundle in this directory.")] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Train a small CNN on handwritten digits, take it to a virtual board, measure it there."""
    with Verb("demo", json=json, quiet=quiet, debug=debug) as verb:
        from edgeq import api
        from edgeq.report.demo_text import render_demo

        report = api.demo(keep, board=board, progress=verb.progress)
        verb.finish(report.to_json(), lambda console: render_demo(console, report), ok=report.ok)
