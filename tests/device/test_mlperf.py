"""The MLPerf Tiny device protocol on boards: the official runner's dialogue, the tflite-micro wheel's results."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from agent_link import powered
from numpy.typing import NDArray

from edgeq import api
from edgeq.boards import load_board
from edgeq.errors import InputError, UsageError
from edgeq.toolchain import build

EMULATED = "qemu-mps2-an386"
MODELS = {"kws01": "kws_ref_int8", "ic01": "ic_resnet8_int8", "vww01": "vww_96_int8", "ad01": "ad01_int8"}
BYTES_A_LINE = 31
"""As many as the official runner sends with one `db`."""
LINE_S, INFERENCE_S = 5.0, 30.0
needs_qemu = pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="needs qemu-system-arm")
BOARDS = ["host", pytest.param(EMULATED, marks=[pytest.mark.qemu, needs_qemu])]


class Dialogue:
    """The runner's side: a command, then lines until `m-ready`."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self.buffer = b""

    def lines(self, timeout_s: float = LINE_S) -> list[str]:
        found: list[str] = []
        while not found or found[-1] != "m-ready":
            self.stream.settimeout(timeout_s)
            while b"\r\n" not in self.buffer:
                received = self.stream.recv(65536)
                assert received, "the device has hung up"
                self.buffer += received
            line, self.buffer = self.buffer.split(b"\r\n", 1)
            found.append(line.decode("ascii"))
        return found[:-1]

    def ask(self, command: str, timeout_s: float = LINE_S) -> list[str]:
        self.stream.sendall(f"{command}%".encode("ascii"))
        return self.lines(timeout_s)

    def load(self, data: bytes) -> None:
        assert self.ask(f"db load {len(data)}") == [f"m-[Expecting {len(data)} bytes]"]
        for start in range(0, len(data), BYTES_A_LINE):
            last = start + BYTES_A_LINE >= len(data)
            assert self.ask(f"db {data[start : start + BYTES_A_LINE].hex()}") == (["m-load-done"] if last else [])

    def infer(self, runs: int = 1, warmups: int = 0) -> tuple[list[str], int]:
        """The results' fields, and the difference of the two timestamps."""
        said = self.ask(f"infer {runs} {warmups}", INFERENCE_S)
        start, done, begin, first, second, end, results = said
        assert (start, done) == (f"m-warmup-start-{warmups}", "m-warmup-done")
        assert (begin, end) == (f"m-infer-start-{runs}", "m-infer-done")
        assert first.startswith("m-lap-us-")
        assert second.startswith("m-lap-us-")
        assert results.startswith("m-results-[")
        assert results.endswith("]")
        return results[11:-1].split(","), int(second[9:]) - int(first[9:])


@contextmanager
def started(shared: Path, directory: Path, model: str, board_id: str) -> Iterator[Dialogue]:
    """A device whose banner nobody has read."""
    board = load_board(board_id)
    api.bundle(shared / "models" / f"{MODELS[model]}.tflite", board, directory / "bundle", name=model, agent="mlperf")
    image = build(directory / "bundle", board, directory / "image")
    with powered(image, board) as link:
        yield Dialogue(link.stream)


@contextmanager
def device(shared: Path, directory: Path, model: str, board_id: str) -> Iterator[Dialogue]:
    with started(shared, directory, model, board_id) as dialogue:
        if board_id == "host":
            said = dialogue.lines()
            assert said[0] == "m-timestamp-mode-performance"
            assert said[1].startswith("m-lap-us-")
            assert said[2] == "m-init-done"
        else:
            dialogue.lines(INFERENCE_S)
        yield dialogue


def inputs_of(shared: Path, model: str, count: int) -> NDArray[np.int8]:
    """int8 inputs: real ones for keyword spotting and pictures, seeded noise for the others."""
    if model == "kws01":
        return np.load(shared / "data" / "kws01.npz")["x_int8"][:count].reshape(count, -1)
    if model == "ic01":
        pictures = np.load(shared / "data" / "cifar10_test.npz")["x"][:count]
        return (pictures.astype(np.int16) - 128).astype(np.int8).reshape(count, -1)
    size = {"vww01": 96 * 96 * 3, "ad01": 640}[model]
    return np.random.default_rng(8).integers(-128, 127, (count, size), np.int8, endpoint=True)


class Wheel:
    """TensorFlow Lite Micro, as its authors built it."""

    def __init__(self, path: Path) -> None:
        runtime = pytest.importorskip("tflite_micro").runtime
        self._interpreter = runtime.Interpreter.from_file(str(path), arena_size=4_000_000)
        self._input, self._output = (self._interpreter.get_input_details(0), self._interpreter.get_output_details(0))

    def __call__(self, sample: NDArray[np.int8]) -> NDArray[np.int8]:
        self._interpreter.set_input(sample.reshape(self._input["shape"]), 0)
        self._interpreter.invoke()
        output: NDArray[np.int8] = self._interpreter.get_output(0).reshape(-1).copy()
        return output

    def quantization(self) -> tuple[float, int, float, int]:
        def of(details: dict[str, dict[str, list[float]]]) -> tuple[float, int]:
            parameters = details["quantization_parameters"]
            return float(parameters["scales"][0]), int(parameters["zero_points"][0])

        return (*of(self._input), *of(self._output))


def as_sent(model: str, sample: NDArray[np.int8], scale: float, zero_point: int) -> bytes:
    """What the runner's data set holds: bytes, pixels, or floats."""
    if model == "ad01":
        return ((sample.astype(np.float32) - zero_point) * np.float32(scale)).astype("<f4").tobytes()
    if model == "kws01":
        return sample.tobytes()
    return (sample.astype(np.int16) + 128).astype(np.uint8).tobytes()


def expected(model: str, sample: NDArray[np.int8], output: NDArray[np.int8], numbers: tuple[float, ...]) -> list[float]:
    in_scale, in_zero, out_scale, out_zero = numbers
    values = (output.astype(np.float32) - np.float32(out_zero)) * np.float32(out_scale)
    if model == "ad01":
        floats = (sample.astype(np.float32) - np.float32(in_zero)) * np.float32(in_scale)
        return [float(np.mean((values - floats) ** 2, dtype=np.float64))]
    return [float(value) for value in values]


def agree(got: list[str], wanted: list[float]) -> None:
    assert len(got) == len(wanted)
    for text, value in zip(got, wanted, strict=True):
        assert len(text.split(".")[1]) == 3
        assert abs(float(text) - value) <= 0.0005 + 1e-4 * abs(value), (text, value)


@pytest.mark.parametrize("board_id", BOARDS)
@pytest.mark.parametrize("model", MODELS)
def test_a_scripted_session(shared: Path, tmp_path: Path, model: str, board_id: str) -> None:
    wheel = Wheel(shared / "models" / f"{MODELS[model]}.tflite")
    numbers = wheel.quantization()
    with device(shared, tmp_path, model, board_id) as dialogue:
        assert dialogue.ask("name") == [f"m-name-dut-[{board_id}]"]
        assert dialogue.ask("profile") == ["m-profile-[ULPMark for tinyML Firmware V0.0.1]", f"m-model-[{model}]"]
        first, second = (int(dialogue.ask("timestamp")[0].removeprefix("m-lap-us-")) for _ in range(2))
        assert second >= first
        assert dialogue.ask("foo bar") == ["e-[Unknown command: foo]"]
        assert "infer N W%" in dialogue.ask("help")
        count = 1 if model == "vww01" else 2
        for sample in inputs_of(shared, model, count):
            data = as_sent(model, sample, numbers[0], int(numbers[1]))
            dialogue.load(data)
            wanted = expected(model, sample, wheel(sample), numbers)
            results, _ = dialogue.infer()
            agree(results, wanted)
            again, took = dialogue.infer(2, 1)
            assert again == results
            assert took > 0
            assert dialogue.ask("results") == [f"m-results-[{','.join(results)}]"]
        dialogue.load(data[:20])
        shown = "-".join(line.removeprefix("m-buffer-") for line in dialogue.ask("db print"))
        assert bytes.fromhex(shown.replace("-", "")) == data[:20]


@pytest.mark.parametrize("board_id", BOARDS)
@pytest.mark.parametrize("again", [True, False], ids=["as identified", "as the port is opened again"])
def test_a_banner_that_the_runner_takes_for_an_answer(shared: Path, tmp_path: Path, board_id: str, again: bool) -> None:
    """The board restarts when its port is opened, so that the banner's m-ready ends the runner's first exchange.

    The runner asks for the name up to three times, but loads an input once: both must find every answer in its place.
    """
    with started(shared, tmp_path, "kws01", board_id) as dialogue:
        time.sleep(2.0)  # as the runner does after opening
        if again:
            assert f"m-name-dut-[{board_id}]" not in dialogue.ask("name", INFERENCE_S)
            assert f"m-name-dut-[{board_id}]" in dialogue.ask("name")
            assert "m-model-[kws01]" in dialogue.ask("profile")
            assert dialogue.ask("timestamp")[0].startswith("m-lap-us-")
        sample = inputs_of(shared, "kws01", 1)[0]
        loads = [f"db load {sample.size}"]
        loads += [f"db {sample[at : at + BYTES_A_LINE].tobytes().hex()}" for at in range(0, sample.size, BYTES_A_LINE)]
        said = [line for command in loads for line in dialogue.ask(command, INFERENCE_S)]
        assert said[-2:] == ["m-[Expecting 490 bytes]", "m-load-done"]
        results, took = dialogue.infer()
        assert len(results) == 12
        assert took > 0


@pytest.mark.slow
@pytest.mark.qemu
@needs_qemu
def test_five_hundred_keywords_have_the_accuracy_of_tflm(shared: Path, tmp_path: Path) -> None:
    wheel = Wheel(shared / "models" / f"{MODELS['kws01']}.tflite")
    labels = np.load(shared / "data" / "kws01.npz")["y"]
    right = reference = 0
    with device(shared, tmp_path, "kws01", EMULATED) as dialogue:
        for sample, label in zip(inputs_of(shared, "kws01", 500), labels, strict=True):
            output = wheel(sample)
            dialogue.load(sample.tobytes())
            results, _ = dialogue.infer()
            agree(results, expected("kws01", sample, output, wheel.quantization()))
            right += int(np.argmax([float(text) for text in results])) == label
            reference += int(np.argmax(output)) == label
    assert right == reference
    assert reference > 400


def test_what_is_no_command(shared: Path, tmp_path: Path) -> None:
    with device(shared, tmp_path, "kws01", "host") as dialogue:
        for command, said in (
            ("", "e-[Unknown command: ]"),
            ("x" * 200, "e-[Command too long]"),
            ("db load", "e-[Command 'db load' takes 1 to 490 bytes]"),
            ("db load 491", "e-[Command 'db load' takes 1 to 490 bytes]"),
            ("db load 99999999999999", "e-[Command 'db load' takes 1 to 490 bytes]"),
            ("infer 1 0", "e-[Load an input of 490 bytes first]"),
        ):
            assert dialogue.ask(command) == [said]
        dialogue.ask("db load 2")
        for digits in ("0", "0g", "012"):
            assert dialogue.ask(f"db {digits}") == ["e-[Not pairs of hex digits]"]
        assert dialogue.ask("db 0102030405") == ["m-load-done"]
        assert dialogue.ask("db 06") == []
        assert dialogue.ask("db print") == ["m-buffer-01-02"]


def test_flash_hears_the_model_by_its_protocol(shared: Path, tmp_path: Path) -> None:
    model = shared / "models" / "kws_ref_int8.tflite"
    api.bundle(model, "host", tmp_path / "bundle", name="kws01", agent="mlperf")
    report = api.flash(tmp_path / "bundle", "host")
    assert report.hello is None
    assert report.to_json()["hello"] is None
    with pytest.raises(UsageError) as caught:
        api.bench(tmp_path / "bundle", "host")
    assert caught.value.code == "other-agent"


def test_only_models_that_the_runner_knows(tmp_path: Path, shared: Path) -> None:
    with pytest.raises(InputError) as caught:
        api.bundle(
            shared / "models" / "kws_ref_int8.tflite", "host", tmp_path / "bundle", name="keywords", agent="mlperf"
        )
    assert caught.value.code == "not-an-mlperf-model"
    assert not (tmp_path / "bundle").exists()
