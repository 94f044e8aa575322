"""What lowering yields and the emitter prints: a Step with its C statements, constants, memory needs and layouts.

A lowering (`edgeq/codegen/lower/`, portable C) and a variant (`edgeq/codegen/variants/`, for certain cores and shapes)
have the same form: a function that gets a Node and yields Steps that compute the same bytes. `select.py` chooses among
them by cost and by the layouts that neighbours agree on; `memory.py` gives every tensor and scratch a place.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeq.graph.ir import Graph, Operator, Tensor, TensorType

_T = TypeVar("_T")

Memo = dict[Hashable, Any]
"""What the Nodes of one graph have worked out that no target changes; see Node.once."""

Optimize = Literal["speed", "balanced", "ram", "flash"]

Family = Literal["portable", "armv6m", "armv7m", "dsp", "mve"]

Fields = dict[str, int | float | tuple[int, ...] | tuple[float, ...]]
"""A parameter structure's members by name."""

C_TYPES = {
    TensorType.INT8: "int8_t",
    TensorType.UINT8: "uint8_t",
    TensorType.BOOL: "uint8_t",
    TensorType.INT16: "int16_t",
    TensorType.INT32: "int32_t",
    TensorType.INT64: "int64_t",
    TensorType.FLOAT32: "float",
    TensorType.INT4: "int8_t",
}


class Unsupported(Exception):
    """This operator, with these types and options, cannot be lowered; `reason` is a sentence, `try_` what helps."""

    def __init__(self, reason: str, try_: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.try_ = try_


@dataclass(frozen=True, slots=True)
class Target:
    """What code is generated for: the core's gcc name, its features (`dsp`, `mve`, `fpu-sp`, ...), the goal.

    fpu: whether the core computes in float32 by itself.
    """

    core: str
    features: frozenset[str]
    optimize: Optimize
    fpu: bool = True

    @property
    def family(self) -> Family:
        """Which variants the core has; `portable` where it has none."""
        if "mve" in self.features:
            return "mve"
        if "dsp" in self.features:
            return "dsp"
        if self.core in ("cortex-m0", "cortex-m0plus", "cortex-m1"):
            return "armv6m"
        return "armv7m" if self.core == "cortex-m3" else "portable"


@dataclass(frozen=True, slots=True)
class Layout:
    """How a tensor lies in memory. The default is the tensor's own row-major order and type.

    name: `nhwc`, or a variant's own name (`planes`). bias: the stored byte is q + bias (128: unsigned storage).
    size_bytes: bytes it takes, 0 for the tensor's own size. parameters: what producer and consumer must agree on
    besides (strides, pads). Two layouts agree if they are equal.
    """

    name: str = "nhwc"
    bias: int = 0
    size_bytes: int = 0
    parameters: tuple[tuple[str, int], ...] = ()


NHWC = Layout()


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """An array in flash. `name` is unique within its step; `data` is written in memory order as `c_type`."""

    name: str
    c_type: str
    data: NDArray[Any]
    align_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        return self.data.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class Struct:
    """A kernel's parameters: a constant of the C type `edgeq_<type>`; values are numbers or tuples of numbers."""

    name: str
    type: str
    fields: Mapping[str, int | float | tuple[int, ...] | tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Overlap:
    """The output may share bytes with the input if it starts at least `before_bytes` before the input's start.

    0: in place or anywhere before; negative: it may even start that much after. Without an Overlap they are disjoint.
    exact: it may start nowhere but at the input's start (a kernel that writes channel by channel).
    """

    input: int
    output: int
    before_bytes: int
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """C that a variant emits for a shape: goes to `src/<model>_<stem>.c` and is not a file under firmware/.

    `text` uses `edgeq_` for every external name, as the kernels do; equal texts are emitted once. `prototypes` are the
    declarations that the model's file needs.
    """

    stem: str
    text: str
    prototypes: str


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One layer of the generated code; it covers `covers` operators from `operator` on (fused ones have no tensor).

    calls: C statements; `{t5}` is tensor 5's address (void *), `{scratch}` the scratch's, `{name}` a constant's name
    (write `&{params}` for a Struct); kernels are written `edgeq_<kernel>`, the prefix becomes the model's name.
    inputs, outputs: activation tensors read and written (constants excluded). layouts: of those that are not NHWC.
    sources: files under firmware/kernels; headers: files under firmware/include/edgeq. scratch_bytes: 16-byte aligned.
    cost: estimated instructions (portable C on a scalar core: about 8 per MAC), only to choose by.
    code_bytes: estimated flash of the kernel's code, only to choose by. method: a phrase for the generated comment.
    """

    operator: int
    name: str
    kernel: str
    method: str
    calls: tuple[str, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    constants: tuple[Constant | Struct, ...] = ()
    scratch_bytes: int = 0
    overlaps: tuple[Overlap, ...] = ()
    layouts: Mapping[int, Layout] = field(default_factory=lambda: MappingProxyType({}))
    sources: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    emitted: tuple[Source, ...] = ()
    macs: int = 0
    cost: float = 0.0
    code_bytes: int = 0
    covers: int = 1
    reset: tuple[str, ...] = ()

    @property
    def constants_bytes(self) -> int:
        return sum(c.size_bytes for c in self.constants if isinstance(c, Constant))

    def layout(self, tensor: int) -> Layout:
        return self.layouts.get(tensor, NHWC)


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """An operator with what a lowering needs to see of its surroundings."""

    graph: Graph
    operator: Operator
    target: Target
    memo: Memo = field(default_factory=dict)

    def once(self, what: Hashable, make: Callable[[], _T]) -> _T:
        """What `make` gives, made once for this operator and all targets whose Nodes share the memo."""
        key = self.operator, what
        if key not in self.memo:
            self.memo[key] = make()
        value: _T = self.memo[key]
        return value

    @property
    def options(self) -> Mapping[str, Any]:
        return self.operator.options

    def input(self, position: int) -> Tensor:
        """The tensor at an input position; Unsupported if it is absent."""
        tensor = self.optional(position)
        if tensor is None:
            raise Unsupported(f"Input {position} is missing.")
        return tensor

    def optional(self, position: int) -> Tensor | None:
        """The tensor at an input position, or None where the optional input is absent."""
        inputs = self.operator.inputs
        if position >= len(inputs) or inputs[position] < 0:
            return None
        return self.graph.tensors[inputs[position]]

    def output(self, position: int = 0) -> Tensor:
        return self.graph.tensors[self.operator.outputs[position]]

    def constant(self, position: int, what: str) -> NDArray[Any]:
        """The value of a constant input; Unsupported if it is computed at run time."""
        tensor = self.input(position)
        if tensor.data is None:
            raise Unsupported(f"Its {what} is computed at run time; it must be a constant.", "Make it a constant.")
        return np.asarray(tensor.data)

    def following(self, tensor: int) -> list[Operator]:
        """The operators that read a tensor."""
        return [op for op in self.graph.operators if tensor in op.inputs]
