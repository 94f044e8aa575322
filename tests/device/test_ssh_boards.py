"""Deploying to and measuring on a Linux board: a real OpenSSH server on loopback, wheels really fetched and pushed.

The board's device tree says that it is a Raspberry Pi 4; its processor is this computer's. Its Python is the system's,
which has no interpreter package: what runs comes from the wheels.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ssh_board import SSHD, Client, Cut, SshBoard, ensure_user, new_key, new_root, remove_user, small_model

from edgeq.device import ssh
from edgeq.device.ssh.agent import AgentChannel
from edgeq.device.ssh.prefixes import prefixes
from edgeq.errors import DeviceError, EdgeqError, ToolError
from edgeq.graph import read, read_bytes
from edgeq.interpreter import Interpreter
from edgeq.measure import Measured

pytestmark = pytest.mark.skipif(SSHD is None, reason="needs sshd (apt install openssh-server)")

MakeBoard = Callable[..., SshBoard]


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    place = new_root()
    ensure_user()
    yield place
    remove_user()
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[Client]:
    """EdgeQ's side, with a home of its own but the user's own cache of wheels."""
    saved = {name: os.environ.get(name) for name in ("HOME", "EDGEQ_CACHE", "SSH_AUTH_SOCK", "PIP_CACHE_DIR")}
    os.environ.setdefault("EDGEQ_CACHE", str(Path.home() / ".cache" / "edgeq"))
    os.environ.setdefault("PIP_CACHE_DIR", str(Path.home() / ".cache" / "pip"))
    os.environ["HOME"] = str(root / "client")
    os.environ.pop("SSH_AUTH_SOCK", None)
    yield Client(root / "client")
    for name, value in saved.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@pytest.fixture(scope="module")
def model(root: Path) -> Path:
    path = root / "small.tflite"
    path.write_bytes(small_model())
    return path


@pytest.fixture(scope="module")
def other(root: Path) -> Path:
    path = root / "other.tflite"
    path.write_bytes(small_model(1))
    return path


@pytest.fixture(scope="module")
def pushed(root: Path, client: Client, model: Path) -> Iterator[tuple[SshBoard, Any]]:
    """A board after its first deployment, which fetched the wheels and pushed them."""
    board = SshBoard(root / "first", client.public_key)
    client.know(board)
    client.name("first", board)
    try:
        report = ssh.deploy(model, "pi", "first")
    except ToolError as error:
        board.stop()
        pytest.skip(f"the wheels cannot be fetched here: {error.why}")
    yield board, report.results[0]
    board.stop()


@pytest.fixture
def make(root: Path, client: Client, pushed: tuple[SshBoard, Any]) -> Iterator[MakeBoard]:
    """More boards; with `deployed`, in the state of the first one."""
    boards: list[SshBoard] = []

    def build(*, deployed: bool = True, **options: Any) -> SshBoard:
        board = SshBoard(root / f"b{time.monotonic_ns()}", client.public_key, **options)
        boards.append(board)
        if deployed:
            copy_store(pushed[0], board)
        client.know(board)
        return board

    yield build
    for board in boards:
        board.stop()
        shutil.rmtree(board.root, ignore_errors=True)


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
    from ssh_board import USER

    return f"{USER}@127.0.0.1:{port or board.port}"


def fails(work: Callable[[], Any]) -> EdgeqError:
    with pytest.raises(EdgeqError) as caught:
        work()
    assert caught.value.what
    assert caught.value.try_, caught.value.code
    return caught.value


# --- the whole path ---


def test_deploys_with_wheels_that_were_pushed(pushed: tuple[SshBoard, Any]) -> None:
    board, report = pushed
    assert report.action == "deployed"
    assert report.board == "pi-4b"
    assert report.environment == "made"
    assert report.sent_bytes > 20_000_000
    assert report.runtime == "ai-edge-litert 2.3.0"
    assert board.runs()
    assert (board.store / "env").stat().st_mode & 0o077 == 0
    # The wheels themselves are not kept: model and agent are.
    assert len(list((board.store / "blobs").iterdir())) == 2


def test_a_second_deployment_is_reversible(make: MakeBoard, model: Path, other: Path) -> None:
    board = make()
    first = board.current
    report = ssh.deploy(other, "pi-4b", host(board)).results[0]
    assert isinstance(report, ssh.Deployment)
    assert (report.environment, report.previous) == ("present", first)
    assert report.sent_bytes == other.stat().st_size
    again = ssh.deploy(other, "pi-4b", host(board)).results[0]
    assert isinstance(again, ssh.Deployment)
    assert (again.action, again.release, again.sent_bytes) == ("unchanged", report.release, 0)
    assert ssh.rollback("pi", host(board)).results[0].to_json()["release"] == first
    assert board.current == first
    assert board.runs()
    assert fails(lambda: ssh.rollback("pi", host(board))).code == "no-earlier-release"


def test_a_second_deployment_takes_less_than_three_seconds(make: MakeBoard, root: Path) -> None:
    """The best of three, as other programs may be at work here."""
    board, times = make(), []
    for seed in range(2, 5):
        changed = root / "changed.tflite"
        changed.write_bytes(small_model(seed))
        started = time.monotonic()
        assert ssh.deploy(changed, "pi-4b", host(board)).ok
        times.append(time.monotonic() - started)
    assert min(times) < 3


def test_uninstall_leaves_nothing(make: MakeBoard) -> None:
    board = make()
    (board.home / "mine").write_text("the user's")
    assert ssh.uninstall("pi", host(board)).results[0].to_json()["action"] == "removed"
    assert [path.name for path in board.home.iterdir()] == ["mine"]
    assert ssh.uninstall("pi", host(board)).results[0].to_json()["action"] == "nothing-there"
    assert fails(lambda: ssh.bench_remote(None, "pi", host(board))).code == "nothing-deployed"
    assert fails(lambda: ssh.rollback("pi", host(board))).code == "nothing-deployed"


def test_two_boards_at_once_and_one_that_is_not_there(make: MakeBoard, other: Path, client: Client) -> None:
    boards = [make(), make()]
    names = [host(board) for board in boards]
    report = ssh.deploy(other, "pi", [*names, "nobody@127.0.0.1:1"])
    assert [result.host for result in report.results] == names
    assert report.failures["nobody@127.0.0.1:1"].code == "connection-refused"
    assert not report.ok
    assert all(board.runs() for board in boards)
    both = ssh.bench_remote(other, "pi", names, runs=5, operators=False)
    assert both.ok
    assert len(both.results) == 2


def test_bench_measures_and_compares(pushed: tuple[SshBoard, Any], client: Client, model: Path, other: Path) -> None:
    (result,) = ssh.bench_remote(model, "pi", "first", runs=20).results
    assert isinstance(result, ssh.RemoteBench)
    assert {entry.kernels for entry in result.configurations} == {"xnnpack", "builtin"}
    assert {entry.threads for entry in result.configurations} == set(range(1, result.device.cores + 1))
    for entry in result.configurations:
        assert entry.runs == 20
        assert 0 < entry.minimum.value <= entry.p50.value <= entry.p90.value <= entry.p99.value
        assert isinstance(entry.peak, Measured)
        assert 10e6 < entry.peak.value < 1e9
        assert (entry.delegated > 0) == (entry.kernels == "xnnpack")
    exact = next(entry for entry in result.comparisons if entry.kernels == "reference")
    assert (exact.differing, exact.same) == (0, True)
    assert isinstance(result.operators, tuple)
    assert [entry.name for entry in result.operators] == ["FULLY_CONNECTED"]
    assert fails(lambda: ssh.bench_remote(other, "pi", "first")).code == "wrong-model"


def test_bench_finds_outputs_that_differ(make: MakeBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison is not blind: a computer that computes another model is told from the board."""
    board = make()
    monkeypatch.setattr("edgeq.device.ssh.comparison.Interpreter", lambda _: Interpreter(small_model(1)))
    report = ssh.bench_remote(None, "pi", host(board), runs=5, operators=False)
    assert not report.ok


@pytest.mark.parametrize("name", ["kws", pytest.param("resnet", marks=pytest.mark.slow)])
def test_accuracy_on_the_board_is_this_computers(make: MakeBoard, shared: Path, name: str) -> None:
    board = make()
    if name == "kws":
        data, path = np.load(shared / "data" / "kws01.npz"), shared / "models" / "kws_ref_int8.tflite"
        x, y = data["x_int8"][:300], data["y"][:300]
    else:
        data, path = np.load(shared / "data" / "cifar10_test.npz"), shared / "models" / "ic_resnet8_int8.tflite"
        x, y = data["x"][:100].astype(np.float32), data["y"][:100]
        x = (x - 128).astype(np.int8)
    ssh.deploy(path, "pi", host(board))
    report = ssh.bench_remote(path, "pi", host(board), x=x, y=y, runs=10)
    (result,) = report.results
    assert report.ok
    assert isinstance(result, ssh.RemoteBench)
    exact, default = result.comparisons
    assert (exact.kernels, exact.samples, exact.differing) == ("reference", 100, 0)
    assert isinstance(exact.accuracy, Measured)
    assert isinstance(exact.host_accuracy, Measured)
    assert exact.accuracy.value == exact.host_accuracy.value > 0.6
    # XNNPACK rounds differently: close, but not the same.
    assert isinstance(default.host_accuracy, Measured)
    assert isinstance(result.accuracy, Measured)
    assert abs(result.accuracy.value - default.host_accuracy.value) <= 0.03
    assert isinstance(result.operators, tuple)
    whole = next(entry for entry in result.configurations if entry.threads == 1)
    assert sum(entry.time.value for entry in result.operators if isinstance(entry.time, Measured)) == pytest.approx(
        whole.p50.value, rel=0.5
    )


def test_prefixes_compute_what_the_whole_computes_on_the_way(shared: Path) -> None:
    path = shared / "models" / "kws_ref_int8.tflite"
    graph = read(path)
    value = np.load(shared / "data" / "kws01.npz")["x_int8"][:1].reshape(graph.tensor(graph.inputs[0]).shape)
    whole = Interpreter(path.read_bytes(), preserve_all_tensors=True)
    whole.run([value])
    parts = list(prefixes(graph))
    assert len(parts) == len(graph.operators)
    for operator, part in zip(graph.operators, parts, strict=True):
        assert np.array_equal(Interpreter(part).run([value])[0], whole.tensor(operator.outputs[0]))
        assert read_bytes(part).operators[-1].name == operator.name


# --- host keys, users, devices ---


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
    import socket
    import threading

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


# --- storage ---


def test_a_full_disk(make: MakeBoard, root: Path) -> None:
    board = make(file_size_limit=64 * 1024)
    before, big = board.current, root / "big.tflite"
    big.write_bytes(small_model() + bytes(200_000))
    error = fails(lambda: ssh.deploy(big, "pi", host(board)))
    assert error.code == "disk-full"
    assert board.current == before
    assert board.runs()
    assert not list(board.store.rglob(".part-*"))


def test_a_disk_too_small_for_the_environment(make: MakeBoard, root: Path, model: Path) -> None:
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


def test_a_model_that_the_interpreter_refuses(make: MakeBoard, root: Path) -> None:
    board = make()
    before, bad = board.current, root / "bad.tflite"
    bad.write_bytes(b"not a model at all, but a file")
    error = fails(lambda: ssh.deploy(bad, "pi", host(board)))
    assert (error.code, error.exit_status) == ("model-refused", 1)
    assert board.current == before
    assert len(list((board.store / "releases").iterdir())) == 1
    assert fails(lambda: ssh.deploy(root / "absent.tflite", "pi", host(board))).code == "model-not-found"


# --- interruptions ---


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


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    "command", ["open", "has_environment", "missing", "put", "stage", "hello", "load", "run", "switch"]
)
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


def test_a_connection_cut_while_the_wheels_travel(make: MakeBoard, client: Client, model: Path) -> None:
    board = make(deployed=False)
    proxy = Cut(board.port)
    client.know(board, proxy.port)
    proxy.after_bytes = 36_000_000
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

    import threading

    def in_between() -> None:
        thread = threading.Thread(target=compete)
        thread.start()
        thread.join()

    with monkeypatch.context() as patched:
        before_command(patched, "stage", in_between)
        assert ssh.deploy(other, "pi", host(board)).ok
    assert errors == ["device-busy"]


# --- the command line ---


def edgeq(*words: str) -> tuple[int, dict[str, Any], str]:
    """Exit status, JSON document and standard error of a command."""
    done = subprocess.run(
        [sys.executable, "-m", "edgeq.cli.main", *words, "--json"], capture_output=True, text=True, check=False
    )
    return done.returncode, json.loads(done.stdout), done.stderr


def test_the_command_line(make: MakeBoard, other: Path, tmp_path: Path) -> None:
    board = make()
    data = tmp_path / "data.npz"
    np.savez(data, x=np.random.default_rng(0).integers(-128, 128, (30, 16), dtype=np.int8), y=np.zeros(30, np.int64))
    where = ["--board", "pi", "--host", host(board)]
    status, document, _ = edgeq("flash", str(other), *where)
    assert (status, document["hosts"][0]["action"]) == (0, "deployed")
    status, document, _ = edgeq("bench", str(other), *where, "--data", str(data), "--runs", "3")
    assert (status, document["schema"]) == (0, "edgeq.bench/1")
    assert document["hosts"][0]["comparisons"][0]["differing"] == 0
    assert document["hosts"][0]["accuracy"]["kind"] == "measured"
    assert edgeq("flash", "--rollback", *where)[1]["hosts"][0]["action"] == "rolled-back"
    status, document, _ = edgeq("bench", str(other), *where)
    assert (status, document["error"]["code"]) == (3, "wrong-model")
    assert edgeq("flash", "--uninstall", *where)[1]["hosts"][0]["action"] == "removed"
    assert edgeq("flash", "--board", "pi")[1]["error"]["code"] == "model-missing"
    assert edgeq("flash", str(other), "--board", "pi", "--cpu")[1]["error"]["code"] == "host-missing"


def test_the_text(make: MakeBoard, model: Path) -> None:
    board = make()
    words = [sys.executable, "-m", "edgeq.cli.main", "bench", "--board", "pi", "--host", host(board), "--runs", "3"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("same ")
    for word in ("xnnpack", "builtin", "FULLY_CONNECTED", "p99", "MiB"):
        assert word in done.stdout
