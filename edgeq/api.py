"""The verbs as functions. Each tells the story of its stage; the work is done in the rooms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from edgeq.progress import Progress, silent

if TYPE_CHECKING:
    from edgeq.benchmark import BenchReport, BoardsReport
    from edgeq.benchmark.several import LineProgress
    from edgeq.boards import Board
    from edgeq.checks import CheckReport, Fixed
    from edgeq.codegen import Bundle
    from edgeq.demonstration.run import DemoReport
    from edgeq.device import FlashReport
    from edgeq.device.ssh import HostReport
    from edgeq.graph import Graph
    from edgeq.quantization import ConversionReport, SearchGoal

Optimize = Literal["speed", "balanced", "ram", "flash"]


def convert(
    model: Any,
    out: Path | str,
    *,
    data: Any = None,
    eval_data: Any = None,
    scheme: str = "int8",
    layers: Mapping[str, str] | None = None,
    granularity: Literal["channel", "tensor"] = "channel",
    rnn: Literal["unroll", "fused", "cell"] = "unroll",
    io: str | None = None,
    calibration: str = "auto",
    allow_float: bool = False,
    unsafe: bool = False,
    qat_epochs: int = 0,
    search: SearchGoal | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> ConversionReport:
    """Quantize a Keras model (a file, a SavedModel directory or a `keras.Model`) into the `.tflite` file `out`.

    `data` is what calibrates, `eval_data` what measures: files, `package.module:function`, or arrays. `layers` gives
    layers another scheme, by pattern of their names (`{"stem*": "int16x8"}`); `granularity` is what a weight's scale
    covers. `rnn` unrolls recurrent layers, makes each LSTM one operator, or the model one step with states as inputs
    and outputs. `io` is the type of inputs and outputs (by default the scheme's own); `qat_epochs` trains with
    quantization on `data` first. The map from layers to tensors and operators lies beside `out` as `.quant.json`.
    `search` chooses each layer's scheme for a board by measuring; its report lies beside `out` as `.search.json` and
    `.html`.
    Raises ModelError, DataError, UsageError for input that cannot be used, ToolError if TensorFlow is missing; `out` is
    whole or absent.
    """
    from edgeq.files import write_files
    from edgeq.quantization import convert as quantize
    from edgeq.report.search_html import search_files

    _keep_input(model, out)
    report = quantize(
        model,
        Path(out),
        data=data,
        eval_data=eval_data,
        scheme=scheme,
        layers=layers,
        granularity=granularity,
        rnn=rnn,
        io=io,
        calibration=calibration,
        allow_float=allow_float,
        unsafe=unsafe,
        qat_epochs=qat_epochs,
        search=search,
        seed=seed,
        progress=progress,
    )
    if report.search is not None:
        write_files(search_files(report, Path(out)))
    return report


def check(
    model: Path | str,
    boards: Sequence[Board | str | Path],
    *,
    budget: str | None = None,
    progress: Progress = silent,
) -> list[CheckReport]:
    """Check a `.tflite` file against boards: operators, types, memory, speed. One report a board; the model is not run.

    For a board with an Ethos-U, Vela is called where it is installed; with an Edge TPU, edgetpu_compiler.
    `budget` (`flash=256k,ram=64k,latency=20ms`) makes an error of whatever exceeds it. Operators are named by their
    Keras layers, where the map that `convert` wrote lies beside the model.
    """
    from edgeq import checks
    from edgeq.boards import load_board
    from edgeq.boards.profile import EdgeTpu, EthosU
    from edgeq.graph import read
    from edgeq.toolchain.edgetpu import run_edgetpu
    from edgeq.toolchain.vela import run_vela

    limits = checks.parse_budget(budget) if budget else {}
    graph = read(Path(model))
    plans, layers = checks.Plans(graph), _layers(Path(model), graph)
    reports = []
    for done, board in enumerate(boards):
        progress("checking", done, len(boards))
        profile = load_board(board)
        npu, tpu = profile.executor("ethos-u"), profile.executor("edge-tpu")
        vela = run_vela(Path(model), npu) if isinstance(npu, EthosU) else None
        compiled = run_edgetpu(Path(model), tpu) if isinstance(tpu, EdgeTpu) else None
        report = checks.check(graph, profile, name=Path(model).stem, plans=plans, vela=vela, edge_tpu=compiled)
        reports.append(checks.apply_budget(report.with_layers(layers), limits))
    return reports


def _layers(model: Path, graph: Graph) -> dict[int, str]:
    """Operator -> Keras layer, by the map beside a `.tflite`; none where there is no map of these very bytes."""
    if not any(model.parent.glob("*.quant.json")):
        return {}
    from edgeq.quantization.layer_map import read_beside

    told = read_beside(model, graph.digest)
    return {} if told is None else {op.index: op.layers[0] for op in told.operators if op.layers}


def _keep_input(model: Any, out: Path | str) -> None:
    """UsageError `output-is-input` where `out` is the very file that is read."""
    from edgeq.errors import UsageError

    given = Path(model) if isinstance(model, (str, Path)) else None
    if given is not None and given.exists() and Path(out).exists() and Path(out).samefile(given):
        raise UsageError(
            "output-is-input",
            "The result would be written over the model that was given, and that one be lost.",
            where=str(out),
            try_="Give -o another file.",
        )


def fix(model: Path | str, out: Path | str, *, approximate: bool = False) -> list[Fixed]:
    """Apply every mechanical remedy of `check` to a `.tflite` file, written to `out` (whole or not at all).

    `approximate` adds those that change the outputs (SWISH becomes HARD_SWISH); both models are then run on random
    inputs, and each such remedy's `kept` says how far the outputs are apart.
    ToolError `interpreter-missing`; UsageError `output-is-input` where `out` is the file given.
    """
    from dataclasses import replace

    from edgeq import checks
    from edgeq.files import write_file
    from edgeq.graph import read, verify, write_bytes

    original = read(Path(model))
    _keep_input(model, out)
    graph, fixed = checks.fix(original)
    if approximate:
        exact = graph
        graph, changed = checks.approximate(exact)
        measured = str(checks.difference(exact, graph)) if changed else ""
        fixed += tuple(replace(one, kept=measured) for one in changed)
    verify(graph)
    write_file(Path(out), write_bytes(graph))
    return list(fixed)


def bundle(
    model: Path | str,
    board: Board | str | Path,
    out: Path | str,
    *,
    name: str | None = None,
    optimize: Optimize = "balanced",
    ram: int | None = None,
    agent: Literal["edgeq", "mlperf"] = "edgeq",
) -> Bundle:
    """Compile a `.tflite` file to C sources for a board, written to the directory `out` (whole or not at all).

    `ram` is how many bytes the arena may take: where whole layers need more, the first ones run patch by patch, which
    repeats multiplications; AnswerNo `ram-too-small` says the smallest that was found. `memory.svg` shows the plan; an
    arena that the board's first region of RAM has no room for lies in another, or in pieces in several.
    `agent` is what `flash` puts beside the model: EdgeQ's own, or the MLPerf Tiny device protocol; `name` must then be
    one of the benchmark's model ids. The C runs on the core alone; for a board with an Ethos-U, Vela's model lies
    beside it under `ethos-u/` where Vela is installed. The map of layers that `convert` left beside the model goes
    along, so that `bench` knows them by name.
    """
    from edgeq import codegen
    from edgeq.boards import load_board
    from edgeq.boards.profile import EthosU
    from edgeq.graph import read_bytes, read_file
    from edgeq.quantization.layer_map import read_beside
    from edgeq.report.memory import memory_picture
    from edgeq.toolchain.manifest import Manifest
    from edgeq.toolchain.mlperf import require_mlperf_model
    from edgeq.toolchain.vela import run_vela

    path, target = Path(model), load_board(board)
    content = read_file(path)
    graph, name = read_bytes(content, where=str(path)), name or path.stem
    if ram is None:
        plan = codegen.plan(graph, target, name=name, optimize=optimize)
    else:
        plan = codegen.plan_within(graph, target, ram, name=name, optimize=optimize)
    result = codegen.emit(codegen.spread(plan, target), content, agent=agent)
    result = codegen.with_file(result, "memory.svg", memory_picture(result.manifest).encode())
    if agent == "mlperf":
        require_mlperf_model(Manifest.model_validate(dict(result.manifest)))
    npu = target.executor("ethos-u")
    if isinstance(npu, EthosU) and (vela := run_vela(path, npu)) is not None and vela.npu_operators:
        result = codegen.with_file(result, f"ethos-u/{result.name}_vela.tflite", vela.model)
    if (told := read_beside(path, result.manifest["model_sha256"])) is not None:
        result = codegen.with_file(result, "golden/model.quant.json", told.to_bytes())
    codegen.write_bundle(result, Path(out))
    return result


def goals(model: Path | str, board: Board | str | Path, made: Bundle) -> list[dict[str, Any]]:
    """What each `--optimize` costs for a model on a board: arena, estimated flash and instructions; `made` is one."""
    from dataclasses import asdict

    from edgeq import codegen
    from edgeq.boards import load_board
    from edgeq.graph import read

    chosen = made.manifest["options"]["optimize"]
    return [asdict(goal) for goal in codegen.goals(read(Path(model)), load_board(board), chosen)]


@contextmanager
def _bundled(model: Path, board: Board) -> Iterator[Path]:
    """The bundle directory of `model`: itself, or one made from a `.tflite` file that is gone afterwards."""
    if model.is_dir():
        yield model
        return
    with TemporaryDirectory(prefix="edgeq-") as place:
        directory = Path(place) / "bundle"
        bundle(model, board, directory)
        yield directory


@contextmanager
def _host_bundle(bundle_dir: Path) -> Iterator[Path | None]:
    """The model in a bundle, compiled to portable C for this computer; None where the bundle does not carry it."""
    from edgeq.boards import load_board
    from edgeq.toolchain import read_manifest

    model = bundle_dir / "golden" / "model.tflite"
    if not model.is_file():
        yield None
        return
    with TemporaryDirectory(prefix="edgeq-") as place:
        directory = Path(place) / "bundle"
        bundle(model, load_board("host"), directory, name=read_manifest(bundle_dir).name)
        yield directory


def flash(
    model: Path | str, board: Board | str | Path, *, port: str | None = None, progress: Progress = silent
) -> FlashReport:
    """Build the firmware of a `.tflite` file or a bundle directory, put it onto the board, hear that it runs."""
    from edgeq.boards import load_board
    from edgeq.device import flash as put

    target = load_board(board)
    with _bundled(Path(model), target) as directory:
        return put(directory, target, port=port, progress=progress)


def bench(
    model: Path | str | None,
    board: Board | str | Path,
    *,
    port: str | None = None,
    place: str | None = None,
    data: Any = None,
    runs: int = 30,
    meter: str = "none",
    supply_mv: int | None = None,
    shunt_ohm: float | None = None,
    progress: Progress = silent,
) -> BenchReport:
    """Run the model on the board with real inputs, count or time it, and compare its outputs with this computer's.

    `model` is a `.tflite` file, a bundle directory, or None for what the board runs. `data` is samples as in `convert`.
    `place` is a labgrid place, acquired for as long as it takes, whose serial port is used. `meter` is `none`, `ppk2`
    or `ppk2:PORT`: Nordic's Power Profiler Kit II in the board's supply of `supply_mv` millivolts gives a run's energy;
    or `ina219`, `ina226` (`ina219:0x41`): a sensor on the board's I2C bus with a shunt of `shunt_ohm` ohms.
    """
    from edgeq.boards import load_board
    from edgeq.device.labgrid import acquired
    from edgeq.device.meter import open_meter

    target, samples = load_board(board), _samples(data)
    with ExitStack() as stack:
        samples["meter"] = stack.enter_context(open_meter(meter, supply_mv, shunt_ohm))
        url = port if place is None else stack.enter_context(acquired(place))
        return _bench(model, target, port=url, runs=runs, progress=progress, samples=samples)


def _bench(
    model: Path | str | None, board: Board, *, port: str | None, runs: int, progress: Progress, samples: dict[str, Any]
) -> BenchReport:
    from edgeq.benchmark import bench as measure

    if model is None:
        return measure(None, board, port=port, runs=runs, progress=progress, **samples)
    with _bundled(Path(model), board) as directory, _host_bundle(directory) as host:
        return measure(directory, board, port=port, host_bundle=host, runs=runs, progress=progress, **samples)


def bench_boards(
    model: Path | str | None,
    boards: Sequence[Board | str | Path],
    *,
    data: Any = None,
    runs: int = 30,
    progress: LineProgress | None = None,
) -> BoardsReport:
    """`bench` on several boards at the same time. A board's failure is in the report and stops no other."""
    from edgeq.benchmark import bench_boards as measure_all
    from edgeq.boards import load_board

    samples = _samples(data)

    def measure(board: Board, show: Progress) -> BenchReport:
        return _bench(model, board, port=None, runs=runs, progress=show, samples=samples)

    return measure_all([load_board(board) for board in boards], measure, progress or (lambda *_: None))


def deploy(
    model: Path | str,
    board: Board | str,
    hosts: str | Sequence[str],
    *,
    runtime: Literal["litert", "c"] = "litert",
    cpu: bool = False,
    service: bool = False,
    progress: Progress = silent,
) -> HostReport:
    """Put a `.tflite` file onto Linux boards over SSH and hear that it runs; `pi` is whichever Raspberry Pi answers."""
    from edgeq.device import ssh

    return ssh.deploy(Path(model), board, hosts, runtime=runtime, cpu=cpu, service=service, progress=progress)


def rollback(board: Board | str, hosts: str | Sequence[str]) -> HostReport:
    """Have Linux boards use the release before the one in use."""
    from edgeq.device import ssh

    return ssh.rollback(board, hosts)


def uninstall(board: Board | str, hosts: str | Sequence[str]) -> HostReport:
    """Remove everything that EdgeQ put on Linux boards."""
    from edgeq.device import ssh

    return ssh.uninstall(board, hosts)


def bench_hosts(
    model: Path | str | None,
    board: Board | str,
    hosts: str | Sequence[str],
    *,
    data: Any = None,
    runs: int = 30,
    progress: Progress = silent,
) -> HostReport:
    """Measure what is deployed on Linux boards, `bench` over SSH. `model` None: whatever is deployed."""
    from edgeq.device import ssh

    samples = _samples(data)
    path = None if model is None else Path(model)
    return ssh.bench_remote(path, board, hosts, x=samples.get("x"), y=samples.get("y"), runs=runs, progress=progress)


def _samples(data: Any) -> dict[str, Any]:
    """The arguments of `benchmark.bench` that carry the data: arrays in the data's own order, labels, origin."""
    from edgeq.quantization import load_data

    if data is None:
        return {}
    dataset = load_data(data)
    return {"x": list(dataset.inputs.values()), "y": dataset.labels, "origin": dataset.source}


def demo(directory: Path | str | None = None, *, board: str = "virtual-m4", progress: Progress = silent) -> DemoReport:
    """The whole path on handwritten digits: train, convert, check, bundle, flash, bench. Files stay in `directory`."""
    from edgeq.demonstration.run import run

    if directory is not None:
        return run(Path(directory), board, progress)
    with TemporaryDirectory(prefix="edgeq-demo-") as place:
        return run(Path(place), board, progress)
