"""`flash`: build the image, put it onto the board, and hear from the board itself that it runs it."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from edgeq.boards import Board
from edgeq.device.connection import connect
from edgeq.device.discover import APPLICATION, LOADER, find_port, find_ports
from edgeq.device.flashed import Flashed
from edgeq.device.loader import same_port
from edgeq.device.messages import Hello
from edgeq.device.methods import put
from edgeq.device.mlperf import expect_model
from edgeq.device.ports import open_port
from edgeq.device.state import state_directory
from edgeq.device.virtual import power_on
from edgeq.errors import DeviceError, LinkError, UsageError
from edgeq.measure import Computed
from edgeq.progress import Progress, silent
from edgeq.toolchain import Image, build, read_manifest
from edgeq.toolchain.manifest import Manifest

_PORT_RETURNS_S = 15.0
_UNVERIFIED = {
    "no-answer",
    "corrupted-frames",
    "wrong-board",
    "wrong-model",
    "agent-version",
    "port-missing",
    "port-ambiguous",
    "port-lost",
    "board-in-loader",
}
"""Errors of the link that mean something else right behind the flash tool's success."""
_BUILDING = threading.Lock()
"""Threads that measure several boards want the same image of the reference."""


@dataclass(frozen=True, slots=True)
class FlashReport:
    """A board that runs the image and has said so; `hello` is None where it speaks MLPerf Tiny's protocol."""

    board: str
    board_name: str
    method: str
    port: str
    image: Image
    hello: Hello | None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        return {
            "board": self.board,
            "method": self.method,
            "port": self.port,
            "image": image_json(self.image),
            "hello": None if self.hello is None else self.hello.to_json(),
            "notes": list(self.notes),
        }


def made_for_another(manifest: Manifest, board: Board) -> tuple[str, ...]:
    """A sentence, if the bundle was made for another board than `board`."""
    if manifest.board in ("", board.id):
        return ()
    return (
        f"The bundle was made for {manifest.board}: its kernels and its memory plan are that board's choice. "
        f"One for this board: edgeq bundle MODEL --board {board.id}",
    )


def image_json(image: Image) -> dict[str, object]:
    """An image's facts; sizes are read off the linked file."""
    sizes = {name: Computed(value, "bytes", "linked image").to_json() for name, value in asdict(image.sizes).items()}
    return {
        "model_sha256": image.model_sha256,
        "compiler": image.compiler,
        "flags": list(image.flags),
        "sizes": sizes,
        "flash_bytes": Computed(image.sizes.flash_bytes, "bytes", "linked image").to_json(),
        "ram_bytes": Computed(image.sizes.ram_bytes, "bytes", "linked image").to_json(),
    }


def flash(
    bundle_dir: Path,
    board: Board,
    *,
    port: str | None = None,
    compiler: str | None = None,
    progress: Progress = silent,
) -> FlashReport:
    """Build `bundle_dir` for `board`, flash it, verify by its own word that board and model are the ones expected.

    Errors: the toolchain's (`compiler-not-found`, `build-failed`, `image-too-large`), the flash tool's, the link's;
    `flash-not-verified` where a real board answers with something else than the image, or not at all. A virtual board
    keeps its previous image if the new one does not answer.
    """
    virtual = board.flash.method == "virtual"
    if virtual and port is not None:
        raise UsageError(
            "port-not-used",
            f"{board.id} is virtual: it has no port to flash through.",
            where="--port",
            try_="Leave --port out; edgeq bench takes one.",
        )
    progress("build", 0, None)
    image = build_image(bundle_dir, board, compiler=compiler)
    if not virtual:
        progress("flash", 0, None)
        others = _others(board, port)
        put(image, board, port)
        port = _port_behind(board, port, others)
    progress("verify", 0, None)
    manifest = read_manifest(bundle_dir)
    try:
        if manifest.options.agent == "mlperf":
            hello, line = None, _mlperf_verified(board, port, image, manifest.name)
        else:
            with connect(board, port=port, image=image) as session:
                session.expect(model_sha256=image.model_sha256)
                hello, line = session.info, session.transport.name
    except DeviceError as error:
        if virtual or error.code not in _UNVERIFIED:
            raise
        raise _not_verified(board, error) from error
    Flashed(image, (bundle_dir / "manifest.json").read_bytes()).store(board.id)
    notes = made_for_another(manifest, board)
    return FlashReport(board.id, board.name, board.flash.method, line, image, hello, notes)


def _not_verified(board: Board, error: DeviceError) -> DeviceError:
    return DeviceError(
        "flash-not-verified",
        f"The image was sent to the {board.name}, but the board does not answer with it.",
        where=error.where,
        why=error.what,
        try_=(
            "Press the board's reset button and run edgeq bench.",
            "Flash again: the board may hold half of an image. If it stays, see: edgeq doctor",
        ),
    )


def _mlperf_verified(board: Board, port: str | None, image: Image, model: str) -> str:
    """The line's name, once the board just flashed has named its model by MLPerf Tiny's protocol."""
    with ExitStack() as stack:
        if board.virtual is not None:
            transport = stack.enter_context(power_on(board, image.elf)).transport
        else:
            transport = open_port(port or find_port(board), baud=board.link.baud)
            stack.callback(transport.close)
        expect_model(transport, model)
        return transport.name


def _others(board: Board, port: str | None) -> frozenset[str]:
    """Ports of the same kind of board that are not the one to be flashed."""
    if port is None:
        return frozenset()
    return frozenset(found.port for found in find_ports([board]) if not same_port(found.port, port))


def _port_behind(board: Board, port: str | None, others: frozenset[str]) -> str | None:
    """Wait for the port of a board that restarts; an application may have another one than its boot loader had."""
    deadline = time.monotonic() + _PORT_RETURNS_S
    while time.monotonic() < deadline:
        if _port_there(board, port):
            return port
        new = [f.port for f in find_ports([board]) if f.role == APPLICATION and f.port not in others]
        if port is not None and len(new) == 1 and _port_there(board, new[0]):
            return new[0]
        time.sleep(0.2)
    return port


def _port_there(board: Board, port: str | None) -> bool:
    """Whether the port can be opened and is not the boot loader's, which is about to go."""
    if port is not None and any(f.role == LOADER and same_port(f.port, port) for f in find_ports([board])):
        return not board.link.usb_ids
    try:
        open_port(port or find_port(board), baud=board.link.baud).close()
    except LinkError as error:
        return error.code not in {"port-missing", "port-busy", "board-in-loader"}
    return True


def build_image(bundle_dir: Path, board: Board, *, compiler: str | None = None) -> Image:
    """The firmware image of a bundle for a board, from the state directory if nothing that shapes it has changed."""
    place = state_directory() / "images" / board.id / read_manifest(bundle_dir).name
    with _BUILDING:
        return build(bundle_dir, board, place, compiler=compiler)
