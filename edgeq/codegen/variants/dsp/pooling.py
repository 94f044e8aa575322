"""AVERAGE_POOL_2D, MEAN and SUM over the whole image: four channels at a time, two sums in each register.

Data. NHWC; SXTAB16 adds bytes 0, 2 and, rotated, 1, 3 of a pixel's word to two pairs of 16-bit sums. The means are then
taken in C: rounded half away from zero, or requantized, as TFLM does.
Registers: r0 input, r1 sums, r2 pixels left, r3 channels' end, r12 data, r4-r5 sums, r6 the pixel.
Obligations: one window of at most 255 pixels (sums fit int16), no padding, batch 1, channels a multiple of 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edgeq.codegen.lower.common import activation_range
from edgeq.codegen.lower.convolution import geometry
from edgeq.codegen.lower.pooling import pool_2d
from edgeq.codegen.lower.reduction import mean
from edgeq.codegen.registry import variant
from edgeq.codegen.step import Node, Overlap, Source, Step, Struct, Unsupported
from edgeq.codegen.variants.assembly import function
from edgeq.codegen.variants.dsp.common import BUDGET, applies


def _kernel(pixels: int, channels: int) -> tuple[str, Source]:
    name = f"edgeq_sum_s8_dsp_{pixels}x{channels}"
    group = next(g for g in range(min(8, pixels, BUDGET // channels), 0, -1) if pixels % g == 0)
    loads = [
        line for i in range(group)
        for line in (f"    ldr r12, [r6, #{i * channels}]", "    sxtab16 r4, r4, r12",
                     "    sxtab16 r5, r5, r12, ror #8")
    ]  # fmt: skip
    lines = [
        "    push {r4-r6}", f"    add r3, r0, #{channels}", "    1:", "    mov r4, #0", "    mov r5, #0",
        "    mov r6, r0", f"    mov r2, #{pixels // group}", "    2:", *loads, f"    addw r6, r6, #{group * channels}",
        "    subs r2, r2, #1", "    bne 2b", "    pkhbt r12, r4, r5, lsl #16", "    pkhtb r2, r5, r4, asr #16",
        "    str r12, [r1], #4", "    str r2, [r1], #4", "    add r0, r0, #4", "    cmp r0, r3", "    bne 1b",
        "    pop {r4-r6}", "    bx lr",
    ]  # fmt: skip
    prototype = f"void {name}(const int8_t *x, int16_t *sums);"
    comment = (
        f"Sums of {pixels} pixels, {channels} channels, 4 channels at a time. r0 input, r1 sums, r4-r5 two sums each."
    )
    text = f"#include <stdint.h>\n\n{prototype}\n\n{function(name, comment, lines)}"
    return name, Source(name.removeprefix("edgeq_"), text, prototype)


def _driver(pixels: int, channels: int, clamp: tuple[int, int], kernel: tuple[str, Source]) -> tuple[str, Source]:
    name = f"edgeq_average_pool_s8_dsp_{pixels}x{channels}_{clamp[0] + 128}_{clamp[1] + 128}"
    prototype = f"void {name}(const int8_t *x, int8_t *y, int16_t *sums);"
    limits = ""
    if clamp[0] > -128:
        limits += f"        mean = mean < {clamp[0]} ? {clamp[0]} : mean;\n"
    if clamp[1] < 127:
        limits += f"        mean = mean > {clamp[1]} ? {clamp[1]} : mean;\n"
    text = f"""#include <stdint.h>

{kernel[1].prototypes}
{prototype}

/* Mean of {pixels} pixels, {channels} channels, rounded half away from zero. */
{prototype[:-1]} {{
    {kernel[0]}(x, sums);
    for (int32_t c = 0; c < {channels}; c++) {{
        const int32_t sum = sums[c];
        {"" if limits else "const "}int32_t mean = (sum > 0 ? sum + {pixels // 2} : sum - {pixels // 2}) / {pixels};
{limits}        y[c] = (int8_t)mean;
    }}
}}
"""
    return name, Source(name.removeprefix("edgeq_"), text, prototype)


@variant("AVERAGE_POOL_2D")
def average_pool_2d(node: Node) -> Iterator[Step]:
    """One window over the whole image; see the module."""
    if not applies(node):
        return
    try:
        next(iter(pool_2d(node)))
        shape = geometry(node, int(node.options["filter_height"]), int(node.options["filter_width"]))
        clamp = activation_range(node, node.output())
    except Unsupported:
        return
    whole = (shape["filter_h"], shape["filter_w"]) == (shape["in_h"], shape["in_w"])
    pixels, channels = shape["in_h"] * shape["in_w"], shape["in_c"]
    one = shape["out_h"] == shape["out_w"] == shape["batches"] == 1 and shape["pad_top"] == shape["pad_left"] == 0
    if not whole or not one or pixels > 255 or channels % 4 or channels > 512:
        return
    source, result = node.input(0), node.output()
    kernel = _kernel(pixels, channels)
    driver, driver_source = _driver(pixels, channels, clamp, kernel)
    yield Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel="average_pool_2d_s8_dsp",
        method="the whole image, two sums in each register",
        calls=(f"{driver}({{t{source.index}}}, {{t{result.index}}}, {{scratch}});",),
        inputs=(source.index,),
        outputs=(result.index,),
        scratch_bytes=2 * channels,
        overlaps=(Overlap(source.index, result.index, -pixels * channels),),
        emitted=(kernel[1], driver_source),
        cost=pixels * channels * 0.85 + channels * 15,
        code_bytes=250,
    )


def _sum_driver(
    pixels: int, channels: int, fields: Mapping[str, Any], kernel: tuple[str, Source]
) -> tuple[str, Source]:
    numbers = [fields[name] for name in ("start", "multiplier", "shift", "output_offset")]
    name = f"edgeq_sum_s8_dsp_{pixels}x{channels}_{'_'.join(str(number).replace('-', 'm') for number in numbers)}"
    start, multiplier, shift, offset = numbers
    prototype = f"void {name}(const int8_t *x, int8_t *y, int16_t *sums);"
    text = f"""#include <stdint.h>
#include "edgeq/arithmetic.h"

{kernel[1].prototypes}
{prototype}

/* Sums over {pixels} pixels, {channels} channels, without zero points, requantized as TFLM does. */
{prototype[:-1]} {{
    {kernel[0]}(x, sums);
    for (int32_t c = 0; c < {channels}; c++) {{
        const int32_t value = edgeq_requantize(sums[c] + ({start}), {multiplier}, {shift}) + ({offset});
        y[c] = (int8_t)(value < -128 ? -128 : value > 127 ? 127 : value);
    }}
}}
"""
    return name, Source(name.removeprefix("edgeq_"), text, prototype)


@variant("MEAN", "SUM")
def image_mean(node: Node) -> Iterator[Step]:
    """Height and width of one image; see the module."""
    if not applies(node):
        return
    try:
        portable = next(iter(mean(node)))
        axes = np.asarray(node.constant(1, "axes"), np.int64).reshape(-1) % 4
    except Unsupported:
        return
    source, result = node.input(0), node.output()
    if len(source.shape) != 4 or source.shape[0] != 1 or set(axes.tolist()) != {1, 2}:
        return
    pixels, channels = source.shape[1] * source.shape[2], source.shape[3]
    if pixels > 255 or channels % 4 or channels > BUDGET:
        return
    fields = next(c.fields for c in portable.constants if isinstance(c, Struct))
    kernel = _kernel(pixels, channels)
    driver, driver_source = _sum_driver(pixels, channels, fields, kernel)
    yield Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel=f"{node.operator.name.lower()}_s8_dsp",
        method="the whole image, two sums in each register",
        calls=(f"{driver}({{t{source.index}}}, {{t{result.index}}}, {{scratch}});",),
        inputs=(source.index,),
        outputs=(result.index,),
        scratch_bytes=2 * channels,
        overlaps=(Overlap(source.index, result.index, -pixels * channels),),
        headers=("arithmetic.h",),
        emitted=(kernel[1], driver_source),
        cost=pixels * channels * 0.85 + channels * 25,
        code_bytes=300,
    )
