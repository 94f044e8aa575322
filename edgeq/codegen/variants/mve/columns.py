"""Convolutions with few bytes a row of the filter (10x4x1, 3x3x3), by column buffers; with the depthwise layer behind.

Data. For every output column, the bytes of the padded input that its windows use are copied, row after row. A window
is then one run of filter_h * filter_w * C bytes, windows one below the other overlap, and all loads are full: 3 a
window for 10x4x1 instead of 10. The sums are those of a 1x1 convolution (dot.kernel), down a column.

Fused with a depthwise layer on rows, the bytes of a pair of channels go into its planes (scratch) instead of NHWC.

Obligations: those of convolution and depthwise; the buffers take at most 4 KiB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.registry import variant
from edgeq.codegen.step import Constant, Node, Step
from edgeq.codegen.variants.mve import dot, requantize
from edgeq.codegen.variants.mve.common import ACCUMULATORS, SUMS_BUFFER, Kernel, arguments, assembly, driver, sources
from edgeq.codegen.variants.mve.convolution import Convolution, copy_kernel
from edgeq.codegen.variants.mve.depthwise import FRONT
from edgeq.codegen.variants.mve.planes import Depthwise, following_depthwise

_BUFFERS_BYTES = 4096


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """A convolution by column buffers."""

    conv: Convolution

    @property
    def run(self) -> int:
        """Bytes of a row of the filter."""
        return self.conv.shape["filter_w"] * self.conv.shape["in_c"]

    @property
    def rows(self) -> int:
        """Rows of the padded input."""
        s = self.conv.shape
        return (s["out_h"] - 1) * s["stride_h"] + s["filter_h"]

    @property
    def step(self) -> int:
        """Bytes from a window to the one below."""
        return self.conv.shape["stride_h"] * self.run

    @property
    def column_bytes(self) -> int:
        return -(-(self.rows * self.run + 16) // 16) * 16

    @property
    def padded_bytes(self) -> int:
        return self.rows * self.conv.pitch + 32

    @property
    def starts(self) -> tuple[int, ...]:
        return tuple(range(0, self.conv.shape["filter_h"] * self.run, 16))

    @property
    def scratch_bytes(self) -> int:
        return self.padded_bytes + self.conv.shape["out_w"] * self.column_bytes

    @property
    def applies(self) -> bool:
        """Whether the kernels can do it, the buffers are small and loads are saved."""
        s = self.conv.shape
        possible = 3 <= s["out_h"] <= ACCUMULATORS and self.run <= 64 and self.step <= 127
        saved = len(self.starts) < s["filter_h"] * -(-self.run // 16)
        return possible and saved and self.starts[-1] <= 512 and self.scratch_bytes <= _BUFFERS_BYTES

    @property
    def packed(self) -> NDArray[np.int8]:
        weights = self.conv.weights
        return dot.pack(dot.vectors(weights.reshape(len(weights), -1), self.starts))

    @property
    def cost(self) -> float:
        """Instructions without a depthwise layer."""
        s = self.conv.shape
        per_output = dot.cost(self.starts, self.step) + 1.0 + self.conv.end.cost
        return s["out_w"] * (s["out_c"] * (s["out_h"] * per_output + 40) + self.rows * 5)


def build_kernel(run: int, row_bytes: int) -> Kernel:
    """(first byte, column buffer, rows): `run` bytes of every row; up to 15 bytes beyond the last are written."""
    loads = range(0, run, 16)
    lines = ["dls lr, r2", "1:", *(f"vldrb.8 q{i}, [r0, #{o}]" for i, o in enumerate(loads))]
    lines += [f"vstrb.8 q{i}, [r1, #{o}]" for i, o in enumerate(loads)]
    lines += [f"addw r0, r0, #{row_bytes}", f"adds r1, r1, #{run}", "le lr, 1b"]
    return assembly(
        f"edgeq_mve_columns_{run}_{row_bytes}",
        "const int8_t *rows, int8_t *column, int32_t count",
        f"{run} bytes of every {row_bytes} bytes, one run after the other.",
        lines,
    )


@variant("CONV_2D")
def columns(node: Node) -> Iterator[Step]:
    """Column buffers, alone and with the depthwise layer behind; see the module."""
    conv = Convolution.of(node)
    if conv is None or not _Columns(conv).applies:
        return
    yield _step(node, node, _Columns(conv), None)
    follower = following_depthwise(node)
    d = None if follower is None else Depthwise.of(follower)
    if follower is not None and d is not None and d.fill is None:
        yield _step(node, follower, _Columns(conv), d)


def _load(c: _Columns, copy: Kernel, build: Kernel) -> str:
    """C: the padded input, then the column buffers."""
    s, pitch = c.conv.shape, c.conv.pitch
    row_bytes = s["in_w"] * s["in_c"]
    first = s["pad_top"] * pitch + s["pad_left"] * s["in_c"]
    return f"""    int8_t *const columns = rows + {c.padded_bytes};
    memset(rows, {c.conv.zero_point}, {c.padded_bytes});
    for (int32_t r = 0; r < {min(s["in_h"], c.rows - s["pad_top"])}; r++) {{
        {copy.name}(x + r * {row_bytes}, rows + r * {pitch} + {first}, {row_bytes});
    }}
    for (int32_t o = 0; o < {s["out_w"]}; o++) {{
        {build.name}(rows + o * {s["stride_w"] * s["in_c"]}, columns + o * {c.column_bytes}, {c.rows});
    }}
"""


def _body(c: _Columns, kernel: Kernel, scatter: Kernel, d: Depthwise | None) -> str:
    """C: per pair of channels the sums and bytes of every column, then the depthwise layer."""
    s = c.conv.shape
    out_w, out_h, out_c = s["out_w"], s["out_h"], s["out_c"]
    last = out_h - 3
    rest = f"            {kernel.name}(column + {last * c.step}, pair, sums + {last}, 1);\n" if out_h % 3 else ""
    stored = ""
    for i in range(2):
        to = f"planes + {FRONT + i * d.plane_bytes} + o" if d else f"y + o * {out_c} + c + {i}"
        sums = f"sums + {ACCUMULATORS}" if i else "sums"
        stored += f"            {scatter.name}({sums}, {to}, requantize + 4 * (c + {i}), {out_h});\n"
    finish = ""
    if d:
        finish = f"""        for (int32_t i = 0; i < 2; i++) {{
{d.finish(f"planes + i * {d.plane_bytes}", "(c + i)")}        }}
"""
    return f"""    for (int32_t c = 0; c < {out_c}; c += 2) {{
        const int8_t *const pair = weights + c * {len(c.packed) // out_c};
        for (int32_t o = 0; o < {out_w}; o++) {{
            const int8_t *const column = columns + o * {c.column_bytes};
            {kernel.name}(column, pair, sums, {out_h // 3});
{rest}{stored}        }}
{finish}    }}
"""


def _step(node: Node, last: Node, c: _Columns, d: Depthwise | None) -> Step:
    s = c.conv.shape
    apart = s["out_w"] * (1 if d else s["out_c"])
    kernel = dot.kernel(c.starts, c.step)
    scatter = requantize.scatter(c.conv.end, requantize.every(apart))
    copy, build = copy_kernel(), build_kernel(c.run, c.conv.pitch)
    kernels = [kernel, scatter, copy, build, *(d.kernels if d else [])]
    planes = 2 * d.plane_bytes if d else 0
    start = f"    int8_t *const rows = planes + {planes};\n{d.clear(2)}" if d else ""
    name = f"edgeq_mve_columns_conv_{c.conv.text}" + (f"_depthwise_{d.name}" if d else "")
    constants = (Constant("weights", "int8_t", c.packed, 16), c.conv.parameters, *(d.constants if d else ()))
    listed = ", ".join(f"const {constant.c_type} *{constant.name}" for constant in constants)
    call = driver(
        name,
        f"const int8_t *x, {listed}, int8_t *y, int8_t *{'planes' if d else 'rows'}",
        "Convolution by column buffers" + (", then depthwise on the planes of two channels." if d else "."),
        SUMS_BUFFER + start + _load(c, copy, build) + _body(c, kernel, scatter, d),
        kernels,
    )
    source, result = node.input(0), last.output()
    return Step(
        operator=node.operator.index,
        name=node.operator.name + (f" + {last.operator.name}" if d else ""),
        kernel=name.removeprefix("edgeq_"),
        method=f"MVE, column buffers, pairs of channels, {c.conv.end.name} requantization" + (", fused" if d else ""),
        calls=(f"{name}({{t{source.index}}}, {arguments(*constants)}, {{t{result.index}}}, {{scratch}});",),
        inputs=(source.index,),
        outputs=(result.index,),
        constants=constants,
        scratch_bytes=planes + c.scratch_bytes,
        emitted=sources(*kernels, call),
        macs=c.conv.macs + (d.macs if d else 0),
        cost=c.cost + (d.cost if d else 0),
        code_bytes=800 + (400 if d else 0),
        covers=2 if d else 1,
    )
