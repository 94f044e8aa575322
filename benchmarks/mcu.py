"""Instructions, flash, arena and stack of bundles on emulated Cortex-M boards, beside the peer's.

    python benchmarks/mcu.py [MODEL.tflite ...] [--board ID ...] [--optimize GOAL ...] [--json] [--write] [--check]

Without models: the four published MLPerf Tiny int8 models in EDGEQ_SHARED/models (or ../shared/models). Every run
compares the output bytes with the tflite-micro wheel on seeded and extreme inputs. `--write` renews benchmarks/mcu.json
and mcu.md; `--check` fails (exit 1) where a figure is more than 1 % worse than benchmarks/mcu.json says. Counts are
executed instructions under QEMU, not cycles.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from counter import MACHINES, BenchError, count

from edgeq.boards import load_board
from edgeq.codegen import emit, plan, write_bundle
from edgeq.errors import EdgeqError
from edgeq.graph import Graph, read

HERE = Path(__file__).resolve().parent
MODELS = ("kws_ref_int8", "vww_96_int8", "ic_resnet8_int8", "ad01_int8")
GOALS = ("speed", "balanced", "ram", "flash")
FIGURES = ("instructions", "flash_bytes", "arena_bytes", "stack_bytes")

PEER = {
    "qemu-mps2-an386": {
        "kws_ref_int8": (7_697_000, 107_560, 22_820),
        "vww_96_int8": (24_100_000, 386_912, 100_708),
        "ic_resnet8_int8": (29_860_000, 149_928, 54_996),
        "ad01_int8": (582_000, 305_296, 2_580),
    }
}
"""Instructions, flash, arena of TFLM (August 2026) with CMSIS-NN 7, the better of -O2 and -O3, gcc 12.2."""


def vectors(graph: Graph) -> list[list[bytes]]:
    """Two seeded inputs, then all 127, all -128 and alternating, for every input of the model."""
    random = np.random.default_rng(20261)
    shapes = [graph.tensors[i].shape for i in graph.inputs]
    made = [[random.integers(-128, 128, shape).astype(np.int8) for shape in shapes] for _ in range(2)]
    for pattern in ([127], [-128], [127, -128]):
        made.append([np.resize(np.array(pattern, np.int8), shape) for shape in shapes])
    return [[part.tobytes() for part in vector] for vector in made]


def expected(model: Path, inputs: Sequence[Sequence[bytes]], graph: Graph) -> list[bytes]:
    """Outputs of the tflite-micro wheel."""
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(model.read_bytes())
    results = []
    for vector in inputs:
        for position, (content, tensor) in enumerate(zip(vector, graph.inputs, strict=True)):
            array = np.frombuffer(content, np.int8).reshape(graph.tensors[tensor].shape)
            interpreter.set_input(array, position)
        interpreter.invoke()
        results.append(b"".join(interpreter.get_output(i).tobytes() for i in range(len(graph.outputs))))
    return results


def measure(model: Path, board: str, goal: str) -> dict[str, Any]:
    """One row: figures of the model on the board under the goal."""
    graph = read(model)
    made = plan(graph, load_board(board), name=model.stem, optimize=goal)  # type: ignore[arg-type]
    inputs = vectors(graph)
    with tempfile.TemporaryDirectory() as place:
        bundle = Path(place) / "bundle"
        write_bundle(emit(made), bundle)
        counts = count(bundle, MACHINES[board], inputs)
    pairs = zip(counts.outputs, expected(model, inputs, graph), strict=True)
    differing = sum(a != b for got, want in pairs for a, b in zip(got, want, strict=True))
    layers = [
        {"name": step.name, "kernel": step.kernel, "instructions": n, "macs": step.macs}
        for step, n in zip(made.steps, counts.layers, strict=True)
    ]
    return {
        "model": model.stem, "board": board, "optimize": goal, "instructions": counts.instructions,
        "flash_bytes": counts.flash_bytes, "arena_bytes": counts.arena_bytes, "stack_bytes": counts.stack_bytes,
        "differing_bytes": differing, "compile_options": [*made.compile_options, *MACHINES[board].flags],
        "layers": layers,
    }  # fmt: skip


def _beside(value: int, peer: int | None) -> str:
    return f"{value:,}" if peer is None else f"{value:,} (peer {peer:,}, {peer / value:.2f}x)"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row a model, board and goal."""
    lines = [
        "| model | board | optimize | instructions | flash, bytes | arena, bytes | stack, bytes | bytes that differ |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        peer = PEER.get(row["board"], {}).get(row["model"], (None, None, None))
        figures = " | ".join(_beside(row[f], p) for f, p in zip(FIGURES[:3], peer, strict=True))
        lines.append(
            f"| {row['model']} | {row['board']} | {row['optimize']} | {figures} | {row['stack_bytes']:,} "
            f"| {row['differing_bytes']} |"
        )
    return "\n".join(lines) + "\n"


def _document(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    compiler = subprocess.run(["arm-none-eabi-gcc", "--version"], capture_output=True, text=True, check=True).stdout
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"schema": "edgeq.mcu-bench/1", "date": today, "compiler": compiler.splitlines()[0], "rows": list(rows)}


def _text(document: dict[str, Any]) -> str:
    rows = document["rows"]
    options = sorted({" ".join(row["compile_options"]) for row in rows})
    layers = "\n".join(
        f"### {row['model']}, {row['board']}, {row['optimize']}\n\n"
        "| layer | kernel | instructions | per MAC |\n|---|---|---|---|\n"
        + "".join(
            f"| {i} {layer['name']} | {layer['kernel']} | {layer['instructions']:,} | "
            + (f"{layer['instructions'] / layer['macs']:.2f} |\n" if layer["macs"] else "|\n")
            for i, layer in enumerate(row["layers"])
        )
        for row in rows
    )
    return f"""# Bundles on emulated Cortex-M boards

`make bench-mcu`, {document["date"]}, {document["compiler"]}.
Flags: {"; ".join(f"`{o}`" for o in options)}.

Executed instructions of one inference on seeded noise, counted under QEMU, with the profiling hook compiled in; they
are not cycles. Flash: code and constants of the bundle, with what it takes from the C library. Arena: inputs, outputs,
intermediates, scratch. Stack: painted high-water mark of invoke. The peer is TFLM (August 2026) with CMSIS-NN 7, the
better of its -O2 and -O3 builds, counted by the same method; its flash holds the interpreter and the .tflite file.

{table(rows)}
## Per layer

{layers}"""


def regressions(rows: Sequence[dict[str, Any]], known: Sequence[dict[str, Any]]) -> list[str]:
    """Sentences for figures that are more than 1 % worse than the known ones."""
    old = {(row["model"], row["board"], row["optimize"]): row for row in known}
    found = []
    for row in rows:
        before = old.get((row["model"], row["board"], row["optimize"]))
        for figure in FIGURES if before else ():
            assert before is not None
            if row[figure] > before[figure] * 1.01:
                where = f"{row['model']}, {row['board']}, {row['optimize']}"
                found.append(f"{where}: {figure} {row[figure]:,}, was {before[figure]:,}")
    return found


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
    models = arguments.models or [shared / "models" / f"{name}.tflite" for name in MODELS]
    missing = [str(model) for model in models if not model.is_file()]
    if missing:
        print(f"no such model: {', '.join(missing)}", file=sys.stderr)
        return 3
    rows = []
    for board in arguments.board or ["qemu-mps2-an386"]:
        for goal in arguments.optimize or ["speed", "balanced"]:
            for model in models:
                try:
                    rows.append(measure(model, board, goal))
                except (BenchError, EdgeqError) as error:
                    print(f"{model.name}, {board}, {goal}: {error}", file=sys.stderr)
                    return 3
    document = _document(rows)
    print(json.dumps(document, indent=2) if arguments.json else table(rows), end="")
    failed = [f"{row['model']}: {row['differing_bytes']} bytes differ" for row in rows if row["differing_bytes"]]
    stored = HERE / "mcu.json"
    if arguments.check and stored.exists():
        failed += regressions(rows, json.loads(stored.read_text())["rows"])
    for sentence in failed:
        print(sentence, file=sys.stderr)
    if arguments.write and not failed:
        stored.write_text(json.dumps(document, indent=1) + "\n")
        (HERE / "mcu.md").write_text(_text(document))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
