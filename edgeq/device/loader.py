"""From a running application into the boot loader: the touch at 1200 baud.

A USB application that hears its port opened at 1200 baud and closed again starts the boot loader: a custom of Arduino's
(https://github.com/arduino/Arduino/blob/master/hardware/arduino/avr/platform.txt, `use_1200bps_touch`), which the Pico
SDK's `stdio_usb` and EdgeQ's own firmware follow. A board that is in its boot loader already needs none.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from edgeq.boards import Board
from edgeq.device.discover import APPLICATION, PortFound, find_port, find_ports
from edgeq.device.ports import touch
from edgeq.errors import DeviceError

_T = TypeVar("_T")
_LOADER_S = 10.0
"""Time for the boot loader to show its port or its volume."""
_LOOK_S = 0.1


def loader_port(board: Board, port: str | None) -> str:
    """The serial port of the boot loader of `board`, which is touched where its application runs.

    port: where the board is; looked for without. A port whose USB id says nothing is taken for the boot loader's.
    LinkError of `find_port` and of the port; DeviceError `loader-missing`.
    """
    name = port or find_port(board, loader=True)
    if not runs_application(board, name):
        return name
    before = {(found.port, found.serial_number) for found in _loaders(board)}
    touch(name)

    def came() -> str | None:
        new = [found.port for found in _loaders(board) if (found.port, found.serial_number) not in before]
        return new[0] if len(new) == 1 and _openable(new[0]) else None

    loader = _wait_for(came)
    if loader is None:
        raise loader_missing(board, name)
    return loader


def leave_application(board: Board, port: str | None, shown: Callable[[], _T | None]) -> _T | None:
    """Touch the port of `board`, where its application runs, until `shown` has the boot loader's sign; None without.

    LinkError `port-ambiguous` where several ports may be the board's and none is named.
    """
    if port is None:
        if not any(found.role == APPLICATION for found in find_ports([board])):
            return None
        port = find_port(board)
    if not runs_application(board, port):
        return None
    touch(port)
    return _wait_for(shown)


def runs_application(board: Board, port: str) -> bool:
    """Whether the USB id of `port` says that the board's application runs there."""
    return any(found.role == APPLICATION and same_port(found.port, port) for found in find_ports([board]))


def same_port(one: str, other: str) -> bool:
    """Whether two names mean the same port: `/dev/serial/by-id/...` are links."""
    return one == other or ("://" not in other and Path(one).resolve() == Path(other).resolve())


def loader_missing(board: Board, port: str) -> DeviceError:
    """The application did not follow the touch."""
    return DeviceError(
        "loader-missing",
        f"The {board.name} did not start its boot loader; nothing was written.",
        where=port,
        why=f"Its port was opened and closed at 1200 baud, and no boot loader came within {_LOADER_S:g} s.",
        try_="Press the reset button twice, quickly, and flash again.",
    )


def _loaders(board: Board) -> list[PortFound]:
    return [found for found in find_ports([board]) if found.boards and found.role != APPLICATION]


def _openable(port: str) -> bool:
    """udev gives the rights some moments behind the port."""
    return os.name != "posix" or os.access(port, os.R_OK | os.W_OK)


def _wait_for(sign: Callable[[], _T | None]) -> _T | None:
    deadline = time.monotonic() + _LOADER_S
    while time.monotonic() < deadline:
        found = sign()
        if found is not None:
            return found
        time.sleep(_LOOK_S)
    return None
