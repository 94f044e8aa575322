"""The constants of `edgeq/checks/speed.py` from published latencies: `latency.py FILE.json [--write]`.

FILE holds rows {suite, submitter, system, model, ms}. Prints one JSON document: the constants, and for each the median
relative error on held-out rows (one board left out for microcontrollers, one model left out elsewhere); the estimates
of EdgeQ's own code for the MLPerf Tiny models, if they lie beside FILE, with their ratio to rows of comparable stacks.
With --write, benchmarks/latency.md is renewed too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

CHIPS = {
    "L4R5": ("cortex-m4", 120e6),
    "4343W": ("cortex-m4", 150e6),
    "M467": ("cortex-m4", 200e6),
    "U575": ("cortex-m33", 160e6),
    "U585": ("cortex-m33", 160e6),
    "NRF5340": ("cortex-m33", 128e6),
    "H7A3": ("cortex-m7", 280e6),
    "F746": ("cortex-m7", 216e6),
}
"""Part of a system's name -> its core and the clock that MLPerf Tiny's system descriptions give."""

STACKS = ("plumerai", "bosch", "STMicroelectronics", "OctoML", "X-CUBE-AI-7.3", "X-CUBE-AI-8.0")
MODELS = {"kws_ref_model": "kws", "vww_96_int8": "vww", "pretrainedResnet_quant": "ic", "ad01_int8": "ad"}

PEER_INSTRUCTIONS = {"kws": 7.697e6, "vww": 24.10e6, "ic": 29.86e6, "ad": 0.582e6}
"""CMSIS-NN on a Cortex-M4, executed instructions as counted in QEMU (TFLM's runtime, the same kernels)."""

WORK = {
    "MobileNet v1 (224)": (568.7e6, 4.25e6),
    "MobileNet v2 (224)": (300.8e6, 3.54e6),
    "DenseNet (224)": (2834e6, 8.06e6),
    "VGG16 (224)": (15470e6, 138.4e6),
    "VGG19 (224)": (19632e6, 143.7e6),
    "ResNet-50 V1 (299)": (7212e6, 25.64e6),
    "ResNet-50 V2 (299)": (6536e6, 25.61e6),
    "ResNet-152 V2 (299)": (20211e6, 60.38e6),
    "Inception-ResNet V2 (299)": (13156e6, 55.87e6),
    "Inception v1 (224)": (1500e6, 6.6e6),
    "Inception v4 (299)": (12270e6, 42.7e6),
    "SqueezeNet (224)": (837e6, 1.25e6),
    "inception_v1_224_quant_edgetpu": (1500e6, 6.6e6),
    "inception_v4_299_quant_edgetpu": (12270e6, 42.7e6),
    "mobilenet_v1_1.0_224_quant_edgetpu": (568.7e6, 4.25e6),
    "mobilenet_v2_1.0_224_quant_edgetpu": (300.8e6, 3.54e6),
    "MobileNet v1 1.0 FP32": (568.7e6, 4.25e6),
    "MobileNet v2 1.0 FP32": (300.8e6, 3.54e6),
    "MobileNet v3 Large FP32": (216.6e6, 5.51e6),
    "MobileNet v3 Small FP32": (56.5e6, 2.55e6),
}
"""Published model -> (MACs, parameters): counted in keras.applications where it has them, else from the papers."""

ON_CHIP = 7.88 * 2**20


def microcontroller_rows(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str, str, str, float]]:
    """(board, core, stack with version, model, cycles) of int8 rows of ahead-of-time or CMSIS-NN stacks."""
    result = []
    for row in rows:
        system, submitter = row["system"], row.get("submitter", "")
        if not row["suite"].startswith("MLPerf") or not row["ms"] or row.get("mode") != "performance":
            continue
        chip = next((part for part in CHIPS if part in system.upper()), None)
        model = next((short for name, short in MODELS.items() if row["model"].startswith(name)), None)
        text = f"{submitter} {system.upper()}"
        stack = next((name for name in STACKS if name.upper() in text.upper()), None)
        if None in (chip, model, stack) or any(word in system for word in ("float", "max_perf", "min_ram", "native")):
            continue
        core, clock = CHIPS[str(chip)]
        result.append((str(chip), core, f"{stack} {row['suite']}", str(model), row["ms"] * 1e-3 * clock))
    return result


def fit_cores(rows: Sequence[tuple[str, str, str, str, float]]) -> tuple[dict[str, float], dict[Any, float]]:
    """log cycles = stack and model + core, by least squares; the core's factor is relative to the Cortex-M4."""
    keys = sorted({(row[2], row[3]) for row in rows})
    cores = sorted({row[1] for row in rows} - {"cortex-m4"})
    matrix = np.zeros((len(rows), len(keys) + len(cores)))
    for i, (_, core, stack, model, _) in enumerate(rows):
        matrix[i, keys.index((stack, model))] = 1
        if core in cores:
            matrix[i, len(keys) + cores.index(core)] = 1
    solution = np.linalg.lstsq(matrix, np.log([row[4] for row in rows]), rcond=None)[0]
    factors = {core: float(np.exp(solution[len(keys) + i])) for i, core in enumerate(cores)} | {"cortex-m4": 1.0}
    return factors, {key: float(np.exp(solution[i])) for i, key in enumerate(keys)}


def core_errors(rows: Sequence[tuple[str, str, str, str, float]]) -> dict[str, list[float]]:
    """Relative errors per core, each board predicted from the others."""
    errors: dict[str, list[float]] = {}
    for board in sorted({row[0] for row in rows}):
        inside = [row for row in rows if row[0] == board]
        outside = [row for row in rows if row[0] != board]
        factors, stacks = fit_cores(outside)
        for _, core, stack, model, cycles in inside:
            if core in {row[1] for row in outside} and (stack, model) in stacks:
                errors.setdefault(core, []).append(abs(stacks[stack, model] * factors[core] / cycles - 1))
    return errors


Point = tuple[float, float, float]
"""MACs, parameters, milliseconds."""


def fit_edge_tpu(points: Sequence[Point]) -> tuple[float, float, float]:
    """ms = constant + MACs * a + streamed bytes * b, least relative squares, none negative."""
    columns = np.array([[1.0, macs, max(0.0, size - ON_CHIP)] for macs, size, _ in points])
    actual = np.array([ms for _, _, ms in points])
    active = [0, 1, 2]
    while True:
        solution = np.zeros(3)
        solution[active] = np.linalg.lstsq((columns / actual[:, None])[:, active], np.ones(len(actual)), rcond=None)[0]
        negative = [i for i in active if solution[i] < 0]
        if not negative:
            return float(solution[0]), float(solution[1]), float(solution[2])
        active.remove(min(negative, key=lambda i: solution[i]))


def edge_tpu_ms(fit: tuple[float, float, float], macs: float, size: float) -> float:
    return fit[0] + fit[1] * macs + fit[2] * max(0.0, size - ON_CHIP)


def fit_rate(points: Sequence[Point]) -> float:
    """MACs a millisecond: geometric mean."""
    return float(np.exp(np.mean([np.log(macs / ms) for macs, _, ms in points])))


def left_out(points: Sequence[Point], predict: Callable[[Sequence[Point], Point], float]) -> float:
    """Median relative error, each model predicted from the others."""
    return median(
        abs(predict([other for other in points if other is not point], point) / point[2] - 1) for point in points
    )


def points_of(rows: Sequence[dict[str, Any]], system: str) -> list[Point]:
    return [(*WORK[row["model"]], row["ms"]) for row in rows if row["system"] == system and row["model"] in WORK]


def edgeq_estimates(models: Path, rows: Sequence[tuple[str, str, str, str, float]]) -> dict[str, Any]:
    """EdgeQ's estimates in milliseconds for boards with published rows, and their ratio to each stack's best row."""
    from edgeq import api

    files = {"kws": "kws_ref_int8", "vww": "vww_96_int8", "ic": "ic_resnet8_int8", "ad": "ad01_int8"}
    boards = {"nucleo-l4r5zi": "L4R5", "b-u585i-iot02a": "U585", "nucleo-h743zi": "H7A3", "stm32f4-discovery": "4343W"}
    result: dict[str, Any] = {}
    for short, stem in files.items():
        for report in api.check(models / f"{stem}.tflite", list(boards)):
            chip = boards[report.board]
            clock = {"nucleo-h743zi": 400e6, "stm32f4-discovery": 168e6}.get(report.board, CHIPS[chip][1])
            estimate = report.latency.value / 1e3  # type: ignore[union-attr]
            published = {row[2]: row[4] / clock * 1e3 for row in rows if row[0] == chip and row[3] == short}
            ratios = {stack: round(estimate / ms, 2) for stack, ms in published.items()}
            result.setdefault(report.board, {})[short] = {"ms": round(estimate, 2), "ratio_to_published": ratios}
    return result


def as_text(document: dict[str, Any]) -> str:
    """benchmarks/latency.md."""
    lines = [
        "# Estimated latency beside published rows",
        "",
        "Made by `make bench-latency`. No row is of EdgeQ's own code: the estimates multiply the plan's instructions",
        "by the cycles that a core takes for one, fitted on rows of comparable stacks. A ratio below 1 says that EdgeQ",
        "is estimated to be faster than that stack's published time. Beside nucleo-h743zi stand rows of an STM32H7A3,",
        "beside stm32f4-discovery those of a CY8CPROTO-4343W: equal cores, scaled to the board's clock.",
        "The errors below are those of the stacks that were held out, whose kernels are loops. EdgeQ's unrolled code",
        "asks more of a flash with wait states and of its cache, and nobody has yet timed it on these boards.",
        "",
        "## What the fit is worth: median relative error on held-out rows",
        "| basis | held out | rows | error |",
        "|---|---|---|---|",
    ]
    cores = document["error"].items()
    lines += [f"| {core} | one board | {document['held_out'][core]} | {error:.1%} |" for core, error in cores]
    for kind in ("edge_tpu", "litert"):
        lines += [
            f"| {name} | one model | {one['rows']} | {one['error']:.1%} |" for name, one in document[kind].items()
        ]
    lines += [
        "",
        "## EdgeQ, balanced, against published int8 rows",
        "| board | model | estimate, ms | ratio to |",
        "|---|---|---|---|",
    ]
    for board, models in document.get("edgeq", {}).items():
        for model, one in models.items():
            ratios = ", ".join(f"{stack}: {ratio:.2f}" for stack, ratio in sorted(one["ratio_to_published"].items()))
            lines.append(f"| {board} | {model} | {one['ms']:.2f} | {ratios or 'no published row'} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    write = arguments[1:] == ["--write"]
    if len(arguments) != 1 + write:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    path = Path(arguments[0])
    rows = json.loads(path.read_text())
    mcu = microcontroller_rows(rows)
    factors, stacks = fit_cores(mcu)
    anchor = float(
        np.exp(np.mean([np.log(stacks["OctoML MLPerf Tiny v1.0", m] / n) for m, n in PEER_INSTRUCTIONS.items()]))
    )
    errors = core_errors(mcu)
    document: dict[str, Any] = {
        "rows": len(mcu),
        "cycles_per_instruction": {core: round(anchor * factor, 3) for core, factor in factors.items()},
        "error": {core: round(median(values), 3) for core, values in errors.items()},
        "held_out": {core: len(values) for core, values in errors.items()},
        "error_all": round(median([e for values in errors.values() for e in values]), 3),
        "edge_tpu": {},
        "litert": {},
    }
    for system in ("Dev Board Edge TPU", "RPi 4B + USB Accelerator", "Desktop CPU + USB Accelerator (USB3)"):
        points = points_of(rows, system)
        document["edge_tpu"][system] = {
            "rows": len(points),
            "fit": fit_edge_tpu(points),
            "error": round(left_out(points, lambda p, q: edge_tpu_ms(fit_edge_tpu(p), q[0], q[1])), 3),
        }
    for system in ("Embedded CPU (Dev Board A53)", "RPi 3+", "RPi 4"):
        points = points_of(rows, system)
        document["litert"][system] = {
            "rows": len(points),
            "macs_per_ms": round(fit_rate(points)),
            "error": round(left_out(points, lambda p, q: q[0] / fit_rate(p)), 3),
        }
    models = path.parent.parent / "models"
    if models.is_dir():
        document["edgeq"] = edgeq_estimates(models, mcu)
    sys.stdout.write(json.dumps(document, indent=1) + "\n")
    if write:
        (Path(__file__).parent / "latency.md").write_text(as_text(document))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
