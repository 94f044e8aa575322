"""`edgeq bundle`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgeq.cli.common import DebugOption, JsonOption, QuietOption, Verb

if TYPE_CHECKING:
    from rich.console import Console

    from edgeq.codegen import Bundle


def bundle(
    model: Annotated[Path, typer.Argument(help="A .tflite file.", show_default=False)],
    *,
    out: Annotated[Path, typer.Option("--output", "-o", help="The directory to write.", show_default=False)],
    board: Annotated[str | None, typer.Option("--board", "-b", help="A board's id.")] = None,
    board_file: Annotated[Path | None, typer.Option(help="A board's file, instead of --board.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name in C; by default the file's.")] = None,
    optimize: Annotated[
        Literal["speed", "balanced", "ram", "flash"], typer.Option(help="What matters most.")
    ] = "balanced",
    agent: Annotated[
        Literal["edgeq", "mlperf"], typer.Option(help="What firmware of it speaks: EdgeQ's link, or MLPerf Tiny's.")
    ] = "edgeq",
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Compile a .tflite model to C sources for a board: no interpreter, no heap, the same bytes as TFLM."""
    with Verb("bundle", json=json, quiet=quiet, debug=debug) as verb:
        from edgeq import api
        from edgeq.boards import load_board
        from edgeq.errors import UsageError
        from edgeq.toolchain.vela import hint

        place = board_file or board
        if place is None or (board_file and board):
            raise UsageError(
                "board-missing",
                "Name one board, with --board or --board-file.",
                try_="Give --board BOARD; `edgeq boards list` shows them.",
            )
        result = api.bundle(model, place, out, name=name, optimize=optimize, agent=agent)
        missing = hint(load_board(place))
        document = {"directory": str(out), "manifest": dict(result.manifest), "hint": missing}
        verb.finish(document, lambda console: _render(console, result, out, missing, quiet=quiet))


def _render(console: Console, result: Bundle, out: Path, missing: str | None, *, quiet: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    manifest = result.manifest
    if not quiet:
        table = Table("#", "operator", "kernel", "MACs", box=None, header_style="bold")
        for layer in manifest["layers"]:
            macs = f"{layer['macs']:,}" if layer["macs"] else ""
            table.add_row(str(layer["index"]), layer["name"], layer["kernel"], macs)
        console.print(table)
    macs = sum(layer["macs"] for layer in manifest["layers"])
    console.print(
        f"{escape(str(out))}: {len(manifest['layers'])} layers, {macs:,} MACs, "
        f"arena {manifest['arena_bytes']:,} bytes, constants {manifest['constants_bytes']:,} bytes"
    )
    for path in result.files:
        if path.startswith("ethos-u/"):
            console.print(f"{path} is for TFLM with the Ethos-U driver; EdgeQ's C leaves the Ethos-U idle.")
    if missing:
        console.print(escape(missing))
