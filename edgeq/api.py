"""The verbs as functions. Each tells the story of its stage; the work is done in the rooms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgeq.progress import Progress, silent

if TYPE_CHECKING:
    from edgeq.benchmark import BenchReport
    from edgeq.boards import Board
    from edgeq.checks import CheckReport, Fixed
    from edgeq.codegen import Bundle
    from edgeq.demonstration.run import DemoReport
    from edgeq.device import FlashReport
    from edgeq.quantization import ConversionReport

Optimize = Literal["speed", "balanced", "ram", "flash"]


def convert(
    model: Any,
    out: Path | str,
    *,
    data: Any = None,
    eval_data: Any = None,
    scheme: str = "int8",
    io: str = "int8",
    unsafe: bool = False,
    progress: Progress = silent,
) -> ConversionReport:
    """Quantize a Keras model (a file, a SavedModel directory or a `keras.Model`) into the `.tflite` file `out`.

    `data` is what calibrates, `eval_data` what measures: files, `package.module:function`, or arrays. Raises ModelError,
    DataError, UsageError for input that cannot be used, ToolError if TensorFlow is missing; `out` is whole or absent.
    """
    from edgeq.quantization import convert as quantize

    return quantize(
        model, Path(out), data=data, eval_data=eval_data, scheme=scheme, io=io, unsafe=unsafe, progress=progress
    )


def check(
    model: Path | str,
    boards: Sequence[Board | str | Path],
    *,
    budget: str | None = None,
    progress: Progress = silent,
) -> list[CheckReport]:
    """Check a `.tflite` file against boards: operators, types, memory, speed. One report a board; nothing is executed.

    `budget` (`flash=256k,ram=64k,latency=20ms`) makes an error of whatever exceeds it.
    """
    from edgeq import checks
    from edgeq.boards import load_board
    from edgeq.graph import read

    limits = checks.parse_budget(budget) if budget else {}
    graph = read(Path(model))
    plans = checks.Plans(graph)
    reports = []
    for done, board in enumerate(boards):
        progress("checking", done, len(boards))
        report = checks.check(graph, load_board(board), name=Path(model).stem, plans=plans)
        reports.append(checks.apply_budget(report, limits))
    return reports


def fix(model: Path | str, out: Path | str) -> list[Fixed]:
    """Apply every mechanical remedy of `check` to a `.tflite` file, written to `out` (whole or not at all)."""
    from edgeq import checks
    from edgeq.files import write_file
    from edgeq.graph import read, verify, write_bytes

    graph, fixed = checks.fix(read(Path(model)))
    verify(graph)
    write_file(Path(out), write_bytes(graph))
    return list(fixed)


def bundle(
    model: Path | str,
    board: Board | str | Path,
    out: Path | str,
    *,
    name: str | None = None,
    optimize: Optimize = "balanced",
) -> Bundle:
    """Compile a `.tflite` file to C sources for a board, written to the directory `out` (whole or not at all)."""
    from edgeq import codegen
    from edgeq.boards import load_board
    from edgeq.graph import read_bytes, read_file

    path = Path(model)
    content = read_file(path)
    plan = codegen.plan(
        read_bytes(content, where=str(path)), load_board(board), name=name or path.stem, optimize=optimize
    )
    result = codegen.emit(plan, content)
    codegen.write_bundle(result, Path(out))
    return result
