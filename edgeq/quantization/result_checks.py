"""Is the result what was asked for? The converter may fall back to float without a word, or leave a senseless scale."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from edgeq.errors import ModelError
from edgeq.graph import Graph, Operator, TensorType
from edgeq.quantization.calibration import COPYING, LSTM, LSTM_HIDDEN
from edgeq.quantization.report import TensorIo
from edgeq.quantization.weights import WEIGHTED

_FLOAT = frozenset({TensorType.FLOAT32, TensorType.FLOAT16, TensorType.FLOAT64, TensorType.BFLOAT16})
_CODES = (TensorType.INT8, TensorType.INT16)
_SMALLEST_SCALE = 1e-8
_INTEGER_ONLY = ("int8", "int16x8", "int4")


def float_operators(graph: Graph) -> list[Operator]:
    """Operators that compute in float, apart from QUANTIZE and DEQUANTIZE at the model's own inputs and outputs."""
    ends = {*graph.inputs, *graph.outputs}
    found = []
    for op in graph.operators:
        floats = {t for t in (*op.inputs, *op.outputs) if t >= 0 and graph.tensor(t).type in _FLOAT}
        if floats and not (op.name in ("QUANTIZE", "DEQUANTIZE") and floats <= ends):
            found.append(op)
    return found


def verify_scheme(graph: Graph, scheme: str, *, allow_float: bool = False) -> tuple[str, ...]:
    """The operators left in float, by name and output; ModelError if the scheme forbids them or a scale is 0."""
    kept = float_operators(graph)
    named = tuple(f"{op.name} ({graph.tensor(op.outputs[0]).name.split(';')[0]})" for op in kept)
    if scheme in _INTEGER_ONLY and kept and not allow_float:
        islands = [op for op in kept if op.name not in ("QUANTIZE", "DEQUANTIZE")] or kept
        raise ModelError(
            "float-fallback",
            f"{len(islands)} of {len(graph.operators)} operators stay in float though {scheme} was asked for.",
            where=", ".join(f"{op.name} ({graph.tensor(op.outputs[0]).name.split(';')[0]})" for op in islands[:5]),
            why="The converter has no integer form of " + ", ".join(sorted({op.name for op in islands})) + ".",
            try_=("Replace these layers.", "Let them be float, where the device has a float unit: --allow-float."),
        )
    if scheme in _INTEGER_ONLY:
        _verify_copies(graph)
    for tensor in graph.tensors:
        q = tensor.quantization
        if tensor.type in (TensorType.INT8, TensorType.INT16) and scheme in _INTEGER_ONLY:
            used = any(tensor.index in (*op.inputs, *op.outputs) for op in graph.operators)
            if used and (q is None or not q.scale):
                raise _senseless(tensor.name, "has no scale")
        if q is not None and q.scale and not tensor.is_constant:
            scales = np.asarray(q.scale)
            if not np.all(np.isfinite(scales)) or np.any(scales <= 0) or scales.max() < _SMALLEST_SCALE:
                raise _senseless(tensor.name, f"has scale {scales.max():g}")
    return named


def float_weights(graph: Graph) -> tuple[str, ...]:
    """The outputs of the convolutions and fully connected layers whose weights are float."""
    weighted = [op for op in graph.operators if op.name in WEIGHTED and graph.tensor(op.inputs[1]).is_constant]
    kept = [op for op in weighted if graph.tensor(op.inputs[1]).type is TensorType.FLOAT32]
    return tuple(graph.tensor(op.outputs[0]).name.split(";")[0] for op in kept)


def _verify_copies(graph: Graph) -> None:
    """ModelError `scales-differ` where codes are copied, or kept as a state, to a tensor that reads them otherwise."""
    for op in graph.operators:
        told = graph.tensor(op.outputs[0])
        copied = op.inputs if op.name in COPYING else (op.inputs[LSTM_HIDDEN],) if op.name == LSTM else ()
        for given in (graph.tensor(t) for t in copied if t >= 0):
            if given.type is told.type and given.type in _CODES and given.quantization != told.quantization:
                source, place = (tensor.name.split(";")[0] for tensor in (given, told))
                raise ModelError(
                    "scales-differ",
                    f"{op.name} copies {source} to {place}, which has another scale.",
                    where=place,
                    why="The converter gave the two ends of a copy different scales: every value would be wrong.",
                    try_="Use another --scheme; for recurrent layers another --rnn.",
                )


def verify_per_tensor(graph: Graph) -> None:
    """ModelError `granularity-not-kept` if any tensor has a scale for each of its channels."""
    for tensor in graph.tensors:
        if tensor.quantization is not None and tensor.quantization.per_channel:
            raise ModelError(
                "granularity-not-kept",
                f"Tensor {tensor.name} has {len(tensor.quantization.scale)} scales though one was asked for.",
                where=tensor.name,
                try_="Use --granularity channel.",
            )


def verify_states(graph: Graph, states: Sequence[tuple[str, str]]) -> None:
    """ModelError `state-scales-differ` if a state does not come out as it goes in, so that bytes could be copied."""
    inputs = {graph.tensor(t).name: graph.tensor(t) for t in graph.inputs}
    outputs = {graph.tensor(t).name: graph.tensor(t) for t in graph.outputs}
    for before, after in states:
        given, told = inputs[before], outputs[after]
        if given.type is not told.type or given.quantization != told.quantization:
            raise ModelError(
                "state-scales-differ",
                f"State {before} comes out with another scale than it goes in.",
                where=after,
                try_="Use --io float32, or --rnn unroll.",
            )


def _senseless(tensor: str, what: str) -> ModelError:
    return ModelError(
        "scale-senseless",
        f"Tensor {tensor} {what}.",
        where=tensor,
        why="The representative data leave this tensor at a constant.",
        try_="Give representative data that are like what the device will see.",
    )


def describe_io(graph: Graph, indices: tuple[int, ...]) -> tuple[TensorIo, ...]:
    """Inputs or outputs for the report."""
    result = []
    for tensor in map(graph.tensor, indices):
        q = tensor.quantization if tensor.type not in _FLOAT else None
        single = q is not None and len(q.scale) == 1
        result.append(
            TensorIo(
                tensor.name,
                tensor.type.name.lower(),
                tensor.shape,
                q.scale[0] if q is not None and single else None,
                q.zero_point[0] if q is not None and single else None,
            )
        )
    return tuple(result)


def count_operators(graph: Graph) -> dict[str, int]:
    """How many of each operator."""
    return dict(sorted(Counter(op.name for op in graph.operators).items()))
