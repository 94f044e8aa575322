"""Which boards can be reached from here: serial ports with their USB ids, and the virtual boards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    fitting = fitting_ports(board, loader=loader)
    if len(fitting) == 1:
        return fitting[0].port
    raise ambiguous(board, {port.port: port.serial_number or port.usb_id or "" for port in fitting})


def fitting_ports(board: Board, *, loader: bool = False) -> tuple[PortFound, ...]:
    """The ports that the board's USB ids fit, at least one. LinkError `port-missing`, `board-in-loader`."""
    fitting = [port for port in find_ports([board]) if port.boards]
    if not fitting:
        ids = f"Its USB ids are {', '.join(board.link.usb_ids)}." if board.link.usb_ids else None
        raise LinkError(
            "port-missing",
            f"No port of this computer looks like the {board.name}.",
            where=board.id,
            why=ids or "Its profile has no USB id.",
            try_=("Check the cable (it must carry data) and the power.", "Name the port: --port PORT (edgeq devices)"),
        )
    running = [port for port in fitting if port.role == APPLICATION]
    if loader or running or not board.link.usb_ids:
        return tuple(fitting if loader or not board.link.usb_ids else running)
    raise LinkError(
        "board-in-loader",
        f"The {board.name} at {fitting[0].port} is in its boot loader (or only its probe is there): no model runs.",
        where=fitting[0].port,
        why=f"Its USB id is {fitting[0].usb_id}; EdgeQ's firmware has {' or '.join(board.link.usb_ids)}.",
        try_=(f"Flash it: edgeq flash MODEL --board {board.id}", "Or press its reset button once."),
    )


def ambiguous(board: Board, candidates: Mapping[str, str]) -> LinkError:
    """Several ports may be the board's: `candidates` are their names, and what is known of each."""
    return LinkError(
        "port-ambiguous",
        f"{len(candidates)} ports may be the {board.name}.",
        where=", ".join(f"{port} ({known})" for port, known in candidates.items()),
        try_=[f"Choose one: --port {port}" for port in candidates],
    )


def _virtual(board: Board) -> VirtualFound:
    assert board.virtual is not None
    lack = missing(board)
    if lack is None:
        return VirtualFound(board.id, board.name, board.virtual.emulator, None, None)
    return VirtualFound(board.id, board.name, board.virtual.emulator, lack.what, lack.try_[0] if lack.try_ else None)
