"""Layers with state: UNIDIRECTIONAL_SEQUENCE_LSTM, SVDF, variables; and the 16-bit curves LOGISTIC and TANH."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.codegen.lower.common import (
    SUFFIX,
    activations,
    c_type,
    in_place,
    multiplier,
    require,
    same_type,
    scale,
    zero_point,
)
from edgeq.codegen.registry import lowering
from edgeq.codegen.step import Constant, Fields, Node, Source, Step, Struct, Unsupported
from edgeq.graph.ir import Tensor, TensorType

_HEADERS = ("recurrent.h", "arithmetic.h")
_GATES = 4
_Q12, _Q15 = 2.0**-12, 2.0**-15


def sigmoid_table() -> Constant:
    """sigmoid(i / 24) in Q0.16, i in 0..255, in which the 16-bit logistic and tanh interpolate.

    As in TFLM, each entry is raised by half of what the chord to the next one lacks at its middle; the last is full.
    """
    at = np.arange(256, dtype=np.float64)

    def exact(i: Any) -> Any:
        return 65536 / (1 + np.exp(-i / 24))

    lack = exact(at + 0.5) - (exact(at) + exact(at + 1)) / 2
    values = np.floor(exact(at) + lack / 2 + 0.5)
    values[-1] = 65535
    return Constant("sigmoid", "uint16_t", values.astype(np.uint16))


def curve_step(node: Node, source: Tensor, result: Tensor) -> Step:
    """LOGISTIC or TANH in 16x8: the input is brought into units of 1/12288 (TanhPrepare), the output is in Q0.15."""
    if not math.isclose(scale(result), _Q15) or zero_point(result) != 0 or zero_point(source) != 0:
        raise Unsupported("Its output's scale is not 1/32768 with zero point 0.", "Convert the model again.")
    power = math.log2(scale(source))
    left = 12 + round(power)
    if math.isclose(power, round(power)) and left in ((0,) if node.operator.name == "LOGISTIC" else (0, 1)):
        factor, shift = 3 << left, 0
    else:
        real, shift = scale(source) * 4096 * 3, 0
        while real <= 32767 / 2 and shift <= 30:
            real, shift = real * 2, shift + 1
        factor = int(real)
    if factor > 32767:
        raise Unsupported(f"Its input has the scale {scale(source)}.", "Scale the layer's input down.")
    kernel = f"{node.operator.name.lower()}_s16"
    params = Struct("params", "curve_params", {"count": source.elements, "multiplier": factor, "shift": shift})
    return Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel=kernel,
        method="interpolated in a table",
        calls=(f"edgeq_{kernel}(&{{params}}, {{t{source.index}}}, {{sigmoid}}, {{t{result.index}}});",),
        inputs=activations(source),
        outputs=(result.index,),
        constants=(sigmoid_table(), params),
        overlaps=in_place(source, result),
        sources=(f"{kernel}.c",),
        headers=_HEADERS,
        cost=source.elements * 25,
        code_bytes=120,
    )


def _state(node: Node, position: int) -> Tensor:
    tensor = node.input(position)
    if not tensor.is_variable:
        raise Unsupported(f"Its state {tensor.name} is not a variable tensor.", "Convert the model again.")
    return tensor


def clear(tensor: Tensor) -> str:
    """The statement that sets a state to zero: int8 to its zero point, everything else to 0 (ResetVariableTensors)."""
    value = tensor.zero_point & 0xFF if tensor.type is TensorType.INT8 and tensor.quantization else 0
    return f"memset({{t{tensor.index}}}, {value}, {tensor.size_bytes});"


def _product_scale(values: Tensor, weights: Tensor, result_scale: float) -> tuple[int, int]:
    """The multiplier of a matrix product; the scales are multiplied in float32 (GetQuantizedConvolutionMultipler)."""
    return multiplier(float(np.float32(scale(values)) * np.float32(scale(weights))) / result_scale)


def _weights(node: Node, first: int, shape: tuple[int, int]) -> list[tuple[Tensor, NDArray[np.int64]]]:
    found = []
    for position in range(first, first + _GATES):
        tensor = node.input(position)
        require(node, tensor, types=(TensorType.INT8,))
        if tensor.shape != shape or any(tensor.quantization.zero_point if tensor.quantization else (0,)):
            raise Unsupported(f"Its weights {tensor.name} are {list(tensor.shape)}, not {list(shape)} and symmetric.")
        found.append((tensor, node.constant(position, "weights").astype(np.int64)))
    return found


@lowering("UNIDIRECTIONAL_SEQUENCE_LSTM")
def lstm(node: Node) -> Iterator[Step]:
    """TFLM's LSTM: four gates, tanh, no peephole, projection or normalization (inputs as in the schema)."""
    source, result, hidden, cell = node.input(0), node.output(), _state(node, 18), _state(node, 19)
    require(node, source, result, hidden, types=(TensorType.INT8, TensorType.INT16))
    require(node, cell, types=(TensorType.INT16,))
    activation = same_type(source, result, hidden)
    for position, what in ((1, "input gate"), (5, "input gate")):
        if node.optional(position) is None:
            raise Unsupported(f"It has no {what} of its own.", "Use a plain LSTM layer.")
    extras = ((9, "peephole weights"), (10, "peephole weights"), (11, "peephole weights"), (16, "a projection"))
    for position, what in (*extras, *((i, "layer normalization") for i in range(20, 24))):
        if node.optional(position) is not None:
            raise Unsupported(f"It has {what}.", "Use a plain LSTM layer.")
    if node.options["fused_activation_function"] != "TANH":
        raise Unsupported("Its activation is not tanh.", "Use a plain LSTM layer.")
    if len(source.shape) != 3:
        raise Unsupported(f"Its input has rank {len(source.shape)}, not 3.")
    by_time = bool(node.options["time_major"])
    steps, batches = source.shape[:2] if by_time else source.shape[1::-1]
    depth, units = source.shape[2], node.input(2).shape[0]
    if result.shape != (*source.shape[:2], units) or {hidden.elements, cell.elements} != {batches * units}:
        raise Unsupported(f"Its output has the shape {list(result.shape)}.")
    kinds = _weights(node, 1, (units, depth)), _weights(node, 5, (units, units))
    wide = activation is TensorType.INT16
    biases = np.stack([node.constant(12 + g, "bias").astype(np.int64).reshape(units) for g in range(_GATES)])
    folded = np.stack([-zero_point(source) * w.sum(axis=1) for _, w in kinds[0]]) + biases
    folded_recurrent = np.stack([-zero_point(hidden) * w.sum(axis=1) for _, w in kinds[1]])
    if not wide and _largest(folded, kinds[0], folded_recurrent, kinds[1]) >= 2**31:
        raise Unsupported("Its accumulators may exceed 32 bits.", "Use fewer units.")
    total = np.int64 if wide else np.int32
    fields = {
        "batches": batches,
        "steps": steps,
        "depth": depth,
        "units": units,
        "batch_stride": 1 if by_time else steps,
        "step_stride": batches if by_time else 1,
        **_factors(node, source, hidden, cell, kinds),
    }
    kernel = f"lstm_{SUFFIX[activation]}"
    macs = _GATES * batches * steps * units * (depth + units)
    yield Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel=kernel,
        method=f"{steps} steps of {units} units",
        calls=(
            f"edgeq_{kernel}(&{{params}}, {{t{source.index}}}, {{weights}}, {{recurrent}}, {{bias}}, "
            f"{{recurrent_bias}}, {{sigmoid}}, {{t{hidden.index}}}, {{t{cell.index}}}, {{t{result.index}}});",
        ),
        inputs=activations(source, hidden, cell),
        outputs=(result.index,),
        constants=(
            *(
                Constant(name, "int8_t", np.stack([w for _, w in kind]).astype(np.int8).reshape(-1))
                for name, kind in zip(("weights", "recurrent"), kinds, strict=True)
            ),
            Constant("bias", f"{total.__name__}_t", folded.astype(total).reshape(-1)),
            Constant("recurrent_bias", f"{total.__name__}_t", folded_recurrent.astype(total).reshape(-1)),
            sigmoid_table(),
            Struct("params", "lstm_params", fields),
        ),
        sources=(f"{kernel}.c",),
        headers=_HEADERS,
        macs=macs,
        cost=macs * 8 + batches * steps * units * 250,
        code_bytes=900,
        reset=(clear(hidden), clear(cell)),
    )


_Kind = list[tuple[Tensor, NDArray[np.int64]]]


def _largest(bias: NDArray[np.int64], weights: _Kind, recurrent_bias: NDArray[np.int64], recurrent: _Kind) -> int:
    """The largest magnitude that a partial sum of int8 products can have."""
    ends = ((bias, weights), (recurrent_bias, recurrent))
    return max(
        int((np.abs(b[g]) + 128 * np.abs(w).sum(axis=1)).max()) for b, kind in ends for g, (_, w) in enumerate(kind)
    )


def _factors(node: Node, source: Tensor, hidden: Tensor, cell: Tensor, kinds: tuple[_Kind, _Kind]) -> Fields:
    """Multipliers and shifts of the gates (to Q3.12) and between them (PrepareGateParametersInteger)."""
    fields: Fields = {}
    for name, values, kind in (("input", source, kinds[0]), ("recurrent", hidden, kinds[1])):
        factors = [_product_scale(values, weights, _Q12) for weights, _ in kind]
        fields[f"{name}_multiplier"] = tuple(f for f, _ in factors)
        fields[f"{name}_shift"] = tuple(s for _, s in factors)
    products = {"forget": _Q15 * scale(cell) / scale(cell), "candidate": _Q15 * _Q15 / scale(cell)}
    for name, real in (*products.items(), ("hidden", _Q15 * _Q15 / scale(hidden))):
        fields[f"{name}_multiplier"], fields[f"{name}_shift"] = multiplier(real)
    power = math.log2(scale(cell))
    if not math.isclose(power, round(power), abs_tol=1e-3) or zero_point(cell) != 0 or not -27 <= power <= 0:
        raise Unsupported("Its cell state's scale is not a power of two.", "Convert the model again.")
    left = 12 + round(power)
    clip = float(node.options["cell_clip"])
    return fields | {
        "hidden_offset": zero_point(hidden),
        "cell_clip": int(min(max(clip / scale(cell), -32768.0), 32767.0)) if clip > 0 else 0,
        "tanh_multiplier": 3 if left < 0 else 3 << left,
        "tanh_shift": max(0, -left),
    }


@lowering("SVDF")
def svdf(node: Node) -> Iterator[Step]:
    """Inputs: activations, feature and time weights, bias, state (int8 or int16 with the time weights)."""
    source, features, times, state, result = node.input(0), node.input(1), node.input(2), _state(node, 4), node.output()
    require(node, source, features, result, types=(TensorType.INT8,))
    require(node, times, state, types=(TensorType.INT8, TensorType.INT16))
    kind = same_type(times, state)
    rank, (filters, depth), memory = int(node.options["rank"]), features.shape, times.shape[1]
    batches, units = source.shape[0], filters // max(rank, 1)
    if source.shape != (batches, depth) or times.shape != (filters, memory) or result.shape != (batches, units):
        raise Unsupported(f"Its tensors do not fit: input {list(source.shape)}, output {list(result.shape)}.")
    if units * rank != filters or state.elements != batches * filters * memory:
        raise Unsupported(f"Its state has {state.elements} values for {filters} filters of {memory} steps.")
    weights = node.constant(1, "feature weights").astype(np.int64)
    bias = np.zeros(units, np.int64)
    if node.optional(3) is not None:
        bias = node.constant(3, "bias").astype(np.int64).reshape(units)
    single = np.float32
    feature = float(single(scale(source)) * single(scale(features)) / single(scale(state)))
    factor = float(single(scale(state)) * single(scale(times)) / single(scale(result)))
    fields: Fields = {
        "batches": batches,
        "depth": depth,
        "units": units,
        "rank": rank,
        "memory": memory,
        "state_offset": zero_point(state),
        "output_offset": zero_point(result),
    }
    fields["feature_multiplier"], fields["feature_shift"] = multiplier(feature)
    fields["multiplier"], fields["shift"] = multiplier(factor)
    state_reach = 255 if kind is TensorType.INT8 else 32768
    reach = np.abs(node.constant(2, "time weights").astype(np.int64)).reshape(units, -1).sum(axis=1) * state_reach
    if (reach + np.abs(bias)).max() >= 2**31 or np.abs(weights).sum(axis=1).max() * 255 >= 2**31:
        raise Unsupported("Its accumulators may exceed 32 bits.", "Use a smaller rank or memory.")
    kernel = f"svdf_{SUFFIX[kind]}"
    macs = batches * filters * (depth + memory)
    yield Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel=kernel,
        method=f"{units} units of rank {rank}, {memory} steps of memory",
        calls=(
            f"edgeq_{kernel}(&{{params}}, {{t{source.index}}}, {{features}}, {{feature_bias}}, {{times}}, {{bias}}, "
            f"{{t{state.index}}}, {{t{result.index}}});",
        ),
        inputs=activations(source, state),
        outputs=(result.index,),
        constants=(
            Constant("features", "int8_t", weights.astype(np.int8).reshape(-1)),
            Constant("feature_bias", "int32_t", (-zero_point(source) * weights.sum(axis=1)).astype(np.int32)),
            Constant("times", "int16_t" if kind is TensorType.INT16 else "int8_t", np.asarray(times.data).reshape(-1)),
            Constant("bias", "int32_t", bias.astype(np.int32)),
            Struct("params", "svdf_params", fields),
        ),
        sources=(f"{kernel}.c",),
        headers=_HEADERS,
        macs=macs,
        cost=macs * 8,
        code_bytes=350,
        reset=(clear(state),),
    )


def _initialize(state: Tensor, value: NDArray[Any]) -> tuple[tuple[str, ...], tuple[Source, ...]]:
    """Reset statements of a state that starts as `value`, and the C that they call (none where one byte is enough)."""
    data = np.ascontiguousarray(value).tobytes()
    if len(data) != state.size_bytes:
        raise Unsupported(f"The variable {state.name} starts with {len(data)} bytes, not {state.size_bytes}.")
    if len(set(data)) == 1:
        return (f"memset({{t{state.index}}}, {data[0]}, {len(data)});",), ()
    name = f"edgeq_reset_{state.index}"
    rows = "\n".join("    " + ", ".join(map(str, data[at : at + 20])) + "," for at in range(0, len(data), 20))
    text = (
        "#include <stdint.h>\n#include <string.h>\n\n"
        f"static const uint8_t initial[{len(data)}] = {{\n{rows}\n}};\n\n"
        f"void {name}(void *state);\n\nvoid {name}(void *state) {{\n    memcpy(state, initial, sizeof initial);\n}}\n"
    )
    source = Source(f"reset_{state.index}", text, f"void {name}(void *state);")
    return (f"{name}({{t{state.index}}});",), (source,)


@lowering("READ_VARIABLE", "ASSIGN_VARIABLE")
def variable(node: Node) -> Iterator[Step]:
    """A copy from or to the state tensor that `edgeq.codegen.state` made of the resource."""
    if not node.input(0).is_variable:
        raise Unsupported("Its variable is not initialized by constants.", "Initialize the variable with a constant.")
    state = node.input(0)
    reading = node.operator.name == "READ_VARIABLE"
    other = node.output() if reading else node.input(1)
    if (other.type, other.elements) != (state.type, state.elements):
        raise Unsupported(f"The variable {state.name} changes its type or shape.", "Convert the model again.")
    constants: tuple[Constant, ...] = ()
    place = f"{{t{other.index}}}"
    if other.data is not None:
        constants, place = (Constant("value", c_type(other), np.asarray(other.data).reshape(-1)),), "{value}"
    ends = (place, f"{{t{state.index}}}") if reading else (f"{{t{state.index}}}", place)
    reset: tuple[str, ...] = ()
    emitted: tuple[Source, ...] = ()
    if "initial" in node.options:
        reset, emitted = _initialize(state, node.options["initial"])
    yield Step(
        operator=node.operator.index,
        name=node.operator.name,
        kernel="memcpy",
        method="bytes moved",
        calls=(f"memcpy({ends[0]}, {ends[1]}, {state.size_bytes});",),
        inputs=activations(state) if reading else activations(other, state),
        outputs=(other.index,) if reading else (),
        constants=constants,
        emitted=emitted,
        cost=state.size_bytes * 2,
        reset=reset,
    )
