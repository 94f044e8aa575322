"""The exception tree. Every error is a fact with a next step.

    EdgeqError                 code, what, where, why, try_          exit status
    ├── AnswerNo               the question was answered: no              1
    ├── InputError             wrong usage or unusable input              2
    │   ├── UsageError         an option or argument
    │   ├── ModelError         a model file or object
    │   ├── DataError          representative or labelled data
    │   └── BoardError         a board's id or profile
    └── EnvironmentFailure     the surroundings failed                    3
        ├── ToolError          a compiler, emulator or package
        ├── DeviceError        the board or what runs on it
        │   └── LinkError      the line to the board
        └── OutputError        a place that cannot be written

`code` is stable and in kebab-case (`model-not-found`): scripts may depend on it. The command line renders an error
once; with `--json` the same fields are printed as a document.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class EdgeqError(Exception):
    """A failure that the user can understand and act upon.

    what: one sentence, what went wrong. where: the file, tensor, operator, option or port concerned.
    why: the cause, if known. try_: next steps, most likely first.
    """

    exit_status: ClassVar[int] = 3

    def __init__(
        self,
        code: str,
        what: str,
        *,
        where: str | None = None,
        why: str | None = None,
        try_: str | Sequence[str] = (),
    ) -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.where = where
        self.why = why
        self.try_: tuple[str, ...] = (try_,) if isinstance(try_, str) else tuple(try_)

    def to_json(self) -> dict[str, object]:
        """The fields as a JSON object, the same that the text shows."""
        return {
            "code": self.code,
            "what": self.what,
            "where": self.where,
            "why": self.why,
            "try": list(self.try_),
            "exit_status": self.exit_status,
        }


class AnswerNo(EdgeqError):
    """The tool worked and the answer is no: does not fit, differs, below the bar."""

    exit_status = 1


class InputError(EdgeqError):
    """Wrong usage or unusable input."""

    exit_status = 2


class UsageError(InputError):
    """An option or argument."""


class ModelError(InputError):
    """A model file or object."""


class DataError(InputError):
    """Representative or labelled data."""


class BoardError(InputError):
    """A board's id or profile."""


class EnvironmentFailure(EdgeqError):
    """The surroundings failed: no device, no compiler, no space."""

    exit_status = 3


class ToolError(EnvironmentFailure):
    """A compiler, emulator, flash tool or Python package."""


class DeviceError(EnvironmentFailure):
    """The board, or what runs on it."""


class LinkError(DeviceError):
    """The line to the board: port, frames, timeouts."""


class OutputError(EnvironmentFailure):
    """A place that cannot be written."""
