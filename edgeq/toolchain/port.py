"""What a board's image is made of besides the bundle: the agent and the port under `firmware/`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeq.boards.profile import Board
from edgeq.errors import BoardError
from edgeq.files import data_directory


@dataclass(frozen=True, slots=True)
class Port:
    """Sources, include directories and linker script of a port, the agent included; `defines` say the board's facts."""

    sources: tuple[Path, ...]
    include: tuple[Path, ...]
    linker_script: str | None
    options: tuple[str, ...]
    link_options: tuple[str, ...]
    boot2_checksum: bool
    defines: tuple[str, ...]


AGENTS = {
    "edgeq": ("agent.c", "i2c.c", "kept.c", "memory.c", "run.c", "wire.c"),
    "mlperf": ("kept.c", "mlperf.c", "wire.c"),
}
"""Sources in firmware/agent/ of what a firmware speaks."""


def load_port(board: Board, agent: str = "edgeq") -> Port:
    """The port that the board's profile names, with one of AGENTS. BoardError `port-unknown`,
    `serial-unknown`, `usb-id-missing`.

    `port.toml` in the port's directory lists `sources`, `include`, and, without an operating system, `linker_scripts`;
    paths are relative to it. `options` are further options of the compiler, `link_options` of the linker;
    `boot2_checksum`: the section .boot2 ends in a checksum of it, as RP2040's ROM wants. The table `serial` has the
    sources of each line that the port can speak through; without it there is one.
    """
    assert board.firmware is not None
    firmware = data_directory("firmware")
    directory = firmware / "ports" / board.firmware.port
    try:
        table = tomllib.loads((directory / "port.toml").read_text(encoding="utf-8"))
    except OSError as error:
        ports = sorted(path.parent.name for path in firmware.glob("ports/*/port.toml"))
        raise BoardError(
            "port-unknown",
            f"The profile of {board.id} names the port {board.firmware.port!r}, which does not exist.",
            where=board.id,
            try_=f"Set [firmware] port to one of {', '.join(ports)}.",
        ) from error
    scripts = table.get("linker_scripts")
    return Port(
        sources=(
            *(firmware / "agent" / name for name in AGENTS[agent]),
            *((directory / name).resolve() for name in (*table["sources"], *_serial(board, table))),
        ),
        include=(firmware / "agent", *((directory / name).resolve() for name in table["include"])),
        linker_script=_linker_script(board, [directory / name for name in scripts]) if scripts else None,
        options=tuple(table.get("options", ())),
        link_options=tuple(table.get("link_options", ())),
        boot2_checksum=table.get("boot2_checksum", False),
        defines=_defines(board),
    )


def _serial(board: Board, table: dict[str, Any]) -> tuple[str, ...]:
    """Sources of the line that the profile chooses."""
    assert board.firmware is not None
    lines, serial = table.get("serial", {"uart": ()}), board.firmware.serial
    if serial not in lines:
        raise BoardError(
            "serial-unknown",
            f"The port {board.firmware.port!r} does not speak over {serial}.",
            where=board.id,
            try_=f"Set [firmware] serial to one of {', '.join(sorted(lines))}.",
        )
    if serial == "usb" and not board.link.usb_ids:
        raise BoardError(
            "usb-id-missing",
            f"The profile of {board.id} does not say as which USB device the firmware presents itself.",
            where=board.id,
            try_='Set [link] usb_ids, for example ["2341:805a"].',
        )
    return tuple(lines[serial])


def _defines(board: Board) -> tuple[str, ...]:
    defines = [f"-DEDGEQ_MAX_PAYLOAD_BYTES={board.payload_bytes}u"]
    if board.core.clock_hz is not None:
        defines.append(f"-DEDGEQ_CORE_HZ={board.core.clock_hz}u")
    if board.link.baud is not None:
        defines.append(f"-DEDGEQ_BAUD={board.link.baud}u")
    if board.firmware is not None and board.firmware.serial == "usb":
        vendor, product = board.link.usb_ids[0].split(":")
        defines += [f"-DEDGEQ_USB_VENDOR=0x{vendor}u", f"-DEDGEQ_USB_PRODUCT=0x{product}u"]
    return tuple(defines)


def _linker_script(board: Board, parts: list[Path]) -> str:
    """The board's memory (the first region of each kind, without what is reserved at its beginning), then the parts."""
    flash, ram = board.regions("flash")[0], board.regions("ram")[0]
    values = {
        "EDGEQ_FLASH_START": flash.start + flash.reserved_bytes,
        "EDGEQ_FLASH_BYTES": flash.usable_bytes,
        "EDGEQ_RAM_START": ram.start + ram.reserved_bytes,
        "EDGEQ_RAM_BYTES": ram.usable_bytes,
        "EDGEQ_STACK_BYTES": board.stack_bytes,
    }
    symbols = "".join(f"{name} = {value:#x};\n" for name, value in values.items())
    return symbols + "".join(path.read_text(encoding="utf-8") for path in parts)
