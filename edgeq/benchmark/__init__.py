"""Session × data → BenchReport."""

from edgeq.benchmark.result import BenchReport
from edgeq.benchmark.run import DEFAULT_RUNS, bench
from edgeq.benchmark.several import BoardsReport, bench_boards
from edgeq.benchmark.store import ChangeReport, compare, keep, kept, room_for

__all__ = [
    "DEFAULT_RUNS",
    "BenchReport",
    "BoardsReport",
    "ChangeReport",
    "bench",
    "bench_boards",
    "compare",
    "keep",
    "kept",
    "room_for",
]
