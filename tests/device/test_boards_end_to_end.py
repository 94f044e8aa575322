"""Flash and bench on virtual boards with the hand-written bundle: results, errors, nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import COMMAND_BYTES, DIGEST, INPUT_BYTES, LAYERS, SOURCE, write_tiny_bundle

from edgeq.benchmark import bench
from edgeq.benchmark.run import _run_all
from edgeq.benchmark.samples import Samples
from edgeq.boards import load_board
from edgeq.device import connect, flash
from edgeq.device.virtual import power_on
from edgeq.errors import DeviceError, InputError, UsageError
from edgeq.progress import silent
from edgeq.report.device_text import render_bench, render_flash

COUNT = 3
X = [
    np.random.default_rng(5).integers(-128, 127, (COUNT, INPUT_BYTES), dtype=np.int8),
    np.zeros((COUNT, COMMAND_BYTES), np.int8),
]
qemu = pytest.mark.qemu
needs_qemu = pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="needs qemu-system-arm")
unicorn = pytest.mark.skipif(find_spec("unicorn") is None, reason="needs unicorn")
BOARDS = [
    "host",
    pytest.param("virtual-m4", marks=unicorn),
    *(
        pytest.param(f"qemu-{name}", marks=[qemu, needs_qemu])
        for name in ("mps2-an385", "mps2-an386", "mps2-an500", "mps2-an505", "mps3-an547", "netduinoplus2")
    ),
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("end-to-end") / "bundle")


@pytest.fixture(autouse=True, scope="module")
def state(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("state")
        patch.setenv("EDGEQ_STATE", str(path))
        yield path


@pytest.mark.parametrize("board_id", BOARDS)
def test_flash_then_bench(bundle: Path, board_id: str) -> None:
    board = load_board(board_id)
    flashed = flash(bundle, board)
    assert flashed.hello.board == board_id
    assert flashed.hello.model_sha256 == DIGEST
    report = bench(bundle, board, x=X, runs=3)
    assert report.ok
    assert report.comparison is not None
    assert (report.comparison.bytes_compared, report.comparison.bytes_differing) == (COUNT * INPUT_BYTES, 0)
    assert report.ticks is not None
    assert len(report.ticks.samples) == 3
    assert [layer.name for layer in report.layers] == ["XOR", "WAIT", "END"]
    assert len(report.layers) == LAYERS
    document = json.loads(json.dumps(report.to_json()))
    assert document["memory"]["arena_planned"]["value"] == 6144
    if board_id != "host":
        assert report.ticks.unit == "instructions"
        assert "not a latency" in report.ticks.basis
        assert sum(layer.cost.value for layer in report.layers) <= report.ticks.median.value * 1.2  # type: ignore[union-attr]
        assert 0 < document["memory"]["stack_used_by_run"]["value"] < document["memory"]["stack_reserved"]["value"]


def test_each_sample_starts_from_the_initial_state(bundle: Path) -> None:
    """The tiny model's first byte counts its runs since the reset."""
    board = load_board("host")
    flash(bundle, board)
    samples = Samples(((bytes(INPUT_BYTES), bytes(COMMAND_BYTES)),) * 3, None, "three times the same")
    with connect(board) as session:
        session.infer(samples.inputs[0])
        assert [outputs[0][0] for outputs in _run_all(session, samples, silent)] == [1, 1, 1]


@unicorn
def test_instruction_counts_repeat_exactly(bundle: Path) -> None:
    board = load_board("virtual-m4")
    flash(bundle, board)
    first, second = (bench(bundle, board, x=X, runs=3) for _ in range(2))
    assert first.ticks is not None
    assert second.ticks is not None
    assert set(first.ticks.samples) == set(second.ticks.samples)
    assert len(set(first.ticks.samples)) == 1
    assert [layer.cost for layer in first.layers] == [layer.cost for layer in second.layers]


@pytest.mark.parametrize("board_id", ["virtual-m4"])
@unicorn
def test_a_crash_is_traced_to_its_function(bundle: Path, board_id: str) -> None:
    board = load_board(board_id)
    flash(bundle, board)
    with pytest.raises(DeviceError) as caught, connect(board) as session:
        session.infer([bytes(INPUT_BYTES), b"\2\0\0\0"])
    assert caught.value.code == "board-fault"
    assert "tiny_misbehave" in caught.value.what
    assert "0xe2345678" in (caught.value.why or "")
    with connect(board) as session:
        assert session.infer([bytes(INPUT_BYTES), bytes(COMMAND_BYTES)])[0][1:] == b"\x5a" * (INPUT_BYTES - 1)


@unicorn
def test_a_stack_that_runs_out_is_told(bundle: Path) -> None:
    board = load_board("virtual-m4")
    flash(bundle, board)
    with pytest.raises(DeviceError) as caught, connect(board) as session:
        session.infer([bytes(INPUT_BYTES), b"\4\0\0\0"])
    assert caught.value.code == "board-fault"
    assert "the stack ran out" in caught.value.what


@unicorn
def test_a_planted_byte_is_found_and_blamed_on_its_layer(bundle: Path, tmp_path: Path) -> None:
    planted = SOURCE.replace("    HOOK(1);", "    bytes[OUTPUT + 1234] ^= 4;\n    HOOK(1);")
    wrong = write_tiny_bundle(tmp_path / "wrong", source=planted)
    right = write_tiny_bundle(tmp_path / "right")
    for directory in (wrong, right):
        manifest = json.loads((directory / "manifest.json").read_text())
        for index, layer in enumerate(manifest["layers"]):
            layer |= {"output": f"t{index}", "output_offset": 32 + INPUT_BYTES, "output_bytes": INPUT_BYTES}
        (directory / "manifest.json").write_text(json.dumps(manifest))
    board = load_board("virtual-m4")
    flash(wrong, board)
    report = bench(wrong, board, x=X, runs=1, host_bundle=right)
    assert not report.ok
    assert report.comparison is not None
    assert report.comparison.bytes_differing == COUNT
    first = report.comparison.first
    assert first is not None
    assert (first.sample, first.output, first.offset) == (0, 0, 1234)
    assert first.board_value ^ first.host_value == 4
    assert first.layer is not None
    assert (first.layer.index, first.layer.suspect_from, first.layer.name, first.layer.offset) == (1, 1, "WAIT", 1234)


@unicorn
def test_bench_of_another_model_than_flashed_is_refused(bundle: Path, tmp_path: Path) -> None:
    board = load_board("virtual-m4")
    flash(bundle, board)
    other = write_tiny_bundle(tmp_path / "other")
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "model_sha256": "ab" * 32}))
    with pytest.raises(DeviceError) as caught:
        bench(other, board, x=X, runs=1)
    assert caught.value.code == "wrong-model"
    assert caught.value.exit_status == 3


def test_labels_give_accuracy_on_the_board(bundle: Path) -> None:
    board = load_board("host")
    flash(bundle, board)
    outputs = X[0] ^ 0x5A
    outputs[:, 0] = range(1, COUNT + 1)
    labels = outputs.argmax(axis=1)
    labels[0] = (labels[0] + 1) % INPUT_BYTES
    report = bench(bundle, board, x=X, y=labels, runs=1)
    assert report.accuracy is not None
    assert report.accuracy.board.value == pytest.approx((COUNT - 1) / COUNT)


def test_without_a_bundle_the_flashed_one_names_layers(bundle: Path) -> None:
    board = load_board("host")
    flash(bundle, board)
    report = bench(None, board, x=X, runs=1)
    assert [layer.name for layer in report.layers] == ["XOR", "WAIT", "END"]
    assert report.comparison is None
    assert any("not compared" in finding for finding in report.findings)


def test_an_empty_flash_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEQ_STATE", str(tmp_path))
    with pytest.raises(DeviceError) as caught:
        bench(None, load_board("host"))
    assert caught.value.code == "nothing-flashed"


@pytest.mark.parametrize("damage", ["{}", "not json", '{"schema": "edgeq.flashed/1"}', "[]"])
def test_a_damaged_flash_record_is_an_error(bundle: Path, state: Path, damage: str) -> None:
    board = load_board("host")
    flash(bundle, board)
    (state / "boards" / "host" / "flash.json").write_text(damage)
    with pytest.raises(DeviceError) as caught:
        bench(bundle, board)
    assert caught.value.code == "flash-content-broken"
    flash(bundle, board)


def test_an_image_that_does_not_answer_leaves_the_old_one(bundle: Path, tmp_path: Path) -> None:
    board = load_board("host")
    flash(bundle, board)
    dead = SOURCE.replace("void tiny_reset(void *arena) {", "void tiny_reset(void *arena) { for (;;) { }")
    broken = write_tiny_bundle(tmp_path / "dead", source=dead)
    with pytest.raises(DeviceError) as caught:
        flash(broken, board)
    assert caught.value.code in {"no-answer", "emulator-ended"}
    assert bench(bundle, board, x=X, runs=1).ok


def test_data_that_do_not_fit(bundle: Path) -> None:
    board = load_board("host")
    flash(bundle, board)
    for x, code in (
        (X[:1], "data-shape"),
        ([X[0][:, :7], X[1]], "data-shape"),
        ([X[0][:0], X[1][:0]], "data-empty"),
        ([np.full((1, INPUT_BYTES), np.nan, np.float32), X[1][:1]], "data-not-finite"),
    ):
        with pytest.raises(InputError) as caught:
            bench(bundle, board, x=x)
        assert caught.value.code == code


def test_flash_of_a_virtual_board_takes_no_port(bundle: Path) -> None:
    with pytest.raises(UsageError) as caught:
        flash(bundle, load_board("host"), port="/dev/ttyACM0")
    assert caught.value.code == "port-not-used"


def test_reports_render(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    console = Console(width=120)
    board = load_board("host")
    render_flash(console, flash(bundle, board))
    render_bench(console, bench(bundle, board, x=X, runs=3))
    text = capsys.readouterr().out
    assert "runs tiny on" in text
    assert "0 of 9,000 output bytes differ" in text
    assert "WAIT" in text


@pytest.mark.parametrize("board_id", ["host", pytest.param("qemu-mps2-an386", marks=[qemu, needs_qemu])])
def test_no_emulator_outlives_a_killed_host(bundle: Path, board_id: str) -> None:
    board = load_board(board_id)
    image = flash(bundle, board).image
    code = (
        "import sys, time, pathlib\n"
        "from edgeq.boards import load_board\n"
        "from edgeq.device.virtual import power_on\n"
        f"powered = power_on(load_board({board_id!r}), pathlib.Path({str(image.elf)!r}))\n"
        "print(powered._process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    guard = int(holder.stdout.readline())
    time.sleep(0.3)
    children = Path(f"/proc/{guard}/task/{guard}/children")
    if not children.is_file():
        holder.kill()
        pytest.skip("needs Linux's /proc to find the process")
    emulator = int(children.read_text(encoding="ascii"))
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and Path(f"/proc/{emulator}/stat").exists():
        if Path(f"/proc/{emulator}/stat").read_text(encoding="ascii").split(") ")[1].startswith("Z"):
            break
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{emulator}").exists()


@qemu
@needs_qemu
def test_the_line_over_tcp_gives_the_same(bundle: Path) -> None:
    board = load_board("qemu-mps2-an386")
    over_tcp = board.model_copy(update={"link": board.link.model_copy(update={"kind": "tcp"})})
    image = flash(bundle, board).image
    with power_on(over_tcp, image.elf) as powered:
        from edgeq.device.session import Session

        session = Session(powered.transport)
        session.hello()
        output = session.infer([X[0][0].tobytes(), bytes(COMMAND_BYTES)])[0]
    assert output[1:] == (X[0][0] ^ 0x5A).tobytes()[1:]
