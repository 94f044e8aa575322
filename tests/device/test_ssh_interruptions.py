"""Deployments that are interrupted: the release from before runs, and a repeat completes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ssh_board import SSHD, Client, Cut, SshBoard, fails, host

from edgeq.device import ssh
from edgeq.device.ssh.agent import AgentChannel
from edgeq.errors import DeviceError, EdgeqError

pytestmark = pytest.mark.skipif(SSHD is None, reason="needs sshd (apt install openssh-server)")

MakeBoard = Callable[..., SshBoard]
MORE = ("has_environment", "missing", "hello", "run")


def before_command(
    monkeypatch: pytest.MonkeyPatch, command: str, act: Callable[[], None], *, late: bool = False
) -> None:
    """Have `act` happen just before `command` is sent, or just after it."""
    original = AgentChannel.request
    done = []

    async def request(self: AgentChannel, name: str, payload: bytes = b"", **rest: Any) -> Any:
        if name != command or done:
            return await original(self, name, payload, **rest)
        done.append(name)
        if not late:
            act()
            return await original(self, name, payload, **rest)
        sent = asyncio.ensure_future(original(self, name, payload, **rest))
        await asyncio.sleep(0.02)
        act()
        return await sent

    monkeypatch.setattr(AgentChannel, "request", request)


CUTS = [
    ("open", False),
    ("put", False),
    ("put", True),
    ("stage", True),
    ("load", False),
    ("switch", False),
    ("switch", True),
    *(pytest.param(name, late, marks=pytest.mark.slow) for name in MORE for late in (False, True)),
]


@pytest.mark.parametrize(("command", "late"), CUTS)
def test_a_connection_cut_at_each_stage(
    make: MakeBoard, client: Client, other: Path, monkeypatch: pytest.MonkeyPatch, command: str, late: bool
) -> None:
    board = make()
    before = board.current
    proxy = Cut(board.port)
    client.know(board, proxy.port)
    with contextlib.closing(proxy), monkeypatch.context() as patched:
        before_command(patched, command, proxy.cut, late=late)
        try:
            ssh.deploy(other, "pi", host(board, proxy.port))
        except EdgeqError as error:
            assert error.code == "connection-lost"
        else:
            assert late, "the reply came before the cut"
    assert board.runs()
    if not (late and command == "switch"):
        assert late or board.current == before
    deadline = time.monotonic() + 5
    while True:
        try:
            report = ssh.deploy(other, "pi", host(board))
            break
        except DeviceError as error:
            assert error.code == "device-busy"
            assert time.monotonic() < deadline, "the lock outlives its connection"
            time.sleep(0.1)
    assert report.ok
    assert board.runs()
    assert not list(board.store.rglob(".part-*"))


@pytest.mark.slow
def test_a_connection_cut_while_the_wheels_travel(
    make: MakeBoard, pushed: tuple[SshBoard, Any], client: Client, model: Path
) -> None:
    board = make(deployed=False)
    proxy = Cut(board.port)
    client.know(board, proxy.port)
    # The last wheel is on its way, the others have arrived.
    proxy.after_bytes = pushed[1].sent_bytes * 19 // 20
    with contextlib.closing(proxy):
        assert fails(lambda: ssh.deploy(model, "pi", host(board, proxy.port))).code == "connection-lost"
        arrived = [path for path in (board.store / "blobs").iterdir() if not path.name.startswith(".part-")]
        assert arrived
        proxy.after_bytes = None
        report = ssh.deploy(model, "pi", host(board, proxy.port)).results[0]
    assert isinstance(report, ssh.Deployment)
    assert report.environment == "made"
    assert board.runs()


@pytest.mark.parametrize("command", ["put", "load", "switch"])
def test_a_killed_agent(make: MakeBoard, other: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    board = make()
    before = board.current

    def kill() -> None:
        listed = subprocess.run(["ps", "-ww", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
        mine = f"{board.store}/" if command == "load" else "edgeq_store.py"
        for line in listed.splitlines():
            pid, _, arguments = line.strip().partition(" ")
            if mine in arguments and "-I" in arguments and descends(int(pid), board.process.pid):
                os.kill(int(pid), signal.SIGKILL)

    with monkeypatch.context() as patched:
        before_command(patched, command, kill)
        error = fails(lambda: ssh.deploy(other, "pi", host(board)))
    assert error.code == "agent-died"
    assert "KILL" in error.what or "137" in error.what
    assert board.current == before
    assert board.runs()
    assert ssh.deploy(other, "pi", host(board)).ok


def descends(pid: int, ancestor: int) -> bool:
    """Whether a process comes from another."""
    while pid > 1:
        if pid == ancestor:
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            return False
    return False


def test_two_at_once_on_one_board(make: MakeBoard, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = make()
    errors = []

    def compete() -> None:
        errors.append(fails(lambda: ssh.deploy(other, "pi", host(board))).code)

    def in_between() -> None:
        thread = threading.Thread(target=compete)
        thread.start()
        thread.join()

    with monkeypatch.context() as patched:
        before_command(patched, "stage", in_between)
        assert ssh.deploy(other, "pi", host(board)).ok
    assert errors == ["device-busy"]
