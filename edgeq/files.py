"""Files that are whole or absent: written beside their place, then renamed; and package data."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edgeq.errors import OutputError


def data_directory(name: str) -> Path:
    """`firmware` or `boards`: in a checkout at its top, in an installed package under `edgeq/_data`."""
    package = Path(__file__).parent
    installed = package / "_data" / name
    return installed if installed.is_dir() else package.parent / name


def output_error(path: Path, error: OSError) -> OutputError:
    """The error for a place that cannot be written."""
    return OutputError(
        "output-not-writable",
        f"Cannot write {path}.",
        where=str(path),
        why=error.strerror or str(error),
        try_=("Choose another place with -o.", f"Check the permissions of {path.parent} and the space left on it."),
    )


def write_file(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all. OutputError if the place cannot be written."""
    write_files({path: content})


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write several files, each whole or not at all, and none before all are on the disk beside their places.

    They take their places in the order given. OutputError if a place cannot be written.
    """
    waiting: dict[Path, Path] = {}
    path = Path()
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            waiting[path] = Path(temporary)
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
            waiting[path].chmod(0o644)
        for path, beside in waiting.items():
            beside.replace(path)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        for beside in waiting.values():
            beside.unlink(missing_ok=True)


@contextmanager
def write_directory(path: Path, *, owned_marker: str) -> Iterator[Path]:
    """A new directory to fill, which takes the place of `path` when the block ends without an error.

    An existing `path` is replaced only if it is empty or holds the file `owned_marker` (an earlier output of ours);
    OutputError otherwise.
    """
    if path.exists() and not path.is_dir():
        raise OutputError("output-not-writable", f"{path} is a file, not a directory.", try_="Choose another place.")
    if path.is_dir() and any(path.iterdir()) and not (path / owned_marker).is_file():
        raise OutputError(
            "output-not-ours",
            f"{path} holds files that EdgeQ did not write; it is left as it is.",
            where=str(path),
            why=f"It has no {owned_marker}.",
            try_="Choose an empty or new directory with -o.",
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        temporary.chmod(0o755)
    except OSError as error:
        raise output_error(path, error) from error
    try:
        yield temporary
        if path.is_dir():
            retired = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
            path.replace(retired / path.name)
            temporary.replace(path)
            shutil.rmtree(retired)
        else:
            temporary.replace(path)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
