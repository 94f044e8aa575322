"""AVERAGE_POOL_2D over the whole image and MEAN over all axes but the last: eight channels at a time in int16 lanes.

Data. NHWC. Registers: r0 channels' first pixel, r1 sums out, r4 the pixel, r2 channels left; q0 a pixel, q1 the sums.
Loop, a pixel: widening load, VADD, ADD, LE. The means are then taken in C: rounded half away from zero (pool), or
TFLM's requantization of the sum without zero points (MEAN).

Obligations: one window of at most 255 pixels (sums fit int16), no padding, batch 1.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgeq.codegen.lower.common import activation_range
from edgeq.codegen.lower.convolution import geometry
from edgeq.codegen.lower.pooling import pool_2d
from edgeq.codegen.lower.reduction import mean as portable_mean
from edgeq.codegen.registry import variant
from edgeq.codegen.step import Node, Overlap, Step, Struct, Unsupported
from edgeq.codegen.variants.mve.common import Kernel, applies, assembly, driver, sources


def kernel(pixels: int, channels: int) -> Kernel:
    """(input, sums): int16 sums of all channels; their number rounded up to 8."""
    unroll = next(u for u in (5, 4, 3, 2, 1) if pixels % u == 0)
    masked = channels % 8 != 0
    load = ["vpst", "vldrbt.s16 q0, [r4]"] if masked else ["vldrb.s16 q0, [r4]"]
    pixel = [*load, "vadd.i16 q1, q1, q0", f"addw r4, r4, #{channels}"]
    lines = [
        f"movw r2, #{channels}", f"movw r5, #{pixels // unroll}", "1:", *(["vctp.16 r2"] if masked else []),
        "vmov.i32 q1, #0", "mov r4, r0", "dls lr, r5", "2:", *(unroll * pixel), "le lr, 2b", "vstrh.16 q1, [r1], #16",
        "adds r0, r0, #8", "subs r2, r2, #8", "bgt 1b",
    ]  # fmt: skip
    return assembly(
        f"edgeq_mve_sum_{pixels}x{channels}",
        "const int8_t *x, int16_t *sums",
        f"Sums of {pixels} pixels, {channels} channels, 8 channels at a time.",
        lines,
    )


@variant("AVERAGE_POOL_2D")
def average_pool_2d(node: Node) -> Iterator[Step]:
    """One window over the whole image; see the module."""
    if not applies(node):
        return
    try:
        next(iter(pool_2d(node)))
        shape = geometry(node, int(node.options["filter_height"]), int(node.options["filter_width"]))
        low, high = activation_range(node, node.output())
    except Unsupported:
        return
    whole = (shape["filter_h"], shape["filter_w"]) == (shape["in_h"], shape["in_w"])
    pixels, channels = shape["in_h"] * shape["in_w"], shape["in_c"]
    one = shape["out_h"] == shape["out_w"] == shape["batches"] == 1 and shape["pad_top"] == shape["pad_left"] == 0
    if not whole or not one or pixels > 255 or channels > 4095:
        return
    total = kernel(pixels, channels)
    name = f"edgeq_mve_average_pool_{pixels}x{channels}_{low + 128}_{high + 128}"
    limits = "".join(
        f"        mean = mean {sign} {bound} ? {bound} : mean;\n"
        for sign, bound, needed in (("<", low, low > -128), (">", high, high < 127))
        if needed
    )
    body = f"""    {total.name}(x, sums);
    for (int32_t c = 0; c < {channels}; c++) {{
        const int32_t sum = sums[c];
        {"" if limits else "const "}int32_t mean = (sum > 0 ? sum + {pixels // 2} : sum - {pixels // 2}) / {pixels};
{limits}        y[c] = (int8_t)mean;
    }}
"""
    yield _step(node, total, name, body, pixels)


@variant("MEAN")
def mean(node: Node) -> Iterator[Step]:
    """All axes but the last; see the module."""
    if not applies(node):
        return
    try:
        portable = next(iter(portable_mean(node)))
        axes = {int(a) % len(node.input(0).shape) for a in node.constant(1, "axes").reshape(-1)}
    except Unsupported:
        return
    shape = node.input(0).shape
    pixels, channels = node.input(0).elements // shape[-1], shape[-1]
    every = all(axis in axes or size == 1 for axis, size in enumerate(shape[:-1])) and len(shape) - 1 not in axes
    if not every or pixels > 255 or channels > 4095 or node.input(0).is_constant:
        return
    total = kernel(pixels, channels)
    p = next(c.fields for c in portable.constants if isinstance(c, Struct))
    name = f"edgeq_mve_mean_{pixels}x{channels}_operator{node.operator.index}"
    body = f"""    {total.name}(x, sums);
    for (int32_t c = 0; c < {channels}; c++) {{
        const int32_t sum = sums[c] + ({p["start"]});
        const int32_t mean = edgeq_requantize(sum, {p["multiplier"]}, {p["shift"]}) + ({p["output_offset"]});
        y[c] = (int8_t)edgeq_clamp(mean, {p["act_min"]}, {p["act_max"]});
    }}
"""
    yield _step(node, total, name, body, pixels)


def _step(node: Node, total: Kernel, name: str, body: str, pixels: int) -> Step:
    source, result = node.input(0), node.output()
    channels = source.shape[-1]
    comment = f"{node.operator.name} of {pixels} pixels, {channels} channels."
    call = driver(name, "const int8_t *x, int8_t *y, int16_t *sums", comment, body, [total])
    return Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel=name.removeprefix("edgeq_"),
        method="MVE, the whole image, eight channels at a time",
        calls=(f"{name}({{t{source.index}}}, {{t{result.index}}}, {{scratch}});",),
        inputs=(source.index,),
        outputs=(result.index,),
        scratch_bytes=2 * (-(-channels // 8) * 8),
        overlaps=(Overlap(source.index, result.index, -pixels * channels),),
        emitted=sources(total, call),
        headers=("arithmetic.h",) if "edgeq_requantize(" in body else (),
        cost=pixels * channels * 0.45 + channels * 25,
        code_bytes=250,
    )
