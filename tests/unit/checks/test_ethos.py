"""Ethos-U: Vela's tables are read, its absence and its failure are told."""

from __future__ import annotations

import stat
import sys
from hashlib import sha256

import pytest
from typer.testing import CliRunner

from edgeq import api
from edgeq.boards import load_board
from edgeq.cli.main import app
from edgeq.measure import Estimated, Unknown
from edgeq.toolchain import read_manifest, vela

BOARD = "corstone-300-u55"


def test_without_vela_there_is_no_number_but_a_hint(shared, monkeypatch):
    monkeypatch.setattr(vela, "vela_command", lambda: None)
    report = api.check(shared / "models" / "kws_ref_int8.tflite", [BOARD])[0]
    assert isinstance(report.latency, Unknown)
    assert "edgeq[ethosu]" in report.latency.reason
    assert report.fits


def test_velas_failure_is_a_finding(shared, monkeypatch, tmp_path):
    script = tmp_path / "vela.py"
    script.write_text("import sys; sys.exit('Error: no such thing')")
    script.chmod(script.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setattr(vela, "vela_command", lambda: [sys.executable, str(script)])
    report = api.check(shared / "models" / "kws_ref_int8.tflite", [BOARD])[0]
    assert not report.fits
    assert report.of_severity("error")[0].found == "Error: no such thing"


def test_vela_places_all_of_an_int8_model_and_none_of_a_float_one(shared):
    if vela.vela_command() is None:
        pytest.skip("needs ethos-u-vela")
    whole, none = (
        api.check(shared / "models" / f"{name}.tflite", [BOARD])[0] for name in ("kws_ref_int8", "kws_ref_float")
    )
    assert isinstance(whole.latency, Estimated)
    assert whole.details["operators on the CPU"].value == 0
    assert whole.details["SRAM for the Ethos-U"].value > 4 * load_board(BOARD).core.count
    assert isinstance(none.latency, Unknown)
    assert "ethos-u-cpu" in {finding.rule for finding in none.findings}


def test_the_bundle_carries_velas_model(shared, monkeypatch, tmp_path):
    if vela.vela_command() is None:
        pytest.skip("needs ethos-u-vela")
    model = shared / "models" / "kws_ref_int8.tflite"
    api.bundle(model, BOARD, tmp_path / "with", name="kws")
    manifest = read_manifest(tmp_path / "with")
    (path,) = [name for name in manifest.files if name.startswith("ethos-u/")]
    content = (tmp_path / "with" / path).read_bytes()
    assert content[4:8] == b"TFL3"
    assert b"ethos-u" in content
    assert manifest.files[path] == sha256(content).hexdigest()
    monkeypatch.setattr(vela, "vela_command", lambda: None)
    api.bundle(model, BOARD, tmp_path / "without", name="kws")
    assert not (tmp_path / "without" / "ethos-u").exists()
    read_manifest(tmp_path / "without")


def test_a_bundle_without_vela_says_how_to_get_it(shared, monkeypatch, tmp_path):
    monkeypatch.setattr(vela, "vela_command", lambda: None)
    model = str(shared / "models" / "kws_ref_int8.tflite")
    done = CliRunner().invoke(app, ["bundle", model, "-b", BOARD, "-o", str(tmp_path / "npu")])
    assert done.exit_code == 0
    assert "pip install 'edgeq[ethosu]'" in " ".join(done.output.split())
    plain = CliRunner().invoke(app, ["bundle", model, "-b", "virtual-m4", "-o", str(tmp_path / "plain")])
    assert "Vela" not in plain.output
    monkeypatch.setattr(vela, "vela_command", lambda: ["vela"])
    assert vela.hint(load_board(BOARD)) is None
