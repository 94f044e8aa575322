"""The benchmark's tables: goals and peers beside what was counted, Markdown from the rows of mcu.py."""

from __future__ import annotations

from collections.abc import Sequence
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
    (
        "gemm",
        "dsp",
        "loads",
    ): "2 of the micro-kernel's 12 instructions for 16 MACs; a larger block has no registers left",
    ("gemm", "dsp", "layout"): "2 of the micro-kernel's 12 instructions for 16 MACs unpack weights (SXTB16): 16-bit "
    "halves in flash, at twice the bytes, need none, but load twice as much",
    ("gemv", "dsp", "layout"): "the SXTB16 of weights, once for 4 MACs with one row: 16-bit halves in flash, at twice "
    "the bytes, need none, but load twice as much",
    ("mve", "mve", "loads"): "one more block of pixels a pass shares every load of weights",
    ("gemm", "armv7m", "arithmetic"): "the additions that keep two sums apart: larger groups of taps",
    ("gemm", "armv6m", "arithmetic"): "the additions that keep two sums apart: larger groups of taps",
    ("dot", "armv7m", "loads"): "9 of the loop's 17 instructions for 8 MACs: two units' weights in one multiplication",
    ("dot", "armv6m", "arithmetic"): "two units' weights in one multiplication, as the convolutions do with pixels",
}
"""Of a kernel's kind, the core's family and a class: what lowers it."""
_PER_MAC = {"armv7m": (3.5, 4), "armv6m": (6, 6)}
"""Cost of a group of G taps by four pixels: a G + b instructions (edgeq/codegen/variants/scalar/gemm.py)."""


def _family(row: Row) -> str:
    return {M4: "dsp", M55: "mve", M3: "armv7m", M0: "armv6m"}[row["board"]]


def _own(layer: Row, family: str) -> bool:
    return family in layer["kernel"] or layer["kernel"].endswith("_scalar")


def _portable(row: Row) -> tuple[float, str]:
    """The layer in portable C that costs most beyond what the row's own kernels need a MAC, or a byte."""
    family = _family(row)
    own = [layer["instructions"] / layer["macs"] for layer in row["layers"] if layer["macs"] and _own(layer, family)]
    rate = max(own, default=0.0)
    found = [
        (layer["instructions"] - rate * layer["macs"], i, layer)
        for i, layer in enumerate(row["layers"])
        if not _own(layer, family)
    ]
    saved, i, layer = max(found, key=lambda one: one[0], default=(0.0, 0, {}))
    if saved <= 0:
        return 0.0, ""
    return (
        saved,
        f"layer {i} {layer['name']} is portable C, {layer['instructions']:,} instructions: a kernel of its own",
    )


def _groups(row: Row) -> tuple[float, str]:
    """On cores without DSP: sections that separate two sums every 2 taps, were it every 4."""
    family = _family(row)
    if family not in _PER_MAC:
        return 0.0, ""
    count = sum(n for function, n in row["functions"].items() if "_g2_" in function)
    a, b = _PER_MAC[family]
    saved = count * (1 - (4 * a + b) / 2 / (2 * a + b))
    return saved, (
        f"sections of groups of 2 taps execute {count:,}: scales that let 4 weights sum to 255 at most "
        "(weight clipping in training, or an order of taps that balances them)"
    )


def _same_kernel(row: Row) -> tuple[float, str]:
    """The layer that costs most beyond the rate of the best layer with the same kernel (MVE: of the same operator)."""

    def alike(layer: Row) -> str:
        return str(layer["name" if _family(row) == "mve" else "kernel"])

    best: dict[str, float] = {}
    layers = [(i, layer) for i, layer in enumerate(row["layers"]) if layer["macs"]]
    for _, layer in layers:
        rate = layer["instructions"] / layer["macs"]
        best[alike(layer)] = min(best.get(alike(layer), rate), rate)
    found = [(layer["instructions"] - best[alike(layer)] * layer["macs"], i, layer) for i, layer in layers]
    saved, i, layer = max(found, key=lambda one: one[0], default=(0.0, 0, {}))
    if saved <= 0:
        return 0.0, ""
    rate = layer["instructions"] / layer["macs"]
    return saved, (
        f"layer {i} {layer['name']} takes {rate:.2f} a MAC, the best with {alike(layer)} "
        f"{best[alike(layer)]:.2f}: longer rows or sums would bring it near"
    )


def _class(row: Row) -> str:
    """The largest class beside MACs: its count a MAC, the function that executes most, what lowers it."""
    extra = {c: n for c, n in row["classes"].items() if c != "MACs"}
    most = max(extra, key=lambda c: extra[c])
    macs = sum(layer["macs"] for layer in row["layers"])
    function, count = max(row["functions"].items(), key=lambda one: one[1])
    remedy = _REMEDY.get((_function(function, row["model"]).split("_")[0], _family(row), most), "")
    return (
        f"{most} {_percent(extra[most], row['instructions'])}, {extra[most] / macs:.2f} a MAC; most run in "
        f"{_function(function, row['model'])} ({_percent(count, row['instructions'])})"
        + (f": {remedy}" if remedy else "")
    )


def following(rows: Sequence[Row]) -> str:
    """The next improvement of every row: of what the counts show, that which would save most, and the largest class."""
    lines = []
    for row in rows:
        saved, text = max((_portable(row), _groups(row), _same_kernel(row)), key=lambda one: one[0])
        first = f"{text}; about {saved:,.0f} ({_percent(saved, row['instructions'])})" if text else ""
        lines.append([row["model"], _place(row), first, _class(row)])
    head = ["model", "core, goal", "what would save most, and how much at best", "largest class beside MACs"]
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

From these counts: a layer in portable C against the core's own kernels, groups of 2 taps against groups of 4 (cores
without DSP), a layer against the best one with the same kernel; the largest of the three. And the largest class of
instructions beside MACs, with what would lower it.

{following(rows)}
## Per layer

{layers(rows)}"""
