"""Predicted placement against what the real compiler did, and the partitioning's own properties."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from edgeq.boards import load_board
from edgeq.checks import check
from edgeq.checks.coral import first_partition, predict
from edgeq.checks.coral_rules import RULES, Limits
from edgeq.graph.ir import Graph, Operator, Quantization, Tensor, TensorType

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "coral.py"


def run(file: Path) -> dict:
    done = subprocess.run([sys.executable, str(SCRIPT), str(file)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def result(shared):
    return run(shared / "coral" / "edgetpu_mapping.json")


def test_at_least_53_of_55_models_are_placed_exactly(result):
    assert result["models"] == 55
    assert result["models_exact"] >= 53
    assert result["operators"] - result["operators_right"] == sum(len(m["operators"]) for m in result["misses"])


def test_families_held_out_are_predicted(result):
    assert result["leave_one_family_out"]["share"] >= 0.985
    assert result["leave_one_operator_set_out"]["share"] >= 0.985


def test_statuses_agree_with_the_compilers_logs(result):
    assert result["statuses_right"] >= 0.99 * result["statuses"]


def test_the_limits_lie_within_the_evidence(result):
    for field in fields(Limits):
        if field.name in result["limits_fitted"]:
            _, (mapped, not_mapped) = result["limits_fitted"][field.name]
            assert mapped <= getattr(Limits(), field.name) < not_mapped, field.name


def test_a_wrong_placement_is_counted(shared, tmp_path):
    records = json.loads((shared / "coral" / "edgetpu_mapping.json").read_text())[:3]
    records[0]["cpu_ops"] = [5]
    (tmp_path / "x.json").write_text(json.dumps(records))
    document = run(tmp_path / "x.json")
    assert document["operators"] - document["operators_right"] == 1
    assert document["models_exact"] == 2


TENSOR = {"shape": [1, 8], "dtype": "INT8", "const": False, "scale": [0.1], "zp": [0]}
OPERATOR = {"i": 0, "op": "RELU", "ver": 1, "inputs": [TENSOR], "outputs": [TENSOR], "options": {}}
MODEL = {"model": "m", "ops": [OPERATOR], "cpu_ops": [], "log": None}


def answered(tmp_path, text: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "x.json").write_text(text)
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "x.json")], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("text", "where", "why"),
    [
        ("{", ":1", "not JSON"),
        ("[" * 100_000, "x.json", "nested"),
        ("{}", "x.json", "a list"),
        ("[]", "x.json", "at least one"),
        ("[1]", "[0]", "dictionary"),
        (json.dumps([MODEL, {"model": "n"}]), "[1].ops", "required"),
        (json.dumps([{**MODEL, "cpu_ops": [9]}]), "[0]", "9"),
        (json.dumps([{**MODEL, "ops": [OPERATOR, OPERATOR]}]), "[0]", "same number"),
        (json.dumps([{**MODEL, "ops": [{**OPERATOR, "inputs": [{**TENSOR, "dtype": "INT5"}]}]}]), ".dtype", "INT5"),
        (json.dumps([{**MODEL, "ops": [{**OPERATOR, "inputs": [{**TENSOR, "shape": [-1]}]}]}]), ".shape[0]", "-1"),
        (json.dumps([{**MODEL, "ops": [{**OPERATOR, "options": {"Padding": "x"}}]}]), ".options", "Padding"),
    ],
)
def test_an_unusable_file_is_refused_with_place_and_reason(tmp_path, text, where, why):
    done = answered(tmp_path, text)
    assert (done.returncode, done.stdout) == (2, "")
    lines = dict(line.strip().split(":", 1) for line in done.stderr.splitlines()[1:])
    assert where in lines["where"]
    assert why in lines["why"]
    assert "ops" in lines["try"]
    assert "Error" not in done.stderr


@pytest.mark.parametrize(
    "operator",
    [
        {**OPERATOR, "op": "NEVER_HEARD_OF"},
        {**OPERATOR, "op": "CUSTOM:Mine", "options": None},
        {**OPERATOR, "inputs": [], "outputs": []},
        {**OPERATOR, "inputs": [None], "op": "PRELU"},
        {**OPERATOR, "inputs": [{**TENSOR, "shape": []}], "op": "SOFTMAX"},
    ],
)
def test_a_strange_operator_is_placed_on_the_cpu_or_harmless(tmp_path, operator):
    done = answered(tmp_path, json.dumps([{**MODEL, "ops": [operator]}]))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["operators"] == 1


def test_a_part_of_the_file_in_another_order(shared, tmp_path):
    records = json.loads((shared / "coral" / "edgetpu_mapping.json").read_text())
    (tmp_path / "x.json").write_text(json.dumps(records[9::-1]))
    document = run(tmp_path / "x.json")
    assert document["models"] == document["models_exact"] == 10


def chain(*names: str, type_: TensorType = TensorType.INT8, shape: tuple[int, ...] = (1, 8, 8, 16)) -> Graph:
    """Operators one after the other on tensors of one type and shape."""
    quantization = Quantization((0.1,), (0,))
    tensors = [Tensor(i, f"t{i}", type_, shape, shape, quantization) for i in range(len(names) + 1)]
    operators = [Operator(i, name, 1, (i,), (i + 1,)) for i, name in enumerate(names)]
    return Graph("chain", tuple(tensors), tuple(operators), (0,), (len(names),))


def mapped(graph: Graph) -> list[bool]:
    return [p.mapped for p in predict(graph)]


def test_the_first_supported_partition_maps_behind_leading_cpu_operators():
    assert mapped(chain("EXP", "RELU", "TANH", "EXP", "RELU")) == [False, True, True, False, False]


def test_a_supported_operator_behind_an_unsupported_one_is_cut_off():
    assert predict(chain("RELU", "EXP", "RELU"))[2].status == "More than one subgraph is not supported"


def test_a_side_branch_with_later_indices_is_mapped_too():
    tensors = tuple(Tensor(i, f"t{i}", TensorType.INT8, (1, 4), (1, 4), Quantization((0.1,), (0,))) for i in range(5))
    operators = (
        Operator(0, "RELU", 1, (0,), (1,)),
        Operator(1, "EXP", 1, (1,), (2,)),
        Operator(2, "TANH", 1, (1,), (3,)),
        Operator(3, "ADD", 1, (2, 3), (4,)),
    )
    assert mapped(Graph("branch", tensors, operators, (0,), (4,))) == [True, False, True, False]


def test_float_models_and_batches_are_not_mapped():
    assert mapped(chain("RELU", "TANH", type_=TensorType.FLOAT32)) == [False, False]
    batch = predict(chain("RELU", shape=(2, 8, 8, 16)))[0]
    assert not batch.mapped
    assert "rank" in batch.status


def test_the_limits_are_sharp():
    limit = int(Limits().transpose_elements)
    for elements, expected in ((limit, True), (limit + 1, False)):
        graph = chain("TRANSPOSE", shape=(1, 1, 1, elements))
        assert mapped(graph) == [expected]


def test_partition_of_nothing():
    assert first_partition(chain("RELU"), set()) == set()


def test_every_rule_has_a_sentence_and_an_id_of_its_own():
    assert len({rule.id for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.sentence.endswith("."), rule.id


def test_a_float_model_has_nothing_for_the_edge_tpu():
    report = check(chain("RELU", type_=TensorType.FLOAT32), load_board("coral-dev-board"))
    assert not report.fits
    assert "edge-tpu-nothing-mapped" in {finding.rule for finding in report.findings}


def test_parameters_beyond_the_chip_are_streamed():
    graph = chain("RELU")
    weights = Tensor(
        2, "w", TensorType.INT8, (3000, 3000), (3000, 3000), Quantization((0.1,), (0,)), np.zeros((3000, 3000), np.int8)
    )
    tail = Tensor(3, "y", TensorType.INT8, (1, 3000), (1, 3000), Quantization((0.1,), (0,)))
    dense = Operator(1, "FULLY_CONNECTED", 1, (1, 2), (3,))
    graph = Graph("big", (*graph.tensors, weights, tail), (*graph.operators, dense), (0,), (3,))
    report = check(graph, load_board("coral-dev-board"))
    assert "edge-tpu-streamed" in {finding.rule for finding in report.findings}


@pytest.mark.parametrize("name", ["CONV_2D", "FULLY_CONNECTED", "STRIDED_SLICE", "MEAN", "RESIZE_BILINEAR", "PRELU"])
def test_an_operator_without_its_inputs_is_not_mapped_and_does_no_harm(name):
    report = check(chain(name, "RELU", shape=(1, 0, 0, 4)), load_board("coral-dev-board"))
    assert report.placements[0].executor == "cpu" or name in ("MEAN", "RESIZE_BILINEAR")
