"""Deploy to a Linux board: ask what it is, send what is missing, try the release, switch to it in one step.

Whatever is interrupted, the release from before stays in use, and a repeat goes on from what has arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from edgeq.boards import Board
from edgeq.device.ssh import coral, wheels
from edgeq.device.ssh.agent import AgentChannel, start_agent, start_store
from edgeq.device.ssh.connection import Host, Remote, connect
from edgeq.device.ssh.native import compile_library
from edgeq.device.ssh.probe import DeviceFacts, identify, probe
from edgeq.device.ssh.release import Release, Runtime, interpreter_release, library_release
from edgeq.device.ssh.reports import Deployment, Removal
from edgeq.errors import DeviceError, EdgeqError
from edgeq.measure import Measured
from edgeq.progress import Progress

INSTALL_S = 1200.0
"""Unpacking wheels on an SD card takes minutes."""
UNPACKED = 4
"""Bytes that an installed wheel takes, per byte of the wheel, compiled Python included: 3.3 for ai-edge-litert 2.3."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to deploy: the `.tflite`, its name, and how it is to run."""

    model: bytes
    name: str
    board: Board | str
    runtime: Runtime = "litert"
    cpu: bool = False
    service: bool = False


@dataclass(frozen=True, slots=True)
class Device:
    """A device that has answered: connection, facts, its store."""

    remote: Remote
    facts: DeviceFacts
    board: Board
    store: AgentChannel


@asynccontextmanager
async def reach(host: Host, board: Board | str) -> AsyncIterator[Device]:
    """Connect, ask what the device is, refuse the wrong one, start the store."""
    async with connect(host) as remote:
        facts = await probe(remote)
        profile = identify(board, facts, host.text)
        async with start_store(remote, facts.python) as store:
            yield Device(remote, facts, profile, store)


async def deploy(host: Host, request: Request, progress: Progress) -> Deployment:
    """Make `request` the release in use on `host`. See the package for errors."""
    async with reach(host, request.board) as device:
        store = device.store
        progress(f"{host.text}: {device.facts.model or device.facts.machine}", 1, 4)
        release = await asyncio.to_thread(_release, request, device, host)
        manifest = release.manifest
        before = (await store.request("open")).result
        if _in_use(before, release, request):
            times = await _try(device, f"{before['directory']}/current", manifest)
            same: dict[str, Any] = {"action": "unchanged", "previous": None, "environment": "present", "sent_bytes": 0}
            return _report(device, manifest, before, times, **same)
        environment, sent = await _environment(device, release, before["free_bytes"], progress)
        _check_space(host, sum(map(len, release.files.values())), before["free_bytes"])
        sent += await send_missing(store, release.digests, progress)
        staged = (await store.request("stage", manifest=manifest)).result
        try:
            times = await _try(device, staged["directory"], manifest)
        except EdgeqError:
            with contextlib.suppress(EdgeqError):
                await store.request("discard", release=staged["release"])
            raise
        progress(f"{host.text}: switching", 3, 4)
        switch = store.request("switch", release=staged["release"], service=request.service, limit_s=120)
        after = (await switch).result
        changed = {"action": "deployed", "previous": after["previous"], "environment": environment, "sent_bytes": sent}
        return _report(device, manifest, after, times, **changed)


async def rollback(host: Host, board: Board | str) -> Deployment:
    """Use the release before the one in use."""
    async with reach(host, board) as device:
        if (await device.store.request("status")).result["current"] is None:
            raise nothing_deployed(host)
        await device.store.request("open")
        after = (await device.store.request("rollback", limit_s=120)).result
        manifest = current_manifest(after, host)
        times = await _try(device, f"{after['directory']}/current", manifest)
        done = {"action": "rolled-back", "previous": after["previous"], "environment": "present", "sent_bytes": 0}
        return _report(device, manifest, after, times, **done)


async def uninstall(host: Host, board: Board | str) -> Removal:
    """Remove everything that was deployed, the service included."""
    async with reach(host, board) as device:
        if (await device.store.request("status")).result["installed"]:
            await device.store.request("open")
        removed = (await device.store.request("uninstall", limit_s=120)).result["removed"]
        return Removal(host.text, removed)


def current_manifest(status: dict[str, Any], host: Host) -> dict[str, Any]:
    """The manifest of the release in use. DeviceError `nothing-deployed`."""
    for entry in status["releases"]:
        if entry["release"] == status["current"]:
            manifest: dict[str, Any] = entry["manifest"]
            return manifest
    raise nothing_deployed(host)


def agent_python(manifest: Mapping[str, Any], directory: str, facts: DeviceFacts) -> str:
    """The Python that runs a release's agent: its environment's, or the system's where it needs none."""
    return f"{directory}/env/bin/python" if manifest.get("environment") else facts.python


async def send_missing(store: AgentChannel, contents: dict[str, bytes], progress: Progress) -> int:
    """Send what the device lacks of SHA-256 -> content; the bytes sent."""
    missing = (await store.request("missing", digests=sorted(contents))).result["missing"]
    for digest in missing:
        await store.request("put", contents[digest], sha256=digest, progress=progress)
    return sum(len(contents[digest]) for digest in missing)


def _release(request: Request, device: Device, host: Host) -> Release:
    if request.runtime == "c":
        library, about = compile_library(request.model, request.name, device.facts)
        return library_release(request.model, request.name, device.board.id, library, about)
    compiled = None
    if device.board.executor("edge-tpu") is not None and not request.cpu:
        compiled = coral.compiled_model(request.model, request.name, device.board)
    executor = device.board.executor("litert-xnnpack")
    prefer = executor.package if executor is not None and executor.kind == "litert-xnnpack" else None
    requirement = wheels.choose(device.facts, host.text, prefer=prefer)
    key = requirement.key(device.facts)
    return interpreter_release(request.model, request.name, device.board.id, requirement, key, for_edge_tpu=compiled)


def _in_use(status: dict[str, Any], release: Release, request: Request) -> bool:
    """Whether the release in use is this one already, with the service as asked."""
    entries = {entry["release"]: entry["manifest"] for entry in status["releases"]}
    same = entries.get(status["current"]) == release.manifest
    return same and (status["service"] or not request.service)


async def _environment(device: Device, release: Release, free_bytes: int, progress: Progress) -> tuple[str, int]:
    """`not-needed`, `present` or `made`, and the bytes sent for it."""
    if release.requirement is None:
        return "not-needed", 0
    key = release.manifest["environment"]
    if (await device.store.request("has_environment", key=key)).result["complete"]:
        return "present", 0
    progress("fetching wheels", 0, None)
    paths = await wheels.fetch(release.requirement, device.facts)
    contents = {path.name: path.read_bytes() for path in paths}
    digests = {hashlib.sha256(content).hexdigest(): content for content in contents.values()}
    total = sum(map(len, contents.values()))
    _check_space(device.remote.host, total * (1 + UNPACKED), free_bytes)
    sent = await send_missing(device.store, digests, progress)
    named = [{"name": name, "sha256": hashlib.sha256(content).hexdigest()} for name, content in contents.items()]
    progress(f"{device.remote.host.text}: installing {release.manifest['package']}", 2, 4)
    await device.store.request("make_environment", key=key, wheels=named, limit_s=INSTALL_S)
    return "made", sent


def _check_space(host: Host, need_bytes: int, free_bytes: int) -> None:
    if need_bytes > free_bytes:
        raise DeviceError(
            "disk-full",
            f"There is not enough space left on {host.text}.",
            where=host.text,
            why=f"{need_bytes / 1e6:.0f} MB are needed, {free_bytes / 1e6:.0f} MB are free.",
            try_="Free space on the device: df -h ~; old files, apt clean",
        )


async def _try(device: Device, directory: str, manifest: Mapping[str, Any]) -> tuple[Measured, Measured]:
    """Load the release's model and run it once on zeros, in the release's own agent: microseconds of both."""
    host = device.remote.host.text
    python = agent_python(manifest, directory, device.facts)
    async with start_agent(device.remote, python, directory) as agent:
        await agent.request("hello")
        loaded = (await agent.request("load", **manifest["defaults"])).result
        zeros = bytes(sum(entry["bytes"] for entry in loaded["inputs"]))
        ran = (await agent.request("run", zeros, count=1, limit_s=300)).result
    basis = f"perf_counter on {host}, single run"
    return Measured(loaded["load_us"], "us", basis), Measured(ran["invoke_us"][0], "us", basis)


def nothing_deployed(host: Host) -> DeviceError:
    """The error where there is no release."""
    return DeviceError(
        "nothing-deployed",
        f"Nothing is deployed on {host.text}.",
        where=host.text,
        try_="Deploy first: edgeq flash MODEL.tflite --board BOARD --host HOST",
    )


def _report(
    device: Device, manifest: Mapping[str, Any], status: dict[str, Any], times: tuple[Measured, Measured], **rest: Any
) -> Deployment:
    return Deployment(
        host=device.remote.host.text,
        board=device.board.id,
        device=device.facts,
        release=status["current"],
        kept=tuple(entry["release"] for entry in status["releases"]),
        runtime=manifest["package"],
        model_sha256=manifest["model_sha256"],
        service=status["service"],
        load=times[0],
        first=times[1],
        **rest,
    )
