"""Keras model + data → `.tflite`: the parent's side. Checks what can be checked quickly, then hands over to a child.

The converter can take its process down with it, so it never runs in the user's.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgeq import errors
from edgeq.boards import Board, load_board
from edgeq.errors import DataError, EdgeqError, ModelError, UsageError
from edgeq.files import write_files
from edgeq.graph import read_bytes
from edgeq.measure import Measured, Quantity, Unknown
from edgeq.progress import Progress, silent
from edgeq.quantization.calibration import AUTO, METHODS
from edgeq.quantization.data import Dataset, image_files, load_data
from edgeq.quantization.layer_map import path_beside
from edgeq.quantization.model_files import inspect, is_quantize_aware
from edgeq.quantization.report import ConversionReport, OutputError, Quality, Warned
from edgeq.quantization.result_checks import count_operators, describe_io, verify_scheme
from edgeq.quantization.search import SearchGoal

# Scheme -> the types its inputs and outputs may have, the default first.
SCHEMES: Mapping[str, tuple[str, ...]] = {
    "int8": ("int8", "uint8", "float32"),
    "int4": ("int8", "uint8", "float32"),
    "int16x8": ("int16", "float32"),
    "dynamic": ("float32",),
    "float16": ("float32",),
    "float32": ("float32",),
}
NEEDS_DATA = ("int8", "int4", "int16x8")
# What single layers may have; the inputs and outputs of such a mixture may be any of these types.
LAYER_SCHEMES = ("int8", "int4", "int16x8", "float16", "float32")
_MIXED_IO = ("int8", "uint8", "int16", "float32")
GRANULARITIES = ("channel", "tensor")
RECURRENT = ("unroll", "fused", "cell")


def convert(
    model: Any,
    out: Path,
    *,
    scheme: str = "int8",
    layers: Mapping[str, str] | None = None,
    granularity: str = "channel",
    rnn: str = "unroll",
    io: str | None = None,
    data: Any = None,
    eval_data: Any = None,
    calibration: str = "auto",
    allow_float: bool = False,
    unsafe: bool = False,
    qat_epochs: int = 0,
    search: SearchGoal | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> ConversionReport:
    """Convert `model` (a file, a SavedModel directory or a `keras.Model`) to `out`, whole or not at all.

    `layers` gives the layers that match a pattern another scheme (`edgeq.quantization.mixture.assign`); `granularity`
    is how far a weight's scale reaches, a channel or a tensor. `rnn`: recurrent layers unrolled, each LSTM
    one operator ("fused", `edgeq.quantization.fused`), or as a "cell", one moment an inference, each state an input and
    an output (`edgeq.quantization.recurrent`). `io` is the type of inputs
    and outputs, by default the scheme's own, with `layers` that of the layer beside them. `data` calibrates,
    `eval_data` measures: see `edgeq.quantization.data`. `qat_epochs` trains on `data` with quantization before
    converting. `search` chooses each layer's scheme by measuring (`edgeq.quantization.search`). The map from layers to
    tensors and operators is written beside `out` (`edgeq.quantization.layer_map`).
    Raises UsageError, ModelError, DataError, ToolError, OutputError.
    """
    mixed = dict(layers or {})
    io = _checked_options(scheme, mixed, granularity, io, calibration)
    _check_rnn(rnn, scheme, mixed, search, qat_epochs)
    board = None if search is None else _searched_board(search, scheme, mixed, qat_epochs)
    _writable(out)
    with tempfile.TemporaryDirectory(prefix="edgeq-convert-") as name:
        directory = Path(name)
        path, own = _model_path(model, directory)
        inspect(path, unsafe=unsafe or own)
        needing = next((s for s in (scheme, *mixed.values()) if s in NEEDS_DATA), None)
        if data is None and needing is not None and not is_quantize_aware(path):
            raise DataError(
                "data-missing",
                f"Scheme {needing} needs representative data.",
                try_=("Give --data DATA: 100 to 500 real samples.", "Or use --scheme dynamic, which needs none."),
            )
        job = {
            "model": str(path.resolve()),
            "unsafe": unsafe or own,
            "scheme": scheme,
            "layers": mixed,
            "granularity": granularity,
            "rnn": rnn,
            "io": io,
            "calibration": calibration,
            "allow_float": allow_float,
            "qat_epochs": qat_epochs,
            "search": None if search is None else asdict(search),
            "board": None if board is None else board.model_dump_json(),
            "seed": seed,
            "data": _hand_over(data, "data", directory),
            "eval": _hand_over(eval_data, "eval", directory),
        }
        (directory / "job.json").write_text(json.dumps(job))
        told = _run_child(directory, seed, progress)
        result = (directory / "model.tflite").read_bytes()
        layer_map = (directory / "model.quant.json").read_bytes()
    graph = read_bytes(result)
    searched = told["search"]
    if searched is not None:
        scheme, mixed = searched["scheme"], searched["layers"]
    verify_scheme(graph, scheme, allow_float=allow_float or bool(mixed) or searched is not None)
    write_files({path_beside(out): layer_map, out: result})
    return ConversionReport(
        model=model.name if own else str(model),
        out=str(out),
        sha256=hashlib.sha256(result).hexdigest(),
        scheme=scheme,
        size_bytes=len(result),
        float_size_bytes=told["float_size_bytes"],
        inputs=describe_io(graph, graph.inputs),
        outputs=describe_io(graph, graph.outputs),
        operators=count_operators(graph),
        float_operators=tuple(told["float_operators"]),
        calibration_samples=told["calibration_samples"],
        seed=seed,
        improvements=tuple(told["improvements"]),
        quality=_quality(told["quality"]),
        warnings=tuple(Warned(*entry) for entry in told["warnings"]),
        layers=tuple(told["layers"]),
        verdict=told["verdict"],
        layer_map=str(path_beside(out)),
        mixture=mixed,
        granularity=granularity,
        search=searched,
    )


def _searched_board(goal: SearchGoal, scheme: str, layers: Mapping[str, str], qat_epochs: int) -> Board:
    if scheme != "int8" or layers or qat_epochs:
        raise UsageError(
            "search-with-schemes",
            "A search chooses the schemes itself.",
            where="--search",
            try_="Leave --scheme, --layer and --qat out, or --search.",
        )
    return load_board(goal.board)


def _checked_options(
    scheme: str, layers: Mapping[str, str], granularity: str, io: str | None, calibration: str
) -> str | None:
    _check_schemes(scheme, layers, granularity)
    allowed = _MIXED_IO if layers else SCHEMES[scheme]
    if io is not None and io not in allowed:
        raise UsageError(
            "io-unknown",
            f"Scheme {scheme} has no {io} inputs and outputs.",
            where="--io",
            try_="One of " + ", ".join(allowed) + ".",
        )
    if calibration not in (*METHODS, AUTO):
        raise UsageError(
            "calibration-unknown",
            f"There is no calibration {calibration}.",
            where="--calibration",
            try_="One of " + ", ".join((*METHODS, AUTO)) + ".",
        )
    if calibration != AUTO and not {scheme, *layers.values()} & {"int8", "int4"}:
        raise UsageError(
            "calibration-without-meaning",
            f"Scheme {scheme} has no ranges to choose by {calibration}.",
            where="--calibration",
            why="int16x8 takes smallest and largest values; the float schemes have no ranges.",
            try_="Leave --calibration out, or use --scheme int8 or int4.",
        )
    return io if layers else io or SCHEMES[scheme][0]


def _check_rnn(rnn: str, scheme: str, layers: Mapping[str, str], search: SearchGoal | None, qat_epochs: int) -> None:
    if rnn not in RECURRENT:
        raise UsageError(
            "rnn-unknown",
            f"There is no way {rnn} for recurrent layers.",
            where="--rnn",
            try_="unroll: all moments in one inference; fused: the same, an LSTM one operator; cell: one moment.",
        )
    if rnn == "fused" and (layers or search is not None or scheme == "int16x8" or qat_epochs):
        raise UsageError(
            "fused-scheme",
            "LSTM operators come in schemes int8, int4 and the float ones only, with one scheme for all layers.",
            where="--rnn fused",
            try_="Use --scheme int8, without --layer, --search and --qat; or --rnn unroll.",
        )
    if rnn == "cell" and (layers or search is not None or scheme == "int16x8"):
        raise UsageError(
            "cell-scheme",
            "A state has one scale, as input and output, in schemes int8, int4 and the float ones only.",
            where="--rnn cell",
            try_="Use --scheme int8, without --layer and --search.",
        )


def _check_schemes(scheme: str, layers: Mapping[str, str], granularity: str) -> None:
    if scheme not in SCHEMES:
        raise UsageError(
            "scheme-unknown",
            f"There is no scheme {scheme}.",
            where="--scheme",
            try_="One of " + ", ".join(SCHEMES) + ".",
        )
    for pattern, own in layers.items():
        if own not in LAYER_SCHEMES:
            raise UsageError(
                "scheme-unknown",
                f"There is no scheme {own} for a layer.",
                where=f"--layer {pattern}={own}",
                try_="One of " + ", ".join(LAYER_SCHEMES) + ".",
            )
    if layers and scheme not in LAYER_SCHEMES:
        raise UsageError(
            "mixture-impossible",
            f"Scheme {scheme} cannot be mixed with others.",
            where="--layer",
            why="Its layers compute in float and keep weights in int8, where the converter finds that worthwhile.",
            try_="Use --scheme float32 and give int8 to the layers that are to be small.",
        )
    if granularity not in GRANULARITIES:
        raise UsageError(
            "granularity-unknown",
            f"There is no granularity {granularity}.",
            where="--granularity",
            try_="One of " + ", ".join(GRANULARITIES) + ".",
        )
    if granularity != "channel" and not {scheme, *layers.values()} & set(NEEDS_DATA):
        raise UsageError(
            "granularity-without-meaning",
            f"Scheme {scheme} has no scales of weights that could be one per {granularity}.",
            where="--granularity",
            try_="Leave it out, or use --scheme int8, int4 or int16x8.",
        )


def _writable(out: Path) -> None:
    """Say before minutes of work that the result could not be kept."""
    if out.is_dir():
        raise errors.OutputError(
            "output-not-writable", f"{out} is a directory.", where=str(out), try_="Give a file: -o model.tflite"
        )
    parent = out.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise errors.OutputError(
            "output-not-writable",
            f"Cannot write {out}.",
            where=str(out),
            why=f"{parent} is not a directory that you may write to.",
            try_="Choose another place with -o.",
        )


def _model_path(model: Any, directory: Path) -> tuple[Path, bool]:
    """The model as a file, and whether it came as an object of the user's own process (and so is trusted)."""
    if isinstance(model, (str, os.PathLike)):
        return Path(model), False
    if not callable(getattr(model, "save", None)) or not hasattr(model, "layers"):
        raise ModelError(
            "not-a-keras-model", f"A {type(model).__name__} is not a Keras model.", try_="Give a keras.Model or a path."
        )
    if not getattr(model, "inputs", None):
        raise ModelError(
            "model-not-built",
            f"The model {model.name} has no inputs yet.",
            try_="Give it an Input layer, or call it once on data.",
        )
    if _only_keras_layers(model):
        path = directory / "model.keras"
        model.save(path)
        return path, True
    # The child cannot import what only this process defines: it gets the function that the model computes.
    import keras

    specs = [keras.InputSpec(shape=(1, *t.shape[1:]), dtype=t.dtype, name=t.name) for t in model.inputs]
    path = directory / "exported"
    with _quiet():
        model.export(path, input_signature=[specs] if len(specs) > 1 else specs, verbose=False)
    return path, True


def _only_keras_layers(model: Any) -> bool:
    return all(
        type(layer).__module__.split(".")[0] in ("keras", "edgeq", "tf_keras") and type(layer).__name__ != "Lambda"
        for layer in model._flatten_layers()
    )


@contextmanager
def _quiet() -> Iterator[None]:
    with Path(os.devnull).open("w") as sink:
        saved, sys.stdout = sys.stdout, sink
        try:
            yield
        finally:
            sys.stdout = saved


def _hand_over(data: Any, which: str, directory: Path) -> dict[str, Any] | None:
    """Load the data here, where errors come at once, and leave plain arrays to the child; images are decoded there."""
    if data is None:
        return None
    if isinstance(data, (str, os.PathLike)) and Path(data).is_dir():
        image_files(Path(data))
        return {"folder": str(Path(data).resolve())}
    loaded: Dataset = load_data(data)
    arrays = {}
    for i, (name, array) in enumerate(loaded.inputs.items()):
        arrays[name] = f"{which}_{i}.npy"
        np.save(directory / arrays[name], array)
    labels = None
    if loaded.labels is not None:
        labels = f"{which}_labels.npy"
        np.save(directory / labels, loaded.labels)
    return {"arrays": arrays, "labels": labels, "source": loaded.source}


def _run_child(directory: Path, seed: int, progress: Progress) -> dict[str, Any]:
    environment = {
        **os.environ,
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "CUDA_VISIBLE_DEVICES": "-1",
        "PYTHONHASHSEED": str(seed),
    }
    command = [sys.executable, "-m", "edgeq.quantization.worker", str(directory)]
    step = "starting"
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, encoding="utf-8") as child:
        try:
            assert child.stdout is not None
            for line in child.stdout:
                step, done, total = json.loads(line)
                progress(step, done, total)
        except BaseException:
            child.kill()
            raise
        status = child.wait()
    log = directory / "log"
    text = log.read_text(errors="replace") if log.exists() else ""
    if os.environ.get("EDGEQ_DEBUG"):
        sys.stderr.write(text)
    answer = directory / "result.json"
    if not answer.exists():
        raise _crashed(status, step, text)
    told: dict[str, Any] = json.loads(answer.read_text())
    if "error" in told:
        raise _error(told)
    return told


def _crashed(status: int, step: str, log: str) -> ModelError:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower() or "fault" in line.lower()]
    ended = f"exit status {status}"
    if status < 0:
        ended = signal.Signals(-status).name if -status in list(signal.Signals) else f"signal {-status}"
    why = f"The process ended with {ended} while {step}."
    if telling or lines:
        why += f" Its last words: {(telling or lines)[-1][:300]}"
    return ModelError(
        "converter-crashed",
        "TensorFlow's converter took its process down.",
        why=why,
        try_=(
            "Leave layers out until it converts: the last one left out is the cause.",
            "`edgeq convert --debug` shows everything that the converter wrote.",
        ),
    )


def _error(told: Mapping[str, Any]) -> EdgeqError:
    fields = told["error"]
    kind: type[EdgeqError] = getattr(errors, told["class"])
    return kind(fields["code"], fields["what"], where=fields["where"], why=fields["why"], try_=fields["try"])


def _quantity(fields: Mapping[str, Any]) -> Quantity:
    if fields["kind"] == "unknown":
        return Unknown(fields["reason"])
    return Measured(fields["value"], fields["unit"], fields["basis"])


def _quality(told: Mapping[str, Any] | None) -> Quality | None:
    if told is None:
        return None
    return Quality(
        told["samples"],
        told["measured_on"],
        _quantity(told["accuracy_float"]),
        _quantity(told["accuracy_quantized"]),
        _quantity(told["agreement"]),
        tuple(
            OutputError(o["name"], _quantity(o["mean_absolute"]), _quantity(o["maximum"]), _quantity(o["sqnr_db"]))
            for o in told["outputs"]
        ),
        None if told["confusion"] is None else tuple(map(tuple, told["confusion"])),
    )
