"""A Linux board for tests: a real OpenSSH server on loopback, as a user without privileges, with a home of its own.

`SshBoard` is the server, `client` a home directory for the SSH side of EdgeQ, `Cut` a proxy that breaks connections.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.errors import EdgeqError
from edgeq.graph import Graph, Operator, Quantization, Tensor, TensorType, write_bytes

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
USER = "edgeq-test" if os.geteuid() == 0 else getpass.getuser()
PI = "Raspberry Pi 4 Model B Rev 1.4"


def ensure_user() -> None:
    """As root, a user without privileges for the servers; `remove_user` takes it away."""
    if os.geteuid() == 0:
        with contextlib.suppress(KeyError):
            pwd.getpwnam(USER)
            return
        subprocess.run(
            ["useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/bin/sh", USER],
            check=True,
        )


def remove_user() -> None:
    """Undo `ensure_user`."""
    if os.geteuid() == 0:
        subprocess.run(["userdel", USER], check=False, capture_output=True)


def as_board_user() -> dict[str, Any]:
    """Arguments of Popen for a process of the boards' user."""
    if os.geteuid() != 0:
        return {}
    return {"user": USER, "group": pwd.getpwnam(USER).pw_gid, "extra_groups": []}


def free_port() -> int:
    """A TCP port that nothing listens on, outside the range from which the system gives ports to others."""
    while True:
        port = random.randrange(20_000, 30_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def new_key(path: Path, kind: str = "ed25519") -> None:
    """A key pair at `path`."""
    path.unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)], check=True)


class SshBoard:
    """A running server. `model` is what its device tree says, `glibc` its C library's version, if not the real one."""

    def __init__(
        self,
        root: Path,
        public_key: str,
        *,
        model: str = PI,
        file_size_limit: int | None = None,
        glibc: str | None = None,
    ) -> None:
        self.root, self.home, self.fakes = root, root / "home", root / "fakes"
        self.port, self.limit = free_port(), file_size_limit
        for directory in (root, self.home, self.fakes):
            directory.mkdir(parents=True, exist_ok=True)
        (root / "authorized_keys").write_text(public_key)
        new_key(root / "host_key")
        self.fake("cat", f'[ "$1" = /proc/device-tree/model ] && printf %s "{model}" || exec /bin/cat "$@"')
        if glibc is not None:
            self.fake("getconf", f"echo glibc {glibc}")
        self.own()
        self.start()

    def own(self) -> None:
        """Give everything to the unprivileged user."""
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", f"{USER}:", str(self.root)], check=True)

    def fake(self, name: str, body: str) -> None:
        """Put a program before the system's on the PATH of sessions."""
        path = self.fakes / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def start(self, path: str = "/usr/local/bin:/usr/bin:/bin", more: str = "") -> None:
        """Start the server and wait until it answers. path, more: of the sessions' environment."""
        self.serve(f"HOME={self.home} PATH={self.fakes}:{path} {more}", [], as_user=True)

    def serve(self, environment: str, further: list[str], *, as_user: bool) -> None:
        """Run sshd; as_user: without privileges, where this process has any."""
        lines = [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.root}/host_key",
            f"AuthorizedKeysFile {self.root}/authorized_keys",
            f"SetEnv {environment}",
            "PasswordAuthentication no",
            "StrictModes no",
            "UsePAM no",
            "PidFile none",
            # By default sshd refuses connections at random while ten others have not yet authenticated.
            "MaxStartups 100",
            *further,
        ]
        (self.root / "sshd_config").write_text("\n".join(lines) + "\n")
        self.log = (self.root / "log").open("ab")
        assert SSHD is not None
        limit = "" if self.limit is None else f"ulimit -f {self.limit // 512};"
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", f"{limit} exec {SSHD} -D -e -f {self.root}/sshd_config"],
            stderr=self.log,
            cwd="/",
            start_new_session=True,
            **(as_board_user() if as_user else {}),
        )
        end = time.monotonic() + 10
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                if probe.recv(4) == b"SSH-":
                    return
            time.sleep(0.05)
        raise RuntimeError((self.root / "log").read_text())

    def stop(self) -> None:
        """End the server."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(10)
        self.log.close()

    @property
    def store(self) -> Path:
        """What EdgeQ keeps on the board."""
        return self.home / ".edgeq"

    @property
    def current(self) -> str | None:
        """The name of the release in use."""
        link = self.store / "current"
        return link.readlink().name if link.is_symlink() else None

    def runs(self) -> bool:
        """Whether the release in use answers one inference, asked without SSH and without EdgeQ's host side."""
        python = self.store / "current" / "env" / "bin" / "python"
        agent = self.store / "current" / "edgeq_agent.py"
        requests = b'{"id":1,"command":"hello"}\n{"id":2,"command":"load"}\n{"id":3,"command":"run","count":1,'
        requests += b'"payload_bytes":16}\n' + bytes(16)
        done = subprocess.run(
            [str(python), "-I", str(agent), "run", str(self.store / "current")],
            input=requests,
            capture_output=True,
            check=False,
            cwd="/",
            **as_board_user(),
        )
        return done.returncode == 0 and b"invoke_us" in done.stdout and b'"error"' not in done.stdout


class Client:
    """A home for EdgeQ's side: a key, `~/.ssh/config` with names for boards, `known_hosts`."""

    def __init__(self, root: Path) -> None:
        self.ssh = root / ".ssh"
        self.ssh.mkdir(parents=True, mode=0o700)
        new_key(self.ssh / "id_ed25519")
        self.public_key = (self.ssh / "id_ed25519.pub").read_text()

    def know(self, board: SshBoard, port: int | None = None) -> None:
        """Accept the board's key, as `ssh` does when the user says yes."""
        key = (board.root / "host_key.pub").read_text()
        with (self.ssh / "known_hosts").open("a") as stream:
            stream.write(f"[127.0.0.1]:{port or board.port} {key}")

    def name(self, alias: str, board: SshBoard, port: int | None = None) -> str:
        """A `Host` entry for the board."""
        with (self.ssh / "config").open("a") as stream:
            stream.write(f"Host {alias}\n  HostName 127.0.0.1\n  Port {port or board.port}\n  User {USER}\n")
        return alias


class Cut:
    """A TCP proxy to a board whose connections break on `cut()`; `after_bytes` does so by itself."""

    def __init__(self, target_port: int) -> None:
        self.target, self.after_bytes, self.sent = target_port, None, 0
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.server.getsockname()[1])
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                near.close()
                continue
            self.pairs.append((near, far))
            threading.Thread(target=self._copy, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._copy, args=(far, near, False), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(1 << 16):
                if up:
                    self.sent += len(block)
                    if self.after_bytes is not None and self.sent >= self.after_bytes:
                        break
                sink.sendall(block)
        self._break(source, sink)

    def cut(self) -> None:
        """Break every connection now."""
        for near, far in self.pairs:
            self._break(near, far)

    @staticmethod
    def _break(*ends: socket.socket) -> None:
        """Shut down, not close: a number that is closed under another thread's call may come to name another socket."""
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop accepting, break what is open."""
        with contextlib.suppress(OSError):
            self.server.shutdown(socket.SHUT_RDWR)
        self.thread.join(5)
        self.server.close()
        self.cut()


def small_model(seed: int = 0) -> bytes:
    """A fully connected int8 model, 16 inputs and 4 outputs."""
    generator = np.random.default_rng(seed)
    weights = generator.integers(-127, 128, (4, 16), dtype=np.int8)
    bias = generator.integers(-500, 500, 4, dtype=np.int32)

    def tensor(index: int, name: str, kind: TensorType, data: object, shape: tuple[int, ...], scale: float) -> Tensor:
        return Tensor(index, name, kind, shape, shape, Quantization((scale,), (0,)), data)  # type: ignore[arg-type]

    tensors = (
        tensor(0, "input", TensorType.INT8, None, (1, 16), 0.5),
        tensor(1, "weights", TensorType.INT8, weights, (4, 16), 0.25),
        tensor(2, "bias", TensorType.INT32, bias, (4,), 0.125),
        tensor(3, "output", TensorType.INT8, None, (1, 4), 16.0),
    )
    options = {"fused_activation_function": "NONE", "weights_format": "DEFAULT", "keep_num_dims": False}
    operator = Operator(0, "FULLY_CONNECTED", 4, (0, 1, 2), (3,), options)
    return write_bytes(Graph("main", tensors, (operator,), (0,), (3,)))


def new_root() -> Path:
    """A directory that the unprivileged user can reach, which pytest's are not."""
    root = Path(tempfile.mkdtemp(prefix="edgeq-ssh-"))
    root.chmod(0o755)
    return root


def copy_store(source: SshBoard, board: SshBoard) -> None:
    """The deployment of another board, whose environment both use: it is large and nobody writes into it."""
    environments = board.store / "env"
    environments.mkdir(parents=True)
    for environment in (source.store / "env").iterdir():
        (environments / environment.name).symlink_to(environment)
    for part in ("blobs", "releases", "current"):
        subprocess.run(["cp", "-a", str(source.store / part), str(board.store / part)], check=True)
    board.own()


def host(board: SshBoard, port: int | None = None) -> str:
    """The board, or a proxy before it, as EdgeQ names hosts."""
    return f"{USER}@127.0.0.1:{port or board.port}"


def fails(work: Callable[[], Any]) -> EdgeqError:
    """The error of `work`, which must say what went wrong and what to try."""
    with pytest.raises(EdgeqError) as caught:
        work()
    assert caught.value.what
    assert caught.value.try_, caught.value.code
    return caught.value
