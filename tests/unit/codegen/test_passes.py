"""Passes keep the bytes of the tflite-micro wheel, each alone and all together, and do what they are named for."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import HOST, HostModel, Wheel
from hypothesis import given
from hypothesis import strategies as st
from single import FLOAT32, INT8, INT32, T, values
from test_operators import few, scales, seeds, zeros

from edgeq import codegen
from edgeq.codegen import passes
from edgeq.codegen.tables import compose_tables
from edgeq.errors import ModelError
from edgeq.graph import Graph, Operator, Quantization, Tensor, TensorType, read_bytes, verify, write_bytes
from edgeq.interpreter import Interpreter

RELU = ("RELU", {})


@dataclass
class Builder:
    """A graph, operator by operator; tensors are named by their numbers."""

    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)

    def tensor(self, spec: T) -> int:
        quantization = None if spec.scale is None else Quantization((float(np.float32(spec.scale)),), (spec.zero,))  # type: ignore[arg-type]
        data = None if spec.data is None else np.asarray(spec.data, spec.type.dtype).reshape(spec.shape)
        index = len(self.tensors)
        self.tensors.append(Tensor(index, f"t{index}", spec.type, spec.shape, spec.shape, quantization, data))
        return index

    def add(self, name: str, inputs: Sequence[int | T], result: T, **options: Any) -> int:
        sources = tuple(self.tensor(i) if isinstance(i, T) else i for i in inputs)
        index = self.tensor(result)
        version = 2 if name in ("BROADCAST_TO", "PACK") else 1
        self.operators.append(Operator(len(self.operators), name, version, sources, (index,), options))
        return index

    def graph(self, *outputs: int) -> Graph:
        written = {t for op in self.operators for t in op.outputs}
        inputs = tuple(t.index for t in self.tensors if t.data is None and t.index not in written)
        return read_bytes(write_bytes(Graph("m", tuple(self.tensors), tuple(self.operators), inputs, outputs)))


def ints(*numbers: int, shape: tuple[int, ...] | None = None) -> T:
    return T(shape or (len(numbers),), INT32, data=numbers)


def run(graph: Graph, prepared: Graph, kinds: Sequence[int] = (0, 1, 2, 3)) -> list[list[np.ndarray]]:
    """What the C of `prepared`, a form of the graph, gives."""
    bundle = codegen.emit(codegen.plan(graph, HOST, name="model", prepared=prepared))
    with tempfile.TemporaryDirectory() as place:
        ours = HostModel(bundle, graph, Path(place))
        return [[a.copy() for a in ours.run(values(graph, kind))] for kind in kinds]


def same_as_wheel(graph: Graph, *prepared: Graph) -> None:
    """Assert that all forms of the graph give the wheel's bytes."""
    wheel = Wheel(write_bytes(graph), 1_000_000)
    expected = [wheel.run(values(graph, kind), len(graph.outputs)) for kind in range(4)]
    for form in prepared:
        for mine, theirs in zip(run(graph, form), expected, strict=True):
            for a, b in zip(mine, theirs, strict=True):
                np.testing.assert_array_equal(a, b.reshape(a.shape))


def without_tables(graph: Graph) -> Graph:
    """All passes but the one that composes tables, which would leave one operator of many a chain here."""
    for one in passes.PASSES:
        graph = graph if one is compose_tables else one(graph)
    return graph


def names(graph: Graph) -> list[str]:
    return [operator.name for operator in graph.operators]


def copies(shape: tuple[int, ...]) -> dict[str, tuple[list[T], dict[str, Any]]]:
    """Operators that copy a tensor of a shape, with their further inputs and options."""
    rank = len(shape)
    nothing = T((rank, 2), INT32, data=np.zeros((rank, 2)))
    return {
        "PAD": ([nothing], {}),
        "MIRROR_PAD": ([nothing], {"mode": "REFLECT"}),
        "SLICE": ([ints(*[0] * rank), ints(*shape)], {}),
        "STRIDED_SLICE": ([ints(*[0] * rank), ints(*shape), ints(*[1] * rank)], {}),
        "TRANSPOSE": ([ints(*range(rank))], {}),
        "CONCATENATION": ([], {"axis": 0}),
        "QUANTIZE": ([], {}),
        "BROADCAST_TO": ([ints(*shape)], {}),
    }


@few
@pytest.mark.parametrize("name", copies((1,)))
@given(shape=st.lists(st.integers(1, 4), min_size=2, max_size=4), scale=scales, zero=zeros, last=st.booleans())
def test_no_ops(name: str, shape: list[int], scale: float, zero: int, last: bool) -> None:
    """Between two RELUs, and as the graph's result."""
    of = T(tuple(shape), scale=scale, zero=zero)
    builder = Builder()
    first = builder.add("RELU", [of], of)
    more, options = copies(of.shape)[name]
    copied = builder.add(name, [first, *more], of, **options)
    result = copied if last else builder.add("RELU", [copied], of)
    graph = builder.graph(result)
    done = passes.drop_no_ops(graph)
    verify(done)
    assert name not in names(done)
    same_as_wheel(graph, graph, done, passes.run(graph))


@pytest.mark.parametrize("name", ["CAST", "TILE", "SPLIT", "PADV2"])
def test_no_ops_of_other_forms(name: str) -> None:
    """Those whose form differs from the rest's; the value goes through."""
    of = T((2, 3), scale=0.1, zero=3)
    builder = Builder()
    first = builder.add("RELU", [of], of)
    if name == "SPLIT":
        copied = builder.add(name, [ints(0), first], of, num_splits=1)
    else:
        more = {"CAST": [], "TILE": [ints(1, 1)], "PADV2": [T((2, 2), INT32, data=np.zeros(4)), T((1,), data=[5])]}
        copied = builder.add(name, [first, *more[name]], of)
    graph = builder.graph(builder.add("RELU", [copied], of))
    done = without_tables(graph)
    assert names(done) == ["RELU", "RELU"]
    alone = replace(graph, operators=(graph.operators[0], replace(graph.operators[2], inputs=(1,))))
    for mine, plain in zip(run(graph, done), run(graph, without_tables(alone)), strict=True):
        np.testing.assert_array_equal(mine[0], plain[0])


@few
@given(st.permutations(range(4)), st.integers(0, 15), st.integers(2, 5))
def test_transposes_that_move_nothing_are_names(order: list[int], ones: int, size: int) -> None:
    """Exactly those whose axes longer than 1 stay in order."""
    shape = tuple(1 if ones >> axis & 1 else size + axis for axis in range(4))
    builder = Builder()
    source = T(shape, scale=0.1, zero=3)
    first = builder.add("RELU", [source], source)
    graph = builder.graph(
        builder.add("TRANSPOSE", [first, ints(*order)], replace(source, shape=tuple(shape[a] for a in order)))
    )
    done = passes.drop_no_ops(graph)
    data = np.arange(np.prod(shape)).reshape(shape)
    assert ("TRANSPOSE" not in names(done)) == bool((data.transpose(order).reshape(-1) == data.reshape(-1)).all())
    same_as_wheel(graph, done)


def test_what_is_more_than_a_copy_stays() -> None:
    of = T((2, 4), scale=0.1, zero=3)
    for name, more, result, options in (
        ("SLICE", [ints(0, 1), ints(2, 3)], T((2, 3), scale=0.1, zero=3), {}),
        ("PAD", [T((2, 2), INT32, data=[0, 0, 0, 1])], T((2, 5), scale=0.1, zero=3), {}),
        ("STRIDED_SLICE", [ints(0, 3), ints(2, -5), ints(1, -1)], of, {"end_mask": 2}),
        ("QUANTIZE", [], T((2, 4), scale=0.2, zero=3), {}),
        ("QUANTIZE", [], T((2, 4), TensorType.UINT8, scale=0.1, zero=3), {}),
    ):
        builder = Builder()
        first = builder.add("RELU", [of], of)
        graph = builder.graph(builder.add(name, [first, *more], result, **options))
        assert names(without_tables(graph)) == ["RELU", name]


@few
@given(scales, zeros, scales, zeros, st.sampled_from([INT8, TensorType.UINT8, TensorType.INT16]), st.booleans())
def test_there_and_back(scale: float, zero: int, other: float, other_zero: int, kind: TensorType, same: bool) -> None:
    """DEQUANTIZE, QUANTIZE: with equal ends always gone; else one QUANTIZE where the bytes allow it."""
    zero = 0 if kind is TensorType.INT16 else zero + 128 * (kind is TensorType.UINT8)
    begin = T((3, 5), kind, scale=scale, zero=zero)
    end = begin if same else T((3, 5), scale=other, zero=other_zero)
    builder = Builder()
    real = builder.add("DEQUANTIZE", [begin], T((3, 5), FLOAT32))
    graph = builder.graph(builder.add("QUANTIZE", [real], end))
    done = passes.run(graph)
    if same:
        assert set(names(done)) <= {"RESHAPE"}
    if kind is TensorType.UINT8:  # TFLM quantizes float to int8 and int16 only
        plain = passes.drop_unused(graph)
        assert str(run(graph, done)) == str(run(graph, plain))
    else:
        same_as_wheel(graph, done)


def test_every_value_goes_there_and_back() -> None:
    """All 65,536 values of int16, for scales of all sizes."""
    q = np.arange(-32768, 32768)
    for scale in np.geomspace(1e-30, 1e30, 500).astype(np.float32):
        real = scale * q.astype(np.float32)
        assert np.array_equal(np.rint(real / scale).astype(int), q)


@few
@given(scales, scales, scales, zeros, zeros, zeros)
def test_quantize_twice(a: float, b: float, c: float, x: int, y: int, z: int) -> None:
    """Becomes one only if all 256 values agree; the bytes are the wheel's either way."""
    q = T((1, 256), scale=a, zero=x, data=None)
    builder = Builder()
    first = builder.add("QUANTIZE", [q], T((1, 256), scale=b, zero=y))
    graph = builder.graph(builder.add("QUANTIZE", [first], T((1, 256), scale=c, zero=z)))
    same_as_wheel(graph, passes.run(graph))


def test_quantize_twice_joins_where_nothing_is_lost() -> None:
    builder = Builder()
    begin = T((1, 8), scale=0.5, zero=0)
    first = builder.add("QUANTIZE", [begin], T((1, 8), scale=0.5, zero=0, type=TensorType.UINT8))
    lost = builder.graph(builder.add("QUANTIZE", [first], begin))
    assert names(without_tables(lost)) == ["QUANTIZE", "QUANTIZE"]  # negative values are cut
    builder = Builder()
    first = builder.add("QUANTIZE", [begin], T((1, 8), scale=0.5, zero=128, type=TensorType.UINT8))
    kept = builder.graph(builder.add("QUANTIZE", [first], begin))
    assert set(names(without_tables(kept))) <= {"RESHAPE"}
    same_as_wheel(kept, without_tables(kept))


@few
@given(st.integers(1, 4), st.integers(1, 4), scales, zeros, seeds)
def test_constants(rows: int, columns: int, scale: float, zero: int, seed: int) -> None:
    """A chain of operators on constants becomes the constant that the wheel computes."""
    data = np.random.default_rng(seed).integers(-128, 128, (rows, columns))
    of = T((rows, columns), scale=scale, zero=zero)
    turned = replace(of, shape=(columns, rows))
    builder = Builder()
    index = builder.add("TRANSPOSE", [replace(of, data=data), ints(1, 0)], turned)
    index = builder.add("RELU", [index], turned)
    index = builder.add(
        "CONCATENATION", [index, replace(turned, data=data.T)], replace(of, shape=(2 * columns, rows)), axis=0
    )
    index = builder.add(
        "SLICE", [index, ints(1, 0), ints(2 * columns - 1, rows)], replace(of, shape=(2 * columns - 1, rows))
    )
    index = builder.add("PACK", [index, index], replace(of, shape=(2, 2 * columns - 1, rows)), axis=0, values_count=2)
    given_ = replace(of, shape=(2, 2 * columns - 1, rows))
    graph = builder.graph(builder.add("MAXIMUM", [given_, index], given_))
    done = passes.run(graph)
    assert names(done) == ["MAXIMUM"]
    same_as_wheel(graph, done)


@pytest.mark.parametrize("name", ["RELU", "RESHAPE"])
def test_a_constant_result_is_there(name: str) -> None:
    """A result that depends on no input, beside one that does."""
    of = T((1, 6), scale=0.1, zero=3)
    builder = Builder()
    more = [ints(1, 6)] if name == "RESHAPE" else []
    constant = builder.add(name, [replace(of, data=[-128, -1, 0, 4, 5, 127]), *more], of)
    graph = builder.graph(constant, builder.add("RELU", [of], of))
    (expected, _), (again, _) = run(graph, passes.run(graph), (0, 1))
    np.testing.assert_array_equal(expected, again)
    clamped = [3, 3, 3, 4, 5, 127] if name == "RELU" else [-128, -1, 0, 4, 5, 127]
    np.testing.assert_array_equal(expected, [clamped])


def test_a_constant_input_is_refused_where_it_is_not_computed() -> None:
    of, result = T((1, 6), scale=0.1, zero=3), T((1, 6), scale=1 / 256, zero=-128)
    builder = Builder()
    constant = builder.add("SOFTMAX", [replace(of, data=range(6))], result, beta=1.0)
    graph = builder.graph(constant, builder.add("RELU", [of], of))
    ((operator, reason, _),) = codegen.unsupported(graph)
    assert operator.name == "SOFTMAX"
    assert "constant" in reason


def test_shapes_are_constants() -> None:
    """SHAPE, STRIDED_SLICE, PACK, RESHAPE: what a free batch leaves behind."""
    builder = Builder()
    source = T((1, 4, 6), scale=0.1)
    first = builder.add("RELU", [source], source)
    shape = builder.add("SHAPE", [first], T((3,), INT32), out_type="INT32")
    batch = builder.add("STRIDED_SLICE", [shape, ints(0), ints(1), ints(1)], T((), INT32), shrink_axis_mask=1)
    packed = builder.add("PACK", [batch, T((), INT32, data=24)], T((2,), INT32), axis=0, values_count=2)
    graph = builder.graph(builder.add("RESHAPE", [first, packed], T((1, 24), scale=0.1)))
    done = passes.run(graph)
    assert names(done) == ["RELU", "RESHAPE"]
    np.testing.assert_array_equal(done.tensors[done.operators[1].inputs[1]].data, [1, 24])
    same_as_wheel(graph, done)


def test_float16_weights_become_float32() -> None:
    """A model with float16 weights dequantizes them first; LiteRT computes the same."""
    builder = Builder()
    weights = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float16)
    wide = builder.add("DEQUANTIZE", [T((3, 4), TensorType.FLOAT16, data=weights)], T((3, 4), FLOAT32))
    result = builder.add(
        "FULLY_CONNECTED", [T((2, 4), FLOAT32), wide], T((2, 3), FLOAT32), fused_activation_function="NONE"
    )
    graph = builder.graph(result)
    done = passes.run(graph)
    assert names(done) == ["FULLY_CONNECTED"]
    reference = Interpreter(write_bytes(graph))
    for kind, mine in enumerate(run(graph, done)):
        np.testing.assert_array_equal(mine[0], reference.run(values(graph, kind))[0])


def test_growth_is_bounded() -> None:
    """A large TILE or BROADCAST_TO of a constant is computed on the device, not stored."""
    builder = Builder()
    tiled = builder.add("BROADCAST_TO", [T((1, 1), scale=1.0, data=[7]), ints(300, 300)], T((300, 300), scale=1.0))
    source = T((300, 300), scale=1.0)
    graph = builder.graph(builder.add("MAXIMUM", [source, tiled], source))
    assert names(passes.run(graph)) == ["BROADCAST_TO", "MAXIMUM"]


def test_float_padding_is_folded() -> None:
    builder = Builder()
    source, filters = T((1, 5, 5, 2), FLOAT32), np.random.default_rng(3).standard_normal((3, 3, 3, 2))
    padded = builder.add("PAD", [source, T((4, 2), INT32, data=[0, 0, 1, 0, 0, 2, 0, 0])], T((1, 6, 7, 2), FLOAT32))
    options = {"padding": "VALID", "stride_h": 1, "stride_w": 1, "dilation_h_factor": 1, "dilation_w_factor": 1}
    weights, bias = T((3, 3, 3, 2), FLOAT32, data=filters), T((3,), FLOAT32, data=[1, 2, 3])
    graph = builder.graph(builder.add("CONV_2D", [padded, weights, bias], T((1, 4, 5, 3), FLOAT32), **options))
    assert names(passes.run(graph)) == ["CONV_2D"]
    same_as_wheel(graph, passes.run(graph))


@pytest.mark.parametrize("one", passes.PASSES)
def test_each_pass_alone_keeps_the_bytes(one: passes.Pass, shared: Path) -> None:
    """A published network through one pass."""
    from edgeq.graph import read

    graph = read(shared / "models" / "ic_resnet8_int8.tflite")
    done = one(graph)
    verify(done)
    same_as_wheel(graph, done)


def test_a_malformed_operator_is_named() -> None:
    """Passes leave it alone, and `unsupported` says what is wrong; the rest is still reported."""
    of = T((1, 4, 4, 2), scale=0.1)
    options = {"padding": "VALID", "stride_h": 1, "stride_w": 1, "dilation_h_factor": 1, "dilation_w_factor": 1}
    builder = Builder()
    first = builder.add("RELU", [of], of)
    result = builder.add("CONV_2D", [first, T((2,), scale=0.1, data=[1, 2])], of, **options)
    graph = builder.graph(result)
    (found,) = codegen.unsupported(graph)
    assert found[0].name == "CONV_2D"
    assert "rank 1" in found[1]


MALFORMED: dict[str, tuple[list[T], T, dict[str, Any]]] = {
    "RESHAPE": ([T((2, 3), scale=0.1, data=range(6)), ints(4)], T((4,), scale=0.1), {}),
    "PACK": ([T((2, 3), scale=0.1, data=range(6)), T((3, 2), scale=0.1, data=range(6))], T((2, 2, 3), scale=0.1), {}),
    "GATHER": ([T((4,), scale=0.1, data=range(4)), ints(9)], T((1,), scale=0.1), {"axis": 0}),
    "TRANSPOSE": ([T((2, 3), scale=0.1, data=range(6)), ints(0, 5)], T((3, 2), scale=0.1), {}),
    "SPLIT": ([ints(7), T((2, 3), scale=0.1, data=range(6))], T((2, 3), scale=0.1), {"num_splits": 1}),
    "SLICE": ([T((2, 3), scale=0.1, data=range(6)), ints(0), ints(2, 2)], T((2, 2), scale=0.1), {}),
    "TILE": ([T((2, 3), scale=0.1, data=range(6)), ints(1 << 30, 1 << 30)], T((2, 2), scale=0.1), {}),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_constants_stop_no_pass(name: str) -> None:
    """They are left to their lowering; a no-op beside them is still dropped."""
    inputs, result, options = MALFORMED[name]
    builder = Builder()
    wrong = builder.add(name, inputs, result, **options)
    of = T((2, 3), scale=0.1)
    copied = builder.add("CONCATENATION", [builder.add("RELU", [of], of)], of, axis=0)
    graph = builder.graph(wrong, builder.add("RELU", [copied], of))
    assert "CONCATENATION" not in names(passes.run(graph))
    codegen.unsupported(graph)


def test_scales_that_cannot_be_joined_stay() -> None:
    builder = Builder()
    first = builder.add("QUANTIZE", [T((4,), scale=1e6)], T((4,), scale=1.0))
    graph = builder.graph(builder.add("QUANTIZE", [first], T((4,), scale=1e-6)))
    assert names(without_tables(graph)) == ["QUANTIZE", "QUANTIZE"]


def test_a_fault_of_a_pass_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: Graph) -> Graph:
        raise KeyError("a bug")

    of = T((4,), scale=0.1)
    builder = Builder()
    graph = builder.graph(builder.add("RELU", [of], of))
    monkeypatch.setattr(passes, "PASSES", (broken,))
    with pytest.raises(KeyError):
        passes.run(graph)


@pytest.mark.parametrize(
    ("name", "shape", "why"),
    [
        ("RESHAPE", (4,), "malformed: it makes INT8 [2, 3] into INT8 [4]"),
        ("SQUEEZE", (2,), "malformed: it makes INT8 [2, 3] into INT8 [2]"),
        ("SCATTER_ND", (2, 3), "no kernel for SCATTER_ND"),
    ],
)
def test_what_cannot_be_lowered_is_refused_with_a_remedy(name: str, shape: tuple[int, ...], why: str) -> None:
    builder = Builder()
    result = builder.add(name, [T((2, 3), scale=0.1)], T(shape, scale=0.1))
    graph = builder.graph(builder.add("RELU", [result], T(shape, scale=0.1)))
    ((_, reason, remedy),) = codegen.unsupported(graph)
    assert why in reason
    assert remedy
    with pytest.raises(ModelError, match=name):
        codegen.plan(graph, HOST)


def test_positions_are_constants() -> None:
    """RANGE and BROADCAST_ARGS of constants, and what reads them."""
    builder = Builder()
    source = T((7, 1), scale=0.1)
    first = builder.add("RELU", [source], source)
    numbers = [T((), INT32, data=n) for n in (6, 0, -2)]
    picked = builder.add("GATHER", [first, builder.add("RANGE", numbers, T((3,), INT32))], T((3, 1), scale=0.1), axis=0)
    shape = builder.add("BROADCAST_ARGS", [ints(3, 1), ints(1, 5)], T((2,), INT32))
    graph = builder.graph(builder.add("BROADCAST_TO", [picked, shape], T((3, 5), scale=0.1)))
    done = passes.run(graph)
    assert names(done) == ["RELU", "GATHER", "BROADCAST_TO"]
    np.testing.assert_array_equal(done.tensors[done.operators[1].inputs[1]].data, [6, 4, 2])
