"""How far a remedy moves a model's outputs: both models on this computer's interpreter, on the same random inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.graph import write_bytes
from edgeq.graph.ir import Graph, Tensor

SAMPLES, SEED = 32, 1


@dataclass(frozen=True, slots=True)
class Difference:
    """Over all elements of all outputs, in the outputs' real unit: largest and mean difference, largest magnitude."""

    largest: float
    mean: float
    magnitude: float

    def __str__(self) -> str:
        return (
            f"outputs differ by {self.largest:.3g} at most, {self.mean:.3g} on average, of magnitudes up to "
            f"{self.magnitude:.3g}: measured on {SAMPLES} seeded random inputs, not on your data"
        )


def difference(before: Graph, after: Graph) -> Difference:
    """Measure; the graphs' inputs and outputs have equal shapes and types. ToolError `interpreter-missing`."""
    from edgeq.interpreter import for_measuring

    models = for_measuring(write_bytes(before)), for_measuring(write_bytes(after))
    rng = np.random.default_rng(SEED)
    expected: list[NDArray[np.float64]] = []
    got: list[NDArray[np.float64]] = []
    for _ in range(SAMPLES):
        inputs = [_random(before.tensors[index], rng) for index in before.inputs]
        for model, graph, results in zip(models, (before, after), (expected, got), strict=True):
            results += [_real(graph.tensors[i], v) for i, v in zip(graph.outputs, model.run(inputs), strict=True)]
    truth = np.concatenate(expected)
    apart = np.abs(truth - np.concatenate(got))
    return Difference(float(apart.max()), float(apart.mean()), float(np.abs(truth).max()))


def _random(tensor: Tensor, rng: np.random.Generator) -> NDArray[Any]:
    """Values over the type's whole range; normal ones for floats."""
    dtype = tensor.type.dtype
    if dtype is None or dtype.kind not in "iuf":
        raise ValueError(f"{tensor.name} is {tensor.type.name}")
    if dtype.kind == "f":
        return rng.normal(0, 1, tensor.shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, tensor.shape, dtype, endpoint=True)


def _real(tensor: Tensor, values: NDArray[Any]) -> NDArray[np.float64]:
    quantization = tensor.quantization
    flat = values.astype(np.float64).reshape(-1)
    return flat if quantization is None else (flat - tensor.zero_point) * tensor.scale
