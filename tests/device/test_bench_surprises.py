"""What a user of `edgeq bench` must not meet: a lost result, a status that lies, a wait without end, a wrong share."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from test_flash_bench_cli import bundle, run, state

from edgeq.benchmark import bench_boards, compare, keep, kept, room_for
from edgeq.benchmark.manifest import BenchManifest, Layer, Tensor
from edgeq.benchmark.result import Accuracy
from edgeq.benchmark.run import _accuracy
from edgeq.benchmark.samples import Samples
from edgeq.boards import load_board
from edgeq.device.doctor import doctor
from edgeq.device.ports import open_port
from edgeq.errors import InputError, OutputError, UsageError

__all__ = ["bundle", "state"]
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /dev/full")
posix = pytest.mark.skipif(os.name != "posix", reason="needs signals")


@pytest.mark.parametrize("name", ["", ".json", "../up", "a/b", "a\\b", ".hidden", "c:x"])
def test_names_of_results_stay_in_their_directory(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        kept(name)
    assert (caught.value.code, caught.value.exit_status) == ("result-name", 2)


def test_a_result_that_cannot_be_kept_is_told_before_the_measurement(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".edgeq").touch()
    monkeypatch.setattr("edgeq.api.bench", lambda *_, **__: pytest.fail("measured"))
    status, out, _ = run("bench", bundle, "--board", "host", "--keep", "a", "--json")
    assert (status, json.loads(out)["error"]["code"]) == (3, "result-not-writable")
    with pytest.raises(OutputError):
        room_for(kept("a"))


def test_a_result_that_could_not_be_kept_is_shown(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OutputError("output-not-writable", "Cannot write it.", try_="Make room.")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("edgeq.benchmark.keep", full)
    assert run("flash", bundle, "--board", "host")[0] == 0
    status, out, err = run("bench", bundle, "--board", "host", "--runs", "2", "--keep", "a", "--json")
    assert status == 3
    assert json.loads(out)["comparison"]["bytes_differing"] == 0
    assert "output-not-writable" in err


@linux
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_full_disk_behind_standard_output(options: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "edgeq.cli.main", "devices", *options]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 3
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


@posix
def test_who_reads_only_the_first_line_changes_no_status() -> None:
    command = [sys.executable, "-m", "edgeq.cli.main", "devices"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0
    process.stderr.close()


@pytest.mark.parametrize("option", [("--supply-mv", "3300"), ("--shunt-ohm", "0.1")])
def test_an_option_of_a_meter_without_the_meter(bundle: Path, option: tuple[str, str]) -> None:
    status, out, _ = run("bench", bundle, "--board", "host", *option, "--json")
    assert (status, json.loads(out)["error"]["code"]) == (2, "meter-missing")


def test_a_port_without_a_name() -> None:
    with pytest.raises(UsageError):
        open_port(" ")


def test_labels_that_the_output_cannot_tell(bundle: Path, tmp_path: Path) -> None:
    x = np.zeros((2, 3000), np.uint8), np.zeros((2, 4), np.uint8)
    samples = Samples(tuple(zip(*([row.tobytes() for row in side] for side in x), strict=True)), (0, 3000), "x")
    found = _accuracy(samples, Tensor(bytes=3000, name="y"), None, [[bytes(3000)]] * 2, None)
    assert isinstance(found, str)
    assert "0 to 3000" in found


@pytest.mark.parametrize(
    ("last", "output", "values", "share"),
    [
        ("LOGISTIC", Tensor(bytes=1, name="y", type="INT8", scale=1 / 256, zero_point=-128), (-1, 1, 127, -128), 1.0),
        ("LOGISTIC", Tensor(bytes=4, name="y", type="FLOAT32"), (0.4, 0.6, 0.9, 0.1), 1.0),
        ("FULLY_CONNECTED", Tensor(bytes=4, name="y", type="FLOAT32"), (-0.1, 0.1, 0.4, -3), 1.0),
        ("FULLY_CONNECTED", Tensor(bytes=1, name="y", type="INT8", scale=0.1, zero_point=10), (9, 11, 9, 9), 0.75),
    ],
)
def test_a_single_output_is_held_against_its_middle(
    last: str, output: Tensor, values: tuple[float, ...], share: float
) -> None:
    """As `convert` counts: 0.5 behind a sigmoid, 0 else. Labels: 0, 1, 1, 0."""
    layers = (Layer(index=0, name=last), Layer(index=1, name="RESHAPE"))
    manifest = BenchManifest.model_construct(layers=layers)
    packed = [[struct.pack("<b" if output.type == "INT8" else "<f", value)] for value in values]
    found = _accuracy(Samples(((b"",),) * 4, (0, 1, 1, 0), "x"), output, manifest, packed, packed)
    assert isinstance(found, Accuracy)
    assert found.board.value == found.host.value == share  # type: ignore[union-attr]


def result(ok: bool = True, **fields: object) -> dict[str, object]:
    median = {"kind": "measured", "value": 100, "unit": "cycles"}
    return {"ok": ok, "board": "a", "ticks": {"median": median}, **fields}


@pytest.mark.parametrize(
    ("before", "after", "worse"),
    [
        (result(), result(), ()),
        (result(), result(ok=False), ("outputs",)),
        (result(ok=False), result(ok=False), ()),
        (result(accuracy={"board": {"value": 0.9, "unit": "fraction"}}), result(), ("accuracy",)),
        (result(), result(accuracy={"board": {"value": 0.9, "unit": "fraction"}}), ()),
        (
            result(memory={"arena_used": {"value": 0, "unit": "bytes"}}),
            result(memory={"arena_used": {"value": 9, "unit": "bytes"}}),
            ("arena used",),
        ),
    ],
)
def test_what_a_gate_stops(tmp_path: Path, before: dict[str, object], after: dict[str, object], worse: object) -> None:
    keep(before, tmp_path / "before.json")
    keep(after, tmp_path / "after.json")
    assert compare(tmp_path / "before.json", tmp_path / "after.json").worse_by(0.5) == worse


def test_a_gate_across_boards_is_refused(tmp_path: Path) -> None:
    keep(result(), tmp_path / "before.json")
    keep(result(board="b"), tmp_path / "after.json")
    names = [str(tmp_path / f"{name}.json") for name in ("before", "after")]
    assert run("bench", "--compare", *names)[0] == 0
    status, out, _ = run("bench", "--compare", *names, "--gate", "2", "--json")
    assert (status, json.loads(out)["error"]["code"]) == (2, "results-incomparable")


def test_other_compilers_and_flags_are_noted(tmp_path: Path) -> None:
    keep(result(image={"compiler": "gcc 12", "flags": ["-O2", "-g"]}), tmp_path / "before.json")
    keep(result(image={"compiler": "zig 13", "flags": ["-Os", "-g"]}), tmp_path / "after.json")
    notes = " ".join(compare(tmp_path / "before.json", tmp_path / "after.json").notes)
    assert "gcc 12 and zig 13" in notes
    assert "-O2 and -Os" in notes
    with pytest.raises(InputError) as caught:
        compare(tmp_path / "before.json", tmp_path / "absent.json")
    assert caught.value.code == "result-missing"


@posix
@pytest.mark.usefixtures("control_c")
def test_control_c_does_not_wait_for_all_boards() -> None:
    """Each would measure for a minute; both hear of it with their next sign of progress."""
    running = threading.Barrier(3)

    def measure(_board: object, show: object) -> object:
        running.wait(10)
        for step in range(6000):
            show("run", step, None)  # type: ignore[operator]
            time.sleep(0.01)
        raise AssertionError

    def interrupt() -> None:
        running.wait(10)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    boards = [load_board(name) for name in ("host", "virtual-m4")]
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        bench_boards(boards, measure, lambda *_: None)  # type: ignore[arg-type]
    assert time.monotonic() - started < 30


def test_doctor_on_a_state_directory_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGEQ_STATE", str(tmp_path / "file" / "state"))
    (check,) = [check for check in doctor().checks if check.name == "state directory"]
    assert check.state == "failed"
    assert "EDGEQ_STATE" in (check.remedy or "")
