"""Every kernel compiles without a warning by gcc and clang on this computer, and by gcc for the cores.

There int32_t is `long`, which other warnings hang on.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from bundles import WARNINGS

FIRMWARE = Path(__file__).parents[2] / "firmware"
COMPILERS = (
    ("gcc",),
    ("clang",),
    ("arm-none-eabi-gcc", "-mcpu=cortex-m0plus", "-mthumb"),
    ("arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"),
    ("arm-none-eabi-gcc", "-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard"),
)


@pytest.mark.parametrize("compiler", COMPILERS, ids=" ".join)
def test_kernels(compiler: tuple[str, ...]) -> None:
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"{compiler[0]} is not installed")
    kernels = sorted((FIRMWARE / "kernels").glob("*.c"))
    assert len(kernels) > 100
    options = ["-std=c99", "-O2", *WARNINGS, f"-I{FIRMWARE / 'include'}", "-fsyntax-only"]
    done = subprocess.run([*compiler, *options, *kernels], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]
