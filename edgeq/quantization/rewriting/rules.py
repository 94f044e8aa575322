"""What float operators are replaced by, so that nothing of a model has to stay in float.

A rule takes an operator of a float graph and returns what stands in its place: operators whose last one writes the same
tensor, in real numbers the same values; none at all, where its first input is its output. It returns None where it does
not apply. What a replaced operator alone read is dropped afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from edgeq.graph import Operator
from edgeq.quantization.rewriting.editing import Editor, operator

Rule = Callable[[Editor, Operator], "list[Operator] | None"]
_MOVES = ("RESHAPE", "TILE")
_LARGEST_INDEXED = 1 << 22
_FAR = 1e6
_MASKING = ("ADD", "MUL", "SELECT", "SELECT_V2")
_ON_THE_WAY = ("ADD", "RESHAPE", "TRANSPOSE")
_MASKS = (-12.0, -24.0, -48.0, -96.0)


@dataclass(frozen=True, slots=True)
class Kind:
    """A rule and how a user is told what it did."""

    told: str
    rule: Rule


def token_ids(edit: Editor, op: Operator) -> list[Operator] | None:
    """GATHER(table, id < 0 ? id + n : id) -> GATHER(table, id): token ids are not negative."""
    if op.name != "GATHER":
        return None
    choice = edit.writer(op.inputs[1], "SELECT", "SELECT_V2")
    if choice is None:
        return None
    less, wrapped, ids = edit.writer(choice.inputs[0], "LESS"), edit.writer(choice.inputs[1], "ADD"), choice.inputs[2]
    if less is None or wrapped is None or less.inputs[0] != ids or ids not in wrapped.inputs:
        return None
    zero = edit.value(less.inputs[1])
    if zero is None or np.any(zero):
        return None
    return [replace(op, inputs=(op.inputs[0], ids))]


def repeated(edit: Editor, op: Operator) -> list[Operator] | None:
    """Repeated rows and columns: RESHAPEs and TILEs -> RESIZE_NEAREST_NEIGHBOR; any other TILE likewise, axis by axis.

    A chain of RESHAPE and TILE moves elements and nothing else: what it does is known from what it does to their
    indices.
    """
    if op.name not in _MOVES:
        return None
    chain = _chain(edit, op)
    if not any(one.name == "TILE" for one in chain):
        return None
    source, shape = chain[0].inputs[0], edit.shape(op.outputs[0])
    before = edit.shape(source)
    if len(before) == 4 == len(shape) and all(b and not a % b for a, b in zip(shape, before, strict=True)):
        times = [a // b for a, b in zip(shape, before, strict=True)]
        if times[0] == times[3] == 1 and _moved(edit, chain, times):
            return [_resize(edit, op.outputs[0], source, op.outputs[0])]
    return _tile(edit, op) if op.name == "TILE" else None


def _chain(edit: Editor, op: Operator) -> list[Operator]:
    """The RESHAPEs and TILEs that end in `op`, each read by the next alone."""
    chain = [op]
    while (before := edit.writer(chain[0].inputs[0], *_MOVES)) is not None:
        if len(edit.readers[before.outputs[0]]) != 1 or before.outputs[0] in edit.graph.outputs:
            break
        chain.insert(0, before)
    return chain


def _moved(edit: Editor, chain: Sequence[Operator], times: Sequence[int]) -> bool:
    """Whether the chain repeats each row and column so many times, as evaluated on the elements' indices."""
    before = edit.shape(chain[0].inputs[0])
    if prod(edit.shape(chain[-1].outputs[0])) > _LARGEST_INDEXED:
        return False
    indices = np.arange(prod(before)).reshape(before)
    wanted = indices.repeat(times[1], axis=1).repeat(times[2], axis=2)
    for one in chain:
        if one.name == "TILE":
            multiples = edit.value(one.inputs[1])
            if multiples is None:
                return False
            indices = np.tile(indices, multiples)
        indices = indices.reshape(edit.shape(one.outputs[0]))
    return bool(np.array_equal(indices, wanted))


def _resize(edit: Editor, base: int, source: int, output: int) -> Operator:
    size = edit.constant(base, "size", edit.shape(output)[1:3], "int32")
    return operator("RESIZE_NEAREST_NEIGHBOR", (source, size), output)


def _tile(edit: Editor, op: Operator) -> list[Operator] | None:
    """TILE by k along an axis of size d: an image of one column of (d * what follows) channels, made k columns wide."""
    multiples = edit.value(op.inputs[1])
    if multiples is None:
        return None
    result, output = [], op.outputs[0]
    current, shape = op.inputs[0], list(edit.shape(op.inputs[0]))
    for axis, times in enumerate(map(int, multiples)):
        if times == 1:
            continue
        rows, channels = prod(shape[:axis]), prod(shape[axis:])
        shape[axis] *= times
        image = edit.activation(output, f"image{axis}", (1, rows, 1, channels))
        wide = edit.activation(output, f"wide{axis}", (1, rows, times, channels))
        result += [_reshape(edit, output, current, image), _resize(edit, output, image, wide)]
        current = wide
    return [*result, _reshape(edit, output, current, output)]


def _reshape(edit: Editor, base: int, source: int, output: int) -> Operator:
    shape = edit.shape(output)
    return operator("RESHAPE", (source, edit.constant(base, "shape", shape, "int32")), output, new_shape=shape)


def normalization(edit: Editor, op: Operator) -> list[Operator] | None:
    """x * i + (-m * i + b) -> (x - m) * i + b: the difference is small, and so is its scale."""
    if op.name != "ADD" or not _plain(op):
        return None
    for scaled, shifted in (op.inputs, op.inputs[::-1]):
        product = edit.writer(scaled, "MUL")
        offset: int | None = shifted
        added: int | None = None
        addition = edit.writer(shifted, "ADD")
        if addition is not None and _plain(addition):
            offset, added = _split(edit, addition, "MUL")
        lowered = edit.writer(offset, "MUL") if offset is not None else None
        if product is None or lowered is None or not (_plain(product) and _plain(lowered)):
            continue
        negated, factor = _split(edit, lowered, "NEG")
        if negated is None or factor not in product.inputs:
            continue
        mean = edit.writers[negated].inputs[0]
        x = product.inputs[1 - product.inputs.index(factor)]
        output = op.outputs[0]
        difference = edit.activation(output, "centred", edit.shape(x))
        result = [operator("SUB", (x, mean), difference)]
        if added is None:
            return [*result, operator("MUL", (difference, factor), output)]
        centred = edit.activation(output, "scaled", edit.shape(output))
        return [*result, operator("MUL", (difference, factor), centred), operator("ADD", (centred, added), output)]
    return None


def _split(edit: Editor, op: Operator, name: str) -> tuple[int | None, int]:
    """Of the operator's two inputs the one that `name` writes, and the other."""
    first, second = op.inputs
    if edit.writer(first, name) is not None:
        return first, second
    return (second, first) if edit.writer(second, name) is not None else (None, second)


def two_sides(edit: Editor, op: Operator) -> list[Operator] | None:
    """x > 0 ? f(x) : g(x) -> f(max(x, 0)) + g(min(x, 0)), where f(0) = g(0) = 0."""
    if op.name not in ("SELECT", "SELECT_V2"):
        return None
    condition, above, below = op.inputs
    greater = edit.writer(condition, "GREATER")
    zero = edit.value(greater.inputs[1]) if greater is not None else None
    if greater is None or zero is None or np.any(zero):
        return None
    x = greater.inputs[0]
    paths = [_path(edit, x, side) for side in (above, below)]
    if any(path is None or not _is_zero_at_zero(edit, path) for path in paths):
        return None
    output, zero_at = op.outputs[0], edit.constant(op.outputs[0], "zero", 0.0)
    above_zero, below_zero = (edit.activation(output, name, edit.shape(x)) for name in ("above", "below"))
    first = [operator("RELU", (x,), above_zero), operator("MINIMUM", (x, zero_at), below_zero)]
    upper, positive = _along(edit, paths[0] or [], above_zero, output, positive=True)
    lower, negative = _along(edit, paths[1] or [], below_zero, output, positive=False)
    return [*first, *upper, *lower, operator("ADD", (positive, negative), output)]


def _along(
    edit: Editor, path: Sequence[Operator], start: int, base: int, *, positive: bool
) -> tuple[list[Operator], int]:
    """The path's operators anew, from a tensor that has one sign only, and the tensor they end in."""
    result: list[Operator] = []
    for op in path:
        after = edit.activation(base, "above" if positive else "below", edit.shape(op.outputs[0]))
        if op.name == "ELU" and not result:
            if positive:
                continue
            power = edit.activation(base, "power", edit.shape(start))
            one = edit.constant(base, "one", 1.0)
            result += [operator("EXP", (start,), power), operator("SUB", (power, one), after)]
        else:
            main = _main(edit, op)
            inputs = tuple(start if t == main else t for t in op.inputs)
            result.append(replace(op, inputs=inputs, outputs=(after,)))
        start = after
    return result, start


def _main(edit: Editor, op: Operator) -> int:
    """The one input that is no constant."""
    return next(t for t in op.inputs if edit.value(t) is None)


def _path(edit: Editor, start: int, end: int) -> list[Operator] | None:
    """The operators from tensor to tensor, each with one input that is no constant; None if there is no such path."""
    path: list[Operator] = []
    while end != start:
        op = edit.writers.get(end)
        if op is None or sum(edit.value(t) is None for t in op.inputs) != 1:
            return None
        path.insert(0, op)
        end = _main(edit, op)
    return path


def _is_zero_at_zero(edit: Editor, path: Sequence[Operator] | None) -> bool:
    value = np.zeros(())
    for op in path or ():
        if op.options.get("fused_activation_function", "NONE") != "NONE":
            return False
        main = _main(edit, op)
        inputs = [value if t == main else edit.value(t) for t in op.inputs]
        function = {
            "MUL": np.multiply, "ADD": np.add, "SUB": np.subtract, "EXP": np.exp, "ELU": np.expm1, "TANH": np.tanh,
            "RELU": np.abs, "ABS": np.abs, "NEG": np.negative, "SQUARE": np.square,
        }.get(op.name)  # fmt: skip
        if function is None:
            return False
        value = np.asarray(function(*inputs))
    return not np.any(value)


def elu(edit: Editor, op: Operator) -> list[Operator] | None:
    """ELU(x) -> max(x, 0) + (exp(min(x, 0)) - 1)."""
    if op.name != "ELU":
        return None
    (x,), (output,) = op.inputs, op.outputs
    shape = edit.shape(x)
    above, below, power, less = (edit.activation(output, name, shape) for name in ("above", "below", "power", "less"))
    return [
        operator("RELU", (x,), above),
        operator("MINIMUM", (x, edit.constant(output, "zero", 0.0)), below),
        operator("EXP", (below,), power),
        operator("SUB", (power, edit.constant(output, "one", 1.0)), less),
        operator("ADD", (above, less), output),
    ]


def negation(edit: Editor, op: Operator) -> list[Operator] | None:
    """-x -> x * -1."""
    if op.name != "NEG":
        return None
    return [operator("MUL", (op.inputs[0], edit.constant(op.outputs[0], "minus", -1.0)), op.outputs[0])]


def square(edit: Editor, op: Operator) -> list[Operator] | None:  # noqa: ARG001  # a rule
    """x^2 -> x * x."""
    return [operator("MUL", (*op.inputs, *op.inputs), op.outputs[0])] if op.name == "SQUARE" else None


def far_bound(edit: Editor, op: Operator) -> list[Operator] | None:
    """min(x, 1e12) -> x: the bound would take a scale with it that leaves nothing of x."""
    if op.name not in ("MINIMUM", "MAXIMUM") or op.outputs[0] in edit.graph.outputs:
        return None
    bound = edit.value(op.inputs[1])
    sign = 1 if op.name == "MINIMUM" else -1
    return [] if bound is not None and np.all(sign * bound >= _FAR) else None


def masked(least: float) -> Rule:
    """A mask before SOFTMAX is written with `least` instead of -1e9 or the least float.

    The far value would take a scale with it under which all scores are equal. That SOFTMAX still makes 0 of the other
    depends on the scores: the data decide, from the nearest value on.
    """

    def rule(edit: Editor, op: Operator) -> list[Operator] | None:
        if op.name not in _MASKING or not _only_softmax_reads(edit, op.outputs[0]):
            return None
        inputs = list(op.inputs)
        for place, index in enumerate(op.inputs):
            value = edit.value(index)
            if value is not None and value.dtype == np.float32 and np.any(value <= -_FAR):
                inputs[place] = edit.constant(op.outputs[0], "mask", np.maximum(value, np.float32(least)))
        return [replace(op, inputs=tuple(inputs))] if inputs != list(op.inputs) else None

    return rule


def _only_softmax_reads(edit: Editor, index: int) -> bool:
    """Whether all that a tensor is used for, added or moved on the way, is SOFTMAX."""
    readers = edit.readers.get(index, ())
    return bool(readers) and all(
        op.name == "SOFTMAX"
        or (op.name in ("ADD", "RESHAPE", "TRANSPOSE") and _only_softmax_reads(edit, op.outputs[0]))
        for op in readers
    )


def squared_difference(edit: Editor, op: Operator) -> list[Operator] | None:
    """(a - b)^2 -> d = a - b, d * d, for 16x8, where LiteRT has no kernel of it."""
    if op.name != "SQUARED_DIFFERENCE":
        return None
    difference = edit.activation(op.outputs[0], "difference", edit.shape(op.outputs[0]))
    return [
        operator("SUB", op.inputs, difference),
        operator("MUL", (difference, difference), op.outputs[0]),
    ]


def total(edit: Editor, op: Operator) -> list[Operator] | None:
    """SUM(x) -> MEAN(x) * n: the reference kernel of an integer SUM is wrong."""
    if op.name != "SUM" or edit.value(op.inputs[1]) is None or not edit.shape(op.outputs[0]):
        return None
    output = op.outputs[0]
    count = prod(edit.shape(op.inputs[0])) / prod(edit.shape(output))
    mean = edit.activation(output, "mean", edit.shape(output))
    return [
        replace(op, name="MEAN", version=1, outputs=(mean,)),
        operator("MUL", (mean, edit.constant(output, "count", count)), output),
    ]


def hard_swish(edit: Editor, op: Operator) -> list[Operator] | None:
    """HARD_SWISH(x) -> x * (relu6(x + 3) / 6), for 16x8, which has no kernel of it."""
    if op.name != "HARD_SWISH":
        return None
    (x,), (output,) = op.inputs, op.outputs
    gate, sixth = (edit.activation(output, name, edit.shape(x)) for name in ("gate", "sixth"))
    three, six = edit.constant(output, "three", 3.0), edit.constant(output, "six", 1 / 6)
    return [
        operator("ADD", (x, three), gate, fused_activation_function="RELU6"),
        operator("MUL", (gate, six), sixth),
        operator("MUL", (x, sixth), output),
    ]


def unread_part(edit: Editor, op: Operator) -> list[Operator] | None:
    """SPLIT or UNPACK with a part that nobody reads -> STRIDED_SLICEs of the others.

    The converter leaves such operators in float, or does not, by chance: at a GRU's first moment there is one always.
    """
    if op.name not in ("SPLIT", "UNPACK"):
        return None
    read = {t for t in op.outputs if edit.readers.get(t) or t in edit.graph.outputs}
    if not read or len(read) == len(op.outputs):
        return None
    source, axis = op.inputs[-1], op.options["axis"] if op.name == "UNPACK" else edit.value(op.inputs[0])
    if axis is None:
        return None
    shape = edit.shape(source)
    along = int(np.reshape(axis, -1)[0]) % len(shape)
    dropped = 1 << along if op.name == "UNPACK" else 0
    width, slices = shape[along] // len(op.outputs), []
    for part, output in enumerate(op.outputs):
        if output in read:
            begin, end = [0] * len(shape), list(shape)
            begin[along], end[along] = part * width, (part + 1) * width
            bounds = {"begin": begin, "end": end, "strides": [1] * len(shape)}
            given = [edit.constant(output, name, value, "int32") for name, value in bounds.items()]
            slices.append(operator("STRIDED_SLICE", (source, *given), output, shrink_axis_mask=dropped))
    return slices


def _plain(op: Operator) -> bool:
    return bool(op.options.get("fused_activation_function", "NONE") == "NONE")


KINDS = (
    Kind("the handling of negative token ids left out", token_ids),
    Kind("repetition written as nearest-neighbour resizing", repeated),
    Kind("normalization written as (x - mean) * factor + offset", normalization),
    Kind("a choice by sign written as a sum of both sides", two_sides),
    Kind("ELU written out", elu),
    Kind("negation written as a product", negation),
    Kind("squares written as products", square),
    Kind("bounds out of reach left out", far_bound),
    Kind("sums written as means", total),
    Kind("a split without the parts that nobody reads", unread_part),
    *(Kind(f"attention masked by {least:g}", masked(least)) for least in _MASKS),
)
"""In the order in which they are applied."""
WIDE_KINDS = (
    *KINDS,
    Kind("squared differences written out", squared_difference),
    Kind("hard swish written out", hard_swish),
)
"""Where activations have 16 bits."""
