"""What a conversion did and how good the result is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgeq.measure import Measured, Quantity, Unknown


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that is allowed but likely wrong: stable code, one sentence, what to try."""

    code: str
    what: str
    try_: str = ""


@dataclass(frozen=True, slots=True)
class TensorIo:
    """An input or output of the `.tflite`, in the order and under the name that Keras gives it."""

    name: str
    type: str
    shape: tuple[int, ...]
    scale: float | None
    zero_point: int | None


@dataclass(frozen=True, slots=True)
class OutputError:
    """Quantized against float, over all samples and elements of one output, in the output's own unit."""

    name: str
    mean_absolute: Quantity
    maximum: Quantity
    sqnr_db: Quantity


@dataclass(frozen=True, slots=True)
class Quality:
    """The quantized model on the reference kernels against the float model, both fed the same samples.

    `agreement` is the share of samples for which both choose the same class. `confusion[i][j]` counts the samples of
    label i for which the quantized model chose class j; None without labels.
    """

    samples: int
    measured_on: str
    accuracy_float: Quantity
    accuracy_quantized: Quantity
    agreement: Quantity
    outputs: tuple[OutputError, ...]
    confusion: tuple[tuple[int, ...], ...] | None = None


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What a conversion did: the result's inputs, outputs, operators, size; its quality; warnings about the data.

    `layers` are the fields of `edgeq.quantization.analysis.LayerLoss`, in execution order; `verdict` names the layer
    that loses most and what to try, or is empty. `layer_map` is the file that maps Keras layers to tensors and
    operators (`edgeq.quantization.layer_map`); `mixture` the schemes asked for by pattern of layer, or
    chosen by a search, whose report `search` is (`edgeq.quantization.search.SearchReport`).
    """

    model: str
    out: str
    sha256: str
    scheme: str
    size_bytes: int
    float_size_bytes: int
    inputs: tuple[TensorIo, ...]
    outputs: tuple[TensorIo, ...]
    operators: Mapping[str, int]
    float_operators: tuple[str, ...]
    calibration_samples: int
    seed: int
    improvements: tuple[str, ...]
    quality: Quality | None
    warnings: tuple[Warned, ...]
    layers: tuple[Mapping[str, Any], ...] = ()
    verdict: str = ""
    layer_map: str = ""
    mixture: Mapping[str, str] = field(default_factory=dict)
    granularity: str = "channel"
    search: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, object]:
        """The report as a JSON object; quantities say what kind of number they are."""
        document = asdict(self)
        if self.quality is not None:
            document["quality"] = quality_json(self.quality)
        document["warnings"] = [{"code": w.code, "what": w.what, "try": w.try_} for w in self.warnings]
        return document


def quality_json(quality: Quality) -> dict[str, object]:
    """Quality as a JSON object."""
    return {
        "samples": quality.samples,
        "measured_on": quality.measured_on,
        "accuracy_float": quality.accuracy_float.to_json(),
        "accuracy_quantized": quality.accuracy_quantized.to_json(),
        "agreement": quality.agreement.to_json(),
        "outputs": [
            {
                "name": o.name,
                "mean_absolute": o.mean_absolute.to_json(),
                "maximum": o.maximum.to_json(),
                "sqnr_db": o.sqnr_db.to_json(),
            }
            for o in quality.outputs
        ],
        "confusion": None if quality.confusion is None else [list(row) for row in quality.confusion],
    }


def value_of(quantity: Quantity) -> float | None:
    """The number, or None if it is unknown."""
    return None if isinstance(quantity, Unknown) else quantity.value


def measured(value: float, unit: str, basis: str) -> Measured:
    """A plain Python number, so that it prints and serializes the same everywhere."""
    return Measured(float(value), unit, basis)
