"""Session × data → BenchReport."""

from edgeq.benchmark.result import BenchReport
from edgeq.benchmark.run import DEFAULT_RUNS, bench

__all__ = ["DEFAULT_RUNS", "BenchReport", "bench"]
