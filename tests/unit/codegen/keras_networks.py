"""Whole Keras networks, small ones of every kind, and their conversion by EdgeQ's own quantizer.

    python keras_networks.py SCHEME DIRECTORY NAME...

leaves NAME.tflite, or NAME.error with the reason, for each network in DIRECTORY. Weights are seeded, biases and
normalisation statistics are not at their defaults. Importing this module does not import Keras.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sequence_networks
import vision_networks
from network_registry import NETWORKS, SAMPLES, TOKENS, keras

__all__ = ["NETWORKS", "TOKENS", "sequence_networks", "vision_networks"]


def _settle(model: Any, seed: int) -> None:
    """Give biases and normalisations values that training could have given them."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        name = weight.path.rsplit("/", maxsplit=1)[-1]
        if name in ("bias", "beta", "moving_mean", "alpha"):
            weight.assign(weight.numpy() + random.normal(0.0, 0.1, weight.shape))
        elif name in ("gamma", "moving_variance", "scale"):
            weight.assign(random.uniform(0.5, 1.5, weight.shape))


def built(name: str) -> Any:
    """The Keras model, the same in every process."""
    seed = zlib.crc32(name.encode())
    keras.utils.set_random_seed(seed)
    model = NETWORKS[name]()
    _settle(model, seed)
    return model


def samples_of(model: Any) -> dict[str, np.ndarray]:
    """SAMPLES values, the first axis, for every input: normal noise, or token ids."""
    random = np.random.default_rng(1)
    made = {}
    for tensor in model.inputs:
        shape = (SAMPLES, *tensor.shape[1:])
        integer = "int" in str(tensor.dtype)
        noise = random.integers(0, TOKENS, shape) if integer else random.normal(size=shape)
        made[tensor.name] = noise.astype(np.int32 if integer else np.float32)
    return made


def convert(names: Sequence[str], scheme: str, out: Path) -> None:
    """`edgeq.convert`, with the work of its child process done in this one: TensorFlow is imported once."""
    from edgeq.errors import EdgeqError
    from edgeq.quantization import conversion
    from edgeq.quantization.pipeline import run

    def here(directory: Path, _seed: int, progress: Any) -> dict[str, Any]:
        return run(directory, json.loads((directory / "job.json").read_text()), progress)

    conversion._run_child = here
    for name in names:
        print(name, flush=True)
        try:
            model = built(name)
            data = samples_of(model)
            file = out / f"{name}.tflite"
            conversion.convert(model, file, scheme=scheme, data=data, allow_float=True)
        except EdgeqError as error:
            (out / f"{name}.error").write_text(f"{error.code}: {error.what} {error.why or ''}")


if __name__ == "__main__":
    convert(sys.argv[3:], sys.argv[1], Path(sys.argv[2]))
