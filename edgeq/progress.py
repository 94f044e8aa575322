"""How long work reports its progress: a callable given what is done, how much, and of how much (None: unknown)."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]


def silent(what: str, done: int, total: int | None) -> None:
    """Report to nobody."""
