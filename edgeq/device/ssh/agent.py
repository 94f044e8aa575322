"""A conversation with the agent or the store on a board: JSON lines and raw bytes over an SSH channel.

Each of their refusals is an EdgeqError of its own, with the next step.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.device.ssh.connection import Host, Remote, connection_lost
from edgeq.errors import AnswerNo, DeviceError, EdgeqError, LinkError
from edgeq.files import data_directory
from edgeq.progress import Progress, silent

REPLY_S = 60.0
CHUNK_BYTES = 1 << 18
BANNER_BYTES = 1 << 16
"""Most that a login shell may print before the first reply."""


def agent_file() -> Path:
    """The agent that runs on boards."""
    return data_directory("firmware") / "pi" / "edgeq_agent.py"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: the result's fields and raw bytes."""

    result: dict[str, Any]
    payload: bytes


@dataclass(frozen=True, slots=True)
class _Refusal:
    kind: type[EdgeqError]
    code: str
    what: str
    try_: tuple[str, ...] = ()


_REDEPLOY = "Deploy again: edgeq flash MODEL.tflite --board BOARD --host HOST"
_FREE = "Free space on the device: df -h ~; old files, apt clean"
_REFUSALS: dict[str, _Refusal] = {
    "busy": _Refusal(DeviceError, "device-busy", "Another EdgeQ is at work on {host}.", ("Wait for it to end.",)),
    "environment-failed": _Refusal(
        DeviceError,
        "environment-failed",
        "The Python environment on {host} could not be made.",
        ("Check that `python3 -m venv --without-pip` works there (Debian: apt install python3-venv).",),
    ),
    "damaged-in-transit": _Refusal(LinkError, "damaged-in-transit", "A file arrived damaged at {host}.", ("Repeat.",)),
    "file-damaged": _Refusal(
        DeviceError,
        "deployment-damaged",
        "Files on {host} are not those that were deployed.",
        (_REDEPLOY, "Check the storage of the device: damaged SD cards lose files."),
    ),
    "nothing-deployed": _Refusal(DeviceError, "nothing-deployed", "Nothing is deployed on {host}.", (_REDEPLOY,)),
    "no-such-release": _Refusal(DeviceError, "nothing-deployed", "{host} lost the release.", (_REDEPLOY,)),
    "no-earlier-release": _Refusal(
        DeviceError, "no-earlier-release", "{host} has no release before the one in use.", (_REDEPLOY,)
    ),
    "interpreter-missing": _Refusal(
        DeviceError, "environment-broken", "The Python environment on {host} has no interpreter.", (_REDEPLOY,)
    ),
    "interpreter-broken": _Refusal(
        DeviceError, "environment-broken", "The interpreter on {host} cannot be loaded.", (_REDEPLOY,)
    ),
    "model-refused": _Refusal(
        AnswerNo,
        "model-refused",
        "The interpreter on {host} cannot run this model.",
        ("Check the operators: edgeq check MODEL.tflite --board BOARD",),
    ),
    "library-refused": _Refusal(
        DeviceError,
        "library-refused",
        "{host} cannot load the compiled model.",
        ("Deploy with --runtime litert instead.",),
    ),
    "edgetpu-runtime-missing": _Refusal(
        DeviceError,
        "edgetpu-runtime-missing",
        "{host} has no Edge TPU runtime (libedgetpu).",
        ("Install it there: sudo apt install libedgetpu1-std (Coral's package source)", "Run on the CPU: --cpu"),
    ),
    "edgetpu-not-found": _Refusal(
        DeviceError,
        "edgetpu-not-found",
        "{host} has the Edge TPU runtime but no accelerator.",
        (
            "Plug the accelerator in; `lsusb` shows 1a6e:089a or 18d1:9302.",
            "If it is there: your user needs the group plugdev, and a replug after installing the runtime.",
            "Run on the CPU: --cpu",
        ),
    ),
    "edgetpu-delegate-failed": _Refusal(
        DeviceError,
        "edgetpu-delegate-failed",
        "The Edge TPU on {host} could not be opened.",
        ("Another program may hold it.", "libedgetpu and the interpreter may not match; use tflite-runtime 2.14."),
    ),
    "edgetpu-delegate-needed": _Refusal(
        AnswerNo,
        "edgetpu-model-on-cpu",
        "The model is compiled for the Edge TPU and cannot run on the CPU of {host}.",
        ("Deploy the .tflite from before edgetpu_compiler.",),
    ),
    "no-systemd": _Refusal(DeviceError, "no-systemd", "{host} has no systemd for --service.", ("Leave --service.",)),
    "service-failed": _Refusal(
        DeviceError,
        "service-failed",
        "The service on {host} did not come up; the release from before is in use again.",
        ("Look there: journalctl --user -u edgeq", "Without a user session systemd needs: loginctl enable-linger"),
    ),
    "model-failed": _Refusal(AnswerNo, "model-failed", "The model failed on {host} while running."),
}
_FULL = _Refusal(DeviceError, "disk-full", "There is no space left on {host}.", (_FREE,))
_READ_ONLY = _Refusal(
    DeviceError,
    "home-not-writable",
    "The home directory on {host} cannot be written.",
    (
        "A damaged SD card is mounted read-only: dmesg on the device tells.",
        "Check the owner of the directory: ls -ld ~",
    ),
)
_ERRNO = {
    **dict.fromkeys(("ENOSPC", "EDQUOT", "EFBIG"), _FULL),
    **dict.fromkeys(("EROFS", "EACCES", "EPERM"), _READ_ONLY),
}
_OTHER = _Refusal(DeviceError, "agent-error", "{host} refused a request.", ("Run again with --debug.",))


def refusal(host: Host, error: dict[str, Any]) -> EdgeqError:
    """The EdgeqError for an agent's error object."""
    known = _ERRNO.get(str(error.get("errno"))) or _REFUSALS.get(str(error.get("code")), _OTHER)
    why = str(error.get("why", ""))
    if known is _OTHER:
        why = f"{error.get('code')}: {why}"
    return known.kind(known.code, known.what.format(host=host.text), where=host.text, why=why, try_=known.try_)


class AgentChannel:
    """One agent process on the board; requests go one at a time."""

    def __init__(self, process: Any, host: Host) -> None:
        self._process, self._host, self._number = process, host, 0

    async def request(
        self,
        command: str,
        payload: bytes = b"",
        *,
        limit_s: float = REPLY_S,
        progress: Progress = silent,
        **fields: Any,
    ) -> Reply:
        """Send a request and wait for its reply. DeviceError `agent-died`, `device-silent`; LinkError; refusals."""
        import asyncssh

        self._number += 1
        line = json.dumps({"id": self._number, "command": command, "payload_bytes": len(payload), **fields})
        try:
            async with asyncio.timeout(limit_s + len(payload) / 10_000):
                self._process.stdin.write(line.encode() + b"\n")
                for at in range(0, len(payload), CHUNK_BYTES):
                    self._process.stdin.write(payload[at : at + CHUNK_BYTES])
                    await self._process.stdin.drain()
                    progress(f"sending to {self._host.text}", min(at + CHUNK_BYTES, len(payload)), len(payload))
                await self._process.stdin.drain()
                reply = await self._reply()
                body = await self._process.stdout.readexactly(int(reply.get("payload_bytes", 0)))
        except TimeoutError as error:
            raise DeviceError(
                "device-silent",
                f"{self._host.text} did not answer `{command}` in time.",
                where=self._host.text,
                try_="Look at the load of the device, then repeat.",
            ) from error
        except (asyncio.IncompleteReadError, OSError, asyncssh.Error) as error:
            raise await self._ended(error) from error
        if "error" in reply:
            raise refusal(self._host, reply["error"])
        return Reply(reply["result"], body)

    async def _reply(self) -> dict[str, Any]:
        skipped = 0
        while True:
            line = await self._process.stdout.readline()
            if not line.endswith(b"\n"):
                raise asyncio.IncompleteReadError(line, None)
            with contextlib.suppress(ValueError):
                reply = json.loads(line)
                if isinstance(reply, dict) and reply.get("id") == self._number:
                    return reply
            # A login shell may print before the agent starts.
            skipped += len(line)
            if self._number > 1 or skipped > BANNER_BYTES:
                raise DeviceError(
                    "agent-error",
                    f"{self._host.text} sent something that is not a reply.",
                    where=self._host.text,
                    why=line[:80].decode(errors="replace").strip(),
                    try_="Remove what ~/.bashrc or ~/.profile print in sessions without a terminal.",
                )

    async def _ended(self, error: Exception) -> EdgeqError:
        """Whether the agent died or the line broke."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3):
                await self._process.wait_closed()
        signal, status = self._process.exit_signal, self._process.exit_status
        if signal is None and status is None:
            return connection_lost(self._host, error)
        last = ""
        with contextlib.suppress(Exception):
            last = (await self._process.stderr.read()).decode(errors="replace").strip().splitlines()[-1]
        name = signal[0] if signal else f"status {status}"
        return DeviceError(
            "agent-died",
            f"The agent on {self._host.text} ended in the middle of its work ({name}).",
            where=self._host.text,
            why=last
            or ("SIGKILL comes from a user or from a lack of memory." if name in ("KILL", "status 137") else None),
            try_=("Repeat the command.", "If it was killed for lack of memory, `dmesg` on the device tells."),
        )


@asynccontextmanager
async def start(remote: Remote, words: Sequence[str], *, source: bytes = b"") -> AsyncIterator[AgentChannel]:
    """Start a program that speaks the agent's protocol; `source` goes to its standard input first."""
    import asyncssh

    try:
        process = await remote.connection.create_process(shlex.join(words), encoding=None)
        process.stdin.write(source)
    except (asyncssh.Error, OSError) as error:
        raise connection_lost(remote.host, error) from error
    try:
        yield AgentChannel(process, remote.host)
    finally:
        with contextlib.suppress(OSError, asyncssh.Error, TimeoutError):
            process.stdin.write_eof()
            async with asyncio.timeout(3):
                await process.wait_closed()
        process.close()


def start_store(remote: Remote, python: str) -> Any:
    """The store: its source and the agent's go over the line, nothing needs to be on the board but Python."""
    agent, store = agent_file().read_bytes(), agent_file().with_name("edgeq_store.py").read_bytes()
    # Both sources go to standard input, where the requests follow.
    program = (
        "import sys,types;r=sys.stdin.buffer.read;m=types.ModuleType('edgeq_agent');sys.modules[m.__name__]=m;"
        f"exec(compile(r({len(agent)}),'edgeq_agent.py','exec'),m.__dict__);"
        f"exec(compile(r({len(store)}),'edgeq_store.py','exec'))"
    )
    return start(remote, [python, "-I", "-c", program], source=agent + store)


def start_agent(remote: Remote, python: str, directory: str) -> Any:
    """The agent of a release or session directory."""
    return start(remote, [python, "-I", f"{directory}/edgeq_agent.py", "run", directory])
