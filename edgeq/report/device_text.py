"""What `flash`, `bench` and `devices` found, as text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgeq.benchmark import BenchReport, BoardsReport, ChangeReport
from edgeq.benchmark.result import Comparison
from edgeq.device import DevicesReport, FlashReport
from edgeq.device.doctor import DoctorReport
from edgeq.measure import Estimated, Quantity, Unknown
from edgeq.report.boards_text import bytes_text
from edgeq.toolchain import Image

_SHOWN_LAYERS = 40
"""Of a larger model, so many that take most."""


def render_flash(console: Console, report: FlashReport) -> None:
    """Who answered, what it runs, what it takes."""
    hello = report.hello
    model = hello.model if hello is not None else "an MLPerf Tiny model"
    console.print(f"[bold green]runs[/] {escape(model)} on {escape(report.board_name)} ({report.board})")
    _image(console, report.image)
    if hello is None:
        console.print(f"  agent  MLPerf Tiny's protocol at {escape(report.port)}, for the official runner")
    else:
        arena = bytes_text(hello.arena_bytes)
        console.print(f"  agent  {hello.firmware_version} at {escape(report.port)}, arena {arena}")
    for note in report.notes:
        console.print(f"  [yellow]note[/]   {escape(note)}")


def render_bench(console: Console, report: BenchReport) -> None:
    """The verdict first, then cost, memory and layers."""
    console.print(f"{_verdict(report)} {escape(report.hello.model)} on {escape(report.board_name)} ({report.board})")
    if report.comparison is not None:
        _comparison(console, report.comparison)
    if report.golden is not None:
        _comparison(console, report.golden)
    if report.accuracy is not None:
        host = report.accuracy.host
        beside = "" if isinstance(host, Unknown) else f", on this computer {host.value:.4f}"
        console.print(
            f"  accuracy {report.accuracy.board.value:.4f} of {report.accuracy.samples} labelled samples{beside}"
        )
    _ticks(console, report)
    if report.energy is not None:
        console.print(f"  energy {_text(report.energy.per_run)} a run")
        console.print(f"  power  {_text(report.energy.running)}; waiting {_text(report.energy.idle)}")
    memory = report.memory
    console.print(f"  arena  planned {_text(memory.arena_planned)}, used {_text(memory.arena_used)}")
    console.print(
        f"  stack  {_text(memory.stack_used_by_run)} by the model, {_text(memory.stack_used)} at most, "
        f"{_text(memory.stack_reserved)} reserved"
    )
    console.print(f"  heap   {_text(memory.heap)}")
    if report.image is not None:
        _image(console, report.image)
        console.print(f"  flags  {escape(' '.join(report.image.flags))}", soft_wrap=True)
    console.print(f"  data   {escape(report.data)}")
    for finding in report.findings:
        console.print(f"  [yellow]note[/]   {escape(finding)}")
    _layers(console, report)


def render_boards(console: Console, report: BoardsReport) -> None:
    """Each board's result, then the boards that failed."""
    for result in report.results:
        render_bench(console, result)
        console.print()
    for board, error in report.failures.items():
        console.print(f"[bold red]failed[/] {board}: {error.code}: {escape(error.what)}")
        if error.why:
            console.print(f"  why    {escape(error.why)}")
        for step in error.try_:
            console.print(f"  try    {escape(step)}")


def render_changes(console: Console, report: ChangeReport, worse: Sequence[str] = ()) -> None:
    """Before, after, and by how much; `worse` by more than a gate allows."""
    for note in report.notes:
        console.print(f"[yellow]note[/] {escape(note)}")
    table = Table("", box=None, header_style="bold")
    for column in (report.before, report.after, "change"):
        table.add_column(escape(column), justify="right")
    for change in report.changes:
        digits = ",.4g" if change.unit == "fraction" else ",.0f"
        sides = ["" if side is None else f"{side:{digits}} {change.unit}" for side in (change.before, change.after)]
        table.add_row(escape(change.what), *sides, "" if change.ratio is None else f"{100 * (change.ratio - 1):+.2f} %")
    console.print(table)
    if worse:
        console.print(f"[bold red]worse[/] {escape(', '.join(worse))}")


def render_doctor(console: Console, report: DoctorReport) -> None:
    """One line a check, by group."""
    colour = {"ok": "green", "absent": "yellow", "failed": "bold red"}
    for check in report.checks:
        state = f"[{colour[check.state]}]{check.state:<6}[/]"
        console.print(f"{state} {check.group} {escape(check.name)}: {escape(check.detail)}", soft_wrap=True)
        if check.remedy:
            console.print(f"       {escape(check.remedy)}", soft_wrap=True)


def render_devices(console: Console, report: DevicesReport) -> None:
    """Ports, then virtual boards."""
    if report.ports:
        table = Table(
            "port", "USB id", "serial number", "description", "boards", "state", box=None, header_style="bold"
        )
        for port in report.ports:
            boards = ", ".join(port.boards)
            named = (escape(port.serial_number or ""), escape(port.description))
            table.add_row(port.port, port.usb_id or "", *named, boards, port.role or "")
        console.print(table)
    else:
        console.print("No serial port.")
    console.print()
    table = Table("virtual board", "emulator", "", box=None, header_style="bold")
    for board in report.virtual:
        state = "[green]ready[/]" if board.lacks is None else f"[yellow]{escape(f'{board.lacks} {board.remedy}')}[/]"
        table.add_row(board.board, board.emulator, state)
    console.print(table)


def _verdict(report: BenchReport) -> str:
    if report.comparison is None and report.golden is None:
        return "[bold]measured[/]"
    if report.ok and not all(side is None or side.equal for side in (report.comparison, report.golden)):
        return "[bold green]within tolerance[/]"
    return "[bold green]equal[/]" if report.ok else "[bold red]differs[/]"


def _comparison(console: Console, comparison: Comparison) -> None:
    console.print(
        f"  bytes  {comparison.bytes_differing:,} of {comparison.bytes_compared:,} output bytes differ over "
        f"{comparison.samples} samples from {comparison.reference}"
    )
    if comparison.difference is not None and not comparison.equal:
        console.print(
            f"  float  {comparison.difference:.1e} of the largest value apart at most; "
            f"up to {comparison.tolerance:.0e} counts as rounding"
        )
    first = comparison.first
    if first is None or comparison.agrees:
        return
    console.print(
        f"  first  sample {first.sample}, output {first.output}, byte {first.offset}: "
        f"board {first.board_value}, host {first.host_value}"
    )
    layer = first.layer
    if layer is not None:
        since = f" (or since layer {layer.suspect_from})" if layer.suspect_from < layer.index else ""
        named = f"{layer.index} {escape(layer.name)} {escape(layer.output or '')}{since}"
        values = f"board {layer.board_bytes.hex(' ')}, host {layer.host_bytes.hex(' ')}"
        console.print(f"  layer  {named}, from byte {layer.offset}: {values}")


def _ticks(console: Console, report: BenchReport) -> None:
    ticks = report.ticks
    if ticks is None:
        console.print("  cost   unknown: the board has no timer")
        return
    spread = f"{ticks.median.value:,.0f} {ticks.unit} an inference"
    if len(set(ticks.samples)) > 1:
        spread += f" (min {ticks.least.value:,.0f}, p90 {ticks.percentile(90).value:,.0f}"
        spread += f", p99 {ticks.percentile(99).value:,.0f})"
    console.print(f"  cost   {spread}, {len(ticks.samples)} runs; {escape(ticks.basis)}")


def _layers(console: Console, report: BenchReport) -> None:
    costs = {layer.index: layer.cost.value for layer in report.layers if not isinstance(layer.cost, Unknown)}
    if not costs or report.ticks is None:
        return
    total = sum(costs.values()) or 1
    shown = set(sorted(costs, key=lambda index: -costs[index])[:_SHOWN_LAYERS])
    named = any(layer.layer for layer in report.layers)
    columns = ["#", *(["layer"] if named else []), "operator" if named else "layer", "kernel"]
    table = Table(*columns, box=None, header_style="bold")
    table.add_column(report.ticks.unit, justify="right")
    table.add_column("%", justify="right")
    table.add_column(".text", justify="right")
    for layer in report.layers:
        if layer.index in shown:
            cost = costs[layer.index]
            code = "" if layer.code is None else f"{layer.code.text_bytes.value:,.0f}"
            whose = [escape(layer.layer or "")] if named else []
            numbers = (f"{cost:,.0f}", f"{100 * cost / total:.1f}", code)
            table.add_row(str(layer.index), *whose, layer.name, escape(layer.kernel), *numbers)
    console.print(table)
    left_out = [cost for index, cost in costs.items() if index not in shown]
    if left_out:
        share = f"{100 * sum(left_out) / total:.1f}"
        console.print(f"  and {len(left_out)} layers that take less, {share} % together; --json lists all")


def _image(console: Console, image: Image) -> None:
    console.print(
        f"  image  flash {bytes_text(image.sizes.flash_bytes)}, RAM {bytes_text(image.sizes.ram_bytes)}; "
        f"{escape(image.compiler.partition(': ')[2] or image.compiler)}"
    )


def _text(quantity: Quantity) -> str:
    if isinstance(quantity, Unknown):
        return f"unknown ({escape(quantity.reason)})"
    number = bytes_text(int(quantity.value)) if quantity.unit == "bytes" else f"{quantity.value:,.4g} {quantity.unit}"
    return f"about {number}" if isinstance(quantity, Estimated) else number
