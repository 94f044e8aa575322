"""Patch by patch: the same bytes as the wheel, in less memory; what is said of it holds."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import HOST, HostModel, Wheel
from hypothesis import given
from hypothesis import strategies as st
from single import INT8, INT32, values
from test_operators import few

from edgeq import codegen
from edgeq.codegen import passes, patches
from edgeq.codegen.fitting import plan_within
from edgeq.codegen.plan import Plan
from edgeq.errors import AnswerNo
from edgeq.graph import Graph, Operator, Quantization, Tensor, read, verify, write_bytes


class Chain:
    """A network of windowed and element-wise layers, written layer by layer."""

    def __init__(self, height: int, width: int, channels: int) -> None:
        self.tensors: list[Tensor] = []
        self.operators: list[Operator] = []
        self.generator = np.random.default_rng(height * 1000 + width * 10 + channels)
        self.last = self.tensor((1, height, width, channels), 0.05, 3)

    def tensor(self, shape: tuple[int, ...], scale: Any, zero: int = 0, data: Any = None, type_: Any = INT8) -> int:
        index = len(self.tensors)
        scales = tuple(map(float, np.atleast_1d(np.asarray(scale, np.float32))))
        axis = 3 if len(shape) == 4 and len(scales) == shape[3] else 0
        quantization = Quantization(scales, (zero,) * len(scales), axis)
        self.tensors.append(Tensor(index, f"t{index}", type_, shape, shape, quantization, data))
        return index

    def add(self, name: str, inputs: tuple[int, ...], output: int, **options: Any) -> int:
        defaults = {"fused_activation_function": "NONE"}
        self.operators.append(Operator(len(self.operators), name, 1, inputs, (output,), {**defaults, **options}))
        self.last = output
        return output

    def window(self, kind: str, size: tuple[int, int], stride: int, same: bool, channels: int, dilation: int) -> bool:
        """Append a windowed layer; False where the image is too small for it."""
        _, height, width, in_c = self.tensors[self.last].shape
        extent = [(s - 1) * dilation + 1 for s in size]
        out = [
            -(-d // stride) if same else -(-(d - e + 1) // stride) for d, e in zip((height, width), extent, strict=True)
        ]
        if min(out) < 1:
            return False
        options = {"padding": "SAME" if same else "VALID", "stride_h": stride, "stride_w": stride}
        source = self.last
        if "POOL" in kind:
            before = self.tensors[source]
            result = self.tensor((1, *out, in_c), before.scale, before.zero_point)
            self.add(kind, (source,), result, filter_height=size[0], filter_width=size[1], **options)
            return True
        depthwise = kind == "DEPTHWISE_CONV_2D"
        out_c = in_c if depthwise else channels
        shape = (1, *size, in_c) if depthwise else (out_c, *size, in_c)
        scales = self.generator.uniform(0.002, 0.02, out_c)
        noise = self.generator.integers(-127, 128, shape).astype(np.int8)
        filters = self.tensor(shape, scales, data=noise)
        if not depthwise:
            quantization = Quantization(tuple(map(float, np.float32(scales))), (0,) * out_c, 0)
            self.tensors[filters] = Tensor(filters, f"t{filters}", INT8, shape, shape, quantization, noise)
        sums = self.generator.integers(-2000, 2000, out_c).astype(np.int32)
        bias = self.tensor((out_c,), 1.0, data=sums, type_=INT32)
        result = self.tensor((1, *out, out_c), 0.11, -7)
        dilated = {"dilation_h_factor": dilation, "dilation_w_factor": dilation}
        more = {"depth_multiplier": 1} if depthwise else {}
        self.add(kind, (source, filters, bias), result, **options, **dilated, **more)
        return True

    def residual(self, other: int) -> None:
        """ADD of the last tensor and an earlier one of its shape."""
        result = self.tensor(self.tensors[self.last].shape, 0.09, 5)
        self.add("ADD", (self.last, other), result, pot_scale_int16=False)

    def graph(self) -> Graph:
        return Graph("chain", tuple(self.tensors), tuple(self.operators), (0,), (self.last,))


def draw_chain(data: Any) -> Graph:
    chain = Chain(data.draw(st.integers(6, 20)), data.draw(st.integers(4, 12)), data.draw(st.integers(1, 5)))
    kinds = ["CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D", "MAX_POOL_2D", "AVERAGE_POOL_2D", "ADD"]
    for _ in range(data.draw(st.integers(2, 5))):
        kind = data.draw(st.sampled_from(kinds))
        shape = chain.tensors[chain.last].shape
        if kind == "ADD":
            earlier = [op.outputs[0] for op in chain.operators if chain.tensors[op.outputs[0]].shape == shape]
            if len(earlier) > 1:
                chain.residual(earlier[-2])
            continue
        size = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
        chain.window(
            kind,
            size,
            data.draw(st.integers(1, 2)),
            data.draw(st.booleans()),
            data.draw(st.integers(1, 9)),
            data.draw(st.sampled_from([1, 1, 2])) if "POOL" not in kind else 1,
        )
    return chain.graph()


def assert_same_as_wheel(made: Plan, graph: Graph, kinds: tuple[int, ...] = (0, 1, 2, 3)) -> None:
    wheel = Wheel(write_bytes(graph), 2_000_000)
    with tempfile.TemporaryDirectory() as place:
        ours = HostModel(codegen.emit(made), graph, Path(place))
        for kind in kinds:
            given_ = values(graph, kind)
            for mine, theirs in zip(ours.run(given_), wheel.run(given_, len(graph.outputs)), strict=True):
                np.testing.assert_array_equal(mine, theirs.reshape(mine.shape))


@few
@given(st.data())
def test_chains_in_patches_equal_the_wheel(data: Any) -> None:
    """Any stage of a random chain, with residuals, dilation and every padding, in any number of patches."""
    graph = draw_chain(data)
    if not graph.operators:
        return
    prepared = passes.run(graph)
    stages = list(patches.stages(prepared))
    if not stages:
        return
    stage = data.draw(st.sampled_from(stages))
    patched = patches.cut(stage, data.draw(st.integers(1, stage.rows)))
    if patched is None:
        return
    verify(patched.graph)
    made = codegen.plan(graph, HOST, name="model", prepared=patched.graph)
    assert_plan_is_sound(made)
    assert_same_as_wheel(made, graph, (1, 2, 3))


def assert_plan_is_sound(made: Plan) -> None:
    """Replay of the steps over the arena's bytes: what a step reads is what was written there last for it."""
    owner: dict[int, tuple[int, int]] = {}
    graph = made.graph

    def span(tensor: int) -> range:
        start = made.addresses[tensor]
        return range(start, start + graph.tensors[tensor].size_bytes)

    def names(tensor: int) -> list[tuple[int, int]]:
        base, at = root[tensor]
        return [(base, at + i) for i in range(graph.tensors[tensor].size_bytes)]

    from edgeq.codegen.buffers import views

    root = views(graph)
    for tensor in graph.inputs:
        owner.update(zip(span(tensor), names(tensor), strict=True))
    for step in made.steps:
        for tensor in step.inputs:
            assert [owner[byte] for byte in span(tensor)] == names(tensor)
        for tensor in step.outputs:
            owner.update(zip(span(tensor), names(tensor), strict=True))
    for tensor in graph.outputs:
        assert [owner[byte] for byte in span(tensor)] == names(tensor)


@pytest.mark.parametrize(("name", "ram"), [("vww_96_int8", 36_000), ("ic_resnet8_int8", 28_000)])
def test_published_models_in_patches(shared: Path, name: str, ram: int) -> None:
    """Less memory than any plan of whole layers, the same bytes, and the cost is said."""
    graph = read(next((shared / "models").rglob(f"{name}.tflite")))
    made = plan_within(graph, HOST, ram, name="model")
    assert made.arena_bytes <= ram
    assert made.patches is not None
    assert made.patches.whole_arena_bytes > ram
    assert made.macs - made.patches.repeated == codegen.plan(graph, HOST).macs
    assert_same_as_wheel(made, graph, (0, 1, 2))


def test_what_fits_is_left_whole(shared: Path) -> None:
    graph = read(next((shared / "models").rglob("kws_ref_int8.tflite")))
    assert plan_within(graph, HOST, 20_000).patches is None


def test_the_smallest_is_said() -> None:
    """The number that the answer names is one that works."""
    chain = Chain(24, 8, 2)
    for _ in range(3):
        chain.window("CONV_2D", (3, 3), 1, True, 8, 1)
    chain.window("CONV_2D", (3, 3), 2, True, 4, 1)
    graph = chain.graph()
    with pytest.raises(AnswerNo) as caught:
        plan_within(graph, HOST, 100)
    least = int(caught.value.try_[0].removeprefix("--ram "))
    assert plan_within(graph, HOST, least).arena_bytes <= least
    assert plan_within(graph, HOST, least).patches is not None
