"""Ways to put an image onto a real board: the vendors' tools as processes, and UF2 volumes.

Every tool verifies what it wrote where it can; that the board runs it is known from HELLO alone, which comes after.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeq.boards import Board
from edgeq.device.discover import find_port, find_ports
from edgeq.device.install import find_tool, how_to_install
from edgeq.device.loader import leave_application, loader_port, same_port
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


@dataclass(frozen=True, slots=True)
class Calls:
    """A tool's arguments. `probe` reaches the chip and changes nothing, so that its failure leaves the flash whole;
    empty where the tool cannot do that, or does it itself before it erases. chip: stands in what the probe says if
    it is the right chip; None where the tool itself refuses another one. untouched: what `write` says in a failure that
    comes before it erases. begins: what it says before it writes.
    """

    tool: str
    write: tuple[str, ...]
    probe: tuple[str, ...] = ()
    timeout_s: int = 300
    chip: str | None = None
    untouched: tuple[str, ...] = ()
    begins: str = ""


def put(image: Image, board: Board, port: str | None) -> None:
    """Write `image` onto `board` by the method that its profile names.

    BoardError `flash-method-missing`; ToolError `flash-tool-missing`, `flash-not-begun`, `wrong-chip` (the board is as
    it was), `flash-failed` (it may not be); DeviceError `loader-missing`, `uf2-volume-missing`, `uf2-volume-ambiguous`.
    """
    method = board.flash.method
    if method == "uf2":
        _copy_uf2(image, board, port)
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


def _openocd(image: Image, _bin: Path, board: Board, port: str | None, _scratch: Path) -> Calls:
    st_link = any(usb_id.startswith(_ST_LINK_VENDOR) for usb_id in board.flash.usb_ids)
    interface = "interface/stlink.cfg" if st_link else "interface/cmsis-dap.cfg"
    serial = _probe_among_several(board, port)
    chosen = () if serial is None else ("-c", f"adapter serial {serial}")
    chip = ("-f", interface, *chosen, "-f", f"target/{board.flash.target}.cfg", "-c")
    write = f"program {{{image.elf}}} verify reset exit"
    return Calls("openocd", (*chip, write), (*chip, "init; reset halt; flash probe 0; reset run; shutdown"))


def _probe_among_several(board: Board, port: str | None) -> str | None:
    """The serial number of the debug probe whose serial port is the board's; None if there is but one probe.

    LinkError `port-ambiguous`, before anything is written, where several boards are there and none is named.
    """
    probes = [found for found in find_ports([board]) if found.boards]
    if len(probes) < 2:
        return None
    name = port or find_port(board, loader=True)
    numbers = [found.serial_number for found in probes if same_port(found.port, name)]
    return numbers[0] if numbers and (numbers[0] or "").isalnum() else None


def _pyocd(image: Image, _bin: Path, board: Board, port: str | None, _scratch: Path) -> Calls:
    serial = _probe_among_several(board, port)
    target = ("--target", str(board.flash.target), *(() if serial is None else ("--uid", serial)))
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
    write = (*line, "-e", "-w", "-v", "-a", address, "-g", address, str(bin_))
    return Calls("stm32loader", write, line, chip=board.flash.target)


def _dfu_util(image: Image, bin_: Path, board: Board, _port: str | None, _scratch: Path) -> Calls:
    """A device of another USB id is not opened; an address outside of its memory is refused before it is erased."""
    device = ("-d", board.flash.usb_ids[0]) if board.flash.usb_ids else ()
    write = (*device, "-a", "0", "-s", f"{image.load_address:#010x}:leave", "-D", str(bin_))
    before = ("No DFU capable USB device", "More than one DFU capable USB device", "Cannot open DFU device")
    return Calls("dfu-util", write, untouched=(*before, "is not writeable", "not in memory"))


def _bossac(_image: Image, bin_: Path, board: Board, port: str | None, _scratch: Path) -> Calls:
    """The boot loader speaks, not the application: that is sent into it first."""
    line = ("-p", loader_port(board, port))
    return Calls("bossac", (*line, "-e", "-w", "-v", "-R", str(bin_)), (*line, "-i"), chip=board.flash.target)


def _teensy(image: Image, bin_: Path, board: Board, _port: str | None, scratch: Path) -> Calls:
    """The boot loader cannot be read back: that the image is right is known from HELLO alone."""
    place = scratch / "firmware.hex"
    place.write_text(intel_hex(bin_.read_bytes(), image.load_address), encoding="ascii")
    write = (f"--mcu={board.flash.target}", "-s", "-v", str(place))
    return Calls("teensy_loader_cli", write, timeout_s=_BUTTON_S, begins="Found HalfKay")


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
    path = find_tool(calls.tool)
    if path is None:
        raise ToolError(
            "flash-tool-missing",
            f"Flashing the {board.name} needs {calls.tool}, which is not on the PATH.",
            where=board.id,
            try_=how_to_install(calls.tool),
        )
    if calls.probe:
        probe = _call([path, *calls.probe], calls.timeout_s)
        if not probe.ended_well:
            raise _not_begun(calls, board, probe.end())
        if calls.chip is not None and calls.chip.lower() not in probe.said.lower():
            raise ToolError(
                "wrong-chip",
                f"{calls.tool} reaches another chip than a {calls.chip}; nothing was written.",
                where=board.id,
                why=probe.end(),
                try_=("Name the board that is connected: --board (edgeq boards list)", "Name its port: --port PORT"),
            )
    try:
        write = _call([path, *calls.write], calls.timeout_s)
    except KeyboardInterrupt as interrupt:
        raise _interrupted(board) from interrupt
    if write.ended_well:
        return
    if calls.begins not in write.said or any(words in write.said for words in calls.untouched):
        raise _not_begun(calls, board, write.end())
    raise ToolError(
        "flash-failed",
        f"{calls.tool} could not flash the {board.name}; its flash may hold half of an image now.",
        where=board.id,
        why=write.end(),
        try_=(
            "Check the cable and the board's power, then flash again; until then the board may not start.",
            "See the tools and ports: edgeq doctor",
        ),
    )


def _not_begun(calls: Calls, board: Board, why: str) -> ToolError:
    return ToolError(
        "flash-not-begun",
        f"{calls.tool} does not reach a {board.flash.target or board.name} there; nothing was written.",
        where=board.id,
        why=why,
        try_=("Check that this is the right board, its cable and its power.", "See the ports: edgeq devices"),
    )


def _interrupted(board: Board) -> KeyboardInterrupt:
    return KeyboardInterrupt(f"The flash of the {board.name} may hold half of an image now: flash it again.")


@dataclass(frozen=True, slots=True)
class _Ended:
    """How a tool ended: with what status (None: it did not start or was stopped), and what it said."""

    status: int | None
    out: str
    err: str

    @property
    def said(self) -> str:
        return f"{self.out}\n{self.err}"

    @property
    def ended_well(self) -> bool:
        return self.status == 0

    def end(self) -> str:
        """The end of what it said, without a traceback's frames; a signal that ended it, or else its exit status."""
        lines = [line for line in (self.err.strip() or self.out).replace("\r", "\n").splitlines() if line.strip()]
        if any(line.startswith("Traceback (") for line in lines):
            lines = lines[-1:]
        if self.status is not None and self.status < 0:
            lines.append(f"It was ended by signal {-self.status}.")
        return "\n".join(lines[-5:]) or f"exit status {self.status}"


def _call(command: list[str], timeout_s: int) -> _Ended:
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        out, err = ((part or b"").decode(errors="replace") for part in (expired.stdout, expired.stderr))
        why = f"It did not end within {timeout_s} s: the board does not answer, or not its boot loader."
        return _Ended(None, out, f"{err.strip() or out}\n{why}")
    except OSError as error:
        return _Ended(None, "", str(error))
    return _Ended(result.returncode, *(part.decode(errors="replace") for part in (result.stdout, result.stderr)))


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


def _copy_uf2(image: Image, board: Board, port: str | None) -> None:
    target = board.flash.target or ""
    family = _UF2_FAMILIES.get(target)
    if family is None or image.bin is None:
        raise BoardError(
            "flash-method-missing",
            f"The UF2 family of the {board.name} (flash target {target!r}) is not known.",
            where=board.id,
            try_=f"Known: {', '.join(_UF2_FAMILIES)}.",
        )
    volume = _volume(board, _UF2_BOARD_IDS.get(target, ""), port)
    content, written = uf2(image.bin.read_bytes(), image.load_address, family), False
    try:
        with (volume / "edgeq.uf2").open("wb") as file:
            file.write(content)
            written = True
            os.fsync(file.fileno())
    except KeyboardInterrupt as interrupt:
        raise _interrupted(board) from interrupt
    except OSError as error:
        if not (written and _gone(volume)):  # the boot loader goes behind the last block; HELLO tells whether it was
            raise OutputError(
                "flash-failed",
                f"The image could not be copied to {volume}; the board's flash may hold half of an image now.",
                where=str(volume),
                why=error.strerror,
                try_="Bring the board into its boot loader again and repeat.",
            ) from error
    deadline = time.monotonic() + _VOLUME_WAIT_S
    while not _gone(volume) and time.monotonic() < deadline:
        time.sleep(0.1)


def _gone(volume: Path) -> bool:
    try:
        return not (volume / "INFO_UF2.TXT").exists()
    except OSError:
        return True


def _volume(board: Board, board_id: str, port: str | None) -> Path:
    """The one volume of the board's boot loader, into which a running application is sent first."""

    def shown() -> list[Path] | None:
        return [volume for volume in _volumes() if _says(volume, board_id)] or None

    found = shown() or leave_application(board, port, shown) or []
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
        f"The {board.name} does not show its boot loader's volume; nothing was written.",
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
