"""Compiles and links an image. The result is kept beside a digest of all that went into it and used again."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from edgeq import __version__
from edgeq.boards.profile import Board
from edgeq.errors import AnswerNo, EdgeqError, ToolError
from edgeq.files import write_directory
from edgeq.toolchain.arena import arena_pieces, arena_sections, region_at_fault
from edgeq.toolchain.compilers import Compiler, find_compiler
from edgeq.toolchain.image import Image, Sizes
from edgeq.toolchain.manifest import Manifest, read_manifest
from edgeq.toolchain.mlperf import MLPERF_INPUTS, require_mlperf_model
from edgeq.toolchain.port import Port, load_port

RECORD = "image.json"
COMPILE_TIMEOUT_S = 600
PROFILE_HOOK = "-DEDGEQ_PROFILE_HOOK=edgeq_agent_layer"
AGENT_OPTIONS = ("-std=gnu99", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")
SECTIONS = ("-g", "-ffunction-sections", "-fdata-sections")
BARE_OPTIONS = ("-fno-unwind-tables", "-fno-asynchronous-unwind-tables")
"""Nobody unwinds without an operating system; the tables would take flash."""
ZIG_OPTIONS = ("-fno-sanitize=all",)
"""`zig cc` adds undefined-behaviour traps of its own otherwise."""

UNPAGED = "-Wl,-z,max-page-size=16"
"""There are no pages: else the linker may put the ELF header in front of the code, into flash."""

_OVERFLOW = re.compile(r"(?:region\s+[`'](\w+)'|region '(\w+)':)\s+overflowed by (\d+) bytes")
_FIRST_ERROR = re.compile(r"^.*(?:\berror: |undefined reference|undefined symbol|multiple definition).*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Recipe:
    """All that shapes an image."""

    bundle: Path
    manifest: Manifest
    board: Board
    port: Port
    compiler: Compiler

    def flags(self) -> tuple[str, ...]:
        """Options of every compiler call."""
        own = ZIG_OPTIONS if self.compiler.kind == "zig" else ()
        bare = BARE_OPTIONS if self.port.linker_script is not None else ()
        return (*self.compiler.target_flags, *SECTIONS, *own, *bare, *self.port.options, *self.port.defines)

    def model_options(self) -> tuple[str, ...]:
        """Options of the generated C, which calls the agent after each layer where that takes times."""
        hook = (PROFILE_HOOK,) if self.manifest.options.agent == "edgeq" else ()
        return (*self.manifest.compile_options, *hook)


def build(bundle_dir: Path, board: Board, out_dir: Path, *, compiler: str | None = None) -> Image:
    """The image of a bundle for a board, in `out_dir`: `firmware.elf`, and `firmware.bin` unless the board is the host.

    compiler: "gcc", "clang" or "zig"; None takes what there is. An image in `out_dir` that was made of the same bundle,
    firmware, board and compiler is returned as it is.

    InputError `not-a-bundle`, `bundle-invalid`, `region-unknown`; ToolError `compiler-not-found`,
    `build-failed` (with the compiler's first error); AnswerNo `image-too-large`; OutputError.
    """
    manifest = read_manifest(bundle_dir)
    pieces = arena_pieces(manifest, board)
    compiler_ = find_compiler(board, compiler)
    port = load_port(board, manifest.options.agent)
    if port.linker_script is not None:
        port = replace(port, linker_script=port.linker_script + arena_sections(pieces))
    recipe = _Recipe(bundle_dir, manifest, board, port, compiler_)
    digest = _digest(recipe)
    kept = _kept(out_dir, digest)
    if kept is not None:
        return kept
    with write_directory(out_dir, owned_marker=RECORD) as directory:
        record = _build_into(directory, recipe)
        (directory / RECORD).write_text(json.dumps({"digest": digest, **record}, indent=1) + "\n", encoding="utf-8")
    image = _kept(out_dir, digest)
    assert image is not None
    return image


def _build_into(directory: Path, recipe: _Recipe) -> dict[str, object]:
    """Builds `firmware.elf` and `.bin` in `directory`; the record's fields."""
    from edgeq.toolchain.elf import flash_content, read_sizes, write_boot2_checksum

    elf = directory / "firmware.elf"
    with tempfile.TemporaryDirectory(prefix="edgeq-build-") as scratch:
        _compile_and_link(recipe, Path(scratch), elf)
    if recipe.port.boot2_checksum:
        write_boot2_checksum(elf)
    entry, sizes = read_sizes(elf)
    record: dict[str, object] = {
        "board": recipe.board.id,
        "model_sha256": recipe.manifest.model_sha256,
        "compiler": f"{recipe.compiler.name}: {recipe.compiler.version}",
        "flags": [*recipe.flags(), *recipe.model_options()],
        "entry": entry,
        "load_address": 0,
        "sizes": {name: getattr(sizes, name) for name in Sizes.__slots__},
        "elf_sha256": hashlib.sha256(elf.read_bytes()).hexdigest(),
    }
    if recipe.port.linker_script is not None:
        record["load_address"], content = flash_content(elf)
        (directory / "firmware.bin").write_bytes(content)
    return record


def _compile_and_link(recipe: _Recipe, scratch: Path, elf: Path) -> None:
    units = _units(recipe, scratch)
    objects = [scratch / f"{index}.o" for index in range(len(units))]
    command = [*recipe.compiler.command, *recipe.flags()]
    include = [f"-I{path}" for path in (recipe.bundle / "include", *recipe.port.include)]

    def compile_unit(unit: tuple[Path, tuple[str, ...]], target: Path) -> None:
        source, options = unit
        _run([*command, *include, *options, "-c", str(source), "-o", str(target)], recipe.board)

    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(compile_unit, units, objects):
            pass
    _run([*command, *map(str, objects), *_link_flags(recipe, scratch), "-o", str(elf)], recipe.board)


def _units(recipe: _Recipe, scratch: Path) -> list[tuple[Path, tuple[str, ...]]]:
    """Sources, each with its own options; the one that binds bundle and agent is written to `scratch`."""
    model = scratch / "edgeq_model.c"
    model.write_text(model_source(recipe.manifest, recipe.board), encoding="utf-8")
    options = recipe.model_options()
    generated = [(recipe.bundle / name, options) for name in recipe.manifest.sources()]
    return [*generated, *((source, AGENT_OPTIONS) for source in (model, *recipe.port.sources))]


def _link_flags(recipe: _Recipe, scratch: Path) -> tuple[str, ...]:
    port = recipe.port
    if port.linker_script is None:
        return (*port.link_options, "-lm")
    script = scratch / "link.ld"
    script.write_text(port.linker_script, encoding="utf-8")
    runtime = "-lcompiler_rt" if recipe.compiler.kind == "zig" else "-lgcc"
    options = (f"-Wl,-T,{script}", "-Wl,--gc-sections", "-Wl,--entry=edgeq_reset_handler", UNPAGED)
    return ("-nostdlib", "-nostartfiles", "-static", *options, *port.link_options, runtime)


def model_source(manifest: Manifest, board: Board) -> str:
    """The C file that binds a bundle to the agent: it defines `edgeq_model` (firmware/agent/agent.h)."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("edgeq.toolchain"), undefined=StrictUndefined, autoescape=False)
    if manifest.options.agent == "mlperf":
        require_mlperf_model(manifest)
    return environment.get_template("model.c.j2").render(
        pieces=arena_pieces(manifest, board),
        mlperf_inputs=MLPERF_INPUTS,
        m=manifest,
        board=board.id,
        version=__version__,
        digest=bytes.fromhex(manifest.model_sha256),
    )


def _run(arguments: list[str], board: Board) -> None:
    try:
        result = subprocess.run(
            arguments, capture_output=True, text=True, errors="replace", timeout=COMPILE_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError("build-failed", "The compiler could not be run.", where=arguments[0], why=str(error)) from error
    if result.returncode != 0:
        raise _failure(result.stderr or result.stdout, board, arguments[0])


def _failure(output: str, board: Board, program: str) -> EdgeqError:
    """What the compiler's or linker's messages mean."""
    overflows = [(gnu or lld, int(excess)) for gnu, lld, excess in _OVERFLOW.findall(output)]
    if overflows:
        return _too_large(
            overflows[0][0], max(excess for region, excess in overflows if region == overflows[0][0]), board
        )
    said = "\n".join(line for line in output.splitlines() if not line.startswith("collect2:"))
    first = _FIRST_ERROR.search(said)
    steps = ("Run again with --debug to see the whole message.", "Write the bundle anew if its files were changed.")
    error = ToolError(
        "build-failed",
        "The firmware could not be built.",
        where=program,
        why=first[0].strip() if first else said.strip()[-500:] or "The compiler said nothing.",
        try_="Make room, or keep images elsewhere: EDGEQ_STATE=DIRECTORY" if "No space left" in said else steps,
    )
    error.add_note(output)
    return error


def _too_large(region: str, excess_bytes: int, board: Board) -> AnswerNo:
    memory = region_at_fault(region, board)
    return AnswerNo(
        "image-too-large",
        f"The image needs {excess_bytes:,} bytes more {memory.kind.replace('ram', 'RAM')} than {board.name} has.",
        where=f"{memory.name}, {memory.usable_bytes:,} bytes",
        why="Model, agent and stack do not fit together.",
        try_=(
            f"See what takes the memory: edgeq check MODEL.tflite --board {board.id}",
            f"Bundle with --optimize {memory.kind}, or choose a smaller model.",
        ),
    )


def _digest(recipe: _Recipe) -> str:
    """SHA-256 over everything that shapes the image."""
    hasher = hashlib.sha256()
    texts = (__version__, recipe.board.model_dump_json(), repr(recipe.compiler), repr(recipe.port))
    for text in (*texts, *AGENT_OPTIONS):
        hasher.update(text.encode() + b"\0")
    for path in _inputs(recipe):
        hasher.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return hasher.hexdigest()


def _inputs(recipe: _Recipe) -> Iterable[Path]:
    yield recipe.bundle / "manifest.json"
    yield from (recipe.bundle / name for name in sorted(recipe.manifest.files) if name.endswith((".c", ".h")))
    yield from recipe.port.sources
    for directory in recipe.port.include:
        yield from sorted(directory.glob("*.h"))
    yield from sorted((Path(__file__).parent / "templates").glob("*.j2"))


def _kept(out_dir: Path, digest: str) -> Image | None:
    """The image that lies in `out_dir`, if it was made of the same inputs and is whole."""
    try:
        record = json.loads((out_dir / RECORD).read_bytes())
        elf = out_dir / "firmware.elf"
        if record["digest"] != digest or hashlib.sha256(elf.read_bytes()).hexdigest() != record["elf_sha256"]:
            return None
        bin_ = out_dir / "firmware.bin"
        return Image(
            elf=elf,
            bin=bin_ if bin_.is_file() else None,
            load_address=record["load_address"],
            entry=record["entry"],
            board=record["board"],
            model_sha256=record["model_sha256"],
            compiler=record["compiler"],
            flags=tuple(record["flags"]),
            sizes=Sizes(**record["sizes"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
