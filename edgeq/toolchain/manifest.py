"""A bundle's `manifest.json`, as far as the toolchain needs it; `docs/architecture.md` has the whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from edgeq.errors import InputError

MAX_FILE_BYTES = 16 << 20
"""A manifest is a few hundred bytes a layer; more is not a manifest."""

OPTION = re.compile(r"-(std=[a-z0-9]+|O[0-3sz]|f(?!plugin)[a-z0-9=-]+|m[a-z0-9=.+-]+|D\w+(=\w*)?|W[a-z][a-z0-9=-]*)")
"""A compiler option that names no file and no program."""


def _option(text: str) -> str:
    if not OPTION.fullmatch(text):
        raise ValueError(f"{text!r} is not an option that a bundle may set")
    return text


def _inner_path(text: str) -> str:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", text, re.ASCII) or ".." in text.split("/"):
        raise ValueError(f"{text!r} is not a path inside the bundle")
    return text


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class TensorEntry(_Part):
    """An input or output: its bytes; scale and zero point where it is quantized."""

    bytes: Annotated[int, Field(ge=1, lt=2**31)]
    type: str = "INT8"
    scale: float | None = None
    zero_point: int | None = None


class LayerEntry(_Part):
    """A step of the plan."""

    index: Annotated[int, Field(ge=0)]
    name: str


class RegionEntry(_Part):
    """A region of RAM that holds a piece of the arena: its bytes."""

    name: str
    bytes: Annotated[int, Field(ge=1, lt=2**31)]


class Options(_Part):
    """What was asked of `edgeq bundle`."""

    agent: Literal["edgeq", "mlperf"] = "edgeq"
    """What the firmware speaks: EdgeQ's own link, or the MLPerf Tiny device protocol."""


class Manifest(_Part):
    """What the agent must know of a bundle, and how its sources are compiled."""

    schema_: Annotated[Literal["edgeq.bundle/1"], Field(alias="schema")]
    name: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]{0,62}$")]
    """Prefix of the generated symbols: a C identifier."""
    model_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    board: str = ""
    """The board that kernels and memory plan were chosen for."""
    options: Options = Options()
    arena_bytes: Annotated[int, Field(ge=1, lt=2**31)]
    arena_align: Annotated[int, Field(ge=1, le=4096)] = 16
    regions: Annotated[tuple[RegionEntry, ...], Field(max_length=16)] = ()
    """Where the arena lies; none: whole in the first region of the board's RAM."""
    inputs: Annotated[tuple[TensorEntry, ...], Field(min_length=1, max_length=16)]
    outputs: Annotated[tuple[TensorEntry, ...], Field(min_length=1, max_length=16)]
    layers: Annotated[tuple[LayerEntry, ...], Field(max_length=65534)]
    compile_options: tuple[Annotated[str, AfterValidator(_option)], ...] = ("-std=c99", "-O2")
    files: dict[Annotated[str, AfterValidator(_inner_path)], str]

    def sources(self) -> tuple[str, ...]:
        """The C files to compile, relative to the bundle, in a fixed order."""
        return tuple(sorted(name for name in self.files if name.startswith("src/") and name.endswith(".c")))


def read_manifest(bundle: Path) -> Manifest:
    """The manifest of a bundle directory.

    InputError `not-a-bundle` if there is none, `bundle-invalid` if it is not one of ours or lacks a file that it names.
    """
    path = bundle / "manifest.json"
    try:
        size_bytes = path.stat().st_size
        content = path.read_bytes() if size_bytes <= MAX_FILE_BYTES else b""
    except OSError as error:
        raise InputError(
            "not-a-bundle",
            f"{bundle} is not a bundle.",
            where=str(path),
            why=error.strerror,
            try_="Write one with: edgeq bundle MODEL.tflite --board BOARD -o DIR",
        ) from error
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise _invalid(path, f"{place}: {first['msg']}" if place else first["msg"]) from error
    for name in manifest.files:
        if not (bundle / name).is_file():
            raise _invalid(path, f"It names {name}, which is not there.")
    if not manifest.sources():
        raise _invalid(path, "It names no C source under src/.")
    return manifest


def _invalid(path: Path, why: str) -> InputError:
    return InputError(
        "bundle-invalid",
        "The bundle's manifest cannot be used.",
        where=str(path),
        why=why,
        try_="Write the bundle anew with: edgeq bundle MODEL.tflite --board BOARD -o DIR",
    )
