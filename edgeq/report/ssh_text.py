"""What deploying to Linux boards and measuring on them found, as text."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgeq.device.ssh import Deployment, HostReport, RemoteBench, Removal
from edgeq.measure import Estimated, Quantity, Unknown
from edgeq.report.boards_text import bytes_text

_ACTIONS = {"deployed": "deployed", "unchanged": "runs already", "rolled-back": "rolled back"}


def render_hosts(console: Console, report: HostReport) -> None:
    """Each board's result, then the boards that failed."""
    for result in report.results:
        if isinstance(result, Deployment):
            _deployment(console, result)
        elif isinstance(result, Removal):
            what = "removed from" if result.removed else "nothing was deployed on"
            console.print(f"[bold green]{what}[/] {escape(result.host)}")
        else:
            _bench(console, result)
    for host, error in report.failures.items():
        console.print(f"[bold red]failed[/] {escape(host)} [dim]{error.code}[/]: {escape(error.what)}")
        for step in error.try_[:1]:
            console.print(f"  try    {escape(step)}")


def _deployment(console: Console, result: Deployment) -> None:
    device = result.device
    console.print(f"[bold green]{_ACTIONS[result.action]}[/] on {escape(result.host)} ({result.board})")
    console.print(f"  device {escape(device.model or device.machine)}, {escape(device.os)}")
    console.print(f"  runs   {escape(result.runtime)}, model {result.model_sha256[:12]}")
    console.print(
        f"  trial  loaded in {_time(result.load)}, first inference {_time(result.first)}; "
        f"sent {bytes_text(result.sent_bytes)}, environment {result.environment}"
    )
    before = f", before {result.previous}" if result.previous else ""
    console.print(f"  use    {result.release}{before}; {len(result.kept)} kept")
    if result.service:
        console.print("  serves ~/.edgeq/socket")


def _bench(console: Console, result: RemoteBench) -> None:
    verdict = "[bold green]same[/]" if result.same else "[bold red]differs[/]"
    if not result.comparisons:
        verdict = "[bold]measured[/]"
    console.print(f"{verdict} {result.model_sha256[:12]} on {escape(result.host)} ({result.board}, {result.package})")
    for entry in result.comparisons:
        console.print(
            f"  {entry.kernels:<11} {entry.differing:,} of {entry.elements:,} output values differ from "
            f"{entry.reference}, by {entry.largest:g} at most ({entry.samples} samples)"
        )
        if not isinstance(entry.accuracy, Unknown) and not isinstance(entry.host_accuracy, Unknown):
            console.print(f"  {'':<11} accuracy {entry.accuracy.value:.4f}, here {entry.host_accuracy.value:.4f}")
        if entry.differing:
            console.print(f"  {'':<11} [dim]{entry.explanation}[/]")
    table = Table("kernels", "threads", "load", "first", "p50", "p90", "p99", "peak", box=None, header_style="bold")
    for way in result.configurations:
        times = map(_time, (way.load, way.first, way.p50, way.p90, way.p99))
        table.add_row(way.kernels, str(way.threads), *times, _peak(way.peak))
    console.print(table)
    if result.on_edge_tpu is not None:
        share = result.on_edge_tpu
        text = share.reason if isinstance(share, Unknown) else f"{share.value:.1%} of the operators"
        if isinstance(result.predicted_on_edge_tpu, Estimated):
            text += f", {result.predicted_on_edge_tpu.value:.1%} predicted"
        console.print(f"  on the Edge TPU: {text}")
    for finding in result.health.findings:
        console.print(f"  [yellow]note[/]   {escape(finding)}")
    _operators(console, result)


def _operators(console: Console, result: RemoteBench) -> None:
    if isinstance(result.operators, Unknown):
        console.print(f"  operators: no times, {result.operators.reason}")
        return
    table = Table("operator", "", "time", box=None, header_style="bold")
    for entry in result.operators:
        table.add_row(str(entry.index), entry.name, _time(entry.time))
    console.print(table)
    first = result.operators[0].time
    if not isinstance(first, Unknown):
        console.print(f"  [dim]{escape(first.basis)}[/]")


def _time(quantity: Quantity) -> str:
    if isinstance(quantity, Unknown):
        return "?"
    return f"{quantity.value / 1000:,.2f} ms" if abs(quantity.value) >= 1000 else f"{quantity.value:.1f} us"


def _peak(quantity: Quantity) -> str:
    return "?" if isinstance(quantity, Unknown) else bytes_text(int(quantity.value))
