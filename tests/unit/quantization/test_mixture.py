"""Schemes by layer: what was asked for is what the file holds, it computes what float computes, and it runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import Wheel, build

from edgeq.errors import ModelError, UsageError
from edgeq.graph import Graph, TensorType, read, read_bytes, write_bytes
from edgeq.measure import Measured
from edgeq.quantization import layer_map
from edgeq.quantization.calibration import Ranges, collect
from edgeq.quantization.evaluation import outputs_of, quantize
from edgeq.quantization.layer_map import Origins
from edgeq.quantization.rewriting import rewrite

pytestmark = pytest.mark.tensorflow


def _network() -> Any:
    """A residual block, a nested model, a depthwise layer, a concatenation; BatchNormalization, ReLU, softmax."""
    import keras

    keras.utils.set_random_seed(4)
    made = keras.layers
    inner_input = keras.Input((8, 8, 8))
    inner = keras.Model(inner_input, made.Conv2D(8, 1, activation="relu", name="squeeze")(inner_input), name="backbone")
    inputs = keras.Input((8, 8, 3), name="picture")
    z = made.Conv2D(8, 3, padding="same", name="stem")(inputs)
    z = made.ReLU(name="stem_relu")(made.BatchNormalization(name="stem_norm")(z))
    branch = made.DepthwiseConv2D(3, padding="same", activation="relu", name="deep")(z)
    z = made.Add(name="join")([inner(branch), z])
    z = made.Concatenate(name="beside")([made.MaxPooling2D(name="pool")(z), made.AveragePooling2D(2, name="mean")(z)])
    z = made.Dropout(0.5, name="drop")(made.Flatten(name="flat")(z))
    return keras.Model(inputs, made.Dense(5, activation="softmax", name="head")(z))


@dataclass(frozen=True)
class Lowered:
    tflite: bytes
    graph: Graph
    origins: Origins
    ranges: Ranges
    samples: list[list[np.ndarray]]
    expected: np.ndarray


@pytest.fixture(scope="module")
def lowered(tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    pytest.importorskip("tensorflow")
    from edgeq.quantization import float_model, tflite_converter

    made = float_model.Lowered(float_model.from_keras(_network()))
    tflite = tflite_converter.to_float32(made, tmp_path_factory.mktemp("lowered"))
    graph = read_bytes(tflite)
    x = np.random.default_rng(0).normal(size=(24, 8, 8, 3)).astype(np.float32)
    samples = [[v[None]] for v in x]
    ranges = collect(tflite, graph, samples, histograms=False).ranges
    return Lowered(tflite, graph, made.origins, ranges, samples, outputs_of(tflite, graph, [[v] for v in x])[0])


def _mix(lowered: Lowered, default: str, patterns: dict[str, str], io: str | None, **options: Any) -> bytes:
    from edgeq.quantization import mixture

    schemes = mixture.assign(lowered.graph, lowered.origins, default, patterns)
    result = mixture.quantize(
        lowered.tflite,
        lowered.graph,
        schemes,
        ranges=lowered.ranges,
        samples=lowered.samples,
        io=io,
        **options,
    )
    mixture.require(read_bytes(result), lowered.graph, schemes)
    return result


def _found(lowered: Lowered, result: bytes) -> dict[str, tuple[str, ...]]:
    told = layer_map.build(read_bytes(result), lowered.origins, sha256="", scheme="", granularity="")
    return {layer.name: layer.schemes for layer in told.layers}


@pytest.mark.parametrize(
    ("default", "patterns", "io", "bound"),
    [
        ("int8", {}, "int8", 0.02),
        ("int8", {"stem*": "int16x8"}, None, 0.02),
        ("int8", {"stem": "int16x8", "head": "float32"}, "int8", 0.02),
        ("int8", {"deep": "int16x8", "pool": "int16x8"}, "uint8", 0.02),
        ("int16x8", {"backbone": "int8"}, "int16", 0.02),
        ("float32", {"join": "int8", "head": "int16x8"}, "float32", 0.02),
        ("float32", {"*": "float16"}, None, 0.001),
        ("float16", {"squeeze": "int8", "beside": "int16x8"}, "int8", 0.02),
    ],
)
def test_every_layer_has_its_scheme_and_the_model_its_function(
    lowered: Lowered, default: str, patterns: dict[str, str], io: str | None, bound: float
) -> None:
    result = _mix(lowered, default, patterns, io)
    graph = read_bytes(result)
    error = outputs_of(result, graph, [[s[0][0]] for s in lowered.samples])[0] - lowered.expected
    assert np.abs(error).mean() < bound
    if io is not None:
        assert {graph.tensor(t).type for t in (*graph.inputs, *graph.outputs)} == {TensorType[io.upper()]}
    assert [graph.tensor(t).name for t in (*graph.inputs, *graph.outputs)] == ["picture", "head"]
    found = _found(lowered, result)
    for name, scheme in (("join", default), ("head", default), ("stem", default)):
        matching = [s for p, s in patterns.items() if layer_map_matches(p, name)]
        wanted = matching[-1] if matching else scheme
        # Half precision is for weights; a layer without any computes in float32.
        assert set(found[name]) <= ({wanted, "float32"} if wanted == "float16" else {wanted}), name


def layer_map_matches(pattern: str, name: str) -> bool:
    return pattern == name or (pattern.endswith("*") and name.startswith(pattern[:-1]))


def test_one_scheme_for_all_layers_is_what_the_converter_makes_of_the_whole(lowered: Lowered) -> None:
    from edgeq.quantization import tflite_converter

    whole = tflite_converter.quantize_int8(lowered.tflite, lowered.ranges, io="int8")
    bare = [[s[0][0]] for s in lowered.samples]
    mixed = _mix(lowered, "int8", {}, "int8")
    np.testing.assert_array_equal(
        outputs_of(mixed, read_bytes(mixed), bare)[0], outputs_of(whole, read_bytes(whole), bare)[0]
    )


def test_the_bytes_repeat(lowered: Lowered) -> None:
    patterns = {"stem*": "int16x8", "head": "float16"}
    assert _mix(lowered, "int8", patterns, "int8") == _mix(lowered, "int8", patterns, "int8")


def test_generated_code_computes_a_mixture_as_the_wheel_does(lowered: Lowered, tmp_path: Path) -> None:
    result = _mix(lowered, "int8", {"stem": "int16x8", "backbone": "int16x8"}, "int8")
    graph = read_bytes(result)
    assert sum(op.name == "QUANTIZE" for op in graph.operators) >= 3
    host, wheel = build(graph, tmp_path), Wheel(result)
    source = graph.tensor(graph.inputs[0])
    for sample in lowered.samples[:6]:
        codes = [quantize(sample[0], source)]
        np.testing.assert_array_equal(host.run(codes)[0], wheel.run(codes)[0])


def test_a_scale_covers_a_tensor_where_that_was_asked_for(lowered: Lowered) -> None:
    per_channel, per_tensor = (
        read_bytes(_mix(lowered, "int8", {"stem": "int16x8"}, "int8", per_channel=one)) for one in (True, False)
    )
    scales = [
        {len(t.quantization.scale) for t in graph.tensors if t.is_constant and t.quantization is not None}
        for graph in (per_channel, per_tensor)
    ]
    assert max(scales[0]) == 8
    assert scales[1] == {1}


def test_the_last_pattern_that_matches_holds_and_nested_models_have_paths(lowered: Lowered) -> None:
    found = _found(lowered, _mix(lowered, "int8", {"*": "float32", "backbone/*": "int16x8", "head": "int8"}, None))
    assert found["backbone/squeeze"] == ("int16x8",)
    assert found["head"] == ("int8",)
    assert found["stem"] == found["stem_norm"] == found["stem_relu"] == ("float32",)
    assert found["drop"] == ()


@pytest.mark.parametrize(
    ("patterns", "code", "said"),
    [
        ({"sten": "int16x8"}, "layer-unknown", "stem"),
        ({"drop": "int16x8"}, "layer-without-operator", "drop"),
        ({"deep": "int4"}, "layer-without-int4", "deep"),
    ],
)
def test_a_pattern_without_effect_is_an_error(lowered: Lowered, patterns: dict[str, str], code: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        _mix(lowered, "int8", patterns, "int8")
    assert caught.value.code == code
    assert said in f"{caught.value.what} {caught.value.try_}"


def test_a_type_that_is_not_the_schemes_is_an_error(lowered: Lowered) -> None:
    from edgeq.quantization import mixture

    result = read_bytes(_mix(lowered, "int8", {}, "int8"))
    asked = mixture.assign(lowered.graph, lowered.origins, "int8", {"deep": "int16x8"})
    with pytest.raises(ModelError) as caught:
        mixture.require(result, lowered.graph, asked)
    assert caught.value.code == "scheme-not-kept"
    assert "DEPTHWISE_CONV_2D" in caught.value.what
    assert "deep" in str(caught.value.where)


def test_what_has_no_form_in_a_scheme_is_named(inline: Callable[..., Any], tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((6, 6, 2))
    z = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    z = keras.layers.Flatten()(keras.ops.sin(z))
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(z))
    x = np.random.default_rng(0).normal(size=(30, 6, 6, 2)).astype("f")
    for scheme, code in (("int16x8", "not-quantizable"), ("int8", "scheme-not-kept")):
        with pytest.raises(ModelError) as caught:
            inline(model, tmp_path / "m.tflite", data=x, scheme=scheme, layers={"head": "float32"})
        assert caught.value.code == code
        assert "sin" in f"{caught.value.where} {caught.value.why}".lower()
    report = inline(model, tmp_path / "m.tflite", data=x, layers={"head": "float32"}, allow_float=True)
    assert "SIN" in " ".join(report.float_operators)


def test_convert_mixes_four_eight_and_sixteen_bits(inline: Callable[..., Any], tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 8, 8, 3)).astype(np.float32)
    out = tmp_path / "mixed.tflite"
    layers = {"stem": "int16x8", "head": "int4", "squeeze": "int4"}
    report = inline(_network(), out, data=x, layers=layers, io="int8")
    told = layer_map.read_beside(out, report.sha256)
    assert told is not None
    found = {layer.name: layer.schemes for layer in told.layers}
    assert found["stem"] == ("int16x8",)
    assert found["backbone/squeeze"] == ("int4",)
    assert found["head"] == ("int4", "int8")  # softmax has no weights
    assert found["deep"] == ("int8",)
    assert {t.type.name for t in read(out).tensors if t.is_constant} >= {"INT4", "INT8", "INT32", "INT64"}
    assert report.quality is not None
    ratio = report.quality.outputs[0].sqnr_db
    assert isinstance(ratio, Measured)
    assert ratio.value > 15


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"layers": {"a": "int5"}}, "scheme-unknown"),
        ({"layers": {"a": "dynamic"}}, "scheme-unknown"),
        ({"layers": {"a": "int8"}, "scheme": "dynamic"}, "mixture-impossible"),
        ({"granularity": "row"}, "granularity-unknown"),
        ({"granularity": "tensor", "scheme": "float16"}, "granularity-without-meaning"),
        ({"layers": {"a": "int8"}, "io": "int4"}, "io-unknown"),
    ],
)
def test_schemes_that_cannot_be_are_refused_before_anything_is_read(
    options: dict[str, Any], code: str, tmp_path: Path
) -> None:
    from edgeq.quantization import convert

    with pytest.raises(UsageError) as caught:
        convert(tmp_path / "absent.keras", tmp_path / "m.tflite", **options)
    assert caught.value.code == code
    assert caught.value.try_


def test_inputs_and_outputs_of_a_mixture_keep_names_and_order(inline: Callable[..., Any], tmp_path: Path) -> None:
    import keras

    keras.utils.set_random_seed(3)
    made = keras.layers
    wide, narrow = keras.Input((6,), name="zeta"), keras.Input((3,), name="in")
    x, y = made.Dense(8, activation="relu", name="one")(wide), made.Dense(8, name="other")(narrow)
    total = made.Add(name="sum")([x, y])
    model = keras.Model([wide, narrow], [total, made.Dense(2, name="aside")(x)])
    rng = np.random.default_rng(0)
    data = {"in": rng.normal(size=(60, 3)).astype("f"), "zeta": 5 * rng.normal(size=(60, 6)).astype("f")}
    layers = {"one": "int16x8", "aside": "float32"}
    out = tmp_path / "m.tflite"
    for io, types in ((None, ["int16", "int8", "int8", "float32"]), ("float32", ["float32"] * 4)):
        report = inline(model, out, data=data, layers=layers, io=io, calibration="minmax")
        ends = (*report.inputs, *report.outputs)
        assert [end.name for end in ends] == ["zeta", "in", "sum", "aside"]
        assert [end.type for end in ends] == types
        assert [list(s.inputs) + list(s.outputs) for s in read(out).signatures] == [["zeta", "in", "sum", "aside"]]
    expected = [np.asarray(v) for v in model([data["zeta"], data["in"]])]
    samples = [[data["zeta"][i], data["in"][i]] for i in range(20)]
    for actual, wanted in zip(outputs_of(out.read_bytes(), read(out), samples), expected, strict=True):
        assert np.max(np.abs(actual - wanted[:20])) < 0.03 * np.ptp(wanted)


def test_a_model_trained_for_its_schemes_takes_no_others(inline: Callable[..., Any], tmp_path: Path) -> None:
    import keras

    from edgeq.quantization.aware import quantize_aware

    inputs = keras.Input((6,))
    aware = quantize_aware(keras.Model(inputs, keras.layers.Dense(3, name="head")(inputs)), scheme="int8")
    x = np.random.default_rng(0).normal(size=(30, 6)).astype("f")
    aware.compile("adam", "mse")
    aware.fit(x, np.zeros((30, 3)), epochs=1, verbose=0)
    with pytest.raises(UsageError) as caught:
        inline(aware, tmp_path / "m.tflite", layers={"head": "float32"})
    assert caught.value.code == "mixture-not-trained"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--layer", "stem"], "bad-layer"),
        (["--layer", "=int8"], "bad-layer"),
        (["--layer", "stem=int3"], "scheme-unknown"),
        (["--granularity", "row"], "granularity-unknown"),
        (["--search", "--max-drop", "1"], "board-missing"),
        (["--search", "--board", "host"], "search-without-goal"),
        (["--search", "--board", "host", "--max-drop", "400"], "bad-option"),
        (["--search", "--board", "nowhere", "--max-drop", "1"], "board-unknown"),
        (["--search", "--board", "host", "--max-flash", "much"], "bad-budget"),
        (["--search", "--board", "host", "--max-drop", "1", "--scheme", "int4"], "search-with-schemes"),
        (["--max-drop", "1"], "bad-option"),
    ],
)
def test_options_of_the_command_line_that_cannot_be(
    arguments: list[str], code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgeq.cli.main import app

    model = tmp_path / "m.keras"
    with pytest.raises(SystemExit) as left:
        app(["convert", str(model), "-o", str(tmp_path / "m.tflite"), "--json", *arguments])
    assert left.value.code == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == code
    assert error["try"]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape", "layers"),
    [
        ("ic_resnet8.h5", (32, 32, 3), {"conv2d_[1-3]": "int16x8", "dense": "int4"}),
        ("vww_96.h5", (96, 96, 3), {"depthwise*": "int16x8"}),
        ("ad01.h5", (640,), {"dense": "int16x8", "dense_9": "int16x8", "dense_[4-6]": "int4"}),
    ],
)
def test_published_models_as_mixtures(
    shared: Path, tmp_path: Path, name: str, shape: tuple[int, ...], layers: dict[str, str]
) -> None:
    from edgeq import api
    from edgeq.quantization import convert

    x = np.random.default_rng(7).random((24, *shape), dtype=np.float32)
    out = tmp_path / "m.tflite"
    report = convert(shared / "models" / name, out, data=x, layers=layers, calibration="minmax", io="int8")
    told = layer_map.read_beside(out, report.sha256)
    assert told is not None
    found = {scheme for op in told.operators for scheme in (op.scheme,)}
    assert found - {None} == {"int8", *layers.values()}
    assert report.quality is not None
    ratio = report.quality.outputs[0].sqnr_db
    assert isinstance(ratio, Measured)
    assert ratio.value > 8
    api.bundle(out, "host", tmp_path / "bundle")
    assert layer_map.read_beside(tmp_path / "bundle" / "golden" / "model.tflite", report.sha256) == told
    [checked] = api.check(out, ["nucleo-h743zi"])
    assert not [f for f in checked.findings if f.rule == "operator-not-supported"]


def _recurrent() -> Any:
    import keras

    made = keras.layers
    inputs = keras.Input((6, 4))
    z = made.Bidirectional(made.LSTM(5, return_sequences=True), name="both")(inputs)
    z = made.GRU(4, return_sequences=True, name="gru")(z)
    return keras.Model(inputs, made.Dense(3, name="head")(made.Flatten(name="flat")(z)))


def _attention() -> Any:
    import keras

    made = keras.layers
    inputs = keras.Input((6, 8))
    z = made.Add(name="join")([inputs, made.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)])
    return keras.Model(inputs, made.Dense(3, name="head")(made.Flatten(name="flat")(z)))


def _pictures() -> Any:
    import keras

    made = keras.layers
    inputs = keras.Input((8, 8, 3))
    z = made.SeparableConv2D(6, 3, name="separable")(inputs)
    z = made.LeakyReLU(name="leaky")(made.Conv2DTranspose(4, 3, strides=2, name="up")(z))
    z = made.Activation("gelu", name="gelu")(made.UpSampling2D(2, name="larger")(made.Cropping2D(1, name="crop")(z)))
    return keras.Model(inputs, made.Dense(3, activation="sigmoid", name="head")(made.GlobalMaxPooling2D(name="top")(z)))


@pytest.mark.slow
@pytest.mark.parametrize("network", [_recurrent, _attention, _pictures])
def test_any_mixture_computes_what_float_computes(network: Callable[[], Any], tmp_path: Path) -> None:
    import keras

    from edgeq.quantization import float_model, mixture, tflite_converter

    keras.utils.set_random_seed(0)
    made = float_model.Lowered(float_model.from_keras(network()))
    tflite = tflite_converter.to_float32(made, tmp_path / "saved")
    graph = read_bytes(tflite)
    shape = graph.tensor(graph.inputs[0]).shape
    x = np.random.default_rng(0).normal(size=(24, *shape[1:])).astype(np.float32)
    samples = [[v[None]] for v in x]
    graph = rewrite(graph, samples, wide=False).graph  # first, as in a conversion
    tflite = write_bytes(graph)
    ranges = collect(tflite, graph, samples, histograms=False).ranges
    expected = outputs_of(tflite, graph, [[v] for v in x])[0]
    names = sorted({path for op in graph.operators for path in made.origins.of(graph, op)})
    rng = np.random.default_rng(5)
    for _ in range(8):
        default = str(rng.choice(["int8", "int16x8", "float32"]))
        chosen = rng.choice(names, size=max(1, len(names) // 2), replace=False)
        patterns = {str(n): str(rng.choice(["int8", "int16x8", "float32", "float16"])) for n in chosen}
        io = rng.choice(np.array([None, "int8", "int16", "float32"], object))
        schemes = mixture.assign(graph, made.origins, default, patterns)
        result = mixture.quantize(tflite, graph, schemes, ranges=ranges, samples=samples, io=io)
        quantized = read_bytes(result)
        mixture.require(quantized, graph, schemes)
        error = outputs_of(result, quantized, [[v] for v in x])[0] - expected
        ratio = 10 * np.log10(np.sum(expected**2) / np.sum(error**2))
        assert ratio > 20, (default, patterns, io)
