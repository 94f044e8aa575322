"""The representative data before anything is converted: wrong data raise DataError, doubtful ones warn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import DataError
from edgeq.quantization.data import Dataset
from edgeq.quantization.report import Warned

FEW_SAMPLES = 20
MOVING_RANGE = 0.1
OUTLIER_RATIO = 10.0


class Input(Protocol):
    """What the doctor needs to know of a model's input."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...


def fit_to_model(data: Dataset, inputs: Sequence[Input]) -> list[NDArray[Any]]:
    """One array per model input, in the model's order, of shape (samples, *shape) and the input's type.

    Inputs are matched by name; a single input takes whatever the data call theirs. A missing axis of size 1 is added.
    DataError if names, shapes, types or values do not fit.
    """
    if len(inputs) == 1 and len(data.inputs) == 1:
        pairs = [(inputs[0], next(iter(data.inputs.values())))]
    else:
        missing = [i.name for i in inputs if i.name not in data.inputs]
        surplus = [name for name in data.inputs if name not in {i.name for i in inputs}]
        if missing or surplus:
            raise DataError(
                "data-inputs",
                f"The data name {_listed(data.inputs)}; the model takes {_listed([i.name for i in inputs])}.",
                where=data.source,
                try_="Name one array for each input: np.savez(path, **{input_name: samples, ...}, y=labels).",
            )
        pairs = [(i, data.inputs[i.name]) for i in inputs]
    return [_fitted(spec, array, data.source) for spec, array in pairs]


def _listed(names: Any) -> str:
    return ", ".join(sorted(names))


def _fitted(spec: Input, array: NDArray[Any], source: str) -> NDArray[Any]:
    where = f"{source}, input {spec.name}"
    wanted = tuple(spec.shape)
    if array.shape[1:] != wanted:
        squeezed = tuple(d for d in array.shape[1:] if d != 1)
        if squeezed != tuple(d for d in wanted if d != 1):
            raise DataError(
                "data-shape",
                f"A sample has shape {array.shape[1:]}; input {spec.name} takes {wanted}.",
                where=where,
                why="It has as many numbers in another order." if array[0].size == int(np.prod(wanted)) else None,
                try_=f"Store samples of shape {wanted}; the first axis of the array counts samples.",
            )
        array = array.reshape(len(array), *wanted)
    if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
        bad = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
        raise DataError(
            "data-not-finite",
            f"{len(bad)} of {len(array)} samples hold NaN or infinity, sample {bad[0]} first.",
            where=where,
            try_="Leave those samples out, or repair what makes them.",
        )
    if np.dtype(spec.dtype).kind in "iub" and array.dtype.kind == "f" and np.any(array % 1):
        raise DataError(
            "data-type",
            f"Input {spec.name} takes {spec.dtype}; the data are fractions.",
            where=where,
            try_=f"Store {spec.dtype} samples.",
        )
    with np.errstate(over="ignore"):
        fitted = array.astype(spec.dtype)
    if fitted.dtype.kind == "f" and not np.all(np.isfinite(fitted)):
        raise DataError(
            "data-not-finite",
            f"Samples leave the range of {spec.dtype}.",
            where=where,
            try_="Scale the samples as in training.",
        )
    return fitted


def examine(
    arrays: Sequence[NDArray[Any]], inputs: Sequence[Input], labels: NDArray[np.int64] | None, source: str
) -> list[Warned]:
    """What is doubtful about representative data that fit the model. DataError if every sample is the same constant."""
    found: list[Warned] = []
    count = len(arrays[0])
    if count < FEW_SAMPLES:
        found.append(
            Warned(
                "few-samples",
                f"{count} samples calibrate; ranges from so few clip what comes later.",
                "Give 100 to 500.",
            )
        )
    for spec, array in zip(inputs, arrays, strict=True):
        if array.dtype.kind == "f":
            found += _examine_input(spec.name, array, source)
    if labels is not None and count >= FEW_SAMPLES:
        counts = np.bincount(labels[labels >= 0])
        absent = np.flatnonzero(counts == 0)
        if len(absent):
            found.append(
                Warned(
                    "classes-missing",
                    f"No sample of class {', '.join(map(str, absent[:5]))}.",
                    "Give samples of each class.",
                )
            )
        elif counts.max() > 10 * counts.min() and len(counts) > 1:
            found.append(
                Warned(
                    "classes-unbalanced",
                    f"Classes have from {counts.min()} to {counts.max()} samples.",
                    "Balance them.",
                )
            )
    return found


def _examine_input(name: str, array: NDArray[Any], source: str) -> list[Warned]:
    low, high = float(array.min()), float(array.max())
    if low == high:
        raise DataError(
            "data-constant",
            f"Every number of input {name} is {low:g}.",
            where=source,
            why="A range without width gives a scale that makes every other value wrong.",
            try_="Give real samples.",
        )
    found: list[Warned] = []
    flat = array.reshape(len(array), -1)
    if len(array) > 1 and np.all(flat == flat[0]):
        found.append(Warned("samples-equal", f"All samples of input {name} are the same.", "Give different samples."))
    channels = array.reshape(-1, array.shape[-1])
    constant = np.flatnonzero(channels.min(axis=0) == channels.max(axis=0))
    if array.ndim == 4 and len(constant):
        found.append(
            Warned(
                "channel-constant",
                f"Channels {constant[:8].tolist()} of input {name} never change.",
                "Check how the samples are made.",
            )
        )
    bulk = float(np.percentile(np.abs(flat - np.median(flat)), 99.9))
    extreme = float(np.max(np.abs(flat - np.median(flat))))
    if bulk > 0 and extreme > OUTLIER_RATIO * bulk:
        found.append(
            Warned(
                "outliers",
                f"Input {name} reaches {low:.4g}..{high:.4g}, while 99.9 % of it lies within {bulk:.4g} of the median.",
                "Leave the outliers out, or use --calibration percentile.",
            )
        )
    half = flat[: len(flat) // 2]
    if len(flat) >= FEW_SAMPLES:
        moved = 1 - (float(half.max()) - float(half.min())) / (high - low)
        if moved > MOVING_RANGE:
            found.append(
                Warned(
                    "ranges-still-moving",
                    f"The second half of the samples widens input {name}'s range by {moved:.0%} of it.",
                    "Give more samples, or shuffle them.",
                )
            )
    return found


def compare_with_training(
    name: str,
    seen_mean: NDArray[Any],
    seen_variance: NDArray[Any],
    moving_mean: NDArray[Any],
    moving_variance: NDArray[Any],
) -> Warned | None:
    """Whether the data look like the training data, to the model's first BatchNormalization.

    It recorded mean and variance per channel of what training fed it. The same statistics of the representative data
    differ little if these are of the same kind, and wildly after a forgotten or repeated normalization.
    """
    deviation = np.sqrt(np.maximum(moving_variance, 1e-12))
    shift = float(np.median(np.abs(seen_mean - moving_mean) / deviation))
    ratio = float(np.median(np.sqrt(np.maximum(seen_variance, 1e-24)) / deviation))
    if shift < 3 and 1 / 4 < ratio < 4:
        return None
    kind = "not normalized, or in another unit," if ratio > 4 else "normalized twice, or in another unit,"
    if 1 / 4 < ratio < 4:
        kind = "shifted"
    return Warned(
        "data-unlike-training",
        f"The data are {kind} compared with what the model was trained on: before {name}, the deviation is {ratio:.3g} "
        f"times and the mean {shift:.3g} deviations off what training recorded.",
        "Feed the samples exactly as in training.",
    )
