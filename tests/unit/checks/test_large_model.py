"""MobileNetV2 1.0/224 and the MLPerf Tiny models against every board: the matrix, without TensorFlow, in seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MAKE = """
import sys, keras, numpy as np, tensorflow as tf
keras.utils.set_random_seed(1)
model = keras.applications.MobileNetV2(weights=None, input_shape=(224, 224, 3))
rng = np.random.default_rng(1)
converter = tf.lite.TFLiteConverter.from_keras_model(model)
converter.optimizations = [tf.lite.Optimize.DEFAULT]
converter.representative_dataset = lambda: ([rng.uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)] for _ in range(2))
converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
converter.inference_input_type = converter.inference_output_type = tf.int8
open(sys.argv[1], "wb").write(converter.convert())
"""
RUN = """
import json, resource, sys
sys.modules["ethosu"] = None
from edgeq.cli.main import app
try:
    app(["check", sys.argv[1], "--board", "all", "--json"])
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    foreign = sorted({"tensorflow", "keras", "ai_edge_litert"} & set(sys.modules))
    print(json.dumps({"cpu_s": used.ru_utime + used.ru_stime, "foreign": foreign}), file=sys.stderr)
"""
LIMIT_S = 4
"""The whole command takes 1.7 s of processor time on an idle machine, 1 s for the small models; the rest is room."""


def checked(model: Path) -> dict[str, bool]:
    """Board -> whether the model fits, by the command; it must stay below the limit and load no framework."""
    done = subprocess.run([sys.executable, "-c", RUN, str(model)], check=False, capture_output=True, text=True)
    told = json.loads(done.stderr.splitlines()[-1])
    assert told["foreign"] == []
    assert told["cpu_s"] < LIMIT_S
    return {board["board"]: board["fits"] for board in json.loads(done.stdout)["boards"]}


@pytest.mark.slow
@pytest.mark.tensorflow
def test_mobilenet_v2_on_every_board(tmp_path: Path) -> None:
    pytest.importorskip("keras", reason="needs edgeq[convert]")
    model = tmp_path / "mobilenet_v2.tflite"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", MAKE, str(model)], check=True, capture_output=True, env=environment)
    fits = checked(model)
    assert len(fits) >= 24
    for board in ("pi-4b", "coral-dev-board", "qemu-mps2-an386"):
        assert fits[board]
    for board in ("nucleo-l4r5zi", "raspberry-pi-pico", "arduino-nano-33-ble-sense"):
        assert not fits[board]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kws_ref_int8", "vww_96_int8", "ic_resnet8_int8", "ad01_int8"])
def test_published_models_on_every_board(shared: Path, name: str) -> None:
    fits = checked(shared / "models" / f"{name}.tflite")
    assert len(fits) >= 24
    assert fits["nucleo-l4r5zi"]
