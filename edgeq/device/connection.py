"""From a board (and perhaps a port) to an open session: powers virtual boards on, finds the port of real ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from edgeq.boards import Board
from edgeq.device.discover import ambiguous, fitting_ports
from edgeq.device.flashed import load_flashed
from edgeq.device.ports import DEFAULT_BAUD, open_port
from edgeq.device.session import BoardFault, Session, Timing
from edgeq.device.virtual import PoweredBoard, power_on
from edgeq.errors import DeviceError
from edgeq.toolchain import Image

_WHO_S = 3.0
"""For an answer of each of several candidates: some boards restart when their port is opened."""
_VIRTUAL = Timing(hello_s=10.0, reply_s=5.0, silence_s=180.0)
"""A counted layer of a large model takes long in an emulator, which reports progress between layers only; on a busy
computer everything does. Nothing gets lost on the way to it, so asking again sooner would not help."""


@contextmanager
def connect(board: Board, *, port: str | None = None, image: Image | None = None) -> Iterator[Session]:
    """A session, HELLO done, with `board`; `wrong-board` if another one answers.

    port: a device name, path or URL of something that runs already. Without it a virtual board is powered on with
    `image`, or else with what was flashed, and a real one is looked for among the USB serial ports. A crash of the
    firmware is traced to its function and line where the image is known.
    """
    if image is None:
        flashed = load_flashed(board.id)
        image = flashed.image if flashed is not None else None
    with ExitStack() as stack:
        powered: PoweredBoard | None = None
        if board.virtual is not None and port is None:
            if image is None:
                raise _nothing_flashed(board)
            powered = stack.enter_context(power_on(board, image.elf))
            session = Session(powered.transport, timing=_VIRTUAL)
        else:
            name = port if port is not None else _find(board)
            baud = board.link.baud or DEFAULT_BAUD
            session = Session(open_port(name, baud=baud), timing=Timing(baud=baud if board.link.baud else None))
            stack.callback(session.close)
        try:
            session.hello()
            session.expect(board=board.id)
            yield session
        except BoardFault as error:
            place = _stack_overflow(error, board) or (None if image is None else _place_of(error, image))
            if place is None:
                raise
            raise BoardFault(error.command, session.transport.name, error.fault, place) from error
        except DeviceError as error:
            explained = error if powered is None else powered.explain(error)
            if explained is error:
                raise
            raise explained from error


def _find(board: Board) -> str:
    """The port of `board`: by its USB ids, and where several fit by what answers there.

    LinkError of `fitting_ports`; `port-ambiguous` with what each answers, if not exactly one says that it is the board.
    """
    ports = [found.port for found in fitting_ports(board)]
    if len(ports) == 1:
        return ports[0]
    told = {port: _who(port, board) for port in ports}
    ours = [port for port in ports if told[port] == board.id]
    if len(ours) == 1:
        return ours[0]
    raise ambiguous(board, {port: f"says {who}" if who else "no answer" for port, who in told.items()})


def _who(port: str, board: Board) -> str | None:
    """The board that answers at `port`; None where nothing does."""
    timing = Timing(hello_s=_WHO_S, baud=board.link.baud)
    try:
        with closing(Session(open_port(port, baud=board.link.baud or DEFAULT_BAUD), timing=timing)) as session:
            return session.hello().board
    except DeviceError:
        return None


def _nothing_flashed(board: Board) -> DeviceError:
    return DeviceError(
        "nothing-flashed",
        f"The virtual board {board.id} has an empty flash.",
        where=board.id,
        try_=f"Flash it first: edgeq flash MODEL --board {board.id}",
    )


def _stack_overflow(error: BoardFault, board: Board) -> str | None:
    """Words for a crash whose stack pointer has left the RAM: nothing could be pushed, so the address is not known."""
    ram = board.regions("ram")
    if not ram or any(region.start < error.fault.sp <= region.start + region.size_bytes for region in ram):
        return None
    return f"an unknown address: the stack ran out (stack pointer {error.fault.sp:#010x})"


def _place_of(error: BoardFault, image: Image) -> str | None:
    """Function and line of the crash; an address of the host's process means nothing in its file."""
    if image.bin is None and image.load_address == 0 and error.fault.kind == "signal":
        return None
    location = image.locate(error.fault.pc)
    if location is None:
        return None
    return f"{location.function} ({location.file}:{location.line})" if location.line else location.function
