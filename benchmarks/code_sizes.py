"""Code bytes of every portable kernel on every core, and of the agent with every port, as gcc compiles them.

`python benchmarks/code_sizes.py` writes `edgeq/checks/code_sizes.json`, from which `edgeq check` adds up an image.
Run it after changing a kernel, the agent or a port.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from elftools.elf.elffile import ELFFile

from edgeq import bundle
from edgeq.boards import Board, list_boards
from edgeq.checks.code_size import agent_key
from edgeq.checks.fit import memory_of
from edgeq.codegen.plan import plan
from edgeq.graph import write_bytes
from edgeq.graph.ir import Graph, Operator, Quantization, Tensor, TensorType
from edgeq.toolchain import build

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "edgeq" / "checks" / "code_sizes.json"
ARM, RISCV = "arm-none-eabi-gcc", "riscv64-unknown-elf-gcc"
CORES = {
    "cortex-m0plus": (ARM, "-mthumb", "-mcpu=cortex-m0plus", "-mfloat-abi=soft"),
    "cortex-m3": (ARM, "-mthumb", "-mcpu=cortex-m3", "-mfloat-abi=soft"),
    "cortex-m4": (ARM, "-mthumb", "-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"),
    "cortex-m7": (ARM, "-mthumb", "-mcpu=cortex-m7", "-mfloat-abi=hard", "-mfpu=fpv5-d16"),
    "cortex-m33": (ARM, "-mthumb", "-mcpu=cortex-m33", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"),
    "cortex-m55": (ARM, "-mthumb", "-mcpu=cortex-m55", "-mfloat-abi=hard"),
    "rv32imc": (RISCV, "-march=rv32imc_zicsr", "-mabi=ilp32", "-mcmodel=medany", "-ffreestanding", "-fbuiltin"),
}
OPTIONS = ("-std=c99", "-O2", "-ffunction-sections", "-fdata-sections")


def allocated_bytes(file: Path) -> int:
    """Bytes of an object file that end up in flash."""
    with file.open("rb") as stream:
        sections = ELFFile(stream).iter_sections()
        return sum(s["sh_size"] for s in sections if s["sh_flags"] & 2 and s["sh_type"] == "SHT_PROGBITS")


def kernel_bytes(command: tuple[str, ...]) -> dict[str, int]:
    """Kernel's file -> bytes of its object."""
    sizes = {}
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "kernel.o"
        for source in sorted((ROOT / "firmware" / "kernels").glob("*.c")):
            includes = [f"-I{ROOT / 'firmware' / 'include'}"]
            if command[0] == RISCV:
                includes.append(f"-I{ROOT / 'firmware' / 'ports' / 'bare'}")
            subprocess.run([*command, *OPTIONS, *includes, "-c", str(source), "-o", str(target)], check=True)
            sizes[source.name] = allocated_bytes(target)
    return sizes


def smallest_model() -> Graph:
    """One operator on four values."""
    quantization = Quantization((0.1,), (0,))
    tensors = tuple(Tensor(i, f"t{i}", TensorType.INT8, (1, 4), (1, 4), quantization) for i in range(2))
    return Graph("one", tensors, (Operator(0, "RELU", 2, (0,), (1,)),), (0,), (1,))


def agent_bytes(board: Board) -> int:
    """Code and constants of the agent with a board's port: those of a linked image without its model's."""
    graph = smallest_model()
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        (place / "one.tflite").write_bytes(write_bytes(graph))
        bundle(place / "one.tflite", board, place / "bundle")
        sizes = build(place / "bundle", board, place / "image", compiler="gcc").sizes
    flash = next(use for use in memory_of(plan(graph, board), board) if use.kind == "flash")
    model = sum(part.value for name, part in flash.parts.items() if name != "agent")  # type: ignore[union-attr]
    return round(sizes.text_bytes + sizes.rodata_bytes + sizes.data_bytes - model)


def main() -> int:
    """Compile every kernel for every core, link every port, and write the table; 3 if there is no compiler."""
    versions = []
    for compiler in (ARM, RISCV):
        if shutil.which(compiler) is None:
            sys.stderr.write(f"{compiler} is not on the PATH\n")
            return 3
        done = subprocess.run([compiler, "-dumpfullversion"], capture_output=True, text=True, check=True)
        versions.append(f"{compiler} {done.stdout.strip()}")
    table = {
        "compiler": ", ".join(versions),
        "options": " ".join(OPTIONS),
        "bytes": {core: kernel_bytes(command) for core, command in CORES.items()},
    }
    boards = [board for board in list_boards() if board.firmware is not None and board.memory]
    table["agent"] = {agent_key(board): agent_bytes(board) for board in boards}
    TABLE.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
