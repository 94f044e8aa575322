"""Quantization-aware training for Keras 3: an ordinary Keras model that computes as its `.tflite` will.

Imports Keras and TensorFlow: only where the user trains, and in the child process of a conversion.
"""

from edgeq.quantization.aware.layers import FakeQuantize, QuantizedWeights
from edgeq.quantization.aware.rewrite import is_quantize_aware, quantize_aware

__all__ = ["FakeQuantize", "QuantizedWeights", "is_quantize_aware", "quantize_aware"]
