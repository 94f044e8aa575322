"""The generated C of a model as a shared library for a Linux board, compiled here with `zig cc`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from edgeq.boards import load_board
from edgeq.device.ssh.probe import DeviceFacts
from edgeq.errors import DeviceError, ToolError

_TARGETS = {
    "aarch64": "aarch64-linux-gnu.2.17",
    "x86_64": "x86_64-linux-gnu.2.17",
    "armv7l": "arm-linux-gnueabihf.2.17",
}
COMPILE_S = 600


def compile_library(model: bytes, name: str, facts: DeviceFacts | None) -> tuple[bytes, dict[str, Any]]:
    """The library, and what the agent must know of it: symbol prefix, arena, inputs, outputs.

    facts: of the device, None for this computer. ToolError `zig-missing`, `build-failed`; DeviceError
    `runtime-c-unsupported`; the errors of code generation for operators that generated C does not have.
    """
    from edgeq.codegen import emit, plan, write_bundle
    from edgeq.graph import read_bytes

    if facts is not None and (facts.machine not in _TARGETS or facts.glibc is None):
        raise DeviceError(
            "runtime-c-unsupported",
            f"Generated C is not built for {facts.machine} with this C library.",
            try_="Leave --runtime c: the interpreter may run there.",
        )
    if importlib.util.find_spec("ziglang") is None:
        raise ToolError(
            "zig-missing", "Compiling for the device needs zig.", try_="Install it: pip install 'edgeq[mcu]'"
        )
    bundle = emit(plan(read_bytes(model, where=name), load_board("host"), name=name, optimize="speed"), model)
    with tempfile.TemporaryDirectory(prefix="edgeq-library-") as scratch:
        directory, library = Path(scratch) / "bundle", Path(scratch) / "model.so"
        write_bundle(bundle, directory)
        sources = [str(directory / file) for file in sorted(bundle.files) if file.endswith(".c") and "src/" in file]
        target = ["-target", _TARGETS[facts.machine]] if facts is not None else []
        command = [sys.executable, "-m", "ziglang", "cc", *target, "-shared", "-fPIC"]
        options = [*bundle.manifest["compile_options"], "-O3", "-fno-sanitize=all", f"-I{directory / 'include'}"]
        done = subprocess.run(
            [*command, *options, *sources, "-lm", "-o", str(library)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMPILE_S,
            check=False,
        )
        if done.returncode:
            first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[-300:])
            raise ToolError("build-failed", "The library could not be compiled.", where="zig cc", why=first.strip())
        content = library.read_bytes()
    return content, {
        "name": bundle.manifest["name"],
        "arena_bytes": bundle.manifest["arena_bytes"],
        "arena_align": bundle.manifest["arena_align"],
        "inputs": [_tensor(entry) for entry in bundle.manifest["inputs"]],
        "outputs": [_tensor(entry) for entry in bundle.manifest["outputs"]],
    }


def _tensor(entry: dict[str, Any]) -> dict[str, Any]:
    return {"dtype": entry["type"].lower(), "shape": entry["shape"], "bytes": entry["bytes"]}
