"""Ways to put an image onto a real board: the vendors' tools as processes, and UF2 volumes.

Every tool verifies what it wrote where it can; that the board runs it is known from HELLO alone, which comes after.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from edgeq.boards import Board
from edgeq.device.discover import find_port
from edgeq.errors import BoardError, DeviceError, OutputError, ToolError
from edgeq.toolchain import Image

_TOOL_TIMEOUT_S = 300
_VOLUME_WAIT_S = 20.0
_ST_LINK_VENDOR = "0483"

UF2_BLOCK_BYTES = 512
_UF2_PAYLOAD_BYTES = 256
_UF2_FAMILY_PRESENT = 0x2000
_UF2_FAMILIES = {"rp2040": 0xE48BFF56, "rp2350": 0xE48BFF59, "nrf52840": 0xADA52840}
"""Family ids of https://github.com/microsoft/uf2/blob/master/utils/uf2families.json (rp2350: Arm, secure)."""
_UF2_BOARD_IDS = {"rp2040": "RPI-RP2", "rp2350": "RP2350"}
"""What `Board-ID` in INFO_UF2.TXT begins with, as the chip's boot loader writes it."""

_INSTALL = {
    "pyocd": "pip install pyocd",
    "stm32loader": "pip install stm32loader",
    "openocd": "Debian: sudo apt-get install openocd; macOS: brew install open-ocd",
    "dfu-util": "Debian: sudo apt-get install dfu-util; macOS: brew install dfu-util",
    "bossac": "Debian: sudo apt-get install bossa-cli; macOS: brew install bossa",
}


def put(image: Image, board: Board, port: str | None) -> None:
    """Write `image` onto `board` by the method that its profile names.

    BoardError `flash-method-missing`; ToolError `flash-tool-missing`, `flash-failed`; DeviceError `uf2-volume-missing`,
    `uf2-volume-ambiguous`.
    """
    method = board.flash.method
    if method == "uf2":
        _copy_uf2(image, board)
        return
    command = _COMMANDS.get(method)
    if command is None or image.bin is None:
        raise BoardError(
            "flash-method-missing",
            f"EdgeQ cannot flash the {board.name} itself (method {method}).",
            where=board.id,
            try_="Build the CMake project of the bundle and flash it with the vendor's tool.",
        )
    _run(method, command(image, board, port), board)


def _openocd(image: Image, board: Board, _port: str | None) -> list[str]:
    st_link = any(usb_id.startswith(_ST_LINK_VENDOR) for usb_id in board.flash.usb_ids)
    interface = "interface/stlink.cfg" if st_link else "interface/cmsis-dap.cfg"
    program = f"program {{{image.elf}}} verify reset exit"
    return ["-f", interface, "-f", f"target/{board.flash.target}.cfg", "-c", program]


def _pyocd(image: Image, board: Board, _port: str | None) -> list[str]:
    return ["load", "--target", str(board.flash.target), "--format", "elf", str(image.elf)]


def _stm32loader(image: Image, board: Board, port: str | None) -> list[str]:
    address = f"{image.load_address:#010x}"
    return ["-p", port or find_port(board), "-e", "-w", "-v", "-a", address, "-g", address, str(image.bin)]


def _dfu_util(image: Image, board: Board, _port: str | None) -> list[str]:
    device = ["-d", board.flash.usb_ids[0]] if board.flash.usb_ids else []
    return [*device, "-a", "0", "-s", f"{image.load_address:#010x}:leave", "-D", str(image.bin)]


def _bossac(image: Image, board: Board, port: str | None) -> list[str]:
    return ["-p", port or find_port(board), "-e", "-w", "-v", "-R", str(image.bin)]


_COMMANDS: dict[str, Callable[[Image, Board, str | None], list[str]]] = {
    "openocd": _openocd,
    "pyocd": _pyocd,
    "stm32loader": _stm32loader,
    "dfu-util": _dfu_util,
    "bossac": _bossac,
}


def _run(tool: str, arguments: list[str], board: Board) -> None:
    path = shutil.which(tool)
    if path is None:
        raise ToolError(
            "flash-tool-missing",
            f"Flashing the {board.name} needs {tool}, which is not on the PATH.",
            where=board.id,
            try_=_INSTALL[tool],
        )
    try:
        result = subprocess.run(
            [path, *arguments], capture_output=True, text=True, errors="replace", timeout=_TOOL_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(tool, board, str(error)) from error
    if result.returncode != 0:
        lines = (result.stderr.strip() or result.stdout.strip()).splitlines()
        raise _failed(tool, board, "\n".join(lines[-5:]) or f"exit status {result.returncode}")


def _failed(tool: str, board: Board, why: str) -> ToolError:
    return ToolError(
        "flash-failed",
        f"{tool} could not flash the {board.name}; its flash may hold half of an image now.",
        where=board.id,
        why=why,
        try_=(
            "Check the probe's cable and the board's power, then flash again.",
            "See the tools and ports: edgeq doctor",
        ),
    )


def uf2(content: bytes, address: int, family: int) -> bytes:
    """`content` for `address` as UF2 blocks of 256 bytes, the last one padded (https://github.com/microsoft/uf2)."""
    count = -(-len(content) // _UF2_PAYLOAD_BYTES)
    blocks = bytearray()
    for index in range(count):
        start = index * _UF2_PAYLOAD_BYTES
        payload = content[start : start + _UF2_PAYLOAD_BYTES].ljust(_UF2_PAYLOAD_BYTES, b"\xff")
        header = (
            0x0A324655,
            0x9E5D5157,
            _UF2_FAMILY_PRESENT,
            address + start,
            _UF2_PAYLOAD_BYTES,
            index,
            count,
            family,
        )
        blocks += struct.pack("<8I476sI", *header, payload, 0x0AB16F30)
    return bytes(blocks)


def _copy_uf2(image: Image, board: Board) -> None:
    target = board.flash.target or ""
    family = _UF2_FAMILIES.get(target)
    if family is None or image.bin is None:
        raise BoardError(
            "flash-method-missing",
            f"The UF2 family of the {board.name} (flash target {target!r}) is not known.",
            where=board.id,
            try_=f"Known: {', '.join(_UF2_FAMILIES)}.",
        )
    volume = _volume(board, _UF2_BOARD_IDS.get(target, ""))
    try:
        (volume / "edgeq.uf2").write_bytes(uf2(image.bin.read_bytes(), image.load_address, family))
    except OSError as error:
        raise OutputError(
            "flash-failed",
            f"The image could not be copied to {volume}; the board's flash may hold half of an image now.",
            where=str(volume),
            why=error.strerror,
            try_="Bring the board into its boot loader again and repeat.",
        ) from error
    deadline = time.monotonic() + _VOLUME_WAIT_S
    while (volume / "INFO_UF2.TXT").exists() and time.monotonic() < deadline:
        time.sleep(0.1)


def _volume(board: Board, board_id: str) -> Path:
    found = [volume for volume in _volumes() if _says(volume, board_id)]
    if len(found) == 1:
        return found[0]
    if found:
        raise DeviceError(
            "uf2-volume-ambiguous",
            f"{len(found)} volumes may be the {board.name}.",
            where=", ".join(map(str, found)),
            try_="Unplug the others.",
        )
    raise DeviceError(
        "uf2-volume-missing",
        f"The {board.name} does not show its boot loader's volume.",
        where=board.id,
        try_=("Hold BOOTSEL (or press reset twice) while plugging it in.", "Wait until the volume is mounted."),
    )


def _volumes() -> Iterator[Path]:
    """Mounted volumes that a UF2 boot loader shows."""
    if sys.platform == "win32":
        roots = [Path(f"{letter}:\\") for letter in "DEFGHIJKLMNOPQRSTUVWXYZ"]
    else:
        user = os.environ.get("USER", "")
        parents = [Path("/Volumes"), Path("/media"), Path("/media") / user, Path("/run/media") / user]
        roots = [root for parent in dict.fromkeys(parents) if parent.is_dir() for root in parent.iterdir()]
    for root in roots:
        try:
            if (root / "INFO_UF2.TXT").is_file():
                yield root
        except OSError:
            continue


def _says(volume: Path, board_id: str) -> bool:
    try:
        info = (volume / "INFO_UF2.TXT").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    lines = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("Board-ID:")]
    return any(line.startswith(board_id) for line in lines)
