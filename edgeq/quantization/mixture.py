"""Schemes by layer: the float graph is cut where the scheme changes, each piece is quantized, and the pieces joined.

A piece is a run of operators, in execution order, whose schemes share a type of activation. The converter quantizes it
as a model of its own, so that each operator has what the converter gives it in a model of that scheme throughout.
Between pieces stand QUANTIZE and DEQUANTIZE, unless both sides agree on scale and zero point.

Imports TensorFlow through the converter: only the child process does this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import ModelError, UsageError
from edgeq.graph import Graph, Operator, Quantization, Signature, Tensor, TensorType, read_bytes, verify, write_bytes
from edgeq.interpreter import Interpreter
from edgeq.quantization import tflite_converter
from edgeq.quantization.calibration import Ranges
from edgeq.quantization.layer_map import Origins, original_name, scheme_of

FOUR_BIT = ("CONV_2D", "FULLY_CONNECTED")
_FLOATS = ("float32", "float16")
_TYPE = {"int8": TensorType.INT8, "int4": TensorType.INT8, "int16x8": TensorType.INT16}
_SERVING = "serving_default"
_VERSIONS = {TensorType.INT8: 2, TensorType.UINT8: 1, TensorType.INT16: 3, TensorType.FLOAT16: 3}
"""Of DEQUANTIZE, by the type it reads."""

Sample = Sequence[NDArray[Any]]
Schemes = tuple[str, ...]
"""The scheme of each operator of the float graph, by index."""


def assign(graph: Graph, origins: Origins, default: str, patterns: Mapping[str, str]) -> Schemes:
    """Each float operator's scheme. A pattern is matched like a file's name against a layer's path (`backbone/stem`),
    its last name, and the nested models it lies in; of several that match, the last one given holds.

    UsageError if a pattern matches no layer, or none that could take its scheme.
    """
    layers = [origins.of(graph, op) for op in graph.operators]
    schemes = [_possible(op, default) for op in graph.operators]
    known = dict.fromkeys([*origins.classes, *(path for paths in layers for path in paths)])
    for pattern, scheme in patterns.items():
        matched = {path for path in known if _matches(pattern, path)}
        if not matched:
            raise _no_such_layer(pattern, scheme, tuple(known))
        reached = [op for op, paths in zip(graph.operators, layers, strict=True) if matched & set(paths)]
        if not reached:
            raise UsageError(
                "layer-without-operator",
                f"Nothing of {', '.join(sorted(matched)[:3])} is left in the .tflite, so it has no scheme.",
                where=f"--layer {pattern}={scheme}",
                why="The converter folded it into another layer, or it does nothing at inference.",
                try_="Name the layer before it; OUT.quant.json shows which layers have operators.",
            )
        if scheme == "int4" and not any(op.name in FOUR_BIT for op in reached):
            raise UsageError(
                "layer-without-int4",
                f"{', '.join(sorted(matched)[:3])} cannot have 4-bit weights.",
                where=f"--layer {pattern}={scheme}",
                why=f"TFLite has 4-bit kernels for {' and '.join(FOUR_BIT)}; this is "
                + ", ".join(sorted({op.name for op in reached}))
                + ".",
                try_="Give it int8.",
            )
        for op in reached:
            schemes[op.index] = _possible(op, scheme)
    return tuple(schemes)


def _possible(op: Operator, scheme: str) -> str:
    """4 bits are for weights, where there are kernels; a layer's other operators then have 8."""
    return "int8" if scheme == "int4" and op.name not in FOUR_BIT else scheme


def _matches(pattern: str, path: str) -> bool:
    parts = path.split("/")
    above = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
    return any(fnmatchcase(name, pattern) for name in (*above, parts[-1]))


def _no_such_layer(pattern: str, scheme: str, known: Sequence[str]) -> UsageError:
    close = get_close_matches(pattern.strip("*"), known, n=5, cutoff=0.3) or list(known)[:5]
    return UsageError(
        "layer-unknown",
        f"No layer of the model is called {pattern}.",
        where=f"--layer {pattern}={scheme}",
        try_=f"The closest names are: {', '.join(close)}."
        if close
        else "The model has no names of layers: use --scheme.",
    )


def _kind(scheme: str) -> str:
    return "float" if scheme in _FLOATS else "int16x8" if scheme == "int16x8" else "int8"


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A run of operators of one kind as a model of its own. `inputs`, `outputs`, `places`: tensors of the whole graph,
    `places[i]` what the piece calls i."""

    kind: str
    graph: Graph
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    places: tuple[int, ...]


def cut(graph: Graph, schemes: Schemes) -> list[Piece]:
    """The pieces, in execution order."""
    runs: list[list[Operator]] = []
    for op in graph.operators:
        if runs and _kind(schemes[runs[-1][-1].index]) == _kind(schemes[op.index]):
            runs[-1].append(op)
        else:
            runs.append([op])
    readers = graph.consumers()
    return [_piece(graph, run, readers, _kind(schemes[run[0].index])) for run in runs]


def _piece(graph: Graph, run: Sequence[Operator], readers: Mapping[int, list[Operator]], kind: str) -> Piece:
    own = {op.index for op in run}
    made = {t for op in run for t in op.outputs}
    used = dict.fromkeys(t for op in run for t in (*op.inputs, *op.outputs) if t >= 0)
    inputs = tuple(
        t for t in used if t not in made and not graph.tensor(t).is_constant and not graph.tensor(t).is_variable
    )
    outputs = tuple(
        t for t in used if t in made and (t in graph.outputs or any(op.index not in own for op in readers.get(t, ())))
    )
    place = {t: i for i, t in enumerate(used)} | {-1: -1}
    operators = tuple(
        replace(op, index=i, inputs=tuple(place[t] for t in op.inputs), outputs=tuple(place[t] for t in op.outputs))
        for i, op in enumerate(run)
    )
    named = [{graph.tensor(t).name: place[t] for t in ends} for ends in (inputs, outputs)]
    part = Graph(
        graph.name,
        tuple(replace(graph.tensor(t), index=i) for t, i in place.items() if t >= 0),
        operators,
        tuple(named[0].values()),
        tuple(named[1].values()),
        (Signature(_SERVING, MappingProxyType(named[0]), MappingProxyType(named[1])),),
    )
    return Piece(kind, part, inputs, outputs, tuple(used))


def quantize(
    float_tflite: bytes,
    graph: Graph,
    schemes: Schemes,
    *,
    ranges: Ranges,
    samples: Sequence[Sample],
    io: str | None,
    per_channel: bool = True,
) -> bytes:
    """The `.tflite` in which every operator has its scheme; weights of int4 operators are left at 8 bits.

    `ranges`, `samples` (batch-1 arrays) are what int8 and int16 activations are scaled by. `io` is the type of inputs
    and outputs; None leaves each as the layer beside it has it.
    """
    if len(graph.subgraphs) > 1:
        raise ModelError(
            "mixture-impossible",
            "The model has subgraphs (control flow); its layers cannot have different schemes.",
            try_="Leave --layer out, or unroll what loops.",
        )
    joint = _Joint(graph, ranges)
    for piece in cut(graph, schemes):
        own = {i: ranges[t] for i, t in enumerate(piece.places) if t in ranges}
        joint.add(piece, _quantized(piece, own, _Fed(float_tflite, piece.inputs, samples), per_channel))
    result = joint.finish(io)
    result = _halve(
        result, {graph.tensor(op.outputs[0]).name for op in graph.operators if schemes[op.index] == "float16"}
    )
    verify(result)
    return write_bytes(result)


def _quantized(piece: Piece, ranges: Ranges, fed: Sequence[Sample], per_channel: bool) -> Graph:
    if piece.kind == "float":
        return piece.graph
    tflite = write_bytes(piece.graph)
    try:
        if piece.kind == "int8":
            return read_bytes(tflite_converter.quantize_int8(tflite, ranges, io="int8", per_channel=per_channel))
        return read_bytes(tflite_converter.quantize_int16x8(tflite, fed, io="int16", per_channel=per_channel))
    except ModelError as error:
        names = [piece.graph.tensor(op.outputs[0]).name.split(";")[0] for op in piece.graph.operators]
        raise ModelError(
            error.code,
            f"The converter cannot quantize these layers to {piece.kind}.",
            where=", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else ""),
            why=error.why,
            try_="Give the layer that the reason names another scheme: --layer LAYER=float32.",
        ) from error


class _Fed(Sequence[Sample]):
    """What reaches a piece's inputs on every sample, computed when it is asked for."""

    def __init__(self, whole: bytes, inputs: Sequence[int], samples: Sequence[Sample]) -> None:
        self._whole, self._inputs, self._samples = whole, inputs, samples
        self._interpreter: Interpreter | None = None

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: Any) -> Any:
        self._interpreter = self._interpreter or Interpreter(self._whole, preserve_all_tensors=True, reference=False)
        self._interpreter.run(self._samples[index])
        return [self._interpreter.tensor(t).copy() for t in self._inputs]


class _Joint:
    """The joined graph while it grows. Float tensor -> its forms here, the one that its producer wrote first."""

    def __init__(self, graph: Graph, ranges: Ranges) -> None:
        self._graph, self._ranges = graph, ranges
        self._tensors: list[Tensor] = []
        self._operators: list[Operator] = []
        self._forms: dict[int, list[int]] = {}
        self._inputs: dict[int, int] = {}
        self._names: set[str] = set()

    def add(self, piece: Piece, quantized: Graph) -> None:
        """Append what a piece became; its inputs and outputs stand in the piece's order."""
        place = {-1: -1}
        for local, tensor in zip(quantized.inputs, piece.inputs, strict=True):
            place[local] = self._in_form(tensor, quantized.tensor(local))
        for op in quantized.operators:
            for t in (*op.inputs, *op.outputs):
                if t not in place:
                    place[t] = self._new(quantized.tensor(t))
            self._append(op, tuple(place[t] for t in op.inputs), tuple(place[t] for t in op.outputs))
        for local, tensor in zip(quantized.outputs, piece.outputs, strict=True):
            self._forms[tensor] = [place[local]]

    def finish(self, io: str | None) -> Graph:
        """The whole, its inputs and outputs of type `io`."""
        graph = self._graph
        for tensor, index in self._inputs.items():
            self._retype_input(tensor, index, io)
        inputs = tuple(self._inputs[t] if t in self._inputs else self._new(graph.tensor(t)) for t in graph.inputs)
        for t in graph.outputs:
            self._in_form(t, self._tensors[self._forms[t][0]] if t in self._forms else graph.tensor(t))
        outputs = tuple(self._in_form(t, self._form(self._tensors[self._forms[t][0]], t, io)) for t in graph.outputs)
        tensors = list(self._tensors)
        for index, t in zip((*inputs, *outputs), (*graph.inputs, *graph.outputs), strict=True):
            tensors[index] = self._called(tensors, index, graph.tensor(t).name)
        signatures = tuple(
            Signature(
                s.key,
                MappingProxyType({n: inputs[graph.inputs.index(t)] for n, t in s.inputs.items()}),
                MappingProxyType({n: outputs[graph.outputs.index(t)] for n, t in s.outputs.items()}),
            )
            for s in graph.signatures
        )
        return Graph(graph.name, tuple(tensors), tuple(self._operators), inputs, outputs, signatures)

    @staticmethod
    def _called(tensors: list[Tensor], index: int, name: str) -> Tensor:
        """The tensor at `index` under the user's name; what had the name steps back."""
        for i, other in enumerate(tensors):
            if other.name == name and i != index:
                tensors[i] = replace(other, name=f"{name};inner")
        return replace(tensors[index], name=name)

    def _retype_input(self, tensor: int, index: int, io: str | None) -> None:
        """Put what makes the first reader's form of a model input out of the type `io` in front of everything."""
        form = self._form(self._tensors[index], tensor, io)
        if _same(form, self._tensors[index]):
            return
        new = self._new(replace(form, name=f"{form.name};given"))
        self._inputs[tensor] = new
        name, version = _conversion(form, self._tensors[index])
        self._operators.insert(0, Operator(0, name, version, (new,), (index,)))
        self._operators = [replace(op, index=i) for i, op in enumerate(self._operators)]

    def _form(self, own: Tensor, tensor: int, io: str | None) -> Tensor:
        """The tensor in the type `io`, where it holds real numbers."""
        wanted = own.type if io is None else TensorType[io.upper()]
        if own.type is wanted or own.type not in (TensorType.FLOAT32, TensorType.INT8, TensorType.INT16):
            return own
        if wanted is TensorType.FLOAT32:
            return replace(own, type=wanted, quantization=None)
        if wanted is TensorType.UINT8 and own.type is TensorType.INT8:
            return replace(own, type=wanted, quantization=Quantization((own.scale,), (own.zero_point + 128,)))
        return replace(own, type=wanted, quantization=_covering(self._ranges[tensor], wanted))

    def _in_form(self, tensor: int, wanted: Tensor) -> int:
        """A tensor in the form that a reader wants, converted if nobody has it yet."""
        forms = self._forms.setdefault(tensor, [])
        if not forms:
            self._inputs[tensor] = self._new(replace(wanted, name=self._graph.tensor(tensor).name))
            forms.append(self._inputs[tensor])
        for index in forms:
            if _same(self._tensors[index], wanted):
                return index
        new = self._new(replace(wanted, name=f"{self._graph.tensor(tensor).name};{wanted.type.name.lower()}"))
        name, version = _conversion(self._tensors[forms[0]], wanted)
        self._append(Operator(0, name, version, (), ()), (forms[0],), (new,))
        forms.append(new)
        return new

    def _new(self, tensor: Tensor) -> int:
        name = tensor.name
        while name in self._names:
            name += ";again"
        self._names.add(name)
        self._tensors.append(replace(tensor, index=len(self._tensors), name=name))
        return len(self._tensors) - 1

    def _append(self, op: Operator, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> None:
        self._operators.append(replace(op, index=len(self._operators), inputs=inputs, outputs=outputs))


def _same(first: Tensor, second: Tensor) -> bool:
    real = first.type is TensorType.FLOAT32 or first.quantization == second.quantization
    return first.type is second.type and (real or first.type not in (TensorType.INT8, TensorType.INT16))


def _conversion(source: Tensor, result: Tensor) -> tuple[str, int]:
    """The operator that turns one form into the other, and its version."""
    if result.type is TensorType.FLOAT32:
        return "DEQUANTIZE", _VERSIONS[source.type]
    return "QUANTIZE", 2 if TensorType.INT16 in (source.type, result.type) else 1


def _covering(span: tuple[float, float], wanted: TensorType) -> Quantization:
    """Scale and zero point whose codes cover a range and hold 0 exactly: symmetric for int16, as its kernels demand."""
    low, high = min(span[0], 0.0), max(span[1], 0.0)
    if wanted is TensorType.INT16:
        return Quantization((float(np.float32(max(-low, high, 1e-6) / 32767)),), (0,))
    scale = float(np.float32(max(high - low, 1e-6) / 255))
    lowest = -128 if wanted is TensorType.INT8 else 0
    return Quantization((scale,), (int(np.clip(round(lowest - low / scale), lowest, lowest + 255)),))


def _halve(graph: Graph, outputs: set[str]) -> Graph:
    """The graph with float16 constants behind a DEQUANTIZE in the operators that write `outputs`."""
    tensors, operators, halved = list(graph.tensors), [], {}
    for op in graph.operators:
        inputs = list(op.inputs)
        if graph.tensor(op.outputs[0]).name in outputs:
            for n, t in enumerate(op.inputs):
                data = graph.tensor(t).data if t >= 0 else None
                if data is None or data.dtype != np.float32:
                    continue
                if t not in halved:
                    halved[t] = len(tensors)
                    small = np.clip(data, -65504, 65504).astype(np.float16)
                    source = replace(tensors[t], name=f"{tensors[t].name};half", index=len(tensors) + 1)
                    tensors.append(replace(tensors[t], index=len(tensors), data=None))
                    tensors.append(replace(source, type=TensorType.FLOAT16, data=small))
                    operators.append(Operator(0, "DEQUANTIZE", 3, (len(tensors) - 1,), (halved[t],)))
                inputs[n] = halved[t]
        operators.append(replace(op, inputs=tuple(inputs)))
    for t, new in halved.items():
        if not any(t in op.inputs for op in operators):
            tensors[new] = replace(tensors[new], name=tensors[t].name)
            tensors[t] = replace(tensors[t], name=f"{tensors[t].name};unused")
    numbered = tuple(replace(op, index=i) for i, op in enumerate(operators))
    return _without_unused(replace(graph, tensors=tuple(tensors), operators=numbered)) if halved else graph


def _without_unused(graph: Graph) -> Graph:
    used = {t for op in graph.operators for t in (*op.inputs, *op.outputs)} | {*graph.inputs, *graph.outputs}
    kept = [t for t in graph.tensors if t.index in used]
    place = {t.index: i for i, t in enumerate(kept)} | {-1: -1}

    def moved(indices: Sequence[int]) -> tuple[int, ...]:
        return tuple(place[t] for t in indices)

    return replace(
        graph,
        tensors=tuple(replace(t, index=i) for i, t in enumerate(kept)),
        operators=tuple(replace(op, inputs=moved(op.inputs), outputs=moved(op.outputs)) for op in graph.operators),
        inputs=moved(graph.inputs),
        outputs=moved(graph.outputs),
        signatures=tuple(
            Signature(
                s.key,
                MappingProxyType({n: place[t] for n, t in s.inputs.items()}),
                MappingProxyType({n: place[t] for n, t in s.outputs.items()}),
            )
            for s in graph.signatures
        ),
    )


def by_output(graph: Graph, schemes: Schemes) -> dict[str, str]:
    """The name of what a float operator writes -> its scheme."""
    return {graph.tensor(t).name: schemes[op.index] for op in graph.operators for t in op.outputs}


def require(result: Graph, original: Graph, schemes: Schemes, *, allow_float: bool = False) -> None:
    """ModelError `scheme-not-kept` naming the first operator with a tensor that does not have its scheme's type.

    `allow_float` accepts operators that the converter left in float.
    """
    wanted = by_output(original, schemes)
    for op in result.operators:
        name = result.tensor(op.outputs[0]).name
        scheme, has = wanted.get(original_name(name, wanted)), scheme_of(result, op)
        if scheme is None or op.name in ("QUANTIZE", "DEQUANTIZE") or (allow_float and has == "float32"):
            continue
        for tensor in _wrong(result, op, scheme):
            raise ModelError(
                "scheme-not-kept",
                f"{op.name} does not have the scheme {scheme} that was asked for.",
                where=name.split(";")[0],
                why=f"It computes in {has or 'other types'}: tensor {tensor.name.split(';')[0]} is {tensor.type.name}.",
                try_=("Give its layer another scheme: the converter has no such form of it.", "Or use --allow-float."),
            )


_ALLOWED: Mapping[str, tuple[frozenset[TensorType], frozenset[TensorType]]] = {
    "int8": (frozenset({TensorType.INT8}), frozenset({TensorType.INT8, TensorType.INT32})),
    "int4": (frozenset({TensorType.INT8}), frozenset({TensorType.INT4, TensorType.INT32})),
    "int16x8": (frozenset({TensorType.INT16}), frozenset({TensorType.INT8, TensorType.INT16, TensorType.INT64})),
    "float32": (frozenset({TensorType.FLOAT32}), frozenset({TensorType.FLOAT32})),
    "float16": (frozenset({TensorType.FLOAT32}), frozenset({TensorType.FLOAT32})),
}
"""Scheme -> types of activations, types of constants."""
_NEUTRAL = frozenset({TensorType.INT32, TensorType.INT64, TensorType.BOOL})
"""Shapes, axes, indices and masks, which have no scheme."""


def _wrong(graph: Graph, op: Operator, scheme: str) -> Iterator[Tensor]:
    activations, constants = _ALLOWED[scheme]
    for t in (*op.inputs, *op.outputs):
        if t < 0:
            continue
        tensor = graph.tensor(t)
        allowed = constants if tensor.is_constant else activations
        if tensor.type not in allowed and tensor.type not in _NEUTRAL:
            yield tensor
