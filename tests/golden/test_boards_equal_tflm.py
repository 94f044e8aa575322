"""The published models on the virtual boards: the same bytes as TensorFlow Lite Micro computes, logits included."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundles import Wheel

from edgeq import codegen
from edgeq.boards import load_board
from edgeq.device import connect, flash
from edgeq.graph import Graph, read, write_bytes

MODELS = ["kws_ref_int8", "vww_96_int8", "ic_resnet8_int8", "ad01_int8"]
BOARDS = ["host", "virtual-m4", "qemu-mps2-an386", "qemu-mps3-an547"]
PAIRS = [(model, board) for model in MODELS for board in BOARDS]
PAIRS += [("kws_ref_int8", f"qemu-mps2-{name}") for name in ("an385", "an500", "an505")]
INPUTS = 32


def with_logits(graph: Graph) -> Graph:
    """The softmax's input becomes an output too: a saturating softmax hides differences."""
    last = graph.operators[-1]
    return replace(graph, outputs=(last.inputs[0], *graph.outputs)) if last.name == "SOFTMAX" else graph


@pytest.mark.qemu
@pytest.mark.parametrize(("model", "board_id"), PAIRS)
def test_same_bytes_as_tflm(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, board_id: str
) -> None:
    if board_id.startswith("qemu") and shutil.which("qemu-system-arm") is None:
        pytest.skip("needs qemu-system-arm: make system (as root), or install it")
    monkeypatch.setenv("EDGEQ_STATE", str(tmp_path / "state"))
    graph = with_logits(read(shared / "models" / f"{model}.tflite"))
    board = load_board(board_id)
    codegen.write_bundle(codegen.emit(codegen.plan(graph, board, name=model)), tmp_path / "bundle")
    tensor = graph.tensor(graph.inputs[0])
    inputs = [np.random.default_rng(seed).integers(-128, 128, tensor.shape).astype(np.int8) for seed in range(INPUTS)]
    wheel = Wheel(write_bytes(graph))
    expected = [[y.tobytes() for y in wheel.run([x], len(graph.outputs))] for x in inputs]
    flash(tmp_path / "bundle", board)
    with connect(board) as session:
        got = [session.infer([x.tobytes()]) for x in inputs]
        memory = session.memory()
    assert got == expected
    assert len({tuple(e) for e in expected}) > INPUTS // 4, "the inputs hardly move the outputs: a weak test"
    if board.core.architecture != "host":
        assert memory.stack_used_by_run_bytes is not None
        assert memory.stack_used_by_run_bytes < 1024
