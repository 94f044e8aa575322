"""Board profiles as text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgeq.boards.profile import Board, EdgeTpu, EthosU, Executor, GeneratedC


def bytes_text(size: int) -> str:
    """A size as people write it: 256 KiB, 1 MiB, 1.5 MiB, 490 B."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor:
            return f"{size / factor:.1f}".removesuffix(".0") + f" {unit}"
    return f"{size} B"


def executor_text(executor: Executor) -> str:
    """An executor with its version."""
    if isinstance(executor, GeneratedC):
        return f"generated C ({', '.join(executor.kernels)} kernels)"
    if isinstance(executor, EdgeTpu):
        return f"Edge TPU (compiler {executor.compiler}, runtime {executor.runtime_version}, {executor.bus})"
    if isinstance(executor, EthosU):
        return f"{executor.accelerator} ({executor.system_config}, {executor.memory_mode})"
    return f"{executor.package} {executor.version} with XNNPACK"


def _clock(board: Board) -> str:
    return "" if board.core.clock_hz is None else f"{board.core.clock_hz / 1e6:g} MHz"


def _total(board: Board, kind: str) -> str:
    sizes = [region.size_bytes for region in board.memory if region.kind == kind]
    return bytes_text(sum(sizes)) if sizes else ""


def render_list(console: Console, boards: Sequence[Board]) -> None:
    """One line a board; where the terminal is narrow, without its name, then without what flashes it."""
    columns: dict[str, list[str]] = {
        "board": [board.id for board in boards],
        "name": [board.name for board in boards],
        "core": [f"{board.core.count} x {board.core.name}".removeprefix("1 x ") for board in boards],
        "clock": [_clock(board) for board in boards],
        "flash": [_total(board, "flash") for board in boards],
        "ram": [_total(board, "ram") for board in boards],
        "flashed by": [board.flash.method for board in boards],
    }
    for column in ("name", "flashed by"):
        if sum(2 + max(len(cell) for cell in [name, *cells]) for name, cells in columns.items()) - 2 > console.width:
            del columns[column]
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in ("clock", "flash", "ram") else "left", no_wrap=True)
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*(escape(cell) for cell in cells))
    console.print(table)


def render_board(console: Console, board: Board) -> None:
    """Everything a profile says, with sources."""
    console.print(f"[bold]{board.id}[/]  {escape(board.name)}")
    features = f" with {', '.join(board.core.features)}" if board.core.features else ""
    clock = f" at {_clock(board)}" if board.core.clock_hz else ""
    console.print(f"core       {board.core.count} x {board.core.name} ({board.core.architecture}){features}{clock}")
    console.print(f"           [dim]{escape(board.core.source)}[/]")
    for region in board.memory:
        reserved = f", {bytes_text(region.reserved_bytes)} reserved" if region.reserved_bytes else ""
        speed = f", {region.speed}" if region.speed != "fast" else ""
        place = f"{bytes_text(region.size_bytes)} at 0x{region.start:08x}"
        console.print(f"{region.kind:<10} {escape(region.name)}: {place}{reserved}{speed}")
        console.print(f"           [dim]{escape(region.source)}[/]")
    for executor in board.executors:
        console.print(f"executor   {escape(executor_text(executor))}")
        if not isinstance(executor, GeneratedC):
            console.print(f"           [dim]{escape(executor.source)}[/]")
    console.print(f"flash      {board.flash.method}{f' ({board.flash.target})' if board.flash.target else ''}")
    console.print(f"link       {board.link.kind}{f', {board.link.baud} baud' if board.link.baud else ''}")
    if board.virtual is not None:
        machine = f" -machine {board.virtual.machine}" if board.virtual.machine else ""
        console.print(f"runs in    {board.virtual.emulator}{machine}; its timer counts {board.timer}")
    if board.notes:
        console.print(f"note       {escape(board.notes)}")
