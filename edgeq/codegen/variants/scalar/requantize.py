"""The requantizations of `common` as C: a static inline function from an accumulator and a channel's constants."""

from __future__ import annotations

import numpy as np

from edgeq.codegen.arithmetic import Ints
from edgeq.codegen.proofs import Requantization
from edgeq.codegen.variants.scalar.common import LongForm, TwoProducts

Form = LongForm | TwoProducts


def mixed(form: Form) -> bool:
    """Whether some channels take the general form."""
    return not bool(form.proven.all())


def parameters(form: Form) -> Ints:
    """What the C function reads, one row a channel; where mixed, also multiplier and 1 + exponent, or twice 0."""
    if isinstance(form, LongForm):
        columns = form.parameters
    else:
        names = (form.most, form.addend, form.least, form.negative, form.shift, form.coarse, form.fine)
        columns = np.stack(names, axis=1)
    if not mixed(form):
        return columns
    general = np.stack([form.exact.multiplier, form.exact.exponent + 1], axis=1)
    return np.where(form.proven[:, None], np.pad(columns, ((0, 0), (0, 2))), np.pad(general, ((0, 0), (_own(form), 0))))


def _own(form: Form) -> int:
    return 4 if isinstance(form, LongForm) else 7


def count(form: Form) -> int:
    """Words a channel."""
    return _own(form) + (2 if mixed(form) else 0)


def name(form: Form) -> str:
    """For kernels' names: equal names, equal code."""
    core = "armv7m" if isinstance(form, LongForm) else f"armv6m_f{form.fine_bits}d{form.drop}"
    limits = (form.exact.zero_point, form.exact.minimum, form.exact.maximum)
    general = "_".join(["", "mixed", *(str(limit + 128) for limit in limits)]) if mixed(form) else ""
    return f"{core}_{'relu' if form.plain else 'general'}{general}"


def headers(form: Form) -> tuple[str, ...]:
    """What the C function includes."""
    return ("arithmetic.h",) if mixed(form) else ()


def clamped(exact: Requantization) -> str:
    """C that returns `value`, TFLM's result before its zero point, as int8_t."""
    least, most = exact.minimum, exact.maximum
    returned = f"return (int8_t)(value < {least} ? {least} : value > {most} ? {most} : value);"
    return f"value += {exact.zero_point};\n        {returned}"


def function(form: Form) -> str:
    """C of `static inline int8_t requantize(int32_t acc, const int32_t *p)`."""
    include, general = "", ""
    if mixed(form):
        at = _own(form)
        include = '#include "edgeq/arithmetic.h"\n\n'
        general = f"""    if (p[{at + 1}]) {{ /* no short form is proven for this channel: TFLM's steps */
        int32_t value = edgeq_requantize(acc, p[{at}], 1 - p[{at + 1}]);
        {clamped(form.exact)}
    }}
"""
    if isinstance(form, LongForm):
        sign = "" if form.plain else " - (acc < 0 ? (int64_t)1 << 31 : 0)"
        return f"""{include}/* p: multiplier, constant (roundings and zero point), low and high word, shift. */
static inline int8_t requantize(int32_t acc, const int32_t *p) {{
{general}    const int64_t constant = (int64_t)((uint64_t)(uint32_t)p[2] << 32 | (uint32_t)p[1]);
    const int64_t total = constant + (int64_t)acc * p[0]{sign};
    const int32_t value = (int32_t)(total >> 32) >> p[3];
    return (int8_t)(value < -128 ? -128 : value > 127 ? 127 : value);
}}
"""
    least = "acc &= ~(acc >> 31);" if form.plain else "acc = acc < p[2] ? p[2] : acc;"
    sign = "" if form.plain else "    product += product < 0 ? p[3] : 0;\n"
    return f"""{include}/* p: most, addend, least, addend of negative sums, shift, coarse and fine factor; certified. */
static inline int8_t requantize(int32_t acc, const int32_t *p) {{
{general}    {least}
    acc = acc > p[0] ? p[0] : acc;
    int32_t product = acc * p[5] + ((acc >> {form.drop}) * p[6] >> {form.fine_bits - form.drop});
{sign}    return (int8_t)((product + p[1]) >> p[4]);
}}
"""
