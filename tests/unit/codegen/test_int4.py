"""4-bit weights, packed in flash: byte-equal to the tflite-micro wheel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bundles import HOST
from hypothesis import assume, given
from hypothesis import strategies as st
from single import same_as_wheel
from test_operators import convolutions, dense, few

from edgeq import codegen
from edgeq.graph import Graph, TensorType, read_bytes, write_bytes


def narrowed(graph: Graph) -> Graph:
    """The same operator with its weights in -7..7, as INT4."""
    weights = graph.tensors[graph.operators[0].inputs[1]]
    data = (np.asarray(weights.data).astype(int) * 7 // 127).astype(np.int8)
    tensors = [replace(t, type=TensorType.INT4, data=data) if t is weights else t for t in graph.tensors]
    return read_bytes(write_bytes(replace(graph, tensors=tuple(tensors), subgraphs=())))


@pytest.mark.parametrize("kind", [convolutions(False), dense()], ids=["conv", "fc"])
@few
@given(data=st.data())
def test_weights(kind: Any, data: Any) -> None:
    graph = data.draw(kind)
    if graph.operators[0].name == "FULLY_CONNECTED":
        assume(not graph.tensors[1].quantization.per_channel)  # the wheel has no kernel for it
    graph = narrowed(graph)
    step = codegen.plan(graph, HOST).steps[0]
    packed = next(c for c in step.constants if c.name == "weights")
    assert packed.size_bytes == -(-graph.tensors[1].elements // 2)
    same_as_wheel(graph)
