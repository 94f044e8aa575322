"""The constants of the estimates are those of the published rows; where there is no basis there is no number."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgeq.boards import load_board
from edgeq.checks import check, speed
from edgeq.graph import read
from edgeq.measure import Estimated, Unknown

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "latency.py"


@pytest.fixture(scope="module")
def fitted(shared):
    file = shared / "boards" / "published_latency.json"
    done = subprocess.run([sys.executable, str(SCRIPT), str(file)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_cores_are_as_fitted_and_held_out_boards_within_a_fifth(fitted):
    for core, rate in speed.CYCLES_PER_INSTRUCTION.items():
        assert rate.value == pytest.approx(fitted["cycles_per_instruction"][core], rel=0.01)
        assert rate.error == pytest.approx(fitted["error"][core], abs=0.005)
    assert fitted["error_all"] < 0.2


def test_edge_tpu_is_as_fitted(fitted):
    for bus, system in (("pcie", "Dev Board Edge TPU"), ("usb3", "RPi 4B + USB Accelerator")):
        model, fit = speed.EDGE_TPU[bus], fitted["edge_tpu"][system]
        values = (model.constant_ms, model.per_mac_ms, model.per_byte_ms)
        assert values == pytest.approx(fit["fit"], rel=0.01)
        assert model.error == pytest.approx(fit["error"], abs=0.005)


def test_linux_is_as_fitted(fitted):
    for core, system in (("cortex-a53", "RPi 3+"), ("cortex-a72", "RPi 4")):
        _, rate = speed.MACS_PER_MS[core]
        assert rate.value == pytest.approx(fitted["litert"][system]["macs_per_ms"], rel=0.01)
        assert rate.error == pytest.approx(fitted["litert"][system]["error"], abs=0.005)


def test_edgeq_is_estimated_beside_published_rows(fitted):
    assert len(fitted["edgeq"]) == 4
    for models in fitted["edgeq"].values():
        for row in models.values():
            assert all(0.1 < ratio < 2 for ratio in row["ratio_to_published"].values())


@pytest.mark.parametrize(
    "board", ["virtual-m4", "qemu-mps2-an386", "host", "raspberry-pi-pico", "esp32-s3", "corstone-300-u55", "pi-5"]
)
def test_no_basis_no_number(shared, board):
    latency = check(read(shared / "models" / "kws_ref_int8.tflite"), load_board(board)).latency
    assert isinstance(latency, Unknown)
    assert latency.reason


def test_an_estimate_names_basis_and_error(shared):
    latency = check(read(shared / "models" / "kws_ref_int8.tflite"), load_board("nucleo-l4r5zi")).latency
    assert isinstance(latency, Estimated)
    assert "cycles each" in latency.basis
    assert latency.error


def test_float_kernels_have_no_published_rows(shared):
    board = load_board("nucleo-l4r5zi")
    assert isinstance(check(read(shared / "models" / "ic_resnet8_float.tflite"), board).latency, Unknown)
    assert isinstance(check(read(shared / "models" / "ic_resnet8_int8.tflite"), board).latency, Estimated)
