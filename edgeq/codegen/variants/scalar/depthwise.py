"""DEPTHWISE_CONV_2D, 3x3, stride 1 or 2, on cores without DSP: one channel at a time on a padded plane.

Data. A channel is gathered from NHWC into a plane in scratch whose border holds the zero point and is written once a
layer: bytes on ARMv7-M, words on ARMv6-M, whose sign-extending loads take no immediate offset. Results go back to NHWC;
with equal sizes the layer works in place. Per channel: start value, requantization, nine weights as words.

Loop: some outputs of a row together share each weight. On ARMv6-M the plane is volatile: a value is loaded where it is
multiplied, because keeping it for the next tap spills.

Obligations: depth multiplier 1, no dilation, batch 1; the requantization's proof, or TFLM's steps for channels without.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from edgeq.codegen.lower.common import zero_point
from edgeq.codegen.registry import variant
from edgeq.codegen.step import Constant, Node, Overlap, Source, Step
from edgeq.codegen.variants.assembly import as_words
from edgeq.codegen.variants.layers import Windowed, folded_bias, requantization
from edgeq.codegen.variants.scalar import requantize
from edgeq.codegen.variants.scalar.common import LongForm, applies, is_armv6m, short_form


@variant("DEPTHWISE_CONV_2D")
def depthwise_conv_2d(node: Node) -> Iterator[Step]:
    """3x3 with equal strides of 1 or 2; see the module."""
    layer = Windowed.of(node) if applies(node) else None
    if layer is None or not layer.plain or not layer.square:
        return
    shape, constants = layer.shape, layer.constants
    flat = constants.weights.reshape(9, -1).T
    exact = requantization(node, constants, flat)
    form = None if exact is None else short_form(node, exact)
    if form is None:
        return
    source, result = node.input(0), node.output()
    folded = folded_bias(node, constants.bias, flat)
    channels = as_words(np.concatenate([folded[:, None], requantize.parameters(form), flat.astype(np.int64)], axis=1))
    name, emitted = _kernel(shape, zero_point(source), form)
    width, rows = _size(shape)
    outputs = shape["out_h"] * shape["out_w"]
    same = shape["in_h"] == shape["out_h"] and shape["in_w"] == shape["out_w"]
    yield Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel=f"depthwise_conv_2d_s8_{'armv6m' if is_armv6m(node) else 'armv7m'}",
        method=f"3x3, stride {shape['stride_w']}, one channel at a time on a plane, certified requantization",
        calls=(f"{name}({{t{source.index}}}, {{t{result.index}}}, {{channels}}, {{scratch}});",),
        inputs=(source.index,),
        outputs=(result.index,),
        constants=(Constant("channels", "int32_t", channels),),
        scratch_bytes=width * rows * (1 if isinstance(form, LongForm) else 4),
        overlaps=(Overlap(source.index, result.index, 0, exact=True),) if same else (),
        headers=requantize.headers(form),
        emitted=(emitted,),
        macs=result.elements * 9,
        cost=len(flat) * (outputs * (30 if isinstance(form, LongForm) else 58) + shape["in_h"] * shape["in_w"] * 4),
        code_bytes=700,
    )


def _size(shape: Mapping[str, int]) -> tuple[int, int]:
    """Width and rows of the plane."""
    step = shape["stride_w"]
    width = max((shape["out_w"] - 1) * step + 3, shape["in_w"] + shape["pad_left"])
    return width, max((shape["out_h"] - 1) * step + 3, shape["in_h"] + shape["pad_top"])


def _outputs(shape: Mapping[str, int], form: requantize.Form, block: int) -> str:
    """C: `block` outputs of a row from `row`, stored at `to`."""
    width, step, used = _size(shape)[0], shape["stride_w"], requantize.count(form)
    lines = [f"int32_t a{i} = bias;" for i in range(block)]
    for tap in range(9):
        lines.append(f"w = c[{1 + used + tap}];")
        at = tap // 3 * width + tap % 3
        lines += [f"a{i} += w * row[{at + i * step}];" for i in range(block)]
    lines += [f"to[{i * shape['out_c']}] = requantize(a{i}, c + 1);" for i in range(block)]
    return "".join(f"                {line}\n" for line in lines)


def _kernel(shape: Mapping[str, int], zero: int, form: requantize.Form) -> tuple[str, Source]:
    width, rows = _size(shape)
    step, out_w, out_c = shape["stride_w"], shape["out_w"], shape["out_c"]
    pads = f"s{step}p{shape['pad_top']}x{shape['pad_left']}z{zero + 128}"
    size = "x".join(str(shape[k]) for k in ("in_h", "in_w", "in_c", "out_h", "out_w"))
    name = f"edgeq_depthwise_3x3_s8_{requantize.name(form)}_{size}_{pads}"
    element = "int8_t" if isinstance(form, LongForm) else "int32_t"
    quick = "const int8_t *" if isinstance(form, LongForm) else "const volatile int32_t *"
    prototype = f"void {name}(const int8_t *x, int8_t *y, const int32_t *c, {element} *plane);"
    words = 10 + requantize.count(form)
    most = 4 if isinstance(form, LongForm) or out_w % 5 else 5
    block = min(most, out_w)
    rest = out_w % block
    tail = f"            {{\n{_outputs(shape, form, rest)}            }}\n" if rest else ""
    skip = step * width - out_w // block * block * step
    text = f"""#include <stdint.h>

{prototype}

{requantize.function(form)}
/* 3x3 depthwise, stride {step}, {shape["in_h"]}x{shape["in_w"]}x{shape["in_c"]} -> {shape["out_h"]}x{out_w}: each \
channel is gathered into a plane whose border is the
 * input's zero point; {block} outputs at a time share each weight. c: start value, requantization, weights. */
{prototype[:-1]} {{
    for (int32_t i = 0; i < {width * rows}; i++) {{
        plane[i] = {zero};
    }}
    for (int32_t channel = 0; channel < {out_c}; channel++, c += {words}) {{
        const int8_t *from = x + channel;
        {element} *into = plane + {shape["pad_top"] * width + shape["pad_left"]};
        for (int32_t iy = 0; iy < {shape["in_h"]}; iy++, into += {width - shape["in_w"]}) {{
            for (int32_t ix = 0; ix < {shape["in_w"]}; ix++, from += {shape["in_c"]}) {{
                *into++ = *from;
            }}
        }}
        int8_t *to = y + channel;
        {quick}row = plane;
        const int32_t bias = c[0];
        int32_t w;
        for (int32_t oy = 0; oy < {shape["out_h"]}; oy++, row += {skip}, to += {rest * out_c}) {{
            for (int32_t ox = 0; ox < {out_w // block}; ox++, row += {block * step}, to += {block * out_c}) {{
{_outputs(shape, form, block)}            }}
{tail}        }}
    }}
}}
"""
    return name, Source(name.removeprefix("edgeq_"), text, prototype)
