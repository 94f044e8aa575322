"""`edgeq bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli.common import DebugOption, JsonOption, QuietOption, Verb


def bench(
    model: Annotated[
        Path | None,
        typer.Argument(help="A .tflite file or a bundle directory; without it, what was flashed.", show_default=False),
    ] = None,
    *,
    board: Annotated[str, typer.Option("--board", "-b", help="A board's id or file.", show_default=False)],
    port: Annotated[
        str | None, typer.Option(help="A device name, a unix socket, socket://HOST:PORT or rfc2217://HOST:PORT.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Samples (x, y): .npz, .npy, images, .csv, module:function.")] = None,
    runs: Annotated[int, typer.Option(min=1, max=100_000, help="Timed runs at most.")] = 30,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Run the model on the board: cost by layer, memory, accuracy, and every output byte against this computer's."""
    with Verb("bench", json=json, quiet=quiet, debug=debug) as verb:
        from edgeq import api
        from edgeq.report.device_text import render_bench

        report = api.bench(model, board, port=port, data=data, runs=runs, progress=verb.progress)
        verb.finish(report.to_json(), lambda console: render_bench(console, report), ok=report.ok)
