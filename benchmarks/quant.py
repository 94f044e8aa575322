"""The quantizer's figures beside the bare TFLiteConverter's and litert-quantizer's, in one run: `make bench-quant`.

Keyword spotting and image classification need the reference models and data (EDGEQ_SHARED, or ../shared beside the
checkout); rows that cannot run say why. Rows go to standard output, and beside this file into quant.json and quant.md;
those of parts that do not run now stay as they were, with the day on which they ran.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("EDGEQ_SHARED", ROOT.parent / "shared"))
SEEDS = (1, 2, 3)
QAT_BARS = {"4": 0.970, "3": 0.955, "2": 0.90, "ternary": 0.93, "binary": 0.85}
HERE = Path(__file__).parent
OURS = "ours (float accuracy, accuracy, agreement, error)"
BARE = "bare converter (accuracy, agreement, error)"
PEER = "litert-quantizer (accuracy, agreement, error)"
# Neither trains.
NO_TRAINING = {"bare converter, litert-quantizer": "they do not train"}
Row = dict[str, Any]


def median(values: Sequence[float]) -> float:
    return float(statistics.median(values))


def number(quantity: Any) -> float:
    return float(getattr(quantity, "value", float("nan")))


def figures(report: Any) -> tuple[float, float, float, float]:
    """Float accuracy, quantized accuracy, agreement, mean absolute error of the first output."""
    q = report.quality
    return (
        number(q.accuracy_float),
        number(q.accuracy_quantized),
        number(q.agreement),
        number(q.outputs[0].mean_absolute),
    )


def run_tflite(tflite: bytes, x: NDArray[Any]) -> NDArray[Any]:
    """Real outputs on the reference kernels."""
    from edgeq.graph import read_bytes
    from edgeq.quantization.evaluation import outputs_of

    return outputs_of(tflite, read_bytes(tflite), [[sample] for sample in x])[0]


def bare_converter(model: Any, x: NDArray[Any], scheme: str) -> bytes:
    """What a user writes who calls TFLiteConverter himself, with the batch fixed at 1."""
    import keras
    import tensorflow as tf

    inputs = keras.Input(batch_shape=(1, *model.inputs[0].shape[1:]))
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(inputs, model(inputs)))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample[None]] for sample in x)
    integers = tf.lite.OpsSet.TFLITE_BUILTINS_INT8
    wide = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    converter.target_spec.supported_ops = [wide if scheme == "int16x8" else integers]
    result: bytes = converter.convert()
    return result


def litert_quantizer(float_tflite: Path, x: NDArray[Any], scheme: str) -> bytes:
    """litert-quantizer with its own calibration."""
    from litert_quantizer import qtyping, quantizer

    from edgeq.graph import read

    name = next(iter(read(float_tflite).signatures[0].inputs))
    work = quantizer.Quantizer(str(float_tflite))
    everything = qtyping.TFLOperationName.ALL_SUPPORTED
    work.add_static_config(".*", everything, 16 if scheme == "int16x8" else 8, 8)
    if scheme == "int4":
        for operation in (qtyping.TFLOperationName.CONV_2D, qtyping.TFLOperationName.FULLY_CONNECTED):
            work.add_static_config(".*", operation, 8, 4)
    statistics_ = work.calibrate({"serving_default": [{name: sample[None]} for sample in x]}, num_threads=2)
    return bytes(work.quantize(statistics_, enable_progress_report=False).quantized_model)


def scored(tflite: bytes, x: NDArray[Any], y: NDArray[Any], expected: NDArray[Any]) -> tuple[float, float, float]:
    """Accuracy, agreement, mean absolute error."""
    actual = run_tflite(tflite, x)
    chosen = np.argmax(actual, axis=1)
    return (
        float(np.mean(chosen == y)),
        float(np.mean(chosen == np.argmax(expected, axis=1))),
        float(np.mean(np.abs(actual - expected))),
    )


def published(directory: Path) -> list[Row]:
    """Keyword spotting and image classification. Seeds choose which samples calibrate."""
    from edgeq.quantization.float_model import load

    if not (SHARED / "models").is_dir():
        return [{"figure": "published models", "missing": f"no {SHARED}"}]
    data = np.load(SHARED / "data" / "kws01.npz")
    x, y = ((data["x_int8"].astype(np.float32) - 83) * np.float32(0.5847029)), data["y"]
    path = SHARED / "models" / "kws_saved_model"
    model = load(path, unsafe=False).keras_model
    rows: list[Row] = []
    told = {
        "int8": "accuracy >= float - .005, agreement >= .985, error <= .0025",
        "int16x8": "agreement >= .995",
        "int4": "accuracy >= float - .010",
    }
    bars: dict[str, Callable[[tuple[float, ...]], bool]] = {
        "int8": lambda f: f[1] >= f[0] - 0.005 and f[2] >= 0.985 and f[3] <= 0.0025,
        "int16x8": lambda f: f[2] >= 0.995,
        "int4": lambda f: f[1] >= f[0] - 0.010,
    }
    for scheme, holds in bars.items():
        ours, bare, peer = [], [], []
        for seed in SEEDS:
            order = np.random.default_rng(seed).permutation(len(x))
            fit, held = order[:200], order[200:]
            ours.append(figures(_convert(path, directory, scheme, (x[fit], y[fit]), (x[held], y[held]))))
            expected = model.predict(x[held], verbose=0)
            if scheme != "int4":
                bare.append(scored(bare_converter(model, x[fit], scheme), x[held], y[held], expected))
            peer.append(_peer(path, directory, x[fit], (x[held], y[held], expected), scheme))
        middle = tuple(median(column) for column in zip(*ours, strict=True))
        rows.append(
            {
                "figure": f"keyword spotting, {scheme}",
                OURS: middle,
                BARE: [median(c) for c in zip(*bare, strict=True)] or "it has no 4-bit weights",
                PEER: [median(c) for c in zip(*peer, strict=True)],
                "bar": told[scheme],
                "holds": holds(middle),
            }
        )
    rows.append(_image_classification(directory))
    return rows


def _convert(model: Any, directory: Path, scheme: str, data: Any, held: Any) -> Any:
    from edgeq.quantization import convert

    return convert(model, directory / "m.tflite", scheme=scheme, data=data, eval_data=held)


def _peer(model: Any, directory: Path, x: NDArray[Any], held: Any, scheme: str) -> tuple[float, float, float]:
    from edgeq.quantization import convert

    float_file = directory / "float.tflite"
    convert(model, float_file, scheme="float32")
    return scored(litert_quantizer(float_file, x, scheme), *held)


def _image_classification(directory: Path) -> Row:
    from edgeq.quantization.float_model import load

    data, path = SHARED / "data", SHARED / "models" / "ic_resnet8.h5"
    report = _convert(path, directory, "int8", data / "cifar10_calibration.npz", data / "cifar10_test.npz")
    ours = figures(report)
    fit, test = (np.load(data / f"cifar10_{part}.npz") for part in ("calibration", "test"))
    samples, x = fit["x"].astype(np.float32), test["x"].astype(np.float32)
    model = load(path, unsafe=False).keras_model
    held = (x, test["y"].reshape(-1), model.predict(x, verbose=0))
    return {
        "figure": "ic_resnet8, int8",
        OURS: ours,
        BARE: scored(bare_converter(model, samples, "int8"), *held),
        PEER: _peer(path, directory, samples, held, "int8"),
        "bar": "accuracy >= float - .003",
        "holds": ours[1] >= ours[0] - 0.003,
    }


def digits() -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """scikit-learn's digits: training x and y, test x and y (450 held out)."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    x, y = (data.images[order, :, :, None] / 16).astype(np.float32), data.target[order]
    return x[450:], y[450:], x[:450], y[:450]


def _digits_model(seed: int, *, depthwise: bool = False) -> Any:
    import keras

    keras.utils.set_random_seed(seed)
    layers = keras.layers
    model = keras.Sequential([keras.Input((8, 8, 1))])
    blocks = [layers.Conv2D(filters, 3, padding="same", use_bias=False) for filters in (16, 32, 32)]
    if depthwise:
        middle = layers.DepthwiseConv2D(3, padding="same", use_bias=False)
        blocks = [blocks[0], middle, layers.Conv2D(32, 1, use_bias=False), blocks[2]]
    for block in blocks:
        model.add(block)
        model.add(layers.BatchNormalization())
        model.add(layers.ReLU())
    model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    model.add(layers.Dense(10))
    return model


def _fit(model: Any, x: NDArray[Any], y: NDArray[Any], epochs: int, rate: float) -> None:
    import keras

    steps = epochs * -(-len(x) // 64)
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps))
    model.compile(optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, epochs=epochs, batch_size=64, verbose=0)


def aware(directory: Path) -> list[Row]:
    """Quantization-aware training of the digits CNN, accuracy in the `.tflite` on the reference kernels."""
    from edgeq import quantize_aware

    x, y, x_test, y_test = digits()
    rows: list[Row] = []
    models = {}
    for seed in SEEDS:
        models[seed] = _digits_model(seed)
        _fit(models[seed], x, y, 20, 3e-3)
    floats = [float(np.mean(np.argmax(m.predict(x_test, verbose=0), 1) == y_test)) for m in models.values()]
    for weights, bar in QAT_BARS.items():
        found, agreed, within = [], [], []
        for model in models.values():
            trained = quantize_aware(model, weights=weights)
            _fit(trained, x, y, 40, 3e-3)
            report = _convert(trained, directory, "int8", None, (x_test, y_test))
            _, accuracy, agreement, _ = figures(report)
            found.append(accuracy)
            agreed.append(agreement)
            within.append(_within_one_step(trained, directory / "m.tflite", x_test))
        rows.append(
            {
                "figure": f"digits CNN, weights {weights}",
                "float accuracy": median(floats),
                "accuracy in the .tflite": median(found),
                "bar": f"accuracy >= {bar:.3f}, agreement >= .995, within 1 LSB >= .99",
                "argmax agreement with the simulation": median(agreed),
                "logits within 1 LSB": median(within),
                **NO_TRAINING,
                "holds": median(found) >= bar and median(agreed) >= 0.995 and median(within) >= 0.99,
            }
        )
    return rows


def _within_one_step(model: Any, path: Path, x: NDArray[Any]) -> float:
    from edgeq.graph import read

    graph = read(path)
    step = graph.tensor(graph.outputs[0]).scale
    simulated = model.predict(x, verbose=0)
    return float(np.mean(np.abs(run_tflite(path.read_bytes(), x) - simulated) <= 1.01 * step))


def badly_scaled(directory: Path) -> Row:
    """Depthwise channels scaled by 1/100 .. 100, undone by the next layer; no flag given."""
    x, y, x_test, y_test = digits()
    ours, floats, bare, peer = [], [], [], []
    for seed in SEEDS:
        model = _digits_model(seed, depthwise=True)
        _fit(model, x, y, 20, 3e-3)
        kinds = [type(layer).__name__ for layer in model.layers]
        at = kinds.index("DepthwiseConv2D")
        norm, mix = model.layers[at + 1], model.layers[kinds.index("Conv2D", at)]
        factor = np.exp(np.random.default_rng(seed).uniform(np.log(0.01), np.log(100), 16)).astype(np.float32)
        norm.gamma.assign(norm.gamma * factor)
        norm.beta.assign(norm.beta * factor)
        mix.kernel.assign(mix.kernel / factor[None, None, :, None])
        found = figures(_convert(model, directory, "int8", x[:200], (x_test, y_test)))
        floats.append(found[0])
        ours.append(found[1])
        expected = model.predict(x_test, verbose=0)
        bare.append(scored(bare_converter(model, x[:200], "int8"), x_test, y_test, expected)[0])
        peer.append(_peer(model, directory, x[:200], (x_test, y_test, expected), "int8")[0])
    return {
        "figure": "badly scaled depthwise, int8",
        "float accuracy": median(floats),
        "ours": median(ours),
        "bare converter": median(bare),
        "litert-quantizer": median(peer),
        "bar": "accuracy >= float - .005",
        "holds": median(ours) >= median(floats) - 0.005,
    }


def duration(directory: Path) -> Row:
    """MobileNetV2 1.0/224 with 50 samples: ours against the bare converter, each a process that loads TensorFlow.

    Three times each, in turn. The processor's time counts, of all processes, as the wall clock's depends on what else
    the machine does; both are told.
    """
    import subprocess

    import keras

    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2(weights=None)
    # Random weights let the signal vanish with depth; one pass in training mode normalizes every layer.
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(np.random.default_rng(1).random((8, 224, 224, 3), dtype=np.float32) * 2 - 1, training=True)
    path, data = directory / "mobilenet.keras", directory / "noise.npy"
    model.save(path)
    np.save(data, np.random.default_rng(0).random((50, 224, 224, 3), dtype=np.float32) * 2 - 1)
    bare = (
        "import sys, numpy as np, keras; sys.path.insert(0, sys.argv[1]); import quant; "
        "quant.bare_converter(keras.models.load_model(sys.argv[2]), np.load(sys.argv[3]), 'int8')"
    )
    ours = (
        "import sys; from edgeq import convert; convert(sys.argv[2], sys.argv[1] + '/timed.tflite', data=sys.argv[3])"
    )
    wall: dict[str, list[float]] = {"bare": [], "ours": []}
    cpu: dict[str, list[float]] = {"bare": [], "ours": []}
    for _ in SEEDS:
        for who, code, first in (("bare", bare, HERE), ("ours", ours, directory)):
            start, before = time.perf_counter(), _children_seconds()
            command = [sys.executable, "-c", code, str(first), str(path), str(data)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wall[who].append(time.perf_counter() - start)
            cpu[who].append(_children_seconds() - before)
    ratio = median(cpu["ours"]) / median(cpu["bare"])
    return {
        "figure": "MobileNetV2 to int8, 50 samples",
        "bare converter (CPU s, wall s)": [round(median(times["bare"]), 1) for times in (cpu, wall)],
        "ours (CPU s, wall s)": [round(median(times["ours"]), 1) for times in (cpu, wall)],
        "ratio of CPU time": round(ratio, 2),
        "ratio of wall time": round(median(wall["ours"]) / median(wall["bare"]), 2),
        "litert-quantizer": "it starts from a float .tflite",
        "bar": "ratio of CPU time <= 1.15",
        "holds": ratio <= 1.15,
    }


def _children_seconds() -> float:
    """Seconds of processor time, user and system, of all processes that have ended below this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


PARTS: dict[str, Callable[[Path], Any]] = {
    "published": published,
    "aware": aware,
    "badly-scaled": badly_scaled,
    "duration": duration,
}


def figure(value: Any) -> str:
    """A row's number, or several, as text."""
    if isinstance(value, (list, tuple)):
        return ", ".join(figure(v) for v in value)
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def render(rows: Sequence[Row]) -> str:
    """The Markdown page."""
    lines = [
        "# The quantizer's figures",
        "",
        "`make bench-quant`. Medians of three seeds, which choose the calibration samples or initialize training, on",
        "the TFLite reference kernels; the bare TFLiteConverter and litert-quantizer in the same run, on the same",
        "samples.",
        "",
        "| figure | measured | bar | holds | day |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        measured = "<br>".join(
            f"{name}: {figure(value)}"
            for name, value in row.items()
            if name not in ("figure", "bar", "holds", "part", "day") and value is not None
        )
        holds = {True: "yes", False: "**no**"}.get(row.get("holds"), "")
        lines.append(f"| {row['figure']} | {measured} | {row.get('bar', '')} | {holds} | {row['day']} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], default=[], help="which rows; all by default")
    parser.add_argument("--out", type=Path, default=HERE, help="directory of quant.json and quant.md")
    options = parser.parse_args()
    page = options.out / "quant.json"
    known: list[Row] = json.loads(page.read_text()) if page.exists() else []
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    with tempfile.TemporaryDirectory() as name:
        for part in options.parts or PARTS:
            found = PARTS[part](Path(name))
            rows = found if isinstance(found, list) else [found]
            for row in rows:
                row |= {"part": part, "day": today}
                print(json.dumps(row), flush=True)
            known = [row for row in known if row["part"] != part] + rows
            known.sort(key=lambda row: list(PARTS).index(row["part"]))
            page.write_text(json.dumps(known, indent=2) + "\n")
            (options.out / "quant.md").write_text(render(known))


if __name__ == "__main__":
    main()
