"""A check's result as text: the verdict, the findings that matter, what to change; a matrix for several boards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgeq.checks.findings import CheckReport, Finding, Use
from edgeq.checks.fix import Fixed
from edgeq.measure import Estimated, Quantity, Unknown
from edgeq.report.boards_text import bytes_text

_SCREEN = 8
"""Groups of findings on the one screen; --all shows the rest."""

_ROOMY = 110
"""Columns from which a matrix has room for its reasons."""

_COLOUR = {"error": "bold red", "warning": "yellow", "note": "dim"}


def quantity_text(quantity: Quantity) -> str:
    """A number with its unit; an estimate says so."""
    if isinstance(quantity, Unknown):
        return "unknown"
    if quantity.unit == "bytes":
        number = bytes_text(int(quantity.value))
    elif quantity.unit == "us" and quantity.value >= 1e6:
        number = f"{quantity.value / 1e6:.3g} s"
    elif quantity.unit == "us" and quantity.value >= 1000:
        number = f"{quantity.value / 1000:.3g} ms"
    else:
        number = f"{quantity.value:.3g} {quantity.unit}"
    if isinstance(quantity, Estimated):
        return f"about {number}"
    return number


def render_check(console: Console, reports: Sequence[CheckReport], *, all_: bool = False) -> None:
    """One board: its screen. Several: a matrix."""
    if len(reports) == 1:
        _render_one(console, reports[0], all_)
    else:
        _render_matrix(console, reports)


def render_fixed(console: Console, fixed: Sequence[Fixed]) -> None:
    """What --fix did, and what it keeps of the outputs."""
    for one in fixed:
        console.print(f"[green]fixed[/] [dim]{one.rule}[/] {escape(one.what)} [dim]({escape(one.kept)})[/]")


def _render_one(console: Console, report: CheckReport, all_: bool) -> None:
    verdict = "[bold green]fits[/]" if report.fits else "[bold red]does not fit[/]"
    console.print(f"{escape(report.model or 'The model')} {verdict} on {report.board} ({escape(report.board_name)})")
    for use in report.memory:
        console.print(f"  {use.kind:<6} {_use_text(use)}")
    console.print(f"  speed  {_basis_text(report.latency)}")
    for name, value in report.details.items():
        console.print(f"  {name}: {_basis_text(value)}")
    executors = Counter(placement.executor for placement in report.placements)
    if executors:
        console.print("  runs   " + ", ".join(f"{count} operators: {name}" for name, count in executors.most_common()))
    groups = _grouped(report.findings)
    for group in groups if all_ else groups[:_SCREEN]:
        _render_finding(console, group, all_)
    if len(groups) > _SCREEN and not all_:
        console.print(f"[dim]{len(groups) - _SCREEN} more kinds of findings: --all shows them.[/]")
    if all_:
        _render_placements(console, report)


def _use_text(use: Use) -> str:
    parts = ", ".join(f"{name} {quantity_text(part)}" for name, part in use.parts.items())
    text = quantity_text(use.needed)
    if use.available_bytes is not None:
        text += f" of {bytes_text(use.available_bytes)}"
    return f"{text}  [dim]({parts})[/]" if parts else text


def _basis_text(quantity: Quantity) -> str:
    if isinstance(quantity, Unknown):
        return f"unknown: {quantity.reason}"
    text = f"{quantity_text(quantity)}  [dim]({escape(quantity.basis)}"
    if isinstance(quantity, Estimated) and quantity.error is not None:
        text += f"; median error {quantity.error:.0%} on held-out rows"
    return text + ")[/]"


def _grouped(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Findings of the same rule and remedy together, in order."""
    groups: dict[tuple[str, str | None, bool], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.rule, finding.remedy, finding.fixable), []).append(finding)
    return list(groups.values())


def _place(finding: Finding) -> str:
    operator = "" if finding.operator is None else f"operator {finding.operator} {finding.name}"
    operator += f" (layer {finding.layer})" if finding.layer else ""
    tensor = f"tensor {finding.tensor}" if finding.tensor and not operator else ""
    place = operator or tensor
    return f"{place}: {finding.found}" if place else finding.found


def _render_finding(console: Console, group: Sequence[Finding], all_: bool) -> None:
    first = group[0]
    console.print(f"[{_COLOUR[first.severity]}]{first.severity}[/] [dim]{first.rule}[/] {escape(first.sentence)}")
    for finding in group if all_ else group[:2]:
        console.print(f"    {escape(_place(finding))}")
    if len(group) > 2 and not all_:
        console.print(f"    [dim]and {len(group) - 2} more[/]")
    if first.remedy:
        fix = " [dim](edgeq check --fix does it)[/]" if first.fixable else ""
        console.print(f"    [green]→[/] {escape(first.remedy)}{fix}")


def _render_placements(console: Console, report: CheckReport) -> None:
    table = Table(box=None, pad_edge=False)
    named = any(placement.layer for placement in report.placements)
    for column in ("operator", "name", *(["layer"] if named else []), "output", "type", "runs on", "how", "MACs"):
        table.add_column(column, justify="right" if column in ("operator", "MACs") else "left")
    for placement in report.placements:
        table.add_row(
            str(placement.operator),
            placement.name,
            *([escape(placement.layer or "")] if named else []),
            "x".join(map(str, placement.shape)),
            placement.type,
            placement.executor,
            escape(placement.status),
            f"{placement.macs:,}" if placement.macs else "",
        )
    console.print(table)


def _render_matrix(console: Console, reports: Sequence[CheckReport]) -> None:
    """One line a board; the reasons in a column where there is room, else below, each with its boards."""
    roomy = console.width >= _ROOMY
    table = Table(box=None, pad_edge=False)
    for column in ("board", "verdict", "flash", "ram", "speed"):
        table.add_column(column, justify="right" if column in ("flash", "ram", "speed") else "left", no_wrap=True)
    if roomy:
        table.add_column("because")
    reasons: dict[str, list[str]] = {}
    for report in reports:
        errors, warnings = report.of_severity("error"), report.of_severity("warning")
        rules = list(dict.fromkeys(finding.rule for finding in errors or warnings))
        for rule in rules:
            reasons.setdefault(rule, []).append(report.board)
        speed = report.latency
        table.add_row(
            report.board,
            "[green]fits[/]" if report.fits else "[red]no[/]",
            _cell(report.use("flash")),
            _cell(report.use("ram")),
            "" if isinstance(speed, Unknown) else quantity_text(speed).replace("about ", "~"),
            *([", ".join(rules)] if roomy else []),
        )
    console.print(table)
    for rule, boards in () if roomy else reasons.items():
        console.print(f"[dim]{rule}:[/] {', '.join(boards)}")


def _cell(use: Use | None) -> str:
    if use is None or isinstance(use.needed, Unknown):
        return ""
    share = f" {use.needed.value / use.available_bytes:.0%}" if use.available_bytes else ""
    return bytes_text(int(use.needed.value)) + share
