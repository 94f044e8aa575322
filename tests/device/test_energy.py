"""Energy by Nordic's PPK2: a stand-in for the kit, whose currents a test knows, and the command line."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from ppk2_kit import CONSTANTS, Kit, metadata, ppk2, word
from tiny_bundle import SOURCE, write_tiny_bundle
from typer.testing import CliRunner

from edgeq.benchmark.energy import measure_energy
from edgeq.cli.main import app
from edgeq.device.meter import Calibration, Ppk2
from edgeq.device.ports import open_port
from edgeq.errors import DeviceError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the stand-in needs a pty")


@pytest.mark.parametrize("amperes", [2e-6, 200e-6, 2e-3, 20e-3, 0.3])
def test_every_range_gives_the_current_back(amperes: float) -> None:
    """The converter's steps are the only difference, once the kit's own constants are known."""
    sample = word(amperes, 0)
    at = sample >> 14 & 7
    got = Calibration.parse(metadata().decode()).amperes(np.array([sample & 0x3FFF]), np.array([at]), 3300)[0]
    assert got == pytest.approx(amperes, abs=1.5 * 4 * 1.8 / 163_840 / CONSTANTS["R"][at])


def test_a_current_worked_out_by_hand() -> None:
    """Range 2 without gains or offsets: 4096 * 4 * 1.8 / 163840 volts across 10.15 ohms."""
    plain = Calibration.parse("R2: 10.15\nGS2: -nan\nEND")
    assert plain.rows["R"][0] == 1031.64
    row = {name: tuple(0.0 if name == "GS" else value for value in values) for name, values in plain.rows.items()}
    got = Calibration(row).amperes(np.array([4096]), np.array([2]), 3300)[0]
    assert got == pytest.approx(0.18 / 10.15)


def test_energy_is_what_the_runs_draw_beyond_waiting() -> None:
    """2 mA while waiting, 12 mA in runs of 50 ms: 12 mA * 3 V * 50 ms = 1.8 mJ a run."""
    state = {"amperes": 0.002}

    def run(runs: int) -> None:
        state["amperes"] = 0.012
        time.sleep(0.05 * runs)
        state["amperes"] = 0.002
        time.sleep(0.2)

    with ppk2(Kit(lambda: state["amperes"])) as port:
        meter = Ppk2(open_port(port), 3000)
        report = measure_energy(meter, run, 0.05, lambda: time.sleep(0.3))
        meter.close()
    assert report.runs == 20
    assert report.idle.value == pytest.approx(6.0, rel=0.02)
    assert report.per_run.value == pytest.approx(1800, rel=0.15)  # type: ignore[union-attr]
    assert report.running.value == pytest.approx(36, rel=0.15)  # type: ignore[union-attr]
    assert report.lost_samples == 0
    assert report.to_json()["per_run"]["kind"] == "measured"  # type: ignore[index]


def test_it_never_feeds_the_board_and_counts_lost_samples() -> None:
    kit = Kit(drop=100)
    with ppk2(kit) as port:
        meter = Ppk2(open_port(port), 3300)
        _, window = meter.measure(lambda: time.sleep(0.2))
        meter.close()
    assert b"\x11\x01" in kit.commands, "an ampere meter"
    assert b"\x0d\x0c\xe4" in kit.commands, "3300 mV"
    assert not any(command[0] == 0x11 and command[1] == 2 for command in kit.commands)
    assert window.lost == pytest.approx(window.samples / 99, abs=2)


def test_a_kit_that_does_not_answer() -> None:
    with ppk2(Kit(mute=True)) as port, pytest.raises(DeviceError) as caught:
        Ppk2(open_port(port), 3300)
    assert caught.value.code == "meter-silent"


def test_bench_with_a_meter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A board that always draws 5 mA at 3.3 V: a run's energy is 16.5 mW times what it takes."""
    monkeypatch.setenv("EDGEQ_STATE", str(tmp_path / "state"))
    bundle = write_tiny_bundle(tmp_path / "bundle", source=SOURCE.replace("(bytes[COMMAND])", "(0)"))

    def edgeq(*arguments: object) -> tuple[int, dict[str, dict[str, object]]]:
        result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
        return result.exit_code, json.loads(result.stdout)

    assert edgeq("flash", bundle, "--board", "host")[0] == 0
    with ppk2(Kit(lambda: 0.005)) as port:
        status, document = edgeq(
            "bench", bundle, "--board", "host", "--runs", "3", "--meter", f"ppk2:{port}", "--supply-mv", "3300"
        )
    assert status == 0, document
    energy = document["energy"]
    run_s = document["ticks"]["median"]["value"] / 1e9  # type: ignore[index]
    assert energy["idle"]["value"] == pytest.approx(16.5, rel=0.02)  # type: ignore[index]
    # Wide: a run that a busy computer interrupts takes longer for the kit than for the median of the board's runs.
    assert energy["per_run"]["value"] == pytest.approx(16.5e-3 * run_s * 1e6, rel=0.5)  # type: ignore[index]
    for wrong, code in (
        (["--meter", "ppk2"], "supply-missing"),
        (["--meter", "ppk2", "--supply-mv", "12000"], "supply-range"),
        (["--meter", "ammeter"], "meter-unknown"),
    ):
        status, document = edgeq("bench", bundle, "--board", "host", *wrong)
        assert (status, document["error"]["code"]) == (2, code)
    status, document = edgeq("bench", bundle, "--board", "host", "--meter", "ppk2", "--supply-mv", "3300")
    assert (status, document["error"]["code"]) == (3, "meter-missing")
