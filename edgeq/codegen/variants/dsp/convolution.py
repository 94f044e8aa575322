"""CONV_2D by the gemm micro-kernel, without im2col: two pixels are expanded at a time, straight from the input's rows.

Data. A kernel row of a pixel is a run of filter_w * in_c bytes, contiguous in NHWC. Without padding runs are read where
the tensor lies. With padding the rows that a row of outputs needs lie in scratch, padded by the zero point: a ring of
filter_h rows, or the whole padded input where it is small and pairs of pixels must cross rows (an odd output width).

Loop: for two pixels expand filter_h runs into [k pair][pixel] words, then the micro-kernel yields all channels.
An odd last pixel is its own partner. Both pixels are read before either is written, so outputs may overlap inputs.

Obligations: no dilation, no groups, batch 1, channels a multiple of 4, and the micro-kernel's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.arithmetic import Ints
from edgeq.codegen.lower.common import zero_point
from edgeq.codegen.lower.convolution import weights_of, window_overlap
from edgeq.codegen.registry import variant
from edgeq.codegen.step import Constant, Node, Overlap, Source, Step
from edgeq.codegen.variants.dsp import gemm
from edgeq.codegen.variants.dsp.common import Ending, applies, endings
from edgeq.codegen.variants.layers import Windowed, folded_bias, requantization

_WHOLE_BYTES = 2048
"""The largest padded input that is copied whole so that pairs may cross rows."""

_SHIFTS = (5, 4, 6)


@dataclass(frozen=True, slots=True)
class _Window:
    """Where runs are read: `rows` rows of `stride` bytes in scratch (0: in the tensor itself)."""

    shape: dict[str, int]
    run: int
    rows: int
    stride: int

    @property
    def words(self) -> int:
        """Words of two pixels' expanded activations."""
        return 2 * self.shape["filter_h"] * gemm.expanded(self.run)

    @property
    def scratch_bytes(self) -> int:
        return self.words * 4 + (self.rows * self.stride + 4 if self.rows else 0)


def _window(shape: dict[str, int]) -> _Window:
    run = shape["filter_w"] * shape["in_c"]
    width = (shape["out_w"] - 1) * shape["stride_w"] + shape["filter_w"]
    height = (shape["out_h"] - 1) * shape["stride_h"] + shape["filter_h"]
    inside = shape["pad_top"] == 0 == shape["pad_left"] and height <= shape["in_h"] and width <= shape["in_w"]
    if inside and shape["in_c"] % 4 == 0:
        return _Window(shape, run, 0, shape["in_w"] * shape["in_c"])
    stride = -(-max(width, shape["in_w"] + shape["pad_left"]) * shape["in_c"] // 4) * 4
    whole = shape["out_w"] % 2 == 1 and height * stride <= _WHOLE_BYTES
    return _Window(shape, run, height if whole else shape["filter_h"], stride)


def _before_bytes(node: Node, window: _Window) -> int:
    """How many bytes before the input the output must start (for Overlap): nothing unread may be written over.

    Rows in scratch are read from the tensor once, before the output row that needs them first is written.
    """
    shape = window.shape
    if window.rows == 0:
        return window_overlap(node, shape) + shape["out_c"]
    if window.rows > shape["filter_h"]:
        return shape["out_h"] * shape["out_w"] * shape["out_c"] - shape["in_h"] * shape["in_w"] * shape["in_c"]
    written = [(oy + 1) * shape["out_w"] * shape["out_c"] for oy in range(shape["out_h"])]
    loaded = [oy * shape["stride_h"] + shape["filter_h"] - shape["pad_top"] for oy in range(shape["out_h"])]
    row_bytes = shape["in_w"] * shape["in_c"]
    behind = (w - max(0, n) * row_bytes for w, n in zip(written, loaded, strict=True) if n < shape["in_h"])
    return max(behind, default=written[-1] - shape["in_h"] * row_bytes)


@variant("CONV_2D")
def conv_2d(node: Node) -> Iterator[Step]:
    """Any filter and stride; see the module."""
    layer = Windowed.of(node) if applies(node) else None
    if layer is None:
        return
    out_c, constants = layer.shape["out_c"], layer.constants
    flat = constants.weights.reshape(out_c, -1)
    exact = requantization(node, constants, flat)
    if not layer.plain or out_c % 4 or exact is None:
        return
    folded = folded_bias(node, constants.bias, flat)
    up = np.where(np.arange(out_c) % 2 == 1, 8, 0)
    for ending in endings(exact, flat.astype(np.int64), folded, up=up, preferred=_SHIFTS, group=4):
        yield _step(node, layer.shape, flat, folded, ending)


def _step(node: Node, shape: dict[str, int], flat: NDArray[np.int8], folded: Ints, ending: Ending) -> Step:
    source, result, exact = node.input(0), node.output(), requantization(node, weights_of(node, len(flat)), flat)
    assert exact is not None
    window = _window(shape)
    weights = gemm.spread(flat, window.run)
    pairs = weights.shape[1]
    kernels = [gemm.kernel(pairs, run.end, node.target.optimize) for run in ending.runs]
    streams = gemm.stream(weights, ending)
    if len(ending.rest):
        kernels.append((*gemm.rest(pairs, exact), 260))
        streams.append(gemm.rest_stream(weights.reshape(len(flat), -1), folded, exact, ending.rest))
    stream = np.concatenate(streams)
    expansion = gemm.expand(window.run, aligned=shape["in_c"] % 4 == 0)
    firsts = [run.first for run in ending.runs] + [0] * bool(len(ending.rest))
    calls = _Calls(tuple(k[:2] for k in kernels), tuple(firsts), tuple(map(len, streams)), node.operator.index)
    driver, driver_source = _driver(window, zero_point(source), calls, expansion)
    blocks = (shape["out_h"] * shape["out_w"] + 1) // 2
    moved = shape["in_h"] * window.stride / 2 if window.rows else 0
    return Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel="conv_2d_s8_dsp",
        method=f"{shape['filter_h']}x{shape['filter_w']}, stride {shape['stride_h']}x{shape['stride_w']}, "
        f"two pixels by four channels, {'rows padded in scratch, ' if window.rows else ''}{ending.method}",
        calls=(
            f"{driver}({{t{source.index}}}, {{t{result.index}}}, {{stream}}, {{stream}} + {stream.size}, {{scratch}});",
        ),
        inputs=(source.index,),
        outputs=(result.index,),
        constants=(Constant("stream", "int32_t", stream, 8),),
        scratch_bytes=window.scratch_bytes,
        overlaps=(Overlap(source.index, result.index, _before_bytes(node, window)),),
        headers=("arithmetic.h",) if len(ending.rest) else (),
        emitted=(*dict.fromkeys(k[1] for k in kernels), expansion[1], driver_source),
        macs=result.elements * flat.shape[1],
        cost=gemm.cost(pairs, blocks, ending) + blocks * shape["filter_h"] * (window.run * 1.5 + 15) + moved,
        code_bytes=sum(dict(k[1:] for k in kernels).values()) + 300,
    )


@dataclass(frozen=True, slots=True)
class _Calls:
    """What yields all channels of two pixels: kernels, the first channel of each, the words that each reads."""

    kernels: tuple[tuple[str, Source], ...]
    firsts: tuple[int, ...]
    words: tuple[int, ...]
    layer: int

    @property
    def name(self) -> str:
        """The one kernel, or the function that calls all."""
        return self.kernels[0][0] if len(self.kernels) == 1 else "channels"

    @property
    def label(self) -> str:
        """For the driver's name: equal labels, equal calls."""
        return self.kernels[0][0].rsplit("_", 1)[1] if len(self.kernels) == 1 else f"mixed{self.layer}"

    @property
    def prototypes(self) -> str:
        return "\n".join(dict.fromkeys(source.prototypes for _, source in self.kernels))

    @property
    def text(self) -> str:
        """The function that calls all, where there are several."""
        if len(self.kernels) == 1:
            return ""
        starts = np.cumsum((0, *self.words[:-1])).tolist()
        lines = []
        ends = [*(f"stream + {start}" for start in starts[1:]), "end"]
        for (name, _), first, start, end in zip(self.kernels, self.firsts, starts, ends, strict=True):
            lines.append(f"    {name}(stream + {start}, x, y0 + {first}, y1 + {first}, {end});\n")
        parameters = "const int32_t *stream, const int32_t *x, int8_t *y0, int8_t *y1, const int32_t *end"
        comment = "/* All channels of two pixels, each by the form that is proven for it. */"
        return f"{comment}\nstatic void channels({parameters}) {{\n{''.join(lines)}}}\n\n"


def _driver(window: _Window, zero: int, calls: _Calls, expansion: tuple[str, Source]) -> tuple[str, Source]:
    """The C that walks over pixels and rows for one shape."""
    kernel, (expand, expand_source) = calls.name, expansion
    shape = window.shape
    size = "x".join(str(shape[k]) for k in ("in_h", "in_w", "in_c", "out_h", "out_w", "out_c", "filter_h", "filter_w"))
    pads = f"s{shape['stride_h']}x{shape['stride_w']}p{shape['pad_top']}x{shape['pad_left']}z{zero + 128}"
    name = f"edgeq_conv_2d_s8_dsp_{size}_{pads}_{calls.label}"
    prototype = f"void {name}(const int8_t *x, int8_t *y, const int32_t *stream, const int32_t *end, int32_t *words);"
    body = _walk_tensor(window, kernel, expand) if not window.rows else _walk_rows(window, zero, kernel, expand)
    if shape["filter_h"] == 1 and not window.rows and shape["out_w"] == shape["in_w"]:
        body = _walk_flat(window, kernel, expand)
    text = (
        "#include <stdint.h>\n#include <string.h>\n\n"
        f"{calls.prototypes}\n{expand_source.prototypes}\n{prototype}\n\n{calls.text}"
        f"/* {shape['filter_h']}x{shape['filter_w']} convolution {shape['in_h']}x{shape['in_w']}x{shape['in_c']} -> "
        f"{shape['out_h']}x{shape['out_w']}x{shape['out_c']}: expand two pixels, then all channels of both. */\n"
        f"{prototype[:-1]} {{\n{body}}}\n"
    )
    return name, Source(name.removeprefix("edgeq_"), text, prototype)


def _walk_flat(window: _Window, kernel: str, expand: str) -> str:
    """1x1, stride 1: pixels in order."""
    shape = window.shape
    pixels, in_c, out_c = shape["out_h"] * shape["out_w"], shape["in_c"], shape["out_c"]
    last = (
        f"    {expand}(x, x, words);\n    {kernel}(stream, words, y, y, end);\n" if pixels % 2 else ""
    )  # the odd last pixel is its own partner
    return f"""    for (int32_t pair = 0; pair < {pixels // 2}; pair++) {{
        {expand}(x, x + {in_c}, words);
        {kernel}(stream, words, y, y + {out_c}, end);
        x += {2 * in_c};
        y += {2 * out_c};
    }}
{last}"""


def _walk_tensor(window: _Window, kernel: str, expand: str) -> str:
    """No padding: runs lie in the tensor."""
    shape = window.shape
    out_w, out_c = shape["out_w"], shape["out_c"]
    step = shape["stride_w"] * shape["in_c"]
    return f"""    const int32_t pixels = {shape["out_h"] * out_w};
    for (int32_t p = 0; p < pixels; p += 2) {{
        const int32_t q = p + 1 < pixels ? p + 1 : p;
        const int8_t *x0 = x + p / {out_w} * {shape["stride_h"] * window.stride} + p % {out_w} * {step};
        const int8_t *x1 = x + q / {out_w} * {shape["stride_h"] * window.stride} + q % {out_w} * {step};
        int32_t *at = words;
        for (int32_t row = 0; row < {shape["filter_h"]}; row++) {{
            at = {expand}(x0, x1, at);
            x0 += {window.stride};
            x1 += {window.stride};
        }}
        {kernel}(stream, words, y + p * {out_c}, y + q * {out_c}, end);
    }}
"""


def _walk_rows(window: _Window, zero: int, kernel: str, expand: str) -> str:
    """Padding: rows are copied once into the ring (slot = padded row modulo rows), then read from there."""
    shape = window.shape
    row_bytes, left = shape["in_w"] * shape["in_c"], shape["pad_left"] * shape["in_c"]
    out_w, out_c, filter_h = shape["out_w"], shape["out_c"], shape["filter_h"]
    step, whole = shape["stride_w"] * shape["in_c"], window.rows > filter_h
    load = f"""            int8_t *to = ring + loaded % {window.rows} * {window.stride};
            if (loaded < {shape["pad_top"]} || loaded >= {shape["pad_top"] + shape["in_h"]}) {{
                memset(to, {zero}, {window.stride});
            }} else {{
                memcpy(to + {left}, x + (loaded - {shape["pad_top"]}) * {row_bytes}, {row_bytes});
            }}
"""
    start = f"""    int8_t *ring = (int8_t *)(words + {window.words});
    int32_t loaded = 0;
    memset(ring, {zero}, {window.rows * window.stride});
"""
    if whole:
        pixels = shape["out_h"] * out_w
        return f"""{start}    for (; loaded < {window.rows}; loaded++) {{
{load}    }}
    for (int32_t p = 0; p < {pixels}; p += 2) {{
        const int32_t q = p + 1 < {pixels} ? p + 1 : p;
        const int8_t *x0 = ring + p / {out_w} * {shape["stride_h"] * window.stride} + p % {out_w} * {step};
        const int8_t *x1 = ring + q / {out_w} * {shape["stride_h"] * window.stride} + q % {out_w} * {step};
        int32_t *at = words;
        for (int32_t row = 0; row < {filter_h}; row++) {{
            at = {expand}(x0, x1, at);
            x0 += {window.stride};
            x1 += {window.stride};
        }}
        {kernel}(stream, words, y + p * {out_c}, y + q * {out_c}, end);
    }}
"""
    return f"""{start}    for (int32_t oy = 0; oy < {shape["out_h"]}; oy++) {{
        const int8_t *rows[{filter_h}];
        for (; loaded < oy * {shape["stride_h"]} + {filter_h}; loaded++) {{
{load}        }}
        for (int32_t row = 0; row < {filter_h}; row++) {{
            rows[row] = ring + (oy * {shape["stride_h"]} + row) % {window.rows} * {window.stride};
        }}
        for (int32_t ox = 0; ox < {out_w}; ox += 2) {{
            const int32_t x0 = ox * {step};
            const int32_t x1 = {f"x0 + {step}" if out_w % 2 == 0 else f"ox + 1 < {out_w} ? x0 + {step} : x0"};
            int32_t *at = words;
            for (int32_t row = 0; row < {filter_h}; row++) {{
                at = {expand}(rows[row] + x0, rows[row] + x1, at);
            }}
            {kernel}(stream, words, y, y + {out_c if out_w % 2 == 0 else f"(x1 > x0 ? {out_c} : 0)"}, end);
            y += {2 * out_c if out_w % 2 == 0 else f"x1 > x0 ? {2 * out_c} : {out_c}"};
        }}
    }}
"""
