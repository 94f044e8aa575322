"""Generated C, the old interpreter, the Edge TPU that is not there, the service."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from ssh_board import SSHD, SshBoard, fails, host, small_model

from edgeq.boards import load_board
from edgeq.device import ssh
from edgeq.device.ssh.coral import compiled_model, predicted_share, share_on_edge_tpu
from edgeq.errors import ToolError
from edgeq.files import data_directory
from edgeq.graph import read_bytes, write_bytes
from edgeq.measure import Computed, Estimated, Unknown

pytestmark = pytest.mark.skipif(SSHD is None, reason="needs sshd (apt install openssh-server)")

MakeBoard = Callable[..., SshBoard]


def test_generated_c_needs_no_interpreter(make: MakeBoard, model: Path) -> None:
    pytest.importorskip("ziglang", reason="compiling for the board needs zig")
    board = make(deployed=False)
    (report,) = ssh.deploy(model, "pi", host(board), runtime="c").results
    assert isinstance(report, ssh.Deployment)
    assert report.environment == "not-needed"
    assert not list((board.store / "env").iterdir())
    (result,) = ssh.bench_remote(model, "pi", host(board), runs=5).results
    assert isinstance(result, ssh.RemoteBench)
    assert [way.kernels for way in result.configurations] == ["generated-c"]
    assert [(entry.differing, entry.samples) for entry in result.comparisons] == [(0, 8), (0, 8)]


@pytest.mark.slow
def test_tflite_runtime_with_an_old_numpy(make: MakeBoard, ssh_root: Path, model: Path, other: Path) -> None:
    """The interpreter of 32-bit boards and old systems passes the same path: a board's profile asks for it."""
    profile = ssh_root / "old-pi.toml"
    text = (data_directory("boards") / "pi-4b.toml").read_text()
    text = text.replace('id = "pi-4b"', 'id = "old-pi"').replace('"ai-edge-litert"', '"tflite-runtime"')
    profile.write_text(text.replace('version = "2.3.0"', 'version = "2.14.0"'))
    board = make(deployed=False)
    try:
        (report,) = ssh.deploy(model, str(profile), host(board)).results
    except ToolError as error:
        pytest.skip(f"the wheels cannot be fetched here: {error.why}")
    assert isinstance(report, ssh.Deployment)
    assert report.runtime == "tflite-runtime 2.14.0"
    packages = {path.name.split("-")[0]: path.name for path in (board.store / "env").glob("*/lib/*/*/*.dist-info")}
    assert packages["numpy"].startswith("numpy-1.")
    assert board.runs()
    (result,) = ssh.bench_remote(model, str(profile), host(board), runs=5).results
    assert isinstance(result, ssh.RemoteBench)
    assert result.package == "tflite-runtime 2.14.0"
    assert result.comparisons[0].differing == 0
    assert isinstance(result.operators, tuple)
    assert ssh.deploy(other, str(profile), host(board)).ok
    assert ssh.rollback(str(profile), host(board)).ok
    assert board.runs()


def edge_tpu_model() -> bytes:
    """What `edgetpu_compiler` makes of `small_model`, as far as can be told without one: a single custom operator."""
    graph = read_bytes(small_model())
    operator = replace(
        graph.operators[0], name="CUSTOM", version=1, inputs=(0,), options={}, custom_code="edgetpu-custom-op"
    )
    return write_bytes(replace(graph, operators=(operator,)))


FAKE_RUNTIME = """
#include <stddef.h>
const char *edgetpu_version(void) { return "test"; }
void *edgetpu_list_devices(size_t *count) { *count = DEVICES; return 0; }
void edgetpu_free_devices(void *devices) { (void)devices; }
void *tflite_plugin_create_delegate(void) { return 0; }
void tflite_plugin_destroy_delegate(void *delegate) { (void)delegate; }
"""


def test_the_edge_tpu_that_is_not_there(make: MakeBoard, ssh_root: Path, model: Path) -> None:
    """Each thing that can be missing has its own error; on the CPU the model runs."""
    compiled, text = ssh_root / "compiled.tflite", (data_directory("boards") / "coral-usb-pi.toml").read_text()
    compiled.write_bytes(edge_tpu_model())
    # The environment that the other tests' boards have: what is missing here is the accelerator.
    profile = ssh_root / "coral-here.toml"
    text = text.replace('id = "coral-usb-pi"', 'id = "coral-here"').replace('"tflite-runtime"', '"ai-edge-litert"')
    profile.write_text(text.replace('version = "2.14.0"', 'version = "2.3.0"'))
    board = make()
    before = board.current
    if shutil.which("edgetpu_compiler") is None:
        error = fails(lambda: ssh.deploy(model, str(profile), host(board)))
        assert error.code == "model-not-compiled"
        assert any("edgetpu_compiler" in step for step in error.try_)
    assert fails(lambda: ssh.deploy(compiled, str(profile), host(board))).code == "edgetpu-runtime-missing"
    for devices, code in (("0", "edgetpu-not-found"), ("1", "edgetpu-delegate-failed")):
        source, library = ssh_root / "fake.c", ssh_root / "libedgetpu.so.1"
        source.write_text(FAKE_RUNTIME)
        words = ["cc", "-shared", "-fPIC", f"-DDEVICES={devices}", str(source), "-o", str(library)]
        if shutil.which("cc") is None:
            pytest.skip("needs a C compiler")
        subprocess.run(words, check=True)
        board.stop()
        board.start(more=f"LD_LIBRARY_PATH={ssh_root}")
        assert fails(lambda: ssh.deploy(compiled, str(profile), host(board))).code == code
    assert fails(lambda: ssh.deploy(compiled, str(profile), host(board), cpu=True)).code == "edgetpu-model-on-cpu"
    assert board.current == before
    assert ssh.deploy(model, str(profile), host(board), cpu=True).ok
    assert board.runs()
    assert ssh.bench_remote(model, str(profile), host(board), runs=3, operators=False).ok


def test_the_share_on_the_edge_tpu_against_the_prediction() -> None:
    """The compiled model is made by hand: no compiler is here."""
    original, compiled = read_bytes(small_model()), read_bytes(edge_tpu_model())
    share = share_on_edge_tpu(original, compiled)
    assert isinstance(share, Computed)
    assert share.value == 1.0
    predicted = predicted_share(original, load_board("coral-usb-pi"))
    assert isinstance(predicted, Estimated)
    assert predicted.value == share.value
    assert isinstance(share_on_edge_tpu(compiled, compiled), Unknown)
    assert isinstance(predicted_share(compiled, load_board("coral-usb-pi")), Unknown)
    assert compiled_model(edge_tpu_model(), "m", load_board("coral-usb-pi")) == edge_tpu_model()


def test_a_service_without_systemd(make: MakeBoard, other: Path) -> None:
    board = make()
    before = board.current
    board.fake("systemctl", "echo 'Failed to connect to bus' >&2; exit 1")
    error = fails(lambda: ssh.deploy(other, "pi", host(board), service=True))
    assert error.code == "service-failed"
    assert "Failed to connect to bus" in str(error.why)
    assert board.current == before
    assert board.runs()


def test_a_service_follows_the_release(make: MakeBoard, other: Path) -> None:
    """systemd itself is not here; what it is told to start is started as it would be."""
    board = make()
    board.fake("systemctl", f'echo "$@" >> {board.home}/calls')
    report = ssh.deploy(other, "pi", host(board), service=True).results[0]
    assert isinstance(report, ssh.Deployment)
    assert report.service
    unit = (board.home / ".config" / "systemd" / "user" / "edgeq.service").read_text()
    (line,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    words = line.removeprefix("ExecStart=").replace("%h", str(board.home)).split()
    server = subprocess.Popen(words, cwd="/")
    try:
        deadline = time.monotonic() + 30
        while not (board.store / "socket").exists():
            assert time.monotonic() < deadline
            assert server.poll() is None
            time.sleep(0.1)
    finally:
        server.kill()
        server.wait(10)
    ssh.rollback("pi", host(board))
    assert (board.home / "calls").read_text().count("restart edgeq.service") == 2
    ssh.uninstall("pi", host(board))
    assert not (board.home / ".config" / "systemd" / "user" / "edgeq.service").exists()
    assert "disable --now edgeq.service" in (board.home / "calls").read_text()
