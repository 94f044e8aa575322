"""Model inputs as the bytes that a board takes, from arrays or from a seeded generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.benchmark.manifest import Tensor
from edgeq.errors import DataError

SEED = 20260101
_NUMPY = {
    "INT8": "<i1",
    "UINT8": "<u1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FLOAT32": "<f4",
    "FLOAT64": "<f8",
    "BOOL": "?",
}


@dataclass(frozen=True, slots=True)
class Samples:
    """`inputs[sample][input]` are an input's bytes; `labels` the classes, if known; `origin`: where all come from."""

    inputs: tuple[tuple[bytes, ...], ...]
    labels: tuple[int, ...] | None
    origin: str

    def __len__(self) -> int:
        return len(self.inputs)


def element_type(tensor: Tensor) -> np.dtype[Any]:
    """numpy's little-endian type of the tensor's elements. DataError `type-unsupported` for one that has none."""
    name = _NUMPY.get(tensor.type)
    if name is None:
        raise DataError("type-unsupported", f"The tensor {tensor.name} has the type {tensor.type}, unknown here.")
    return np.dtype(name)


def random_samples(inputs: Sequence[Tensor], count: int, *, seed: int = SEED) -> Samples:
    """`count` seeded inputs: integers over their type's whole range, floats from the standard normal distribution."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        rows.append(tuple(_random(generator, tensor) for tensor in inputs))
    return Samples(tuple(rows), None, f"{count} random inputs, seed {seed}")


def _random(generator: np.random.Generator, tensor: Tensor) -> bytes:
    type_ = element_type(tensor)
    count = tensor.bytes // type_.itemsize
    if type_.kind == "f":
        return generator.standard_normal(count).astype(type_).tobytes()
    if type_.kind == "b":
        return generator.integers(0, 2, count).astype(type_).tobytes()
    limits = np.iinfo(type_)
    return generator.integers(limits.min, limits.max, count, dtype=type_, endpoint=True).tobytes()


def samples_from_arrays(
    x: NDArray[Any] | Sequence[NDArray[Any]], y: NDArray[Any] | None, inputs: Sequence[Tensor], *, origin: str = "data"
) -> Samples:
    """Samples along the first axis of `x` (one array an input, in the model's order), with integer labels `y`.

    Values of the input's own integer type are taken as they are; anything else is quantized with the input's scale and
    zero point, as `q = round(x / scale) + zero_point`, saturated. DataError `data-shape`, `data-empty`,
    `data-type`, `data-not-finite`.
    """
    arrays = [np.asarray(x)] if isinstance(x, np.ndarray) else [np.asarray(array) for array in x]
    if len(arrays) != len(inputs):
        raise _wrong_shape(f"The model has {len(inputs)} inputs, the data {len(arrays)}.")
    if any(array.ndim == 0 for array in arrays) or len({len(array) for array in arrays}) != 1:
        raise _wrong_shape("The inputs have different numbers of samples.")
    count = len(arrays[0])
    if count == 0:
        raise DataError("data-empty", "The data hold no sample.", try_="Give at least one.")
    if y is not None and (np.ndim(y) != 1 or len(y) != count or np.asarray(y).dtype.kind not in "iu"):
        raise _wrong_shape(f"The labels must be {count} integers, one a sample.")
    columns = [_encode(array, tensor) for array, tensor in zip(arrays, inputs, strict=True)]
    labels = None if y is None else tuple(int(label) for label in y)
    return Samples(tuple(zip(*columns, strict=True)), labels, origin)


def _encode(array: NDArray[Any], tensor: Tensor) -> list[bytes]:
    type_ = element_type(tensor)
    elements = tensor.bytes // type_.itemsize
    if prod(array.shape[1:]) != elements:
        raise _wrong_shape(f"The input {tensor.name} takes {elements} elements, a sample has {array.shape[1:]}.")
    if array.dtype.kind not in "fiub":
        raise DataError("data-type", f"The data are of type {array.dtype}, not numbers.", where=tensor.name)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError("data-not-finite", "The data hold NaN or infinity.", where=tensor.name)
    flat = array.reshape(len(array), -1)
    if array.dtype.newbyteorder("=") != type_.newbyteorder("=") and type_.kind in "iu" and tensor.scale:
        limits = np.iinfo(type_)
        scaled = np.round(flat.astype(np.float64) / tensor.scale) + (tensor.zero_point or 0)
        flat = np.clip(scaled, limits.min, limits.max)
    return [row.tobytes() for row in flat.astype(type_)]


def _wrong_shape(what: str) -> DataError:
    return DataError("data-shape", what, try_="The first axis counts samples, the others are the model's input shape.")
