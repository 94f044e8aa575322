"""The one intermediate representation, the .tflite reader and writer, and the verifier."""

from edgeq.graph.ir import Graph, Operator, Quantization, Signature, Tensor, TensorType
from edgeq.graph.reader import read, read_bytes, read_file
from edgeq.graph.verifier import verify
from edgeq.graph.writer import write_bytes

__all__ = [
    "Graph",
    "Operator",
    "Quantization",
    "Signature",
    "Tensor",
    "TensorType",
    "read",
    "read_bytes",
    "read_file",
    "verify",
    "write_bytes",
]
