"""Several boards at the same time: each in a thread of its own, for a session waits most of its time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

from edgeq.benchmark.result import BenchReport
from edgeq.boards import Board
from edgeq.errors import EdgeqError, UsageError
from edgeq.progress import Progress

Measure = Callable[[Board, Progress], BenchReport]
LineProgress = Callable[[str, str, int, int | None], None]
"""Called with the board's id, what is done there, and how far."""
_LOOK_S = 0.2
"""A wait without end would not hear Control-C on every system."""


@dataclass(frozen=True, slots=True)
class BoardsReport:
    """Results by board, in the order asked for; a board's failure is no other's."""

    results: tuple[BenchReport, ...]
    failures: dict[str, EdgeqError]

    @property
    def ok(self) -> bool:
        return not self.failures and all(result.ok for result in self.results)

    @property
    def exit_status(self) -> int:
        """The gravest failure's; without one 0, or 1 where a board's outputs differ."""
        return max((error.exit_status for error in self.failures.values()), default=0 if self.ok else 1)

    def to_json(self) -> dict[str, object]:
        return {
            "ok": self.ok,
            "boards": [result.to_json() for result in self.results],
            "failures": {board: error.to_json() for board, error in self.failures.items()},
        }


def bench_boards(boards: Sequence[Board], measure: Measure, progress: LineProgress) -> BoardsReport:
    """`measure` each of `boards`, all at once. UsageError `board-twice` if one is named twice."""
    names = [board.id for board in boards]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(
            "board-twice", f"{', '.join(sorted(twice))} is named twice.", where="--board", try_="Name each board once."
        )

    interrupted = threading.Event()

    def one(board: Board) -> BenchReport | EdgeqError:
        def show(what: str, done: int, total: int | None) -> None:
            if interrupted.is_set():
                raise KeyboardInterrupt
            progress(board.id, what, done, total)

        try:
            return measure(board, show)
        except EdgeqError as error:
            return error

    with ThreadPoolExecutor(len(boards)) as pool:
        try:
            futures = [pool.submit(one, board) for board in boards]
            while wait(futures, timeout=_LOOK_S).not_done:
                pass
        except KeyboardInterrupt:
            interrupted.set()
            raise
    found = dict(zip(names, (future.result() for future in futures), strict=True))
    return BoardsReport(
        tuple(result for result in found.values() if isinstance(result, BenchReport)),
        {name: result for name, result in found.items() if isinstance(result, EdgeqError)},
    )
