"""The `edgeq` command: one file a verb, registered here."""

from __future__ import annotations

from typing import Annotated

import typer

import edgeq
from edgeq.cli.bench import bench
from edgeq.cli.boards import boards_app
from edgeq.cli.bundle import bundle
from edgeq.cli.check import check
from edgeq.cli.convert import convert
from edgeq.cli.demo import demo
from edgeq.cli.devices import devices
from edgeq.cli.doctor import doctor
from edgeq.cli.flash import flash

app = typer.Typer(
    name="edgeq",
    help="Takes a Keras model to a small device and proves that it works there.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgeq {edgeq.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None: ...


for _verb in (convert, check, bundle, flash, bench):
    app.command()(_verb)
app.add_typer(boards_app, name="boards")
app.command()(devices)
app.command()(doctor)
app.command()(demo)


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="edgeq")


if __name__ == "__main__":
    main()
