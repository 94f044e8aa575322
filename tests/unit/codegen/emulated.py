"""A graph's bundle on an emulated core: built by arm-none-eabi-gcc, run by QEMU, its outputs read back."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeq.boards import load_board
from edgeq.codegen import emit, plan, write_bundle
from edgeq.graph import Graph

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
import counter

BOARDS = tuple(counter.MACHINES)
HAS_TOOLS = all(shutil.which(tool) for tool in ("qemu-system-arm", "arm-none-eabi-gcc", "gcc"))


def run(
    graph: Graph, vectors: Sequence[Sequence[np.ndarray]], board: str, place: Path, optimize: str = "speed"
) -> list[list[np.ndarray]]:
    """The outputs for every vector, by the kernels chosen for the board; stack under 1 KiB."""
    write_bundle(emit(plan(graph, load_board(board), name="model", optimize=optimize)), place / "bundle")
    given = [[np.ascontiguousarray(a).tobytes() for a in vector] for vector in vectors]
    counts = counter.count(place / "bundle", counter.MACHINES[board], given)
    assert counts.stack_bytes < 1024
    results = []
    for output in counts.outputs:
        at, arrays = 0, []
        for tensor in (graph.tensors[i] for i in graph.outputs):
            part = output[at : at + tensor.size_bytes]
            arrays.append(np.frombuffer(part, tensor.type.dtype).reshape(tensor.shape))
            at += tensor.size_bytes
        assert at == len(output)
        results.append(arrays)
    return results
