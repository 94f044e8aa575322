"""Ways to put an image onto a real board: the vendors' tools as processes, and UF2 volumes.

Every tool verifies what it wrote where it can; that the board runs it is known from HELLO alone, which comes after.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeq.boards import Board
from edgeq.device.discover import find_port
from edgeq.errors import BoardError, DeviceError, OutputError, ToolError
from edgeq.toolchain import Image

_BUTTON_S = 60
"""Time to find the reset button where the tool waits for it."""
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
    "pyocd": ("pip install pyocd",),
    "esptool": ("pip install esptool   (in an environment of its own: its licence is the GPL)",),
    "stm32loader": ("pip install stm32loader",),
    "openocd": ("Debian: sudo apt-get install openocd", "macOS: brew install open-ocd"),
    "dfu-util": ("Debian: sudo apt-get install dfu-util", "macOS: brew install dfu-util"),
    "bossac": ("Debian: sudo apt-get install bossa-cli", "macOS: brew install bossa"),
    "teensy_loader_cli": ("Debian: sudo apt-get install teensy-loader-cli", "macOS: brew install teensy_loader_cli"),
}


@dataclass(frozen=True, slots=True)
class Calls:
    """A tool's arguments. `probe` reaches the chip and changes nothing, so that its failure leaves the flash whole;
    empty where the tool cannot do that, or does it itself before it erases."""

    tool: str
    write: tuple[str, ...]
    probe: tuple[str, ...] = ()
    timeout_s: int = 300


def put(image: Image, board: Board, port: str | None) -> None:
    """Write `image` onto `board` by the method that its profile names.

    BoardError `flash-method-missing`; ToolError `flash-tool-missing`, `flash-not-begun` (the board is as it was),
    `flash-failed` (it may not be); DeviceError `uf2-volume-missing`, `uf2-volume-ambiguous`.
    """
    method = board.flash.method
    if method == "uf2":
        _copy_uf2(image, board)
        return
    calls = _CALLS.get(method)
    if calls is None or image.bin is None:
        raise BoardError(
            "flash-method-missing",
            f"EdgeQ cannot flash the {board.name} itself (method {method}).",
            where=board.id,
            try_="Build the CMake project of the bundle and flash it with the vendor's tool.",
        )
    with tempfile.TemporaryDirectory(prefix="edgeq-flash-") as scratch:
        _run(calls(image, image.bin, board, port, Path(scratch)), board)


def _openocd(image: Image, _bin: Path, board: Board, _port: str | None, _scratch: Path) -> Calls:
    st_link = any(usb_id.startswith(_ST_LINK_VENDOR) for usb_id in board.flash.usb_ids)
    interface = "interface/stlink.cfg" if st_link else "interface/cmsis-dap.cfg"
    chip = ("-f", interface, "-f", f"target/{board.flash.target}.cfg", "-c")
    write = f"program {{{image.elf}}} verify reset exit"
    return Calls("openocd", (*chip, write), (*chip, "init; reset halt; flash probe 0; reset run; shutdown"))


def _pyocd(image: Image, _bin: Path, board: Board, _port: str | None, _scratch: Path) -> Calls:
    target = ("--target", str(board.flash.target))
    return Calls(
        "pyocd",
        ("load", "--no-wait", *target, "--format", "elf", str(image.elf)),
        ("commander", "--no-wait", *target, "--command", "status"),
    )


def _esptool(image: Image, bin_: Path, board: Board, port: str | None, _scratch: Path) -> Calls:
    """With `--chip`, esptool refuses another chip than the profile's; it compares a digest of what it wrote."""
    chip = ("--chip", str(board.flash.target), "--port", port or find_port(board))
    offset = image.load_address - board.regions("flash")[0].start
    return Calls(
        "esptool", (*chip, "write-flash", f"{offset:#x}", str(bin_)), (*chip, "--after", "no-reset", "chip-id")
    )


def _stm32loader(image: Image, bin_: Path, board: Board, port: str | None, _scratch: Path) -> Calls:
    line, address = ("-p", port or find_port(board)), f"{image.load_address:#010x}"
    return Calls("stm32loader", (*line, "-e", "-w", "-v", "-a", address, "-g", address, str(bin_)), line)


def _dfu_util(image: Image, bin_: Path, board: Board, _port: str | None, _scratch: Path) -> Calls:
    """A device of another USB id is not opened."""
    device = ("-d", board.flash.usb_ids[0]) if board.flash.usb_ids else ()
    return Calls("dfu-util", (*device, "-a", "0", "-s", f"{image.load_address:#010x}:leave", "-D", str(bin_)))


def _bossac(_image: Image, bin_: Path, board: Board, port: str | None, _scratch: Path) -> Calls:
    line = ("-p", port or find_port(board))
    return Calls("bossac", (*line, "-e", "-w", "-v", "-R", str(bin_)), (*line, "-i"))


def _teensy(image: Image, bin_: Path, board: Board, _port: str | None, scratch: Path) -> Calls:
    """The boot loader cannot be read back: that the image is right is known from HELLO alone."""
    place = scratch / "firmware.hex"
    place.write_text(intel_hex(bin_.read_bytes(), image.load_address), encoding="ascii")
    return Calls("teensy_loader_cli", (f"--mcu={board.flash.target}", "-s", "-v", str(place)), timeout_s=_BUTTON_S)


_CALLS: dict[str, Callable[[Image, Path, Board, str | None, Path], Calls]] = {
    "openocd": _openocd,
    "pyocd": _pyocd,
    "esptool": _esptool,
    "stm32loader": _stm32loader,
    "dfu-util": _dfu_util,
    "bossac": _bossac,
    "teensy": _teensy,
}


def _run(calls: Calls, board: Board) -> None:
    path = shutil.which(calls.tool)
    if path is None:
        raise ToolError(
            "flash-tool-missing",
            f"Flashing the {board.name} needs {calls.tool}, which is not on the PATH.",
            where=board.id,
            try_=_INSTALL[calls.tool],
        )
    if calls.probe:
        why = _call([path, *calls.probe], calls.timeout_s)
        if why is not None:
            raise ToolError(
                "flash-not-begun",
                f"{calls.tool} does not reach a {board.flash.target or board.name} there; nothing was written.",
                where=board.id,
                why=why,
                try_=("Check that this is the right board, its cable and its power.", "See the ports: edgeq devices"),
            )
    why = _call([path, *calls.write], calls.timeout_s)
    if why is not None:
        raise ToolError(
            "flash-failed",
            f"{calls.tool} could not flash the {board.name}; its flash may hold half of an image now.",
            where=board.id,
            why=why,
            try_=(
                "Check the probe's cable and the board's power, then flash again.",
                "See the tools and ports: edgeq doctor",
            ),
        )


def _call(command: list[str], timeout_s: int) -> str | None:
    """None if the tool succeeded, else the end of what it said."""
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return f"It did not end within {timeout_s} s: no board was found, or the board is not in its boot loader."
    except OSError as error:
        return str(error)
    if result.returncode == 0:
        return None
    lines = (result.stderr.strip() or result.stdout.strip()).splitlines()
    return "\n".join(lines[-5:]) or f"exit status {result.returncode}"


def intel_hex(content: bytes, address: int) -> str:
    """`content` for `address` as Intel HEX: records of 32 bytes, the address's upper half where it changes."""

    def record(offset: int, kind: int, data: bytes) -> str:
        body = bytes((len(data), offset >> 8, offset & 0xFF, kind)) + data
        return f":{(body + bytes((-sum(body) & 0xFF,))).hex().upper()}\n"

    records, upper, start = [], -1, 0
    while start < len(content):
        at = address + start
        if at >> 16 != upper:
            upper = at >> 16
            records.append(record(0, 4, upper.to_bytes(2, "big")))
        count = min(32, 0x10000 - (at & 0xFFFF))
        records.append(record(at & 0xFFFF, 0, content[start : start + count]))
        start += count
    return "".join((*records, record(0, 1, b"")))


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
