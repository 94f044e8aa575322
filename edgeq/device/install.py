"""Where a tool is on this computer, and how one that is missing is installed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

_MANAGERS = {
    "apt-get": ("Debian or Ubuntu", "sudo apt-get install {}"),
    "dnf": ("Fedora", "sudo dnf install {}"),
    "pacman": ("Arch", "sudo pacman -S {}"),
    "brew": ("macOS", "brew install {}"),
}
_PACKAGES: dict[str, dict[str, str]] = {
    "openocd": {"apt-get": "openocd", "dnf": "openocd", "pacman": "openocd", "brew": "open-ocd"},
    "dfu-util": {"apt-get": "dfu-util", "dnf": "dfu-util", "pacman": "dfu-util", "brew": "dfu-util"},
    "bossac": {"apt-get": "bossa-cli", "brew": "bossa"},
    "teensy_loader_cli": {"apt-get": "teensy-loader-cli", "pacman": "teensy-loader-cli", "brew": "teensy_loader_cli"},
    "qemu-system-arm": {
        "apt-get": "qemu-system-arm",
        "dnf": "qemu-system-arm",
        "pacman": "qemu-system-arm",
        "brew": "qemu",
    },
    "qemu-system-riscv32": {
        "apt-get": "qemu-system-misc",
        "dnf": "qemu-system-riscv",
        "pacman": "qemu-system-riscv",
        "brew": "qemu",
    },
}
"""The package of a tool by package manager."""
_PIP = {
    "pyocd": "pip install pyocd",
    "esptool": "pip install esptool   (in an environment of its own: its licence is the GPL)",
    "stm32loader": "pip install stm32loader",
}
_NORDIC_BOSSAC = (
    "For an nRF52 board Arduino's own: arduino-cli core install arduino:mbed_nano, then put its bossac on the PATH; "
    "bossac from elsewhere knows Atmel's chips only"
)


def find_tool(tool: str) -> str | None:
    """The program's path: on the PATH, or beside the Python that runs, whose environment need not be activated."""
    return shutil.which(tool) or shutil.which(tool, path=str(_beside()))


def _beside() -> Path:
    return Path(sys.executable).parent


def how_to_install(tool: str) -> tuple[str, ...]:
    """A line for each way: with the package manager that is here, or, where none is, with those that have `tool`."""
    if tool in _PIP:
        return (_PIP[tool],)
    packages = _PACKAGES[tool]
    here = [manager for manager in packages if shutil.which(manager)] or list(packages)
    ways = tuple(f"{_MANAGERS[m][0]}: {_MANAGERS[m][1].format(packages[m])}" for m in here)
    return (_NORDIC_BOSSAC, *ways) if tool == "bossac" else ways
