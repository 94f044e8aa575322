"""Exact executed-instruction counts of a bundle under QEMU: build with the bench's firmware, run, read the counter.

Counts are instructions, not cycles. Flash is what the bundle's objects and the library functions that they pull in
occupy after --gc-sections; stack is the painted high-water mark below the caller of invoke.
"""

from __future__ import annotations

import bisect
import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Machine:
    """A QEMU machine: gcc's flags for its core, where code and RAM start."""

    name: str
    flags: tuple[str, ...]
    flash: int
    ram: int


MACHINES = {
    "qemu-mps2-an386": Machine(
        "mps2-an386", ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"), 0, 0x20000000
    ),
    "qemu-mps2-an385": Machine("mps2-an385", ("-mcpu=cortex-m3", "-mthumb"), 0, 0x20000000),
    "qemu-mps2-an500": Machine(
        "mps2-an500", ("-mcpu=cortex-m7", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv5-d16"), 0, 0x20000000
    ),
    "qemu-mps2-an505": Machine(
        "mps2-an505", ("-mcpu=cortex-m33", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"), 0x10000000, 0x38000000
    ),
    "qemu-mps3-an547": Machine("mps3-an547", ("-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard"), 0, 0x21000000),
}
"""By board id."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What one run gave. `layers` are instructions per step of the plan, `functions` per function, both of vector 0."""

    instructions: int
    layers: tuple[int, ...]
    functions: dict[str, int]
    outputs: tuple[bytes, ...]
    stack_bytes: int
    flash_bytes: int
    arena_bytes: int


class BenchError(RuntimeError):
    """A tool is missing, the bundle does not compile, or the firmware failed."""


def _run(command: Sequence[str | Path]) -> str:
    if shutil.which(str(command[0])) is None:
        raise BenchError(f"{command[0]} is not on the PATH")
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=300)
    if done.returncode != 0:
        raise BenchError(f"{command[0]} failed:\n{done.stderr[:4000]}")
    return done.stdout + done.stderr


def plugin(directory: Path) -> Path:
    """The counter, built into `directory` if it is not there."""
    library = directory / "libicount.so"
    if not library.exists():
        _run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, HERE / "icount" / "icount.c"])
    return library


def _model_header(manifest: dict[str, object], vectors: Sequence[Sequence[bytes]]) -> str:
    name = str(manifest["name"])
    inputs, outputs = manifest["inputs"], manifest["outputs"]
    assert isinstance(inputs, list) and isinstance(outputs, list)
    rows = [",".join(map(str, b"".join(v))) for v in vectors]
    total = len(b"".join(vectors[0]))
    body = ",\n".join("{" + row + "}" for row in rows)
    return f"""#include "{name}.h"
#define BENCH_ARENA_BYTES {name.upper()}_ARENA_BYTES
#define BENCH_ARENA_ALIGN {name.upper()}_ARENA_ALIGN
#define BENCH_INPUTS {len(inputs)}
#define BENCH_OUTPUTS {len(outputs)}
#define BENCH_VECTORS {len(vectors)}
#define BENCH_INVOKE {name}_invoke
#define BENCH_RESET {name}_reset
#define BENCH_INPUT {name}_input
#define BENCH_OUTPUT {name}_output
static const size_t bench_input_bytes[] = {{{",".join(str(i["bytes"]) for i in inputs)}}};
static const size_t bench_output_bytes[] = {{{",".join(str(o["bytes"]) for o in outputs)}}};
static const uint8_t bench_vectors[{len(vectors)}][{total}] = {{{body}}};
"""


def _functions(elf: ELFFile, counts: dict[int, int]) -> dict[str, int]:
    table = elf.get_section_by_name(".symtab")
    assert isinstance(table, SymbolTableSection)
    symbols = sorted(
        (s["st_value"] & ~1, s.name) for s in table.iter_symbols() if s["st_info"]["type"] == "STT_FUNC" and s.name
    )
    starts = [address for address, _ in symbols]
    found: dict[str, int] = {}
    for address, count in counts.items():
        at = bisect.bisect_right(starts, address) - 1
        name = symbols[at][1] if at >= 0 else "?"
        found[name] = found.get(name, 0) + count
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def count(bundle: Path, machine: Machine, vectors: Sequence[Sequence[bytes]], *, work: Path | None = None) -> Counts:
    """Build the bundle for the machine and run it on `vectors` (each a sequence of inputs as bytes).

    BenchError says what failed. Temporary files go to `work` where given, and stay there.
    """
    with tempfile.TemporaryDirectory() as scratch:
        return _count(bundle, machine, vectors, work or Path(scratch))


def _compile(bundle: Path, machine: Machine, header: str, work: Path) -> Path:
    manifest = json.loads((bundle / "manifest.json").read_text())
    (work / "bench_model.h").write_text(header)
    common = ["arm-none-eabi-gcc", *machine.flags, "-ffunction-sections", "-fdata-sections", "-I", bundle / "include"]
    objects = []
    for source in sorted((bundle / "src").glob("*.c")):
        objects.append(work / f"bundle_{source.stem}.o")
        hook = ["-DEDGEQ_PROFILE_HOOK=bench_layer"]
        _run([*common, *manifest["compile_options"], *hook, "-c", source, "-o", objects[-1]])
    _run(
        [
            *common,
            "-std=c11",
            "-O2",
            "-fno-builtin",
            "-fno-tree-loop-distribute-patterns",
            "-I",
            work,
            "-c",
            HERE / "firmware" / "startup.c",
            "-o",
            work / "startup.o",
        ]
    )
    elf = work / "bench.elf"
    symbols = [
        f"-Wl,--defsym={n}={v}" for n, v in (("bench_flash_start", machine.flash), ("bench_ram_start", machine.ram))
    ]
    _run(["arm-none-eabi-gcc", *machine.flags, "-nostartfiles", "-Wl,--gc-sections", "-Wl,--no-warn-rwx-segments",
          *symbols, "-T", HERE / "firmware" / "link.ld", "-o", elf, *objects, work / "startup.o"])  # fmt: skip
    return elf


def _count(bundle: Path, machine: Machine, vectors: Sequence[Sequence[bytes]], work: Path) -> Counts:
    manifest = json.loads((bundle / "manifest.json").read_text())
    elf_path = _compile(bundle, machine, _model_header(manifest, vectors), work)
    with elf_path.open("rb") as file:
        elf = ELFFile(file)
        table = elf.get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        address = {s.name: s["st_value"] & ~1 for s in table.iter_symbols()}
        sections = {s.name: s["sh_size"] for s in elf.iter_sections()}
        out = work / "counts.txt"
        watch = f"start={address['bench_start']:x},stop={address['bench_stop']:x},mark={address['bench_layer']:x}"
        extent = f"lo={machine.flash:x},size={address['bench_code_end'] - machine.flash:x},out={out}"
        printed = _run(
            ["qemu-system-arm", "-M", machine.name, "-nographic", "-monitor", "none", "-serial", "none",
             "-semihosting-config", "enable=on,target=native", "-kernel", elf_path,
             "-plugin", f"{plugin(work)},{watch},{extent}"]
        )  # fmt: skip
        return _read(printed, out, elf, sections, int(manifest["arena_bytes"]))


def _read(printed: str, out: Path, elf: ELFFile, sections: dict[str, int], arena_bytes: int) -> Counts:
    lines = [line.split() for line in printed.splitlines() if line.strip()]
    wrong = [line for line in lines if line[0] not in ("output", "stack")]
    if wrong or not out.exists():
        raise BenchError(f"the firmware said: {printed[:400]!r}")
    rows = [line.split() for line in out.read_text().splitlines()]
    marks = [0, *(int(n) for key, n in rows if key == "mark")]
    named = {"total", "outside", "mark"}
    return Counts(
        instructions=next(int(n) for key, n in rows if key == "total"),
        layers=tuple(b - a for a, b in pairwise(marks)),
        functions=_functions(elf, {int(key, 16): int(n) for key, n in rows if key not in named}),
        outputs=tuple(bytes.fromhex(line[1]) for line in lines if line[0] == "output"),
        stack_bytes=next(int(line[1]) for line in lines if line[0] == "stack"),
        flash_bytes=sum(sections.get(s, 0) for s in (".model_text", ".model_rodata", ".model_data")),
        arena_bytes=arena_bytes,
    )
