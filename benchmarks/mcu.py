"""Instructions, flash, arena and stack of bundles on emulated Cortex-M boards, beside the peer's.

    python benchmarks/mcu.py [MODEL.tflite ...] [--board ID ...] [--optimize GOAL ...] [--json] [--write] [--check]

Without models: the four published MLPerf Tiny int8 models in EDGEQ_SHARED/models (or ../shared/models). Without boards
and goals: Cortex-M4F speed, balanced and ram; Cortex-M55, Cortex-M3 and ARMv6-M speed. Every run builds with gcc and
with zig cc and compares the output bytes with the tflite-micro wheel on seeded and extreme inputs. `--write` renews
benchmarks/mcu.json and mcu.md; `--check` fails (exit 1) where a figure is more than 1 % worse than benchmarks/mcu.json
says. Counts are executed instructions under QEMU, not cycles.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mcu_report as report
import numpy as np
import timing
from counter import COMPILERS, MACHINES, BenchError, Counts, count
from mcu_report import M0, M3, M4, M55

from edgeq.boards import load_board
from edgeq.codegen import emit, golden, plan, write_bundle
from edgeq.errors import EdgeqError
from edgeq.graph import Graph, read

HERE = Path(__file__).resolve().parent
GOALS = ("speed", "balanced", "ram", "flash")
CASES = ((M4, "speed"), (M4, "balanced"), (M4, "ram"), (M55, "speed"), (M3, "speed"), (M0, "speed"))
"""What is measured if nothing is asked for: board and goal."""
FIGURES = (
    "instructions", "flash_bytes", "arena_bytes", "stack_bytes", "cycles_estimated", "zig_instructions",
    "zig_stack_bytes",
)  # fmt: skip
"""What must not become worse."""
TOP = 6


def vectors(graph: Graph) -> list[list[bytes]]:
    """Two seeded inputs, then for integers all highest, all lowest and alternating, for every input of the model."""
    made = [golden.inputs(graph, index) for index in range(2)]
    for pattern in ((1,), (0,), (1, 0)):
        extreme = []
        for given in made[0]:
            if given.dtype.kind in "iu" and given.itemsize <= 2:
                ends = np.iinfo(given.dtype).min, np.iinfo(given.dtype).max
                extreme.append(np.resize(np.array([ends[p] for p in pattern], given.dtype), given.shape))
            else:
                extreme.append(given)
        made.append(extreme)
    return [[part.tobytes() for part in vector] for vector in made]


def expected(model: Path, inputs: Sequence[Sequence[bytes]], graph: Graph) -> list[bytes]:
    """Outputs of the tflite-micro wheel."""
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(model.read_bytes())
    results = []
    for vector in inputs:
        for position, (content, tensor) in enumerate(zip(vector, graph.inputs, strict=True)):
            array = np.frombuffer(content, graph.tensors[tensor].type.dtype).reshape(graph.tensors[tensor].shape)
            interpreter.set_input(array, position)
        interpreter.invoke()
        results.append(b"".join(interpreter.get_output(i).tobytes() for i in range(len(graph.outputs))))
    return results


def _differing(counts: Counts, wanted: Sequence[bytes]) -> int:
    pairs = zip(counts.outputs, wanted, strict=True)
    return sum(a != b for got, want in pairs for a, b in zip(got, want, strict=True))


def measure(model: Path, board: str, goal: str) -> dict[str, Any]:
    """One row: figures of the model on the board under the goal."""
    graph = read(model)
    name = re.sub(r"\W", "_", model.stem)
    made = plan(graph, load_board(board), name=name, optimize=goal)  # type: ignore[arg-type]
    inputs = vectors(graph)
    wanted = expected(model, inputs, graph)
    with tempfile.TemporaryDirectory() as place:
        bundle = Path(place) / "bundle"
        write_bundle(emit(made), bundle)
        counts, zig = (count(bundle, MACHINES[board], inputs, compiler=compiler) for compiler in COMPILERS)
    row = {
        "model": model.stem, "board": board, "optimize": goal, "instructions": counts.instructions,
        "flash_bytes": counts.flash_bytes, "arena_bytes": counts.arena_bytes, "stack_bytes": counts.stack_bytes,
        "differing_bytes": _differing(counts, wanted), "zig_instructions": zig.instructions,
        "zig_stack_bytes": zig.stack_bytes, "zig_differing_bytes": _differing(zig, wanted),
        "compile_options": list(dict.fromkeys((*made.compile_options, *MACHINES[board].flags))),
        "classes": timing.shares(counts.executed),
        "functions": dict(list(timing.functions(counts.executed).items())[:TOP]),
        "layers": [
            {"name": step.name, "kernel": step.kernel, "instructions": n, "macs": step.macs}
            for step, n in zip(made.steps, counts.layers, strict=True)
        ],
    }  # fmt: skip
    return row | ({"cycles_estimated": timing.cortex_m4_cycles(counts.executed)} if board == M4 else {})


def _document(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    compiler = subprocess.run(["arm-none-eabi-gcc", "--version"], capture_output=True, text=True, check=True).stdout
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {
        "schema": "edgeq.mcu-bench/2", "date": today, "compiler": compiler.splitlines()[0],
        "zig": f"zig cc {version('ziglang')}", "rows": list(rows),
    }  # fmt: skip


def regressions(rows: Sequence[dict[str, Any]], known: Sequence[dict[str, Any]]) -> list[str]:
    """Sentences for figures that are more than 1 % worse than the known ones."""
    old = {(row["model"], row["board"], row["optimize"]): row for row in known}
    found = []
    for row in rows:
        before = old.get((row["model"], row["board"], row["optimize"]))
        for figure in FIGURES if before else ():
            assert before is not None
            if figure in row and row[figure] > before.get(figure, row[figure]) * 1.01:
                where = f"{row['model']}, {row['board']}, {row['optimize']}"
                found.append(f"{where}: {figure} {row[figure]:,}, was {before[figure]:,}")
    return found


def _summary(rows: Sequence[dict[str, Any]]) -> str:
    published = report.goals(rows) + "\n" if all(row["model"] in report.MODELS for row in rows) else ""
    return "\n".join((published + report.figures(rows), report.cycles(rows), report.where(rows)))


def main() -> int:
    """0: measured; 1: bytes differ, or --check found a regression; 3: a tool or the models are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--board", action="append", choices=sorted(MACHINES))
    parser.add_argument("--optimize", action="append", choices=GOALS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    shared = Path(os.environ.get("EDGEQ_SHARED", HERE.parent.parent / "shared"))
    models = arguments.models or [shared / "models" / f"{name}.tflite" for name in report.MODELS]
    missing = [str(model) for model in models if not model.is_file()]
    if missing:
        print(f"no such model: {', '.join(missing)}", file=sys.stderr)
        return 3
    cases = [
        (board, goal)
        for board in arguments.board or dict.fromkeys(board for board, _ in CASES)
        for goal in arguments.optimize or [goal for one, goal in CASES if one == board] or ["speed"]
    ]
    rows = []
    for board, goal in cases:
        for model in models:
            try:
                rows.append(measure(model, board, goal))
            except (BenchError, EdgeqError) as error:
                print(f"{model.name}, {board}, {goal}: {error}", file=sys.stderr)
                return 3
    document = _document(rows)
    print(json.dumps(document, indent=2) if arguments.json else _summary(rows), end="")
    failed = [
        f"{row['model']}, {row['board']}, {row['optimize']}: {row[key]} output bytes differ ({key})"
        for row in rows
        for key in ("differing_bytes", "zig_differing_bytes")
        if row[key]
    ]
    stored = HERE / "mcu.json"
    if arguments.check and stored.exists():
        failed += regressions(rows, json.loads(stored.read_text())["rows"])
    for sentence in failed:
        print(sentence, file=sys.stderr)
    if arguments.write and not failed:
        stored.write_text(json.dumps(document, indent=1) + "\n")
        (HERE / "mcu.md").write_text(report.document(document))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
