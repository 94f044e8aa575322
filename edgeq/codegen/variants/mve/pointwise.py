"""1x1 convolutions, alone or with the depthwise layer behind them, and depthwise layers alone.

Data. Input and output are NHWC. A pair of output channels at a time: sums of a block of pixels (at most 78) on the
stack, then requantization. Alone, the bytes are scattered into NHWC, block after block, so that the output may
overlap the input. Fused, they become the planes of two channels (scratch), on which the depthwise kernel runs: the
tensor between the two layers never exists.

A depthwise layer alone gathers one channel's bytes into the plane; read whole before it is written, it may work in
place.

Obligations: those of dot, depthwise and common.tail; otherwise no Step is yielded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.registry import variant
from edgeq.codegen.step import Constant, Node, Overlap, Step
from edgeq.codegen.variants.layers import Windowed
from edgeq.codegen.variants.mve import depthwise, dot, requantize
from edgeq.codegen.variants.mve.common import (
    ACCUMULATORS,
    SUMS_BUFFER,
    Kernel,
    Tail,
    applies,
    arguments,
    driver,
    sources,
    tail_of,
)
from edgeq.codegen.variants.mve.depthwise import FRONT
from edgeq.codegen.variants.mve.planes import Depthwise, following_depthwise


@dataclass(frozen=True, slots=True, eq=False)
class _Pointwise:
    """A 1x1 convolution, stride 1: `pixels` of `depth` bytes, `channels` outputs; `tile` pixels at a time."""

    pixels: int
    depth: int
    channels: int
    weights: NDArray[np.int8]
    end: Tail
    kernel: Kernel
    tile: int
    cost: float

    @staticmethod
    def of(node: Node) -> _Pointwise | None:
        """None where the kernel does not apply or a proof fails."""
        layer = Windowed.of(node) if applies(node) else None
        if layer is None:
            return None
        shape, channels = layer.shape, layer.shape["out_c"]
        one = shape["filter_h"] == shape["filter_w"] == shape["stride_h"] == shape["stride_w"] == 1
        depth, pixels = shape["in_c"], shape["batches"] * shape["out_h"] * shape["out_w"]
        inside = shape["pad_top"] == shape["pad_left"] == 0 and shape["out_h"] == shape["in_h"]
        tile = 6 if depth == 8 else 3
        if not one or not inside or layer.depth != depth or not (depth == 8 or 16 <= depth <= 1024) or pixels < tile:
            return None
        flat = layer.constants.weights.reshape(channels, depth)
        end = tail_of(node, layer.constants, flat)
        if end is None:
            return None
        if depth == 8:
            return _Pointwise(pixels, 8, channels, dot.pack_narrow(flat), end, dot.narrow_kernel(), tile, 1.9)
        starts = dot.offsets(depth)
        packed, kernel = dot.pack(dot.vectors(flat, starts)), dot.kernel(starts, depth)
        return _Pointwise(pixels, depth, channels, packed, end, kernel, tile, dot.cost(starts, depth))

    @property
    def pair_bytes(self) -> int:
        return 2 * len(self.weights) // (self.channels + self.channels % 2)

    @property
    def macs(self) -> int:
        return self.pixels * self.depth * self.channels

    @property
    def constants(self) -> tuple[Constant, ...]:
        return (
            Constant("weights", "int8_t", self.weights, 16),
            Constant("requantize", "int32_t", self.end.parameters.reshape(-1), 16),
        )

    @property
    def block(self) -> int:
        """Pixels a block: all, or even blocks of whole tiles."""
        count = -(-self.pixels // ACCUMULATORS)
        return self.pixels if count == 1 else -(-self.pixels // count // self.tile) * self.tile

    def fits(self, block: int) -> bool:
        """Whether blocks of so many pixels are within the buffer and none is smaller than a tile."""
        last = (self.pixels - 1) % block + 1
        return block <= ACCUMULATORS and last >= self.tile

    def overlap(self, block: int) -> int:
        """How far before the input an output must start that is written block after block (step.Overlap)."""
        return max(min(p + block, self.pixels) * self.channels - p * self.depth for p in range(0, self.pixels, block))

    def sums(self, block: int) -> str:
        """C: the sums of pixels p .. p + n of the channels in `pair`."""
        lines = f"            {self.kernel.name}(x + p * {self.depth}, pair, sums, n / {self.tile});\n"
        sizes = {min(block, self.pixels - p) % self.tile for p in range(0, self.pixels, block)}
        if sizes != {0}:
            lines += f"""            if (n % {self.tile} != 0) {{
                const int32_t last = n - {self.tile};
                {self.kernel.name}(x + (p + last) * {self.depth}, pair, sums + last, 1);
            }}
"""
        return lines


@variant("CONV_2D")
def pointwise(node: Node) -> Iterator[Step]:
    """1x1 alone."""
    p = _Pointwise.of(node)
    if p is None or not p.fits(p.block):
        return
    source, result = node.input(0), node.output()
    block = p.block
    scatter = requantize.scatter(p.end, requantize.every(p.channels))
    second = f"{scatter.name}(sums + {ACCUMULATORS}, y + c + 1, requantize + 4 * c + 4, n);"
    if p.channels % 2:
        second = f"if (c + 1 < {p.channels}) {{\n                {second}\n            }}"
    body = f"""{SUMS_BUFFER}    for (int32_t p = 0; p < {p.pixels}; p += {block}, y += {block * p.channels}) {{
        const int32_t n = {p.pixels} - p < {block} ? {p.pixels} - p : {block};
        const int8_t *pair = weights;
        for (int32_t c = 0; c < {p.channels}; c += 2, pair += {p.pair_bytes}) {{
{p.sums(block)}            {scatter.name}(sums, y + c, requantize + 4 * c, n);
            {second}
        }}
    }}
"""
    name = f"edgeq_mve_conv_1x1_{p.pixels}_{p.depth}_{p.channels}_{p.end.name}"
    call = driver(
        name,
        "const int8_t *x, const int8_t *weights, const int32_t *requantize, int8_t *y",
        f"1x1 convolution of {p.pixels} pixels, {p.depth} to {p.channels} channels, {block} pixels by two channels.",
        body,
        [p.kernel, scatter],
    )
    yield Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel=name.removeprefix("edgeq_"),
        method=f"MVE, pairs of channels, {p.end.name} requantization",
        calls=(f"{name}({{t{source.index}}}, {arguments(*p.constants)}, {{t{result.index}}});",),
        inputs=(source.index,),
        outputs=(result.index,),
        constants=p.constants,
        overlaps=(Overlap(source.index, result.index, p.overlap(block)),),
        emitted=sources(p.kernel, scatter, call),
        macs=p.macs,
        cost=p.channels * (p.pixels * (p.cost + 0.9 + p.end.cost) + 45 * -(-p.pixels // block)),
        code_bytes=400 + 3 * p.depth,
    )


@variant("DEPTHWISE_CONV_2D")
def depthwise_alone(node: Node) -> Iterator[Step]:
    """Depthwise, gathering its planes from NHWC."""
    d = Depthwise.of(node)
    if d is None:
        return
    source, result = node.input(0), node.output()
    f = d.filter
    gather = depthwise.gather_kernel(d.channels)
    load, buffer = f"        {gather.name}(x + c, planes + {FRONT}, {f.in_h * f.in_w});\n", ""
    if d.fill:
        buffer = f"    int8_t *const block = planes + {d.plane_bytes};\n"
        load = f"""        for (int32_t r = 0; r < {f.in_h}; r += {d.block_rows}) {{
            const int32_t rows = {f.in_h} - r < {d.block_rows} ? {f.in_h} - r : {d.block_rows};
            {gather.name}(x + r * {f.in_w * d.channels} + c, block + {FRONT}, rows * {f.in_w});
            {d.fill.name}(block + {FRONT}, planes + 4 * (r + {f.pad_top}), rows, {d.zero_point});
        }}
"""
    body = f"""{SUMS_BUFFER}{buffer}{d.clear(1)}    for (int32_t c = 0; c < {d.channels}; c++) {{
{load}{d.finish("planes", "c")}    }}
"""
    name = f"edgeq_mve_depthwise_{d.name}"
    call = driver(
        name,
        "const int8_t *x, const int8_t *taps, const int32_t *taps_requantize, int8_t *y, int8_t *planes",
        f"Depthwise {f.filter_h}x{f.filter_w}, stride {f.stride}, of {f.in_h}x{f.in_w}x{d.channels}, by channels.",
        body,
        [*d.kernels, gather],
    )
    same = (f.in_h, f.in_w) == (f.out_h, f.out_w)
    yield Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel=name.removeprefix("edgeq_"),
        method=f"MVE, {d.layout} of one channel, one load a window, {d.end.name} requantization",
        calls=(f"{name}({{t{source.index}}}, {arguments(*d.constants)}, {{t{result.index}}}, {{scratch}});",),
        inputs=(source.index,),
        outputs=(result.index,),
        constants=d.constants,
        scratch_bytes=d.plane_bytes + d.block_bytes,
        overlaps=(Overlap(source.index, result.index, 0, exact=True),) if same else (),
        emitted=sources(*d.kernels, gather, call),
        macs=d.macs,
        cost=d.cost + d.channels * f.in_h * f.in_w * 0.55,
        code_bytes=600,
    )


def _planes(d: Depthwise, run: Kernel) -> str:
    """C: requantize the sums of n pixels from p on, of both channels, into their planes."""
    lines = ""
    for i in range(2):
        sums = f"sums + {ACCUMULATORS}" if i else "sums"
        plane = f"planes + {i * d.plane_bytes}"
        to = f"block + {FRONT}" if d.fill else f"{plane} + {FRONT} + p"
        lines += f"            {run.name}({sums}, {to}, requantize + 4 * (c + {i}), (n + 15) / 16);\n"
        if d.fill:
            w = d.filter.in_w
            row = f"{plane} + 4 * (p / {w} + {d.filter.pad_top})"
            lines += f"            {d.fill.name}(block + {FRONT}, {row}, n / {w}, {d.zero_point});\n"
    return lines


@variant("CONV_2D")
def pointwise_depthwise(node: Node) -> Iterator[Step]:
    """1x1 and the depthwise layer behind it."""
    follower = following_depthwise(node)
    p = None if follower is None else _Pointwise.of(node)
    d = None if p is None or follower is None else Depthwise.of(follower)
    if p is None or d is None or follower is None or p.channels % 2:
        return
    f, run = d.filter, requantize.run_of_bytes(p.end)
    block = d.block_rows * f.in_w if d.fill else p.block
    if not p.fits(block):
        return
    buffer = f"    int8_t *const block = planes + {2 * d.plane_bytes};\n" if d.fill else ""
    after = "" if d.fill else "".join(
        f"        memset(planes + {i * d.plane_bytes + FRONT + p.pixels}, {d.zero_point}, 15);\n" for i in range(2)
    )  # fmt: skip
    body = f"""{SUMS_BUFFER}{buffer}{d.clear(2)}    for (int32_t c = 0; c < {p.channels}; c += 2) {{
        const int8_t *const pair = weights + c * {p.pair_bytes // 2};
        for (int32_t p = 0; p < {p.pixels}; p += {block}) {{
            const int32_t n = {p.pixels} - p < {block} ? {p.pixels} - p : {block};
{p.sums(block)}{_planes(d, run)}        }}
{after}        for (int32_t i = 0; i < 2; i++) {{
{d.finish(f"planes + i * {d.plane_bytes}", "(c + i)")}        }}
    }}
"""
    name = f"edgeq_mve_pointwise_{p.depth}_{p.end.name}_depthwise_{d.name}"
    call = driver(
        name,
        "const int8_t *x, const int8_t *weights, const int32_t *requantize, const int8_t *taps, "
        "const int32_t *taps_requantize, int8_t *y, int8_t *planes",
        f"1x1 convolution {f.in_h}x{f.in_w}x{p.depth} to {p.channels} channels, then depthwise "
        f"{f.filter_h}x{f.filter_w}, stride {f.stride}:\n * two channels at a time; only their planes exist.",
        body,
        [p.kernel, run, *d.kernels],
    )
    source, result = node.input(0), follower.output()
    constants = (*p.constants, *d.constants)
    yield Step(
        operator=node.operator.index,
        name="CONV_2D + DEPTHWISE_CONV_2D",
        kernel=name.removeprefix("edgeq_"),
        method=f"MVE, fused, pairs of channels, {d.layout}; {p.end.name} and {d.end.name} requantization",
        calls=(f"{name}({{t{source.index}}}, {arguments(*constants)}, {{t{result.index}}}, {{scratch}});",),
        inputs=(source.index,),
        outputs=(result.index,),
        constants=constants,
        scratch_bytes=2 * d.plane_bytes + d.block_bytes,
        emitted=sources(p.kernel, run, *d.kernels, call),
        macs=p.macs + d.macs,
        cost=p.channels * (p.pixels * (p.cost + 0.6 + p.end.cost) + 45 * -(-p.pixels // block)) + d.cost,
        code_bytes=700 + 3 * p.depth,
        covers=2,
    )
