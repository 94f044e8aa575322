"""Outputs of a board against those of this computer's reference kernels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeq.benchmark.manifest import Tensor as BoardTensor
from edgeq.benchmark.samples import element_type
from edgeq.device.ssh.reports import Comparison
from edgeq.graph import Graph, Tensor
from edgeq.interpreter import Interpreter
from edgeq.measure import Measured, Unknown
from edgeq.progress import Progress

FLOAT_TOLERANCE = 1e-4
"""Relative, for outputs in floating point: processors fuse and order additions differently."""
MUST_AGREE = ("reference", "generated-c")


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


Outputs = Sequence[Sequence[bytes]]
"""`[sample][output]`"""


def compare(
    kernels: str, got: Outputs, expected: Outputs, outputs: Sequence[BoardTensor], labels: Sequence[int] | None
) -> Comparison:
    """Element by element; `same` is about what must agree: integers of reference kernels and generated C, exactly."""
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
    must = kernels in MUST_AGREE
    return Comparison(
        kernels=kernels,
        samples=len(got),
        elements=elements,
        differing=differing,
        largest=largest,
        same=exact or not must,
        explanation=_explanation(must, differing, exact),
        accuracy=accuracy(got, labels, outputs[0], f"{kernels} on the device"),
        host_accuracy=accuracy(expected, labels, outputs[0], "reference kernels on this computer"),
    )


def _explanation(must: bool, differing: int, exact: bool) -> str:
    if not differing:
        return "The same values as this computer's reference kernels."
    if must and not exact:
        return "These kernels must give the reference's values: device and computer do not compute the same model."
    if must:
        return "Floating point: the processors round differently."
    return (
        "XNNPACK and the Edge TPU round otherwise than the reference kernels: single steps per operator, which a "
        "softmax can widen to tens of steps. Accuracy tells whether it matters."
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
