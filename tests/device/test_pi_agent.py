"""The agent of Linux boards and its store, as processes on this computer, without SSH."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from ssh_board import small_model

from edgeq.device.ssh.agent import agent_file
from edgeq.interpreter import Interpreter

AGENT = agent_file()
STORE = AGENT.with_name("edgeq_store.py")


class Process:
    """A program that speaks the agent's protocol."""

    def __init__(self, *words: str, home: Path | None = None, python: str = sys.executable) -> None:
        environment = {**os.environ, **({"HOME": str(home)} if home else {}), "PYTHONPATH": str(AGENT.parent)}
        self.process = subprocess.Popen(
            [python, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        self.number = 0

    def raw(self, line: bytes, payload: bytes = b"") -> tuple[dict[str, Any], bytes]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + b"\n" + payload)
        self.process.stdin.flush()
        reply = json.loads(self.process.stdout.readline())
        return reply, self.process.stdout.read(reply.get("payload_bytes", 0))

    def ask(self, command: str, payload: bytes = b"", **fields: Any) -> tuple[dict[str, Any], bytes]:
        self.number += 1
        request = {"id": self.number, "command": command, "payload_bytes": len(payload), **fields}
        reply, body = self.raw(json.dumps(request).encode(), payload)
        assert reply["id"] == self.number
        return reply, body

    def refused(self, command: str, payload: bytes = b"", **fields: Any) -> str:
        return str(self.ask(command, payload, **fields)[0]["error"]["code"])

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)


def release(directory: Path, files: dict[str, bytes], **fields: Any) -> Path:
    """A directory as the store makes it."""
    directory.mkdir(parents=True)
    entries = {}
    for name, content in files.items():
        (directory / name).write_bytes(content)
        entries[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    manifest = {"files": entries, "model": "model.tflite", "model_sha256": "", "defaults": {}, **fields}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory, board_python: str) -> Iterator[Process]:
    directory = release(tmp_path_factory.mktemp("agent") / "r", {"model.tflite": small_model()})
    (directory / "other.tflite").write_bytes(small_model(1))
    process = Process(str(AGENT), "run", str(directory), python=board_python)
    yield process
    process.close()


@pytest.mark.parametrize("file", [AGENT, STORE])
@pytest.mark.parametrize("version", [(3, 9), (3, 13)])
def test_parses_on_the_oldest_and_newest_python(file: Path, version: tuple[int, int]) -> None:
    ast.parse(file.read_text(), feature_version=version)


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.12", "3.13"])
def test_runs_on_other_pythons(version: str, tmp_path: Path) -> None:
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [*versions.glob(f"{version}.*/bin/python{version}"), Path(f"/usr/bin/python{version}")]
    python = next((str(path) for path in found if path.exists()), None)
    if python is None:
        pytest.skip(f"no python{version} here")
    source = f"import sys; sys.path.insert(0, {str(AGENT.parent)!r}); import edgeq_store as s; s.Store().status(); "
    source += "import edgeq_agent as a; a.health(); a.facts(); a.peak_bytes()"
    subprocess.run([python, "-I", "-c", source], check=True, env={"HOME": str(tmp_path)})


def reference(package: str, rows: NDArray[np.int8]) -> bytes:
    """This computer's reference kernels; those of tflite-runtime 2.14 round as TensorFlow Lite Micro does."""
    if package == "ai-edge-litert":
        host = Interpreter(small_model())
        return b"".join(host.run([row])[0].tobytes() for row in rows)
    micro = pytest.importorskip("tflite_micro.python.tflite_micro.runtime", reason="needs the tflite-micro wheel")
    interpreter, outputs = micro.Interpreter.from_bytes(small_model(), arena_size=1 << 16), []
    for row in rows:
        interpreter.set_input(row, 0)
        interpreter.invoke()
        outputs.append(interpreter.get_output(0).tobytes())
    return b"".join(outputs)


def test_computes_what_the_reference_computes(agent: Process, package: str) -> None:
    assert agent.ask("load", kernels="reference")[0]["result"]["package"] == package
    inputs = np.random.default_rng(1).integers(-128, 128, (20, 1, 16), dtype=np.int8)
    reply, body = agent.ask("run", inputs.tobytes(), count=20)
    assert body == reference(package, inputs)
    assert len(reply["result"]["invoke_us"]) == 20
    assert min(reply["result"]["invoke_us"]) > 0


def test_refuses_what_its_manifest_does_not_name(agent: Process) -> None:
    assert agent.refused("load", file="other.tflite") == "not-in-manifest"
    assert agent.refused("load", file="../r/model.tflite") == "not-in-manifest"
    assert agent.refused("fetch", file="/etc/passwd") == "not-in-manifest"


def test_refuses_a_damaged_file(tmp_path: Path) -> None:
    directory = release(tmp_path / "r", {"model.tflite": small_model()})
    (directory / "model.tflite").write_bytes(small_model(1))
    process = Process(str(AGENT), "run", str(directory))
    assert process.refused("hello") == "file-damaged"
    process.close()


def test_refuses_a_file_that_is_no_model(tmp_path: Path, board_python: str) -> None:
    directory = release(tmp_path / "r", {"model.tflite": b"not a model"})
    process = Process(str(AGENT), "run", str(directory), python=board_python)
    assert process.refused("load") == "model-refused"
    assert "result" in process.ask("hello")[0]
    process.close()


def test_refuses_wrong_requests_and_goes_on(agent: Process) -> None:
    agent.ask("load")
    assert agent.refused("run", bytes(15), count=1) == "bad-request"
    assert agent.refused("run", bytes(16), count=2) == "bad-request"
    assert agent.refused("no-such", bytes(1000)) == "unknown-command"
    assert agent.raw(b"[]")[0]["error"]["code"] == "bad-request"
    assert agent.raw(b"{")[0]["error"]["code"] == "failed"
    assert "result" in agent.ask("run", bytes(16), count=1)[0]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(["id", "command", "count", "runs", "file", "threads", "kernels", "delegate", "longest_s"]),
        st.one_of(
            st.none(),
            st.integers(-2, 3),
            st.text(max_size=5),
            st.sampled_from(["load", "run", "repeat", "hello", "describe", "fetch", "model.tflite"]),
            st.lists(st.integers(), max_size=2),
        ),
    )
)
def test_survives_any_request(agent: Process, request_: dict[str, Any]) -> None:
    reply, _ = agent.raw(json.dumps(request_).encode())
    assert ("result" in reply) != ("error" in reply)


def test_serves_applications_over_a_private_socket(tmp_path: Path, board_python: str) -> None:
    directory, path = release(tmp_path / "r", {"model.tflite": small_model()}), tmp_path / "s"
    process = subprocess.Popen([board_python, "-I", str(AGENT), "serve", str(directory), str(path)])
    try:
        end = time.monotonic() + 20
        while not path.is_socket() and time.monotonic() < end:
            time.sleep(0.05)
        assert path.stat().st_mode & 0o777 == 0o600
        value = np.arange(16, dtype=np.int8)
        for _ in range(2):
            with socket.socket(socket.AF_UNIX) as application:
                application.connect(str(path))
                stream = application.makefile("rwb")
                stream.write(b'{"id":1,"command":"run","count":1,"payload_bytes":16}\n' + value.tobytes())
                stream.flush()
                body = stream.read(json.loads(stream.readline())["payload_bytes"])
                stream.write(b'{"id":2,"command":"load"}\n')
                stream.flush()
                assert json.loads(stream.readline())["error"]["code"] == "unknown-command"
            expected = Interpreter(small_model()).run([value.reshape(1, 16)])[0]
            assert np.abs(np.frombuffer(body, np.int8) - expected[0]).max() <= 1
    finally:
        process.kill()
        process.wait(10)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Process]:
    process = Process(str(STORE), home=tmp_path)
    assert "result" in process.ask("open")[0]
    yield process
    process.close()


def put(store: Process, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    assert "result" in store.ask("put", content, sha256=digest)[0]
    return {"sha256": digest, "bytes": len(content)}


def stage(store: Process, content: bytes) -> str:
    manifest = {"files": {"model.tflite": put(store, content)}, "environment": None}
    return str(store.ask("stage", manifest=manifest)[0]["result"]["release"])


def test_store_keeps_three_and_what_is_in_use(store: Process, tmp_path: Path) -> None:
    names = []
    for k in range(5):
        names.append(stage(store, b"%d" % k))
        store.ask("switch", release=names[-1])
    kept = [entry["release"] for entry in store.ask("status")[0]["result"]["releases"]]
    assert kept == names[-3:]
    assert len(list((tmp_path / ".edgeq" / "blobs").iterdir())) == 3
    assert store.ask("rollback")[0]["result"]["current"] == names[3]
    assert store.ask("rollback")[0]["result"]["current"] == names[2]
    assert store.refused("rollback") == "no-earlier-release"
    newest = stage(store, b"newest")
    assert store.ask("switch", release=newest)[0]["result"]["previous"] == names[2]
    assert store.ask("rollback")[0]["result"]["current"] == names[2]


def test_store_refuses_what_it_was_not_sent(store: Process, tmp_path: Path) -> None:
    assert store.refused("put", b"abc", sha256="0" * 64) == "damaged-in-transit"
    assert store.refused("put", b"abc", sha256="../../escape") == "bad-request"
    assert store.refused("stage", manifest={"files": {"m": {"sha256": "0" * 64}}}) == "file-damaged"
    entry = put(store, b"abc")
    assert store.refused("stage", manifest={"files": {"../m": entry}}) == "bad-request"
    assert store.refused("switch", release="../../tmp") == "no-such-release"
    (tmp_path / ".edgeq" / "blobs" / entry["sha256"]).write_bytes(b"abd")
    assert store.refused("stage", manifest={"files": {"m": entry}}) == "file-damaged"
    assert not list((tmp_path / ".edgeq").rglob(".part-*"))


def test_store_is_for_one_at_a_time(store: Process, tmp_path: Path) -> None:
    other = Process(str(STORE), home=tmp_path)
    assert other.refused("open") == "busy"
    store.close()
    assert "result" in other.ask("open")[0]
    other.close()


def test_store_removes_what_an_interrupted_run_left(tmp_path: Path) -> None:
    first = Process(str(STORE), home=tmp_path)
    first.ask("open")
    assert first.process.stdin is not None
    first.process.stdin.write(b'{"id":9,"command":"put","payload_bytes":100,"sha256":"' + b"0" * 64 + b'"}\nabc')
    first.process.stdin.flush()
    time.sleep(0.2)
    first.process.kill()
    first.process.wait(10)
    assert list((tmp_path / ".edgeq" / "blobs").glob(".part-*"))
    second = Process(str(STORE), home=tmp_path)
    second.ask("open")
    assert not list((tmp_path / ".edgeq" / "blobs").iterdir())
    assert "result" in second.ask("uninstall")[0]
    assert not (tmp_path / ".edgeq").exists()
    second.close()
