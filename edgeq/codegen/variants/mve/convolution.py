"""Convolutions with filters larger than 1x1, or with strides, by padded rows, without im2col.

Data. The input rows that a block of output rows needs are copied into scratch, padded by the zero point (three
instructions for 16 bytes); rows that two blocks share are moved, not read again, so the output may overlap the input.

Loop. Per block and output channel: sums of all windows (window.kernel), or of two channels (dot.kernel) where the
channels do not fill vectors or no columns are shared; then a scatter into NHWC.

Obligations: batch 1, no dilation, no groups; those of the kernels and of common.tail; otherwise no Step is yielded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.lower.common import zero_point
from edgeq.codegen.registry import variant
from edgeq.codegen.step import Constant, Node, Overlap, Step
from edgeq.codegen.variants.layers import Windowed
from edgeq.codegen.variants.mve import dot, requantize
from edgeq.codegen.variants.mve.common import (
    ACCUMULATORS,
    SUMS,
    SUMS_BUFFER,
    Kernel,
    Tail,
    applies,
    arguments,
    assembly,
    driver,
    sources,
    tail_of,
)
from edgeq.codegen.variants.mve.window import Window
from edgeq.codegen.variants.mve.window import kernel as window_kernel
from edgeq.codegen.variants.mve.window import pack as window_pack


def copy_kernel() -> Kernel:
    """(from, to, count): bytes in ascending order."""
    lines = ["dlstp.8 lr, r2", "1:", "vldrb.8 q0, [r0], #16", "vstrb.8 q0, [r1], #16", "letp lr, 1b"]
    return assembly("edgeq_mve_copy", "const int8_t *from, int8_t *to, int32_t count", "Copy bytes.", lines)


@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """A convolution that the kernels can do: geometry, weights [out_c, filter_h, filter_w, in_c], requantization."""

    shape: Mapping[str, int]
    weights: NDArray[np.int8]
    zero_point: int
    end: Tail

    @staticmethod
    def of(node: Node) -> Convolution | None:
        """None where no kernel applies or a proof fails."""
        layer = Windowed.of(node) if applies(node) else None
        if layer is None:
            return None
        shape, channels = layer.shape, layer.shape["out_c"]
        if not layer.plain or not 3 <= shape["out_w"] <= ACCUMULATORS or channels % 2 or channels > 4096:
            return None
        constants = layer.constants
        end = tail_of(node, constants, constants.weights.reshape(channels, -1))
        return None if end is None else Convolution(shape, constants.weights, zero_point(node.input(0)), end)

    @property
    def pitch(self) -> int:
        """Bytes of a padded row in scratch."""
        s = self.shape
        width = max((s["out_w"] - 1) * s["stride_w"] + s["filter_w"], s["pad_left"] + s["in_w"])
        return -(-width * s["in_c"] // 16) * 16

    @property
    def text(self) -> str:
        """Everything that an emitted driver depends on, for its name."""
        s = self.shape
        return (
            f"{s['in_h']}x{s['in_w']}x{s['in_c']}_{s['out_c']}_{s['filter_h']}x{s['filter_w']}"
            f"_{s['stride_h']}{s['stride_w']}_{s['pad_top']}{s['pad_left']}_{self.zero_point + 128}_{self.end.name}"
        )

    @property
    def macs(self) -> int:
        return self.shape["out_h"] * self.shape["out_w"] * self.weights.size

    @property
    def parameters(self) -> Constant:
        return Constant("requantize", "int32_t", self.end.parameters.reshape(-1), 16)

    def overlap(self, rows: int) -> int:
        """How far before the input the output must start (step.Overlap), `rows` rows of outputs at a time."""
        s = self.shape
        worst = -s["in_h"] * s["in_w"] * s["in_c"]
        for done in range(rows, s["out_h"], rows):
            loaded = (done - 1) * s["stride_h"] + s["filter_h"] - s["pad_top"]
            if loaded < s["in_h"]:
                worst = max(worst, done * s["out_w"] * s["out_c"] - max(loaded, 0) * s["in_w"] * s["in_c"])
        return worst


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """How a block's sums are made: kernel, packed weights, instructions a sum, rows of outputs a block, C."""

    kernel: Kernel
    packed: NDArray[np.int8]
    cost: float
    block: int
    text: str
    method: str


def _by_window(conv: Convolution, window: Window, scatter: Kernel) -> _Sums:
    """One output channel at a time, columns shared by neighbouring outputs."""
    s = conv.shape
    kernel, per_row = window_kernel(window), s["out_w"] * s["out_c"]
    text = f"""        for (int32_t c = 0; c < {s["out_c"]}; c++) {{
            {kernel.name}(rows, weights + c * {conv.weights[0].size}, sums, n);
            {scatter.name}(sums, y + r * {per_row} + c, requantize + 4 * c, n * {s["out_w"]});
        }}
"""
    block = max(1, min(s["out_h"], SUMS // s["out_w"]))
    packed = window_pack(window, conv.weights)
    return _Sums(kernel, packed, window.cost, block, text, "columns shared by neighbouring outputs")


def _by_pixel(conv: Convolution, scatter: Kernel) -> _Sums | None:
    """Two output channels at a time, every pixel for itself; None where offsets are out of reach."""
    s = conv.shape
    out_w, out_c, run, step = s["out_w"], s["out_c"], s["filter_w"] * s["in_c"], s["stride_w"] * s["in_c"]
    inside = dot.offsets(run) if run >= 16 else (0,)
    starts = tuple(ky * conv.pitch + o for ky in range(s["filter_h"]) for o in inside)
    if starts[-1] > 4000 or step > 1024:
        return None
    kernel = dot.kernel(starts, step)
    packed = dot.pack(dot.vectors(conv.weights.reshape(out_c, s["filter_h"], run), inside).reshape(out_c, -1, 16))
    row, last = s["stride_h"] * conv.pitch, (out_w - 3) * step
    rest = f"                {kernel.name}(row + {last}, pair, to + {out_w - 3}, 1);\n" if out_w % 3 else ""
    text = f"""        for (int32_t c = 0; c < {out_c}; c += 2) {{
            const int8_t *const pair = weights + c * {len(packed) // out_c};
            int8_t *const at = y + r * {out_w * out_c} + c;
            for (int32_t i = 0; i < n; i++) {{
                const int8_t *const row = rows + i * {row};
                int32_t *const to = sums + i * {out_w};
                {kernel.name}(row, pair, to, {out_w // 3});
{rest}            }}
            {scatter.name}(sums, at, requantize + 4 * c, n * {out_w});
            {scatter.name}(sums + {ACCUMULATORS}, at + 1, requantize + 4 * c + 4, n * {out_w});
        }}
"""
    block = max(1, min(s["out_h"], ACCUMULATORS // out_w))
    return _Sums(kernel, packed, dot.cost(starts, step), block, text, "pairs of channels")


@variant("CONV_2D")
def rows(node: Node) -> Iterator[Step]:
    """Padded rows in scratch; see the module."""
    conv = Convolution.of(node)
    if conv is None:
        return
    s = conv.shape
    if s["filter_h"] == s["filter_w"] == s["stride_h"] == s["stride_w"] == 1:
        return
    scatter = requantize.scatter(conv.end, requantize.every(s["out_c"]))
    window = Window(s["filter_h"], s["filter_w"], s["in_c"], s["stride_w"], s["stride_h"], conv.pitch, s["out_w"])
    shared = window.applies and s["filter_w"] > s["stride_w"]
    sums = _by_window(conv, window, scatter) if shared else _by_pixel(conv, scatter)
    if sums is not None:
        yield _step(node, conv, sums, scatter)


def _body(conv: Convolution, sums: _Sums, copy: Kernel, held: int) -> str:
    """The driver's C: load what a block needs, compute it, keep what the next one shares."""
    s = conv.shape
    left, row_bytes, kept = s["pad_left"] * s["in_c"], s["in_w"] * s["in_c"], max(0, s["filter_h"] - s["stride_h"])
    keep = f"        {copy.name}(rows + n * {s['stride_h'] * conv.pitch}, rows, {kept * conv.pitch});\n" if kept else ""
    return f"""{SUMS_BUFFER}    int32_t have = 0;
    memset(rows, {conv.zero_point}, {held * conv.pitch + 16});
    for (int32_t r = 0; r < {s["out_h"]}; r += {sums.block}) {{
        const int32_t n = {s["out_h"]} - r < {sums.block} ? {s["out_h"]} - r : {sums.block};
        for (; have < (n - 1) * {s["stride_h"]} + {s["filter_h"]}; have++) {{
            const int32_t from = r * {s["stride_h"]} - {s["pad_top"]} + have;
            int8_t *const to = rows + have * {conv.pitch} + {left};
            if (from < 0 || from >= {s["in_h"]}) {{
                memset(to, {conv.zero_point}, {row_bytes});
            }} else {{
                {copy.name}(x + from * {row_bytes}, to, {row_bytes});
            }}
        }}
{sums.text}{keep}        have = {kept};
    }}
"""


def _step(node: Node, conv: Convolution, sums: _Sums, scatter: Kernel) -> Step:
    s = conv.shape
    source, result = node.input(0), node.output()
    copy = copy_kernel()
    held = (sums.block - 1) * s["stride_h"] + s["filter_h"]
    name = f"edgeq_mve_conv_{conv.text}"
    call = driver(
        name,
        "const int8_t *x, const int8_t *weights, const int32_t *requantize, int8_t *y, int8_t *rows",
        f"Convolution by padded rows, {sums.block} rows of outputs at a time; {sums.method}.",
        _body(conv, sums, copy, held),
        [sums.kernel, scatter, copy],
    )
    constants = (Constant("weights", "int8_t", sums.packed, 16), conv.parameters)
    outputs, blocks = s["out_h"] * s["out_w"] * s["out_c"], -(-s["out_h"] // sums.block)
    return Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel=name.removeprefix("edgeq_"),
        method=f"MVE, padded rows, {sums.method}, {conv.end.name} requantization",
        calls=(f"{name}({{t{source.index}}}, {arguments(*constants)}, {{t{result.index}}}, {{scratch}});",),
        inputs=(source.index,),
        outputs=(result.index,),
        constants=constants,
        scratch_bytes=held * conv.pitch + 16,
        overlaps=(Overlap(source.index, result.index, conv.overlap(sums.block)),),
        emitted=sources(sums.kernel, scatter, copy, call),
        macs=conv.macs,
        cost=outputs * (sums.cost + 0.9 + conv.end.cost) + blocks * s["out_c"] * 80 + source.elements / 4,
        code_bytes=700 + int(32 * sums.cost),
    )
