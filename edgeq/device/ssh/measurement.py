"""Measure the release in use on a Linux board, from this computer.

Each way to run the model gets a process of its own, so that load times and peak memory are its own. Outputs are
compared with this computer's reference kernels; accuracy is what the device computes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from edgeq.benchmark.samples import Samples, random_samples, samples_from_arrays
from edgeq.boards import Board
from edgeq.device.ssh import coral
from edgeq.device.ssh.agent import REPLY_S, AgentChannel, agent_file, start_agent
from edgeq.device.ssh.comparison import (
    LITERT_REFERENCE,
    OLD_REFERENCE_IS_MICRO,
    OTHER_REFERENCE,
    SAME_C,
    Outputs,
    accuracy,
    board_tensor,
    compare,
    generated_outputs,
    reference_outputs,
)
from edgeq.device.ssh.connection import Host
from edgeq.device.ssh.deployment import (
    Device,
    agent_python,
    current_manifest,
    nothing_deployed,
    reach,
    send_missing,
)
from edgeq.device.ssh.prefixes import obstacle, prefixes
from edgeq.device.ssh.release import AGENT, make_manifest
from edgeq.device.ssh.reports import Comparison, Configuration, Health, OperatorTime, RemoteBench
from edgeq.errors import DeviceError, EdgeqError
from edgeq.graph import Graph, read_bytes
from edgeq.interpreter import interpreter_package
from edgeq.measure import Measured, Quantity, Unknown
from edgeq.progress import Progress

WARM_UP_RUNS = 5
LONGEST_S = 60.0
"""Longest that one configuration repeats."""
SLOWEST_S = 5.0
"""Longest that one inference may take, on average over a batch."""
BATCH_BYTES = 1 << 20
MOST_THREADS = 8
RANDOM_SAMPLES = 8
COMPARED_SAMPLES, COMPARED_LABELLED = 100, 1000
"""Reference kernels are slow on a Raspberry Pi: this many inputs tell whether values differ, or accuracies do."""
PREFIX_RUNS = 50
PREFIXES_BYTES = 64 << 20
"""More is not sent for the sake of operator times."""
THROTTLED_NOW, THROTTLED_EVER = 0xF, 0xF0000
"""Bits of `vcgencmd get_throttled` (Raspberry Pi documentation, vcgencmd)."""


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """What to measure; see `bench_remote`."""

    model: bytes | None
    board: Board | str
    x: NDArray[Any] | Sequence[NDArray[Any]] | None
    y: NDArray[Any] | None
    runs: int
    operators: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Subject:
    """The release under measurement. `graph` is the `.tflite` that the device has."""

    device: Device
    manifest: dict[str, Any]
    directory: str
    model: bytes
    graph: Graph

    @property
    def host(self) -> str:
        return self.device.remote.host.text

    @asynccontextmanager
    async def agent(self, directory: str | None = None) -> AsyncIterator[AgentChannel]:
        """A new process of the release's agent; with `directory`, on a session's files."""
        python = agent_python(self.manifest, self.directory, self.device.facts)
        async with start_agent(self.device.remote, python, directory or self.directory) as channel:
            yield channel


async def bench(host: Host, request: Request, progress: Progress) -> RemoteBench:
    """Measure on `host`. See the package for errors."""
    async with reach(host, request.board) as device:
        if (await device.store.request("status")).result["current"] is None:
            raise nothing_deployed(host)
        status = (await device.store.request("open")).result
        subject = await _subject(device, status, request)
        samples = _samples(subject.graph, request)
        ways = _ways(subject)
        before = await _health(subject)
        configurations = []
        for done, way in enumerate(ways):
            progress(f"{host.text}: timing", done, len(ways))
            configurations.append(await _configuration(subject, way, samples, request.runs))
        default = {**ways[0], "called": configurations[0].kernels}
        comparisons, on_device = await _outputs(subject, default, samples, request, progress)
        operators = await _operators(subject, default, samples, request, progress)
        after = await _health(subject)
        edge_tpu = configurations[0].edge_tpu
        original = None if request.model is None else read_bytes(request.model)
        return RemoteBench(
            host=host.text,
            board=device.board.id,
            device=device.facts,
            release=status["current"],
            package=subject.manifest["package"],
            model_sha256=subject.manifest["model_sha256"],
            configurations=tuple(configurations),
            comparisons=comparisons,
            accuracy=on_device,
            operators=operators,
            health=compare_health(before, after, device.facts.cores),
            on_edge_tpu=coral.share_on_edge_tpu(original, subject.graph) if edge_tpu else None,
            predicted_on_edge_tpu=coral.predicted_share(original, device.board) if edge_tpu else None,
        )


async def _subject(device: Device, status: dict[str, Any], request: Request) -> _Subject:
    host = device.remote.host
    manifest = current_manifest(status, host)
    if request.model is not None and hashlib.sha256(request.model).hexdigest() != manifest["model_sha256"]:
        raise DeviceError(
            "wrong-model",
            f"{host.text} has another model than the one given.",
            where=host.text,
            why=f"{manifest['name']}, SHA-256 {manifest['model_sha256'][:12]}…, is deployed.",
            try_=("Deploy it first: edgeq flash MODEL.tflite --board BOARD --host HOST", "Leave MODEL away."),
        )
    directory = f"{status['directory']}/current"
    python = agent_python(manifest, directory, device.facts)
    async with start_agent(device.remote, python, directory) as agent:
        await agent.request("hello")
        model = (await agent.request("fetch", file="model.tflite", limit_s=300)).payload
    return _Subject(device, manifest, directory, model, read_bytes(model, where=manifest["name"]))


def _samples(graph: Graph, request: Request) -> Samples:
    inputs = [board_tensor(graph.tensor(index)) for index in graph.inputs]
    if request.x is None:
        return random_samples(inputs, RANDOM_SAMPLES)
    return samples_from_arrays(request.x, request.y, inputs)


def _ways(subject: _Subject) -> list[dict[str, Any]]:
    """How the release can be run; the first is how it runs unless told otherwise."""
    if subject.manifest["runtime"] == "c":
        return [{"kernels": "generated-c", "threads": 1}]
    if subject.manifest["defaults"].get("delegate") == "edgetpu":
        return [{"kernels": "edgetpu", "threads": 1}]
    threads = range(1, min(subject.device.facts.cores, MOST_THREADS) + 1)
    return [{"kernels": kernels, "threads": count} for kernels in ("xnnpack", "builtin") for count in threads]


def _load_options(way: Mapping[str, Any]) -> dict[str, Any]:
    if way["kernels"] == "edgetpu":
        return {"delegate": "edgetpu"}
    return {} if way["kernels"] == "generated-c" else {name: way[name] for name in ("kernels", "threads")}


async def _configuration(subject: _Subject, way: Mapping[str, Any], samples: Samples, runs: int) -> Configuration:
    sample = b"".join(samples.inputs[0])
    async with subject.agent() as agent:
        await agent.request("hello")
        loaded = (await agent.request("load", limit_s=300, **_load_options(way))).result
        first = (await agent.request("run", sample, count=1, limit_s=300)).result
        await agent.request("repeat", sample, runs=WARM_UP_RUNS, limit_s=300)
        warm = (await agent.request("repeat", sample, runs=runs, longest_s=LONGEST_S, limit_s=LONGEST_S + 300)).result
    times = warm["invoke_us"]
    basis = f"perf_counter around one invoke on {subject.host}, {len(times)} warm runs of one input"
    single = f"perf_counter on {subject.host}, single run in a new process"
    peak: Quantity = Unknown("the system does not tell it")
    if warm["peak_bytes"] is not None:
        peak = Measured(warm["peak_bytes"], "bytes", "VmHWM of the agent's process, Python and interpreter included")
    kernels = way["kernels"] if loaded["delegated"] or way["kernels"] != "xnnpack" else "default"
    return Configuration(
        kernels=kernels,
        threads=way["threads"],
        delegated=loaded["delegated"],
        runs=len(times),
        load=Measured(loaded["load_us"], "us", single),
        first=Measured(first["invoke_us"][0], "us", single),
        minimum=Measured(min(times), "us", basis),
        p50=percentile(times, 50, basis),
        p90=percentile(times, 90, basis),
        p99=percentile(times, 99, basis),
        peak=peak,
        edge_tpu=loaded["edge_tpu"],
    )


def percentile(times_us: Sequence[float], percent: float, basis: str) -> Measured:
    """Nearest rank: the smallest time that at least `percent` of the times do not exceed."""
    rank = max(1, math.ceil(percent / 100 * len(times_us)))
    return Measured(sorted(times_us)[rank - 1], "us", basis)


async def _run_all(
    subject: _Subject, options: Mapping[str, Any], inputs: Sequence[tuple[bytes, ...]], progress: Progress
) -> list[list[bytes]]:
    """The outputs of the device, `[sample][output]`."""
    results: list[list[bytes]] = []
    async with subject.agent() as agent:
        await agent.request("hello")
        loaded = (await agent.request("load", limit_s=300, **options)).result
        sizes = [entry["bytes"] for entry in loaded["outputs"]]
        batch = max(1, BATCH_BYTES // (sum(map(len, inputs[0])) + sum(sizes)))
        for at in range(0, len(inputs), batch):
            progress(f"{subject.host}: running the data", at, len(inputs))
            rows = inputs[at : at + batch]
            raw = b"".join(part for row in rows for part in row)
            reply = await agent.request("run", raw, count=len(rows), limit_s=REPLY_S + SLOWEST_S * len(rows))
            position = 0
            for _ in rows:
                row = []
                for size in sizes:
                    row.append(reply.payload[position : position + size])
                    position += size
                results.append(row)
    return results


async def _outputs(
    subject: _Subject, default: Mapping[str, Any], samples: Samples, request: Request, progress: Progress
) -> tuple[tuple[Comparison, ...], Measured | Unknown]:
    """Comparisons with this computer, those that must agree first; and the device's accuracy."""
    inputs = samples.inputs if samples.labels is not None else samples.inputs[:COMPARED_SAMPLES]
    got = await _run_all(subject, _load_options(default), inputs, progress)
    outputs = [board_tensor(subject.graph.tensor(index)) for index in subject.graph.outputs]
    on_device = accuracy(got, samples.labels, outputs[0], f"{default['called']} on {subject.host}")
    model = request.model if coral.is_compiled(subject.graph) else subject.model
    if model is None or coral.is_compiled(read_bytes(model)):
        return (), on_device
    expected = await asyncio.to_thread(reference_outputs, model, read_bytes(model), inputs, progress)
    comparisons = [compare(default["called"], got, (LITERT_REFERENCE, expected), outputs, samples.labels)]
    if subject.manifest["runtime"] == "c":
        same = await asyncio.to_thread(generated_outputs, model, subject.manifest["name"], inputs)
        comparisons.insert(0, compare("generated-c", got, (SAME_C, same), outputs, samples.labels))
    if subject.manifest["runtime"] == "litert" and default["kernels"] != "edgetpu":
        some = inputs[: COMPARED_SAMPLES if samples.labels is None else COMPARED_LABELLED]
        exact = await _run_all(subject, {"kernels": "reference"}, some, progress)
        against = await asyncio.to_thread(_counterpart, subject, model, some, expected[: len(some)])
        comparisons.insert(0, compare("reference", exact, against, outputs, samples.labels))
    return tuple(comparisons), on_device


def _counterpart(
    subject: _Subject, model: bytes, inputs: Sequence[tuple[bytes, ...]], expected: Outputs
) -> tuple[str, Outputs]:
    """What this computer has that gives the values of the device's reference kernels; see `compare`."""
    package = subject.manifest["package"].split()[0]
    if package == interpreter_package():
        return LITERT_REFERENCE, expected
    if package == "tflite-runtime" and {o.name for o in subject.graph.operators} <= OLD_REFERENCE_IS_MICRO:
        with contextlib.suppress(EdgeqError):
            return SAME_C, generated_outputs(model, subject.manifest["name"], inputs)
    return OTHER_REFERENCE, expected


async def _operators(
    subject: _Subject, default: Mapping[str, Any], samples: Samples, request: Request, progress: Progress
) -> tuple[OperatorTime, ...] | Unknown:
    if not request.operators:
        return Unknown("not asked for")
    if subject.manifest["runtime"] != "litert" or default["kernels"] == "edgetpu":
        return Unknown(f"{default['called']} executes the model as a whole")
    if reason := obstacle(subject.graph):
        return Unknown(reason)
    files = {f"prefix-{k:04d}.tflite": content for k, content in enumerate(prefixes(subject.graph), start=1)}
    total = sum(map(len, files.values()))
    if total > PREFIXES_BYTES:
        return Unknown(f"the prefixes of the graph take {total / 1e6:.0f} MB, too much to send")
    times = await _prefix_times(subject, files, _load_options(default), b"".join(samples.inputs[0]), progress)
    basis = (
        f"difference of the medians of the first k and k-1 operators run as models of their own, {default['called']}, "
        f"1 thread, on {subject.host}; the wheel has no profiler"
    )
    shares = [after - before for before, after in zip([0.0, *times], times, strict=False)]
    return tuple(
        OperatorTime(operator.index, operator.name, Measured(share, "us", basis))
        for operator, share in zip(subject.graph.operators, shares, strict=True)
    )


async def _prefix_times(
    subject: _Subject, files: dict[str, bytes], options: Mapping[str, Any], sample: bytes, progress: Progress
) -> list[float]:
    """Median microseconds of each file, in order."""
    store = subject.device.store
    contents = {**files, AGENT: agent_file().read_bytes()}
    manifest = make_manifest(contents, model=next(iter(files)), model_sha256="", runtime="litert", environment=None)
    await send_missing(store, {manifest["files"][n]["sha256"]: c for n, c in contents.items()}, progress)
    session = (await store.request("session", manifest=manifest)).result
    times = []
    try:
        async with subject.agent(session["directory"]) as agent:
            await agent.request("hello")
            for done, name in enumerate(files):
                progress(f"{subject.host}: timing operators", done, len(files))
                await agent.request("load", file=name, limit_s=300, **options)
                await agent.request("repeat", sample, runs=WARM_UP_RUNS, limit_s=300)
                ran = await agent.request("repeat", sample, runs=PREFIX_RUNS, longest_s=2, limit_s=300)
                times.append(percentile(ran.result["invoke_us"], 50, "").value)
    finally:
        with contextlib.suppress(EdgeqError):
            await store.request("end_session", session=session["session"])
    return times


async def _health(subject: _Subject) -> dict[str, Any]:
    async with subject.agent() as agent:
        await agent.request("hello")
        return (await agent.request("health")).result


def compare_health(before: Mapping[str, Any], after: Mapping[str, Any], cores: int) -> Health:
    """What of the device's state makes the times doubtful."""
    findings = []
    throttled: bool | None = None
    if before["throttled"] is not None and after["throttled"] is not None:
        during = after["throttled"] & ~before["throttled"] & THROTTLED_EVER
        throttled = bool(during or (before["throttled"] | after["throttled"]) & THROTTLED_NOW)
        if throttled:
            findings.append("The device was throttled during the run: its times are not those of a cool, well fed one.")
    for governor in after["governors"]:
        if governor != "performance":
            findings.append(f"The CPU governor is {governor!r}: clocks change with the load.")
    if before["load_average"] > cores / 2:
        findings.append(f"Other programs were busy before the run (load average {before['load_average']:.1f}).")
    return Health(dict(before), dict(after), throttled, tuple(findings))
