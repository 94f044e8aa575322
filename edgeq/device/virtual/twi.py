"""The I2C master of the virtual board: the registers of Nordic's TWI, as the port's driver uses them, and its bus.

nRF51 Series Reference Manual 28: tasks and events, the shortcuts from a byte's boundary (BB) to SUSPEND and STOP, an
error where nothing acknowledges.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

_STARTRX, _STARTTX, _STOP, _RESUME = 0x000, 0x008, 0x014, 0x020
_STOPPED, _RXDREADY, _TXDSENT, _ERROR = 0x104, 0x108, 0x11C, 0x124
_SHORTS, _ERRORSRC, _ENABLE, _RXD, _TXD, _ADDRESS = 0x200, 0x4C4, 0x500, 0x518, 0x51C, 0x588
_BB_STOP, _ENABLED, _ADDRESS_NACK = 2, 5, 2


class I2cDevice(Protocol):
    """A device on the bus."""

    def write(self, data: bytes) -> None:
        """The bytes that the master sent between start and the next start or stop."""
        ...

    def read(self) -> int:
        """The next byte for the master."""
        ...


class Twi:
    """Without devices, or at an address that none has, the bus does not acknowledge."""

    def __init__(self, devices: Mapping[int, I2cDevice]) -> None:
        self._devices = devices
        self._registers: dict[int, int] = {}
        self._sent: bytearray | None = None

    def read_register(self, offset: int) -> int:
        return self._registers.get(offset, 0)

    def write_register(self, offset: int, value: int) -> None:
        if offset == _ERRORSRC:
            self._registers[offset] = self._registers.get(offset, 0) & ~value
            return
        self._registers[offset] = value
        if self._registers.get(_ENABLE) != _ENABLED:
            return
        if offset == _TXD and self._sent is not None:
            self._send(value & 0xFF)
        elif offset == _STARTTX:
            self._deliver()
            self._sent = bytearray()
        elif offset in (_STARTRX, _RESUME):
            self._deliver()
            self._receive()
        elif offset == _STOP:
            self._stop()

    def _device(self) -> I2cDevice | None:
        device = self._devices.get(self._registers.get(_ADDRESS, 0))
        if device is None:
            self._registers[_ERROR] = 1
            self._registers[_ERRORSRC] = _ADDRESS_NACK
        return device

    def _send(self, byte: int) -> None:
        if self._device() is not None and self._sent is not None:
            self._sent.append(byte)
            self._registers[_TXDSENT] = 1

    def _receive(self) -> None:
        device = self._device()
        if device is not None:
            self._registers[_RXD] = device.read()
            self._registers[_RXDREADY] = 1
            if self._registers.get(_SHORTS, 0) & _BB_STOP:
                self._stop()

    def _deliver(self) -> None:
        device = self._devices.get(self._registers.get(_ADDRESS, 0))
        if self._sent and device is not None:
            device.write(bytes(self._sent))
        self._sent = None

    def _stop(self) -> None:
        self._deliver()
        self._registers[_STOPPED] = 1
