"""`edgeq flash`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edgeq.cli.common import DebugOption, JsonOption, QuietOption, Verb
from edgeq.errors import UsageError

HostOption = Annotated[
    list[str] | None,
    typer.Option("--host", help="A Linux board over SSH: [USER@]NAME[:PORT]; may be repeated.", show_default=False),
]


def flash(
    model: Annotated[
        Path | None, typer.Argument(help="A .tflite file or a bundle directory.", show_default=False)
    ] = None,
    *,
    board: Annotated[str, typer.Option("--board", "-b", help="A board's id or file.", show_default=False)],
    port: Annotated[str | None, typer.Option(help="The board's port; by default it is looked for.")] = None,
    host: HostOption = None,
    rollback: Annotated[bool, typer.Option("--rollback", help="With --host: use the release from before.")] = False,
    uninstall: Annotated[bool, typer.Option("--uninstall", help="With --host: remove everything.")] = False,
    runtime: Annotated[
        Literal["litert", "c"], typer.Option(help="With --host: the interpreter, or generated C.")
    ] = "litert",
    cpu: Annotated[bool, typer.Option("--cpu", help="With --host: leave the Edge TPU alone.")] = False,
    service: Annotated[
        bool, typer.Option("--service", help="With --host: a systemd user service behind ~/.edgeq/socket.")
    ] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Build the firmware, put it onto the board, and hear from the board that it runs. With --host: deploy over SSH."""
    with Verb("flash", json=json, quiet=quiet, debug=debug) as verb:
        from edgeq import api

        if host and rollback:
            hosts = api.rollback(board, host)
        elif host and uninstall:
            hosts = api.uninstall(board, host)
        elif model is None:
            raise UsageError(
                "model-missing", "There is no model to flash.", try_="edgeq flash MODEL.tflite --board ..."
            )
        elif host:
            hosts = api.deploy(model, board, host, runtime=runtime, cpu=cpu, service=service, progress=verb.progress)
        elif rollback or uninstall or cpu or service or runtime != "litert":
            raise UsageError("host-missing", "These options are for boards over SSH.", try_="Add --host USER@NAME.")
        else:
            from edgeq.report.device_text import render_flash

            report = api.flash(model, board, port=port, progress=verb.progress)
            verb.finish(report.to_json(), lambda console: render_flash(console, report))
            return
        from edgeq.report.ssh_text import render_hosts

        verb.finish(hosts.to_json(), lambda console: render_hosts(console, hosts), status=hosts.exit_status)
