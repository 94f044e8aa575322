"""Starting and stopping virtual boards. Each is a process; none outlives this one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO

from edgeq.boards import Board
from edgeq.device.install import how_to_install
from edgeq.device.ports import SocketTransport, Transport, open_port
from edgeq.errors import BoardError, DeviceError, ToolError

_END_S = 5.0
_CONNECT_S = 10.0
_PACKAGE_PARENT = Path(__file__).parents[3]


class PoweredBoard:
    """A virtual board that runs. `transport` is the line to it; leaving the `with` block switches it off."""

    def __init__(self, process: subprocess.Popen[bytes], transport: Transport, log: IO[bytes], name: str) -> None:
        self.transport = transport
        self._process = process
        self._log = log
        self._name = name
        self._held: int | None = None

    def hold(self, descriptor: int) -> None:
        """Keep a file descriptor open until the board is switched off."""
        self._held = descriptor

    def explain(self, error: DeviceError) -> DeviceError:
        """`error`, or, if the emulator has ended by itself, that fact with what it said."""
        try:
            status = self._process.wait(timeout=0.5 if error.code == "port-lost" else 0)
        except subprocess.TimeoutExpired:
            return error
        self._log.seek(0)
        said = self._log.read()[-2000:].decode(errors="replace").strip()
        return DeviceError(
            "emulator-ended",
            f"The virtual board {self._name} ended by itself.",
            where=self._name,
            why=f"{said or 'It said nothing'} (exit status {status}).",
            try_="See whether this emulator runs at all: edgeq doctor",
        )

    def power_off(self) -> None:
        """End the process and wait for it."""
        self.transport.close()
        if self._held is not None:
            os.close(self._held)
            self._held = None
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def __enter__(self) -> PoweredBoard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.power_off()


def missing(board: Board) -> ToolError | None:
    """What this computer lacks to run the virtual board, or None."""
    emulator = _emulator(board)
    if emulator == "process":
        if os.name == "posix":
            return None
        return ToolError("pty-missing", "The board `host` needs a POSIX system.", try_="Use --board virtual-m4.")
    if emulator == "unicorn":
        if find_spec("unicorn") is not None:
            return None
        return ToolError(
            "emulator-not-found",
            f"The board {board.id} needs the Python package unicorn.",
            where=board.id,
            try_='pip install "edgeq[mcu]"',
        )
    if shutil.which(emulator) is not None:
        return None
    return ToolError(
        "emulator-not-found",
        f"The board {board.id} needs {emulator}, which is not on the PATH.",
        where=board.id,
        try_=how_to_install(emulator),
    )


def power_on(board: Board, image: Path) -> PoweredBoard:
    """Start the virtual `board` with the ELF file `image`. ToolError if its emulator is absent."""
    lack = missing(board)
    if lack is not None:
        raise lack
    match _emulator(board):
        case "process":
            return _start_on_pty(board, image)
        case "unicorn":
            return _start_unicorn(board, image)
        case emulator:
            return _start_qemu(board, emulator, image)


def _emulator(board: Board) -> str:
    if board.virtual is None:
        raise BoardError("board-not-virtual", f"{board.id} is not a virtual board.", try_="edgeq boards list")
    return board.virtual.emulator


def _guarded(command: list[str], line: int | None, inherited: tuple[int, ...]) -> tuple[list[str], tuple[int, ...]]:
    guard = [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py"))]
    return [*guard, "-" if line is None else str(line), *command], inherited


def _start(
    command: list[str], inherited: tuple[int, ...], connect: Callable[[], Transport], name: str, *, lifeline: bool
) -> PoweredBoard:
    """Start the process, then connect to it; if that fails it is ended again. Its standard error goes to a file."""
    log = tempfile.TemporaryFile()  # noqa: SIM115
    path = os.pathsep.join(filter(None, (str(_PACKAGE_PARENT), os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE if lifeline else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=log,
        pass_fds=inherited,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        return PoweredBoard(process, connect(), log, name)
    except BaseException:
        if process.stdin is not None:
            process.stdin.close()
        else:
            process.kill()
        process.wait()
        log.close()
        raise


def _start_on_pty(board: Board, image: Path) -> PoweredBoard:
    """The agent has the pty's master as standard input and output; we open the slave, as we open any serial port."""
    master, slave = os.openpty()
    try:
        name = os.ttyname(slave)
        command, inherited = _guarded([str(image)], master, (master,))
        powered = _start(command, inherited, lambda: open_port(name), board.id, lifeline=True)
    except BaseException:
        os.close(slave)
        raise
    finally:
        os.close(master)
    powered.hold(slave)
    return powered


class _Wire:
    """A pair of connected sockets: one inherited by the emulator, or TCP where that is impossible."""

    def __init__(self, *, tcp: bool) -> None:
        self._ours: socket.socket | None = None
        self._theirs: socket.socket | None = None
        self._listener: socket.socket | None = None
        if tcp:
            self._listener = socket.create_server(("127.0.0.1", 0), backlog=1)
            self._listener.settimeout(_CONNECT_S)
        else:
            self._ours, self._theirs = socket.socketpair()

    @property
    def inherited(self) -> tuple[int, ...]:
        return (self._theirs.fileno(),) if self._theirs else ()

    @property
    def address(self) -> tuple[str, int] | int:
        """(host, port), or the inherited descriptor."""
        if self._theirs is not None:
            return self._theirs.fileno()
        assert self._listener is not None
        host, port = self._listener.getsockname()
        return str(host), int(port)

    def connected(self, name: str) -> SocketTransport:
        """Our end, once the emulator was started."""
        if self._theirs is not None and self._ours is not None:
            self._theirs.close()
            return SocketTransport(self._ours, name)
        assert self._listener is not None
        with self._listener:
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                raise DeviceError(
                    "emulator-ended",
                    f"The virtual board {name} did not connect.",
                    where=name,
                    why=str(error),
                    try_="See whether this emulator runs at all: edgeq doctor",
                ) from error
        return SocketTransport(connection, name)


def _tcp_only(board: Board) -> bool:
    return os.name != "posix" or board.link.kind == "tcp"


def _start_unicorn(board: Board, image: Path) -> PoweredBoard:
    wire = _Wire(tcp=_tcp_only(board))
    address = wire.address
    line = str(address) if isinstance(address, int) else f"{address[0]}:{address[1]}"
    command = [sys.executable, "-m", "edgeq.device.virtual.unicorn_process", str(image), line]
    return _start(command, wire.inherited, lambda: wire.connected(board.id), board.id, lifeline=False)


def _start_qemu(board: Board, emulator: str, image: Path) -> PoweredBoard:
    assert board.virtual is not None and board.virtual.machine is not None
    wire = _Wire(tcp=_tcp_only(board))
    address = wire.address
    line = f"fd={address}" if isinstance(address, int) else f"host={address[0]},port={address[1]},nodelay=on"
    command = [emulator, "-machine", board.virtual.machine, *board.virtual.arguments]
    command += ["-display", "none", "-monitor", "none", "-nodefaults", "-chardev", f"socket,id=line,{line}"]
    command += ["-serial", "chardev:line", "-kernel", str(image)]
    guarded, inherited = _guarded(command, None, wire.inherited)
    return _start(guarded, inherited, lambda: wire.connected(board.id), board.id, lifeline=True)
