"""The four published MLPerf Tiny int8 models, bundled: every output byte equals the tflite-micro wheel's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bundles import Wheel, build, without_last

from edgeq.codegen.golden import inputs
from edgeq.graph import read, write_bytes

MODELS = {"kws": "kws_ref_int8", "vww": "vww_96_int8", "ic": "ic_resnet8_int8", "ad": "ad01_int8"}


@pytest.mark.parametrize("optimize", ["balanced", "ram"])
@pytest.mark.parametrize("model", MODELS)
def test_bytes_equal_the_wheel(model: str, optimize: str, shared: Path, tmp_path: Path) -> None:
    graph = read(shared / "models" / f"{MODELS[model]}.tflite")
    graphs = [graph]
    if graph.operators[-1].name == "SOFTMAX":
        graphs.append(without_last(graph))
    for number, variant in enumerate(graphs):
        wheel = Wheel(write_bytes(variant))
        place = tmp_path / str(number)
        place.mkdir()
        ours = build(variant, place, optimize=optimize, flags=("-O2",))
        for index in range(32):
            values = inputs(variant, index)
            np.testing.assert_array_equal(ours.run(values)[0], wheel.run(values)[0])
