"""MobileNetV2 1.0/224 against every board: the matrix, without TensorFlow, in seconds."""

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
CHECK = """
import json, sys, time
from edgeq import api
from edgeq.boards import list_boards
from edgeq.toolchain import vela
vela.vela_command = lambda: None
boards = list_boards()
before = time.process_time()
reports = api.check(sys.argv[1], boards)
cpu_s = time.process_time() - before
foreign = sorted({"tensorflow", "keras", "ai_edge_litert"} & set(sys.modules))
print(json.dumps({"cpu_s": cpu_s, "foreign": foreign, "fits": {r.board: r.fits for r in reports}}))
"""
LIMIT_S = 6
"""Some 1.5 s on an idle core; the rest is room for busy machines."""


@pytest.mark.slow
@pytest.mark.tensorflow
def test_mobilenet_v2_on_every_board(tmp_path: Path) -> None:
    pytest.importorskip("keras", reason="needs edgeq[convert]")
    model = tmp_path / "mobilenet_v2.tflite"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", MAKE, str(model)], check=True, capture_output=True, env=environment)
    done = subprocess.run([sys.executable, "-c", CHECK, str(model)], check=True, capture_output=True, text=True)
    result = json.loads(done.stdout)
    assert result["foreign"] == []
    assert len(result["fits"]) >= 24
    for board in ("pi-4b", "coral-dev-board", "qemu-mps2-an386"):
        assert result["fits"][board]
    for board in ("nucleo-l4r5zi", "raspberry-pi-pico", "arduino-nano-33-ble-sense"):
        assert not result["fits"][board]
    assert result["cpu_s"] < LIMIT_S
