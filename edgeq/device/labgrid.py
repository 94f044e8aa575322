"""Boards of a lab, reached through labgrid: its client as a process, from its own environment (it brings a fork of
pyserial that must not meet ours). `LG_COORDINATOR` names the coordinator, as for labgrid itself."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from edgeq.errors import DeviceError, ToolError

_CLIENT = "labgrid-client"
_CLIENT_S = 30
_RESOURCE = re.compile(r"^Acquired resource [^\n]*:\n((?:  [^\n]*\n?)+)", re.MULTILINE)
_SCHEMES = {"rfc2217": "rfc2217", "raw": "socket"}


@contextmanager
def acquired(place: str) -> Iterator[str]:
    """The URL of the serial port of `place`, which is ours until the end of the block.

    ToolError `labgrid-missing`; DeviceError `place-refused` (with labgrid's words), `place-without-port`.
    """
    _client(place, "acquire")
    try:
        yield _port(place, _client(place, "show"))
    finally:
        _client(place, "release")


def _client(place: str, command: str) -> str:
    path = shutil.which(_CLIENT)
    if path is None:
        raise ToolError(
            "labgrid-missing",
            f"--place needs {_CLIENT}, which is not on the PATH.",
            try_="pipx install labgrid   (in an environment of its own)",
        )
    try:
        done = subprocess.run(
            [path, "-p", place, command],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_CLIENT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _refused(place, command, str(error)) from error
    if done.returncode != 0:
        raise _refused(place, command, (done.stderr or done.stdout).strip()[-500:])
    return done.stdout


def _refused(place: str, command: str, why: str) -> DeviceError:
    return DeviceError(
        "place-refused",
        f"labgrid did not {command} the place {place}.",
        where=place,
        why=why,
        try_=("See who has it: labgrid-client who", "Name the coordinator: LG_COORDINATOR=HOST:PORT"),
    )


def _port(place: str, shown: str) -> str:
    """The one serial port among the place's resources, which `show` prints as Python literals."""
    ports = []
    for text in _RESOURCE.findall(shown):
        try:
            resource = ast.literal_eval(text.strip())
            parameters = resource["params"]
            scheme = _SCHEMES.get(parameters.get("protocol", "rfc2217"))
            if resource["cls"] == "NetworkSerialPort" and resource["avail"] and scheme is not None:
                ports.append(f"{scheme}://{parameters['host']}:{int(parameters['port'])}")
        except (ValueError, SyntaxError, KeyError, TypeError, AttributeError):
            continue
    if len(ports) == 1:
        return ports[0]
    raise DeviceError(
        "place-without-port",
        f"The place {place} has {len(ports)} serial ports that can be reached, not one.",
        where=place,
        why=", ".join(ports) or None,
        try_=f"See its resources: labgrid-client -p {place} show",
    )
