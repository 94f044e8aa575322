"""`.text` by layer against binutils, the finding about portable kernels, and golden vectors on a board."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import COMMAND_BYTES, INPUT_BYTES, write_tiny_bundle

from edgeq import api
from edgeq.benchmark import bench
from edgeq.benchmark.code import code_by_layer, portable_kernels
from edgeq.benchmark.manifest import parse_manifest
from edgeq.boards import load_board
from edgeq.device import flash
from edgeq.toolchain import Image, build

BOARD = "qemu-mps2-an386"
ZEROS = [np.zeros((1, count), np.int8) for count in (INPUT_BYTES, COMMAND_BYTES)]


@pytest.fixture(scope="module")
def kws(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("kws") / "bundle"
    api.bundle(shared / "models" / "kws_ref_int8.tflite", BOARD, directory, name="kws")
    return directory


@pytest.fixture(scope="module")
def image(kws: Path) -> Image:
    if shutil.which("arm-none-eabi-nm") is None:
        pytest.skip("needs arm-none-eabi-gcc and its binutils")
    return build(kws, load_board(BOARD), kws.parent / "image", compiler="gcc")


def nm(image: Image) -> dict[str, int]:
    """Functions of the model and their bytes, as binutils has them."""
    listing = subprocess.run(
        ["arm-none-eabi-nm", "--print-size", str(image.elf)], capture_output=True, text=True, check=True
    ).stdout
    rows = re.findall(r"^\w+ (\w+) [tT] (kws_\w+)$", listing, re.MULTILINE)
    return {name: int(size, 16) for size, name in rows}


def test_every_function_of_the_model_belongs_to_layers(kws: Path, image: Image) -> None:
    sizes = nm(image)
    code = code_by_layer(kws, "kws", image)
    manifest = parse_manifest((kws / "manifest.json").read_bytes(), "kws")
    assert sorted(code) == [layer.index for layer in manifest.layers]
    interface = {"kws_input", "kws_output", "kws_invoke", "kws_reset"}
    assert {function for layer in code.values() for function in layer.functions} == sizes.keys() - interface
    for layer in code.values():
        assert layer.text_bytes.value == sum(sizes[function] for function in layer.functions)
        assert 0 <= layer.shared_bytes.value <= layer.text_bytes.value
    once = [f for layer in code.values() for f in layer.functions]
    softmax = code[manifest.layers[-1].index]
    assert all(once.count(function) == 1 for function in softmax.functions)
    assert softmax.shared_bytes.value == 0


def test_a_portable_kernel_on_a_core_with_faster_ones_is_a_finding(kws: Path, shared: Path, tmp_path: Path) -> None:
    manifest = parse_manifest((kws / "manifest.json").read_bytes(), "kws")
    board = load_board(BOARD)
    named = " ".join(portable_kernels(manifest.layers, board))
    assert "SOFTMAX" not in named, "there is no faster one"
    assert "conv_2d_s8 " not in named
    api.bundle(shared / "models" / "kws_ref_int8.tflite", "host", tmp_path / "portable", name="kws")
    portable = parse_manifest((tmp_path / "portable" / "manifest.json").read_bytes(), "portable")
    found = portable_kernels(portable.layers, board)
    convolution = next(finding for finding in found if "(CONV_2D)" in finding)
    assert "Layer 0, 2, 4, 6, 8 " in convolution
    assert portable_kernels(portable.layers, load_board("host")) == []


@pytest.mark.parametrize("planted", [False, True])
def test_golden_vectors_are_replayed_on_the_board(tmp_path: Path, planted: bool) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    golden = bundle / "golden"
    golden.mkdir()
    for vector in range(2):
        data = bytes((7 * i + vector) & 0xFF for i in range(INPUT_BYTES))
        output = bytearray(b"\1" + bytes(value ^ 0x5A for value in data[1:]))
        output[100] ^= planted and vector == 1
        (golden / f"{vector}_input_0.bin").write_bytes(data)
        (golden / f"{vector}_input_1.bin").write_bytes(bytes(COMMAND_BYTES))
        (golden / f"{vector}_output_0.bin").write_bytes(output)
    board = load_board("host")
    flash(bundle, board)
    report = bench(bundle, board, runs=1, x=ZEROS)
    assert report.golden is not None
    assert report.golden.bytes_compared == 2 * INPUT_BYTES
    assert report.golden.bytes_differing == int(planted)
    if planted:
        assert not report.ok
        assert report.golden.first is not None
        assert (report.golden.first.sample, report.golden.first.offset) == (1, 100)
    else:
        assert report.ok
