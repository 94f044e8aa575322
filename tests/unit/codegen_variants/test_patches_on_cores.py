"""Patch by patch with the kernels of each core, in QEMU: bytes equal the tflite-micro wheel's.

An image of 27 columns puts the rows of a patch at odd addresses, where kernels that load words must not be chosen.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from test_memory_patches import Chain

from edgeq.boards import load_board
from edgeq.codegen import emit, plan_within, write_bundle
from edgeq.graph import Graph, read, read_bytes, write_bytes

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
import counter
import mcu

TOOLS = all(shutil.which(tool) for tool in ("qemu-system-arm", "arm-none-eabi-gcc", "gcc"))
pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(not TOOLS, reason="needs qemu-system-arm, arm-none-eabi-gcc and gcc"),
]


def run(graph: Graph, path: Path, board: str, ram: int, place: Path) -> counter.Counts:
    made = plan_within(graph, load_board(board), ram, name="model")
    assert made.patches is not None
    write_bundle(emit(made), place / "bundle")
    given = mcu.vectors(graph)
    counts = counter.count(place / "bundle", counter.MACHINES[board], given, compiler="gcc")
    assert list(counts.outputs) == mcu.expected(path, given, graph)
    assert counts.stack_bytes < 1024
    return counts


@pytest.mark.parametrize("board", ["qemu-mps2-an386", "qemu-mps3-an547", "qemu-mps2-an385", "raspberry-pi-pico"])
def test_rows_at_odd_addresses(board: str, tmp_path: Path) -> None:
    chain = Chain(23, 27, 1)
    chain.window("CONV_2D", (3, 3), 1, True, 8, 1)
    chain.window("DEPTHWISE_CONV_2D", (3, 3), 1, True, 8, 1)
    chain.window("CONV_2D", (1, 1), 1, False, 12, 1)
    chain.residual(chain.operators[-1].outputs[0])
    chain.window("CONV_2D", (3, 3), 2, True, 4, 1)
    path = tmp_path / "model.tflite"
    path.write_bytes(write_bytes(chain.graph()))
    run(read_bytes(path.read_bytes()), path, board, 7_000, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "ram"), [("vww_96_int8", 34_000), ("ic_resnet8_int8", 26_000)])
@pytest.mark.parametrize("board", counter.MACHINES)
def test_published_models(shared: Path, model: str, ram: int, board: str, tmp_path: Path) -> None:
    path = shared / "models" / f"{model}.tflite"
    run(read(path), path, board, ram, tmp_path)
