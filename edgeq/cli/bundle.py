"""`edgeq bundle`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
    ram: Annotated[
        str | None,
        typer.Option(help="What the arena may take (40000, 40k): the first layers run patch by patch if they must."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show the memory plan; memory.svg is its picture.")] = False,
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
        result = api.bundle(model, place, out, name=name, optimize=optimize, ram=_bytes(ram), agent=agent)
        missing = hint(load_board(place))
        goals = [] if quiet else api.goals(model, place, result)
        document = {"directory": str(out), "manifest": dict(result.manifest), "goals": goals, "hint": missing}
        verb.finish(document, lambda console: _render(console, result, out, missing, goals=goals, plan=plan))


def _render(
    console: Console,
    result: Bundle,
    out: Path,
    missing: str | None,
    *,
    goals: Sequence[Mapping[str, Any]],
    plan: bool,
) -> None:
    """Layers and goals, unless there are no goals (quiet); the plan if asked for; the sum of it."""
    from rich.markup import escape
    from rich.table import Table

    from edgeq.report.memory import goals_table, memory_table, regions_text

    manifest = result.manifest
    if goals:
        table = Table("#", "operator", "kernel", "MACs", box=None, header_style="bold")
        for layer in manifest["layers"]:
            macs = f"{layer['macs']:,}" if layer["macs"] else ""
            table.add_row(str(layer["index"]), layer["name"], layer["kernel"], macs)
        console.print(table)
        console.print(goals_table(goals))
    if plan:
        console.print(memory_table(manifest))
    macs = sum(layer["macs"] for layer in manifest["layers"])
    console.print(
        f"{escape(str(out))}: {len(manifest['layers'])} layers, {macs:,} MACs, "
        f"arena {manifest['arena_bytes']:,} bytes{regions_text(manifest)}, "
        f"constants {manifest['constants_bytes']:,} bytes"
    )
    if "patches" in manifest:
        console.print(_patches(manifest["patches"], manifest["arena_bytes"]))
    for path in result.files:
        if path.startswith("ethos-u/"):
            console.print(f"{path} is for TFLM with the Ethos-U driver; EdgeQ's C leaves the Ethos-U idle.")
    if missing:
        console.print(escape(missing))


def _bytes(text: str | None) -> int | None:
    """`40000`, `40k` or `40KiB` -> bytes. UsageError `bad-option`."""
    from edgeq.checks import parse_budget
    from edgeq.errors import UsageError

    if text is None:
        return None
    try:
        return int(parse_budget(f"ram={text}")["ram"])
    except UsageError as error:
        raise UsageError("bad-option", f"--ram {text} is not a number of bytes.", try_="--ram 40000, 40k") from error


def _patches(patches: Mapping[str, int], arena_bytes: int) -> str:
    share = 100 * patches["repeated"] / max(1, patches["multiplications"])
    return (
        f"The first {patches['operators']} layers run in {patches['count']} patches of {patches['rows']} rows: "
        f"arena {arena_bytes:,} instead of {patches['whole_arena_bytes']:,} bytes, "
        f"{patches['repeated']:,} multiplications more ({share:.0f} % of these layers)."
    )
