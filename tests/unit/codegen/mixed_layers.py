"""Layers whose channels need different requantizations, for testing that each takes one that is proven for it."""

from __future__ import annotations

import numpy as np
from single import INT8, INT32, T, model

from edgeq.graph import Graph

GENERAL, STEPS = 0.3, 0.7
"""Scales from accumulators to results: exponent 1, too small for any short form; exponent 0, no form in assembly."""


def mixed(kind: str, ratios: dict[int, float], activation: str, zero: int) -> Graph:
    """A layer some of whose channels have these ratios; the others' are ordinary."""
    generator = np.random.default_rng(len(ratios))
    n, c = 48 if kind == "dense" else 16, 16
    sizes = {"conv": (n, 3, 3, c), "depthwise": (1, 3, 3, n), "dense": (n, 64)}
    scales = generator.uniform(0.003, 0.006, n) if kind != "conv" else generator.uniform(0.001, 0.002, n)
    for channel, ratio in ratios.items():
        scales[channel] = ratio
    bias = np.where(scales < GENERAL, generator.integers(-2000, 2000, n), generator.integers(-60, 60, n))
    axis = 3 if kind == "depthwise" else 0
    inputs = [
        T((3, 64) if kind == "dense" else (1, 6, 7, c if kind == "conv" else n), INT8, 0.05, -9),
        T(sizes[kind], INT8, scales, data=generator.integers(-127, 128, sizes[kind]), axis=axis),
        T((n,), INT32, 0.05 * scales, data=bias),
    ]
    options = {"fused_activation_function": activation}
    if kind == "dense":
        return model("FULLY_CONNECTED", inputs, [T((3, n), INT8, 0.05, zero)], options, 4)
    options |= {"padding": "SAME", "stride_h": 1, "stride_w": 1, "dilation_h_factor": 1, "dilation_w_factor": 1}
    result = [T((1, 6, 7, n), INT8, 0.05, zero)]
    if kind == "conv":
        return model("CONV_2D", inputs, result, options, 3)
    return model("DEPTHWISE_CONV_2D", inputs, result, options | {"depth_multiplier": 1}, 3)
