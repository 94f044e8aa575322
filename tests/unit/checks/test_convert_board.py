"""`edgeq convert` on the command line: the board's verdict at the end, and what is refused before any work."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgeq.cli.main import app


def converted(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as left:
        app(["convert", *arguments])
    return int(left.value.code or 0), capsys.readouterr().out


@pytest.mark.tensorflow
def test_a_conversion_ends_with_the_boards_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import keras

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, activation="relu"), keras.layers.Dense(3)])
    model.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(20, 8)).astype("f"))
    common = [str(tmp_path / "m.keras"), "--data", str(tmp_path / "x.npy"), "-o", str(tmp_path / "m.tflite")]

    status, text = converted(capsys, *common, "--board", "virtual-m4")
    assert status == 0
    assert "m fits on virtual-m4" in text

    status, text = converted(capsys, *common, "--board", "coral-dev-board", "--io", "float32", "--json")
    assert status == 0
    (board,) = json.loads(text)["check"]["boards"]
    assert board["board"] == "coral-dev-board"
    assert {f["rule"] for f in board["findings"] if f["fixable"]} == {"float-input", "float-output"}


def test_an_unknown_board_is_refused_before_the_conversion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.keras").write_bytes(b"never opened")
    out = tmp_path / "m.tflite"
    status, text = converted(capsys, str(tmp_path / "m.keras"), "-o", str(out), "--board", "nucleo", "--json")
    assert status == 2
    assert json.loads(text)["error"]["code"] == "board-unknown"
    assert not out.exists()


def test_a_conversion_never_writes_over_the_model_that_it_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "m.keras"
    model.write_bytes(b"weeks of training")
    status, text = converted(capsys, str(model), "-o", str(model), "--json")
    assert status == 2
    assert json.loads(text)["error"]["code"] == "output-is-input"
    assert model.read_bytes() == b"weeks of training"
