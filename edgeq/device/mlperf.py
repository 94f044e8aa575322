"""Firmware that speaks the MLPerf Tiny device protocol instead of EdgeQ's link: who answers at the other end."""

from __future__ import annotations

import re
import time

from edgeq.device.ports import Transport
from edgeq.errors import DeviceError, LinkError

_ANSWER_S = 15.0
_REPEAT_S = 1.0
_MODEL = re.compile(rb"m-model-\[(\w+)\]\r\n(?=.*m-ready\r\n)", re.DOTALL)


def expect_model(transport: Transport, model: str) -> None:
    """Ask for the profile until the device names its model. LinkError `no-answer`, DeviceError `wrong-model`."""
    deadline = time.monotonic() + _ANSWER_S
    heard = b""
    while time.monotonic() < deadline:
        transport.write(b"%profile%")  # the first % ends what may stand in the device's buffer
        repeat_at = time.monotonic() + _REPEAT_S
        while (remaining := repeat_at - time.monotonic()) > 0:
            heard = (heard + transport.read(remaining))[-4096:]
            found = _MODEL.search(heard)
            if found is None:
                continue
            name = found[1].decode("ascii")
            if name == model:
                return
            raise DeviceError(
                "wrong-model",
                f"The board runs {name}, not {model}.",
                where=transport.name,
                try_="Reset the board and flash it again.",
            )
    raise LinkError(
        "no-answer",
        f"The board at {transport.name} does not answer the MLPerf Tiny command `profile`.",
        where=transport.name,
        why=f"It said {len(heard)} other bytes in {_ANSWER_S:g} s."
        if heard
        else f"It said nothing in {_ANSWER_S:g} s.",
        try_=("Check the port (edgeq devices), press the board's reset button.", "Check the baud rate."),
    )
