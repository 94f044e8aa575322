"""An SSH connection to a Linux board: `~/.ssh/config`, the agent and `known_hosts` decide; there is no password.

A host key that `known_hosts` does not hold is refused, with its fingerprint and the command that accepts it.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeq.errors import DeviceError, LinkError, ToolError, UsageError

if TYPE_CHECKING:
    import asyncssh

CONNECT_S = 15.0
LOGIN_S = 30.0
KEEPALIVE_S = 10.0
"""Three of these without a sign of life end the connection."""

_HOST = re.compile(r"(?:(?P<user>[^@\s:]+)@)?(?P<name>\[[0-9A-Fa-f:.%\w]+\]|[^@\s:\[\]]+)(?::(?P<port>\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class Host:
    """`[user@]name[:port]`; what is absent comes from `~/.ssh/config`."""

    text: str
    name: str
    user: str | None = None
    port: int | None = None

    @property
    def ssh_words(self) -> str:
        """How the `ssh` program names it."""
        port = f"-p {self.port} " if self.port else ""
        return f"{port}{self.user}@{self.name}" if self.user else f"{port}{self.name}"


def parse_host(text: str) -> Host:
    """UsageError `host-invalid` unless `text` has the form [user@]name[:port]."""
    found = _HOST.fullmatch(text.strip())
    port = int(found["port"]) if found and found["port"] else None
    if found is None or found["name"].startswith("-") or (port is not None and not 0 < port < 65536):
        raise UsageError(
            "host-invalid", f"{text!r} is not a host.", where="--host", try_="Write --host user@name or user@name:port."
        )
    return Host(text, found["name"].strip("[]"), found["user"], port)


def _asyncssh() -> Any:
    try:
        import asyncssh
    except ImportError as error:
        raise ToolError(
            "asyncssh-missing", "SSH needs the package asyncssh.", why=str(error), try_="pip install 'edgeq[pi]'"
        ) from error
    return asyncssh


class Remote:
    """An open connection. `run` executes one command; agents are started over `connection`."""

    def __init__(self, connection: asyncssh.SSHClientConnection, host: Host) -> None:
        self.connection, self.host = connection, host

    async def run(self, command: str, *, input_: str = "", limit_s: float = 60.0) -> tuple[int, str, str]:
        """Exit status, standard output and error output of a command. LinkError if the line breaks or stalls."""
        asyncssh = _asyncssh()
        try:
            done = await self.connection.run(
                command, input=input_, encoding="utf-8", errors="replace", check=False, timeout=limit_s
            )
        except asyncssh.TimeoutError as error:
            raise DeviceError(
                "device-silent",
                f"{self.host.text} did not finish a command within {limit_s:.0f} s.",
                where=self.host.text,
                try_="Look at the load of the device, then repeat.",
            ) from error
        except (asyncssh.Error, OSError) as error:
            raise connection_lost(self.host, error) from error
        if done.exit_status is None:
            raise connection_lost(self.host, None)
        return done.exit_status, str(done.stdout or ""), str(done.stderr or "")


def connection_lost(host: Host, error: Exception | None) -> LinkError:
    """The error for a line that broke; nothing that was in use has changed."""
    return LinkError(
        "connection-lost",
        f"The connection to {host.text} broke.",
        where=host.text,
        why=str(error) if error and str(error) else None,
        try_=("Repeat the command: it goes on from what has arrived.", "Check the network and the device's power."),
    )


@asynccontextmanager
async def connect(host: Host) -> AsyncIterator[Remote]:
    """Open a connection, close it at the end.

    LinkError `host-not-found`, `connection-refused`, `host-unreachable`, `connection-lost`, `ssh-failed`; DeviceError
    `host-key-unknown`, `host-key-changed`, `key-refused`; UsageError `ssh-config-invalid`.
    """
    asyncssh = _asyncssh()

    class Client(asyncssh.SSHClient):  # type: ignore[misc, name-defined]
        refused: Any = None

        def validate_host_public_key(self, *arguments: Any) -> bool:
            """Remember the key, the last argument, for the message; never accept it."""
            self.refused = arguments[-1]
            return False

    client = Client()
    named = {"port": host.port, "username": host.user}
    named = {key: value for key, value in named.items() if value}
    try:
        # Again inside connect(); here for the messages, which name what the configuration made of the host.
        options = asyncssh.SSHClientConnectionOptions(host=host.name, **named)
        connection = await asyncssh.connect(
            host.name,
            **named,
            client_factory=lambda: client,
            connect_timeout=CONNECT_S,
            login_timeout=LOGIN_S,
            keepalive_interval=KEEPALIVE_S,
            preferred_auth="publickey",
        )
    except (asyncssh.ConfigParseError, asyncssh.KeyImportError) as error:
        raise UsageError("ssh-config-invalid", "The SSH configuration cannot be used.", why=str(error)) from error
    except asyncssh.HostKeyNotVerifiable as error:
        raise _host_key_refused(asyncssh, host, options, client.refused, error) from error
    except asyncssh.KeyExchangeFailed as error:
        raise _host_key_refused(asyncssh, host, options, None, error) from error
    except asyncssh.PermissionDenied as error:
        raise DeviceError(
            "key-refused",
            f"{host.text} accepts none of your SSH keys.",
            where=host.text,
            why=str(error),
            try_=(
                f"Install your public key there: ssh-copy-id {host.ssh_words}",
                "If the key has a passphrase, load it into the agent: ssh-add",
                "If you have no key yet: ssh-keygen -t ed25519",
            ),
        ) from error
    except (asyncssh.Error, OSError) as error:
        raise _unreachable(asyncssh, host, error) from error
    async with connection:
        yield Remote(connection, host)


def _unreachable(asyncssh: Any, host: Host, error: Exception) -> LinkError:
    ping = f"Check the name and the network: ssh {host.ssh_words} true"
    if isinstance(error, socket.gaierror):
        code, what, why = "host-not-found", f"There is no host named {host.name!r}.", str(error.strerror or error)
    elif isinstance(error, ConnectionRefusedError):
        code, what = "connection-refused", f"{host.text} is there, but no SSH server answers."
        why, ping = "The connection was refused.", "Enable SSH on the device: sudo systemctl enable --now ssh"
    elif isinstance(error, (TimeoutError, asyncio.TimeoutError, asyncssh.TimeoutError)):
        code, what, why = "host-unreachable", f"{host.text} does not answer.", "The connection timed out."
    elif isinstance(error, (asyncssh.ConnectionLost, ConnectionResetError, BrokenPipeError)):
        return connection_lost(host, error)
    elif isinstance(error, OSError):
        code, what, why = "host-unreachable", f"{host.text} cannot be reached.", error.strerror or str(error)
    else:
        code, what, why = "ssh-failed", f"No SSH session with {host.text}.", str(error)
    return LinkError(code, what, where=host.text, why=why, try_=ping)


def _host_key_refused(asyncssh: Any, host: Host, options: Any, key: Any, error: Exception) -> DeviceError:
    """`host-key-changed` if known_hosts holds another key of the host, else `host-key-unknown`."""
    files = options.known_hosts or ()
    name, port = options.host_key_alias or options.host or host.name, options.port or 22
    try:
        known = asyncssh.match_known_hosts(files or _default_known_hosts(), name, "", port)[0]
    except (OSError, ValueError):
        known = ()
    shown = "" if key is None else f"{key.get_algorithm()} {key.get_fingerprint()}"
    accept = f"ssh -o HostKeyAlgorithms={key.get_algorithm()} {host.ssh_words} true" if key else f"ssh {host.ssh_words}"
    show = "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"
    if not known:
        return DeviceError(
            "host-key-unknown",
            f"{host.text} is not in known_hosts, so it is not trusted.",
            where=host.text,
            why=f"Its key is {shown}." if shown else str(error),
            try_=(f"Compare with what the device itself shows: {show}", f"Then accept it: {accept}"),
        )
    stored = ", ".join(f"{k.get_algorithm()} {k.get_fingerprint()}" for k in known)
    target = name if port == 22 else f"[{name}]:{port}"
    return DeviceError(
        "host-key-changed",
        f"{host.text} shows another host key than the one in known_hosts: not connected.",
        where=host.text,
        why=f"It shows {shown or 'a key of another kind'}; known_hosts has {stored}.",
        try_=(
            f"If you reinstalled the device, compare with what it shows ({show}).",
            f"Then forget the old key and accept the new one: ssh-keygen -R '{target}' && {accept}",
            "If you did not: something else answers at this address.",
        ),
    )


def _default_known_hosts() -> str | bytes:
    from pathlib import Path

    path = Path.home() / ".ssh" / "known_hosts"
    return str(path) if path.is_file() else b""
