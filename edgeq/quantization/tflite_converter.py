"""What is asked of TensorFlow's converter: lower to float32, quantize a float `.tflite` with ranges that we computed.

Imports TensorFlow: only the child process does this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.python.convert import mlir_quantize
from tensorflow.lite.python.optimize.calibrator import Calibrator, add_intermediate_tensors
from tensorflow.lite.tools import flatbuffer_utils

from edgeq.errors import ModelError
from edgeq.quantization.calibration import LSTM_CELL, LSTM_HIDDEN, Ranges
from edgeq.quantization.float_model import Lowered

_UNSUPPORTED = re.compile(r"'(tf\.\w+)' op is neither a custom op nor a flex op")
_NARROWEST_RANGE = 1e-6


def to_float32(lowered: Lowered, directory: Path) -> bytes:
    """The float32 `.tflite`."""
    return _convert(lowered, directory, lambda _: None)


def to_float16(lowered: Lowered, directory: Path) -> bytes:
    """Weights in float16, computation in float32."""

    def configure(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]

    return _convert(lowered, directory, configure)


def to_dynamic(lowered: Lowered, directory: Path) -> bytes:
    """Large weights in int8, activations in float32."""

    def configure(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]

    return _convert(lowered, directory, configure)


def _convert(lowered: Lowered, directory: Path, configure: Callable[[Any], None]) -> bytes:
    converter = lowered.converter(directory)
    configure(converter)
    try:
        return lowered.user_names(converter.convert())
    except ModelError:
        raise
    except Exception as error:
        operators = sorted({name.removeprefix("tf.") for name in _UNSUPPORTED.findall(str(error))})
        raise ModelError(
            "operator-not-convertible" if operators else "not-convertible",
            f"TFLite has no operator for {', '.join(operators)}." if operators else "The converter refuses the model.",
            where=", ".join(operators) or None,
            why=None if operators else " ".join(str(error).split())[:400],
            try_="Replace the layers that use it by supported ones; --debug shows the converter's own words.",
        ) from error


_TYPES = {"int8": tf.int8, "uint8": tf.uint8, "int16": tf.int16, "float32": tf.float32}


def with_ranges(float_tflite: bytes, ranges: Ranges) -> bytes:
    """The file with calibrated ranges in its tensors, as the quantizer reads them.

    An LSTM operator's hidden state is what it writes; the quantizer asks for its range a third time, in a tensor that
    holds nothing else.
    """
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(float_tflite))
    if any(code.builtinCode == schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM for code in model.operatorCodes):
        model = flatbuffer_utils.convert_bytearray_to_object(bytearray(add_intermediate_tensors(float_tflite)))
        lstms = [op for op in model.subgraphs[0].operators if op.intermediates is not None]
        hidden = {t: ranges[op.outputs[0]] for op in lstms for t in (op.inputs[LSTM_HIDDEN], op.intermediates[-1])}
        # Reference kernels take tanh of a cell state of -1 .. 1 or wider, and of a narrower one something else.
        cells = {op.inputs[LSTM_CELL]: ranges[op.inputs[LSTM_CELL]] for op in lstms}
        reaching = {t: (min(span[0], -1.0), max(span[1], 1.0)) for t, span in cells.items()}
        ranges = {**ranges, **hidden, **reaching}
    for index, (low, high) in ranges.items():
        quantization = schema.QuantizationParametersT()
        middle, half = (low + high) / 2, max((high - low) / 2, _NARROWEST_RANGE)
        wide = (low, high) if high - low > _NARROWEST_RANGE else (middle - half, middle + half)
        quantization.min, quantization.max = [wide[0]], [wide[1]]
        model.subgraphs[0].tensors[index].quantization = quantization
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def quantize_int8(float_tflite: bytes, ranges: Ranges, *, io: str, per_channel: bool = True) -> bytes:
    """Full-integer int8 from a float `.tflite` and the range of every activation."""
    ranged = with_ranges(float_tflite, ranges)
    try:
        result: bytes = mlir_quantize(
            ranged,
            disable_per_channel=not per_channel,
            disable_per_channel_for_dense_layers=not per_channel,
            input_data_type=_TYPES[io],
            output_data_type=_TYPES[io],
        )
    except Exception as error:
        raise _not_quantizable(error) from error
    return restore_order(result, float_tflite)


def quantize_int16x8(
    float_tflite: bytes, samples: Sequence[Sequence[NDArray[Any]]], *, io: str, per_channel: bool = True
) -> bytes:
    """int16 activations (symmetric, from smallest and largest values) and int8 weights."""

    def feed() -> Iterator[list[NDArray[Any]]]:
        for sample in samples:
            yield [np.asarray(value) for value in sample]

    try:
        calibrator = Calibrator(float_tflite)
        result: bytes = calibrator.calibrate_and_quantize(
            feed,
            _TYPES[io],
            _TYPES[io],
            False,
            tf.int16,
            tf.int64,
            resize_input=False,
            disable_per_channel=not per_channel,
            disable_per_channel_quantization_for_dense_layers=not per_channel,
        )
    except Exception as error:
        raise _not_quantizable(error) from error
    return restore_order(result, float_tflite)


def _not_quantizable(error: Exception) -> ModelError:
    return ModelError(
        "not-quantizable",
        "The converter cannot quantize the model.",
        why=" ".join(str(error).split())[:400],
        try_="Try another --scheme; `edgeq convert --debug` shows the converter's own words.",
    )


def restore_order(quantized: bytes, float_tflite: bytes) -> bytes:
    """The quantized file with inputs and outputs in the order and under the names of the float file's signature."""
    before = flatbuffer_utils.convert_bytearray_to_object(bytearray(float_tflite)).signatureDefs[0]
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(quantized))
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    for ends in ("inputs", "outputs"):
        by_name = {entry.name: entry for entry in getattr(signature, ends)}
        ordered = [by_name[entry.name] for entry in getattr(before, ends)]
        setattr(signature, ends, ordered)
        setattr(graph, ends, [entry.tensorIndex for entry in ordered])
        for entry in ordered:
            graph.tensors[entry.tensorIndex].name = entry.name
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))
