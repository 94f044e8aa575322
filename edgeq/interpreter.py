"""The TFLite interpreter on this computer: ai-edge-litert, else tflite-runtime, else TensorFlow's.

The only module that imports any of them. `Interpreter` runs the reference kernels (BUILTIN_REF), without delegates:
"the same bytes" is only defined against these, and the optimized kernels differ.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import ModelError, ToolError

_PACKAGES = (
    ("ai_edge_litert.interpreter", "ai-edge-litert"),
    ("tflite_runtime.interpreter", "tflite-runtime"),
    ("tensorflow.lite.python.interpreter", "tensorflow"),
)


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keep the C++ log lines of interpreter start-up out of the user's terminal."""
    if os.environ.get("EDGEQ_DEBUG"):
        yield
        return
    saved = os.dup(2)
    try:
        with tempfile.TemporaryFile() as sink:
            os.dup2(sink.fileno(), 2)
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _load() -> tuple[Any, str]:
    for module, package in _PACKAGES:
        try:
            return importlib.import_module(module), package
        except ImportError:
            continue
    raise ToolError(
        "interpreter-missing",
        "No TFLite interpreter is installed.",
        why="Neither ai-edge-litert nor tflite-runtime nor TensorFlow can be imported.",
        try_="pip install ai-edge-litert",
    )


def interpreter_package() -> str:
    """The distribution that `Interpreter` uses here. ToolError `interpreter-missing`."""
    return _load()[1]


class Interpreter:
    """A `.tflite` model on this computer's reference kernels.

    `package` names what runs it. Arrays go in and out in the file's order of inputs and outputs. `reference=False`
    runs the optimized built-in kernels: for the ranges of float models, where only the time differs.
    """

    def __init__(self, model: bytes, *, preserve_all_tensors: bool = False, reference: bool = True) -> None:
        module, self.package = _load()
        kernels = (
            module.OpResolverType.BUILTIN_REF if reference else module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        )
        try:
            with _quiet_stderr():
                self._interpreter = module.Interpreter(
                    model_content=model,
                    experimental_op_resolver_type=kernels,
                    experimental_preserve_all_tensors=preserve_all_tensors,
                )
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise self._refused(error) from error
        self._inputs = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()

    def _refused(self, error: Exception) -> ModelError:
        return ModelError(
            "interpreter-refuses-model",
            f"{self.package} cannot run this model.",
            why=str(error).strip().splitlines()[0] if str(error).strip() else None,
            try_="Check the model's operators: edgeq check MODEL.tflite --board host",
        )

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Outputs for one set of inputs, each of its tensor's exact type and shape.

        ModelError where a kernel says only now that it does not take its tensors' types.
        """
        for details, value in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(details["index"], np.ascontiguousarray(value))
        try:
            self._interpreter.invoke()
        except RuntimeError as error:
            raise self._refused(error) from error
        return [self._interpreter.get_tensor(d["index"]) for d in self._outputs]

    def reset(self) -> None:
        """Variable tensors, the states of recurrent operators, as they are at first."""
        self._interpreter.reset_all_variables()

    def tensor(self, index: int) -> NDArray[Any]:
        """The value of any tensor after `run`; needs `preserve_all_tensors`."""
        value: NDArray[Any] = self._interpreter.get_tensor(index)
        return value


def for_measuring(model: bytes, *, preserve_all_tensors: bool = False) -> Interpreter:
    """The model on the reference kernels, or on the optimized ones where the former lack an operator (ELU, int8 TILE).

    For judging a model's quality, not for holding bytes against.
    """
    try:
        return Interpreter(model, preserve_all_tensors=preserve_all_tensors)
    except ModelError:
        return Interpreter(model, preserve_all_tensors=preserve_all_tensors, reference=False)


def run_file(path: Path, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Outputs of the model at `path` for one set of inputs."""
    return Interpreter(path.read_bytes()).run(inputs)
