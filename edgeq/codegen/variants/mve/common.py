"""What the MVE kernels share: assembly functions, the requantization parameters and their proof, C drivers.

A kernel is a leaf function in top-level assembly (dsp.common.function): gcc and clang run the same instructions and
nothing spills. Around it a driver in C, emitted for the layer's shape, loops over channels and blocks of pixels.

Accumulators are the even registers that VMLADAV can write, at most 8; the Q registers hold weights that stay for a
whole loop, a few that stream, and one vector of activations. All vector loads of activations are of bytes, so they
need no alignment; accumulators and packed weights are 16-byte aligned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.arithmetic import Ints, doubling_high_mul
from edgeq.codegen.lower.convolution import Weights
from edgeq.codegen.proofs import Requantization
from edgeq.codegen.step import Constant, Node, Source
from edgeq.codegen.variants.assembly import function
from edgeq.codegen.variants.layers import folded_bias, requantization
from edgeq.graph.ir import TensorType

INT32_LIMIT = 2**31

FLOOR = 256
"""A flag in a channel's last parameter, beyond the byte that VQSHL reads; see Tail."""

ACCUMULATORS = 78
"""Accumulators of a channel, in a driver's buffer, before the next channel's: the largest block of pixels."""

SUMS = 2 * ACCUMULATORS
"""Accumulators in a driver's buffer on the stack; 8 more may be read."""

SUMS_BUFFER = f"    int32_t sums[{SUMS + 8}] __attribute__((aligned(16)));\n"


_EXTENSION = """#ifndef __ARM_FEATURE_MVE
__asm__(".arch_extension mve.fp");
#endif
"""
"""A compiler's idea of the core may leave MVE out (zig's cortex_m55 does)."""


def applies(node: Node) -> bool:
    """Whether the core has MVE and the operator takes int8 in and out."""
    return node.target.family == "mve" and all(t.type is TensorType.INT8 for t in (node.input(0), node.output()))


@dataclass(frozen=True, slots=True)
class Kernel:
    """A function: its external name, its C prototype, the text of its file, the kernels that it calls by itself."""

    name: str
    prototype: str
    text: str
    needs: tuple[Kernel, ...] = ()

    @property
    def source(self) -> Source:
        return Source(self.name.removeprefix("edgeq_"), self.text, self.prototype)


def assembly(name: str, parameters: str, comment: str, body: Iterable[str], save: Sequence[str] = ()) -> Kernel:
    """A kernel in assembly; r4-r11 and lr are saved around the body, and the vector registers `save` (d8, ...)."""
    vectors = f"{{{save[0]}-{save[-1]}}}" if save else ""
    lines = [
        "push {r3-r11, lr}", *([f"vpush {vectors}"] if save else []), *body,
        *([f"vpop {vectors}"] if save else []), "pop {r3-r11, pc}",
    ]  # fmt: skip
    tables = [line for line in lines if line.startswith(("9:", ".hword", ".word", ".balign"))]
    code = [line for line in lines if line not in tables]
    return Kernel(name, f"void {name}({parameters});", _EXTENSION + function(name, comment, [*code, *tables]))


def driver(name: str, parameters: str, comment: str, body: str, kernels: Sequence[Kernel]) -> Kernel:
    """A C function that calls kernels."""
    prototypes = "\n".join(dict.fromkeys([*(k.prototype for k in kernels), f"void {name}({parameters});"]))
    include = "#include <string.h>\n" if "memset(" in body else ""
    include += '#include "edgeq/arithmetic.h"\n' if "edgeq_requantize(" in body else ""
    text = f"#include <stdint.h>\n{include}\n{prototypes}\n\n/* {comment} */\nvoid {name}({parameters}) {{\n{body}}}\n"
    return Kernel(name, f"void {name}({parameters});", text)


def either(end: Tail, make: Callable[[Tail], Kernel]) -> Kernel:
    """A requantizing kernel of the mixed form: for each channel that of its form, which `make` makes."""
    floor, signed = make(replace(end, form="floor")), make(replace(end, form="signed"))
    name = floor.name.replace("_floor", "_mixed", 1)
    parameters = floor.prototype.split("(")[1].removesuffix(");")
    given = ", ".join(part.split()[-1].lstrip("*") for part in parameters.split(","))
    body = f"""    if (parameters[3] & {FLOOR}) {{
        {floor.name}({given});
    }} else {{
        {signed.name}({given});
    }}
"""
    kernel = driver(name, parameters, "A channel by the form that is proven for it.", body, [floor, signed])
    return replace(kernel, needs=(floor, signed))


def arguments(*constants: Constant) -> str:
    """Placeholders of constants, as arguments of a call."""
    return ", ".join(f"{{{c.name}}}" for c in constants)


def sources(*kernels: Kernel) -> tuple[Source, ...]:
    return tuple(k.source for k in dict.fromkeys(k for kernel in kernels for k in (*kernel.needs, kernel)))


@dataclass(frozen=True, slots=True, eq=False)
class Tail:
    """How accumulators become bytes, each channel by a form that is proven for it.

    Floor form: saturate((rdmulh(acc + bias, m) + addend) >> e). A negative result is floored where TFLM rounds ties
    away from zero; the proof shows that no accumulator tells the two apart (ReLU: all of them clamp; e = 0: no ties).
    Signed form: the accumulator's sign is added before the shift, which is TFLM's rounding wherever e > 0.
    Mixed: the floor form for channels whose last parameter has the bit `FLOOR`, the signed form for the others.
    minimum, maximum: clamps beyond int8's own. parameters [channels, 4]: bias, m, addend, 24 - e (for VQSHL, which
    reads its low byte: the saturated byte is the top one).
    """

    form: Literal["floor", "signed", "mixed"]
    minimum: int
    maximum: int
    parameters: NDArray[np.int32]

    @property
    def clamped(self) -> bool:
        return (self.minimum, self.maximum) != (-128, 127)

    @property
    def signed(self) -> bool:
        return self.form == "signed"

    @property
    def name(self) -> str:
        clamp = f"_{self.minimum + 128}_{self.maximum + 128}" if self.clamped else ""
        return self.form + clamp

    @property
    def cost(self) -> float:
        """Instructions an output beyond loading, packing and storing."""
        return 0.75 if self.form == "floor" else 1.25


def tail_of(node: Node, constants: Weights, flat: NDArray[np.int8]) -> Tail | None:
    """The tail of a convolution-like operator with weights [channels, taps]; None where there is none."""

    def make() -> Tail | None:
        exact = requantization(node, constants, flat)
        return None if exact is None else tail(exact, folded_bias(node, constants.bias, flat))

    return node.once(("mve tail", flat.shape), make)


def tail(exact: Requantization, folded: Ints) -> Tail | None:
    """The shortest proven form, or None. folded: bias - input zero point * sum(weights), per channel."""
    constant = exact.constant
    exponent = np.where(constant, 8, exact.exponent)
    if bool((exponent > 22).any()):
        return None
    value = np.where(constant, exact.at_ends[:, 0], exact.zero_point)
    multiplier = np.where(constant, 0, exact.multiplier)
    addend = (value << exponent) + (np.int64(1) << exponent >> 1)
    reach = np.maximum(np.abs(exact.low), np.abs(exact.high)) + np.abs(addend) + 1
    if bool((reach >= INT32_LIMIT).any()):
        return None

    def signed_form(acc: Ints) -> Ints:
        total = doubling_high_mul(acc, multiplier[:, None]) + np.where(acc < 0, -1, 0) + addend[:, None]
        return np.asarray(np.clip(np.clip(total >> exponent[:, None], -128, 127), exact.minimum, exact.maximum))

    least, most = exact.own_line
    start = (addend << 31) + (1 << 30)  # what the floor form adds to acc * multiplier, in units of 2^-31
    floor = constant | ((least <= start) & (start < most))
    table = np.stack([folded, multiplier, addend, 24 - exponent], axis=1).astype(np.int32)
    if bool(floor.all()):
        return Tail("floor", exact.minimum, exact.maximum, table)
    signed = exact.agrees(signed_form)
    single = not np.ptp(exact.multiplier) and not np.ptp(exact.exponent)
    if bool(signed.all()) and (single or 2 * floor.sum() < len(floor)):
        return Tail("signed", exact.minimum, exact.maximum, table)
    if not bool((floor | signed).all()):
        return None
    table[floor, 3] |= FLOOR
    return Tail("mixed", exact.minimum, exact.maximum, table)


def requantize_lines(end: Tail, vectors: Sequence[int], results: Sequence[int]) -> list[str]:
    """Instructions from raw accumulators in q<vectors> to bytes at the top of the words of q<results>.

    r4-r7 hold the channel's parameters. Floor form: in place (results = vectors), the multiplier in q7 of every lane.
    """
    if not end.signed:
        assert list(vectors) == list(results)
        lines = [f"vadd.i32 q{v}, q{v}, r4" for v in vectors]
        lines += [f"vqrdmlash.s32 q{v}, q7, r6" for v in vectors]
    else:
        lines = [f"vadd.i32 q{v}, q{v}, r4" for v in vectors]
        lines += [f"vshr.s32 q{r}, q{v}, #31" for v, r in zip(vectors, results, strict=True)]
        lines += [f"vqrdmlah.s32 q{r}, q{v}, r5" for v, r in zip(vectors, results, strict=True)]
        lines += [f"vadd.i32 q{r}, q{r}, r6" for r in results]
    return lines + [f"vqshl.s32 q{r}, r7" for r in results]
