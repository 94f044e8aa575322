"""Fixtures of the tests against boards: Linux ones behind sshd, and Ctrl-C."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ssh_board import SSHD, Client, SshBoard, copy_store, ensure_user, new_root, remove_user, small_model

from edgeq.device import ssh
from edgeq.errors import ToolError

MakeBoard = Callable[..., SshBoard]


@pytest.fixture(scope="session")
def ssh_root() -> Iterator[Path]:
    """A directory that boards' users can reach; as root, with a user without privileges."""
    if SSHD is None:
        pytest.skip("needs sshd (apt install openssh-server)")
    place = new_root()
    ensure_user()
    yield place
    remove_user()
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="session")
def ssh_client(ssh_root: Path) -> Client:
    return Client(ssh_root / "client")


def at_home(patch: pytest.MonkeyPatch, client: Client) -> None:
    """Give EdgeQ's side the client's home, but this user's own caches of wheels and compiled system libraries."""
    cache = Path.home() / ".cache"
    for name, directory in (("EDGEQ_CACHE", "edgeq"), ("PIP_CACHE_DIR", "pip"), ("ZIG_GLOBAL_CACHE_DIR", "zig")):
        if name not in os.environ:
            patch.setenv(name, str(cache / directory))
    patch.setenv("HOME", str(client.ssh.parent))
    patch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture
def client(ssh_client: Client, monkeypatch: pytest.MonkeyPatch) -> Client:
    at_home(monkeypatch, ssh_client)
    return ssh_client


@pytest.fixture(scope="session")
def model(ssh_root: Path) -> Path:
    path = ssh_root / "small.tflite"
    path.write_bytes(small_model())
    return path


@pytest.fixture(scope="session")
def other(ssh_root: Path) -> Path:
    path = ssh_root / "other.tflite"
    path.write_bytes(small_model(1))
    return path


@pytest.fixture(scope="session", params=["ai-edge-litert", pytest.param("tflite-runtime", marks=pytest.mark.slow)])
def package(request: pytest.FixtureRequest) -> str:
    """The interpreter of the boards."""
    return str(request.param)


@pytest.fixture(scope="session")
def board_python(package: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python that has the boards' interpreter: this one, or an environment with tflite-runtime and numpy 1."""
    if package == "ai-edge-litert":
        return sys.executable
    place = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    python = str(place / "bin" / "python")
    words = [python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", "tflite-runtime==2.14.0", "numpy<2"]
    if subprocess.run(words, check=False).returncode:
        pytest.skip("needs the wheels of tflite-runtime 2.14 and numpy 1 for this Python (pip install)")
    return python


def old_glibc(package: str) -> str | None:
    """The C library that a board must tell for that interpreter to be chosen: ai-edge-litert needs 2.27."""
    return "2.17" if package == "tflite-runtime" else None


@pytest.fixture(scope="session")
def pushed(ssh_root: Path, ssh_client: Client, model: Path, package: str) -> Iterator[tuple[SshBoard, Any]]:
    """A board after its first deployment, which fetched the wheels and pushed them; known as `first-PACKAGE`."""
    name = f"first-{package}"
    board = SshBoard(ssh_root / name, ssh_client.public_key, glibc=old_glibc(package))
    ssh_client.know(board)
    ssh_client.name(name, board)
    try:
        with pytest.MonkeyPatch.context() as patch:
            at_home(patch, ssh_client)
            report = ssh.deploy(model, "pi", name)
    except ToolError as error:
        board.stop()
        pytest.skip(f"the wheels cannot be fetched here: {error.why}")
    yield board, report.results[0]
    board.stop()


@pytest.fixture
def make(ssh_root: Path, client: Client, pushed: tuple[SshBoard, Any], package: str) -> Iterator[MakeBoard]:
    """More boards; with `deployed`, in the state of the first one."""
    boards: list[SshBoard] = []

    def build(*, deployed: bool = True, **options: Any) -> SshBoard:
        options = {"glibc": old_glibc(package), **options}
        board = SshBoard(ssh_root / f"b{time.monotonic_ns()}", client.public_key, **options)
        boards.append(board)
        if deployed:
            copy_store(pushed[0], board)
        client.know(board)
        return board

    yield build
    for board in boards:
        board.stop()
        shutil.rmtree(board.root, ignore_errors=True)


@pytest.fixture
def control_c() -> Iterator[None]:
    """SIGINT interrupts here and in processes started from here; whoever runs tests in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
