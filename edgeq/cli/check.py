"""`edgeq check`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeq.cli.common import DebugOption, JsonOption, QuietOption, Verb

if TYPE_CHECKING:
    from rich.console import Console


def check(
    model: Annotated[Path, typer.Argument(help="A .tflite file.", show_default=False)],
    *,
    board: Annotated[
        list[str] | None, typer.Option("--board", "-b", help="A board's id; repeat it, or `all`, for a matrix.")
    ] = None,
    board_file: Annotated[list[Path] | None, typer.Option(help="A board's file; may be repeated.")] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Apply the remedies that are mechanical; check the result.")
    ] = False,
    approximate: Annotated[
        bool,
        typer.Option(
            "--approximate", help="With --fix: also remedies that change the outputs; by how much is measured."
        ),
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where --fix writes the model.")] = None,
    budget: Annotated[str | None, typer.Option(help="A gate: flash=256k,ram=64k,latency=20ms.")] = None,
    sarif: Annotated[Path | None, typer.Option(help="Write the findings as SARIF.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the verdicts as JUnit XML.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Show every finding and every operator.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Will every operator run on the board, does the model fit, how fast, and if not, what to change.

    Exit status 0: it fits on every board named; 1: it does not.
    """
    # numpy's threads only wait for each other over products this small: 0.3 s of processor time with MobileNetV2
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with Verb("check", json=json, quiet=quiet, debug=debug) as verb:
        from edgeq import api
        from edgeq.boards import list_boards, load_board
        from edgeq.checks import document
        from edgeq.errors import UsageError
        from edgeq.files import write_file
        from edgeq.report import check_ci
        from edgeq.report.check_text import render_check, render_fixed

        boards = list(dict.fromkeys((*(board or ()), *(board_file or ()))))
        if not boards:
            raise UsageError(
                "board-missing", "No board is named.", try_="Give --board BOARD; `edgeq boards list` shows them."
            )
        named = {one.id: one for one in (load_board(name) for name in boards if name != "all")}
        if "all" in boards:
            named = {one.id: one for one in list_boards()} | named
        if fix != (out is not None):
            raise UsageError(
                "bad-option", "--fix and -o belong together.", try_="edgeq check MODEL --fix -o OUT.tflite"
            )
        if approximate and not fix:
            raise UsageError("bad-option", "--approximate belongs to --fix.", try_="Add --fix -o OUT.tflite.")
        fixed = api.fix(model, out, approximate=approximate) if out else []
        checked = out or model
        reports = api.check(checked, list(named.values()), budget=budget, progress=verb.progress)
        if sarif:
            write_file(sarif, check_ci.sarif(reports, str(checked)))
        if junit:
            write_file(junit, check_ci.junit(reports, str(checked)))
        body = document(reports)
        if fix:
            body["fixed"] = [one.to_json() for one in fixed]

        def render(console: Console) -> None:
            render_fixed(console, fixed)
            render_check(console, reports, all_=all_)

        verb.finish(body, render, ok=all(report.fits for report in reports))
