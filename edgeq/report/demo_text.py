"""The demonstration's table."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from edgeq.demonstration.run import DemoReport
from edgeq.measure import Quantity, Unknown


def _share(quantity: Quantity | None) -> str:
    if quantity is None or isinstance(quantity, Unknown):
        return "unknown"
    return f"{quantity.value:.1%}"


def _bytes(quantity: Quantity) -> str:
    return "unknown" if isinstance(quantity, Unknown) else f"{quantity.value:,.0f} bytes"


def render_demo(console: Console, report: DemoReport) -> None:
    """One table: accuracy three times, bytes that differ, memory, instructions in all and by layer."""
    bench = report.bench
    table = Table(title=f"Handwritten digits on {bench.board_name}", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("accuracy, float (Keras)", _share(report.accuracy_float))
    if bench.accuracy is not None:
        table.add_row("accuracy, int8 on this computer", _share(bench.accuracy.host))
        table.add_row("accuracy, int8 on the board", _share(bench.accuracy.board))
    if bench.comparison is not None:
        compared = f"{bench.comparison.bytes_differing} of {bench.comparison.bytes_compared:,}"
        table.add_row("bytes that differ between the two", compared)
    table.add_section()
    if bench.image is not None:
        table.add_row("flash, with the agent (linked image)", f"{bench.image.sizes.flash_bytes:,} bytes")
    table.add_row("arena, planned", _bytes(bench.memory.arena_planned))
    table.add_row("arena, used", _bytes(bench.memory.arena_used))
    table.add_row("stack, used by an inference", _bytes(bench.memory.stack_used_by_run))
    table.add_section()
    if bench.ticks is not None:
        table.add_row(f"{bench.ticks.unit} an inference", f"{bench.ticks.median.value:,.0f}")
    for layer in bench.layers:
        cost = "unknown" if isinstance(layer.cost, Unknown) else f"{layer.cost.value:,.0f}"
        table.add_row(f"  {layer.index} {layer.name} [dim]{layer.kernel}[/]", cost)
    console.print(table)
    if bench.ticks is not None:
        console.print(f"[dim]{bench.ticks.basis}[/]")
    for finding in bench.findings:
        console.print(finding)
