"""CONV_2D on cores without DSP, without im2col: four pixels are packed at a time, straight from the input's rows.

Data. A kernel row of a pixel is a run of filter_w * in_c bytes, contiguous in NHWC. Without padding runs are read where
the tensor lies. With padding, rows lie in scratch, padded by the zero point: a ring of filter_h rows, or the whole
padded input where it is small and blocks of four pixels must cross rows (the output width is no multiple of 4).

Loop: pack filter_h runs of four pixels into words x0 + 65536 x1, then the micro-kernels yield all channels. Pixels left
over at the end of an image or row are their own partners. All four are read before any is written.

Obligations: no dilation, no groups, batch 1, the micro-kernel's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgeq.codegen.lower.common import zero_point
from edgeq.codegen.lower.convolution import window_overlap
from edgeq.codegen.registry import variant
from edgeq.codegen.step import Constant, Node, Overlap, Source, Step
from edgeq.codegen.variants.layers import Windowed, folded_bias, requantization
from edgeq.codegen.variants.scalar import gemm
from edgeq.codegen.variants.scalar.common import applies, is_armv6m, short_form

_WHOLE_BYTES = 2048
"""The largest padded input that is copied whole so that blocks may cross rows."""

_PACK = Source(
    "pack_4_s8",
    """#include <stdint.h>

int32_t *edgeq_pack_4_s8(const int8_t *x0, const int8_t *x1, const int8_t *x2, const int8_t *x3, int32_t run,
                         int32_t *words);

/* Four pixels' runs as words x0 + 65536 x1 and x2 + 65536 x3 for each tap; the sums are signed, modulo 2^32. */
int32_t *edgeq_pack_4_s8(const int8_t *x0, const int8_t *x1, const int8_t *x2, const int8_t *x3, int32_t run,
                         int32_t *words) {
    for (int32_t i = 0; i < run; i++) {
        *words++ = x0[i] + x1[i] * 65536;
        *words++ = x2[i] + x3[i] * 65536;
    }
    return words;
}
""",
    "int32_t *edgeq_pack_4_s8(const int8_t *x0, const int8_t *x1, const int8_t *x2, const int8_t *x3, int32_t run,\n"
    "                         int32_t *words);",
)


@dataclass(frozen=True, slots=True)
class _Window:
    """Where runs are read: `rows` rows of `stride` bytes in scratch (0: in the tensor itself)."""

    shape: dict[str, int]
    run: int
    rows: int
    stride: int

    @property
    def flat(self) -> bool:
        """Blocks of pixels cross rows."""
        return self.rows == 0 or self.rows > self.shape["filter_h"]


def _window(shape: dict[str, int]) -> _Window:
    run = shape["filter_w"] * shape["in_c"]
    width = (shape["out_w"] - 1) * shape["stride_w"] + shape["filter_w"]
    height = (shape["out_h"] - 1) * shape["stride_h"] + shape["filter_h"]
    if shape["pad_top"] == 0 == shape["pad_left"] and height <= shape["in_h"] and width <= shape["in_w"]:
        return _Window(shape, run, 0, shape["in_w"] * shape["in_c"])
    stride = max(width, shape["in_w"] + shape["pad_left"]) * shape["in_c"]
    height = max(height, shape["filter_h"] + 1)
    whole = shape["out_w"] % 4 != 0 and height * stride <= _WHOLE_BYTES
    return _Window(shape, run, height if whole else shape["filter_h"], stride)


def _before_bytes(node: Node, window: _Window) -> int:
    """How many bytes before the input the output must start (for Overlap): nothing unread may be written over."""
    shape = window.shape
    row_bytes = shape["in_w"] * shape["in_c"]
    written = [(oy + 1) * shape["out_w"] * shape["out_c"] for oy in range(shape["out_h"])]
    if window.rows == 0:
        return window_overlap(node, shape) + 3 * shape["out_c"]
    if window.flat:
        return written[-1] - shape["in_h"] * row_bytes
    loaded = [oy * shape["stride_h"] + shape["filter_h"] - shape["pad_top"] for oy in range(shape["out_h"])]
    behind = (w - max(0, n) * row_bytes for w, n in zip(written, loaded, strict=True) if n < shape["in_h"])
    return max(behind, default=written[-1] - shape["in_h"] * row_bytes)


@variant("CONV_2D")
def conv_2d(node: Node) -> Iterator[Step]:
    """Any filter and stride; see the module."""
    layer = Windowed.of(node) if applies(node) else None
    if layer is None:
        return
    shape, constants = layer.shape, layer.constants
    flat = constants.weights.reshape(shape["out_c"], -1)
    exact = requantization(node, constants, flat)
    form = None if exact is None else short_form(node, exact)
    if not layer.plain or form is None or flat.shape[1] > 4000:
        return
    source, result = node.input(0), node.output()
    found = gemm.sections(flat.astype(np.int64), folded_bias(node, constants.bias, flat), form)
    kernels = [gemm.kernel(section, form, node.target.optimize) for section in found]
    window = _window(shape)
    words = 2 * max(section.taps for section in found)
    driver, driver_source = _driver(window, zero_point(source), found, [k[1] for k in kernels], words)
    pixels, out_w = shape["out_h"] * shape["out_w"], shape["out_w"]
    blocks = pixels // 4 + pixels % 4 if window.flat else shape["out_h"] * (out_w // 4 + out_w % 4)
    stream = np.concatenate([section.words for section in found])
    yield Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel=f"conv_2d_s8_{'armv6m' if is_armv6m(node) else 'armv7m'}",
        method=f"{shape['filter_h']}x{shape['filter_w']}, stride {shape['stride_h']}x{shape['stride_w']}, "
        "four pixels by one channel, two products in a multiplication"
        f"{', rows padded in scratch' if window.rows else ''}, certified requantization",
        calls=(f"{driver}({{t{source.index}}}, {{t{result.index}}}, {{stream}}, {{scratch}});",),
        inputs=(source.index,),
        outputs=(result.index,),
        constants=(Constant("stream", "int32_t", stream, 4),),
        scratch_bytes=4 * words + window.rows * window.stride,
        overlaps=(Overlap(source.index, result.index, _before_bytes(node, window)),),
        headers=() if form.proven.all() else ("arithmetic.h",),
        emitted=(driver_source, *(k[1] for k in kernels), _PACK),
        macs=result.elements * flat.shape[1],
        cost=gemm.cost(found, form, blocks) + blocks * shape["filter_h"] * (window.run * 11 + 20),
        code_bytes=sum(k[2] for k in kernels) + 300,
    )


def _block(window: _Window, found: list[gemm.Section], kernels: list[Source], pixels: list[str], step: str) -> str:
    """C: pack the runs at four pointers-to-be (expressions of `row`), then every section."""
    lines = [
        "int32_t *at = words;",
        f"for (int32_t row = 0; row < {window.shape['filter_h']}; row++) {{",
        f"    at = edgeq_pack_4_s8({', '.join(pixels)}, {window.run}, at);",
        "}",
    ]
    start = 0
    for section, source in zip(found, kernels, strict=True):
        end = start + section.walked
        lines.append(f"edgeq_{source.stem}(words, to, {step}, stream + {start}, stream + {end});")
        start += section.words.size
    return "\n".join(lines)


def _indent(text: str, by: int) -> str:
    return "\n".join(" " * by + line for line in text.splitlines()) + "\n"


def _driver(
    window: _Window, zero: int, found: list[gemm.Section], kernels: list[Source], words: int
) -> tuple[str, Source]:
    """The C that walks over pixels and rows for one shape and its sections."""
    shape = window.shape
    size = "x".join(str(shape[k]) for k in ("in_h", "in_w", "in_c", "out_h", "out_w", "out_c", "filter_h", "filter_w"))
    pads = f"s{shape['stride_h']}x{shape['stride_w']}p{shape['pad_top']}x{shape['pad_left']}z{zero + 128}"
    split = "_".join(f"{section.group}n{section.walked}" for section in found)
    core, ending = kernels[0].stem.split("_")[3], kernels[0].stem.rsplit("_", 1)[1]
    name = f"edgeq_conv_2d_s8_{core}_{size}_{pads}_{split}_{ending}"
    prototype = f"void {name}(const int8_t *x, int8_t *y, const int32_t *stream, int32_t *words);"
    body = _walk_flat(window, zero, found, kernels, words) if window.flat else _walk_rows(
        window, zero, found, kernels, words
    )  # fmt: skip
    prototypes = "\n".join([_PACK.prototypes, *(source.prototypes for source in kernels), prototype])
    text = f"""#include <stdint.h>
{"#include <string.h>" if window.rows else ""}

{prototypes}

/* {shape["filter_h"]}x{shape["filter_w"]} convolution {shape["in_h"]}x{shape["in_w"]}x{shape["in_c"]} -> \
{shape["out_h"]}x{shape["out_w"]}x{shape["out_c"]}: pack four pixels, then all channels of them. */
{prototype[:-1]} {{
{body}}}
"""
    return name, Source(name.removeprefix("edgeq_"), text, prototype)


def _load_row(window: _Window, zero: int) -> str:
    """C: padded row `loaded` into its slot of the ring."""
    shape = window.shape
    row_bytes, left = shape["in_w"] * shape["in_c"], shape["pad_left"] * shape["in_c"]
    return f"""int8_t *slot = ring + loaded % {window.rows} * {window.stride};
if (loaded < {shape["pad_top"]} || loaded >= {shape["pad_top"] + shape["in_h"]}) {{
    memset(slot, {zero}, {window.stride});
}} else {{
    memcpy(slot + {left}, x + (loaded - {shape["pad_top"]}) * {row_bytes}, {row_bytes});
}}"""


def _walk_flat(window: _Window, zero: int, found: list[gemm.Section], kernels: list[Source], words: int) -> str:
    """Blocks of four pixels in order, from the tensor or the padded copy; the rest one by one."""
    shape = window.shape
    out_w, out_c, pixels = shape["out_w"], shape["out_c"], shape["out_h"] * shape["out_w"]
    step = shape["stride_w"] * shape["in_c"]
    base, text = "x", ""
    if window.rows:
        base = "ring"
        text = f"""    int8_t *ring = (int8_t *)(words + {words});
    memset(ring, {zero}, {window.rows * window.stride});
    for (int32_t loaded = 0; loaded < {window.rows}; loaded++) {{
{_indent(_load_row(window, zero), 8)}    }}
"""

    def pointer(index: str) -> str:
        if shape["filter_h"] == 1 and out_w == shape["in_w"] and not window.rows:
            return f"{base} + ({index}) * {step}"
        return (
            f"{base} + ({index}) / {out_w} * {shape['stride_h'] * window.stride} + ({index}) % {out_w} * {step}"
            f" + row * {window.stride}"
        )

    text += "    int8_t *to = y;\n"
    if pixels >= 4:
        quads = _block(window, found, kernels, [f"x{i}" for i in range(4)], str(out_c))
        starts = "".join(f"        const int8_t *x{i} = {pointer(f'p + {i}')};\n" for i in range(4)).replace(
            f" + row * {window.stride}", ""
        )
        move = f", x{{}} + row * {window.stride}" if shape["filter_h"] > 1 else ", x{}"
        quads = quads.replace("x0, x1, x2, x3", "".join(move.format(i) for i in range(4))[2:])
        text += f"    for (int32_t p = 0; p < {pixels // 4 * 4}; p += 4, to += {4 * out_c}) {{\n"
        text += f"{starts}{_indent(quads, 8)}    }}\n"
    if pixels % 4:
        single = _block(window, found, kernels, [pointer("p")] * 4, "0")
        text += f"    for (int32_t p = {pixels // 4 * 4}; p < {pixels}; p++, to += {out_c}) {{\n"
        text += f"{_indent(single, 8)}    }}\n"
    return text


def _walk_rows(window: _Window, zero: int, found: list[gemm.Section], kernels: list[Source], words: int) -> str:
    """Padding: rows are copied once into the ring (slot = padded row modulo rows), then read from there."""
    shape = window.shape
    out_w, out_c, filter_h = shape["out_w"], shape["out_c"], shape["filter_h"]
    step = shape["stride_w"] * shape["in_c"]
    text = f"""    int8_t *ring = (int8_t *)(words + {words});
    int8_t *to = y;
    int32_t loaded = 0;
    memset(ring, {zero}, {window.rows * window.stride});
    for (int32_t oy = 0; oy < {shape["out_h"]}; oy++) {{
        const int8_t *rows[{filter_h}];
        for (; loaded < oy * {shape["stride_h"]} + {filter_h}; loaded++) {{
{_indent(_load_row(window, zero), 12)}        }}
        for (int32_t row = 0; row < {filter_h}; row++) {{
            rows[row] = ring + (oy * {shape["stride_h"]} + row) % {window.rows} * {window.stride};
        }}
"""
    if out_w >= 4:
        quads = _block(window, found, kernels, [f"rows[row] + ox * {step} + {i * step}" for i in range(4)], str(out_c))
        text += f"        for (int32_t ox = 0; ox < {out_w // 4 * 4}; ox += 4, to += {4 * out_c}) {{\n"
        text += f"{_indent(quads, 12)}        }}\n"
    if out_w % 4:
        single = _block(window, found, kernels, [f"rows[row] + ox * {step}"] * 4, "0")
        text += f"        for (int32_t ox = {out_w // 4 * 4}; ox < {out_w}; ox++, to += {out_c}) {{\n"
        text += f"{_indent(single, 12)}        }}\n"
    return text + "    }\n"
