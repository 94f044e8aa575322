"""Keras model + data → `.tflite` and a report on it. TensorFlow is imported by the child process alone."""

from edgeq.quantization.conversion import SCHEMES, convert
from edgeq.quantization.data import Dataset, load_data
from edgeq.quantization.report import ConversionReport, OutputError, Quality, TensorIo, Warned
from edgeq.quantization.search import SearchGoal

__all__ = [
    "SCHEMES",
    "ConversionReport",
    "Dataset",
    "OutputError",
    "Quality",
    "SearchGoal",
    "TensorIo",
    "Warned",
    "convert",
    "load_data",
]
