"""Linux boards over SSH: deploy a model, go back to the one before, remove it, measure it where it runs.

Every function takes one host or several, `[user@]name[:port]`; several are worked on at once, and one's failure does
not stop the others. With a single host its error is raised:

    UsageError    host-invalid, ssh-config-invalid
    ToolError     asyncssh-missing, wheels-not-fetched, model-not-compiled, zig-missing, build-failed
    LinkError     host-not-found, connection-refused, host-unreachable, connection-lost, ssh-failed, damaged-in-transit
    DeviceError   host-key-unknown, host-key-changed, key-refused, device-not-linux, wrong-architecture, wrong-board,
                  not-a-linux-board, python-missing, python-too-old, no-interpreter-wheel, disk-full,
                  home-not-writable, environment-failed, environment-broken, deployment-damaged, nothing-deployed,
                  no-earlier-release, wrong-model, device-busy, device-silent, agent-died, agent-error, no-systemd,
                  service-failed, library-refused, runtime-c-unsupported, edgetpu-runtime-missing, edgetpu-not-found,
                  edgetpu-delegate-failed
    AnswerNo      model-refused, model-failed, edgetpu-compiler-refused, edgetpu-model-on-cpu
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgeq.boards import Board
from edgeq.device.ssh.connection import Host, parse_host
from edgeq.device.ssh.release import Runtime, read_model
from edgeq.device.ssh.reports import Deployment, HostReport, RemoteBench, Removal
from edgeq.errors import EdgeqError
from edgeq.progress import Progress, silent

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Deployment", "HostReport", "RemoteBench", "Removal", "bench_remote", "deploy", "rollback", "uninstall"]

_Result = TypeVar("_Result", Deployment, Removal, RemoteBench)


def deploy(
    model: Path,
    board: Board | str,
    hosts: str | Sequence[str],
    *,
    name: str | None = None,
    runtime: Runtime = "litert",
    cpu: bool = False,
    service: bool = False,
    progress: Progress = silent,
) -> HostReport:
    """Deploy a `.tflite` file: tried on the device before it takes the place of the release in use.

    board: a profile, its id, or `pi` for whichever Raspberry Pi answers. runtime: `litert` for the interpreter, `c` for
    generated C. cpu: on a board with an Edge TPU, leave it alone. service: keep the model loaded behind the socket
    `~/.edgeq/socket`, as a systemd user service. `results` are Deployments.
    """
    from edgeq.device.ssh import deployment as story

    request = story.Request(read_model(model), name or model.stem, board, runtime, cpu, service)
    return _on_all(hosts, lambda host: story.deploy(host, request, progress))


def rollback(board: Board | str, hosts: str | Sequence[str]) -> HostReport:
    """Use the release before the one in use. `results` are Deployments."""
    from edgeq.device.ssh import deployment as story

    return _on_all(hosts, lambda host: story.rollback(host, board))


def uninstall(board: Board | str, hosts: str | Sequence[str]) -> HostReport:
    """Remove everything that EdgeQ put on the board. `results` are Removals."""
    from edgeq.device.ssh import deployment as story

    return _on_all(hosts, lambda host: story.uninstall(host, board))


def bench_remote(
    model: Path | None,
    board: Board | str,
    hosts: str | Sequence[str],
    *,
    x: NDArray[Any] | Sequence[NDArray[Any]] | None = None,
    y: NDArray[Any] | None = None,
    runs: int = 100,
    operators: bool = True,
    progress: Progress = silent,
) -> HostReport:
    """Measure the release in use: times per kernels and threads, memory, outputs against this computer, accuracy.

    model: the file that must be deployed, None for whatever is. x: inputs, first axis samples (one array an input); y:
    integer labels. runs: warm inferences a configuration. operators: also time each operator. `results` are
    RemoteBenches.
    """
    from edgeq.device.ssh import measurement as story

    request = story.Request(None if model is None else read_model(model), board, x, y, runs, operators)
    return _on_all(hosts, lambda host: story.bench(host, request, progress))


def _on_all(hosts: str | Sequence[str], work: Callable[[Host], Awaitable[_Result]]) -> HostReport:
    parsed = [parse_host(host) for host in ([hosts] if isinstance(hosts, str) else hosts)]

    async def everywhere() -> list[_Result | BaseException]:
        return list(await asyncio.gather(*map(work, parsed), return_exceptions=True))

    results, failures = [], {}
    for host, outcome in zip(parsed, _run(everywhere()), strict=True):
        if isinstance(outcome, BaseException):
            if len(parsed) == 1 or not isinstance(outcome, EdgeqError):
                raise outcome
            failures[host.text] = outcome
        else:
            results.append(outcome)
    return HostReport(tuple(results), failures)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end, also where an event loop runs already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
