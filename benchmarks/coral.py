"""How well EdgeQ predicts the Edge TPU compiler's placement: `python benchmarks/coral.py FILE.json`.

FILE holds compiled models: a list of {model, ops: [{i, op, ver, inputs, outputs, options}], cpu_ops, log}; where a log
tells the compiler's version, that one's placement is predicted. Prints one JSON document: operators, operators_right,
models, models_exact, misses, the confusion by operator, the statuses compared with logs where there are some; the
leave-one-family-out result, for which the limits are fitted without the family; and the limits that fit all of FILE,
with their bounds, beside which `edgeq/checks/coral_rules.py` has its own.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from math import inf, prod, sqrt
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field, StrictBool, StrictInt, ValidationError, field_validator, model_validator

from edgeq.checks.coral import Predicted, predict
from edgeq.checks.coral_rules import LAST_COMPILER, Limits, Node, breach
from edgeq.cli.common import render_error
from edgeq.errors import DataError
from edgeq.graph.ir import Graph, Operator, Quantization, Tensor, TensorType
from edgeq.graph.schema import ENUMS

ENUM_FIELDS = {"padding": "padding", "fused_activation_function": "activation", "weights_format": "weights_format"}
INTEGER_FIELDS = {*ENUM_FIELDS, "dilation_h_factor", "dilation_w_factor", "ellipsis_mask", "new_axis_mask"}

REPORTED: dict[str, tuple[float, float]] = {
    "row_elements": (0, 302_400),
    "reshape_row_elements": (0, 108_800),
    "reshape_elements": (408_000, inf),
    "transpose_elements": (57_600, 102_400),
    "resize_factor": (2, inf),
    "softmax_row_elements": (134_400, 160_000),
    "softmax_elements": (16_384, inf),
    "mean_window": (1_089, 32_768),
}
"""Limit -> largest value reported as mapped and smallest reported as not, by users of the compiler, besides FILE."""


@dataclass(frozen=True)
class Compiled:
    """A compiled model: its graph and the operators that the compiler left on the CPU."""

    name: str
    graph: Graph
    cpu: frozenset[int]
    log: Any

    @property
    def compiler(self) -> int:
        """The compiler's major version, where its log tells it; else the last."""
        known = re.match(r"\d+", (self.log or {}).get("ver") or "")
        return int(known[0]) if known else LAST_COMPILER

    def predicted(self, limits: Limits) -> tuple[Predicted, ...]:
        return predict(self.graph, limits=limits, compiler=self.compiler)

    @property
    def family(self) -> tuple[str, ...]:
        return tuple(op.name for op in self.graph.operators)


class RawTensor(BaseModel):
    """A tensor of FILE, of which a constant's values are not known."""

    shape: list[Annotated[StrictInt, Field(ge=0)]]
    dtype: Literal[tuple(TensorType.__members__)]  # type: ignore[valid-type]  # the schema's names
    const: StrictBool
    sig: list[StrictInt] | None = None
    scale: list[float] | None = None
    zp: list[StrictInt] | None = None


class RawOperator(BaseModel):
    """An operator of FILE."""

    i: StrictInt
    op: Annotated[str, Field(min_length=1)]
    ver: Annotated[StrictInt, Field(ge=1)] = 1
    inputs: list[RawTensor | None]
    outputs: list[RawTensor]
    options: dict[str, Any] | None = None

    @field_validator("options")
    @classmethod
    def _known(cls, options: dict[str, Any] | None) -> dict[str, Any]:
        for key, value in (options or {}).items():
            name = snake(key)
            known = ENUMS[ENUM_FIELDS[name]] if name in ENUM_FIELDS else ()
            number = isinstance(value, int) and (not known or 0 <= value < len(known))
            if name in INTEGER_FIELDS and not number and value not in known:
                raise ValueError(f"{key} must be one of the schema's numbers")
        return options or {}


class RawLog(BaseModel):
    """The compiler's own log."""

    ver: str | None = None
    rows: list[tuple[str, Annotated[StrictInt, Field(ge=0)], str]] = []


class RawModel(BaseModel):
    """A model of FILE."""

    model: str
    ops: list[RawOperator]
    cpu_ops: list[StrictInt]
    log: RawLog | None = None

    @model_validator(mode="after")
    def _numbered(self) -> RawModel:
        numbers = [op.i for op in self.ops]
        if len(set(numbers)) != len(numbers):
            raise ValueError("two operators have the same number i")
        if unknown := set(self.cpu_ops) - set(numbers):
            raise ValueError(f"cpu_ops names {min(unknown)}, which no operator is numbered")
        return self


def snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def options_of(raw: dict[str, Any]) -> dict[str, Any]:
    """The schema's options under their snake_case names, enums as names."""
    result = {}
    for key, value in raw.items():
        name = snake(key)
        if name in ENUM_FIELDS and isinstance(value, int):
            result[name] = ENUMS[ENUM_FIELDS[name]][value]
        else:
            result[name] = value
    return result


def graph_of(record: dict[str, Any]) -> Graph:
    """The graph of a record. Records do not say which output an input is; equal shape, type and scale tell.

    Of several candidates the nearest one that nobody has read yet is taken, else the nearest.
    """
    tensors: list[Tensor] = []
    produced: dict[Any, list[int]] = {}
    read: set[int] = set()

    def add(raw: dict[str, Any]) -> int:
        type_ = TensorType[raw["dtype"]]
        shape = tuple(raw["shape"])
        quantization = None
        if raw.get("scale"):
            quantization = Quantization(tuple(raw["scale"]), tuple(raw.get("zp") or [0] * len(raw["scale"])))
        data = np.broadcast_to(np.zeros((), type_.dtype or np.int8), shape) if raw["const"] else None
        index = len(tensors)
        signature = tuple(raw["sig"]) if raw.get("sig") else shape
        tensors.append(Tensor(index, f"t{index}", type_, shape, signature, quantization, data))
        return index

    def key(raw: dict[str, Any]) -> Any:
        return (tuple(raw["shape"]), raw["dtype"], tuple(raw.get("scale") or ()), tuple(raw.get("zp") or ()))

    def source(raw: dict[str, Any] | None, taken: set[int]) -> int:
        if raw is None:
            return -1
        if raw["const"]:
            return add(raw)
        candidates = [index for index in produced.get(key(raw), []) if index not in taken]
        fresh = [index for index in candidates if index not in read]
        if fresh or candidates:
            return (fresh or candidates)[-1]
        index = add(raw)
        produced.setdefault(key(raw), []).append(index)
        return index

    operators = []
    for raw in record["ops"]:
        inputs: list[int] = []
        for one in raw["inputs"]:
            inputs.append(source(one, set(inputs)))
        read.update(inputs)
        outputs = []
        for one in raw["outputs"]:
            outputs.append(add(one))
            produced.setdefault(key(one), []).append(outputs[-1])
        name, _, custom = raw["op"].partition(":")
        operators.append(
            Operator(
                raw["i"],
                name,
                raw.get("ver", 1),
                tuple(inputs),
                tuple(outputs),
                options_of(raw.get("options") or {}),
                custom or None,
            )
        )
    return Graph(record["model"], tuple(tensors), tuple(operators), (), ())


def load(path: Path) -> list[Compiled]:
    """The compiled models of a file. DataError `mapping-unreadable`, `mapping-invalid`."""
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            "mapping-unreadable",
            "The file of compiled models cannot be read.",
            where=str(path),
            why=error.strerror,
            try_="Give the path of a file like edgetpu_mapping.json.",
        ) from error
    except (ValueError, RecursionError) as error:
        place = f"{path}:{error.lineno}" if isinstance(error, json.JSONDecodeError) else str(path)
        why = (
            "it is not JSON"
            if isinstance(error, json.JSONDecodeError)
            else "it is not UTF-8 text, or nested too deeply"
        )
        raise _invalid(place, why) from error
    if not isinstance(records, list) or not records:
        raise _invalid(str(path), "it must be a list of at least one model")
    return [_compiled(path, index, record) for index, record in enumerate(records)]


def _compiled(path: Path, index: int, record: Any) -> Compiled:
    try:
        model = RawModel.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        value = "" if first["type"] in ("missing", "value_error") else f", not {repr(first['input'])[:40]}"
        message = re.sub("^Value error, | or instance of Raw.*", "", first["msg"])
        raise _invalid(f"{path}: [{index}]{place}", message + value) from error
    return Compiled(model.model, graph_of(record), frozenset(model.cpu_ops), record.get("log"))


def _invalid(where: str, why: str) -> DataError:
    return DataError(
        "mapping-invalid",
        "The file is not a list of models that the Edge TPU compiler has compiled.",
        where=where,
        why=why,
        try_="A model is {model, ops: [{i, op, inputs: [{shape, dtype, const}], outputs, options}], cpu_ops: [i]}.",
    )


def _activations(node: Node) -> Iterable[float]:
    return (prod(t.shape[-2:]) for t in node.activations)


QUANTITIES: dict[str, tuple[tuple[str, ...], Callable[[Node], float]]] = {
    "row_elements": ((), lambda n: max(_activations(n), default=0)),
    "reshape_row_elements": (("RESHAPE",), lambda n: prod(n.output.shape[-2:])),
    "reshape_elements": (("RESHAPE",), lambda n: n.output.elements),
    "transpose_elements": (("TRANSPOSE",), lambda n: n.output.elements),
    "resize_factor": (
        ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"),
        lambda n: max(n.output.shape[1] / n.input.shape[1], n.output.shape[2] / n.input.shape[2]),
    ),
    "softmax_elements": (("SOFTMAX",), lambda n: n.input.shape[-1]),
    "softmax_row_elements": (("SOFTMAX",), lambda n: prod(n.input.shape[-2:])),
    "mean_window": (("MEAN",), lambda n: n.input.elements / max(1, n.output.elements)),
}
"""Limit -> the operators it concerns (empty: all but SOFTMAX) and the quantity it bounds."""


def quantity(name: str, node: Node) -> float:
    """What a limit bounds of an operator; 0 where it does not concern it, or where a dimension is missing."""
    names, measure = QUANTITIES[name]
    if node.operator.name not in names if names else node.operator.name == "SOFTMAX":
        return 0
    try:
        return measure(node)
    except (IndexError, ZeroDivisionError):
        return 0


UNLIMITED = Limits(**{f.name: inf for f in fields(Limits)})


def fit(models: Sequence[Compiled]) -> tuple[Limits, dict[str, tuple[float, float]]]:
    """Limits from compiled models, and each one's bounds: largest quantity mapped, smallest not mapped.

    Not mapped counts only where nothing else explains it: every input is there on the Edge TPU, no other constraint is
    broken, and no other quantity is as far beyond what was mapped.
    """
    low = {name: bounds[0] for name, bounds in REPORTED.items()}
    high = {name: bounds[1] for name, bounds in REPORTED.items()}
    failed: list[Node] = []
    for model in models:
        on_cpu = {t for op in model.graph.operators if op.index in model.cpu for t in op.outputs}
        for op in model.graph.operators:
            node = Node(model.graph, op, UNLIMITED, 14, model.compiler)
            if op.index not in model.cpu:
                for name in QUANTITIES:
                    low[name] = max(low[name], quantity(name, node))
            elif not on_cpu.intersection(op.inputs) and breach(node) is None:
                failed.append(node)
    for node in failed:
        beyond = {}
        for name in QUANTITIES:
            if low[name] and (value := quantity(name, node)) > low[name]:
                beyond[name] = value
        if len(beyond) == 1:
            ((name, value),) = beyond.items()
            high[name] = min(high[name], value)
        elif specific := {n: v for n, v in beyond.items() if QUANTITIES[n][0]}:
            name = min(specific, key=lambda n: specific[n] / low[n])
            if len(specific) == 1:
                high[name] = min(high[name], specific[name])
    bounds = {name: (low[name], high[name]) for name in low}
    limits = Limits(
        **{name: (sqrt(a * b) if a and b < inf else b if b < inf else inf) for name, (a, b) in bounds.items()}
    )
    return limits, bounds


def score(models: Sequence[Compiled], limits: Limits) -> dict[str, Any]:
    """Operators and models right, the misses, the confusion by operator (predicted/actual)."""
    confusion: dict[str, Counter[str]] = {}
    misses = []
    exact = 0
    for model in models:
        wrong = [
            {
                "operator": p.operator.index,
                "name": p.operator.name,
                "predicted": "tpu" if p.mapped else "cpu",
                "why": p.status,
            }
            for p in model.predicted(limits)
            if p.mapped is (p.operator.index in model.cpu)
        ]
        for p in model.predicted(limits):
            actual = "cpu" if p.operator.index in model.cpu else "tpu"
            confusion.setdefault(p.operator.name, Counter())[f"{'tpu' if p.mapped else 'cpu'}/{actual}"] += 1
        exact += not wrong
        if wrong:
            misses.append({"model": model.name, "operators": wrong})
    total = sum(len(model.graph.operators) for model in models)
    return {
        "operators": total,
        "operators_right": total - sum(len(miss["operators"]) for miss in misses),
        "models": len(models),
        "models_exact": exact,
        "misses": misses,
        "confusion": {name: dict(counts) for name, counts in sorted(confusion.items())},
    }


def compare_logs(models: Sequence[Compiled], limits: Limits) -> dict[str, int]:
    """Status sentences of the compiler's logs beside the predicted ones, counted per operator name."""
    rows = right = 0
    for model in models:
        if not model.log or not model.log.get("rows"):
            continue
        counted = Counter((p.operator.name, p.status) for p in model.predicted(limits))
        for name, count, status in model.log["rows"]:
            rows += count
            right += min(count, counted[name, status])
    return {"statuses": rows, "statuses_right": right}


def held_out(models: Sequence[Compiled], family: Callable[[Compiled], Any]) -> dict[str, Any]:
    """Each family predicted with limits fitted without it."""
    right = total = exact = 0
    families = {family(model) for model in models}
    for one in families:
        inside = [model for model in models if family(model) == one]
        limits, _ = fit([model for model in models if family(model) != one])
        result = score(inside, limits)
        right += result["operators_right"]
        total += result["operators"]
        exact += result["models_exact"]
    return {
        "families": len(families),
        "operators": total,
        "operators_right": right,
        "share": round(right / total, 5) if total else None,
        "models_exact": exact,
    }


def main(arguments: Sequence[str]) -> int:
    """Print the document; exit status 2 if FILE cannot be used."""
    if len(arguments) != 1:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    try:
        models = load(Path(arguments[0]))
    except DataError as error:
        render_error(error)
        return error.exit_status
    limits = Limits()
    fitted, bounds = fit(models)
    document = {
        **score(models, limits),
        **compare_logs(models, limits),
        "leave_one_family_out": held_out(models, lambda model: model.family),
        "leave_one_operator_set_out": held_out(models, lambda model: frozenset(model.family)),
        "limits_fitted": {
            f.name: (round(getattr(fitted, f.name)), bounds[f.name])
            for f in fields(fitted)
            if getattr(fitted, f.name) < inf
        },
    }
    sys.stdout.write(json.dumps(document, indent=1).replace("Infinity", "null") + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
