"""`doctor`: what this computer has to build for, emulate, flash and reach boards, and what to do about the rest."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from edgeq.boards import list_boards, load_board
from edgeq.device.discover import find_ports
from edgeq.device.frames import Frame, FrameReader, encode
from edgeq.device.install import find_tool, how_to_install
from edgeq.device.ports import open_port
from edgeq.device.state import state_directory
from edgeq.errors import EdgeqError
from edgeq.toolchain import find_compiler

State = Literal["ok", "absent", "failed"]
_VERSION_TIMEOUT_S = 20
_LOOPBACK_FRAMES = 20
_STATE_BYTES = 50 << 20
"""Room for some images with their debug information."""
_UDEV_RULE = 'SUBSYSTEM=="tty", ATTRS{{idVendor}}=="{vendor}", ATTRS{{idProduct}}=="{product}", TAG+="uaccess"'

_PACKAGES = {
    "numpy": "pip install edgeq",
    "pyserial": "pip install edgeq",
    "cobs": "pip install edgeq",
    "ai-edge-litert": "pip install edgeq",
    "tensorflow": 'pip install "edgeq[convert]"   (only edgeq convert needs it)',
    "ziglang": 'pip install "edgeq[mcu]"',
    "unicorn": 'pip install "edgeq[mcu]"',
}
_EMULATORS = ("qemu-system-arm", "qemu-system-riscv32")
_FLASH_TOOLS = ("pyocd", "esptool", "stm32loader", "openocd", "dfu-util", "bossac", "teensy_loader_cli")


@dataclass(frozen=True, slots=True)
class Check:
    """One line: what was looked at, how it is, what to do."""

    group: str
    name: str
    state: State
    detail: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """All checks. `ok`: nothing that is there is broken, and a virtual board can be built for and run."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        def works(group: str) -> bool:
            return any(check.group == group and check.state == "ok" for check in self.checks)

        return works("compiler") and works("emulator") and all(check.state != "failed" for check in self.checks)

    def to_json(self) -> dict[str, object]:
        return {"ok": self.ok, "checks": [asdict(check) for check in self.checks]}


def doctor() -> DoctorReport:
    """Look at everything; changes nothing and opens no port of a board."""
    groups: tuple[Callable[[], Iterator[Check]], ...] = (
        _system,
        _packages,
        _compilers,
        _emulators,
        _flash_tools,
        _ports,
        _link,
    )
    return DoctorReport(tuple(check for group in groups for check in group()))


def _system() -> Iterator[Check]:
    yield Check("system", "python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    place = state_directory()
    existing = next(path for path in (place, *place.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            free_bytes = shutil.disk_usage(existing).free
    except OSError as error:
        remedy = f"Make {existing} writable, or set EDGEQ_STATE to a directory that is."
        yield Check("system", "state directory", "failed", f"{place}: {error.strerror}", remedy)
        return
    roomy = free_bytes >= _STATE_BYTES
    free = f"{place}, {free_bytes / (1 << 20):,.0f} MiB free"
    room = None if roomy else "Make room, or set EDGEQ_STATE to a directory elsewhere."
    yield Check("system", "state directory", "ok" if roomy else "failed", free, room)


def _packages() -> Iterator[Check]:
    for package, remedy in _PACKAGES.items():
        try:
            yield Check("package", package, "ok", version(package))
        except PackageNotFoundError:
            yield Check("package", package, "absent", "not installed", remedy)


def _compilers() -> Iterator[Check]:
    for board_id in ("host", "virtual-m4", "qemu-mps3-an547"):
        try:
            compiler = find_compiler(load_board(board_id))
        except EdgeqError as error:
            yield Check("compiler", f"for {board_id}", "absent", error.what, error.try_[0] if error.try_ else None)
        else:
            yield Check("compiler", f"for {board_id}", "ok", f"{compiler.name}: {compiler.version}")


def _emulators() -> Iterator[Check]:
    try:
        yield Check("emulator", "unicorn", "ok", version("unicorn"))
    except PackageNotFoundError:
        yield Check("emulator", "unicorn", "absent", "not installed", _PACKAGES["unicorn"])
    for program in _EMULATORS:
        yield _program("emulator", program)


def _flash_tools() -> Iterator[Check]:
    for program in _FLASH_TOOLS:
        yield _program("flash tool", program)


def _program(group: str, name: str) -> Check:
    path, remedy = find_tool(name), "; ".join(how_to_install(name))
    if path is None:
        return Check(group, name, "absent", "not on the PATH", remedy)
    try:
        result = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_VERSION_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(group, name, "failed", f"{path}: {error}", f"Install it anew: {remedy}")
    lines = (result.stdout + result.stderr).strip().splitlines() if result.returncode == 0 else []
    return Check(group, name, "ok", lines[0] if lines else path)


def _ports() -> Iterator[Check]:
    """Permissions and holders. No port is opened: many boards restart when theirs is."""
    for port in find_ports(list_boards()):
        boards = f" ({', '.join(port.boards)})" if port.boards else ""
        name = f"{port.port}{boards}"
        holders = ", ".join(_holders(port.port))
        if holders:
            yield Check("port", name, "failed", f"held by {holders}", "Close that program.")
        elif os.name == "posix" and not os.access(port.port, os.R_OK | os.W_OK):
            yield Check("port", name, "failed", "this user may not open it", _permission_remedy(port.usb_id))
        else:
            yield Check("port", name, "ok", port.usb_id or "not USB")


def _permission_remedy(usb_id: str | None) -> str:
    group = "sudo usermod -aG dialout $USER, then log in again (the group may be `uucp`)."
    if usb_id is None or not sys.platform.startswith("linux"):
        return group
    vendor, _, product = usb_id.partition(":")
    return f"{group} Or as /etc/udev/rules.d/70-edgeq.rules: {_UDEV_RULE.format(vendor=vendor, product=product)}"


def _holders(port: str) -> list[str]:
    """The processes that have the port open, as far as /proc shows them to this user."""
    held = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(link.readlink() == Path(port) for link in (process / "fd").iterdir()):
                name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
                held.append(f"{name} ({process.name})")
        except OSError:
            continue
    return held


def _link() -> Iterator[Check]:
    """Frames over pyserial's loopback, and over a pty where there are ptys."""
    yield _loopback("loop://")
    if os.name == "posix":
        import tty

        master, slave = os.openpty()
        tty.setraw(slave)

        def echo() -> None:
            try:
                while data := os.read(master, 4096):
                    os.write(master, data)
            except OSError:
                pass  # the other end is closed

        thread = threading.Thread(target=echo, daemon=True)
        thread.start()
        yield _loopback(os.ttyname(slave))
        os.close(slave)
        thread.join(1)
        os.close(master)


def _loopback(name: str) -> Check:
    sent = [Frame(1, index, 1, 0, bytes(range(256))) for index in range(_LOOPBACK_FRAMES)]
    reader, received = FrameReader(), list[Frame]()
    try:
        port = open_port(name)
        for frame in sent:
            port.write(encode(frame))
            while len(received) <= frame.sequence and (data := port.read(1.0)):
                received += reader.feed(data)
        port.close()
    except EdgeqError as error:
        return Check("link", name, "failed", error.what, error.why)
    if received != sent:
        return Check("link", name, "failed", f"{len(received)} of {len(sent)} frames came back", "Reinstall pyserial.")
    return Check("link", name, "ok", f"{len(sent)} frames there and back")
