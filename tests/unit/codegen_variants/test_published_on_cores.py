"""The published models whole, in QEMU, by gcc and by `zig cc`: bytes equal the tflite-micro wheel's, stack under 1 KiB.

Two by default, all on every core if slow. The arena is guarded: a write outside of it fails the run.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from edgeq.boards import load_board
from edgeq.codegen import emit, plan, write_bundle
from edgeq.graph import read

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
import counter
import mcu
import timing

TOOLS = all(shutil.which(tool) for tool in ("qemu-system-arm", "arm-none-eabi-gcc", "gcc"))
pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(not TOOLS, reason="needs qemu-system-arm, arm-none-eabi-gcc and gcc"),
]
MODELS = ("kws_ref_int8", "vww_96_int8", "ic_resnet8_int8", "ad01_int8")


def measured(shared: Path, model: str, board: str, compiler: str, place: Path, optimize: str) -> counter.Counts:
    """The counts of a published model, once its bytes are right."""
    path = shared / "models" / f"{model}.tflite"
    graph = read(path)
    write_bundle(emit(plan(graph, load_board(board), name="model", optimize=optimize)), place / "bundle")
    given = mcu.vectors(graph)
    counts = counter.count(place / "bundle", counter.MACHINES[board], given, compiler=compiler)
    assert list(counts.outputs) == mcu.expected(path, given, graph)
    assert counts.stack_bytes < 1024
    return counts


@pytest.mark.parametrize("board", ["qemu-mps2-an386", "qemu-mps3-an547"])
def test_keyword_model_by_zig(shared: Path, board: str, tmp_path: Path) -> None:
    pytest.importorskip("ziglang", reason="needs the package ziglang (extra mcu)")
    measured(shared, "kws_ref_int8", board, "zig", tmp_path, "speed")


@pytest.mark.parametrize("optimize", ["speed", "balanced", "ram"])
@pytest.mark.parametrize("compiler", counter.COMPILERS)
@pytest.mark.parametrize("board", counter.MACHINES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.slow
def test_published_model(shared: Path, model: str, board: str, compiler: str, optimize: str, tmp_path: Path) -> None:
    if compiler == "zig":
        pytest.importorskip("ziglang", reason="needs the package ziglang (extra mcu)")
    measured(shared, model, board, compiler, tmp_path, optimize)


def test_every_instruction_has_a_class_and_cycles(shared: Path, tmp_path: Path) -> None:
    """Classes add up to the count; at least a cycle an instruction; the multiply-accumulates are at least MACs / 2."""
    counts = measured(shared, "ad01_int8", "qemu-mps2-an386", "gcc", tmp_path, "speed")
    classes = timing.shares(counts.executed)
    assert sum(classes.values()) == counts.instructions
    assert timing.cortex_m4_cycles(counts.executed) > counts.instructions
    assert classes["MACs"] >= 264_192 / 2


def test_cycles_follow_the_manual() -> None:
    """A loop of two loads in a row, a multiply-accumulate and a taken branch, by hand from the manual's table."""
    loop = [
        ("ldr", "r2, [r0, #0]", 0),
        ("ldr", "r3, [r1, #0]", 0),
        ("ldrb", "r4, [r3, #0]", 0),
        ("smlad", "r5, r2, r4, r5", 0),
        ("ldmia.w", "r0!, {r6, r7, r8-r10}", 0),
        ("strb", "r5, [r1, #0]", 0),
        ("bne.n", "0", 9),
    ]
    executed = [counter.Executed(4 * i, 4, name, text, "f", 10, taken) for i, (name, text, taken) in enumerate(loop)]
    per_pass = 2 + 1 + 2 + 1 + 6 + 1 + 1
    assert timing.cortex_m4_cycles(executed) == 10 * per_pass + 9 * 2


@pytest.mark.parametrize("figure", mcu.FIGURES)
def test_a_regression_of_more_than_one_percent_is_told(figure: str) -> None:
    """Of any figure, by name; less, or another row, is none."""
    known = [{"model": "m", "board": board, "optimize": "speed"} | dict.fromkeys(mcu.FIGURES, 10_000) for board in "ab"]
    assert mcu.regressions([known[0] | {figure: 10_100}, known[1]], known) == []
    assert mcu.regressions([known[0], known[1] | {figure: 10_101}], known) == [
        f"m, b, speed: {figure} 10,101, was 10,000"
    ]
    assert mcu.regressions([known[0] | {figure: 20_000, "model": "other"}], known) == []


def test_a_write_behind_the_arena_fails_the_run(shared: Path, tmp_path: Path) -> None:
    graph = read(shared / "models" / "ad01_int8.tflite")
    write_bundle(emit(plan(graph, load_board("qemu-mps2-an386"), name="model", optimize="balanced")), tmp_path / "b")
    source = tmp_path / "b" / "src" / "model.c"
    text = source.read_text()
    start = text.index("model_invoke(void *")
    brace = text.index("{", start) + 1
    source.write_text(f"{text[:brace]}\n    ((uint8_t *)arena_start)[MODEL_ARENA_BYTES + 3] = 1;\n{text[brace:]}")
    with pytest.raises(counter.BenchError, match="outside"):
        counter.count(tmp_path / "b", counter.MACHINES["qemu-mps2-an386"], mcu.vectors(graph)[:1])
