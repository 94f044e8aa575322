"""What goes onto a Linux board: files by content, and the manifest that the agent obeys."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgeq import __version__
from edgeq.device.ssh.agent import agent_file
from edgeq.device.ssh.wheels import Requirement
from edgeq.errors import ModelError

Runtime = Literal["litert", "c"]
AGENT = "edgeq_agent.py"


@dataclass(frozen=True, slots=True)
class Release:
    """Files, name -> content, and the manifest over them. `requirement` is None where no interpreter is needed."""

    files: Mapping[str, bytes]
    manifest: Mapping[str, Any]
    requirement: Requirement | None

    @property
    def digests(self) -> dict[str, bytes]:
        """SHA-256 -> content."""
        return {self.manifest["files"][name]["sha256"]: content for name, content in self.files.items()}


def read_model(path: Path) -> bytes:
    """The bytes of a model file. ModelError `model-not-found`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(
            "model-not-found", f"Cannot read {path}.", where=str(path), why=error.strerror, try_="Check the path."
        ) from error


def make_manifest(files: Mapping[str, bytes], **fields: Any) -> dict[str, Any]:
    """A manifest that names `files`, each with its SHA-256 and size."""
    described = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in sorted(files.items())
    }
    return {"schema": "edgeq.release/1", "tool_version": __version__, "files": described, **fields}


def interpreter_release(
    model: bytes, name: str, board: str, requirement: Requirement, environment: str, *, for_edge_tpu: bytes | None
) -> Release:
    """A `.tflite` for the interpreter, or what was compiled of it for the Edge TPU, which takes its place.

    `defaults` is how the agent loads it unless it is told otherwise.
    """
    files = {AGENT: agent_file().read_bytes(), "model.tflite": for_edge_tpu or model}
    manifest = make_manifest(
        files,
        board=board,
        runtime="litert",
        name=name,
        model="model.tflite",
        model_sha256=hashlib.sha256(model).hexdigest(),
        package=f"{requirement.package} {requirement.version}",
        environment=environment,
        defaults={"delegate": "edgetpu"} if for_edge_tpu else {},
    )
    return Release(files, manifest, requirement)


def library_release(model: bytes, name: str, board: str, library: bytes, about: Mapping[str, Any]) -> Release:
    """Generated C as a shared library; the `.tflite` goes along, for comparisons."""
    files = {AGENT: agent_file().read_bytes(), "model.tflite": model, "model.so": library}
    manifest = make_manifest(
        files,
        board=board,
        runtime="c",
        name=name,
        model="model.so",
        model_sha256=hashlib.sha256(model).hexdigest(),
        package="generated C",
        environment=None,
        defaults={},
        generated_c=dict(about),
    )
    return Release(files, manifest, None)
