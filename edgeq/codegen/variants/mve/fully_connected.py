"""FULLY_CONNECTED, and 1x1 convolutions of few pixels: six units at a time, the input stationary.

Data. Weights are packed [six units][vector of 16 inputs][unit][16], so one pointer runs through them; starting sums
(folded biases) stand beside, six units together. Units are padded to a multiple of six, the last vector is moved back
to end with the input (`dot.offsets`); an input of less than 16 bytes is loaded under a predicate.

Registers: r0 r2 r4 r6 r8 r10 sums; q0 weights; q1-q6 inputs that stay, q7 those that stream. r1 weights, r3 biases,
r5 sums out, r7 input, r9 groups, r11 input of the inner loop.

Loop, six units: LDM of the biases, per vector of inputs six loads and six VMLADAVA, STM. Up to 12 vectors unrolled,
beyond that an inner loop of two vectors. Then requantization: one multiplier for all units (requantize.scatter) or
vectors of them.

Obligations: sums stay in int32; those of common.tail.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.lower.convolution import geometry, weights_of
from edgeq.codegen.registry import variant
from edgeq.codegen.step import Constant, Node, Step, Unsupported
from edgeq.codegen.variants.layers import folded_bias
from edgeq.codegen.variants.mve import dot, requantize
from edgeq.codegen.variants.mve.common import (
    FLOOR,
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

_GROUP = 6
_UNROLLED = 12

_SUMS = ("r0", "r2", "r4", "r6", "r8", "r10")
_SAVED = tuple(f"d{i}" for i in range(8, 16))


def pack(weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """[units, depth] as the kernel reads them."""
    units, depth = weights.shape
    starts = dot.offsets(depth) if depth >= 16 else (0,)
    lanes = dot.vectors(weights, starts)
    lanes = np.concatenate([lanes, np.zeros((-units % _GROUP, *lanes.shape[1:]), np.int8)])
    return np.ascontiguousarray(lanes.reshape(-1, _GROUP, len(starts), 16).transpose(0, 2, 1, 3)).reshape(-1)


def kernel(depth: int) -> Kernel:
    """(input, weights, starting sums, sums, groups of six)."""
    starts = dot.offsets(depth) if depth >= 16 else (0,)

    def products(register: str) -> list[str]:
        return [line for s in _SUMS for line in ("vldrb.8 q0, [r1], #16", f"vmladava.s8 {s}, q0, {register}")]

    load = [f"ldm r3!, {{{', '.join(_SUMS)}}}"]
    body: list[str] = []
    staying: dict[int, str] = {}
    start = ["ldr r9, [sp, #104]", "mov r7, r0", "mov r5, r3", "mov r3, r2"]
    if len(starts) <= _UNROLLED:
        staying = {i: f"q{1 + i}" for i in range(min(6, len(starts)))}
        if depth < 16:
            start += [f"mov r4, #{depth}", "vctp.8 r4", "vpst", "vldrbt.u8 q1, [r7]"]
        else:
            start += [f"vldrb.8 {q}, [r7, #{starts[i]}]" for i, q in staying.items()]
        start.append("adds r7, r7, #127")
        for i, offset in enumerate(starts):
            body += [] if i in staying else [f"vldrb.8 q7, [r7, #{offset - 127}]"]
            body += products(staying.get(i, "q7"))
    else:
        pairs, one = divmod(depth // 16, 2)
        body += [f"mov lr, #{pairs}", "mov r11, r7", "dls lr, lr", "2:"]
        for _ in range(2):
            body += ["vldrb.8 q7, [r11], #16", *products("q7")]
        body.append("le lr, 2b")
        if one:
            body += ["vldrb.8 q7, [r11], #16", *products("q7")]
        if depth % 16:
            body += [f"sub r11, r11, #{16 - depth % 16}", "vldrb.8 q7, [r11]", *products("q7")]
    lines = [*start, "1:", *load, *body, f"stm r5!, {{{', '.join(_SUMS)}}}", "subs r9, r9, #1", "bne.w 1b"]
    return assembly(
        f"edgeq_mve_rows_{depth}",
        "const int8_t *x, const int8_t *weights, const int32_t *bias, int32_t *sums, int32_t groups",
        f"Sums of six units at a time, {depth} inputs.",
        lines,
        _SAVED,
    )


def each_unit(end: Tail) -> Kernel:
    """(sums, output, parameters, units): a multiplier, an addend and a shift for every unit, four units together."""
    clamp = [f"mvn r4, #{~v}" if v < 0 else f"mov r4, #{v}" for v in (end.minimum, end.maximum)]
    sign = [] if end.form == "floor" else ["vshr.s32 q4, q0, #31"]
    flag, add = [], [] if end.form == "floor" else ["vadd.i32 q0, q0, q4"]
    if end.form == "mixed":
        flag, add = [f"movw r4, #{FLOOR}"], ["vpt.s32 lt, q3, r4", "vaddt.i32 q0, q0, q4"]
    lines = [
        clamp[0], "vdup.32 q5, r4", clamp[1], "vdup.32 q6, r4", *flag, "dlstp.32 lr, r3", "1:",
        "vldrw.u32 q0, [r0], #16", "vldrw.u32 q1, [r2], #16", "vldrw.u32 q2, [r2], #16", "vldrw.u32 q3, [r2], #16",
        *sign, "vqrdmulh.s32 q0, q0, q1", *add, "vadd.i32 q0, q0, q2", "vqshl.s32 q0, q0, q3", "vshr.s32 q0, q0, #24",
        "vmax.s32 q0, q0, q5", "vmin.s32 q0, q0, q6", "vstrb.32 q0, [r1], #4", "letp lr, 1b",
    ]  # fmt: skip
    return assembly(
        f"edgeq_mve_units_{end.form}_{end.minimum + 128}_{end.maximum + 128}",
        "const int32_t *sums, int8_t *output, const int32_t *parameters, int32_t count",
        f"Requantize with a multiplier for each unit; {end.form} form.",
        lines,
        _SAVED,
    )


def _unit_parameters(table: NDArray[np.int32]) -> NDArray[np.int32]:
    """[units, (bias, m, addend, shift)] as [four units][m x 4, addend x 4, shift x 4]."""
    padded = np.concatenate([table[:, 1:], np.zeros((-len(table) % 4, 3), table.dtype)])
    return np.ascontiguousarray(padded.reshape(-1, 4, 3).transpose(0, 2, 1)).astype(np.int32).reshape(-1)


@variant("FULLY_CONNECTED")
def fully_connected(node: Node) -> Iterator[Step]:
    """See the module."""
    if applies(node) and len(node.input(1).shape) == 2:
        yield from _steps(node, *node.input(1).shape)


@variant("CONV_2D")
def pointwise(node: Node) -> Iterator[Step]:
    """A 1x1 convolution as a fully connected layer of every pixel: for few pixels, or few channels."""
    if not applies(node) or node.input(1).shape[1:3] != (1, 1):
        return
    try:
        shape = geometry(node, 1, 1)
    except Unsupported:
        return
    if shape["stride_h"] == shape["stride_w"] == 1 and shape["pad_top"] == shape["pad_left"] == 0:
        units, _, _, depth = node.input(1).shape
        if depth == shape["in_c"] and (shape["out_h"], shape["out_w"]) == (shape["in_h"], shape["in_w"]):
            yield from _steps(node, units, depth)


def _steps(node: Node, units: int, depth: int) -> Iterator[Step]:
    try:
        constants = weights_of(node, units)
    except (Unsupported, ValueError):
        return
    source, result = node.input(0), node.output()
    if source.is_constant or source.elements % depth or depth > 1 << 16:
        return
    batches = source.elements // depth
    flat = constants.weights.reshape(units, depth)
    folded = folded_bias(node, constants.bias, flat)
    end = tail_of(node, constants, flat)
    if end is None or result.elements != batches * units:
        return
    table = end.parameters
    one = bool((table[:, 1:] == table[:1, 1:]).all())
    rows = kernel(depth)
    store = requantize.scatter(end, requantize.every(1)) if one else each_unit(end)
    padded = np.concatenate([folded, np.zeros(-units % _GROUP, np.int64)]).astype(np.int32)
    parameters = np.array([0, *table[0, 1:]], np.int32) if one else _unit_parameters(table)
    packed = (
        Constant("weights", "int8_t", pack(flat), 16),
        Constant("bias", "int32_t", padded, 16),
        Constant("requantize", "int32_t", parameters, 16),
    )
    vectors = len(dot.offsets(depth)) if depth >= 16 else 1
    name = f"edgeq_mve_fully_connected_{batches}_{depth}_{units}_{end.name}_{'one' if one else 'each'}"
    which = "requantize" if one else "requantize + 3 * u"
    body = f"""{SUMS_BUFFER}    for (int32_t b = 0; b < {batches}; b++, x += {depth}, y += {units}) {{
        for (int32_t u = 0; u < {units}; u += {SUMS}) {{
            const int32_t n = {units} - u < {SUMS} ? {units} - u : {SUMS};
            {rows.name}(x, weights + u * {16 * vectors}, bias + u, sums, (n + {_GROUP - 1}) / {_GROUP});
            {store.name}(sums, y + u, {which}, n);
        }}
    }}
"""
    call = driver(
        name,
        "const int8_t *x, const int8_t *weights, const int32_t *bias, const int32_t *requantize, int8_t *y",
        f"Fully connected, {depth} inputs, {units} units.",
        body,
        [rows, store],
    )
    yield Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel=name.removeprefix("edgeq_"),
        method=f"MVE, six units at a time, {end.name} requantization, {'one multiplier' if one else 'one per unit'}",
        calls=(f"{name}({{t{source.index}}}, {arguments(*packed)}, {{t{result.index}}});",),
        inputs=(source.index,),
        outputs=(result.index,),
        constants=packed,
        emitted=sources(rows, store, call),
        macs=batches * units * depth,
        cost=batches * (units * (2.3 * vectors + 3) + 100),
        code_bytes=200 + (50 * vectors if vectors <= _UNROLLED else 250),
    )
