"""The requantizations of `common` as C: a static inline function from an accumulator and a channel's constants."""

from __future__ import annotations

import numpy as np

from edgeq.codegen.arithmetic import Ints
from edgeq.codegen.variants.scalar.common import LongForm, TwoProducts

Form = LongForm | TwoProducts


def parameters(form: Form) -> Ints:
    """What the C function reads, one row a channel."""
    if isinstance(form, LongForm):
        return form.parameters
    names = (form.most, form.addend, form.least, form.negative, form.shift, form.coarse, form.fine)
    return np.stack(names, axis=1)


def count(form: Form) -> int:
    """Words a channel."""
    return 4 if isinstance(form, LongForm) else 7


def name(form: Form) -> str:
    """For kernels' names: equal names, equal code."""
    core = "armv7m" if isinstance(form, LongForm) else f"armv6m_f{form.fine_bits}d{form.drop}"
    return f"{core}_{'relu' if form.plain else 'general'}"


def function(form: Form) -> str:
    """C of `static inline int8_t requantize(int32_t acc, const int32_t *p)`."""
    if isinstance(form, LongForm):
        sign = "" if form.plain else " - (acc < 0 ? (int64_t)1 << 31 : 0)"
        return f"""/* p: multiplier, constant (roundings and zero point), low and high word, shift. */
static inline int8_t requantize(int32_t acc, const int32_t *p) {{
    const int64_t constant = (int64_t)((uint64_t)(uint32_t)p[2] << 32 | (uint32_t)p[1]);
    const int64_t total = constant + (int64_t)acc * p[0]{sign};
    const int32_t value = (int32_t)(total >> 32) >> p[3];
    return (int8_t)(value < -128 ? -128 : value > 127 ? 127 : value);
}}
"""
    least = "acc &= ~(acc >> 31);" if form.plain else "acc = acc < p[2] ? p[2] : acc;"
    sign = "" if form.plain else "    product += product < 0 ? p[3] : 0;\n"
    return f"""/* p: most, addend, least, addend of negative sums, shift, coarse and fine factor; certified. */
static inline int8_t requantize(int32_t acc, const int32_t *p) {{
    {least}
    acc = acc > p[0] ? p[0] : acc;
    int32_t product = acc * p[5] + ((acc >> {form.drop}) * p[6] >> {form.fine_bits - form.drop});
{sign}    return (int8_t)((product + p[1]) >> p[4]);
}}
"""
