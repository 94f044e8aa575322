"""`edgeq convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeq.cli.common import DebugOption, JsonOption, QuietOption, Verb

if TYPE_CHECKING:
    from rich.console import Console

    from edgeq.quantization import SearchGoal


def convert(
    model: Annotated[Path, typer.Argument(help="A .keras or .h5 file, or a SavedModel directory.", show_default=False)],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="The .tflite file to write.", show_default=False)],
    data: Annotated[
        str | None,
        typer.Option(help="Representative samples: .npz, .npy, .csv, a folder of images, package.module:function."),
    ] = None,
    eval_: Annotated[
        str | None, typer.Option("--eval", help="Held-out samples to measure the result on, with labels y if any.")
    ] = None,
    scheme: Annotated[str, typer.Option(help="int8, int4 (weights), int16x8, dynamic, float16 or float32.")] = "int8",
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            help="PATTERN=SCHEME for the layers whose names match, 'stem*=int16x8': int8, int4, int16x8, float16 or "
            "float32; may be repeated, the last that matches holds.",
        ),
    ] = None,
    granularity: Annotated[
        str, typer.Option(help="What a weight's scale covers: channel, or tensor (int8, int4, int16x8).")
    ] = "channel",
    rnn: Annotated[
        str,
        typer.Option(
            help="Recurrent layers: unroll, fused (each LSTM one operator), or cell (one moment, states in and out)."
        ),
    ] = "unroll",
    io: Annotated[
        str | None, typer.Option(help="Type of inputs and outputs: int8, uint8, int16, float32; default: the scheme's.")
    ] = None,
    calibration: Annotated[
        str,
        typer.Option(help="How ranges are chosen: minmax, percentile, mse, entropy, or auto (least error)."),
    ] = "auto",
    allow_float: Annotated[
        bool, typer.Option(help="Accept operators that stay in float instead of refusing the result.")
    ] = False,
    qat: Annotated[
        bool, typer.Option("--qat", help="Train with quantization on --data before converting (labels y, if any).")
    ] = False,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of --qat.")] = 20,
    search: Annotated[
        bool, typer.Option("--search", help="Choose each layer's scheme by measuring, for --board and one of --max-*.")
    ] = False,
    board: Annotated[
        str | None,
        typer.Option(
            "--board", "-b", help="Say at the end what `edgeq check` says for this board; the one that --search is for."
        ),
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Percentage points of accuracy that the cheapest model may lose (--search).")
    ] = None,
    max_flash: Annotated[
        str | None, typer.Option(help="Flash that the most accurate model may take (--search): 64k, 1M.")
    ] = None,
    max_latency: Annotated[str | None, typer.Option(help="Its estimated latency (--search): 800us, 20ms.")] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Processes of --search; default: one for each core, 4 at most.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler that --search uses instead: tcp://HOST:8786.")
    ] = None,
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Open models that carry Python code (Lambda layers).")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of what is random; the same seed gives the same bytes.")] = 0,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Turn a Keras model into a quantized .tflite file, and say what that cost in accuracy.

    Exit status 0 once the file is written, also where --board says that it does not fit.
    """
    with Verb("convert", json=json, quiet=quiet, debug=debug) as verb:
        from edgeq import api
        from edgeq.boards import load_board
        from edgeq.checks import document
        from edgeq.report.check_text import render_check
        from edgeq.report.convert_text import render_conversion

        goal = _goal(search, board, max_drop, (max_flash, max_latency), (jobs, scheduler))
        checked = None if board is None or search else load_board(board)
        report = api.convert(
            model,
            out,
            data=data,
            eval_data=eval_,
            scheme=scheme,
            layers=_layers(layer or []),
            granularity=granularity,  # type: ignore[arg-type]  # checked where all options are
            rnn=rnn,  # type: ignore[arg-type]  # checked where all options are
            io=io,
            calibration=calibration,
            allow_float=allow_float,
            unsafe=unsafe,
            qat_epochs=epochs if qat else 0,
            search=goal,
            seed=seed,
            progress=verb.progress,
        )
        checks = [] if checked is None else api.check(out, [checked], progress=verb.progress)

        def render(console: Console) -> None:
            render_conversion(console, report)
            if checks:
                render_check(console, checks)

        verb.finish({**report.to_json(), **({"check": document(checks)} if checks else {})}, render)


def _layers(given: list[str]) -> dict[str, str]:
    """`PATTERN=SCHEME` -> pattern, scheme. UsageError `bad-layer`."""
    from edgeq.errors import UsageError

    found: dict[str, str] = {}
    for text in given:
        pattern, equals, scheme = text.rpartition("=")
        if not equals or not pattern or not scheme:
            raise UsageError(
                "bad-layer",
                f"{text!r} is not PATTERN=SCHEME.",
                where="--layer",
                try_="For example --layer 'stem*=int16x8'.",
            )
        found.pop(pattern, None)
        found[pattern] = scheme
    return found


def _goal(
    search: bool,
    board: str | None,
    max_drop: float | None,
    limits: tuple[str | None, str | None],
    places: tuple[int | None, str | None],
) -> SearchGoal | None:
    """The goal of --search; UsageError where it has no board, or where options are given that only it has."""
    from edgeq.checks import parse_budget
    from edgeq.errors import UsageError
    from edgeq.quantization import SearchGoal

    if not search:
        if any(value is not None for value in (max_drop, *limits, *places)):
            raise UsageError("bad-option", "--max-*, --jobs and --scheduler belong to --search.", try_="Add --search.")
        return None
    if board is None:
        raise UsageError(
            "board-missing", "A search needs a board.", try_="Give --board BOARD; `edgeq boards list` shows them."
        )
    budget = parse_budget(text) if (text := _budget(*limits)) else {}
    return SearchGoal(
        board=board,
        max_drop=max_drop,
        max_flash_bytes=budget.get("flash"),
        max_latency_us=budget.get("latency"),
        jobs=places[0] or 0,
        scheduler=places[1],
    )


def _budget(flash: str | None, latency: str | None) -> str:
    named = (("flash", flash), ("latency", latency))
    return ",".join(f"{name}={value}" for name, value in named if value is not None)
