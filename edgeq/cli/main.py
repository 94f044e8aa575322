"""The `edgeq` command: one file a verb, registered here.

Reading the options of all verbs takes longer than anything else at start-up. So `edgeq --help` knows the verbs by name
and sentence alone, and a verb's options are read when it is called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

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

VERBS: tuple[Callable[..., None], ...] = (convert, check, bundle, flash, bench, devices, doctor, demo)


class Verbs(TyperGroup):
    """The verbs; `get_command` returns one with its options, except while help lists them all."""

    _listing = False

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The verb of this name, None if there is none."""
        verb = next((verb for verb in VERBS if verb.__name__ == cmd_name), None)
        if verb is None or self._listing:
            return super().get_command(ctx, cmd_name)
        alone = typer.Typer(add_completion=False)
        alone.command()(verb)
        return get_command(alone)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print names and sentences."""
        self._listing = True
        super().format_help(ctx, formatter)


app = typer.Typer(
    name="edgeq",
    cls=Verbs,
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


def _listed() -> None: ...


for _verb in VERBS:
    app.command(_verb.__name__, help=inspect.getdoc(_verb))(_listed)
app.add_typer(boards_app, name="boards")


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="edgeq")


if __name__ == "__main__":
    main()
