"""A conversion's result as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgeq.measure import Quantity, Unknown
from edgeq.quantization.report import ConversionReport, Quality, TensorIo
from edgeq.report.boards_text import bytes_text
from edgeq.report.search_html import search_paths, shown_trials

_SHOWN_CLASSES = 16


def render_conversion(console: Console, report: ConversionReport) -> None:
    """What was written, how good it is, what is doubtful."""
    console.print(
        f"[bold]{escape(report.out)}[/]  {report.scheme}, {bytes_text(report.size_bytes)} "
        f"[dim](float32: {bytes_text(report.float_size_bytes)})[/]"
    )
    if report.mixture:
        asked = ", ".join(f"{pattern} {scheme}" for pattern, scheme in report.mixture.items())
        console.print(f"  layers {escape(asked)}, the others {report.scheme}")
    for kind, ends in (("input", report.inputs), ("output", report.outputs)):
        for end in ends:
            console.print(f"  {kind:6} {escape(_io(end))}")
    console.print("  " + ", ".join(f"{count} {name}" for name, count in report.operators.items()), style="dim")
    for improvement in report.improvements:
        console.print(f"  [green]+[/] {escape(improvement)}")
    if report.float_operators and report.scheme in ("int8", "int4", "int16x8"):
        console.print(f"  [yellow]stays in float:[/] {escape(', '.join(report.float_operators))}")
    if report.search is not None:
        _render_search(console, report.search, report.out)
    if report.quality is not None:
        _render_quality(console, report.quality)
    if report.verdict:
        console.print(escape(report.verdict))
    for warning in report.warnings:
        console.print(f"[yellow]warning[/] [dim]{warning.code}[/] {escape(warning.what)}")
        if warning.try_:
            console.print(f"    [green]→[/] {escape(warning.try_)}")


def _io(end: TensorIo) -> str:
    text = f"{end.name} {end.type} {'x'.join(map(str, end.shape))}"
    return text if end.scale is None else f"{text}, scale {end.scale:.6g}, zero point {end.zero_point}"


def _render_quality(console: Console, quality: Quality) -> None:
    console.print(f"Quantized against float, {quality.samples} samples ({quality.measured_on}), reference kernels:")
    table = Table(box=None, show_header=False, pad_edge=True)
    if not isinstance(quality.accuracy_quantized, Unknown):
        table.add_row("accuracy", f"{_share(quality.accuracy_quantized)} (float {_share(quality.accuracy_float)})")
    if not isinstance(quality.agreement, Unknown):
        table.add_row("same class", _share(quality.agreement))
    for output in quality.outputs:
        table.add_row(
            f"error of {escape(output.name)}",
            f"mean {_number(output.mean_absolute)}, largest {_number(output.maximum)}, "
            f"signal to noise {_number(output.sqnr_db)} dB",
        )
    console.print(table)
    if quality.confusion is not None and len(quality.confusion) <= _SHOWN_CLASSES:
        _render_confusion(console, quality.confusion)


def _render_confusion(console: Console, confusion: Sequence[Sequence[int]]) -> None:
    """Rows are labels, columns what the quantized model chose."""
    console.print("Samples by label, and by the class chosen:")
    table = Table("label", box=None, header_style="dim")
    for column in range(len(confusion)):
        table.add_column(str(column), justify="right")
    for label, row in enumerate(confusion):
        cells = [f"[bold]{n}[/]" if column == label else str(n) if n else "·" for column, n in enumerate(row)]
        table.add_row(str(label), *cells)
    console.print(table)


def _render_search(console: Console, search: Mapping[str, Any], out: str) -> None:
    page = search_paths(Path(out))[1]
    console.print(
        f"Search for {search['board']}: {len(search['trials'])} mixtures measured on {search['samples']} samples; "
        f"{search['metric']} lost against cost (picture: {escape(str(page))}):"
    )
    table = Table("cost", "flash", "latency", "points lost", "layers", box=None, header_style="bold")
    for trial in shown_trials(search):
        counts = Counter(trial["schemes"])
        latency = trial["latency"].get("value")
        table.add_row(
            f"{trial['cost']:.2f}",
            bytes_text(int(trial["flash"]["value"])),
            "unknown" if latency is None else f"about {latency:,.0f} us",
            f"{trial['drop_points']:.2f}",
            ", ".join(f"{count} {scheme}" for scheme, count in sorted(counts.items())),
            style="bold green" if trial["chosen"] else None,
        )
    console.print(table)


def _share(quantity: Quantity) -> str:
    return "unknown" if isinstance(quantity, Unknown) else f"{quantity.value:.2%}"


def _number(quantity: Quantity) -> str:
    return f"({quantity.reason})" if isinstance(quantity, Unknown) else f"{quantity.value:.4g}"
