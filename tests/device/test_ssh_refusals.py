"""Hosts, keys, devices and disks that a deployment meets: each its own error, the release in use intact."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from ssh_board import SSHD, Client, SshBoard, fails, host, new_key, small_model

from edgeq.device import ssh

pytestmark = pytest.mark.skipif(SSHD is None, reason="needs sshd (apt install openssh-server)")

MakeBoard = Callable[..., SshBoard]


def test_an_unknown_host_key_is_refused_with_its_fingerprint(make: MakeBoard, client: Client, model: Path) -> None:
    board = make(deployed=False)
    known = client.ssh / "known_hosts"
    kept = known.read_text()
    try:
        known.unlink()
        error = fails(lambda: ssh.deploy(model, "pi", host(board)))
        words = ["ssh-keygen", "-lf", f"{board.root}/host_key.pub"]
        told = subprocess.run(words, text=True, capture_output=True, check=True)
        assert error.code == "host-key-unknown"
        assert told.stdout.split()[1] in str(error.why)
        assert any(f"ssh -o HostKeyAlgorithms=ssh-ed25519 -p {board.port}" in step for step in error.try_)
        assert not known.exists()
    finally:
        known.write_text(kept)
    assert not board.store.exists()


def test_a_changed_host_key_is_refused(make: MakeBoard, model: Path) -> None:
    board = make()
    board.stop()
    new_key(board.root / "host_key")
    board.own()
    board.start()
    before = board.current
    error = fails(lambda: ssh.deploy(model, "pi", host(board)))
    assert error.code == "host-key-changed"
    assert any(f"ssh-keygen -R '[127.0.0.1]:{board.port}'" in step for step in error.try_)
    assert board.current == before


def test_a_refused_key(make: MakeBoard, model: Path) -> None:
    board = make()
    (board.root / "authorized_keys").write_text("")
    error = fails(lambda: ssh.deploy(model, "pi", host(board)))
    assert error.code == "key-refused"
    assert any("ssh-copy-id" in step for step in error.try_)
    assert board.runs()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("nobody@127.0.0.1:1", "connection-refused"),
        ("nobody@no-such-host.invalid", "host-not-found"),
        ("a@b@c", "host-invalid"),
        ("-oProxyCommand=evil", "host-invalid"),
        ("pi@host:99999", "host-invalid"),
    ],
)
def test_hosts_that_cannot_be_reached(client: Client, model: Path, name: str, code: str) -> None:
    assert fails(lambda: ssh.deploy(model, "pi", name)).code == code


def test_a_server_that_does_not_speak_ssh(client: Client, model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            peer, _ = server.accept()
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            peer.close()

        threading.Thread(target=answer, daemon=True).start()
        error = fails(lambda: ssh.deploy(model, "pi", f"a@127.0.0.1:{server.getsockname()[1]}"))
    assert error.code in ("ssh-failed", "connection-lost")


@pytest.mark.parametrize(
    ("program", "body", "code"),
    [
        ("uname", '[ "$1" = -m ] && echo riscv64 || echo Linux', "wrong-architecture"),
        ("uname", '[ "$1" = -m ] && echo armv6l || echo Linux', "wrong-architecture"),
        ("uname", "echo FreeBSD", "device-not-linux"),
        ("python3", "exit 127", "python-missing"),
        ("python3", "echo 3.7.3", "python-too-old"),
        ("getconf", "echo glibc 2.12", "no-interpreter-wheel"),
    ],
)
def test_devices_that_cannot_run_it(make: MakeBoard, other: Path, program: str, body: str, code: str) -> None:
    board = make()
    before = board.current
    board.fake(program, body)
    assert fails(lambda: ssh.deploy(other, "pi", host(board))).code == code
    assert board.current == before
    assert board.runs()


def test_no_python_on_the_path(make: MakeBoard, other: Path) -> None:
    board = make()
    for name in ("sh", "uname", "tr", "sed", "getconf", "cat"):
        board.fake(name, f'exec /usr/bin/{name} "$@"') if name != "cat" else None
    board.stop()
    board.start(path="/nonexistent")
    assert fails(lambda: ssh.deploy(other, "pi", host(board))).code == "python-missing"
    assert board.runs()


@pytest.mark.parametrize("named", ["pi-5", "pi-3b-plus", "coral-dev-board"])
def test_the_wrong_board_is_refused(make: MakeBoard, other: Path, named: str) -> None:
    board = make()
    error = fails(lambda: ssh.deploy(other, named, host(board)))
    assert error.code == "wrong-board"
    assert "Raspberry Pi 4" in str(error.why)
    assert board.runs()


def test_microcontrollers_and_unnamed_computers(make: MakeBoard, other: Path) -> None:
    board = make(model="")
    assert fails(lambda: ssh.deploy(other, "pi", host(board))).code == "wrong-board"
    assert fails(lambda: ssh.deploy(other, "virtual-m4", host(board))).code == "not-a-linux-board"


def test_a_login_shell_that_talks(make: MakeBoard, other: Path) -> None:
    """The store's first reply is found behind what ~/.bashrc prints."""
    board = make()
    board.fake("python3", 'case "$3" in import*exec*) echo "Welcome to your Pi!";; esac; exec /usr/bin/python3 "$@"')
    assert ssh.deploy(other, "pi", host(board)).ok
    assert board.runs()


def test_a_full_disk(make: MakeBoard, ssh_root: Path) -> None:
    board = make(file_size_limit=64 * 1024)
    before, big = board.current, ssh_root / "big.tflite"
    big.write_bytes(small_model() + bytes(200_000))
    error = fails(lambda: ssh.deploy(big, "pi", host(board)))
    assert error.code == "disk-full"
    assert board.current == before
    assert board.runs()
    assert not list(board.store.rglob(".part-*"))


def test_a_disk_too_small_for_the_environment(make: MakeBoard, ssh_root: Path, model: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    board = make(deployed=False)
    options = f"size=20m,uid={board.home.stat().st_uid}"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(board.home)], check=False).returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        error = fails(lambda: ssh.deploy(model, "pi", host(board)))
        assert error.code == "disk-full"
        assert "MB are needed" in str(error.why)
        assert board.current is None
    finally:
        subprocess.run(["umount", str(board.home)], check=True)


def test_a_read_only_home(make: MakeBoard, model: Path, other: Path) -> None:
    empty = make(deployed=False)
    empty.home.chmod(0o555)
    assert fails(lambda: ssh.deploy(model, "pi", host(empty))).code == "home-not-writable"
    board = make()
    for path in (board.store, board.store / "blobs"):
        path.chmod(0o555)
    assert fails(lambda: ssh.deploy(other, "pi", host(board))).code == "home-not-writable"
    assert board.runs()
    for path in (board.store, board.store / "blobs"):
        path.chmod(0o755)
    assert ssh.deploy(other, "pi", host(board)).ok


def test_a_damaged_deployment(make: MakeBoard, model: Path) -> None:
    board = make()
    file = board.store / "current" / "model.tflite"
    target = file.resolve()
    target.unlink()
    target.write_bytes(small_model(5))
    assert fails(lambda: ssh.bench_remote(None, "pi", host(board), runs=1)).code == "deployment-damaged"


def test_a_model_that_the_interpreter_refuses(make: MakeBoard, ssh_root: Path) -> None:
    board = make()
    before, bad = board.current, ssh_root / "bad.tflite"
    bad.write_bytes(b"not a model at all, but a file")
    error = fails(lambda: ssh.deploy(bad, "pi", host(board)))
    assert (error.code, error.exit_status) == ("model-refused", 1)
    assert board.current == before
    assert len(list((board.store / "releases").iterdir())) == 1
    assert fails(lambda: ssh.deploy(ssh_root / "absent.tflite", "pi", host(board))).code == "model-not-found"
