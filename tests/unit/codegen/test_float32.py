"""float32 operators against LiteRT's reference kernels and the tflite-micro wheel.

Equal bytes wherever only sums, products, quotients and roots are computed, which add in the references' order. Where
exponentials are, each side's own error of a unit or two in the last place may show: `ulps` says how many.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import HOST, Wheel, build
from hypothesis import given
from hypothesis import strategies as st
from single import FLOAT32, INT32, T, model, outputs_of, values
from test_operators import few, seeds, sizes
from test_passes import Builder

from edgeq import codegen, convert
from edgeq.boards import load_board
from edgeq.codegen import golden
from edgeq.device import connect, flash
from edgeq.errors import ModelError
from edgeq.graph import Graph, TensorType, read_bytes, write_bytes
from edgeq.interpreter import Interpreter

activations = st.sampled_from(["NONE", "RELU", "RELU6", "RELU_N1_TO_1"])
KINDS = (0, 1, 2, 3)


def real(*shape: int, data: Any = None) -> T:
    return T(shape, FLOAT32, data=data)


def normal(seed: int, *shape: int) -> T:
    return real(*shape, data=np.random.default_rng(seed).standard_normal(shape))


def ints(*numbers: int) -> T:
    return T((len(numbers),), INT32, data=numbers)


def distance(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference in units of the last place of the expected value (equal NaN and infinities: 0)."""
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        units = np.abs(got.astype(np.float64) - expected) / np.spacing(np.abs(expected).astype(np.float32))
    return float(np.where(same, 0, np.nan_to_num(units, nan=np.inf)).max(initial=0))


def close(graph: Graph, ulps: int = 0, *, wheel: bool = True, floor: float = 0) -> None:
    """Assert that outputs are within `ulps` of both references'; differences up to `floor` count as none."""
    file = write_bytes(graph)
    optimized = graph.operators[0].name == "ELU"  # LiteRT's reference kernels have none
    references: list[Callable[[list[np.ndarray]], list[np.ndarray]]] = [Interpreter(file, reference=not optimized).run]
    if wheel:
        tflm = Wheel(file, 1_000_000)
        references.append(lambda given: tflm.run(given, len(graph.outputs)))
    for kind, arrays in zip(KINDS, outputs_of(graph, KINDS), strict=True):
        for reference in references:
            for mine, theirs in zip(arrays, reference(values(graph, kind)), strict=True):
                expected = theirs.reshape(mine.shape)
                if mine.dtype != np.float32:
                    np.testing.assert_array_equal(mine, expected)
                    continue
                assert distance(np.where(np.abs(mine - expected) <= floor, expected, mine), expected) <= ulps


@st.composite
def windows(draw: Any, kind: str) -> Graph:
    h, w, c = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 5))
    kh, kw, sh, sw = (draw(st.integers(1, 4)) for _ in range(4))
    dh, dw = (1, 1) if kind == "pool" else draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (2, 3)]))
    high, wide = (kh - 1) * dh + 1, (kw - 1) * dw + 1
    same = high > h or wide > w or draw(st.booleans())
    oh, ow = (-(-h // sh), -(-w // sw)) if same else (-(-(h - high + 1) // sh), -(-(w - wide + 1) // sw))
    options = {
        "padding": "SAME" if same else "VALID",
        "stride_h": sh,
        "stride_w": sw,
        "fused_activation_function": draw(activations),
    }
    batches, seed = draw(st.integers(1, 2)), draw(seeds)
    source = real(batches, h, w, c)
    if kind == "pool":
        name = draw(st.sampled_from(["AVERAGE_POOL_2D", "MAX_POOL_2D"]))
        return model(
            name, [source], [real(batches, oh, ow, c)], {**options, "filter_height": kh, "filter_width": kw}, 1
        )
    options |= {"dilation_h_factor": dh, "dilation_w_factor": dw}
    if kind == "depthwise":
        outs = c * draw(st.integers(1, 3))
        options["depth_multiplier"] = outs // c
        filters = normal(seed, 1, kh, kw, outs)
    else:
        groups = draw(st.sampled_from([1, 1, c]))
        outs = c * draw(st.integers(1, 2)) if groups > 1 else draw(st.integers(1, 6))
        filters = normal(seed, outs, kh, kw, c // groups)
    bias = [normal(seed + 1, outs)]
    name = "DEPTHWISE_CONV_2D" if kind == "depthwise" else "CONV_2D"
    return model(name, [source, filters, *bias], [real(batches, oh, ow, outs)], options, 1)


@few
@pytest.mark.parametrize("kind", ["conv", "depthwise", "pool"])
@given(data=st.data())
def test_windows(kind: str, data: Any) -> None:
    graph = data.draw(windows(kind))
    filters = graph.tensors[graph.operators[0].inputs[1]] if kind == "conv" else None
    grouped = filters is not None and filters.shape[3] != graph.tensors[graph.inputs[0]].shape[3]
    close(graph, wheel=not grouped)  # TFLM has no grouped convolution in float


@few
@given(st.data())
def test_transpose_conv(data: Any) -> None:
    draw = data.draw
    h, w, c, outs = (draw(st.integers(1, 5)) for _ in range(4))
    kh, kw, sh, sw = (draw(st.integers(1, 4)) for _ in range(4))
    same, seed = draw(st.booleans()), draw(seeds)
    oh, ow = (h * sh, w * sw) if same else ((h - 1) * sh + kh, (w - 1) * sw + kw)
    options = {"padding": "SAME" if same else "VALID", "stride_h": sh, "stride_w": sw}
    inputs = [ints(1, oh, ow, outs), normal(seed, outs, kh, kw, c), real(1, h, w, c)]
    close(model("TRANSPOSE_CONV", inputs, [real(1, oh, ow, outs)], options, 1))


@few
@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 9), activations, st.booleans(), seeds)
def test_fully_connected(rows: int, depth: int, units: int, activation: str, biased: bool, seed: int) -> None:
    inputs = [real(rows, depth), normal(seed, units, depth), *([normal(seed + 1, units)] if biased else [])]
    close(model("FULLY_CONNECTED", inputs, [real(rows, units)], {"fused_activation_function": activation}, 1))


@few
@given(st.data())
def test_batch_matmul(data: Any) -> None:
    draw = data.draw
    m, k, n = draw(st.integers(1, 6)), draw(st.integers(1, 12)), draw(st.integers(1, 6))
    lead = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    adjoint = draw(st.booleans()), draw(st.booleans())
    a, b = real(*lead, *((k, m) if adjoint[0] else (m, k))), real(*lead, *((n, k) if adjoint[1] else (k, n)))
    close(model("BATCH_MATMUL", [a, b], [real(*lead, m, n)], {"adj_x": adjoint[0], "adj_y": adjoint[1]}, 1))


@st.composite
def pairs(draw: Any) -> tuple[list[T], T]:
    """Two broadcastable tensors, one of which may be constant, and their result."""
    shape = tuple(draw(st.lists(sizes, min_size=1, max_size=4)))
    small = tuple(d if draw(st.booleans()) else 1 for d in shape)
    b = normal(draw(seeds), *small) if draw(st.booleans()) else real(*small)
    inputs = [real(*shape), b]
    return inputs[::-1] if draw(st.booleans()) else inputs, real(*shape)


@few
@pytest.mark.parametrize("name", ["ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE"])
@given(case=pairs(), activation=activations)
def test_binary(name: str, case: tuple[list[T], T], activation: str) -> None:
    options = {"fused_activation_function": activation} if name in ("ADD", "SUB", "MUL", "DIV") else {}
    close(model(name, case[0], [case[1]], options, 1))


@few
@given(st.integers(1, 4), st.integers(1, 5), seeds, st.booleans())
def test_prelu(h: int, c: int, seed: int, shared: bool) -> None:
    alpha = normal(seed, 1, 1, c) if shared else normal(seed, h, h, c)
    close(model("PRELU", [real(1, h, h, c), alpha], [real(1, h, h, c)], {}, 1))


@few
@pytest.mark.parametrize("name", ["EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL"])
@given(case=pairs())
def test_comparison(name: str, case: Any) -> None:
    close(model(name, case[0], [T(case[1].shape, TensorType.BOOL)], {}, 1))


@few
@pytest.mark.parametrize("name", ["MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"])
@given(shape=st.lists(sizes, min_size=1, max_size=4), data=st.data())
def test_reductions(name: str, shape: list[int], data: Any) -> None:
    axes = sorted(data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1)))
    keep = data.draw(st.booleans())
    left = [1 if i in axes else d for i, d in enumerate(shape) if keep or i not in axes]
    graph = model(name, [real(*shape), ints(*axes)], [real(*left)], {"keep_dims": keep}, 1)
    close(graph, wheel=name != "REDUCE_MIN")  # TFLM's REDUCE_MIN is younger than the wheel


EXACT = ["ABS", "NEG", "SQUARE", "SQRT", "RSQRT", "RELU", "RELU6", "LEAKY_RELU", "HARD_SWISH"]
ROUNDED = {"EXP": 2, "LOG": 2, "LOGISTIC": 4, "TANH": 4, "ELU": 4}
FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "EXP": np.exp,
    "LOG": np.log,
    "TANH": np.tanh,
    "LOGISTIC": lambda x: 1 / (1 + np.exp(-x)),
    "ELU": lambda x: np.where(x < 0, np.expm1(x), x),
    "SQRT": np.sqrt,
    "RELU_N1_TO_1": lambda x: np.clip(x, -1, 1),
    "RELU_0_TO_1": lambda x: np.clip(x, 0, 1),
    "GELU": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}


@pytest.mark.parametrize("name", [*EXACT, *ROUNDED])
def test_unary(name: str) -> None:
    options = {"alpha": 0.3} if name == "LEAKY_RELU" else {}
    graph = model(name, [real(3, 7, 50)], [real(3, 7, 50)], options, 1)
    # the references cut the sigmoid short below -9 (exp(x), 1.2e-4 of 1.2e-4 away): there the difference is absolute
    close(graph, ROUNDED.get(name, 0), floor=2e-8 if name == "LOGISTIC" else 0)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_over_all_exponents(name: str) -> None:
    """Every 8,191st float there is, against the function in double precision; infinities and NaN do not stop it."""
    bits = np.arange(0, 1 << 32, 8191, dtype=np.uint64).astype(np.uint32)
    x = np.concatenate([bits.view(np.float32), np.array([0, -0.0, np.inf, -np.inf, np.nan], np.float32)])
    graph = model(name, [real(x.size)], [real(x.size)], {"approximate": True} if name == "GELU" else {}, 1)
    with tempfile.TemporaryDirectory() as place:
        got = build(graph, Path(place)).run([x])[0]
    with np.errstate(all="ignore"):
        exact = FUNCTIONS[name](x.astype(np.float64)).astype(np.float32)
    usual = np.isfinite(x) & np.isfinite(exact)
    if name == "GELU":
        usual &= x > -1  # below, 1 + tanh cancels
    bound = {**ROUNDED, "GELU": 12}.get(name, 0)
    assert distance(got[usual], exact[usual]) <= bound
    if name in ("EXP", "LOG", "TANH", "ELU", "SQRT"):
        assert distance(got, exact) <= bound


@few
@given(st.integers(1, 4), st.integers(1, 20), st.sampled_from([1.0, 0.5]))
def test_softmax(rows: int, depth: int, beta: float) -> None:
    close(model("SOFTMAX", [real(rows, depth)], [real(rows, depth)], {"beta": beta}, 1), 6)


@few
@given(st.integers(1, 4), st.integers(1, 20))
def test_log_softmax(rows: int, depth: int) -> None:
    """Near 0 the logarithm of a sum near 1 cancels: there the difference is absolute."""
    close(model("LOG_SOFTMAX", [real(rows, depth)], [real(rows, depth)], {}, 1), 4, floor=1e-6)


@few
@given(st.integers(1, 4), st.integers(1, 20))
def test_l2_normalization(rows: int, depth: int) -> None:
    close(model("L2_NORMALIZATION", [real(rows, depth)], [real(rows, depth)], {}, 1))


@few
@given(st.data())
def test_resize(data: Any) -> None:
    draw = data.draw
    h, w, c, oh, ow = (draw(st.integers(1, 7)) for _ in range(5))
    corners, half = draw(st.sampled_from([(False, False), (True, False), (False, True)]))
    options = {"align_corners": corners, "half_pixel_centers": half}
    for name in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"):
        close(model(name, [real(1, h, w, c), ints(oh, ow)], [real(1, oh, ow, c)], options, 3))


@few
@pytest.mark.parametrize("name", ["ARG_MAX", "ARG_MIN"])
@given(shape=st.lists(sizes, min_size=1, max_size=3), axis=st.integers(0, 2))
def test_positions(name: str, shape: list[int], axis: int) -> None:
    axis %= len(shape)
    left = [d for i, d in enumerate(shape) if i != axis]
    close(model(name, [real(*shape), ints(axis)], [T(tuple(left), INT32)], {"output_type": "INT32"}, 1))


MOVEMENTS: dict[str, tuple[list[T], list[T], dict[str, Any]]] = {
    "TRANSPOSE": ([real(2, 3, 4), ints(2, 0, 1)], [real(4, 2, 3)], {}),
    "CONCATENATION": ([real(2, 3), real(2, 4), normal(5, 2, 1)], [real(2, 8)], {"axis": 1}),
    "PACK": ([real(2, 3), real(2, 3)], [real(2, 2, 3)], {"axis": 1, "values_count": 2}),
    "UNPACK": ([real(2, 3)], [real(2), real(2), real(2)], {"axis": 1, "num": 3}),
    "SPLIT": ([ints(1), real(2, 6)], [real(2, 3), real(2, 3)], {"num_splits": 2}),
    "SLICE": ([real(3, 5), ints(1, 2), ints(2, -1)], [real(2, 3)], {}),
    "STRIDED_SLICE": ([real(5, 6), ints(0, 5), ints(5, 0), ints(2, -2)], [real(3, 3)], {}),
    "PAD": ([real(2, 3), T((2, 2), INT32, data=[[1, 0], [2, 1]])], [real(3, 6)], {}),
    "PADV2": ([real(2, 3), T((2, 2), INT32, data=[[1, 0], [2, 1]]), real(1, data=[1.5])], [real(3, 6)], {}),
    "MIRROR_PAD": ([real(3, 3), T((2, 2), INT32, data=[[1, 0], [2, 1]])], [real(4, 6)], {"mode": "REFLECT"}),
    "GATHER": ([real(4, 3), ints(2, 0, 2)], [real(3, 3)], {"axis": 0}),
    "DEPTH_TO_SPACE": ([real(1, 2, 2, 8)], [real(1, 4, 4, 2)], {"block_size": 2}),
    "SPACE_TO_DEPTH": ([real(1, 4, 4, 2)], [real(1, 2, 2, 8)], {"block_size": 2}),
    "SPACE_TO_BATCH_ND": (
        [real(1, 3, 4, 2), ints(2, 2), T((2, 2), INT32, data=[[0, 1], [0, 0]])],
        [real(4, 2, 2, 2)],
        {},
    ),
    "BATCH_TO_SPACE_ND": (
        [real(4, 2, 2, 2), ints(2, 2), T((2, 2), INT32, data=[[0, 1], [0, 0]])],
        [real(1, 3, 4, 2)],
        {},
    ),
    "BROADCAST_TO": ([real(3, 1), ints(2, 3, 4)], [real(2, 3, 4)], {}),
    "RESHAPE": ([real(2, 6), ints(3, 4)], [real(3, 4)], {}),
    "EXPAND_DIMS": ([real(2, 6), ints(1)], [real(2, 1, 6)], {}),
    "SQUEEZE": ([real(2, 1, 6)], [real(2, 6)], {}),
    "TILE": ([real(2, 3), ints(2, 2)], [real(4, 6)], {}),
    "REVERSE_V2": ([real(2, 3), ints(1)], [real(2, 3)], {}),
}


@pytest.mark.parametrize("name", MOVEMENTS)
def test_movement(name: str) -> None:
    inputs, outputs, options = MOVEMENTS[name]
    # TFLM has no TILE; its SPACE_TO_BATCH_ND pads float with what lay in memory
    wheel = name not in ("TILE", "BROADCAST_TO", "SPACE_TO_BATCH_ND")
    close(model(name, inputs, outputs, options, 2 if name in ("PACK", "BROADCAST_TO") else 1), wheel=wheel)


def test_published_float_model(shared: Path, tmp_path: Path) -> None:
    """The whole published network: the same logits, the same class, probabilities within three units."""
    file = (shared / "models" / "ic_resnet8_float.tflite").read_bytes()
    graph = read_bytes(file)
    ours, litert, tflm = build(graph, tmp_path, flags=("-O2",)), Interpreter(file), Wheel(file)
    for seed in range(4):
        picture = np.random.default_rng(seed).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)
        got = ours.run([picture])[0].copy()
        for expected in (litert.run([picture])[0], tflm.run([picture])[0]):
            assert distance(got, expected) <= 3
            assert got.argmax() == expected.argmax()


def keras_files(shared: Path, place: Path) -> dict[str, Path]:
    """The four published Keras models and the demonstration's, untrained."""
    import keras

    from edgeq.demonstration.training import build_model

    keras.utils.set_random_seed(5)
    build_model(keras).save(place / "demo.keras")
    models = {name: shared / "models" / f"{name}.h5" for name in ("ad01", "ic_resnet8", "vww_96")}
    return {**models, "kws": shared / "models" / "kws_saved_model", "demo": place / "demo.keras"}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["float32", "float16"])
@pytest.mark.parametrize("name", ["ad01", "ic_resnet8", "vww_96", "kws", "demo"])
def test_whole_networks(name: str, scheme: str, shared: Path, tmp_path: Path) -> None:
    """Converted here: within three units of LiteRT (and TFLM, which has no float16), the same class."""
    convert(keras_files(shared, tmp_path)[name], tmp_path / "model.tflite", scheme=scheme)
    file = (tmp_path / "model.tflite").read_bytes()
    graph = read_bytes(file)
    ours, references = build(graph, tmp_path, flags=("-O2",)), [Interpreter(file).run]
    if scheme == "float32":
        references.append(Wheel(file).run)
    for kind in KINDS:
        got = ours.run(values(graph, kind))[0].copy()
        for reference in references:
            expected = reference(values(graph, kind))[0]
            assert distance(got, expected) <= 3
            assert got.argmax() == expected.argmax()


def every_kind(*functions: str) -> Graph:
    """A network through sums, exponentials, roots and choices, of float32 throughout."""
    b = Builder()
    map_, row = real(1, 6, 6, 4), real(1, 36)
    window = {"padding": "SAME", "stride_h": 1, "stride_w": 1, "dilation_h_factor": 1, "dilation_w_factor": 1}
    x = b.add("CONV_2D", [real(1, 6, 6, 3), normal(1, 4, 3, 3, 3), normal(2, 4)], map_, **window)
    x = b.add("DEPTHWISE_CONV_2D", [x, normal(3, 1, 3, 3, 4), normal(4, 4)], map_, depth_multiplier=1, **window)
    for name in ("TANH", "HARD_SWISH", "LOGISTIC", *functions):
        x = b.add(name, [x], map_)
    x = b.add("L2_NORMALIZATION", [x], map_)
    x = b.add("MEAN", [x, ints(3)], real(1, 6, 6), keep_dims=False)
    x = b.add("RESHAPE", [x, ints(1, 36)], row)
    x = b.add("RSQRT", [x], row)
    x = b.add("DIV", [x, normal(5, 1, 36)], row)
    x = b.add("FULLY_CONNECTED", [x, normal(6, 5, 36), normal(7, 5)], real(1, 5))
    return b.graph(x, b.add("SOFTMAX", [x], real(1, 5), beta=1.0), b.add("LOG_SOFTMAX", [x], real(1, 5)))


@pytest.mark.qemu
@pytest.mark.parametrize("board", ["virtual-m4", "qemu-mps2-an386", "qemu-mps3-an547"])
def test_a_board_computes_the_bytes_that_a_computer_computes(
    board: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exponentials included: no libm takes part."""
    if board.startswith("qemu") and shutil.which("qemu-system-arm") is None:
        pytest.skip("needs qemu-system-arm: make system (as root), or install it")
    monkeypatch.setenv("EDGEQ_STATE", str(tmp_path / "state"))
    graph, profile = every_kind("ELU", "EXP"), load_board(board)
    expected = [[a.tobytes() for a in arrays] for arrays in outputs_of(graph, KINDS)]
    codegen.write_bundle(codegen.emit(codegen.plan(graph, profile, name="every")), tmp_path / "bundle")
    flash(tmp_path / "bundle", profile)
    with connect(profile) as session:
        assert [session.infer([x.tobytes() for x in values(graph, kind)]) for kind in KINDS] == expected


def test_golden_vectors_state_a_tolerance(tmp_path: Path) -> None:
    """They are LiteRT's values; what the C computes is within what their README says."""
    graph = every_kind()
    files = golden.vectors(codegen.plan(graph, HOST))
    assert f"{golden.FLOAT_TOLERANCE:.0e}" in files["golden/README.md"].decode()
    ours = build(graph, tmp_path)
    for vector in range(golden.COUNT):
        for position, got in enumerate(ours.run(golden.inputs(graph, vector))):
            expected = np.frombuffer(files[f"golden/{vector}_output_{position}.bin"], np.float32).reshape(got.shape)
            assert np.abs(got - expected).max() <= golden.FLOAT_TOLERANCE * np.abs(expected).max()


def test_without_a_floating_point_unit() -> None:
    """A core without an FPU refuses, and says what to do; with one, and on a computer, it compiles."""
    graph = model("TANH", [real(4)], [real(4)], {}, 1)
    board = load_board("raspberry-pi-pico")
    with pytest.raises(ModelError) as caught:
        codegen.plan(graph, board)
    assert "no floating-point unit" in str(caught.value.why)
    assert "int8" in " ".join(caught.value.try_)
    assert [reason for _, reason, _ in codegen.unsupported(graph, board=board)] == [caught.value.why]
    for able in (HOST, load_board("nucleo-f446re")):
        assert "-ffp-contract=off" in codegen.plan(graph, able).compile_options
        assert not codegen.unsupported(graph, board=able)


def test_dynamic_range_weights_are_refused() -> None:
    weights = T((3, 4), TensorType.INT8, 0.1, data=np.ones(12))
    graph = model("FULLY_CONNECTED", [real(1, 4), weights], [real(1, 3)], {}, 1)
    ((_, reason, advice),) = codegen.unsupported(graph)
    assert "dynamic range" in reason
    assert "int8" in advice
