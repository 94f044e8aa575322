"""Mixtures of schemes built, run and priced, one after another or in several processes: what a search asks for.

A `Setting` is sent once to each process; a `Trial` is small. The same trial gives the same outcome everywhere.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from edgeq.boards import Board
from edgeq.errors import EnvironmentFailure, ModelError, ToolError
from edgeq.graph import read_bytes
from edgeq.measure import Computed, Estimated, Quantity, Unknown
from edgeq.progress import Progress, silent
from edgeq.quantization.evaluation import classes, mean_absolute_error, outputs_of
from edgeq.quantization.report import measured

Sample = Sequence[NDArray[Any]]
_QUICK_SAMPLES = 48
_CONNECT_SECONDS = 10
_SIZES = ("flash-too-small", "ram-too-small")


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """A float `.tflite` and what its mixtures are made with and measured on.

    `samples` calibrate (batch-1 arrays); `fed` are the samples to measure on (arrays without batch axis), `expected`
    the float model's output for them, which is a probability for `probability`. `recipe` is a `post_training.Recipe`.
    """

    tflite: bytes
    samples: Sequence[Sample]
    recipe: Any
    macs: int
    io: str
    per_channel: bool
    fed: Sequence[Sample]
    expected: NDArray[Any]
    labels: NDArray[np.int64] | None
    probability: bool
    board: Board


@dataclass(frozen=True, slots=True)
class Trial:
    """A scheme for each operator. `quick`: the error alone, on few samples and the optimized kernels."""

    schemes: tuple[str, ...]
    quick: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a trial gave. `error` is the mean absolute error in units of the float output's deviation.

    `accuracy` is the share of samples with the right class, or without labels with float's class. `cost_bytes` is the
    flash the board needs, or where it has none the file's size; `work` the plan's estimated instructions. `runs`: the
    board has kernels for all operators; `fits`: it also has the memory. `problem`: why there is no model, or none that
    runs or fits.
    """

    error: float
    accuracy: Quantity
    cost_bytes: Quantity
    ram_bytes: Quantity
    work: Quantity
    latency: Quantity
    runs: bool
    fits: bool
    problem: str | None


class Evaluator:
    """Evaluates trials of one setting; what is learned of its float model is kept from one to the next."""

    def __init__(self, setting: Setting) -> None:
        from edgeq.quantization.post_training import Float, PostTraining

        self._setting = setting
        self._lock = threading.Lock()
        self._training = PostTraining(
            Float(setting.tflite, read_bytes(setting.tflite)),
            setting.samples,
            io=setting.io,
            macs=setting.macs,
            weight_bits=8,
            progress=silent,
            per_channel=setting.per_channel,
        )

    def build(self, schemes: tuple[str, ...]) -> Any:
        """The `post_training.Quantized` of a trial. ModelError where the converter has no such form."""
        recipe = self._setting.recipe
        if "int4" in schemes and recipe.weights == "nearest":
            recipe = replace(recipe, weights="reconstructed")
        return self._training.mixed(schemes).build(recipe)

    def __call__(self, trial: Trial) -> Outcome:
        # The converter is not made for several threads, which Dask's workers have.
        with self._lock:
            return self._evaluate(trial)

    def _evaluate(self, trial: Trial) -> Outcome:
        setting, unknown = self._setting, Unknown("not asked for")
        try:
            tflite = self.build(trial.schemes).tflite
        except ModelError as error:
            why = error.why or error.what
            return _unpriced(np.inf, unknown, runs=False, problem=why)
        graph = read_bytes(tflite)
        if trial.quick:
            some = np.linspace(0, len(setting.fed) - 1, min(_QUICK_SAMPLES, len(setting.fed))).astype(np.int64)
            output = outputs_of(tflite, graph, [setting.fed[i] for i in some], reference=False)
            distance = mean_absolute_error([setting.expected[some]], output)
            return _unpriced(distance, unknown)
        output = outputs_of(tflite, graph, setting.fed)
        distance = mean_absolute_error([setting.expected], output)
        accuracy = self._accuracy(output[0])
        return self._priced(_unpriced(distance, accuracy), tflite)

    def _accuracy(self, output: NDArray[Any]) -> Quantity:
        setting = self._setting
        chosen, by_float = (classes(values, setting.probability) for values in (output, setting.expected))
        assert chosen is not None
        right = by_float if setting.labels is None else setting.labels
        return measured(np.mean(chosen == right), "fraction", f"TFLite reference kernels, {len(chosen)} samples")

    def _priced(self, outcome: Outcome, tflite: bytes) -> Outcome:
        from edgeq.checks import Plans, check

        graph, board = read_bytes(tflite), self._setting.board
        plans = Plans(graph)
        report = check(graph, board, plans=plans)
        errors = [f for f in report.findings if f.severity == "error"]
        blocking = next((f for f in errors if f.rule not in _SIZES), None)
        flash, ram = report.use("flash"), report.use("ram")
        work: Quantity = Unknown("there is no plan for this board")
        if blocking is None and board.executor("generated-c") is not None:
            instructions = sum(step.cost for step in plans.of(board).steps)
            work = Estimated(instructions, "instructions", "from the compile plan")
        return replace(
            outcome,
            cost_bytes=Computed(len(tflite), "bytes", "the file's size") if flash is None else flash.needed,
            ram_bytes=Unknown("not known on this board") if ram is None else ram.needed,
            work=work,
            latency=report.latency,
            runs=blocking is None,
            fits=report.fits,
            problem=None if not errors else (blocking or errors[0]).found,
        )


def _unpriced(error: float, accuracy: Quantity, *, runs: bool = True, problem: str | None = None) -> Outcome:
    unknown = Unknown("not asked for")
    return Outcome(error, accuracy, unknown, unknown, unknown, unknown, runs, runs, problem)


Batch = Callable[[Sequence[Trial], Progress], list[Outcome]]
"""Trials -> outcomes in the same order."""

_installed: Evaluator | None = None


def _install(setting: Setting) -> None:
    global _installed  # noqa: PLW0603  # a process of the pool has one setting
    _installed = Evaluator(setting)


def _evaluate(trial: Trial) -> Outcome:
    assert _installed is not None
    return _installed(trial)


@contextmanager
def evaluating(setting: Setting, *, jobs: int, scheduler: str | None) -> Iterator[Batch]:
    """What evaluates batches of trials: `jobs` processes here, or the workers of a Dask scheduler at an address.

    The workers need the same version of edgeq with its extra `convert`. ToolError, EnvironmentFailure.
    """
    if scheduler is not None:
        with _cluster(setting, scheduler) as batch:
            yield batch
        return
    if jobs == 1:
        evaluator = Evaluator(setting)
        yield lambda trials, progress: _counted(map(evaluator, trials), len(trials), progress)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), _install, (setting,)) as pool:

        def batch(trials: Sequence[Trial], progress: Progress) -> list[Outcome]:
            try:
                return _counted(pool.map(_evaluate, trials), len(trials), progress)
            except BrokenProcessPool as error:
                raise ModelError(
                    "converter-crashed",
                    "TensorFlow's converter took a process of the search down.",
                    why=str(error),
                    try_=(
                        "Use fewer processes if memory ran out: --jobs 1.",
                        "Convert with one --scheme to see which.",
                    ),
                ) from error

        yield batch


def _counted(outcomes: Iterator[Outcome], total: int, progress: Progress) -> list[Outcome]:
    found = []
    for outcome in outcomes:
        found.append(outcome)
        progress("trying mixtures", len(found), total)
    return found


@contextmanager
def _cluster(setting: Setting, address: str) -> Iterator[Batch]:
    try:
        from distributed import Client
    except ImportError as error:
        raise ToolError(
            "distributed-missing",
            "A search on other computers needs the package distributed.",
            where="--scheduler",
            try_="pip install 'edgeq[search]'",
        ) from error
    try:
        client: Any = Client(address, timeout=_CONNECT_SECONDS)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise EnvironmentFailure(
            "scheduler-unreachable",
            f"No Dask scheduler answers at {address}.",
            where="--scheduler",
            why=str(error).splitlines()[0] if str(error) else type(error).__name__,
            try_=(
                "Start one: dask scheduler, and workers: dask worker ADDRESS.",
                "Check the address, tcp://HOST:8786.",
            ),
        ) from error
    with client:
        key = f"edgeq-setting-{uuid4().hex}"
        [shared] = client.scatter([setting], broadcast=True)

        def batch(trials: Sequence[Trial], progress: Progress) -> list[Outcome]:
            waiting = [client.submit(_on_worker, key, shared, trial, pure=False) for trial in trials]
            return _counted((future.result() for future in waiting), len(trials), progress)

        yield batch


_workers: dict[str, Evaluator] = {}
_workers_lock = threading.Lock()


def _on_worker(key: str, setting: Setting, trial: Trial) -> Outcome:
    with _workers_lock:
        if key not in _workers:
            _workers.clear()
            _workers[key] = Evaluator(setting)
        evaluator = _workers[key]
    return evaluator(trial)
