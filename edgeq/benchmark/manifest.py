"""What a benchmark takes from a bundle's manifest: names, types, scales, layers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationError

from edgeq.errors import InputError
from edgeq.toolchain.manifest import LayerEntry, Manifest, TensorEntry


class Tensor(TensorEntry):
    """An input or output by its name."""

    name: str = ""
    shape: tuple[Annotated[int, Field(ge=0)], ...] = ()


class Layer(LayerEntry):
    """A step of the plan: which kernel computes which tensor."""

    operator: int | None = None
    output: str | None = None
    output_offset: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Where in the arena the output lies after the layer."""
    output_bytes: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    output_layout: str = "nhwc"
    kernel: str = ""
    macs: int | None = None


class BenchManifest(Manifest):
    """A manifest with all that names a result."""

    inputs: Annotated[tuple[Tensor, ...], Field(min_length=1, max_length=16)]
    outputs: Annotated[tuple[Tensor, ...], Field(min_length=1, max_length=16)]
    layers: Annotated[tuple[Layer, ...], Field(max_length=65534)]


def parse_manifest(content: bytes, where: str) -> BenchManifest:
    """The manifest in `content`. InputError `bundle-invalid` with the first field that is wrong."""
    try:
        return BenchManifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(
            "bundle-invalid",
            "The bundle's manifest cannot be used.",
            where=where,
            why=f"{place}: {first['msg']}" if place else first["msg"],
            try_="Write the bundle anew with: edgeq bundle MODEL.tflite --board BOARD -o DIR",
        ) from error
