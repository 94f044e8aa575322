"""Which interpreter runs on a device, and its wheels: fetched here with pip, kept, and sent to the device.

The device needs no network, no pip and no ensurepip; the versions are the same on every device.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeq.device.ssh.probe import DeviceFacts
from edgeq.errors import DeviceError, ToolError
from edgeq.files import output_error

DOWNLOAD_S = 900.0


@dataclass(frozen=True, slots=True)
class Requirement:
    """An interpreter package with the devices that its wheels exist for (PyPI, ai-edge-litert and tflite-runtime).

    pythons: first and last CPython minor version. glibc: the oldest, by machine.
    """

    package: str
    version: str
    pythons: tuple[int, int]
    glibc: Mapping[str, tuple[int, int]]
    further: tuple[str, ...] = ()

    def obstacle(self, facts: DeviceFacts) -> str | None:
        """Why it does not run there, or None."""
        _, minor, _ = facts.python_version
        first, last = self.pythons
        if facts.machine not in self.glibc:
            return f"no wheel for {facts.machine}"
        if not first <= minor <= last:
            return f"wheels for Python 3.{first} to 3.{last}"
        if facts.glibc is None:
            return "needs glibc (the device has another C library)"
        if facts.glibc < self.glibc[facts.machine]:
            return f"needs glibc {'.'.join(map(str, self.glibc[facts.machine]))}"
        return None

    def key(self, facts: DeviceFacts) -> str:
        """Names the environment on the device."""
        return f"{self.package}-{self.version}-cp3{facts.python_version[1]}-{facts.machine}"


REQUIREMENTS = (
    Requirement("ai-edge-litert", "2.3.0", (10, 14), {"aarch64": (2, 27), "x86_64": (2, 27)}),
    Requirement(
        "tflite-runtime",
        "2.14.0",
        (8, 11),
        {"aarch64": (2, 34), "armv7l": (2, 34), "x86_64": (2, 17)},
        further=("numpy<2",),
    ),
)
_PIWHEELS = "https://www.piwheels.org/simple"
"""PyPI has no numpy for 32-bit Arm."""


def choose(facts: DeviceFacts, host: str, *, prefer: str | None = None) -> Requirement:
    """The package to install, the board's own choice first. DeviceError `no-interpreter-wheel` if none runs there."""
    candidates = sorted(REQUIREMENTS, key=lambda requirement: requirement.package != prefer)
    for requirement in candidates:
        if requirement.obstacle(facts) is None:
            return requirement
    libc = "no glibc" if facts.glibc is None else f"glibc {facts.glibc[0]}.{facts.glibc[1]}"
    python = ".".join(map(str, facts.python_version[:2]))
    raise DeviceError(
        "no-interpreter-wheel",
        f"No TFLite interpreter can be installed on {host}.",
        where=f"{facts.machine}, Python {python}, {libc}",
        why="; ".join(f"{r.package} {r.version}: {r.obstacle(facts)}" for r in candidates),
        try_=("Use a system with one of these.", "Generated C needs no interpreter: --runtime c (aarch64, x86_64)."),
    )


def cache_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Where fetched wheels are kept: EDGEQ_CACHE, else the user's cache directory."""
    if own := environment.get("EDGEQ_CACHE"):
        return Path(own)
    if sys.platform == "win32":
        base = Path(environment.get("LOCALAPPDATA", "~"))
    elif sys.platform == "darwin":
        base = Path("~/Library/Caches")
    else:
        base = Path(environment.get("XDG_CACHE_HOME") or "~/.cache")
    return base.expanduser() / "edgeq"


def platform_tags(facts: DeviceFacts) -> list[str]:
    """The wheel platforms that run on the device, as pip wants them named."""
    newest = 17 if facts.glibc is None else facts.glibc[1]
    tags = [f"manylinux_2_{minor}_{facts.machine}" for minor in range(newest, 4, -1)]
    return [*tags, f"manylinux2014_{facts.machine}", f"linux_{facts.machine}"]


async def fetch(requirement: Requirement, facts: DeviceFacts) -> list[Path]:
    """The wheels of a package, of all it needs, and of pip; from the cache, else by `pip download`. ToolError."""
    libc = "" if facts.glibc is None else f"-glibc{facts.glibc[0]}.{facts.glibc[1]}"
    place = cache_directory() / "wheels" / (requirement.key(facts) + libc)
    if not place.is_dir():
        await _download(requirement, facts, place)
    return sorted(place.glob("*.whl"))


async def _download(requirement: Requirement, facts: DeviceFacts, place: Path) -> None:
    minor = facts.python_version[1]
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
    words += ["--implementation", "cp", "--python-version", f"3.{minor}"]
    words += [word for abi in (f"cp3{minor}", "abi3", "none") for word in ("--abi", abi)]
    words += [word for tag in platform_tags(facts) for word in ("--platform", tag)]
    if facts.machine == "armv7l":
        words += ["--extra-index-url", _PIWHEELS]
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".part-", dir=place.parent))
    except OSError as error:
        raise output_error(place, error) from error
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            "--dest",
            str(temporary),
            f"{requirement.package}=={requirement.version}",
            *requirement.further,
            "pip",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(DOWNLOAD_S):
                _, output = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        if process.returncode:
            lines = [line for line in output.decode(errors="replace").splitlines() if "WARNING" not in line]
            raise ToolError(
                "wheels-not-fetched",
                f"{requirement.package} {requirement.version} for {facts.machine} could not be fetched.",
                where=f"{requirement.package}=={requirement.version}",
                why=lines[-1].removeprefix("ERROR: ") if lines else f"pip ended with status {process.returncode}",
                try_=(
                    "This computer needs the network, or a wheel index, once: the wheels are kept.",
                    "Check that pip works here: python -m pip --version",
                ),
            )
        if not place.is_dir():
            temporary.replace(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
