"""Models of MLPerf Tiny and how the official runner sends their inputs."""

from __future__ import annotations

from edgeq.errors import InputError
from edgeq.toolchain.manifest import Manifest

MLPERF_INPUTS = {"kws01": "SIGNED", "ic01": "UNSIGNED", "vww01": "UNSIGNED", "ad01": "FLOAT"}
"""Model id to the kind of input in firmware/agent/mlperf.h."""


def require_mlperf_model(manifest: Manifest) -> None:
    """InputError `not-an-mlperf-model` unless the bundle bears a model id of MLPerf Tiny and has its interface."""
    tensors = (*manifest.inputs, *manifest.outputs)
    known = manifest.name in MLPERF_INPUTS
    if known and len(tensors) == 2 and all(tensor.type == "INT8" and tensor.scale for tensor in tensors):
        return
    raise InputError(
        "not-an-mlperf-model",
        f"The bundle {manifest.name} is not one that the MLPerf Tiny runner knows.",
        where="manifest.json",
        why="It needs one int8 input and one int8 output." if known else "Its name is not a model id of MLPerf Tiny.",
        try_=f"Name it by the model id: edgeq bundle MODEL --agent mlperf --name {'|'.join(MLPERF_INPUTS)}",
    )
