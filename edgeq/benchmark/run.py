"""`bench`: run the model on the board with real inputs, time it, and hold it against this computer."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeq.benchmark.code import code_by_layer, portable_kernels
from edgeq.benchmark.divergence import diverging_layer
from edgeq.benchmark.energy import EnergyReport, measure_by_sensor, measure_energy
from edgeq.benchmark.manifest import BenchManifest, Layer, Tensor, parse_manifest
from edgeq.benchmark.result import (
    Accuracy,
    BenchReport,
    Comparison,
    Divergence,
    LayerCost,
    LinkReport,
    MemoryReport,
    Ticks,
    best_class,
)
from edgeq.benchmark.samples import Samples, element_type, random_samples, samples_from_arrays
from edgeq.boards import Board, load_board
from edgeq.codegen.golden import FLOAT_TOLERANCE
from edgeq.device.connection import connect
from edgeq.device.flashed import load_flashed
from edgeq.device.flashing import build_image, made_for_another
from edgeq.device.ina import InaMeter
from edgeq.device.messages import Capability, Hello
from edgeq.device.meter import Ppk2
from edgeq.device.session import Session
from edgeq.errors import DeviceError, ToolError, UsageError
from edgeq.measure import Computed, Measured, Quantity, Unknown
from edgeq.progress import Progress, silent
from edgeq.quantization.layer_map import read_beside
from edgeq.toolchain import read_manifest

Outputs = list[bytes]

DEFAULT_RUNS = 30
_REFERENCE = "the same model, compiled for this computer"
_GOLDEN = "the bundle's golden vectors, by LiteRT's reference kernels"
_FIRST_RUNS = 3
_NARROW = 0.001
"""Timing ends when the mean's 95 % confidence interval is this share of it to either side."""
_RANDOM_SAMPLES = 4
_IDLE_S = 0.5
"""How long the power of the waiting board is measured."""
_CONVERSIONS = {"QUANTIZE", "DEQUANTIZE", "RESHAPE"}
_UNITS = {"instructions": "instructions", "cycles": "cycles", "microseconds": "us", "nanoseconds": "ns"}


def bench(
    bundle_dir: Path | None,
    board: Board,
    *,
    port: str | None = None,
    x: Any = None,
    y: Any = None,
    origin: str = "data",
    runs: int = DEFAULT_RUNS,
    host_bundle: Path | None = None,
    meter: Ppk2 | InaMeter | None = None,
    progress: Progress = silent,
) -> BenchReport:
    """Measure what is flashed on `board` and compare its outputs with the host's, byte by byte.

    bundle_dir: the bundle that the board must run (`wrong-model` otherwise); None takes what was flashed last.
    x, y: samples (first axis) and labels; without `x` seeded random inputs. runs: timed runs at most; they end earlier
    where they hardly differ. host_bundle: the model's bundle for the board `host`, which gives the expected outputs;
    without one `bundle_dir` is built for this computer, and where that is impossible `findings` says so.
    meter: in the board's supply, for the energy of a run.
    """
    flashed = load_flashed(board.id)
    manifest = _manifest(bundle_dir, flashed.manifest if flashed is not None else None)
    image = flashed.image if flashed is not None else None
    if manifest is not None and manifest.options.agent != "edgeq":
        raise UsageError(
            "other-agent",
            f"The firmware of {manifest.name} speaks the protocol of MLPerf Tiny, not EdgeQ's.",
            where=str(bundle_dir or board.id),
            try_=("Measure it with MLPerf Tiny's runner.", "Bundle without --agent, flash, and run edgeq bench again."),
        )
    progress("connect", 0, None)
    with connect(board, port=port) as session, ExitStack() as stack:
        if manifest is not None and (bundle_dir is not None or port is None):
            session.expect(model_sha256=manifest.model_sha256)
        elif manifest is not None and manifest.model_sha256 != session.info.model_sha256:
            manifest = None
        if image is not None and image.model_sha256 != session.info.model_sha256:
            image = None
        inputs, outputs = _tensors(session, manifest)
        samples = _samples(x, y, origin, inputs)
        findings: list[str] = []
        host = stack.enter_context(_HostReference(host_bundle or bundle_dir, session.info.model_sha256, findings))

        unit = _unit(session.info, board)
        ticks = _time(session, samples.inputs[0], runs, unit, progress) if unit is not None else None
        energy = None if meter is None else _energy(meter, session, samples.inputs[0], ticks, progress)
        layers = _profile(session, samples.inputs[0], unit, manifest) if unit is not None else ()
        if manifest is not None:
            findings += [*made_for_another(manifest, board), *portable_kernels(manifest.layers, board)]
        if bundle_dir is not None and manifest is not None and image is not None:
            code = code_by_layer(bundle_dir, manifest.name, image)
            layers = tuple(replace(layer, code=code.get(layer.index)) for layer in layers)
        if bundle_dir is not None and manifest is not None:
            layers = _named(layers, bundle_dir, manifest.model_sha256)
        golden = None if bundle_dir is None or manifest is None else _golden(session, bundle_dir, manifest)
        got = _run_all(session, samples, progress)
        expected = _run_all(host.session, samples, silent) if host.session is not None else None
        comparison = None if expected is None else _compare(got, expected, _REFERENCE)
        if comparison is not None and comparison.first is not None and host.session is not None:
            sample = samples.inputs[comparison.first.sample]
            layer = diverging_layer((session, manifest), (host.session, host.manifest), sample)
            comparison = replace(comparison, first=replace(comparison.first, layer=layer))
        accuracy = _accuracy(samples, outputs[0], manifest, got, expected)
        if isinstance(accuracy, str):
            findings.append(accuracy)
        return BenchReport(
            board=board.id,
            board_name=board.name,
            hello=session.info,
            image=image,
            data=samples.origin,
            ticks=ticks,
            energy=energy,
            layers=layers,
            memory=_memory(session, board),
            comparison=comparison,
            golden=golden,
            accuracy=None if isinstance(accuracy, str) else accuracy,
            link=LinkReport(
                session.transport.name,
                session.statistics.requests,
                session.statistics.repeated,
                session.statistics.invalid_frames,
            ),
            findings=tuple(findings),
        )


def _samples(x: Any, y: Any, origin: str, inputs: Sequence[Tensor]) -> Samples:
    if x is None:
        return random_samples(inputs, _RANDOM_SAMPLES)
    return samples_from_arrays(x, y, inputs, origin=origin)


class _HostReference:
    """The model's bundle for this computer, as a process; `findings` learns why there is none."""

    def __init__(self, bundle_dir: Path | None, model_sha256: str, findings: list[str]) -> None:
        self._bundle_dir = bundle_dir
        self._model_sha256 = model_sha256
        self._findings = findings
        self._stack = ExitStack()
        self.session: Session | None = None
        self.manifest: BenchManifest | None = None

    def __enter__(self) -> _HostReference:
        if self._bundle_dir is None:
            self._findings.append("The model is not at hand, so the outputs were not compared with this computer's.")
            return self
        host = load_board("host")
        try:
            image = build_image(self._bundle_dir, host)
            session = self._stack.enter_context(connect(host, image=image))
        except (ToolError, DeviceError) as error:
            self._findings.append(f"The outputs were not compared with this computer's: {error.what}")
            return self
        self.manifest = _manifest(self._bundle_dir, None)
        session.expect(model_sha256=self._model_sha256)
        self.session = session
        return self

    def __exit__(self, *about: object) -> None:
        self._stack.close()


def _manifest(bundle_dir: Path | None, flashed: bytes | None) -> BenchManifest | None:
    if bundle_dir is not None:
        read_manifest(bundle_dir)
        path = bundle_dir / "manifest.json"
        return parse_manifest(path.read_bytes(), str(path))
    return None if flashed is None else parse_manifest(flashed, "what was flashed")


def _tensors(session: Session, manifest: BenchManifest | None) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Inputs and outputs: the manifest's, which must fit what the board says, or plain bytes."""
    hello = session.info
    if manifest is None:
        return _plain(hello.input_bytes), _plain(hello.output_bytes)
    sizes = tuple(t.bytes for t in manifest.inputs), tuple(t.bytes for t in manifest.outputs)
    if sizes != (hello.input_bytes, hello.output_bytes):
        raise DeviceError(
            "wrong-model",
            "The board's inputs and outputs have other sizes than the bundle's.",
            where=session.transport.name,
            try_=f"Flash the bundle: edgeq flash DIR --board {hello.board}",
        )
    return manifest.inputs, manifest.outputs


def _plain(sizes: Sequence[int]) -> list[Tensor]:
    return [Tensor(bytes=size, name=str(index)) for index, size in enumerate(sizes)]


def _unit(hello: Hello, board: Board) -> tuple[str, str] | None:
    """Unit and basis of the board's ticks; None if it has no timer."""
    if hello.timer_kind not in _UNITS:
        return None
    step = f", in steps of {hello.timer_resolution}" if hello.timer_resolution > 1 else ""
    if hello.timer_kind == "instructions":
        emulator = board.virtual.emulator if board.virtual is not None else "an emulator"
        return _UNITS[hello.timer_kind], f"instructions counted by {emulator}{step}; not a latency"
    clock = f" at {hello.core_hz:,} Hz" if hello.core_hz else ""
    return _UNITS[hello.timer_kind], f"the timer of {board.id}{clock}{_caches(hello)}{step}"


def _caches(hello: Hello) -> str:
    names = {Capability.INSTRUCTION_CACHE: "instruction", Capability.DATA_CACHE: "data"}
    on = [name for flag, name in names.items() if flag in hello.capabilities]
    return f", {' and '.join(on)} cache on" if on else ""


def _time(session: Session, sample: Sequence[bytes], runs: int, unit: tuple[str, str], progress: Progress) -> Ticks:
    """A warm-up run, then `runs` timed ones without the profile."""
    session.infer(sample)
    ticks: list[int] = []
    while len(ticks) < runs and not _narrow(ticks):
        count = min(max(_FIRST_RUNS, len(ticks)), runs - len(ticks), session.info.max_runs)
        _write(session, sample)
        ticks += session.run(count, timed=True, progress=_shown(progress, "run", len(ticks), runs)).ticks
        progress("run", len(ticks), runs)
    return Ticks(tuple(ticks), *unit)


def _energy(
    meter: Ppk2 | InaMeter, session: Session, sample: Sequence[bytes], ticks: Ticks | None, progress: Progress
) -> EnergyReport:
    timer_hz = session.info.timer_hz
    run_s = ticks.median.value / timer_hz if ticks is not None and timer_hz and ticks.median.value else None

    def run(runs: int) -> None:
        for done in range(0, runs, session.info.max_runs):
            progress("energy", done, runs)
            _write(session, sample)
            session.run(min(session.info.max_runs, runs - done), timed=True)

    progress("energy", 0, None)
    if isinstance(meter, InaMeter):
        return measure_by_sensor(meter, session, lambda: _write(session, sample), run_s)
    return measure_energy(meter, run, run_s, lambda: time.sleep(_IDLE_S))


def _narrow(ticks: Sequence[int]) -> bool:
    if len(ticks) < _FIRST_RUNS:
        return False
    half_width = 1.96 * statistics.stdev(ticks) / math.sqrt(len(ticks))
    return half_width <= _NARROW * statistics.fmean(ticks)


def _profile(
    session: Session, sample: Sequence[bytes], unit: tuple[str, str], manifest: BenchManifest | None
) -> tuple[LayerCost, ...]:
    """The layers' ticks in one profiled run."""
    _write(session, sample)
    session.run(timed=True, profile=True)
    named = {layer.index: layer for layer in manifest.layers} if manifest is not None else {}
    costs = []
    for index, count in enumerate(session.layers()):
        layer = named.get(index) or Layer(index=index, name=f"layer {index}")
        costs.append(LayerCost(index, layer.name, layer.output, layer.kernel, layer.macs, Measured(count, *unit)))
    return tuple(costs)


def _named(layers: tuple[LayerCost, ...], bundle_dir: Path, model_sha256: str) -> tuple[LayerCost, ...]:
    """The layers under the user's names, where the bundle has the map of its model."""
    told = read_beside(bundle_dir / "golden" / "model.tflite", model_sha256)
    if told is None:
        return layers
    names = told.layers_by_tensor()
    return tuple(replace(layer, layer=names.get(layer.output or "")) for layer in layers)


def _shown(progress: Progress, what: str, done: int, total: int) -> Callable[[int, int], None]:
    def show(runs: int, _layers: int) -> None:
        progress(what, done + runs, total)

    return show


def _write(session: Session, sample: Sequence[bytes]) -> None:
    for index, data in enumerate(sample):
        session.write_input(index, data)


def _run_all(session: Session, samples: Samples, progress: Progress) -> list[Outputs]:
    """Each sample once, from the model's initial state, as `convert` measures accuracy."""
    results = []
    for done, sample in enumerate(samples.inputs):
        session.reset_model()
        results.append(session.infer(sample))
        progress("samples", done + 1, len(samples))
    return results


def _golden(session: Session, bundle_dir: Path, manifest: BenchManifest) -> Comparison | None:
    """The bundle's golden vectors on the board; None where it has none with outputs (`golden/README.md` says why)."""

    def tensor(vector: int, kind: str, index: int) -> Path:
        return bundle_dir / "golden" / f"{vector}_{kind}_{index}.bin"

    got: list[Outputs] = []
    expected: list[Outputs] = []
    while tensor(len(got), "output", 0).is_file():
        at = len(got)
        session.reset_model()
        got.append(session.infer([tensor(at, "input", i).read_bytes() for i in range(len(manifest.inputs))]))
        expected.append([tensor(at, "output", i).read_bytes() for i in range(len(manifest.outputs))])
    if not got:
        return None
    compared = _compare(got, expected, _GOLDEN)
    if any(output.type != "FLOAT32" for output in manifest.outputs):
        return compared
    pairs = [pair for sample in zip(got, expected, strict=True) for pair in zip(*sample, strict=True)]
    difference = max((_difference(ours, theirs) for ours, theirs in pairs), default=0.0)
    return replace(compared, difference=difference, tolerance=FLOAT_TOLERANCE)


def _difference(got: bytes, expected: bytes) -> float:
    """The largest difference of two float32 outputs, as a share of the expected one's largest magnitude."""
    ours, theirs = (np.frombuffer(data, "<f4").astype(np.float64) for data in (got, expected))
    if ours.shape != theirs.shape:
        return math.inf
    apart = np.where(ours == theirs, 0.0, np.abs(ours - theirs)).max(initial=0.0)
    return float(apart / (np.abs(theirs).max(initial=0.0) or 1.0)) if np.isfinite(apart) else math.inf


def _compare(got: list[Outputs], expected: list[Outputs], reference: str) -> Comparison:
    compared = differing = 0
    first = None
    for sample, (ours, theirs) in enumerate(zip(got, expected, strict=True)):
        for output, (board, host) in enumerate(zip(ours, theirs, strict=True)):
            compared += max(len(board), len(host))
            if board == host:
                continue
            places = [i for i, (b, h) in enumerate(zip(board, host, strict=False)) if b != h]
            differing += len(places) + abs(len(board) - len(host))
            if places and first is None:
                first = Divergence(sample, output, places[0], board[places[0]], host[places[0]], None)
    return Comparison(reference, len(got), compared, differing, first)


def _accuracy(
    samples: Samples,
    output: Tensor,
    manifest: BenchManifest | None,
    got: list[Outputs],
    expected: list[Outputs] | None,
) -> Accuracy | str | None:
    """The share of labels met on the board and here; words where the output cannot tell labels."""
    if samples.labels is None:
        return None
    elements = output.bytes // element_type(output).itemsize
    classes = max(2, elements)
    if not 0 <= min(samples.labels) <= max(samples.labels) < classes:
        return (
            f"Accuracy is not told: the labels go from {min(samples.labels)} to {max(samples.labels)}, the model's "
            f"output tells classes 0 to {classes - 1}."
        )
    least = None
    if elements == 1:
        least = _least_of_class_1(output, manifest)
        if least is None:
            return "Accuracy is not told: what the one output stands for is known with the bundle only."
    board = _share(samples.labels, output, got, least)
    host = Unknown("no reference") if expected is None else _share(samples.labels, output, expected, least)
    return Accuracy(len(samples), board, host)


def _least_of_class_1(output: Tensor, manifest: BenchManifest | None) -> float | None:
    """What a single output must exceed for class 1, in the units it has on the board: 0.5 behind a sigmoid, else 0."""
    if manifest is None:
        return None
    computed = [layer.name for layer in manifest.layers if layer.name not in _CONVERSIONS]
    threshold = 0.5 if computed and computed[-1] == "LOGISTIC" else 0.0
    return threshold / output.scale + (output.zero_point or 0) if output.scale else threshold


def _share(labels: Sequence[int], output: Tensor, results: list[Outputs], least: float | None) -> Measured:
    """The share of labels that the outputs choose: the greatest of them, or whether the one is above `least`."""
    type_ = element_type(output)

    def chosen(values: list[float]) -> int:
        return best_class(values) if least is None else int(values[0] > least)

    right = sum(
        chosen(np.frombuffer(outputs[0], type_).tolist()) == label
        for label, outputs in zip(labels, results, strict=True)
    )
    return Measured(right / len(labels), "fraction", "labelled samples")


def _memory(session: Session, board: Board) -> MemoryReport:
    use = session.memory()

    def measured(value: int | None) -> Quantity:
        if value is None:
            return Unknown(f"the port of {board.id} does not measure it")
        return Measured(value, "bytes", "painted memory on the board")

    reserved = use.stack_reserved_bytes
    return MemoryReport(
        arena_planned=Computed(session.info.arena_bytes, "bytes", "the bundle's plan"),
        arena_used=measured(use.arena_used_bytes),
        stack_reserved=Computed(reserved, "bytes", "linked image") if reserved is not None else measured(None),
        stack_used=measured(use.stack_used_bytes),
        stack_used_by_run=measured(use.stack_used_by_run_bytes),
        heap=measured(use.heap_bytes),
    )
