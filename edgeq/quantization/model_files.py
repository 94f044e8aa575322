"""What kind of Keras model a path is, and whether opening it would run code: read before TensorFlow is loaded."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from edgeq.errors import ModelError, ToolError

Kind = Literal["keras", "h5", "saved_model"]
_MAXIMUM_CONFIG_BYTES = 64 << 20
_MAXIMUM_UNPACKED_BYTES = 8 << 30
_TRUSTED_MODULES = ("keras", "edgeq", "tf_keras", "tensorflow.keras")
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def inspect(path: Path, *, unsafe: bool) -> Kind:
    """The kind of the model at `path`. ModelError if it is none, is damaged, or carries code and `unsafe` is False."""
    if not path.exists():
        raise ModelError("model-not-found", f"There is no model at {path}.", where=str(path), try_="Check the path.")
    try:
        if path.is_dir():
            return _saved_model(path, unsafe)
        with path.open("rb") as stream:
            head = stream.read(8)
        if head == _HDF5_SIGNATURE:
            _judge(_h5_config(path), path, unsafe)
            return "h5"
        if head.startswith(b"PK"):
            _judge(_keras_config(path), path, unsafe)
            return "keras"
    except OSError as error:
        raise ModelError(
            "model-damaged", f"{path} cannot be read.", where=str(path), why=error.strerror or str(error)
        ) from error
    tip = (
        "It is a .tflite already: edgeq check MODEL.tflite --board BOARD"
        if head[4:8] == b"TFL3"
        else ("Give a .keras file, an .h5 file, or the directory of a TensorFlow SavedModel.")
    )
    raise ModelError("not-a-keras-model", f"{path} is not a Keras model.", where=str(path), try_=tip)


def is_quantize_aware(path: Path) -> bool:
    """Whether the file holds a model of `edgeq.quantize_aware`, which brings its ranges along."""
    return path.suffix != ".h5" and zipfile.is_zipfile(path) and "edgeq>FakeQuantize" in json.dumps(_keras_config(path))


def _keras_config(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MAXIMUM_UNPACKED_BYTES:
                raise ModelError("model-too-large", f"{path} unpacks to more than 8 GiB.", where=str(path))
            with archive.open("config.json") as stream:
                return _parse(stream.read(_MAXIMUM_CONFIG_BYTES + 1), path)
    except (zipfile.BadZipFile, KeyError, NotImplementedError, EOFError) as error:
        raise _damaged(path, error) from error


def _h5_config(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ToolError(
            "tensorflow-missing", "Converting needs TensorFlow and Keras.", try_="pip install 'edgeq[convert]'"
        ) from error
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise _damaged(path, error) from error
    if text is None:
        raise ModelError(
            "model-without-architecture",
            f"{path} holds weights only, not the model's architecture.",
            where=str(path),
            try_="Save the whole model: model.save('model.keras').",
        )
    return _parse(text if isinstance(text, bytes) else str(text).encode(), path)


def _parse(text: bytes, path: Path) -> Any:
    if len(text) > _MAXIMUM_CONFIG_BYTES:
        raise ModelError("model-too-large", f"The architecture in {path} is over 64 MiB of text.", where=str(path))
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ModelError:
    return ModelError(
        "model-damaged",
        f"{path} is damaged.",
        where=str(path),
        why=str(error) or type(error).__name__,
        try_="Save the model again: model.save('model.keras').",
    )


def _saved_model(path: Path, unsafe: bool) -> Kind:
    if not (path / "saved_model.pb").is_file():
        raise ModelError(
            "not-a-keras-model",
            f"{path} is a directory without a saved_model.pb.",
            where=str(path),
            try_="Give a .keras file, an .h5 file, or the directory of a TensorFlow SavedModel.",
        )
    # Keras 2 keeps its layers' configurations in one of these, depending on its age.
    for metadata in (path / "keras_metadata.pb", path / "saved_model.pb"):
        if not unsafe and metadata.is_file() and b'"class_name": "Lambda"' in metadata.read_bytes():
            raise _carries_code(path, "a Lambda layer")
    return "saved_model"


def _judge(config: Any, path: Path, unsafe: bool) -> None:
    if unsafe:
        return
    for node in _nodes(config):
        name, module = node.get("class_name"), node.get("module")
        if name in ("Lambda", "__lambda__"):
            inner = node.get("config")
            layer = inner.get("name") if isinstance(inner, dict) else None
            raise _carries_code(path, f"the Lambda layer {layer}" if isinstance(layer, str) else "a Lambda layer")
        if isinstance(module, str) and name is not None and module.split(".")[0] not in _TRUSTED_MODULES:
            if module == "builtins" and name in ("function", "str", "bool", "int", "float"):
                continue
            raise _carries_code(path, f"{name} of the module {module}")


def _nodes(config: Any) -> Iterator[dict[str, Any]]:
    waiting = [config]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _carries_code(path: Path, what: str) -> ModelError:
    return ModelError(
        "model-carries-code",
        f"{path} contains {what}: opening it would run Python code from the file or outside of Keras.",
        where=str(path),
        try_=(
            "Replace a Lambda by a keras layer or keras.ops call, and save the model again.",
            "If you trust the file, give --unsafe.",
        ),
    )
