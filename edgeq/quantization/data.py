"""DATA as the user names it: `.npz`, `.npy`, `.csv`, a folder of images, `package.module:function`, or arrays.

Nothing here executes what a file holds: pickled arrays are refused. `package.module:function` alone runs code, the
user's own.
"""

from __future__ import annotations

import csv
import importlib
import os
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import DataError, ToolError

LABELS = "y"
MAXIMUM_BYTES = 8 << 30
MAXIMUM_SAMPLES = 1_000_000
_IMAGES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm"})
_MAXIMUM_PIXELS = 100_000_000
_FORMS = "DATA is a .npz with x (and y), a .npy, a .csv, a folder of images, or package.module:function."


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Samples: input name -> array whose first axis counts samples ("x" where nothing names the input).

    `labels` are integers of shape (samples,), or None. `source` is where they came from, for messages.
    """

    inputs: Mapping[str, NDArray[Any]]
    labels: NDArray[np.int64] | None
    source: str

    def __len__(self) -> int:
        return min((len(array) for array in self.inputs.values()), default=0)

    def head(self, count: int) -> Dataset:
        """`count` samples spread evenly over all of them, in order."""
        if count >= len(self):
            return self
        chosen = np.linspace(0, len(self) - 1, count).round().astype(np.int64)
        return Dataset(
            {name: array[chosen] for name, array in self.inputs.items()},
            None if self.labels is None else self.labels[chosen],
            self.source,
        )


def load_data(  # noqa: PLR0911
    data: Any, *, image_shape: tuple[int, ...] | None = None
) -> Dataset:
    """Samples from whatever `data` is (see the module); DataError, with what to do, if it cannot be used.

    `image_shape` (height, width, channels) is what images of a folder are resized to; pixels stay 0..255.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, Mapping):
        return _from_mapping(data, "the mapping given as data")
    if isinstance(data, tuple) and len(data) == 2:
        return _from_mapping({"x": data[0], LABELS: data[1]}, "the arrays given as data")
    if isinstance(data, np.ndarray):
        return _checked({"x": data}, None, "the array given as data")
    if callable(data):
        return _from_samples(data, getattr(data, "__qualname__", "the function given as data"))
    if not isinstance(data, (str, os.PathLike)):
        if isinstance(data, Iterable):
            return _from_samples(lambda: data, "the samples given as data")
        raise DataError("data-unusable", f"A {type(data).__name__} is not data.", try_=_FORMS)
    path = Path(data)
    if path.is_dir():
        return _from_images(path, image_shape)
    if not path.exists():
        return _from_name(str(data))
    readers = {".npz": _from_npz, ".npy": _from_npy, ".csv": _from_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError("data-unusable", f"{path} is not data that EdgeQ reads.", where=str(path), try_=_FORMS)
    try:
        return reader(path)
    except OSError as error:
        raise DataError(
            "data-unreadable", f"{path} cannot be read.", where=str(path), why=error.strerror or str(error)
        ) from error


def _checked(inputs: Mapping[str, Any], labels: Any, source: str) -> Dataset:
    arrays: dict[str, NDArray[Any]] = {}
    for name, value in inputs.items():
        try:
            array = np.asarray(value)
        except (ValueError, TypeError) as error:
            raise DataError(
                "data-shape", f"The samples of {name} differ in shape.", where=source, why=str(error)
            ) from error
        if array.dtype.kind not in "fiub":
            raise DataError(
                "data-type",
                f"{name} holds {array.dtype} elements, not numbers.",
                where=source,
                try_="Store numbers (float32, or the integers that the model takes).",
            )
        if array.ndim == 0:
            raise DataError("data-shape", f"{name} is one number, not samples.", where=source, try_=_FORMS)
        arrays[name] = array
    counts = {name: len(array) for name, array in arrays.items()}
    if not arrays or max(counts.values()) == 0:
        raise DataError("data-empty", "The data hold no samples.", where=source, try_="Give 100 or more samples.")
    if len(set(counts.values())) > 1:
        raise DataError("data-shape", f"The inputs differ in their number of samples: {counts}.", where=source)
    return Dataset(arrays, _labels(labels, next(iter(counts.values())), source), source)


def _labels(labels: Any, count: int, source: str) -> NDArray[np.int64] | None:
    if labels is None:
        return None
    array = np.asarray(labels)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and array.dtype.kind in "fiub" and np.all((array == 0) | (array == 1)):
        array = np.argmax(array, axis=1)
    if array.ndim != 1 or array.dtype.kind not in "fiub" or not np.all(np.isfinite(array)) or np.any(array % 1):
        raise DataError(
            "labels-unusable",
            f"{LABELS} has shape {array.shape} and type {array.dtype}; labels are one class number a sample.",
            where=source,
            try_="Store y as integers of shape (samples,), or leave y out.",
        )
    if len(array) != count:
        raise DataError(
            "labels-unusable",
            f"There are {count} samples and {len(array)} labels.",
            where=source,
            try_="Store one label a sample, or leave y out.",
        )
    return array.astype(np.int64)


def _from_mapping(data: Mapping[Any, Any], source: str) -> Dataset:
    inputs = {str(name): value for name, value in data.items() if name != LABELS}
    return _checked(inputs, data.get(LABELS), source)


def _from_npz(path: Path) -> Dataset:
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(entry.file_size for entry in archive.infolist())
        if total > MAXIMUM_BYTES:
            raise DataError("data-too-large", f"{path} unpacks to {total >> 20} MiB.", where=str(path))
        with np.load(path, allow_pickle=False) as archive:
            return _from_mapping({name: archive[name] for name in archive.files}, str(path))
    except (ValueError, zipfile.BadZipFile, EOFError, KeyError, NotImplementedError) as error:
        raise _damaged(path, error) from error


def _from_npy(path: Path) -> Dataset:
    try:
        return _checked({"x": np.load(path, allow_pickle=False)}, None, str(path))
    except (ValueError, EOFError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    if "pickle" in str(error).lower():
        return DataError(
            "data-pickled",
            f"{path} holds pickled Python objects, which could run code; they are not loaded.",
            where=str(path),
            try_="Store plain arrays of one shape: np.savez(path, x=np.asarray(samples, np.float32)).",
        )
    return DataError(
        "data-damaged",
        f"{path} is damaged or not what its name says.",
        where=str(path),
        why=str(error),
        try_="Write it again: np.savez(path, x=samples, y=labels).",
    )


def _from_csv(path: Path) -> Dataset:
    """One sample a line, numbers separated by commas; a header line may name one column y or label."""
    with path.open(newline="", encoding="utf-8", errors="strict") as stream:
        try:
            rows = [row for row in csv.reader(stream) if row]
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError("data-damaged", f"{path} is not a .csv.", where=str(path), why=str(error)) from error
    label_column = None
    if rows and not _numbers(rows[0]):
        header = [name.strip().lower() for name in rows.pop(0)]
        label_column = next((i for i, name in enumerate(header) if name in (LABELS, "label")), None)
    for line, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]) or not _numbers(row):
            raise DataError(
                "data-damaged",
                f"Sample {line} of {path} is not {len(rows[0])} numbers.",
                where=f"{path}, sample {line}",
                try_="One sample a line, numbers separated by commas; a header may name one column y.",
            )
    if not rows:
        raise DataError("data-empty", f"{path} holds no samples.", where=str(path), try_="Give 100 or more samples.")
    table = np.array([[float(cell) for cell in row] for row in rows], np.float32)
    if label_column is None:
        return _checked({"x": table}, None, str(path))
    return _checked({"x": np.delete(table, label_column, axis=1)}, table[:, label_column], str(path))


def _numbers(row: list[str]) -> bool:
    try:
        [float(cell) for cell in row]
    except ValueError:
        return False
    return True


def image_files(folder: Path) -> tuple[list[Path], list[str]]:
    """The images of a folder, or of its sub-folders; and the sub-folders' names, the classes in order of label."""
    classes = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    places = [folder / name for name in classes] or [folder]
    files = [f for place in places for f in sorted(place.iterdir()) if f.suffix.lower() in _IMAGES]
    if not files:
        raise DataError(
            "data-empty",
            f"{folder} holds no images.",
            where=str(folder),
            try_=f"Put images ({', '.join(sorted(_IMAGES))}) into it, or into one sub-folder a class.",
        )
    return files, classes


def _from_images(folder: Path, shape: tuple[int, ...] | None) -> Dataset:
    try:
        from PIL import Image
    except ImportError as error:
        raise ToolError(
            "package-missing", "Folders of images need Pillow.", try_="pip install 'edgeq[convert]'"
        ) from error
    files, classes = image_files(folder)
    if shape is not None and (len(shape) != 3 or shape[2] not in (1, 3)):
        raise DataError(
            "data-shape",
            f"The model takes {shape}, not images.",
            where=str(folder),
            try_="Give a .npz whose x has the model's input shape.",
        )
    pixels = []
    for file in files:
        try:
            with Image.open(file) as image:
                if image.width * image.height > _MAXIMUM_PIXELS:
                    raise DataError("data-too-large", f"{file} is larger than 100 megapixels.", where=str(file))
                plain = image.convert("L" if shape is not None and shape[2] == 1 else "RGB")
                if shape is not None and plain.size != (shape[1], shape[0]):
                    plain = plain.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
                array = np.asarray(plain, np.uint8)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError("data-damaged", f"{file} is not an image.", where=str(file), why=str(error)) from error
        pixels.append(array[:, :, None] if array.ndim == 2 else array)
    labels = [classes.index(file.parent.name) for file in files] if classes else None
    return _checked({"x": pixels}, labels, str(folder))


def _from_name(name: str) -> Dataset:
    module, _, function = name.partition(":")
    if not function or not all(part.isidentifier() for part in (*module.split("."), function)):
        raise DataError("data-not-found", f"There are no data at {name}.", where=name, try_=_FORMS)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        producer = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise DataError(
            "data-not-found",
            f"{name} cannot be imported.",
            where=name,
            why=str(error),
            try_="Check the name and the path.",
        ) from error
    return _from_samples(producer, name)


def _from_samples(producer: Callable[[], Any], source: str) -> Dataset:
    """Samples that a function yields: arrays, (x, y) pairs, or {input: array} mappings, without a batch axis."""
    try:
        produced = producer()
        if isinstance(produced, (np.ndarray, Mapping)) or (isinstance(produced, tuple) and len(produced) == 2):
            return load_data(produced)
        samples = []
        for sample in produced:
            samples.append(sample)
            if len(samples) > MAXIMUM_SAMPLES:
                raise DataError("data-too-large", f"{source} yields over {MAXIMUM_SAMPLES:,} samples.", where=source)
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            "data-function-failed", f"{source} failed.", where=source, why=f"{type(error).__name__}: {error}"
        ) from error
    if not samples:
        raise DataError("data-empty", f"{source} yields no samples.", where=source, try_="Yield 100 or more samples.")
    labels = None
    if isinstance(samples[0], tuple) and len(samples[0]) == 2:
        labels = [label for _, label in samples]
        samples = [x for x, _ in samples]
    if isinstance(samples[0], Mapping):
        return _checked({str(k): [np.asarray(s[k]) for s in samples] for k in samples[0]}, labels, source)
    return _checked({"x": [np.asarray(sample) for sample in samples]}, labels, source)
