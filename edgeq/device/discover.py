"""Which boards can be reached from here: serial ports with their USB ids, and the virtual boards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from edgeq.boards import Board, list_boards
from edgeq.device.virtual import missing
from edgeq.errors import LinkError

APPLICATION = "application"
LOADER = "boot loader or probe"


@dataclass(frozen=True, slots=True)
class PortFound:
    """A serial port. `boards` are the profiles whose USB ids fit, `role` what the id says: application or boot loader.

    A USB id names a product, not always a board, nor its state: HELLO decides.
    """

    port: str
    usb_id: str | None
    description: str
    serial_number: str | None
    boards: tuple[str, ...]
    role: str | None


@dataclass(frozen=True, slots=True)
class VirtualFound:
    """A virtual board, and why it cannot run here (None: it can)."""

    board: str
    name: str
    emulator: str
    lacks: str | None
    remedy: str | None


@dataclass(frozen=True, slots=True)
class DevicesReport:
    """What `edgeq devices` found."""

    ports: tuple[PortFound, ...]
    virtual: tuple[VirtualFound, ...]

    def to_json(self) -> dict[str, object]:
        return {"ports": [asdict(port) for port in self.ports], "virtual": [asdict(board) for board in self.virtual]}


def devices() -> DevicesReport:
    """Serial ports of this computer and the virtual boards of the catalogue. Opens no port."""
    boards = list_boards()
    return DevicesReport(find_ports(boards), tuple(_virtual(board) for board in boards if board.virtual is not None))


def find_ports(boards: Sequence[Board]) -> tuple[PortFound, ...]:
    """The serial ports, those that belong to a board first."""
    from serial.tools.list_ports import comports

    found = []
    for entry in comports():
        usb_id = None if entry.vid is None or entry.pid is None else f"{entry.vid:04x}:{entry.pid:04x}"
        application = tuple(board.id for board in boards if usb_id is not None and usb_id in board.link.usb_ids)
        loader = tuple(board.id for board in boards if usb_id is not None and usb_id in board.flash.usb_ids)
        role = APPLICATION if application else LOADER if loader else None
        described = entry.description if entry.description not in (None, "n/a") else ""
        ids = tuple(dict.fromkeys((*application, *loader)))
        found.append(PortFound(entry.device, usb_id, described, entry.serial_number, ids, role))
    return tuple(sorted(found, key=lambda port: (not port.boards, port.port)))


def find_port(board: Board, *, loader: bool = False) -> str:
    """The one port that the board's USB ids fit; with `loader`, that of a board in its boot loader, too.

    LinkError `port-missing`, `port-ambiguous` with the candidates, `board-in-loader`.
    """
    fitting = [port for port in find_ports([board]) if port.boards]
    if not loader and board.link.usb_ids and fitting:
        waiting, fitting = fitting, [port for port in fitting if port.role == APPLICATION]
        if not fitting:
            raise LinkError(
                "board-in-loader",
                f"The {board.name} at {waiting[0].port} is in its boot loader (or only its probe is there): "
                "no model runs.",
                where=waiting[0].port,
                why=f"Its USB id is {waiting[0].usb_id}; EdgeQ's firmware has {' or '.join(board.link.usb_ids)}.",
                try_=(f"Flash it: edgeq flash MODEL --board {board.id}", "Or press its reset button once."),
            )
    if len(fitting) == 1:
        return fitting[0].port
    if fitting:
        raise LinkError(
            "port-ambiguous",
            f"{len(fitting)} ports may be the {board.name}.",
            where=", ".join(f"{port.port} ({port.serial_number or port.usb_id})" for port in fitting),
            try_=[f"Choose one: --port {port.port}" for port in fitting],
        )
    raise LinkError(
        "port-missing",
        f"No port of this computer looks like the {board.name}.",
        where=board.id,
        why=f"Its USB ids are {', '.join(board.link.usb_ids)}." if board.link.usb_ids else "Its profile has no USB id.",
        try_=("Check the cable (it must carry data) and the power.", "Name the port: --port PORT (edgeq devices)"),
    )


def _virtual(board: Board) -> VirtualFound:
    assert board.virtual is not None
    lack = missing(board)
    if lack is None:
        return VirtualFound(board.id, board.name, board.virtual.emulator, None, None)
    return VirtualFound(board.id, board.name, board.virtual.emulator, lack.what, lack.try_[0] if lack.try_ else None)
