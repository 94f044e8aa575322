"""`edgeq flash` and `edgeq bench` as commands: exit status, JSON, errors without a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_bundle import DIGEST, INPUT_BYTES, SOURCE, write_tiny_bundle
from typer.testing import CliRunner

from edgeq.cli.main import app


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = SOURCE.replace("* 100000", "* 1").replace("(bytes[COMMAND])", "(0)")
    return write_tiny_bundle(tmp_path_factory.mktemp("cli") / "bundle", source=source)


@pytest.fixture(autouse=True, scope="module")
def state(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEQ_STATE", str(tmp_path_factory.mktemp("state")))
        yield


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result.exit_code, result.stdout, result.stderr


def test_flash_then_bench(bundle: Path) -> None:
    status, out, _ = run("flash", bundle, "--board", "host", "--json")
    document = json.loads(out)
    assert status == 0, document
    assert document["schema"] == "edgeq.flash/1"
    assert document["hello"]["model_sha256"] == DIGEST
    status, out, _ = run("bench", bundle, "--board", "host", "--json", "--runs", "3")
    document = json.loads(out)
    assert status == 0
    assert document["schema"] == "edgeq.bench/1"
    assert document["comparison"]["bytes_differing"] == 0
    assert document["comparison"]["bytes_compared"] == 4 * INPUT_BYTES
    assert document["ticks"]["unit"] == "ns"
    status, out, _ = run("bench", "--board", "host")
    assert status == 0
    assert "measured" in out


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (["flash", "BUNDLE", "--board", "no-such-board"], 2, "board-unknown"),
        (["flash", "absent", "--board", "host"], 2, None),
        (["flash", "BUNDLE", "--board", "host", "--port", "/dev/x"], 2, "port-not-used"),
        (["bench", "BUNDLE", "--board", "host", "--port", "/dev/edgeq-is-not-here"], 3, "port-missing"),
        (["bench", "--board", "qemu-mps2-an500"], 3, "nothing-flashed"),
        (["bench", "--board", "arduino-nano-33-ble-sense"], 3, "port-missing"),
    ],
)
def test_errors(bundle: Path, arguments: list[str], status: int, code: str | None) -> None:
    got, out, _ = run(*[bundle if argument == "BUNDLE" else argument for argument in arguments], "--json")
    error = json.loads(out)["error"]
    assert got == status
    assert error["exit_status"] == status
    assert error["what"]
    assert error["try"]
    if code is not None:
        assert error["code"] == code


def test_a_build_failure_is_one(tmp_path: Path) -> None:
    broken = write_tiny_bundle(tmp_path / "broken", source=SOURCE.replace("int32_t tiny_invoke", "int32 tiny_invoke"))
    status, out, _ = run("flash", broken, "--board", "host", "--json")
    error = json.loads(out)["error"]
    assert status == 3
    assert error["code"] == "build-failed"
    assert "int32" in error["why"]


def test_devices() -> None:
    status, out, _ = run("devices", "--json")
    document = json.loads(out)
    assert status == 0
    assert {"host", "virtual-m4", "qemu-mps2-an386"} <= {board["board"] for board in document["virtual"]}
    status, out, _ = run("devices")
    assert status == 0
    assert "virtual-m4" in out


def test_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, _ = run("doctor", "--json")
    document = json.loads(out)
    checks = {(check["group"], check["name"]): check for check in document["checks"]}
    assert status == (0 if document["ok"] else 1)
    assert checks["link", "loop://"]["state"] == "ok"
    assert checks["package", "numpy"]["state"] == "ok"
    assert all(check["remedy"] for check in document["checks"] if check["state"] != "ok")
    monkeypatch.setenv("PATH", "/nonexistent")
    status, out, _ = run("doctor", "--json")
    checks = {(check["group"], check["name"]): check for check in json.loads(out)["checks"]}
    assert checks["emulator", "qemu-system-arm"]["state"] == "absent"
    assert "apt-get" in checks["emulator", "qemu-system-arm"]["remedy"]


def test_several_boards_at_once(bundle: Path) -> None:
    assert run("flash", bundle, "--board", "host")[0] == 0
    assert run("flash", bundle, "--board", "virtual-m4")[0] == 0
    status, out, _ = run("bench", bundle, "--board", "host", "--board", "virtual-m4", "--json", "--runs", "2")
    document = json.loads(out)
    assert status == 0, document
    assert ["made for host" in " ".join(result["findings"]) for result in document["boards"]] == [False, True]
    assert [result["board"] for result in document["boards"]] == ["host", "virtual-m4"]
    assert all(result["comparison"]["bytes_differing"] == 0 for result in document["boards"])
    status, out, _ = run("bench", bundle, "--board", "host", "--board", "arduino-nano-33-ble-sense", "--json")
    document = json.loads(out)
    assert status == 3
    assert document["boards"][0]["board"] == "host"
    assert document["failures"]["arduino-nano-33-ble-sense"]["code"] == "port-missing"
    for wrong in (["--board", "host", "--board", "host"], ["--board", "host", "--board", "virtual-m4", "--port", "x"]):
        assert run("bench", bundle, *wrong)[0] == 2


def test_a_board_that_differs_gives_exit_status_1(bundle: Path, tmp_path: Path) -> None:
    """The board runs another program than the bundle's, although it claims the same model."""
    source = SOURCE.replace("* 100000", "* 1").replace("(bytes[COMMAND])", "(0)").replace("^ 0x5A", "^ 0x5B")
    wrong = write_tiny_bundle(tmp_path / "wrong", source=source)
    assert run("flash", bundle, "--board", "virtual-m4")[0] == 0
    assert run("flash", wrong, "--board", "host")[0] == 0
    status, out, _ = run("bench", bundle, "--board", "host", "--board", "virtual-m4", "--json", "--runs", "2")
    assert status == 1
    assert [result["ok"] for result in json.loads(out)["boards"]] == [False, True]
    assert run("flash", bundle, "--board", "host")[0] == 0


def test_progress_names_the_board(bundle: Path) -> None:
    from edgeq.api import bench_boards

    seen: list[tuple[str, str]] = []
    report = bench_boards(
        bundle, ["host", "virtual-m4"], runs=2, progress=lambda line, what, *_: seen.append((line, what))
    )
    assert report.ok
    assert {line for line, _ in seen} == {"host", "virtual-m4"}
