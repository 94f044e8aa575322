"""The link to boards, real and virtual: `flash`, `connect`, `devices`."""

from edgeq.device.connection import connect
from edgeq.device.discover import DevicesReport, devices
from edgeq.device.flashing import FlashReport, flash
from edgeq.device.session import Session

__all__ = ["DevicesReport", "FlashReport", "Session", "connect", "devices", "flash"]
