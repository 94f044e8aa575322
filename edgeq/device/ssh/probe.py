"""What a device is: asked with `sh` alone, so that the answer comes even where nothing is installed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgeq.boards import Board, board_of_model, load_board
from edgeq.device.ssh.connection import Remote
from edgeq.errors import DeviceError

_MARK = "edgeq-probe"
# `cat` and `uname` rather than shell reads: they are there on every Linux, and a missing file is an empty answer.
_SCRIPT = f"""
say() {{ printf '{_MARK} %s=%s\\n' "$1" "$2"; }}
say kernel "$(uname -s)"
say machine "$(uname -m)"
say model "$(cat /proc/device-tree/model 2>/dev/null | tr -d '\\000')"
say os "$(cat /etc/os-release 2>/dev/null | sed -n 's/^PRETTY_NAME=//p' | tr -d '"')"
say libc "$(getconf GNU_LIBC_VERSION 2>/dev/null)"
say bits "$(getconf LONG_BIT 2>/dev/null)"
say cores "$(getconf _NPROCESSORS_ONLN 2>/dev/null)"
say memory_kb "$(sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo 2>/dev/null)"
python=$(command -v python3 2>/dev/null)
say python "$python"
[ -n "$python" ] && say version "$("$python" -I -c 'import sys;print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)"
[ -n "$python" ] && say platform "$("$python" -I -c 'import sysconfig;print(sysconfig.get_platform())' 2>/dev/null)"
exit 0
"""
_MACHINES = {"aarch64": "aarch64", "arm64": "aarch64", "armv7l": "armv7l", "armv8l": "armv7l", "x86_64": "x86_64"}
_OLDEST_PYTHON = (3, 9)


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """A Linux device. `machine` is what its programs are made for (a 64-bit kernel may run a 32-bit system)."""

    model: str
    machine: str
    os: str
    glibc: tuple[int, int] | None
    memory_bytes: int | None
    cores: int
    python: str
    python_version: tuple[int, int, int]

    def to_json(self) -> dict[str, object]:
        return {
            "model": self.model,
            "machine": self.machine,
            "os": self.os,
            "glibc": None if self.glibc is None else f"{self.glibc[0]}.{self.glibc[1]}",
            "memory_bytes": self.memory_bytes,
            "cores": self.cores,
            "python": ".".join(map(str, self.python_version)),
        }


async def probe(remote: Remote) -> DeviceFacts:
    """Ask the device. DeviceError `device-not-linux`, `wrong-architecture`, `python-missing`, `python-too-old`."""
    host = remote.host.text
    status, out, error = await remote.run("sh -s", input_=_SCRIPT)
    found = dict(re.findall(rf"^{_MARK} (\w+)=(.*)$", out, re.MULTILINE))
    if status or found.get("kernel") != "Linux":
        raise DeviceError(
            "device-not-linux",
            f"{host} is not a Linux device with a shell.",
            where=host,
            why=(error.strip().splitlines() or [f"`uname -s` says {found.get('kernel')!r}"])[-1],
            try_="Give the host of a Raspberry Pi, a Coral Dev Board or another Linux device.",
        )
    machine = _machine(found)
    if machine is None:
        raise DeviceError(
            "wrong-architecture",
            f"{host} is a {found['machine']!r} machine; EdgeQ runs on aarch64, armv7l and x86_64.",
            where=host,
            why="There is no TFLite interpreter package for it.",
            try_="On a Raspberry Pi 3 or later, install the 64-bit system.",
        )
    if not found.get("python") or not found.get("version"):
        raise DeviceError(
            "python-missing",
            f"{host} has no python3.",
            where=host,
            try_="Install it there: sudo apt install python3 python3-venv",
        )
    version = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", found["version"])
    major, minor, patch = map(int, version.groups()) if version else (0, 0, 0)
    if (major, minor) < _OLDEST_PYTHON:
        raise DeviceError(
            "python-too-old",
            f"{host} has Python {found['version']}; EdgeQ's agent needs 3.9 or later.",
            where=host,
            try_="Upgrade the system on the device.",
        )
    libc = re.fullmatch(r"glibc (\d+)\.(\d+).*", found.get("libc", ""))
    return DeviceFacts(
        model=found["model"],
        machine=machine,
        os=found["os"],
        glibc=(int(libc[1]), int(libc[2])) if libc else None,
        memory_bytes=_count(found["memory_kb"], 1024),
        cores=_count(found["cores"]) or 1,
        python=found["python"],
        python_version=(major, minor, patch),
    )


def _count(text: str, unit: int = 1) -> int | None:
    return int(text) * unit if text.isdecimal() else None


def _machine(found: dict[str, str]) -> str | None:
    kernel = _MACHINES.get(found.get("machine", ""))
    if kernel == "aarch64" and found.get("bits") == "32":
        return "armv7l"
    return kernel


def identify(board: Board | str, facts: DeviceFacts, host: str) -> Board:
    """The board's profile; `pi` is whichever the device says it is. DeviceError `wrong-board` if it is another one."""
    if board == "pi":
        if not facts.model.startswith("Raspberry Pi"):
            raise _wrong_board(host, "a Raspberry Pi", facts)
        return board_of_model(facts.model)
    profile = load_board(board)
    if profile.linux is None:
        raise DeviceError(
            "not-a-linux-board",
            f"{profile.name} does not run Linux: --host is not for it.",
            where=profile.id,
            try_="Leave --host; microcontrollers are reached with --port.",
        )
    if profile.linux.models and not facts.model.startswith(profile.linux.models):
        raise _wrong_board(host, profile.name, facts)
    return profile


def _wrong_board(host: str, wanted: str, facts: DeviceFacts) -> DeviceError:
    return DeviceError(
        "wrong-board",
        f"{host} is not {wanted}.",
        where=host,
        why=f"It says it is a {facts.model!r}." if facts.model else f"It is a {facts.machine} machine without a name.",
        try_=("Check --host.", "Name the board that it is with --board (`edgeq boards list`)."),
    )
