"""Rules, remedies, budgets, and the documents for continuous integration."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from edgeq import api
from edgeq.boards import list_boards, load_board
from edgeq.checks import Finding, Plans, apply_budget, check, fix, parse_budget
from edgeq.checks.linux import FLOAT
from edgeq.checks.rules import RULES
from edgeq.cli.main import app
from edgeq.codegen.plan import plan
from edgeq.errors import UsageError
from edgeq.graph import read, read_bytes, verify, write_bytes
from edgeq.graph.ir import Graph, Operator, Quantization, Tensor, TensorType
from edgeq.graph.schema import OPERATORS
from edgeq.interpreter import Interpreter
from edgeq.measure import Estimated, Unknown
from edgeq.quantization.layer_map import LayerMap, MappedOperator
from edgeq.report import check_ci
from edgeq.report.boards_text import render_list
from edgeq.report.check_text import render_check

MODELS = ("kws_ref_int8", "vww_96_int8", "ic_resnet8_int8", "ad01_int8")
Q = Quantization((0.5,), (3,))


def float_io() -> Graph:
    """float -> QUANTIZE -> QUANTIZE (the same) -> RELU -> DEQUANTIZE -> float, batch left open."""
    quantized = [Tensor(i, f"q{i}", TensorType.INT8, (1, 4), (-1, 4), Q) for i in (1, 2, 3)]
    x = Tensor(0, "x", TensorType.FLOAT32, (1, 4), (-1, 4))
    y = Tensor(4, "y", TensorType.FLOAT32, (1, 4), (-1, 4))
    names = ("QUANTIZE", "QUANTIZE", "RELU", "DEQUANTIZE")
    operators = tuple(Operator(i, name, 1, (i,), (i + 1,)) for i, name in enumerate(names))
    return Graph("main", (x, *quantized, y), operators, (0,), (4,))


def rules_of(graph: Graph, board: str = "virtual-m4") -> set[str]:
    return {finding.rule for finding in check(graph, load_board(board)).findings}


@pytest.mark.parametrize("model", MODELS)
def test_the_published_models_fit_a_nano_33(shared, model):
    report = api.check(shared / "models" / f"{model}.tflite", ["arduino-nano-33-ble-sense"])[0]
    assert report.fits
    assert report.placements
    assert {placement.executor for placement in report.placements} == {"generated-c"}


def test_an_operator_without_kernel_is_named():
    tensors = tuple(Tensor(i, f"t{i}", TensorType.INT8, (1, 4), (1, 4), Q) for i in range(3))
    operators = (Operator(0, "RELU", 1, (0,), (1,)), Operator(1, "CUSTOM", 1, (1,), (2,), custom_code="Mystery"))
    report = check(Graph("main", tensors, operators, (0,), (2,)), load_board("virtual-m4"))
    assert not report.fits
    (finding,) = report.of_severity("error")
    assert (finding.rule, finding.operator, finding.name) == ("operator-not-supported", 1, "Mystery")
    assert [placement.executor for placement in report.placements] == ["generated-c", "none"]


def test_a_custom_operator_is_an_error_on_linux_too():
    tensors = tuple(Tensor(i, f"t{i}", TensorType.FLOAT32, (1, 4), (1, 4)) for i in range(2))
    graph = Graph("main", tensors, (Operator(0, "CUSTOM", 1, (0,), (1,), custom_code="FlexErf"),), (0,), (1,))
    assert "custom-operator" in rules_of(graph, "pi-4b")


def test_float_borders_and_useless_requantization_are_found():
    found = rules_of(float_io())
    assert {"float-input", "float-output", "redundant-requantize", "dynamic-batch"} <= found


def test_fix_removes_what_it_says_and_keeps_the_outputs():
    graph = float_io()
    fixed, done = fix(graph)
    verify(fixed)
    assert {one.rule for one in done} == {"float-input", "float-output", "redundant-requantize", "dynamic-batch"}
    assert not {one.rule for one in done} & rules_of(fixed)
    before, after = Interpreter(write_bytes(graph)), Interpreter(write_bytes(fixed))
    rng = np.random.default_rng(1)
    for _ in range(8):
        x = rng.uniform(-70, 70, (1, 4)).astype(np.float32)
        q = np.clip(np.round(x / np.float32(0.5)) + 3, -128, 127).astype(np.int8)
        expected = before.run([x])[0]
        assert np.array_equal((after.run([q])[0].astype(np.float32) - 3) * np.float32(0.5), expected)


@pytest.mark.parametrize("model", MODELS)
def test_fix_keeps_the_outputs_of_real_models(shared, model, tmp_path):
    source = shared / "models" / f"{model}.tflite"
    out = tmp_path / "fixed.tflite"
    api.fix(source, out)
    before, after = Interpreter(source.read_bytes()), Interpreter(out.read_bytes())
    rng = np.random.default_rng(2)
    tensor = read(source).tensors[read(source).inputs[0]]
    x = rng.integers(-128, 128, tensor.shape).astype(np.int8)
    assert all(np.array_equal(a, b) for a, b in zip(before.run([x]), after.run([x]), strict=True))


def test_fix_of_nothing_is_the_same_model():
    graph = read_bytes(write_bytes(fix(float_io())[0]))
    again, done = fix(graph)
    assert again is graph
    assert done == ()


def test_budgets(shared):
    report = api.check(shared / "models" / "ad01_int8.tflite", ["nucleo-l4r5zi"])[0]
    flash = report.use("flash").needed.value
    assert apply_budget(report, {"flash": flash}).fits
    assert not apply_budget(report, {"flash": flash - 1}).fits
    assert isinstance(report.latency, Estimated)
    assert not apply_budget(report, {"latency": report.latency.value / 2}).fits
    virtual = api.check(shared / "models" / "ad01_int8.tflite", ["virtual-m4"])[0]
    assert isinstance(virtual.latency, Unknown)
    assert not apply_budget(virtual, {"latency": 1e9}).fits, "an unknown latency passes no gate"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flash=256k", {"flash": 262144}),
        ("ram=64KiB, latency=20ms", {"ram": 65536, "latency": 20000}),
        ("flash=1.5m,latency=1s", {"flash": 1572864, "latency": 1e6}),
    ],
)
def test_a_budget_is_read(text, expected):
    assert parse_budget(text) == expected


@pytest.mark.parametrize(
    "text", ["", "flash", "flash=", "flash=-1", "rom=3k", "flash=3s", "latency=3k", "ram=1k,ram=2k"]
)
def test_a_wrong_budget_is_refused(text):
    with pytest.raises(UsageError) as caught:
        parse_budget(text)
    assert caught.value.code == "bad-budget"


def test_sarif_and_junit_carry_every_finding():
    report = check(float_io(), load_board("virtual-m4"))
    report = apply_budget(report, {"ram": 1})
    sarif = json.loads(check_ci.sarif([report], "m.tflite"))
    run = sarif["runs"][0]
    assert sarif["version"] == "2.1.0"
    assert len(run["results"]) == len(report.findings)
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    suite = ElementTree.fromstring(check_ci.junit([report], "m.tflite"))[0]
    assert int(suite.get("failures")) == len(suite.findall("testcase/failure")) == 2
    assert int(suite.get("tests")) == len(suite.findall("testcase"))


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("a model#1.tflite", "a%20model%231.tflite"),
        ("/tmp/é.tflite", "file:///tmp/%C3%A9.tflite"),
        ("m.tflite", "m.tflite"),
    ],
)
def test_a_models_path_is_a_uri_in_sarif(path, uri):
    result = json.loads(check_ci.sarif([check(float_io(), load_board("virtual-m4"))], path))["runs"][0]["results"][0]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == uri


def test_a_name_that_xml_cannot_hold_does_not_break_junit():
    report = check(float_io(), load_board("virtual-m4"))
    bad = Finding("x", "error", "A sentence.", "a\x00\x1b[31m\ud800 value", operator=0, name="A\x07")
    root = ElementTree.fromstring(check_ci.junit([replace(report, findings=(bad,))], "m.tflite"))
    assert "value" in root.findtext("testsuite/testcase[@name='x']/failure")


def test_every_rule_has_a_sentence():
    for rule in RULES.values():
        assert rule.sentence.endswith(".")
        assert rule.executors


def test_the_command_answers_by_exit_status(shared, tmp_path):
    model = str(shared / "models" / "kws_ref_int8.tflite")
    run = CliRunner().invoke
    fits = run(app, ["check", model, "--board", "virtual-m4", "--json"])
    assert fits.exit_code == 0
    body = json.loads(fits.stdout)
    assert body["schema"] == "edgeq.check/1"
    assert body["fits"] is True
    assert run(app, ["check", model, "--board", "virtual-m4", "--budget", "ram=1k"]).exit_code == 1
    assert run(app, ["check", model, "--board", "no-such"]).exit_code == 2
    assert run(app, ["check", model]).exit_code == 2
    assert run(app, ["check", str(tmp_path / "none.tflite"), "--board", "host"]).exit_code == 2
    out = tmp_path / "fixed.tflite"
    assert (
        run(app, ["check", model, "--board", "host", "--fix", "-o", str(out), "--sarif", str(tmp_path / "s")]).exit_code
        == 0
    )
    assert out.stat().st_size > 0
    assert json.loads((tmp_path / "s").read_text())["runs"]


def test_every_board_gets_a_report(shared):
    boards = list_boards()
    reports = api.check(shared / "models" / "ad01_int8.tflite", boards)
    assert [report.board for report in reports] == [board.id for board in boards]


def test_boards_with_the_same_kernels_have_the_same_plan(shared):
    graph = read(shared / "models" / "kws_ref_int8.tflite")
    boards = [board for board in list_boards() if board.executor("generated-c")]
    plans = {board.id: plan(graph, board) for board in boards}
    keys = {board.id: Plans(graph).key(board) for board in boards}
    shapes = {name: (one.arena_bytes, tuple(step.kernel for step in one.steps)) for name, one in plans.items()}
    for one in boards:
        for other in boards:
            if keys[one.id] == keys[other.id]:
                assert shapes[one.id] == shapes[other.id], (one.id, other.id)
    assert len(set(keys.values())) < len(boards) / 3


def test_check_imports_no_tensorflow(shared):
    code = (
        "import sys; from edgeq import api; "
        f"api.check({str(shared / 'models' / 'kws_ref_int8.tflite')!r}, ['virtual-m4', 'coral-dev-board', 'pi-4b']); "
        "assert not {'tensorflow', 'keras', 'ai_edge_litert'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("stale", [False, True])
def test_operators_are_named_by_the_layers_of_the_map_beside_the_model(shared, tmp_path, stale):
    """The map of other bytes is not used."""
    model = tmp_path / "kws.tflite"
    shutil.copy(shared / "models" / "kws_ref_int8.tflite", model)
    stem = MappedOperator(index=0, name="CONV_2D", layers=("stem",), scheme="int8")
    digest = "0" * 64 if stale else read(model).digest
    told = LayerMap(model_sha256=digest, scheme="int8", granularity="channel", layers=(), operators=(stem,), tensors=())
    (tmp_path / "kws.quant.json").write_bytes(told.to_bytes())
    (report,) = api.check(model, ["nucleo-l4r5zi"])
    assert [placement.layer for placement in report.placements[:2]] == [None if stale else "stem", None]
    shown = CliRunner().invoke(app, ["check", str(model), "--board", "nucleo-l4r5zi", "--all"]).output
    assert ("stem" in shown) != stale


def test_names_of_xnnpacks_operators_are_the_schemas():
    assert {name for name, _ in OPERATORS.values()} >= FLOAT


@pytest.mark.parametrize("width", [80, 160])
def test_the_matrix_has_one_line_a_board_and_every_reason(shared, width):
    boards = list_boards()
    graph = read(shared / "models" / "ic_resnet8_int8.tflite")
    small = [apply_budget(check(graph, board), parse_budget("ram=30k,flash=90k")) for board in boards]
    console = Console(width=width, file=StringIO(), record=True)
    render_check(console, small)
    lines = console.export_text().splitlines()
    assert all(len(line.rstrip()) <= width for line in lines)
    for board in boards:
        assert sum(line.startswith(f"{board.id} ") for line in lines) == 1
    text = " ".join(lines)
    for report in small:
        for finding in report.of_severity("error"):
            assert finding.rule in text


def test_fix_never_writes_over_the_model_that_it_reads(shared, tmp_path):
    model = tmp_path / "m.tflite"
    before = (shared / "models" / "kws_ref_int8.tflite").read_bytes()
    model.write_bytes(before)
    (tmp_path / "link.tflite").symlink_to(model)
    for out in (model, tmp_path / "link.tflite", tmp_path / ".." / tmp_path.name / "m.tflite"):
        done = CliRunner().invoke(app, ["check", str(model), "-b", "host", "--fix", "-o", str(out), "--json"])
        assert done.exit_code == 2
        assert json.loads(done.stdout)["error"]["code"] == "output-is-input"
        assert model.read_bytes() == before


def test_boards_named_twice_are_checked_once_and_all_does_not_hide_a_wrong_name(shared):
    model = str(shared / "models" / "kws_ref_int8.tflite")
    done = CliRunner().invoke(app, ["check", model, "-b", "host", "-b", "host", "--json"])
    assert [board["board"] for board in json.loads(done.stdout)["boards"]] == ["host"]
    done = CliRunner().invoke(app, ["check", model, "-b", "all", "-b", "nowhere", "--json"])
    assert json.loads(done.stdout)["error"]["code"] == "board-unknown"


def test_a_budget_without_an_answer_does_not_ask_for_a_smaller_model(shared):
    graph = read(shared / "models" / "kws_ref_int8.tflite")
    report = apply_budget(check(graph, load_board("host")), parse_budget("latency=1s,ram=1k"))
    remedies = {f.rule: f.remedy for f in report.of_severity("error")}
    assert "Shrink" in remedies["budget-ram"]
    assert "Shrink" not in remedies["budget-latency"]


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_list_of_boards_is_not_cut(width):
    boards = list_boards()
    console = Console(width=width, file=StringIO(), record=True)
    render_list(console, boards)
    text = console.export_text()
    assert "…" not in text
    assert len(text.splitlines()) == len(boards) + 1
    assert all(board.core.name in text for board in boards)
