"""Build a bundle with the host's compiler and run it in this process; the tflite-micro wheel beside it.

EDGEQ_CFLAGS adds compiler flags to every build, for example `-fsanitize=undefined -fno-sanitize-recover=all`. With
`-fsanitize=address` among them the arena is an allocation of its exact size, whose ends AddressSanitizer guards;
its library must be preloaded (tests/c/test_operators_sanitized.py does).
"""

from __future__ import annotations

import copy
import ctypes
import hashlib
import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeq import codegen
from edgeq.boards import load_board
from edgeq.boards.profile import Board
from edgeq.codegen.emit import Bundle
from edgeq.graph.ir import Graph, Tensor

FLAGS = os.environ.get("EDGEQ_CFLAGS", "").split()
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
CANARY = 64
# A preloaded sanitizer is for this process, not for the compiler.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}

HOST = load_board("host")


_objects = tempfile.TemporaryDirectory(prefix="edgeq-objects-")


def _compiled(command: list[str], source: Path) -> str:
    """The object file of a source; kernels that were compiled before are not compiled again."""
    headers = sorted(source.parent.glob("**/*.h")) if source.stem == "model" else source.parent.glob("edgeq/*.h")
    text = source.read_bytes() + b"".join(h.read_bytes() for h in sorted(headers))
    if source.stem == "model":
        text += (source.parents[1] / "include" / "model.h").read_bytes()
    key = hashlib.sha256(repr(command).encode() + text).hexdigest()
    place = Path(_objects.name) / f"{key}.o"
    if not place.exists():
        include = str(source.parents[1] / "include")
        command = [*command, "-I", include, "-c", str(source), "-o", str(place)]
        subprocess.run(command, check=True, env=ENVIRONMENT)
    return str(place)


class _Memory:
    """Bytes 0xA5 at a multiple of 64, of the C library's own allocator: AddressSanitizer knows their bounds."""

    def __init__(self, size_bytes: int) -> None:
        self._library, self._pointer = ctypes.CDLL(None), ctypes.c_void_p()
        place, sizes = ctypes.byref(self._pointer), (ctypes.c_size_t(64), ctypes.c_size_t(size_bytes))
        assert self._library.posix_memalign(place, *sizes) == 0
        self.start = self._pointer.value or 0
        ctypes.memset(self.start, 0xA5, size_bytes)

    def __del__(self) -> None:
        self._library.free(self._pointer)


class HostModel:
    """A bundle as a shared library: inputs in, outputs out, canaries around each arena checked at each run.

    `arena` is what the functions take: the arena's address, or that of the pointers to its pieces, `arenas`.
    """

    def __init__(
        self, bundle: Bundle, graph: Graph, place: Path, *, cc: str = "gcc", flags: tuple[str, ...] = ()
    ) -> None:
        codegen.write_bundle(bundle, place / "bundle")
        self.graph, self.name = graph, bundle.name
        flags = (*flags, *FLAGS)
        library = place / "model.so"
        command = [cc, "-std=c99", "-O1", *WARNINGS, *flags, "-fPIC"]
        self.objects = [_compiled(command, source) for source in sorted((place / "bundle" / "src").glob("*.c"))]
        subprocess.run([cc, *flags, "-shared", *self.objects, "-o", str(library)], check=True, env=ENVIRONMENT)
        pieces = [region["bytes"] for region in bundle.manifest.get("regions", ())]
        self.sizes = pieces if len(pieces) > 1 else [bundle.manifest["arena_bytes"]]
        self._guarded = any("address" in flag for flag in flags if flag.startswith("-fsanitize"))
        self.load(ctypes.CDLL(str(library)))

    def load(self, library: ctypes.CDLL) -> None:
        """Take the code from a library that holds it, with a new arena."""
        self.library = library
        for kind in ("input", "output"):
            function = self._function(kind)
            function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int]
        for verb in ("invoke", "reset"):
            self._function(verb).argtypes = [ctypes.c_void_p]
        margin = 0 if self._guarded else CANARY
        self._memories = [_Memory(size + 2 * margin) for size in self.sizes]
        self.arenas = [memory.start + margin for memory in self._memories]
        self._pointers = (ctypes.c_void_p * len(self.arenas))(*self.arenas)
        self.arena = self.arenas[0] if len(self.arenas) == 1 else ctypes.addressof(self._pointers)
        self._function("reset")(self.arena)

    def another(self) -> HostModel:
        """A further instance of the same code, with an arena of its own."""
        twin = copy.copy(self)
        twin.load(self.library)
        return twin

    def _function(self, verb: str) -> Any:
        return getattr(self.library, f"{self.name}_{verb}")

    def run(self, values: list[np.ndarray]) -> list[np.ndarray]:
        for position, value in enumerate(values):
            data = np.ascontiguousarray(value).tobytes()
            ctypes.memmove(self._function("input")(self.arena, position), data, len(data))
        assert self._function("invoke")(self.arena) == 0
        for memory, arena, size in zip(self._memories, self.arenas, self.sizes, strict=True):
            margin = arena - memory.start
            around = ctypes.string_at(memory.start, margin) + ctypes.string_at(arena + size, margin)
            assert not around.strip(b"\xa5"), "wrote outside of the arena"
        return [self._read(position, self.graph.tensors[t]) for position, t in enumerate(self.graph.outputs)]

    def _read(self, position: int, tensor: Tensor) -> np.ndarray:
        data = ctypes.string_at(self._function("output")(self.arena, position), tensor.size_bytes)
        return np.frombuffer(data, tensor.type.dtype).reshape(tensor.shape)


def build(graph: Graph, place: Path, *, optimize: str = "balanced", board: Board = HOST, **options: Any) -> HostModel:
    """The graph's bundle on this computer, named `model`."""
    bundle = codegen.emit(codegen.plan(graph, board, name="model", optimize=optimize))
    return HostModel(bundle, graph, place, **options)


class Wheel:
    """The oracle: TFLM as the tflite-micro wheel carries it."""

    def __init__(self, model: bytes, arena_bytes: int = 4_000_000) -> None:
        from tflite_micro import runtime

        self.interpreter = runtime.Interpreter.from_bytes(model, arena_size=arena_bytes)

    def run(self, values: list[np.ndarray], outputs: int = 1) -> list[np.ndarray]:
        for position, value in enumerate(values):
            self.interpreter.set_input(value, position)
        self.interpreter.invoke()
        return [np.asarray(self.interpreter.get_output(i)) for i in range(outputs)]


def without_last(graph: Graph) -> Graph:
    """The graph up to the last operator's input: logits instead of a softmax."""
    *kept, last = graph.operators
    return replace(graph, operators=tuple(kept), outputs=(last.inputs[0],), subgraphs=(), signatures=())
