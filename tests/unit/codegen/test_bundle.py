"""The bundle's contract: files, symbols, errors, determinism, golden vectors, warnings, sanitizers."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from bundles import FLAGS, WARNINGS, HostModel, Wheel, build
from single import INT32, T, model, noise_weights, values
from test_recurrent import counter

from edgeq import codegen
from edgeq.boards import load_board
from edgeq.errors import ModelError, OutputError
from edgeq.graph import Graph, write_bytes

HOST = load_board("host")


def small() -> Graph:
    """A 3x3 convolution of an 8x8 picture."""
    weights = T((4, 3, 3, 3), scale=[0.01] * 4, data=noise_weights((4, 3, 3, 3)))
    bias = T((4,), INT32, scale=[0.001] * 4, data=[1, -2, 300, -400])
    options = {"padding": "SAME", "stride_h": 1, "stride_w": 1, "fused_activation_function": "RELU"}
    tensors = [T((1, 8, 8, 3), scale=0.1, zero=-5), weights, bias]
    return model("CONV_2D", tensors, [T((1, 8, 8, 4), scale=0.05, zero=-128)], options, 3)


def bundle(name: str) -> codegen.Bundle:
    return codegen.emit(codegen.plan(small(), HOST, name=name))


def test_equal_input_gives_equal_bytes() -> None:
    assert dict(bundle("a").files) == dict(bundle("a").files)


def test_manifest_has_every_file() -> None:
    made = bundle("a")
    listed = {path: hashlib.sha256(content).hexdigest() for path, content in made.files.items()}
    del listed["manifest.json"]
    assert made.manifest["files"] == listed


def test_golden_vectors_are_what_the_code_gives(tmp_path: Path) -> None:
    made = bundle("model")
    ours = build(small(), tmp_path)
    for index in range(4):
        given = np.frombuffer(made.files[f"golden/{index}_input_0.bin"], np.int8)
        assert ours.run([given])[0].tobytes() == made.files[f"golden/{index}_output_0.bin"]


def test_refuses_a_bad_arena(tmp_path: Path) -> None:
    ours = build(small(), tmp_path)
    invoke = ours.library.model_invoke
    invoke.argtypes = [ctypes.c_void_p]
    assert invoke(None) == -1
    assert invoke(ours.arena + 8) == -2
    assert ours.library.model_input(ours.arena, 1) is None
    assert ours.library.model_output(ours.arena, -1) is None


def test_two_models_share_an_image(tmp_path: Path) -> None:
    """All external symbols carry the model's name; both headers go into one C++ file; the profile hook is called."""
    for name in ("first", "second"):
        codegen.write_bundle(bundle(name), tmp_path / name)
    main = tmp_path / "main.cpp"
    main.write_text(
        '#include "first.h"\n#include "second.h"\n'
        'static int layers;\nextern "C" void hook(int32_t layer) { layers += layer + 1; }\n'
        "alignas(16) static uint8_t a[FIRST_ARENA_BYTES], b[SECOND_ARENA_BYTES];\n"
        "int main() { return first_invoke(a) == EDGEQ_OK && second_invoke(b) == EDGEQ_OK && layers == 2 ? 0 : 1; }\n"
    )
    objects = []
    includes = [f"-I{tmp_path / name / 'include'}" for name in ("first", "second")]
    for name in ("first", "second"):
        for source in sorted((tmp_path / name / "src").glob("*.c")):
            target = tmp_path / f"{source.stem}.o"
            flags = ["-std=c99", *WARNINGS, "-DEDGEQ_PROFILE_HOOK=hook"]
            subprocess.run(["gcc", *flags, *includes, "-c", source, "-o", target], check=True)
            objects.append(target)
            symbols = subprocess.run(["nm", "-g", "--defined-only", target], check=True, capture_output=True, text=True)
            assert all(line.split()[-1].startswith(f"{name}_") for line in symbols.stdout.splitlines())
    program = tmp_path / "program"
    subprocess.run(["g++", "-Wall", "-Wextra", "-Werror", *includes, main, *objects, "-o", program], check=True)
    assert subprocess.run([program], check=False).returncode == 0


def test_instances_of_two_models_in_one_image(tmp_path: Path) -> None:
    """Two arenas for a model with state and two for one without, run in turns: each as if it were alone."""
    graphs = {"first": counter([-7, 20, 100]), "second": small()}
    models = {}
    for name, graph in graphs.items():
        made = codegen.emit(codegen.plan(graph, HOST, name=name))
        models[name] = HostModel(made, graph, tmp_path / name)
    objects = [file for one in models.values() for file in one.objects]
    subprocess.run(["gcc", *FLAGS, "-shared", *objects, "-o", tmp_path / "both.so"], check=True)
    both = ctypes.CDLL(str(tmp_path / "both.so"))
    instances = []
    for name, one in models.items():
        one.load(both)
        one._function("reset")(None)
        instances += [(graphs[name], one, Wheel(write_bytes(graphs[name])), 2)]
        instances += [(graphs[name], one.another(), Wheel(write_bytes(graphs[name])), 7)]
    for turn in range(4):
        for graph, ours, wheel, seed in instances:
            fed = values(graph, seed + turn)
            np.testing.assert_array_equal(
                ours.run(fed)[0], wheel.run(fed)[0].reshape(graph.tensors[graph.outputs[0]].shape)
            )


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_no_undefined_behaviour(compiler: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    flags = ("-fsanitize=undefined", "-fno-sanitize-recover=all")
    if compiler == "clang":
        flags = (*flags, "-fsanitize-trap=undefined")
    ours = build(small(), tmp_path, cc=compiler, flags=flags)
    for kind in (0, 1, 2):
        ours.run(values(small(), kind))


def test_an_unsupported_operator_is_named() -> None:
    graph = model("FLOOR_MOD", [T((4,), scale=0.1), T((4,), scale=0.1)], [T((4,), scale=0.1)])
    with pytest.raises(ModelError, match="FLOOR_MOD") as caught:
        codegen.plan(graph, HOST)
    assert caught.value.code == "operator-not-supported"
    assert [(op.name, bool(reason)) for op, reason, _ in codegen.unsupported(graph)] == [("FLOOR_MOD", True)]


def test_only_an_older_bundle_is_replaced(tmp_path: Path) -> None:
    codegen.write_bundle(bundle("a"), tmp_path / "out")
    codegen.write_bundle(bundle("b"), tmp_path / "out")
    assert not (tmp_path / "out" / "src" / "a.c").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("keep")
    with pytest.raises(OutputError):
        codegen.write_bundle(bundle("a"), tmp_path / "other")
