"""Exact executed-instruction counts of a bundle under QEMU: build with the bench's firmware, run, read the counter.

Counts are instructions, not cycles. Flash is what the bundle's objects and the library functions that they pull in
occupy after --gc-sections; stack is the painted high-water mark below the caller of invoke.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from edgeq.boards import load_board
from edgeq.toolchain.build import BARE_OPTIONS, ZIG_OPTIONS

HERE = Path(__file__).resolve().parent
BARE = HERE.parent / "firmware" / "ports" / "bare"
"""<string.h> for a compiler that comes without a C library."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A QEMU machine: gcc's and zig's flags for the core, where code and RAM start."""

    name: str
    flags: tuple[str, ...]
    zig_flags: tuple[str, ...]
    flash: int
    ram: int


def _machine(board: str, name: str, flash: int, ram: int) -> Machine:
    firmware = load_board(board).firmware
    assert firmware is not None
    return Machine(name, firmware.gcc_flags, firmware.zig_flags, flash, ram)


MACHINES = {
    board: _machine(board, name, flash, ram)
    for board, name, flash, ram in (
        ("qemu-mps2-an386", "mps2-an386", 0, 0x20000000),
        ("qemu-mps2-an385", "mps2-an385", 0, 0x20000000),
        ("qemu-mps2-an500", "mps2-an500", 0, 0x20000000),
        ("qemu-mps2-an505", "mps2-an505", 0x10000000, 0x38000000),
        ("qemu-mps3-an547", "mps3-an547", 0, 0x21000000),
        ("raspberry-pi-pico", "mps2-an385", 0, 0x20000000),  # ARMv6-M code; the Cortex-M3 executes all of it
    )
}
"""By board id."""

COMPILERS = ("gcc", "zig")


@dataclass(frozen=True, slots=True)
class Executed:
    """An instruction of the image that vector 0 executed: how often, and how often control left the line after it."""

    address: int
    size: int
    mnemonic: str
    operands: str
    function: str
    count: int
    taken: int


@dataclass(frozen=True, slots=True)
class Counts:
    """What one run gave. `layers` are instructions per step of the plan; they and `executed` are of vector 0."""

    instructions: int
    layers: tuple[int, ...]
    executed: tuple[Executed, ...]
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


_built = tempfile.TemporaryDirectory(prefix="edgeq-counter-")
"""What this process built and may need again: the counter, objects by a digest of what they are made of."""


@functools.cache
def plugin() -> Path:
    """The counter, built once."""
    library = Path(_built.name) / "libicount.so"
    _run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, HERE / "icount" / "icount.c"])
    return library


def _object(command: Sequence[str | Path], source: Path, include: Path) -> Path:
    """The object of a bundle's source, which is not compiled again while it and the headers that it names are equal."""
    headers = {path.name: path.read_bytes() for path in (*include.rglob("*.h"), *source.parent.rglob("*.h"))}
    text, named = source.read_bytes(), set[str]()
    while missing := {name for name in headers if name not in named and name.encode() in text}:
        named |= missing
        text += b"".join(headers[name] for name in sorted(missing))
    words = [str(word) for word in command if word != include]
    place = Path(_built.name) / f"{hashlib.sha256(repr(words).encode() + text).hexdigest()}.o"
    if not place.exists():
        _run([*command, "-c", source, "-o", place])
    return place


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


_LINE = re.compile(r"^ *([0-9a-f]+):\t([0-9a-f ]+?) *\t(\S+)(?:\t([^;@<]*))?")


def _executed(elf_path: Path, elf: ELFFile, counts: dict[int, tuple[int, int]]) -> tuple[Executed, ...]:
    """The executed instructions in order of address, as objdump names them."""
    table = elf.get_section_by_name(".symtab")
    assert isinstance(table, SymbolTableSection)
    symbols = sorted(
        (s["st_value"] & ~1, s.name) for s in table.iter_symbols() if s["st_info"]["type"] == "STT_FUNC" and s.name
    )
    starts = [address for address, _ in symbols]
    found = []
    for line in _run(["arm-none-eabi-objdump", "-d", elf_path]).splitlines():
        match = _LINE.match(line)
        if match and (at := int(match[1], 16)) in counts:
            name = symbols[bisect.bisect_right(starts, at) - 1][1] if starts[0] <= at else "?"
            size = len(match[2].replace(" ", "")) // 2
            found.append(Executed(at, size, match[3], (match[4] or "").strip(), name, *counts[at]))
    return tuple(found)


def count(
    bundle: Path,
    machine: Machine,
    vectors: Sequence[Sequence[bytes]],
    *,
    work: Path | None = None,
    compiler: str = "gcc",
) -> Counts:
    """Build the bundle for the machine and run it on `vectors` (each a sequence of inputs as bytes).

    compiler: who compiles the bundle, "gcc" or "zig"; gcc compiles the bench's own code and links either way.
    BenchError says what failed, also a write outside of the arena. Temporary files go to `work` where given, and stay.
    """
    with tempfile.TemporaryDirectory() as scratch:
        return _count(bundle, machine, vectors, work or Path(scratch), compiler)


def _compilation(machine: Machine, compiler: str, own: Sequence[str]) -> list[str]:
    """The call that compiles one source of a bundle, whose manifest names `own` options."""
    if compiler == "gcc":
        return ["arm-none-eabi-gcc", *machine.flags, *own]
    options = [option for option in own if not option.startswith("-m")]
    return [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        *machine.zig_flags,
        *ZIG_OPTIONS,
        *BARE_OPTIONS,
        *options,
        f"-I{BARE}",
    ]


def _compile(bundle: Path, machine: Machine, header: str, work: Path, compiler: str) -> Path:
    manifest = json.loads((bundle / "manifest.json").read_text())
    (work / "bench_model.h").write_text(header)
    sections = ["-ffunction-sections", "-fdata-sections", "-I", bundle / "include"]
    command = [*_compilation(machine, compiler, manifest["compile_options"]), *sections]
    objects = []
    for source in sorted((bundle / "src").glob("*.c")):
        objects.append(work / f"bundle_{source.stem}.o")
        shutil.copy(_object([*command, "-DEDGEQ_PROFILE_HOOK=bench_layer"], source, bundle / "include"), objects[-1])
    _run(
        [
            "arm-none-eabi-gcc",
            *machine.flags,
            *sections,
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
          "-Wl,--undefined=bench_layer",  # a plan without steps does not call it
          *symbols, "-T", HERE / "firmware" / "link.ld", "-o", elf, *objects, work / "startup.o"])  # fmt: skip
    return elf


def _count(bundle: Path, machine: Machine, vectors: Sequence[Sequence[bytes]], work: Path, compiler: str) -> Counts:
    manifest = json.loads((bundle / "manifest.json").read_text())
    elf_path = _compile(bundle, machine, _model_header(manifest, vectors), work, compiler)
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
             "-plugin", f"{plugin()},{watch},{extent}"]
        )  # fmt: skip
        counts = _read(printed, out, sections, int(manifest["arena_bytes"]))
        rows = (line.split() for line in out.read_text().splitlines())
        by_address = {int(row[0], 16): (int(row[1]), int(row[2])) for row in rows if len(row) == 3}
        return replace(counts, executed=_executed(elf_path, elf, by_address))


def _read(printed: str, out: Path, sections: dict[str, int], arena_bytes: int) -> Counts:
    lines = [line.split() for line in printed.splitlines() if line.strip()]
    wrong = [line for line in lines if line[0] not in ("output", "stack")]
    if wrong or not out.exists():
        raise BenchError(f"the firmware said: {printed[:400]!r}")
    rows = [line.split() for line in out.read_text().splitlines()]
    marks = [0, *(int(row[1]) for row in rows if row[0] == "mark")]
    return Counts(
        instructions=next(int(row[1]) for row in rows if row[0] == "total"),
        layers=tuple(b - a for a, b in pairwise(marks)),
        executed=(),
        outputs=tuple(bytes.fromhex(line[1]) for line in lines if line[0] == "output"),
        stack_bytes=next(int(line[1]) for line in lines if line[0] == "stack"),
        flash_bytes=sum(sections.get(s, 0) for s in (".model_text", ".model_rodata", ".model_data")),
        arena_bytes=arena_bytes,
    )
