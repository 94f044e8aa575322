"""Which Keras layer became which operators and tensors of the `.tflite`: `OUT.quant.json` beside `OUT.tflite`.

Written by `convert` together with the model, read by every later report that names layers. The digest in it tells
whether it belongs to a file.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from edgeq.errors import InputError
from edgeq.graph import Graph, Operator, TensorType

_MAXIMUM_BYTES = 64 << 20
_BORDERS = ("QUANTIZE", "DEQUANTIZE")


def original_name(name: str, known: Container[str]) -> str:
    """The tensor that one was made from: what is made of `x` is called `x;int8` and the like."""
    while name not in known and ";" in name:
        name = name.rsplit(";", maxsplit=1)[0]
    return name


@dataclass(frozen=True, slots=True)
class Origins:
    """Where the tensors of a lowered model come from.

    `layers`: tensor name -> the Keras layers whose computation is fused into it, as paths (`backbone/stem`).
    `classes`: every layer's path -> its class, in Keras's order.
    """

    layers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)

    def of(self, graph: Graph, op: Operator) -> tuple[str, ...]:
        """The layers that an operator of the lowered model, or of what was made of it, belongs to, in Keras's order.

        Empty for QUANTIZE and DEQUANTIZE, which belong to no layer but stand between.
        """
        if op.name in _BORDERS:
            return ()
        found = self._named(graph, op.outputs)
        if not found:
            found = self._named(graph, [t for t in op.inputs if t >= 0 and graph.tensor(t).is_constant])
        if not found and op.inputs and (before := graph.producers().get(op.inputs[0])) is not None:
            return self.of(graph, before)
        order = {path: i for i, path in enumerate(self.classes)}
        return tuple(sorted(found, key=lambda path: (order.get(path, len(order)), path)))

    def _named(self, graph: Graph, tensors: Sequence[int]) -> set[str]:
        names = (original_name(graph.tensor(t).name, self.layers) for t in tensors)
        return {path for name in names for path in self.layers.get(name, ())}

    def layer(self, graph: Graph, op: Operator) -> str:
        """The one layer to name in a report: the first of those fused, else the tensor's own name."""
        return next(iter(self.of(graph, op)), graph.tensor(op.outputs[0]).name.split(";", maxsplit=1)[0])


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MappedTensor(_Entry):
    """A tensor of the `.tflite`; scales of a constant are one, or one per index of `quantized_dimension`."""

    index: int
    name: str
    type: str
    shape: tuple[int, ...]
    constant: bool
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()
    quantized_dimension: int = 0


class MappedOperator(_Entry):
    """An operator, the layers fused into it (none: it converts between schemes), and the scheme it computes in.

    `outputs`: the tensors it writes, by index.
    """

    index: int
    name: str
    layers: tuple[str, ...]
    outputs: tuple[int, ...] = ()
    scheme: str | None


class MappedLayer(_Entry):
    """A Keras layer, its operators and tensors, by index; empty where the conversion left nothing of it."""

    name: str
    class_name: str | None
    schemes: tuple[str, ...]
    operators: tuple[int, ...]
    tensors: tuple[int, ...]


class LayerMap(_Entry):
    """The map of one `.tflite`."""

    schema_: Literal["edgeq.quant/1"] = "edgeq.quant/1"
    model_sha256: str
    scheme: str
    granularity: str
    layers: tuple[MappedLayer, ...]
    operators: tuple[MappedOperator, ...]
    tensors: tuple[MappedTensor, ...]

    def layers_by_tensor(self) -> dict[str, str]:
        """The name of each tensor that an operator writes -> the layer it mainly computes, the first of those fused."""
        names = {tensor.index: tensor.name for tensor in self.tensors}
        return {names[t]: op.layers[0] for op in self.operators if op.layers for t in op.outputs if t in names}

    def to_bytes(self) -> bytes:
        """The file's content, the same for the same map."""
        fields = self.model_dump(mode="json")
        return json.dumps({"schema": fields.pop("schema_"), **fields}).encode() + b"\n"


def path_beside(model: Path) -> Path:
    """`kws.quant.json` for `kws.tflite`."""
    return model.with_name((model.stem if model.suffix == ".tflite" else model.name) + ".quant.json")


def parse(content: bytes, where: str) -> LayerMap:
    """The map in `content`. InputError `quant-map-invalid`."""
    try:
        fields = json.loads(content)
        return LayerMap.model_validate({"schema_" if k == "schema" else k: v for k, v in fields.items()})
    except (ValueError, RecursionError, AttributeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        raise InputError(
            "quant-map-invalid",
            f"{where} is not a map that convert wrote.",
            where=where,
            why=f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else str(error)[:200],
            try_="Convert the model again, or remove the file: names of layers are all that is lost.",
        ) from error


def read_beside(model: Path, sha256: str) -> LayerMap | None:
    """The map that lies beside a `.tflite`, or None where there is none for these very bytes."""
    path = path_beside(model)
    if not path.is_file() or path.stat().st_size > _MAXIMUM_BYTES:
        return None
    found = parse(path.read_bytes(), str(path))
    return found if found.model_sha256 == sha256 else None


def scheme_of(graph: Graph, op: Operator) -> str | None:
    """The scheme an operator computes in, read off its tensors' types; None for those that convert between schemes."""
    if op.name in _BORDERS or not op.outputs:
        return None
    result = graph.tensor(op.outputs[0]).type
    weights = [graph.tensor(t) for t in op.inputs[1:2] if t >= 0]
    of_weights = weights[0].type if weights else None
    if TensorType.INT16 in (result, graph.tensor(op.inputs[0]).type if op.inputs else None):
        return "int16x8"
    if result is TensorType.FLOAT32:
        if of_weights is TensorType.INT8:
            return "dynamic"
        producer = graph.producers().get(weights[0].index) if weights else None
        halved = producer is not None and graph.tensor(producer.inputs[0]).type is TensorType.FLOAT16
        return "float16" if halved else "float32"
    return "int4" if of_weights is TensorType.INT4 else "int8" if result is TensorType.INT8 else None


def build(graph: Graph, origins: Origins, *, sha256: str, scheme: str, granularity: str) -> LayerMap:
    """The map of `graph`, whose bytes have the digest `sha256`."""
    operators = tuple(
        MappedOperator(
            index=op.index,
            name=op.name,
            layers=origins.of(graph, op),
            outputs=op.outputs,
            scheme=scheme_of(graph, op),
        )
        for op in graph.operators
    )
    named = dict.fromkeys([*origins.classes, *(path for op in operators for path in op.layers)])
    layers = []
    for path in named:
        own = [op for op in operators if path in op.layers]
        tensors = {t for op in own for t in (*graph.operators[op.index].inputs, *graph.operators[op.index].outputs)}
        layers.append(
            MappedLayer(
                name=path,
                class_name=origins.classes.get(path),
                schemes=tuple(dict.fromkeys(op.scheme for op in own if op.scheme is not None)),
                operators=tuple(op.index for op in own),
                tensors=tuple(sorted(t for t in tensors if t >= 0)),
            )
        )
    return LayerMap(
        model_sha256=sha256,
        scheme=scheme,
        granularity=granularity,
        layers=tuple(layers),
        operators=operators,
        tensors=tuple(_tensor(graph, i) for i in range(len(graph.tensors))),
    )


def _tensor(graph: Graph, index: int) -> MappedTensor:
    tensor = graph.tensor(index)
    q = tensor.quantization
    return MappedTensor(
        index=index,
        name=tensor.name,
        type=tensor.type.name,
        shape=tensor.shape,
        constant=tensor.is_constant,
        scale=() if q is None else q.scale,
        zero_point=() if q is None else q.zero_point,
        quantized_dimension=0 if q is None else q.quantized_dimension,
    )
