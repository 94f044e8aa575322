"""Code bytes of every portable kernel on every core, as gcc compiles it: `python benchmarks/code_sizes.py`.

Writes `edgeq/checks/code_sizes.json`, from which `edgeq check` adds up a model's code. Run it after changing a kernel.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from elftools.elf.elffile import ELFFile

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "edgeq" / "checks" / "code_sizes.json"
CORES = {
    "cortex-m0plus": ("-mcpu=cortex-m0plus", "-mfloat-abi=soft"),
    "cortex-m3": ("-mcpu=cortex-m3", "-mfloat-abi=soft"),
    "cortex-m4": ("-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"),
    "cortex-m7": ("-mcpu=cortex-m7", "-mfloat-abi=hard", "-mfpu=fpv5-d16"),
    "cortex-m33": ("-mcpu=cortex-m33", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"),
    "cortex-m55": ("-mcpu=cortex-m55", "-mfloat-abi=hard"),
}
GCC = "arm-none-eabi-gcc"
OPTIONS = ("-mthumb", "-std=c99", "-O2", "-ffunction-sections", "-fdata-sections")


def allocated_bytes(file: Path) -> int:
    """Bytes of an object file that end up in flash."""
    with file.open("rb") as stream:
        sections = ELFFile(stream).iter_sections()
        return sum(s["sh_size"] for s in sections if s["sh_flags"] & 2 and s["sh_type"] == "SHT_PROGBITS")


def main() -> int:
    """Compile every kernel for every core and write the table; 3 if there is no compiler."""
    if shutil.which(GCC) is None:
        sys.stderr.write(f"{GCC} is not on the PATH\n")
        return 3
    version = subprocess.run([GCC, "-dumpfullversion"], capture_output=True, text=True, check=True).stdout.strip()
    sizes: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "kernel.o"
        for core, flags in CORES.items():
            sizes[core] = {}
            for source in sorted((ROOT / "firmware" / "kernels").glob("*.c")):
                command = [
                    GCC,
                    *flags,
                    *OPTIONS,
                    f"-I{ROOT / 'firmware' / 'include'}",
                    "-c",
                    str(source),
                    "-o",
                    str(target),
                ]
                subprocess.run(command, check=True)
                sizes[core][source.name] = allocated_bytes(target)
    table = {"compiler": f"{GCC} {version}", "options": " ".join(OPTIONS), "bytes": sizes}
    TABLE.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
