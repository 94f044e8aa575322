"""DEPTHWISE_CONV_2D with any window: strides, dilation in stride 1, several outputs an input, one channel at a time.

Data. As in `depthwise` a channel is gathered into an int16 plane whose border is the zero point. With dilation d the
columns of a row are sorted by their remainder modulo d: each remainder is a row of an undilated convolution. Rows of
one column are taken for columns of one row. Per channel: start value, multiplier, addend, exponent, weight words.
A word of the plane is P[i] = (x[2i], x[2i+1]). Stride 1: outputs 2i and 2i+1 are the sums over j of P[i+j] times
(w[2j], w[2j+1]) and (w[2j-1], w[2j]), two words of weights. Stride 2: output i is the sum of P[i+j] times
(w[2j], w[2j+1]).

Loop: for each kernel row and j, the weights are read once for a block of 8 outputs: 11 (13) instructions for 16
multiply-accumulates.

Registers: r0 plane, r1 weights, r2-r3 activations, r4-r11 accumulators, r12, lr weights. In the frame: the start value
eight times (one LDM starts a block), requantization, pointers, loop ends.

Obligations: batch 1; column stride 1, or 2 without dilation; the tail's proof, channel by channel (`endings`); channels
without one are left to C, on the same plane.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.arithmetic import Ints
from edgeq.codegen.lower.common import zero_point
from edgeq.codegen.proofs import Requantization
from edgeq.codegen.registry import variant
from edgeq.codegen.step import Constant, Node, Optimize, Overlap, Source, Step
from edgeq.codegen.variants.assembly import as_words, bytes_as_words, function
from edgeq.codegen.variants.dsp.common import BUDGET, Ending, Tail, applies, endings, general_product, general_result
from edgeq.codegen.variants.layers import Windowed, folded_bias, requantization

_SHIFTS = (3, 4, 2)
_UNROLLED: dict[Optimize, int] = {"speed": 30, "balanced": 8, "ram": 8, "flash": 0}
"""Steps (kernel rows times j) of a block that stand in a row; beyond that kernel rows are a loop."""
_GATHERED = 16
"""Columns that are gathered without a branch."""

_FACTOR, _EXPONENT, _WEIGHTS, _X, _ROW_X, _ROWS, _BLOCKS, _TAPS, _FRAME = 32, 40, 44, 48, 56, 64, 68, 72, 80
"""Offsets in the frame, behind eight start values. _X and _ROW_X: plane and output of the block and of the row."""


@dataclass(frozen=True, slots=True)
class _Window:
    """A shape's plane: `rows` rows of `dilation` segments of `segment` words; rows of one column are columns here."""

    in_h: int
    in_w: int
    in_c: int
    out_h: int
    out_w: int
    out_c: int
    filter_h: int
    filter_w: int
    stride_h: int
    step: int
    dilation_h: int
    dilation: int
    pad_top: int
    pad_left: int

    @property
    def steps(self) -> int:
        """Words of weights that a kernel row has for an output."""
        return self.filter_w // 2 + 1 if self.step == 1 else (self.filter_w + 1) // 2

    def outputs(self, remainder: int) -> int:
        """Outputs of a row whose columns have this remainder modulo the dilation."""
        return -(-(self.out_w - remainder) // self.dilation)

    @property
    def segment(self) -> int:
        outputs = self.outputs(0)
        return (outputs + 1) // 2 + self.steps - 1 if self.step == 1 else outputs + self.steps - 1

    @property
    def rows(self) -> int:
        return (self.out_h - 1) * self.stride_h + (self.filter_h - 1) * self.dilation_h + 1

    @property
    def row_bytes(self) -> int:
        return 4 * self.segment * self.dilation

    @property
    def gathered(self) -> tuple[int, int]:
        """Rows and columns of the input that the plane holds."""
        columns = (self.out_w - 1) * self.step + (self.filter_w - 1) * self.dilation + 1
        return min(self.in_h, self.rows - self.pad_top), min(self.in_w, columns - self.pad_left)

    @property
    def name(self) -> str:
        """For the names of what depends on the whole shape."""
        sizes = "x".join(map(str, (self.in_h, self.in_w, self.in_c, self.out_h, self.out_w, self.out_c)))
        return (
            f"{self.filter_h}x{self.filter_w}_s8_dsp_{sizes}_s{self.stride_h}x{self.step}"
            f"d{self.dilation_h}x{self.dilation}p{self.pad_top}x{self.pad_left}"
        )


def _turned(shape: dict[str, int]) -> bool:
    return shape["in_w"] == shape["out_w"] == 1


def _window(shape: dict[str, int]) -> _Window:
    """The plane of a shape; a single column is turned into a single row, which lies in memory alike."""
    first, second = ("w", "h") if _turned(shape) else ("h", "w")
    top, left = ("pad_top", "pad_left") if first == "h" else ("pad_left", "pad_top")
    return _Window(
        in_h=shape[f"in_{first}"], in_w=shape[f"in_{second}"], in_c=shape["in_c"],
        out_h=shape[f"out_{first}"], out_w=shape[f"out_{second}"], out_c=shape["out_c"],
        filter_h=shape[f"filter_{first}"], filter_w=shape[f"filter_{second}"],
        stride_h=shape[f"stride_{first}"], step=shape[f"stride_{second}"],
        dilation_h=shape[f"dilation_{first}"], dilation=shape[f"dilation_{second}"],
        pad_top=shape[top], pad_left=shape[left],
    )  # fmt: skip


def _fits(window: _Window) -> bool:
    """Whether offsets are within their instructions' immediates."""
    reads = 4 * (window.steps + 8) <= 1020 and 8 * window.filter_h * window.steps <= BUDGET
    return reads and max(window.out_w, window.out_h) <= 512 and min(window.gathered) > 0


def _add(register: str, value: int) -> list[str]:
    """r2 is lost where the value is no immediate."""
    if value <= BUDGET:
        return [f"    addw {register}, {register}, #{value}"]
    upper = [f"    movt r2, #{value >> 16}"] if value >> 16 else []
    return [f"    movw r2, #{value & 0xFFFF}", *upper, f"    add {register}, {register}, r2"]


def _step(window: _Window, units: int, j: int) -> Iterator[str]:
    """`units` words of the plane from word j on, times the next weights."""
    single = window.step == 2
    yield "    ldr r12, [r1], #4" if single else "    ldrd r12, lr, [r1], #8"
    for first in range(0, units, 2):
        words = ("r2", "r3")[: units - first]
        at = 4 * (first + j)
        yield f"    ldrd r2, r3, [r0, #{at}]" if len(words) == 2 else f"    ldr r2, [r0, #{at}]"
        for unit, x in enumerate(words, first):
            if single:
                yield f"    smlad r{4 + unit}, {x}, r12, r{4 + unit}"
            else:
                yield f"    smlad r{4 + 2 * unit}, {x}, r12, r{4 + 2 * unit}"
                yield f"    smlad r{5 + 2 * unit}, {x}, lr, r{5 + 2 * unit}"


def _block(window: _Window, result: Tail, outputs: int, optimize: Optimize) -> Iterator[str]:
    """`outputs` (at most 8) of a row; the pointers in the frame move on."""
    units = outputs if window.step == 2 else (outputs + 1) // 2
    per_row = window.steps * (1 if window.step == 2 else 2)
    unrolled = window.filter_h * window.steps <= _UNROLLED[optimize] or window.filter_h == 1
    below = window.row_bytes * window.dilation_h
    last = 3 + units * (1 if window.step == 2 else 2)
    yield f"    ldm sp, {{r4-r{last}}}" if last > 4 else "    ldr r4, [sp]"
    yield f"    ldr r0, [sp, #{_X}]"
    yield f"    ldr r1, [sp, #{_WEIGHTS}]"
    if not unrolled:
        yield f"    addw r2, r1, #{4 * per_row * window.filter_h}"
        yield f"    str r2, [sp, #{_TAPS}]"
        yield "    3:"
    for row in range(window.filter_h if unrolled else 1):
        for j in range(window.steps):
            yield from _step(window, units, j)
        if not unrolled or row + 1 < window.filter_h:
            yield from _add("r0", below)
    if not unrolled:
        yield from (f"    ldr r2, [sp, #{_TAPS}]", "    cmp r1, r2", "    bne 3b")
    values = [f"r{4 + i}" for i in range(outputs)]
    yield f"    ldrd r2, r3, [sp, #{_FACTOR}]"
    if result.short is not None:
        yield from (f"    smmla {v}, {v}, r2, r3" for v in values)
        yield from (f"    ssat {v}, #8, {v}, asr #{result.shift(0)}" for v in values)
    else:
        for v in values:
            yield from general_product(v, 0, "r2", "r3")
        yield f"    ldr r2, [sp, #{_EXPONENT}]"
        for v in values:
            yield from general_result(result, v, "r2")
    apart = window.out_c * window.dilation
    yield f"    ldrd r0, r1, [sp, #{_X}]"
    if 7 * apart <= BUDGET:
        yield from (f"    strb {v}, [r1, #{i * apart}]" for i, v in enumerate(values))
        yield from _add("r1", outputs * apart)
    else:
        yield from (f"    movw r2, #{apart & 0xFFFF}", f"    movt r2, #{apart >> 16}")
        yield from (line for v in values for line in (f"    strb {v}, [r1]", "    add r1, r1, r2"))
    yield f"    addw r0, r0, #{4 * units}"
    yield f"    strd r0, r1, [sp, #{_X}]"


def _kernel(window: _Window, remainder: int, result: Tail, optimize: Optimize) -> tuple[str, Source, int]:
    """All outputs of a channel in columns with a remainder modulo the dilation."""
    outputs = window.outputs(remainder)
    blocks, rest = divmod(outputs, 8)
    name = f"edgeq_depthwise_{window.name}_{outputs}_{result.name}"
    lines = [
        "    push {r4-r11, lr}", f"    sub sp, sp, #{_FRAME}", "    ldm r2!, {r4, r5, r6, r7}",
        *(f"    strd r4, r4, [sp, #{8 * i}]" for i in range(4)),
        f"    strd r5, r6, [sp, #{_FACTOR}]", f"    strd r7, r2, [sp, #{_EXPONENT}]",
        f"    strd r0, r1, [sp, #{_ROW_X}]", f"    movw r4, #{window.out_h}", f"    str r4, [sp, #{_ROWS}]",
        "    1:", f"    ldrd r0, r1, [sp, #{_ROW_X}]", f"    strd r0, r1, [sp, #{_X}]",
    ]  # fmt: skip
    if blocks > 1:
        lines += [f"    addw r2, r0, #{blocks * (32 if window.step == 2 else 16)}", f"    str r2, [sp, #{_BLOCKS}]"]
        lines += ["    2:"]
    if blocks:
        lines += _block(window, result, 8, optimize)
    if blocks > 1:
        lines += [f"    ldr r2, [sp, #{_BLOCKS}]", "    cmp r0, r2", "    bne 2b"]
    if rest:
        lines += _block(window, result, rest, optimize)
    lines += [
        f"    ldrd r0, r1, [sp, #{_ROW_X}]", *_add("r0", window.row_bytes * window.stride_h),
        *_add("r1", window.out_w * window.out_c), f"    strd r0, r1, [sp, #{_ROW_X}]",
        f"    ldr r2, [sp, #{_ROWS}]", "    subs r2, r2, #1", f"    str r2, [sp, #{_ROWS}]", "    bne 1b",
        f"    add sp, sp, #{_FRAME}", "    pop {r4-r11, pc}",
    ]  # fmt: skip
    prototype = f"void {name}(const int16_t *plane, int8_t *y, const int32_t *channel);"
    comment = (
        f"{window.filter_h}x{window.filter_w} depthwise, stride {window.stride_h}x{window.step}: a channel's "
        f"{window.out_h} rows of {outputs} outputs, 8 at a time,\n"
        " * which share each word of weights. r0 plane, r1 weights, r2-r3 activations, r4-r11 accumulators."
    )
    text = f"#include <stdint.h>\n\n{prototype}\n\n{function(name, comment, lines)}"
    return name, Source(name.removeprefix("edgeq_"), text, prototype), 4 * len(lines)


def _channels(window: _Window, flat: NDArray[np.int8], result: Tail) -> NDArray[np.int32]:
    """Per channel: start value, multiplier, addend, exponent, words of weights."""
    taps = flat.astype(np.int64).reshape(len(flat), window.filter_h, window.filter_w)
    width = 2 * window.steps
    even = np.pad(taps, ((0, 0), (0, 0), (0, width - window.filter_w)))
    both = [even] if window.step == 2 else [even, np.roll(even, 1, axis=2)]
    halves = np.stack(both, axis=3).reshape(len(flat), window.filter_h, window.steps, 2, len(both)) & 0xFFFF
    words = (halves[..., 0, :] | halves[..., 1, :] << 16).reshape(len(flat), -1)
    ends = np.pad(result.parameters, ((0, 0), (0, 3 - result.parameters.shape[1])))
    return as_words(np.concatenate([result.bias[:, None], ends, words], axis=1))


def _gather(window: _Window) -> str:
    """C: a channel of the input into the plane's interior."""
    height, width = window.gathered
    start = window.row_bytes // 2 * window.pad_top
    lines = []
    if window.dilation == 1:
        at = f"plane + {start + window.pad_left}"
        whole = width // _GATHERED

        def copies(count: int, indent: str) -> list[str]:
            return [f"{indent}into[{i}] = x[{i * window.in_c}];" for i in range(count)]

        if whole > 1:
            step = [f"into += {_GATHERED};", f"x += {_GATHERED * window.in_c};"]
            lines += [f"        for (int32_t block = 0; block < {whole}; block++) {{",
                      *copies(_GATHERED, " " * 12), *(" " * 12 + line for line in step), "        }"]  # fmt: skip
        done = whole * _GATHERED if whole > 1 else 0
        lines += copies(width - done, " " * 8)
        over, down = (window.in_w - done) * window.in_c, window.row_bytes // 2 - done
    else:
        at, d = f"plane + {start}", window.dilation
        lines += [
            f"        for (int32_t column = {window.pad_left}; column < {window.pad_left + width}; column++) {{",
            f"            into[column % {d} * {2 * window.segment} + column / {d}] = "
            f"x[(column - {window.pad_left}) * {window.in_c}];",
            "        }",
        ]
        over, down = window.in_w * window.in_c, window.row_bytes // 2
    body = "\n".join(lines)
    return f"""static void gather(const int8_t *x, int16_t *plane) {{
    int16_t *into = {at};
    for (int32_t row = 0; row < {height}; row++, into += {down}, x += {over}) {{
{body}
    }}
}}
"""


def _steps(window: _Window, exact: Requantization) -> str:
    """C: a channel without a proven form; c: start value, multiplier, exponent, channel, weights as bytes."""
    d = window.dilation
    return f"""
/* TFLM's steps, for channels without a proven form. c: start value, multiplier, exponent, channel, weights. */
static void steps(const int16_t *plane, int8_t *y, const int32_t *c) {{
    for (int32_t row = 0; row < {window.out_h}; row++) {{
        for (int32_t column = 0; column < {window.out_w}; column++) {{
            const int8_t *w = (const int8_t *)(c + 4);
            int32_t acc = c[0];
            for (int32_t i = 0; i < {window.filter_h}; i++) {{
                for (int32_t k = 0; k < {window.filter_w}; k++) {{
                    const int32_t at = column * {window.step} + k * {d};
                    acc += *w++ * plane[(row * {window.stride_h} + i * {window.dilation_h}) * {window.row_bytes // 2} +
                                        at % {d} * {2 * window.segment} + at / {d}];
                }}
            }}
            acc = edgeq_requantize(acc, c[1], -c[2]) + {exact.zero_point};
            y[(row * {window.out_w} + column) * {window.out_c}] =
                (int8_t)edgeq_clamp(acc, {exact.minimum}, {exact.maximum});
        }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class _Part:
    """Channels first .. last - 1, each `words` words of the table, by these kernels: one for each remainder."""

    first: int
    last: int
    words: int
    kernels: tuple[tuple[str, Source, int], ...]


def _driver(
    window: _Window, zero: int, parts: Sequence[_Part], *, exact: Requantization, rest: int, layer: int
) -> tuple[str, Source]:
    """The C that fills the border, gathers each channel and calls the kernels; then `rest` channels by `exact`."""
    mixed = f"_mixed{layer}" if len(parts) > 1 or rest else ""
    name = f"{parts[0].kernels[0][0]}_z{zero + 128}{mixed}"
    prototype = f"void {name}(const int8_t *x, int8_t *y, int16_t *plane, const int32_t *c);"
    prototypes = "\n".join(dict.fromkeys(k[1].prototypes for part in parts for k in part.kernels))
    multiplier = window.out_c // window.in_c
    source = "channel" if multiplier == 1 else f"channel / {multiplier}"
    loops = ""
    for part in parts:
        calls = [
            f"        {kernel}(plane + {2 * window.segment * r}, y + channel + {r * window.out_c}, c);\n"
            for r, (kernel, _, _) in enumerate(part.kernels)
        ]
        loops += f"""    for (int32_t channel = {part.first}; channel < {part.last}; channel++, c += {part.words}) {{
        gather(x + {source}, plane);
{"".join(calls)}    }}
"""
    if rest:
        words = 4 + -(-window.filter_h * window.filter_w // 4)
        loops += f"""    for (int32_t i = 0; i < {rest}; i++, c += {words}) {{
        gather(x + c[3]{"" if multiplier == 1 else f" / {multiplier}"}, plane);
        steps(plane, y + c[3], c);
    }}
"""
    include = '#include "edgeq/arithmetic.h"\n' if rest else ""
    text = f"""#include <stdint.h>
{include}
{prototypes}
{prototype}

{_gather(window)}{_steps(window, exact) if rest else ""}
/* {window.filter_h}x{window.filter_w} depthwise, {window.in_h}x{window.in_w}x{window.in_c} -> {window.out_h}x\
{window.out_w}x{window.out_c}. The plane's border is the input's zero point, {zero}; its interior is written anew for
 * each channel. c: start value, requantization, weights. */
{prototype[:-1]} {{
    for (int32_t i = 0; i < {window.rows * window.row_bytes // 2}; i++) {{
        plane[i] = {zero};
    }}
{loops}}}
"""
    return name, Source(name.removeprefix("edgeq_"), text, prototype)


def _cost(window: _Window, ending: Ending) -> float:
    """Executed instructions."""
    height, width = window.gathered
    each = 30.0 + 6 * window.dilation * window.out_h + (2.2 if window.dilation == 1 else 9) * height * width
    for remainder in range(window.dilation):
        blocks, rest = divmod(window.outputs(remainder), 8)
        for outputs, count in ((8, blocks), (rest, 1)):
            units = outputs if window.step == 2 else (outputs + 1) // 2
            loads = 1 + (units + 1) // 2 + units * (1 if window.step == 2 else 2)
            block = window.filter_h * (window.steps * loads + 2) + 12 + 3 * outputs
            each += window.out_h * count * block if outputs else 0
    outputs = window.out_h * window.out_w
    steps = len(ending.rest) * outputs * (12 * window.filter_h * window.filter_w + 40)
    return window.out_c * each + 4 * outputs * ending.general + steps


@variant("DEPTHWISE_CONV_2D")
def depthwise_window(node: Node) -> Iterator[Step]:
    """Any window; see the module."""
    layer = Windowed.of(node) if applies(node) else None
    if layer is None:
        return
    shape, constants = layer.shape, layer.constants
    taps = constants.weights.reshape(shape["filter_h"], shape["filter_w"], -1)
    flat = (taps.transpose(1, 0, 2) if _turned(shape) else taps).reshape(-1, shape["out_c"]).T
    exact = requantization(node, constants, flat)
    if exact is None or shape["batches"] != 1 or shape["out_c"] % shape["in_c"]:
        return
    window = _window(shape)
    if (window.step, window.dilation > 1) not in {(1, False), (1, True), (2, False)} or not _fits(window):
        return
    folded, up = folded_bias(node, constants.bias, flat), np.zeros(len(flat), np.int64)
    for ending in endings(exact, flat.astype(np.int64), folded, up=up, preferred=_SHIFTS, group=1):
        yield _layer(node, window, (flat, folded), exact, ending)


def _layer(
    node: Node, window: _Window, linear: tuple[NDArray[np.int8], Ints], exact: Requantization, ending: Ending
) -> Step:
    source, result, (flat, folded) = node.input(0), node.output(), linear
    parts, tables = [], []
    for run in ending.without_rest():
        remainders = range(min(window.dilation, window.out_w))
        kernels = tuple(_kernel(window, r, run.end, node.target.optimize) for r in remainders)
        tables.append(_channels(window, flat[run.first : run.last], run.end))
        parts.append(_Part(run.first, run.last, len(tables[-1]) // (run.last - run.first), kernels))
    if len(ending.rest):
        heads = np.stack([folded, exact.multiplier, exact.exponent, np.arange(len(flat))], axis=1)
        tables.append(as_words(np.concatenate([heads, bytes_as_words(flat.astype(np.int64))], axis=1)[ending.rest]))
    driver, driver_source = _driver(
        window, zero_point(source), parts, exact=exact, rest=len(ending.rest), layer=node.operator.index
    )
    code = {kernel[1]: kernel[2] for part in parts for kernel in part.kernels}
    same = (window.in_h, window.in_w, window.in_c) == (window.out_h, window.out_w, window.out_c)
    return Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel="depthwise_conv_2d_s8_dsp",
        method=f"{window.filter_h}x{window.filter_w}, stride {window.stride_h}x{window.step}, one channel at a time on "
        f"an int16 plane, eight outputs share each weight, {ending.method}",
        calls=(f"{driver}({{t{source.index}}}, {{t{result.index}}}, {{scratch}}, {{channels}});",),
        inputs=(source.index,),
        outputs=(result.index,),
        constants=(Constant("channels", "int32_t", np.concatenate(tables)),),
        scratch_bytes=window.rows * window.row_bytes,
        overlaps=(Overlap(source.index, result.index, 0, exact=True),) if same else (),
        headers=("arithmetic.h",) if len(ending.rest) else (),
        emitted=(*code, driver_source),
        macs=result.elements * window.filter_h * window.filter_w,
        cost=_cost(window, ending),
        code_bytes=sum(code.values())
        + 150
        + 8 * min(window.gathered[1], 2 * _GATHERED)
        + (150 if len(ending.rest) else 0),
    )
