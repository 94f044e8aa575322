"""A depthwise layer from one channel's bytes to NHWC: plane, sums, scatter; the second half of fused layers too.

Per channel: blocks of bytes in pixel order (`block_pixels` at a time) go into the plane, then `finish` computes and
scatters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.lower.common import zero_point
from edgeq.codegen.step import Constant, Node
from edgeq.codegen.variants.layers import Windowed
from edgeq.codegen.variants.mve import depthwise, requantize
from edgeq.codegen.variants.mve.common import ACCUMULATORS, SUMS, Kernel, Tail, applies, tail_of
from edgeq.codegen.variants.mve.depthwise import FRONT, Filter


def _strip_places(f: Filter, channels: int) -> requantize.Places | None:
    """Where a strip's outputs go in NHWC: blocks of 2 x 2 (stride 1) or a column; None where offsets exceed 16 bits."""
    row = f.out_w * channels
    if f.stride == 1:
        offsets = tuple((i // 4 * 2 + i // 2 % 2) * row + i % 2 * channels for i in range(8))
        step, apart = 4 * row, 2 * channels
    else:
        offsets, step, apart = tuple(i * row for i in range(8)), 8 * row, channels
    if max(offsets) >= 1 << 16 or f.strip_outputs > SUMS:
        return None
    label = f"strips_{f.out_h}_{f.out_w}_{f.stride}_{channels}"
    outputs = 2 * f.out_h if f.stride == 1 else f.out_h
    return requantize.Places(label, offsets, step, outputs, f.strip_outputs, apart)


@dataclass(frozen=True, slots=True, eq=False)
class Depthwise:
    """A depthwise layer that the kernels can do: geometry, packed constants, kernels.

    fill: only for strips. last: the scatter of the last strip where only its left outputs are wanted.
    """

    filter: Filter
    channels: int
    zero_point: int
    end: Tail
    weights: NDArray[np.int8]
    scatter: Kernel
    compute: Kernel
    fill: Kernel | None
    last: Kernel | None = None

    @staticmethod
    def of(node: Node) -> Depthwise | None:
        """None where the kernels do not apply or a proof fails."""
        layer = Windowed.of(node) if applies(node) else None
        f = None if layer is None else Filter.of(layer.shape)
        if layer is None or f is None or not (f.rows or f.strips) or layer.depth >= 4096:
            return None
        shape, constants, channels = layer.shape, layer.constants, layer.depth
        taps = constants.weights.reshape(shape["filter_h"], shape["filter_w"], channels)
        by_channel = np.ascontiguousarray(taps.transpose(2, 0, 1))
        flat = by_channel.reshape(channels, -1)
        zero = zero_point(node.input(0))
        end = tail_of(node, constants, flat)
        if end is None:
            return None
        if f.rows:
            packed = depthwise.rows_weights(f, by_channel, zero)
            scatter = requantize.scatter(end, requantize.every(channels))
            return Depthwise(f, channels, zero, end, packed, scatter, depthwise.rows_kernel(f), None)
        places = _strip_places(f, channels)
        if places is None:
            return None
        packed, scatter = depthwise.strips_weights(f, by_channel), requantize.scatter(end, places)
        last = None
        if f.stride == 1 and f.out_w % 2:
            left = replace(places, label=f"{places.label}_left", lanes=(True, False) * 4)
            last = requantize.scatter(end, left)
        compute, fill = depthwise.strips_kernel(f), depthwise.fill_kernel(f)
        return Depthwise(f, channels, zero, end, packed, scatter, compute, fill, last)

    @property
    def name(self) -> str:
        """Everything that a driver depends on, for its name."""
        f = self.filter
        return (
            f"{f.in_h}x{f.in_w}x{self.channels}_{f.filter_h}x{f.filter_w}_{f.stride}_{f.pad_top}{f.pad_left}"
            f"_{self.zero_point + 128}_{self.end.name}"
        )

    @property
    def layout(self) -> str:
        return "strips" if self.fill else "rows"

    @property
    def macs(self) -> int:
        f = self.filter
        return f.out_h * f.out_w * self.channels * f.filter_h * f.filter_w

    @property
    def kernels(self) -> list[Kernel]:
        return [k for k in (self.scatter, self.compute, self.fill, self.last) if k]

    @property
    def constants(self) -> tuple[Constant, ...]:
        return (
            Constant("taps", "int8_t", self.weights, 16),
            Constant("taps_requantize", "int32_t", self.end.parameters.reshape(-1), 16),
        )

    @property
    def plane_bytes(self) -> int:
        return self.filter.strips_bytes if self.fill else self.filter.plane_bytes

    @property
    def block_rows(self) -> int:
        """Rows of the input that are filled at a time: all, or what a block of accumulators holds."""
        return max(1, ACCUMULATORS // self.filter.in_w) if self.fill else self.filter.in_h

    @property
    def block_bytes(self) -> int:
        """A buffer for rows before they go into strips."""
        return -(-(FRONT + self.block_rows * self.filter.in_w + 32) // 16) * 16 if self.fill else 0

    def clear(self, planes: int) -> str:
        """C: set the padding, once a layer. `planes` is the pointer, so many planes follow."""
        return f"    memset(planes, {self.zero_point}, {planes * self.plane_bytes});\n"

    def finish(self, plane: str, channel: str) -> str:
        """C: sums of one channel's plane, scattered. Needs `taps`, `taps_requantize`, `sums`, `y`."""
        f, weights_bytes = self.filter, len(self.weights) // self.channels
        taps = f"taps + {channel} * {weights_bytes}"
        parameters = f"taps_requantize + 4 * {channel}"
        if self.fill:
            pitch, group = 4 * f.strip_rows, max(1, SUMS // f.strip_outputs)
            across = 2 if f.stride == 1 else 1
            whole = f.strip_count - (1 if self.last else 0)
            right = ""
            if self.last:
                right = f"""            {self.compute.name}({plane} + {whole * pitch}, {taps}, sums, 1);
            {self.last.name}(sums, y + {whole * across * self.channels} + {channel}, {parameters}, 1);
"""
            return f"""            for (int32_t s = 0; s < {whole}; s += {group}) {{
                const int32_t strips = {whole} - s < {group} ? {whole} - s : {group};
                {self.compute.name}({plane} + s * {pitch}, {taps}, sums, strips);
                {self.scatter.name}(sums, y + s * {across * self.channels} + {channel}, {parameters}, strips);
            }}
{right}"""
        start = FRONT - f.pad_top * f.in_w - f.pad_left
        rows = SUMS // f.out_w
        if f.out_h <= rows:
            return f"""            {self.compute.name}({plane} + {start}, {taps}, sums, {f.out_h});
            {self.scatter.name}(sums, y + {channel}, {parameters}, {f.out_h * f.out_w});
"""
        return f"""            for (int32_t r = 0; r < {f.out_h}; r += {rows}) {{
                const int32_t rows = {f.out_h} - r < {rows} ? {f.out_h} - r : {rows};
                {self.compute.name}({plane} + {start} + r * {f.stride * f.in_w}, {taps}, sums, rows);
                int8_t *const at = y + r * {f.out_w * self.channels} + {channel};
                {self.scatter.name}(sums, at, {parameters}, rows * {f.out_w});
            }}
"""

    @property
    def cost(self) -> float:
        """Instructions of `finish` and of filling planes, all channels."""
        f = self.filter
        outputs = f.out_h * f.out_w
        per_output = 0.9 + self.end.cost + (2.9 if not self.fill else 2.4 if f.stride == 1 else 2.6)
        fill = f.in_h * (8 + f.strip_count / 2) if self.fill else 0
        return self.channels * (outputs * per_output + fill + 50)


def following_depthwise(node: Node) -> Node | None:
    """The depthwise layer that alone reads this operator's output and follows at once."""
    operators = node.graph.operators
    position = next(i for i, op in enumerate(operators) if op is node.operator)
    between = node.operator.outputs[0]
    if position + 1 == len(operators) or between in node.graph.outputs:
        return None
    after = operators[position + 1]
    if after.name != "DEPTHWISE_CONV_2D" or after.inputs[0] != between or node.following(between) != [after]:
        return None
    return Node(node.graph, after, node.target, node.memo)
