"""`edgeq bench`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from edgeq.cli.common import DebugOption, JsonOption, QuietOption, Verb
from edgeq.cli.flash import HostOption


def bench(
    model: Annotated[
        Path | None,
        typer.Argument(help="A .tflite file or a bundle directory; without it, what was flashed.", show_default=False),
    ] = None,
    *,
    board: Annotated[
        list[str] | None, typer.Option("--board", "-b", help="A board's id or file; several run at the same time.")
    ] = None,
    port: Annotated[
        str | None, typer.Option(help="A device name, a unix socket, socket://HOST:PORT or rfc2217://HOST:PORT.")
    ] = None,
    place: Annotated[
        str | None, typer.Option(help="A labgrid place whose serial port is used; LG_COORDINATOR names the lab.")
    ] = None,
    host: HostOption = None,
    data: Annotated[str | None, typer.Option(help="Samples (x, y): .npz, .npy, images, .csv, module:function.")] = None,
    runs: Annotated[int, typer.Option(min=1, max=100_000, help="Timed runs at most.")] = 30,
    meter: Annotated[
        str,
        typer.Option(
            help="Energy of a run: none; Nordic's PPK2 in the supply: ppk2, ppk2:PORT; a sensor on the board's I2C "
            "bus: ina219, ina226, ina219:0x41."
        ),
    ] = "none",
    supply_mv: Annotated[int | None, typer.Option(help="With ppk2: the board's supply, in millivolts.")] = None,
    shunt_ohm: Annotated[float | None, typer.Option(help="With ina219 or ina226: its shunt, in ohms.")] = None,
    keep: Annotated[
        str | None, typer.Option(help="Keep the result as .edgeq/results/NAME.json.", metavar="NAME")
    ] = None,
    compare: Annotated[
        tuple[str, str] | None, typer.Option(help="Measure nothing; say what changed between two kept results.")
    ] = None,
    gate: Annotated[
        float | None,
        typer.Option(min=0, help="With --compare: exit 1 if a number is worse by more than so many percent."),
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Run the model on the board: cost by layer, memory, accuracy, and every output byte against this computer's."""
    with Verb("bench", json=json, quiet=quiet, debug=debug) as verb:
        if compare is not None:
            _compare(verb, compare, gate)
            return
        from edgeq import api
        from edgeq.benchmark import kept, room_for
        from edgeq.errors import UsageError
        from edgeq.report.device_text import render_bench, render_boards

        if not board or gate is not None:
            raise UsageError(
                "board-missing" if not board else "gate-without-compare",
                "Name the board with --board." if not board else "--gate goes with --compare.",
                try_=("edgeq bench MODEL.tflite --board BOARD", "edgeq bench --compare BEFORE AFTER --gate 2"),
            )
        if sum(map(bool, (host, port, place, len(board) > 1))) > 1:
            raise UsageError(
                "one-way-only",
                "--port, --place and --host exclude each other, and go with one --board.",
                try_="Run edgeq bench once for each board.",
            )
        if meter != "none" and (host or len(board) > 1):
            raise UsageError("meter-for-one", "--meter measures one board on a cable.", try_="Name one --board.")
        if (supply_mv is not None and not meter.startswith("ppk2")) or (
            shunt_ohm is not None and not meter.startswith("ina")
        ):
            raise UsageError(
                "meter-missing",
                "--supply-mv goes with --meter ppk2, --shunt-ohm with --meter ina219 or ina226.",
                where="--meter",
                try_="Name the meter, or leave its option out.",
            )
        if keep is not None and not host:
            room_for(kept(keep if len(board) == 1 else _of_board(keep, "board")))
        if len(board) > 1:
            boards = api.bench_boards(model, board, data=data, runs=runs, progress=verb.line_progress)
            results = {} if keep is None else {_of_board(keep, r.board): r.to_json() for r in boards.results}
            with _keeping(results):
                verb.finish(boards.to_json(), lambda console: render_boards(console, boards), status=boards.exit_status)
            return
        if host:
            from edgeq.report.ssh_text import render_hosts

            if keep is not None:
                raise UsageError(
                    "keep-without-port", "--keep is not for boards over SSH.", try_="Keep --json's output."
                )
            hosts = api.bench_hosts(model, board[0], host, data=data, runs=runs, progress=verb.progress)
            verb.finish(hosts.to_json(), lambda console: render_hosts(console, hosts), status=hosts.exit_status)
            return
        report = api.bench(
            model,
            board[0],
            port=port,
            place=place,
            data=data,
            runs=runs,
            meter=meter,
            supply_mv=supply_mv,
            shunt_ohm=shunt_ohm,
            progress=verb.progress,
        )
        document = report.to_json()
        with _keeping({} if keep is None else {keep: document}):
            verb.finish(document, lambda console: render_bench(console, report), ok=report.ok)


def _of_board(name: str, board: str) -> str:
    """The name of one board's result among several."""
    return f"{name.removesuffix('.json')}-{board}{'.json' if name.endswith('.json') else ''}"


@contextmanager
def _keeping(results: Mapping[str, Mapping[str, object]]) -> Iterator[None]:
    """Keep results by their names, then show them: also where keeping failed, which is told behind."""
    from edgeq.benchmark import keep, kept
    from edgeq.errors import OutputError

    failure = None
    for name, document in results.items():
        try:
            keep(document, kept(name))
        except OutputError as error:
            failure = error
    yield
    if failure is not None:
        raise failure


def _compare(verb: Verb, names: tuple[str, str], gate: float | None) -> None:
    from edgeq.benchmark import compare, kept
    from edgeq.report.device_text import render_changes

    report = compare(kept(names[0]), kept(names[1]))
    worse = report.worse_by(gate / 100) if gate is not None else ()
    verb.finish(
        {**report.to_json(), "worse": list(worse)},
        lambda console: render_changes(console, report, worse),
        ok=not worse,
    )
