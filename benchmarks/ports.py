"""Sizes of every board's firmware with one model: `python benchmarks/ports.py MODEL.tflite [--write]`.

Builds with each compiler that is here; `--write` renews benchmarks/ports.md. Without the model: keyword spotting in
EDGEQ_SHARED/models (or ../shared/models).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from edgeq import bundle
from edgeq.boards import Board, list_boards
from edgeq.errors import EdgeqError, ToolError
from edgeq.toolchain import Image, build

HERE = Path(__file__).resolve().parent
HEAD = "| board | port | compiler | code | constants | data | bss, arena in it | stack |\n" + "|---" * 8 + "|\n"
INTRODUCTION = """# Firmware of every board

Bytes of the linked image: agent, port and {model}'s generated C (`make ports`). Built, not run: which boards are
emulated in the tests is said in docs/bench.md.

"""


def row(board: Board, image: Image) -> str:
    """A line of the table."""
    sizes = image.sizes
    compiler = image.compiler.partition(":")[0]
    numbers = (sizes.text_bytes, sizes.rodata_bytes, sizes.data_bytes, sizes.bss_bytes, sizes.stack_bytes)
    port = board.firmware.port if board.firmware else ""
    return f"| {board.id} | {port} | {compiler} | " + " | ".join(f"{number:,}" for number in numbers) + " |\n"


def main() -> int:
    """Print the table; 1 if a firmware could not be built."""
    parser = argparse.ArgumentParser(description=__doc__)
    shared = Path(os.environ.get("EDGEQ_SHARED", HERE.parents[1] / "shared"))
    parser.add_argument("model", type=Path, nargs="?", default=shared / "models" / "kws_ref_int8.tflite")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    boards = [board for board in list_boards() if board.firmware is not None and board.memory]
    table, failed = HEAD, False
    with tempfile.TemporaryDirectory() as scratch:
        for board in boards:
            place = Path(scratch) / board.id
            try:
                bundle(arguments.model, board, place)
                for compiler in ("gcc", "zig"):
                    try:
                        table += row(board, build(place, board, Path(scratch) / "out", compiler=compiler))
                    except ToolError as error:
                        if error.code != "compiler-not-found":
                            raise
            except EdgeqError as error:
                failed = True
                table += f"| {board.id} | {error.code}: {error.what} |||||||\n"
    sys.stdout.write(table)
    if arguments.write:
        (HERE / "ports.md").write_text(INTRODUCTION.format(model=arguments.model.stem) + table, encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
