"""Boards without hardware: the agent as a process, in Unicorn, in QEMU. `power_on` starts one from its ELF image."""

from edgeq.device.virtual.power import PoweredBoard, missing, power_on

__all__ = ["PoweredBoard", "missing", "power_on"]
