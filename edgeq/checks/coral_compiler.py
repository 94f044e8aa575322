"""What `edgetpu_compiler` said of a model, beside what was predicted. The compiler is right."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from edgeq.checks.coral import Predicted
from edgeq.checks.coral_rules import MAPPED
from edgeq.checks.findings import Finding
from edgeq.graph.ir import Graph
from edgeq.measure import Computed, Quantity

CUSTOM_CODE = "edgetpu-custom-op"
"""What the compiler puts in the place of the operators that it maps."""

_VERSION = re.compile(r"^Edge TPU Compiler version (\S+)", re.MULTILINE)
_HEADER = re.compile(r"^Operator\s+Count\s+Status\s*$", re.MULTILINE)
_ROW = re.compile(r"^(\S+)[ \t]+(\d+)[ \t]+(\S.*?)[ \t]*$", re.MULTILINE)
_BYTES = r".*: ([\d.]+)(B|KiB|MiB|GiB)\s*$"
_CACHED = re.compile("^On-chip memory used for caching" + _BYTES, re.MULTILINE)
_STREAMED = re.compile("^Off-chip memory used for streaming" + _BYTES, re.MULTILINE)
_FAILED = re.compile(r"^(Compilation failed: .+|Internal compiler error.*|Invalid model: .+|ERROR: .+)$", re.MULTILINE)
_REMEDIES = {
    "Didn't find op for builtin": "Convert with TensorFlow 2.8, whose operators are older.",
    "dynamic-sized": "Fix the batch size, and every dimension, when you convert.",
    "large activation": "Take smaller inputs, or split the largest layers.",
    "": "Quantize the whole model to int8 (edgeq convert --io int8), or take smaller inputs; big layers fail so.",
}
"""Words of the compiler's failure -> what helps; google-coral/edgetpu#631, #829, #439, #309."""
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@dataclass(frozen=True, slots=True)
class CompilerResult:
    """The compiler's log: rows are (operator name, count, status); bytes are as it rounds them.

    on_cpu: indices of the operators that it left on the CPU; None where the compiled model does not tell them by name.
    failure: its last words where it gave up; the other fields then say nothing.
    """

    version: str = ""
    rows: tuple[tuple[str, int, str], ...] = ()
    cached_bytes: int | None = None
    streamed_bytes: int | None = None
    on_cpu: frozenset[int] | None = None
    failure: str | None = None


def parse_log(text: str) -> CompilerResult:
    """The result from what the compiler prints with `--show_operations`."""
    version = _VERSION.search(text)
    header = _HEADER.search(text)
    rows = _ROW.findall(text, header.end()) if header else []
    failed = _FAILED.findall(text)
    return CompilerResult(
        version=version[1] if version else "",
        rows=tuple((name, int(count), status) for name, count, status in rows),
        cached_bytes=_bytes(_CACHED.search(text)),
        streamed_bytes=_bytes(_STREAMED.search(text)),
        failure=None if rows else failed[0] if failed else "it printed no table of operators",
    )


def _bytes(match: re.Match[str] | None) -> int | None:
    return None if match is None else round(float(match[1]) * _UNITS[match[2]])


def left_on_cpu(graph: Graph, compiled: Graph, result: CompilerResult) -> frozenset[int] | None:
    """The operators of `graph` that are still there in the compiled model, by the names of their outputs.

    None where names are not unique, or where the log counts differently.
    """
    names = [graph.tensors[op.outputs[0]].name for op in graph.operators if op.outputs]
    if len(set(names)) != len(graph.operators):
        return None
    kept = {
        compiled.tensors[i].name for op in compiled.operators if op.custom_code != CUSTOM_CODE for i in op.outputs[:1]
    }
    found = [op for op in graph.operators if graph.tensors[op.outputs[0]].name in kept]
    logged = Counter[str]()
    for name, count, status in result.rows:
        if status != MAPPED:
            logged[name] += count
    return frozenset(op.index for op in found) if Counter(op.name for op in found) == logged else None


def compiled_as(predicted: tuple[Predicted, ...], result: CompilerResult) -> tuple[Predicted, ...]:
    """The prediction, corrected to what the compiler did where that is known operator by operator."""
    if result.failure is not None or result.on_cpu is None:
        return predicted
    corrected = []
    for p in predicted:
        mapped = p.operator.index not in result.on_cpu
        if mapped is p.mapped:
            corrected.append(p)
        elif mapped:
            corrected.append(Predicted(p.operator, True, MAPPED))
        else:
            statuses = {s for name, _, s in result.rows if name == p.operator.name and s != MAPPED}
            corrected.append(replace(p, mapped=False, status=" or ".join(sorted(statuses))))
    return tuple(corrected)


def details(predicted: tuple[Predicted, ...], result: CompilerResult) -> dict[str, Quantity]:
    """How many operators lie where they were predicted; parameters on the chip and streamed, as compiled."""
    if result.failure is not None:
        return {}
    basis = f"edgetpu_compiler {result.version}"
    right = len(predicted) - sum(count for _, count in _differences(predicted, result))
    found: dict[str, Quantity] = {"operators placed as predicted": Computed(right, f"of {len(predicted)}", basis)}
    if result.cached_bytes is not None:
        found["parameters cached on the Edge TPU"] = Computed(result.cached_bytes, "bytes", basis)
    if result.streamed_bytes is not None:
        found["parameters streamed"] = Computed(result.streamed_bytes, "bytes", basis)
    return found


def findings(predicted: tuple[Predicted, ...], result: CompilerResult | None) -> Iterator[Finding]:
    """Where compiler and prediction differ; the compiler's failure, or its absence."""
    if result is None:
        yield Finding(
            rule="edge-tpu-predicted",
            severity="note",
            sentence="The placement is predicted; where edgetpu_compiler is on the PATH, it is compared with that.",
            found="edgetpu_compiler is not installed",
            remedy="Install it (Debian or Ubuntu on x86-64): https://coral.ai/docs/edgetpu/compiler",
        )
    elif result.failure is not None:
        yield Finding(
            rule="edge-tpu-compiler",
            severity="error",
            sentence="The Edge TPU compiler must be able to compile the model.",
            found=result.failure,
            remedy=next(remedy for words, remedy in _REMEDIES.items() if words in result.failure),
        )
    else:
        for text, _ in _differences(predicted, result):
            yield Finding(
                rule="edge-tpu-differs",
                severity="warning",
                sentence="The compiler placed an operator otherwise than predicted; its own placement is shown.",
                found=text,
            )


def _differences(predicted: tuple[Predicted, ...], result: CompilerResult) -> Iterator[tuple[str, int]]:
    """What differs, and the operators it concerns: one by one if the compiled model tells them, else by the log."""
    side = {True: "Edge TPU", False: "CPU"}
    if result.on_cpu is not None:
        for p in predicted:
            mapped = p.operator.index not in result.on_cpu
            if mapped is not p.mapped:
                text = f"operator {p.operator.index} {p.operator.name}: predicted {side[p.mapped]}"
                yield f"{text} ({p.status}), compiled for the {side[mapped]}", 1
        return
    compiled = Counter[str]()
    for name, count, status in result.rows:
        compiled[name] += count * (status == MAPPED)
    guessed = Counter(p.operator.name for p in predicted if p.mapped)
    for name in sorted({p.operator.name for p in predicted}):
        if guessed[name] != compiled[name]:
            yield (
                f"{name}: {guessed[name]} predicted on the Edge TPU, {compiled[name]} compiled for it",
                abs(guessed[name] - compiled[name]),
            )
