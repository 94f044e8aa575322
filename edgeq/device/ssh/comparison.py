"""Outputs of a board against those of this computer's reference kernels."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeq.benchmark.manifest import Tensor as BoardTensor
from edgeq.benchmark.samples import element_type
from edgeq.device.ssh.agent import agent_file
from edgeq.device.ssh.native import compile_library
from edgeq.device.ssh.reports import Comparison
from edgeq.graph import Graph, Tensor
from edgeq.interpreter import Interpreter
from edgeq.measure import Measured, Unknown
from edgeq.progress import Progress

FLOAT_TOLERANCE = 1e-4
"""Relative, for outputs in floating point: processors fuse and order additions differently."""
LITERT_REFERENCE = "this computer's reference kernels"
OTHER_REFERENCE = "this computer's reference kernels, of another package"
SAME_C = "generated C compiled for this computer"
_MUST_AGREE = {("reference", LITERT_REFERENCE), ("reference", SAME_C), ("generated-c", SAME_C)}
OLD_REFERENCE_IS_MICRO = frozenset(
    ("ADD", "AVERAGE_POOL_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MAX_POOL_2D", "RESHAPE", "SOFTMAX")
)
"""Operators that tflite-runtime 2.14's reference kernels compute as TensorFlow Lite Micro and generated C do, rounding
twice. FULLY_CONNECTED in ai-edge-litert's reference kernels rounds once: there the two packages differ."""

Outputs = Sequence[Sequence[bytes]]
"""`[sample][output]`"""


def board_tensor(tensor: Tensor) -> BoardTensor:
    """The tensor as sample files and boards describe it."""
    per_tensor = tensor.quantization is not None and len(tensor.quantization.scale) == 1
    return BoardTensor(
        bytes=tensor.size_bytes,
        name=tensor.name,
        type=tensor.type.name,
        shape=tensor.shape,
        scale=tensor.scale if per_tensor else None,
        zero_point=tensor.zero_point if per_tensor else None,
    )


def reference_outputs(
    model: bytes, graph: Graph, inputs: Sequence[tuple[bytes, ...]], progress: Progress
) -> list[list[bytes]]:
    """The outputs of this computer's reference kernels."""
    interpreter, results = Interpreter(model), []
    tensors = [board_tensor(graph.tensor(index)) for index in graph.inputs]
    for done, row in enumerate(inputs):
        progress("running the data on this computer", done, len(inputs))
        arrays = [
            np.frombuffer(raw, element_type(tensor)).reshape(tensor.shape)
            for raw, tensor in zip(row, tensors, strict=True)
        ]
        results.append([output.tobytes() for output in interpreter.run(arrays)])
    return results


def generated_outputs(model: bytes, name: str, inputs: Sequence[tuple[bytes, ...]]) -> list[list[bytes]]:
    """The outputs of the generated C, compiled for and executed on this computer, by the agent's own loader."""
    library, about = compile_library(model, name, None)
    specification = importlib.util.spec_from_file_location("edgeq_agent", agent_file())
    assert specification is not None
    assert specification.loader is not None
    agent = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(agent)
    results = []
    with tempfile.TemporaryDirectory(prefix="edgeq-library-", ignore_cleanup_errors=True) as scratch:
        path = Path(scratch) / "model.so"
        path.write_bytes(library)
        loaded = agent.GeneratedC(str(path), about)
        for row in inputs:
            for index, raw in enumerate(row):
                loaded.write(index, raw)
            loaded.invoke()
            results.append([loaded.read(index) for index in range(len(about["outputs"]))])
    return results


def compare(
    kernels: str,
    got: Outputs,
    against: tuple[str, Outputs],
    outputs: Sequence[BoardTensor],
    labels: Sequence[int] | None,
) -> Comparison:
    """Element by element. `same` is about what must agree: the same kernels, and C with C.

    Integers must be equal, floating point within rounding. against: what is compared with, and its outputs.
    """
    reference, expected = against
    differing, elements, largest, exact = 0, 0, 0.0, True
    for index, tensor in enumerate(outputs):
        type_ = element_type(tensor)
        ours = np.frombuffer(b"".join(row[index] for row in got), type_).astype(np.float64)
        theirs = np.frombuffer(b"".join(row[index] for row in expected), type_).astype(np.float64)
        # NaN at the same place is no difference.
        gaps = np.where(np.isnan(ours) & np.isnan(theirs), 0.0, np.abs(ours - theirs))
        differing, elements = differing + int(np.count_nonzero(gaps)), elements + gaps.size
        largest = max(largest, float(gaps.max(initial=0.0)))
        if type_.kind == "f":
            exact &= bool(np.all(gaps <= FLOAT_TOLERANCE * (1 + np.abs(theirs))))
        else:
            exact &= not gaps.any()
    must = (kernels, reference) in _MUST_AGREE
    return Comparison(
        kernels=kernels,
        reference=reference,
        samples=len(got),
        elements=elements,
        differing=differing,
        largest=largest,
        same=exact or not must,
        explanation=_explanation((kernels, reference), differing, exact),
        accuracy=accuracy(got, labels, outputs[0], f"{kernels} on the device"),
        host_accuracy=accuracy(expected, labels, outputs[0], reference),
    )


def _explanation(pair: tuple[str, str], differing: int, exact: bool) -> str:
    kernels, reference = pair
    must = pair in _MUST_AGREE
    if not differing:
        return "The same values."
    if must and not exact:
        return "They must give the same values: device and computer do not compute the same model."
    if reference == OTHER_REFERENCE:
        return "Reference kernels of different packages round some operators otherwise, FULLY_CONNECTED among them."
    if must:
        return "Floating point: the processors round differently."
    if kernels == "generated-c":
        return "Generated C computes as TensorFlow Lite Micro does, whose kernels round some operators otherwise."
    return (
        "XNNPACK, the optimized kernels and the Edge TPU round otherwise than the reference kernels: single steps per "
        "operator, which a softmax can widen to tens of steps. Accuracy tells whether it matters."
    )


def accuracy(results: Outputs, labels: Sequence[int] | None, output: BoardTensor, where: str) -> Measured | Unknown:
    """The share of samples whose greatest element of the first output is at the label; further labels are ignored."""
    if labels is None:
        return Unknown("no labelled data were given")
    values = np.frombuffer(b"".join(row[0] for row in results), element_type(output)).reshape(len(results), -1)
    wanted = np.asarray(labels[: len(results)])
    if values.shape[1] <= wanted.max():
        return Unknown(f"the labels reach {wanted.max()}, the first output has {values.shape[1]} elements")
    right = int(np.count_nonzero(values.argmax(axis=1) == wanted))
    return Measured(right / len(wanted), "ratio", f"{right} of {len(wanted)} samples, {where}")
