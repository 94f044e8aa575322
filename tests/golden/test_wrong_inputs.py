"""Wrong inputs, as a user meets them: error code, sentence, next step, exit status, and never a traceback.

Codes and exit statuses are the documented contract of the command line; scripts depend on them.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from glitchy_board import glitchy_board

from edgeq.device.frames import Command, Frame
from edgeq.graph import Graph, Operator, Quantization, Tensor, TensorType, write_bytes

KERAS_CONFIG = {
    "module": "keras",
    "class_name": "Sequential",
    "registered_name": None,
    "config": {"name": "s", "layers": []},
}


def edgeq(*arguments: object, env: dict[str, str] | None = None) -> tuple[int, dict[str, str], str]:
    """Exit status, the error document of `--json`, and everything that was printed."""
    done = subprocess.run(
        [sys.executable, "-m", "edgeq.cli.main", *map(str, arguments), "--json"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, **(env or {})},
    )
    return done.returncode, json.loads(done.stdout).get("error", {}), done.stdout + done.stderr


def refused(code: str, status: int, *arguments: object, env: dict[str, str] | None = None) -> dict[str, str]:
    """Run, and see the error with that code and status, a next step, and no traceback; in plain text too."""
    returned, error, printed = edgeq(*arguments, env=env)
    assert error.get("code") == code, printed
    assert returned == status == error["exit_status"]
    assert error["what"].endswith(".")
    assert error["try"], "no next step"
    assert "Traceback" not in printed
    return error


def small_model(operator: str = "RELU", kind: TensorType = TensorType.INT8, elements: int = 8) -> bytes:
    q = None if kind is TensorType.FLOAT32 else Quantization((0.5,), (0,))
    shape = (1, elements)
    tensors = (Tensor(0, "x", kind, shape, shape, q), Tensor(1, "y", kind, shape, shape, q))
    return write_bytes(Graph("g", tensors, (Operator(0, operator, 1, (0,), (1,), MappingProxyType({})),), (0,), (1,)))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEQ_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.tflite").write_bytes(small_model())
    return tmp_path


def test_missing_file(place: Path) -> None:
    refused("model-not-found", 2, "check", "nothing.tflite", "--board", "host")
    refused("model-not-found", 2, "convert", "nothing.keras", "-o", "o.tflite", "--data", "d.npz")


def test_not_a_model(place: Path) -> None:
    (place / "notes.tflite").write_text("Shopping list: eggs, flour.")
    refused("not-a-tflite-model", 2, "bundle", "notes.tflite", "--board", "host", "-o", "out")
    assert not (place / "out").exists()


def test_truncated_model(place: Path, shared: Path) -> None:
    whole = (shared / "models" / "kws_ref_int8.tflite").read_bytes()
    (place / "half.tflite").write_bytes(whole[: len(whole) // 2])
    refused("model-damaged", 2, "check", "half.tflite", "--board", "host")


def test_float_model_to_bundle(place: Path, shared: Path) -> None:
    """A core without an FPU has no business with float convolutions."""
    model = shared / "models" / "kws_ref_float.tflite"
    error = refused("operator-not-supported", 2, "bundle", model, "--board", "raspberry-pi-pico", "-o", "out")
    assert "int8" in " ".join(error["try"])


def test_unsupported_operator(place: Path) -> None:
    (place / "odd.tflite").write_bytes(small_model("LOCAL_RESPONSE_NORMALIZATION"))
    error = refused("operator-not-supported", 2, "bundle", "odd.tflite", "--board", "host", "-o", "out")
    assert "LOCAL_RESPONSE_NORMALIZATION" in error["what"]
    status, _, printed = edgeq("check", "odd.tflite", "--board", "host")
    assert status == 1
    assert "LOCAL_RESPONSE_NORMALIZATION" in printed


@pytest.fixture(scope="module")
def keras_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny real Keras model, made in a process of its own: 4x4x1 in, 2 classes out."""
    path = tmp_path_factory.mktemp("keras") / "model.keras"
    code = (
        "import sys, keras; keras.utils.set_random_seed(0); i = keras.Input((4, 4, 1)); "
        "x = keras.layers.Conv2D(2, 3)(i); x = keras.layers.Flatten()(x); "
        "keras.Model(i, keras.layers.Dense(2)(x)).save(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True)
    return path


def _nan() -> np.ndarray:
    x = np.random.default_rng(0).random((8, 4, 4, 1)).astype(np.float32)
    x[3, 1, 1, 0] = np.nan
    return x


BAD_DATA: dict[str, tuple[str, Callable[[], np.ndarray]]] = {
    "empty": ("data-empty", lambda: np.zeros((0, 4, 4, 1), np.float32)),
    "nan": ("data-not-finite", _nan),
    "shape": ("data-shape", lambda: np.ones((8, 5, 5, 1), np.float32)),
    "type": ("data-type", lambda: np.full((8, 4, 4, 1), "a")),
}


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data(place: Path, keras_model: Path, name: str) -> None:
    code, make = BAD_DATA[name]
    np.savez(place / "d.npz", x=make())
    refused(code, 2, "convert", keras_model, "-o", "o.tflite", "--data", "d.npz")
    assert not (place / "o.tflite").exists()


@pytest.mark.tensorflow
def test_pickled_data(place: Path, keras_model: Path) -> None:
    np.savez(place / "d.npz", x=np.array([{"a": 1}], dtype=object))
    refused("data-pickled", 2, "convert", keras_model, "-o", "o.tflite", "--data", "d.npz")


def test_lambda_layer(place: Path) -> None:
    """Refused before anything of the file is run: the archive is looked into, not loaded."""
    layer = {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "l"}, "registered_name": None}
    config = {**KERAS_CONFIG, "config": {"name": "s", "layers": [layer]}}
    with zipfile.ZipFile(place / "lambda.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.10.0"}))
        archive.writestr("model.weights.h5", b"")
    np.savez(place / "d.npz", x=np.ones((8, 4), np.float32))
    error = refused("model-carries-code", 2, "convert", "lambda.keras", "-o", "o.tflite", "--data", "d.npz")
    assert "--unsafe" in " ".join(error["try"])


def test_unknown_board(place: Path) -> None:
    error = refused("board-unknown", 2, "check", "small.tflite", "--board", "virtual-m44")
    assert any("virtual-m4" in step for step in error["try"])


def test_broken_board_file(place: Path) -> None:
    (place / "mine.toml").write_text('format = 1\nid = "mine"\nname = "Mine\n')
    error = refused("board-file-invalid", 2, "check", "small.tflite", "--board-file", "mine.toml")
    assert "3" in f"{error['where']} {error['why']}", "the line is named"


def _board_file(place: Path, old: str, new: str) -> Path:
    """The M4 in QEMU with `old` replaced by `new`."""
    text = (Path(__file__).parents[2] / "boards" / "qemu-mps2-an386.toml").read_text()
    assert old in text
    text = text.replace(old, new)
    path = place / "tight.toml"
    path.write_text(text.replace('id = "qemu-mps2-an386"', 'id = "tight"'))
    return path


def test_board_too_small(place: Path, shared: Path) -> None:
    board = _board_file(place, "size_bytes = 0x400000", "size_bytes = 0x8000")
    model = shared / "models" / "vww_96_int8.tflite"
    status, _, printed = edgeq("check", model, "--board-file", board)
    assert status == 1
    assert "flash" in printed
    assert "Traceback" not in printed
    refused("image-too-large", 1, "flash", model, "--board", board)


def test_no_compiler(place: Path) -> None:
    env = {"PATH": str(place), "PYTHONPATH": str(_hiding(place, "ziglang"))}
    error = refused("compiler-not-found", 3, "flash", "small.tflite", "--board", "qemu-mps2-an386", env=env)
    assert "install" in " ".join(error["try"])


def _hiding(place: Path, package: str) -> Path:
    """A directory for PYTHONPATH under which `package` cannot be found, as if it were not installed."""
    directory = place / "hidden"
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        f"u.find_spec = lambda name, *a: None if name == {package!r} else find(name, *a)\n"
    )
    return directory


@contextmanager
def tcp(answer: Callable[[bytes], bytes]) -> Iterator[str]:
    """A server that answers whatever arrives with `answer`; its port as edgeq takes it."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            while data := connection.recv(4096):
                connection.sendall(answer(data))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"socket://127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.close()


def test_no_board_answers(place: Path) -> None:
    with tcp(lambda _: b"") as port:
        refused("no-answer", 3, "bench", "--board", "qemu-mps2-an386", "--port", port)


def test_corrupted_frames(place: Path) -> None:
    with tcp(lambda data: bytes(b ^ 0x15 for b in data[:-1]) + b"\0") as port:
        refused("corrupted-frames", 3, "bench", "--board", "qemu-mps2-an386", "--port", port)


def test_port_missing(place: Path) -> None:
    refused("port-missing", 3, "bench", "--board", "qemu-mps2-an386", "--port", "/dev/ttyNOBODY7")


def test_nothing_flashed(place: Path) -> None:
    refused("nothing-flashed", 3, "bench", "--board", "virtual-m4")


def test_wrong_model_on_the_board(place: Path) -> None:
    (place / "other.tflite").write_bytes(small_model(elements=9))
    assert edgeq("flash", "small.tflite", "--board", "virtual-m4")[0] == 0
    error = refused("wrong-model", 3, "bench", "other.tflite", "--board", "virtual-m4")
    assert any("edgeq flash" in step for step in error["try"])


@pytest.mark.parametrize("event", ["power", "power unheard"])
def test_board_reset_in_mid_run(place: Path, event: str) -> None:
    """The power fails while the model runs, and comes back; the BOOT event arrives, or is lost with the USB port."""
    assert edgeq("flash", "small.tflite", "--board", "host")[0] == 0
    met: list[str] = []

    def glitch(_count: int, request: Frame) -> str | None:
        if request.command == Command.RUN and not met:
            met.append(event)
            return event
        return None

    with glitchy_board(place / "state" / "boards" / "host" / "firmware.elf", glitch) as port:
        error = refused("board-reset", 3, "bench", "small.tflite", "--board", "host", "--port", port)
        assert met
        assert "RUN" in error["what"]
        assert any("power" in step for step in error["try"])
        assert edgeq("bench", "small.tflite", "--board", "host", "--port", port)[0] == 0


def test_output_not_writable(place: Path) -> None:
    (place / "file").write_text("in the way")
    refused("output-not-writable", 3, "bundle", "small.tflite", "--board", "host", "-o", "file/out")
    refused("output-not-writable", 3, "convert", "small.keras", "-o", "file/o.tflite", "--data", "d.npz")


def test_output_directory_of_someone_else(place: Path) -> None:
    (place / "mine").mkdir()
    (place / "mine" / "thesis.txt").write_text("years of work")
    refused("output-not-ours", 3, "bundle", "small.tflite", "--board", "host", "-o", "mine")
    assert (place / "mine" / "thesis.txt").read_text() == "years of work"


def test_the_same_error_in_plain_text(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgeq.cli.main", "check", "nothing.tflite", "--board", "host"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error model-not-found: ")
    assert "try:" in done.stderr
