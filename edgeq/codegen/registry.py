"""The catalogue of lowerings: operator name -> functions that yield Steps for a Node.

    @lowering("CONV_2D")
    def conv_2d(node: Node) -> Iterator[Step]:
        ...                      # raise Unsupported("why", "what to try") if it can never be lowered

A portable lowering (in `lower/`) defines what is supported: its Unsupported is the user's error. It does not look at
the target: its Steps are made once for all.
A variant (`@variant`) yields nothing where it does not apply (core, shape, proof) and never raises. Both yield Steps
that compute the same bytes; `select.py` picks by `cost`, `code_bytes`, constants and layouts under the target's goal.

Modules are found by import: add the name of a new one to MODULES.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module

from edgeq.codegen.step import Node, Step, Unsupported
from edgeq.graph.ir import TensorType

Lowering = Callable[[Node], Iterable[Step]]

MODULES = (
    "edgeq.codegen.lower.convolution",
    "edgeq.codegen.lower.pooling",
    "edgeq.codegen.lower.elementwise",
    "edgeq.codegen.lower.unary",
    "edgeq.codegen.tables",
    "edgeq.codegen.lower.softmax",
    "edgeq.codegen.lower.conversion",
    "edgeq.codegen.lower.recurrent",
    "edgeq.codegen.lower.summation",
    "edgeq.codegen.variants.dsp.convolution",
    "edgeq.codegen.variants.dsp.depthwise",
    "edgeq.codegen.variants.dsp.depthwise_window",
    "edgeq.codegen.variants.dsp.elementwise",
    "edgeq.codegen.variants.dsp.fully_connected",
    "edgeq.codegen.variants.dsp.pooling",
    "edgeq.codegen.variants.mve.columns",
    "edgeq.codegen.variants.mve.convolution",
    "edgeq.codegen.variants.mve.elementwise",
    "edgeq.codegen.variants.mve.fully_connected",
    "edgeq.codegen.variants.mve.pointwise",
    "edgeq.codegen.variants.mve.pooling",
    "edgeq.codegen.variants.scalar.convolution",
    "edgeq.codegen.variants.scalar.depthwise",
    "edgeq.codegen.variants.scalar.elementwise",
    "edgeq.codegen.variants.scalar.fully_connected",
    "edgeq.codegen.lower.movement",
    "edgeq.codegen.lower.reduction",
    "edgeq.codegen.lower.matrix",
    "edgeq.codegen.lower.choice",
    "edgeq.codegen.lower.indexing",
    "edgeq.codegen.lower.float32",
    "edgeq.codegen.lower.float32_elementwise",
)
"""Where lowerings and variants are registered."""

TABLE = "TABLE"
"""The option, and the name of the lowering, of an operator that a table can compute: 256 results by byte."""

_REMEDIES = {
    "WHILE": "Unroll the recurrent layer (`edgeq convert --rnn unroll`).",
    "IF": "Compute both branches and choose with tf.where.",
    "SCATTER_ND": "Write the values with one_hot and a multiplication, or concatenate the parts.",
    "CONV_3D": "Fold one dimension into the channels or the batch, and use 2-D convolutions.",
    "CONV_3D_TRANSPOSE": "Fold one dimension into the channels or the batch, and use 2-D convolutions.",
    "L2_POOL_2D": "Square, take the average pool, then the square root.",
    "LOCAL_RESPONSE_NORMALIZATION": "Use BatchNormalization.",
    "SHAPE": "Convert with fixed input shapes.",
    "RANK": "Convert with fixed input shapes.",
    "RANGE": "Make the positions a constant of the model, with fixed input shapes.",
    "BROADCAST_ARGS": "Convert with fixed input shapes.",
    "WHERE": "Use tf.where with three arguments: how many positions it finds is known only at run time.",
    "UNIQUE": "Do it before the model: how many values it finds is known only at run time.",
    "RANDOM_UNIFORM": "Leave layers for training, as noise and dropout, out of the inference model.",
    "RANDOM_STANDARD_NORMAL": "Leave layers for training, as noise and dropout, out of the inference model.",
}
"""What helps where an operator has no kernel."""

_portable: dict[str, Lowering] = {}
_float32: dict[str, Lowering] = {}
_variants: dict[str, list[Lowering]] = {}


def lowering(*operators: str, float32: bool = False) -> Callable[[Lowering], Lowering]:
    """Register the portable lowering of operators; each has exactly one, and one more for float32 if it has that."""
    table = _float32 if float32 else _portable

    def register(function: Lowering) -> Lowering:
        for name in operators:
            if name in table:
                raise ValueError(f"{name} has two portable lowerings")
            table[name] = function
        return function

    return register


def variant(*operators: str) -> Callable[[Lowering], Lowering]:
    """Register a variant of operators: yields Steps where it applies, nothing elsewhere."""

    def register(function: Lowering) -> Lowering:
        for name in operators:
            _variants.setdefault(name, []).append(function)
        return function

    return register


@cache
def load() -> None:
    """Import the modules that register lowerings."""
    for module in MODULES:
        import_module(module)


def supported_operators() -> tuple[str, ...]:
    """Names of the operators that have a portable lowering, sorted."""
    load()
    return tuple(sorted((_portable.keys() | _float32.keys()) - {TABLE}))


def operators_with_variants(kind: str) -> frozenset[str]:
    """Names of the operators for which `edgeq.codegen.variants.<kind>` has kernels."""
    load()
    return frozenset(
        name
        for name, functions in _variants.items()
        if any(f".variants.{kind}." in function.__module__ for function in functions)
    )


def _computes_in_float32(node: Node) -> bool:
    """Whether an activation of it is float32."""
    tensors = [node.graph.tensors[i] for i in (*node.operator.inputs, *node.operator.outputs) if i >= 0]
    return any(tensor.type is TensorType.FLOAT32 and not tensor.is_constant for tensor in tensors)


def _lowered(node: Node, function: Lowering) -> tuple[Step, ...]:
    """A lowering's Steps; Unsupported if they would read from the arena what is a constant."""
    steps = tuple(function(node))
    constants = [i for i in node.operator.inputs if i >= 0 and node.graph.tensors[i].is_constant]
    for index in constants:
        if any(f"{{t{index}}}" in call for step in steps for call in step.calls):
            raise Unsupported(
                f"Its input {node.graph.tensors[index].name} is a constant; it is computed for activations only.",
                "Compute it before the conversion.",
            )
    return steps


def candidates(node: Node) -> list[Step]:
    """All Steps that can compute a Node, the portable ones first. Unsupported if there is none."""
    load()
    if len(node.options.get("made_of", ())) > 1:
        return list(_portable[TABLE](node))
    name = node.operator.name
    if name in _float32 and _computes_in_float32(node):
        if not node.target.fpu:
            raise Unsupported(
                f"It computes in float32, and the core {node.target.core} has no floating-point unit.",
                "Convert the model to int8: `edgeq convert --scheme int8`.",
            )
        return list(node.once("float32", lambda: _lowered(node, _float32[name])))
    if name not in _portable:
        what = f"custom operator {node.operator.custom_code}" if node.operator.custom_code else name
        remedy = _REMEDIES.get(name, "Write the layer with other operators, or remove it.")
        raise Unsupported(f"EdgeQ has no kernel for {what}.", remedy)
    steps = list(node.once("portable", lambda: _lowered(node, _portable[name])))
    for function in (*_variants.get(name, ()), *((_portable[TABLE],) if TABLE in node.options else ())):
        steps.extend(function(node))
    return steps
