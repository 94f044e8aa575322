"""edgetpu_compiler on the PATH: its log is parsed and compared, operator by operator. A stand-in prints real rows."""

from __future__ import annotations

import importlib.util
import json
import stat
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgeq import api
from edgeq.checks.coral import predict
from edgeq.checks.coral_compiler import CUSTOM_CODE, findings, left_on_cpu, parse_log
from edgeq.checks.coral_rules import LIMITATION
from edgeq.graph import read, write_bytes
from edgeq.graph.ir import Graph, Operator
from edgeq.measure import Computed

BOARD = "coral-usb-pi"
SCRIPT = Path(__file__).parents[3] / "benchmarks" / "coral.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coral_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def records(shared: Path) -> list[dict[str, Any]]:
    return [r for r in json.loads((shared / "coral" / "edgetpu_mapping.json").read_text()) if r.get("log")]


def whole(graph: Graph) -> Graph:
    """A record's graph with its inputs and outputs: what nobody writes, what nobody reads."""
    written = {t for op in graph.operators for t in op.outputs}
    used = {t for op in graph.operators for t in op.inputs if t >= 0}
    inputs = tuple(sorted(t for t in used - written if not graph.tensors[t].is_constant))
    operators = tuple(
        replace(op, options={k: v for k, v in op.options.items() if k != "quantized_bias_type"})
        for op in graph.operators
    )
    return replace(graph, operators=operators, inputs=inputs, outputs=tuple(sorted(written - used)))


def compiled(graph: Graph, cpu: frozenset[int]) -> Graph:
    """As the compiler writes it: one custom operator in the place of the mapped ones."""
    mapped = [op for op in graph.operators if op.index not in cpu]
    written = {t for op in mapped for t in op.outputs}
    rest = [op for op in graph.operators if op.index in cpu]
    inputs = {t for op in mapped for t in op.inputs if t >= 0 and not graph.tensors[t].is_constant} - written
    outputs = written & ({t for op in rest for t in op.inputs} | set(graph.outputs))
    custom = Operator(0, "CUSTOM", 1, tuple(sorted(inputs)), tuple(sorted(outputs)), custom_code=CUSTOM_CODE)
    operators = sorted([custom, *rest], key=lambda op: -1 if op is custom else op.index)
    if any(t in {o for op in rest for o in op.outputs} for t in inputs):
        operators = [*(op for op in rest if min(op.outputs) < min(outputs)), custom]
        operators += [op for op in rest if op not in operators]
    return replace(graph, operators=tuple(replace(op, index=i) for i, op in enumerate(operators)))


def log_text(record: dict[str, Any]) -> str:
    """The compiler's output around the rows of a record."""
    rows = "\n".join(f"{name:<30} {count:<10} {status}" for name, count, status in record["log"]["rows"])
    return f"""Edge TPU Compiler version {record["log"]["ver"]}
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 542 ms.

Input model: model.tflite
Input size: 4.04MiB
Output model: model_edgetpu.tflite
Output size: 4.13MiB
On-chip memory used for caching model parameters: 604.50KiB
On-chip memory remaining for caching model parameters: 511.50KiB
Off-chip memory used for streaming uncached model parameters: 3.45MiB
Number of Edge TPU subgraphs: 1
Total number of operations: {record["n_ops"]}
Operation log: model_edgetpu.log

Operator                       Count      Status

{rows}
Compilation child process completed within timeout period.
Compilation succeeded!
"""


def stand_in(directory: Path, text: str, model: bytes | None, status: int = 0) -> None:
    """An executable `edgetpu_compiler` that prints `text` and leaves `model` where the compiler does."""
    directory.mkdir()
    (directory / "log").write_text(text)
    if model is not None:
        (directory / "out").write_bytes(model)
    script = directory / "edgetpu_compiler"
    script.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, shutil, sys\n"
        "here = pathlib.Path(__file__).parent\n"
        "arguments = sys.argv[1:]\n"
        "assert '--show_operations' in arguments\n"
        "source = pathlib.Path(arguments[-1])\n"
        "assert source.read_bytes()[4:8] == b'TFL3'\n"
        "out = pathlib.Path(arguments[arguments.index('--out_dir') + 1]) / (source.stem + '_edgetpu.tflite')\n"
        "if (here / 'out').exists():\n"
        "    shutil.copyfile(here / 'out', out)\n"
        "print((here / 'log').read_text())\n"
        f"sys.exit({status})\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graph: Graph, *arguments: Any) -> Any:
    (tmp_path / "m.tflite").write_bytes(write_bytes(graph))
    stand_in(tmp_path / "bin", *arguments)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    return api.check(tmp_path / "m.tflite", [BOARD])[0]


@pytest.mark.parametrize(
    "model", ["deepid.tflite", "face_detection_yunet_2023mar_int8.tflite", "quantized_model.tflite"]
)
def test_the_compilers_placement_is_compared_operator_by_operator(records, benchmark, tmp_path, monkeypatch, model):
    record = next(r for r in records if r["model"] == model)
    graph, cpu = whole(benchmark.graph_of(record)), frozenset(record["cpu_ops"])
    report = run(tmp_path, monkeypatch, graph, log_text(record), write_bytes(compiled(graph, cpu)))
    assert report.details["operators placed as predicted"] == Computed(
        record["n_ops"], f"of {record['n_ops']}", f"edgetpu_compiler {record['log']['ver']}"
    )
    assert report.details["parameters cached on the Edge TPU"].value == 619008
    assert {p.operator for p in report.placements if p.executor == "cpu"} == cpu
    assert not {f.rule for f in report.findings} & {"edge-tpu-differs", "edge-tpu-predicted", "edge-tpu-compiler"}


def test_a_difference_is_told_and_the_compiler_is_right(records, benchmark, tmp_path, monkeypatch):
    record = next(r for r in records if r["model"] == "quantized_model.tflite")
    graph = whole(benchmark.graph_of(record))
    last = graph.operators[-1]
    rows = [[n, c, s] for n, c, s in record["log"]["rows"] if n != last.name]
    status = "Operation is otherwise supported, but not mapped due to some unspecified limitation"
    planted = {**record, "log": {**record["log"], "rows": [*rows, [last.name, 1, status]]}}
    assert sum(op.name == last.name for op in graph.operators) == 1
    model = write_bytes(compiled(graph, frozenset({last.index})))
    report = run(tmp_path, monkeypatch, graph, log_text(planted), model)
    assert report.details["operators placed as predicted"].value == record["n_ops"] - 1
    (finding,) = [f for f in report.findings if f.rule == "edge-tpu-differs"]
    assert f"operator {last.index} {last.name}: predicted Edge TPU" in finding.found
    (placement,) = [p for p in report.placements if p.executor == "cpu"]
    assert (placement.operator, placement.status) == (last.index, status)


def test_every_real_log_is_parsed_and_counted(records, benchmark):
    compared = 0
    for record in records:
        result = parse_log(log_text(record))
        assert [list(row) for row in result.rows] == record["log"]["rows"]
        assert (result.version, result.streamed_bytes) == (record["log"]["ver"], round(3.45 * 2**20))
        predicted = predict(benchmark.graph_of(record))
        rules = {f.rule for f in findings(predicted, result)}
        exact = frozenset(p.operator.index for p in predicted if not p.mapped) == frozenset(record["cpu_ops"])
        mapped = sum(count for _, count, status in result.rows if status == "Mapped to Edge TPU")
        complete = sum(count for _, count, _ in result.rows) == record["n_ops"] and mapped == record["mapped"]
        if exact and complete:
            assert not rules, record["model"]
            compared += 1
    assert compared >= 20


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("Edge TPU Compiler version 14.1.317412892\n\nInternal compiler error. Aborting! \n", 1, "Internal compiler"),
        ("ERROR: x\nCompilation failed: due to large activation tensors in model.\n", 1, "ERROR: x"),
        ("", 0, "no table"),
    ],
)
def test_the_compilers_failure_is_an_error(records, benchmark, tmp_path, monkeypatch, text, status, words):
    graph = whole(benchmark.graph_of(next(r for r in records if r["model"] == "quantized_model.tflite")))
    report = run(tmp_path, monkeypatch, graph, text, None, status)
    assert not report.fits
    (finding,) = [f for f in report.findings if f.rule == "edge-tpu-compiler"]
    assert words in finding.found


def test_without_the_compiler_one_note_says_how_to_get_it(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    report = api.check(shared / "models" / "kws_ref_int8.tflite", [BOARD])[0]
    (note,) = [f for f in report.findings if f.rule == "edge-tpu-predicted"]
    assert note.severity == "note"
    assert "coral.ai" in note.remedy


def test_names_that_are_not_unique_tell_no_operator(shared):
    graph = read(shared / "models" / "kws_ref_int8.tflite")
    same = replace(graph, tensors=tuple(replace(t, name="t") for t in graph.tensors))
    assert left_on_cpu(same, same, parse_log("")) is None


LINES_AROUND_THE_TABLE = f"""Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 3438 ms.

Input model: m.tflite
Input size: 7.31MiB
On-chip memory used for caching model parameters: 6.89MiB
On-chip memory remaining for caching model parameters: 1.00KiB
Off-chip memory used for streaming uncached model parameters: 175.00KiB
Number of Edge TPU subgraphs: 1
Total number of operations: 3
Number of operations that will run on Edge TPU: 2
Number of operations that will run on CPU: 1

Operator                       Count      Status

CONV_2D                        2          Mapped to Edge TPU
QUANTIZE                       1          {LIMITATION}
Compilation child process completed within timeout period.
Compilation succeeded!
"""
"""The lines that compiler 16.0 prints around its table: google-coral/edgetpu#512, #433."""


def test_what_the_compiler_prints_around_its_table_is_no_row_of_it():
    result = parse_log(LINES_AROUND_THE_TABLE)
    assert [(name, count) for name, count, _ in result.rows] == [("CONV_2D", 2), ("QUANTIZE", 1)]
    assert (result.cached_bytes, result.streamed_bytes) == (round(6.89 * 2**20), 175 * 2**10)
    assert result.failure is None


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("ERROR: Didn't find op for builtin opcode 'CONV_2D' version '6'. An older version\n", "TensorFlow 2.8"),
        ("ERROR: Attempting to use a delegate that only supports static-sized tensors with a graph that has "
         "dynamic-sized tensors.\nCompilation failed: Model failed in Tflite interpreter.\n", "batch"),
        ("Compilation failed: due to large activation tensors in model.\n", "smaller inputs"),
        ("Internal compiler error. Aborting! \n", "int8"),
    ],
)  # fmt: skip
def test_a_failure_has_the_remedy_that_fits_it(text, remedy):
    (finding,) = findings((), parse_log(f"Edge TPU Compiler version 16.0.384591198\n{text}"))
    assert finding.severity == "error"
    assert remedy in finding.remedy
