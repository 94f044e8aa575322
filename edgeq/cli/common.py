"""What every verb shares: `--json`, `--quiet`, `--debug`, progress on standard error, one place that renders errors.

A verb parses, calls one function of the API, renders:

    def check(model: ..., json: JsonOption = False, quiet: QuietOption = False, debug: DebugOption = False) -> None:
        with Verb("check", json=json, quiet=quiet, debug=debug) as verb:
            report = api.check(model, boards, progress=verb.progress)
            verb.finish(report.to_json(), lambda console: render_check(console, report), ok=report.fits)
"""

from __future__ import annotations

import json as json_module
import os
import sys
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeq.errors import EdgeqError, EnvironmentFailure

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only, no progress.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks and the tools' own output.")]


_PIPE_COLUMNS = 200


class Verb:
    """The frame of one verb's run. Leaves through typer.Exit with the exit status that errors and answers imply."""

    def __init__(self, name: str, *, json: bool, quiet: bool, debug: bool) -> None:
        self.name, self.json, self.quiet, self.debug = name, json, quiet, debug
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._status = 0
        self._printed = False
        self._lock = threading.Lock()
        if debug:
            os.environ["EDGEQ_DEBUG"] = "1"

    def __enter__(self) -> Verb:
        return self

    def progress(self, what: str, done: int, total: int | None) -> None:
        """Show progress on standard error, if that is a terminal."""
        self.line_progress("", what, done, total)

    def line_progress(self, line: str, what: str, done: int, total: int | None) -> None:
        """`progress`, with one line for all that is done under the name `line`. For several threads."""
        if self.quiet or not sys.stderr.isatty():
            return
        with self._lock:
            if self._bars is None:
                from rich.console import Console
                from rich.progress import Progress as Bars

                self._bars = Bars(console=Console(stderr=True), transient=True)
                self._bars.start()
            key, text = line or what, f"{line}: {what}" if line else what
            if key not in self._tasks:
                self._tasks[key] = self._bars.add_task(text, total=total)
            self._bars.update(self._tasks[key], description=text, completed=done, total=total)

    def finish(
        self,
        document: Mapping[str, Any],
        render: Callable[[Console], None],
        *,
        ok: bool = True,
        status: int | None = None,
    ) -> None:
        """Print the result; exit status 1 if the answer is no, or `status` where a report knows better."""
        self._stop_bars()
        self._status = status if status is not None else 0 if ok else 1
        if self.json:
            self._print({"schema": f"edgeq.{self.name}/1", **document})
        else:
            render(_console())
            sys.stdout.flush()

    def _print(self, document: Mapping[str, Any]) -> None:
        """The one document on standard output."""
        self._printed = True
        sys.stdout.write(json_module.dumps(document, indent=2, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def _stop_bars(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_bars()
        if error is None:
            if self._status:
                raise typer.Exit(self._status)
            return
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(self._status) from None
        if isinstance(error, KeyboardInterrupt):
            sys.stderr.write(f"Interrupted. {error}".rstrip() + "\n")
            raise typer.Exit(130) from None
        if self.debug or not isinstance(error, (EdgeqError, OSError, MemoryError)):
            return
        known = error if isinstance(error, EdgeqError) else _from_system(error)
        self._render(known)
        raise typer.Exit(known.exit_status) from None

    def _render(self, error: EdgeqError) -> None:
        """On standard output as JSON if that holds no document yet, else on standard error as text."""
        if self.json and not self._printed:
            self._print({"schema": f"edgeq.{self.name}/1", "error": error.to_json()})
            return
        render_error(error)


def _console() -> Console:
    """Standard output. Lines into a pipe or a file are not broken at 80 columns; who closes it early ends nothing."""
    from rich.console import Console

    class Output(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Output(width=None if narrow else _PIPE_COLUMNS)


def _from_system(error: OSError | MemoryError) -> EdgeqError:
    if isinstance(error, OSError):
        where = None if error.filename is None else str(error.filename)
        return EnvironmentFailure(
            "system-error", error.strerror or str(error), where=where, try_="Run again with --debug."
        )
    return EnvironmentFailure(
        "out-of-memory", "There is not enough memory.", try_="Close other programs; use fewer samples."
    )


def render_error(error: EdgeqError) -> None:
    """The error on standard error: what, where, why, and what to try."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"[bold red]error[/] [dim]{error.code}[/]: {escape(error.what)}")
    if error.where and error.where not in error.what:
        console.print(f"  where: {escape(error.where)}")
    if error.why:
        console.print(f"  why:   {escape(error.why)}")
    for i, step in enumerate(error.try_):
        console.print(f"  {'try:  ' if i == 0 else '      '} {escape(step)}")
