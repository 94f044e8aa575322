"""The benchmark's tables: goals and peers beside what was counted, Markdown from the rows of mcu.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import timing

Row = dict[str, Any]

M4, M55, M3, M0 = "qemu-mps2-an386", "qemu-mps3-an547", "qemu-mps2-an385", "raspberry-pi-pico"
CORES = {M4: "Cortex-M4F", M55: "Cortex-M55", M3: "Cortex-M3", M0: "ARMv6-M (M0+)"}
MODELS = {"kws_ref_int8": "kws", "vww_96_int8": "vww", "ic_resnet8_int8": "ic", "ad01_int8": "ad"}

GOALS: tuple[tuple[str, str, str, tuple[int, ...]], ...] = (
    (M4, "speed", "instructions", (2_800_000, 5_000_000, 11_500_000, 270_000)),
    (M4, "balanced", "instructions", (3_200_000, 6_500_000, 12_500_000, 290_000)),
    (M55, "speed", "instructions", (600_000, 1_400_000, 2_100_000, 48_000)),
    (M0, "speed", "instructions", (10_000_000, 20_000_000, 38_000_000, 1_000_000)),
    (M3, "speed", "instructions", (6_000_000, 11_000_000, 23_000_000, 600_000)),
    (M4, "balanced", "arena_bytes", (16_384, 60_000, 50_000, 1_500)),
    (M4, "ram", "arena_bytes", (10_240, 43_000, 36_000, 1_300)),
    (M4, "balanced", "flash_bytes", (42_000, 240_000, 102_000, 282_000)),
)
"""Board, goal of generation, figure, and the most that it may be for each of MODELS."""

STACK_BYTES = 1024

PEER: dict[tuple[str, str], tuple[int, ...]] = {
    (M4, "instructions"): (7_697_000, 24_100_000, 29_860_000, 582_000),
    (M55, "instructions"): (1_785_000, 6_433_000, 4_811_000, 150_000),
    (M3, "instructions"): (10_540_000, 32_080_000, 41_760_000, 956_000),
    (M0, "instructions"): (29_000_000, 86_880_000, 97_570_000, 1_763_000),
    (M4, "arena_bytes"): (22_820, 100_708, 54_996, 2_580),
    (M4, "flash_bytes"): (107_560, 386_912, 149_928, 305_296),
}
"""TFLM (August 2026) with CMSIS-NN 7, the better of -O2 and -O3, gcc 12.2, counted by the same method beforehand."""

ST_CYCLES = (5_180_000, 10_670_000, 19_800_000, 631_000)
"""X-CUBE-AI 9.0 on a NUCLEO-L4R5ZI, MLPerf Tiny v1.2: measured on silicon, published."""


def _grid(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def _place(row: Row) -> str:
    return f"{CORES.get(row['board'], row['board'])}, {row['optimize']}"


def misses(rows: Sequence[Row]) -> list[str]:
    """Sentences for figures above their goal."""
    found = []
    for row in rows:
        for board, goal, figure, most in GOALS:
            if (row["board"], row["optimize"]) == (board, goal) and row["model"] in MODELS:
                limit = most[list(MODELS).index(row["model"])]
                if row[figure] > limit:
                    found.append(f"{row['model']}, {_place(row)}: {figure} {row[figure]:,}, the goal is {limit:,}")
        if row["stack_bytes"] >= STACK_BYTES:
            found.append(f"{row['model']}, {_place(row)}: stack {row['stack_bytes']:,} bytes")
    return found


def goals(rows: Sequence[Row]) -> str:
    """The goals, a line each: counted / goal / peer for the published models."""
    found = {(row["board"], row["optimize"], row["model"]): row for row in rows}
    lines = []
    for board, goal, figure, most in GOALS:
        cells = []
        for position, (model, limit) in enumerate(zip(MODELS, most, strict=True)):
            row, peer = found.get((board, goal, model)), PEER.get((board, figure))
            if row is None:
                cells.append("not run")
                continue
            beside = f"; peer {peer[position]:,}, {peer[position] / row[figure]:.2f}x" if peer else ""
            cells.append(f"**{row[figure]:,}**{'' if row[figure] <= limit else ' (missed)'} of {limit:,}{beside}")
        lines.append([f"{CORES[board]}, {goal}: {figure.replace('_', ', ')}", *cells])
    return _grid(["", *MODELS.values()], lines)


def figures(rows: Sequence[Row]) -> str:
    """All figures, a line a row, the same sources by the other compiler beside."""
    return _grid(
        ["model", "core, goal", "instructions", "zig cc", "flash, bytes", "arena, bytes", "stack, bytes (zig cc)",
         "bytes that differ (zig cc)"],
        [
            [row["model"], _place(row), f"{row['instructions']:,}", f"{row['zig_instructions']:,}",
             f"{row['flash_bytes']:,}", f"{row['arena_bytes']:,}",
             f"{row['stack_bytes']:,} ({row['zig_stack_bytes']:,})",
             f"{row['differing_bytes']} ({row['zig_differing_bytes']})"]
            for row in rows
        ],
    )  # fmt: skip


def cycles(rows: Sequence[Row]) -> str:
    """Estimated cycles on the M4, beside published ones."""
    order = list(MODELS)
    return _grid(
        ["model", "goal", "cycles, estimated", "per instruction", "X-CUBE-AI 9.0, measured"],
        [
            [row["model"], row["optimize"], f"{row['cycles_estimated']:,}",
             f"{row['cycles_estimated'] / row['instructions']:.2f}",
             f"{ST_CYCLES[order.index(row['model'])]:,}" if row["model"] in MODELS else ""]
            for row in rows if "cycles_estimated" in row
        ],
    )  # fmt: skip


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"


def where(rows: Sequence[Row]) -> str:
    """What the instructions are for, by class."""
    return _grid(
        ["model", "core, goal", *timing.CLASSES],
        [
            [row["model"], _place(row), *(_percent(row["classes"][c], row["instructions"]) for c in timing.CLASSES)]
            for row in rows
        ],
    )


def _function(name: str, model: str) -> str:
    return name.removeprefix(f"{model}_")


def sections(rows: Sequence[Row]) -> str:
    """The functions that execute most instructions."""
    return _grid(
        ["model", "core, goal", "functions"],
        [
            [row["model"], _place(row),
             "; ".join(f"{_function(f, row['model'])} {_percent(n, row['instructions'])}"
                       for f, n in row["functions"].items())]
            for row in rows
        ],
    )  # fmt: skip


_REMEDY = {
    "loads": "keep more operands in registers: larger blocks of pixels and channels, where registers allow",
    "stores": "pack results before they are stored",
    "requantization": "more channels that share a shift, or that are proven to need the short form only",
    "layout": "widen each value fewer times: share expanded inputs and weights between more outputs",
    "branches": "longer unrolled runs, fewer calls per pixel",
    "arithmetic": "the portable kernels' address arithmetic and sums: a kernel for this shape and core",
}


def following(rows: Sequence[Row]) -> str:
    """The next improvement of every row: the largest class beyond MACs, and the layer farthest above the rest."""
    lines = []
    for row in rows:
        extra = {c: n for c, n in row["classes"].items() if c != "MACs"}
        most = max(extra, key=lambda c: extra[c])
        layers = [layer for layer in row["layers"] if layer["macs"]]
        if not layers:
            continue
        best = min(layer["instructions"] / layer["macs"] for layer in layers)
        excess: Callable[[Row], float] = lambda layer, best=best: layer["instructions"] - best * layer["macs"]  # noqa: E731
        farthest = max(layers, key=excess)
        lines.append(
            [row["model"], _place(row), f"{most}, {_percent(extra[most], row['instructions'])}: {_REMEDY[most]}",
             f"{row['layers'].index(farthest)} {farthest['name']}: {excess(farthest):,.0f} instructions"]
        )  # fmt: skip
    head = [
        "model",
        "core, goal",
        "largest class beside MACs, and what would lower it",
        "layer farthest above the best",
    ]
    return _grid(head, lines)


def layers(rows: Sequence[Row]) -> str:
    """Instructions of every layer, a table a row."""
    return "\n".join(
        f"### {row['model']}, {_place(row)}\n\n"
        + _grid(
            ["layer", "kernel", "instructions", "per MAC"],
            [
                [f"{i} {layer['name']}", layer["kernel"], f"{layer['instructions']:,}",
                 f"{layer['instructions'] / layer['macs']:.2f}" if layer["macs"] else ""]
                for i, layer in enumerate(row["layers"])
            ],
        )
        for row in rows
    )  # fmt: skip


def document(found: dict[str, Any]) -> str:
    """The whole page."""
    rows = found["rows"]
    options = "\n".join(
        f"- {core}: `{' '.join(next(r['compile_options'] for r in rows if r['board'] == board))}`"
        for board, core in CORES.items()
        if any(r["board"] == board for r in rows)
    )
    missed = "".join(f"- {sentence}\n" for sentence in misses(rows)) or "None.\n"
    return f"""# Bundles on emulated Cortex-M boards

`make bench-mcu`, {found["date"]}, {found["compiler"]}; the same sources by {found["zig"]}. Flags:

{options}

Executed instructions of one inference on seeded noise, counted under QEMU, with the profiling hook compiled in; they
are not cycles. Flash: code and constants of the bundle, with what it takes from the C library. Arena: inputs, outputs,
intermediates, scratch; guards around it stay untouched. Stack: painted high-water mark of invoke. Output bytes are
compared with the tflite-micro wheel on noise and on extreme inputs. The code for ARMv6-M is a Raspberry Pi Pico's, run
on a Cortex-M3. The peer is TFLM (August 2026) with CMSIS-NN 7, the better of its -O2 and -O3 builds, counted beforehand
by the same method and compiler; its flash holds the interpreter and the .tflite file.

## Goals

Counted, of the most that was allowed.

{goals(rows)}
Missed:

{missed}
## All figures

{figures(rows)}
## Estimated cycles on the Cortex-M4

Estimated by the model of `benchmarks/timing.py` (Cortex-M4 TRM 3.3, zero wait states), from the counts of every
instruction and of every branch taken. Nothing here ran on silicon; ST's published cycles
beside it did, so an estimate stands beside a measurement.

{cycles(rows)}
## Where the instructions go

By class of instruction; layout is data movement and widening, arithmetic is addresses, counters and all else.

{where(rows)}
By function, those with most:

{sections(rows)}
## What would be next

From these counts: the largest class beside MACs; and by how much a layer exceeds what the model's best layer needs for
as many MACs.

{following(rows)}
## Per layer

{layers(rows)}"""
