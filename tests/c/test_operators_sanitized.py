"""The generated C under AddressSanitizer and UndefinedBehaviorSanitizer: operators' property tests and whole networks.

They run again in a child pytest whose host builds are instrumented (EDGEQ_CFLAGS, see tests/unit/codegen/bundles.py).
Some by default, all if slow; EDGEQ_CASES says how many cases each property gets. A complaint ends the child at once,
without a report of pytest's, so the sanitizers write to a file. libstdc++ is preloaded with AddressSanitizer, or else
the exceptions of the interpreters' C++ end the process, too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPERATORS = ROOT / "tests" / "unit" / "codegen"
NETWORKS = ROOT / "tests" / "golden" / "test_keras_networks.py"
FLAGS = "-fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all -fno-omit-frame-pointer -g"
FAST = ("test_int4.py", "test_movement.py::test_pad", "test_operators.py::test_pool_2d")
WITHOUT_C = ("test_memory.py",)
BROKEN = """
import ctypes, sys
from pathlib import Path
from bundles import build
from single import T, model
shape = T((1, 8, 8, 4), scale=0.1)
ours = build(model("ABS", [shape], [shape]), Path(sys.argv[1]))
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
ours.library.model_invoke(ctypes.c_void_p(library.malloc(ours.sizes[0] // 2)))
"""


def sanitized(command: list[str], place: Path) -> tuple[int, str]:
    """Exit status, and what the sanitizers and the command said."""
    if shutil.which("gcc") is None or not sys.platform.startswith("linux"):
        pytest.skip("needs gcc on Linux")

    def library(name: str) -> str:
        return subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout

    log = place / "sanitizer"
    added = {
        "EDGEQ_CFLAGS": FLAGS,
        "LD_PRELOAD": " ".join(library(name).strip() for name in ("libasan.so", "libstdc++.so")),
        "ASAN_OPTIONS": f"detect_leaks=0:log_path={log}",
        "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={log}",
    }
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=os.environ | added, capture_output=True, text=True, check=False
    )
    complaints = "".join(path.read_text() for path in sorted(place.glob("sanitizer.*")))
    return done.returncode, (complaints + done.stdout + done.stderr)[:8000]


def clean(place: Path, *arguments: str) -> None:
    pytest_options = ["-p", "no:cacheprovider", "-x", f"--basetemp={place / 'tests'}"]
    status, said = sanitized(["-m", "pytest", *pytest_options, *arguments], place)
    assert status == 0, said
    assert " passed" in said or "100%" in said, said


def test_a_broken_arena_is_found(tmp_path: Path) -> None:
    """What the other tests rely on: a run in an arena that is too small ends with a complaint."""
    program = tmp_path / "broken.py"
    program.write_text(f"import sys\nsys.path.insert(0, {str(OPERATORS)!r})\n{BROKEN}")
    status, said = sanitized([str(program), str(tmp_path)], tmp_path)
    assert status != 0
    assert "heap-buffer-overflow" in said


def test_some_operators(tmp_path: Path) -> None:
    clean(tmp_path, *(str(OPERATORS / name) for name in FAST))


@pytest.mark.parametrize("file", [p.name for p in sorted(OPERATORS.glob("test_*.py")) if p.name not in WITHOUT_C])
@pytest.mark.slow
def test_operators(file: str, tmp_path: Path) -> None:
    clean(tmp_path, "-m", "slow or not slow", str(OPERATORS / file))


@pytest.mark.parametrize("scheme", ["int8", "int16x8"])
@pytest.mark.slow
@pytest.mark.tensorflow
def test_networks(scheme: str, tmp_path: Path) -> None:
    clean(tmp_path, "-m", "slow or not slow", "-k", f"test_bytes_equal_the_oracle and {scheme}", str(NETWORKS))
