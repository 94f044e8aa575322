"""What the kernels of every core start from: int8 convolutions and dense layers with constant weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.arithmetic import Ints
from edgeq.codegen.lower.common import activation_range, zero_point
from edgeq.codegen.lower.convolution import Weights, accumulators_fit, geometry, weights_of
from edgeq.codegen.proofs import Requantization, accumulator_bounds
from edgeq.codegen.step import Node, Unsupported


@dataclass(frozen=True, slots=True, eq=False)
class Windowed:
    """CONV_2D or DEPTHWISE_CONV_2D: sizes as the portable kernel names them, and the constants."""

    shape: dict[str, int]
    constants: Weights
    depth: int

    @staticmethod
    def of(node: Node) -> Windowed | None:
        """None where the portable kernel does not apply either. depth: the last dimension of the weights."""
        try:
            first, filter_h, filter_w, last = node.input(1).shape
            channels = last if node.operator.name == "DEPTHWISE_CONV_2D" else first
            return Windowed(geometry(node, filter_h, filter_w), weights_of(node, channels), last)
        except (Unsupported, ValueError):
            return None

    @property
    def plain(self) -> bool:
        """One image, no dilation; a convolution of all channels, a depthwise one with as many as it reads."""
        s = self.shape
        return s["dilation_h"] == s["dilation_w"] == s["batches"] == 1 and self.depth == s["in_c"]

    @property
    def square(self) -> bool:
        """3x3 with equal strides of 1 or 2."""
        s = self.shape
        return s["stride_h"] == s["stride_w"] <= 2 and s["filter_h"] == s["filter_w"] == 3


def folded_bias(node: Node, bias: Ints, flat: NDArray[np.int8]) -> Ints:
    """The bias with the input's zero point in it: bias - zero point * sum(weights); flat: [channels, taps]."""
    return np.asarray(bias - zero_point(node.input(0)) * flat.sum(axis=1, dtype=np.int64))


def requantization(node: Node, constants: Weights, flat: NDArray[np.int8]) -> Requantization | None:
    """The exact function of a convolution-like operator with weights [channels, taps].

    None where it shifts left, or where the activation leaves a single result.
    """
    return node.once(("requantization", flat.shape), lambda: _requantization(node, constants, flat))


def _requantization(node: Node, constants: Weights, flat: NDArray[np.int8]) -> Requantization | None:
    source, result = node.input(0), node.output()
    if not accumulators_fit(flat, constants.bias, source) or bool((constants.shifts > 0).any()):
        return None
    low, high = accumulator_bounds(flat, constants.bias, zero_point(source))
    minimum, maximum = activation_range(node, result)
    if minimum == maximum:
        return None
    return Requantization(
        multiplier=constants.multipliers.astype(np.int64),
        exponent=-constants.shifts.astype(np.int64),
        zero_point=zero_point(result),
        minimum=minimum,
        maximum=maximum,
        low=low,
        high=high,
    )
