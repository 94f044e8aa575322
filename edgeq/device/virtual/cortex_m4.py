"""A Cortex-M4F board in Unicorn: flash, RAM, a UART, a counter of executed instructions, I2C, reset and faults.

    flash  0x00000000  1 MiB      UART   0x40000000  +0 DATA, +4 STATUS (bit 0: a byte waits)
    RAM    0x20000000  256 KiB    TIMER  0x40001000  +0 COUNT low (latches high), +4 high, +8 CONTROL (1 start, 0 stop)
    SCB    0xE000E000             POWER  0x40002000  +0 write 1: reset
                                  TWI    0x40003000  I2C master (twi.py)

COUNT is exact: all instructions executed after the store that started it and before the load that reads it, those
whose condition fails included. Unicorn reports whole blocks of code, so each access to the timer first interrupts the
emulation at its instruction, where the part of the block not executed is taken off, and is then executed anew.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import unicorn
from unicorn import arm_const as arm

from edgeq.device.virtual.twi import I2cDevice, Twi

FLASH_START, FLASH_BYTES = 0x00000000, 1 << 20
RAM_START, RAM_BYTES = 0x20000000, 256 << 10
_UART, _TIMER, _POWER, _TWI, _SYSTEM = 0x40000000, 0x40001000, 0x40002000, 0x40003000, 0xE000E000
_PAGE_BYTES = 0x1000
_COUNT_LOW, _COUNT_HIGH, _CONTROL = 0, 4, 8
_VTOR, _AIRCR, _CFSR, _BFAR = 0xD08, 0xD0C, 0xD28, 0xD38
_SYSRESETREQ = 0x05FA0004
_NEVER = 0xFFFFFFFE
"""An address that is not executed: emulation goes on until something stops it."""
_BUS_FAULT, _USAGE_FAULT = 5, 6
_RAM_AT_POWER_ON = b"\xa5"
_INITIAL_LR = 0xFFFFFFFF
_RETURN_TO_MAIN_STACK = 0xFFFFFFF9


class Line(Protocol):
    """What the UART is wired to."""

    def waits(self) -> bool:
        """Whether a byte waits; may block for a while, which halts the board without cost."""
        ...

    def receive(self) -> int:
        """The next byte; 0 if none waits."""
        ...

    def send(self, byte: int) -> None:
        """Send a byte."""
        ...


class Locked(RuntimeError):
    """The core is locked up: a fault inside a fault handler, or no vector table."""


class CortexM4:
    """The board with `segments` (address, bytes) in its flash; `run()` never returns by itself.

    i2c: devices on its bus by address.
    """

    def __init__(
        self, segments: list[tuple[int, bytes]], line: Line, i2c: Mapping[int, I2cDevice] | None = None
    ) -> None:
        self._line = line
        self._uc = uc = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
        uc.ctl_set_cpu_model(arm.UC_CPU_ARM_CORTEX_M4)
        uc.mem_map(FLASH_START, FLASH_BYTES, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        uc.mem_map(RAM_START, RAM_BYTES)
        for address, content in segments:
            if not FLASH_START <= address <= FLASH_START + FLASH_BYTES - len(content):
                raise ValueError(f"segment at {address:#010x} of {len(content)} bytes is not in the flash")
            uc.mem_write(address, content)
        uc.mem_write(RAM_START, _RAM_AT_POWER_ON * RAM_BYTES)
        self._device(_UART, self._read_uart, self._write_uart)
        self._device(_TIMER, self._read_timer, self._write_timer)
        self._device(_POWER, lambda _offset: 0, self._write_power)
        self._device(_SYSTEM, self._read_system, self._write_system)
        twi = Twi(i2c or {})
        self._device(_TWI, twi.read_register, twi.write_register)
        uc.hook_add(unicorn.UC_HOOK_MEM_INVALID, self._on_invalid_access)
        self._invalid_address = 0
        self._reset_wanted = False
        self._system: dict[int, int] = {}
        self._timer = _Timer(uc)

    def run(self) -> None:
        """Power on and execute. Locked if the core locks up."""
        pc = self._reset()
        while True:
            try:
                self._uc.emu_start(pc | 1, _NEVER)
            except unicorn.UcError as error:
                pc = self._enter_fault(error.errno)
                continue
            pc = self._uc.reg_read(arm.UC_ARM_REG_PC)
            if self._reset_wanted:
                pc = self._reset()
            elif self._timer.interrupted:
                self._timer.settle(pc)

    def _device(self, start: int, read: Callable[[int], int], write: Callable[[int, int], None]) -> None:
        def on_read(_uc: Any, offset: int, _size: int, _data: Any) -> int:
            return read(offset)

        def on_write(_uc: Any, offset: int, _size: int, value: int, _data: Any) -> None:
            write(offset, value)

        self._uc.mmio_map(start, _PAGE_BYTES, on_read, None, on_write, None)

    def _read_uart(self, offset: int) -> int:
        return int(self._line.waits()) if offset == 4 else self._line.receive()

    def _write_uart(self, offset: int, value: int) -> None:
        if offset == 0:
            self._line.send(value & 0xFF)

    def _read_timer(self, offset: int) -> int:
        return self._timer.read(offset)

    def _write_timer(self, offset: int, value: int) -> None:
        self._timer.write(offset, value)

    def _write_power(self, offset: int, value: int) -> None:
        if offset == 0 and value == 1:
            self._reset_wanted = True
            self._uc.emu_stop()

    def _read_system(self, offset: int) -> int:
        return self._system.get(offset, 0)

    def _write_system(self, offset: int, value: int) -> None:
        self._system[offset] = value
        if offset == _AIRCR and value == _SYSRESETREQ:
            self._write_power(0, 1)

    def _reset(self) -> int:
        """Registers as after a reset, RAM as it is; the address of the first instruction."""
        self._reset_wanted = False
        self._system = {}
        self._timer.stop()
        stack, entry = struct.unpack("<II", self._uc.mem_read(FLASH_START, 8))
        if not FLASH_START < entry < FLASH_START + FLASH_BYTES:
            raise Locked(f"the vector table names {entry:#010x} as the first instruction")
        for register in range(arm.UC_ARM_REG_R0, arm.UC_ARM_REG_R12 + 1):
            self._uc.reg_write(register, 0)
        self._uc.reg_write(arm.UC_ARM_REG_XPSR, 0x01000000)
        self._uc.reg_write(arm.UC_ARM_REG_LR, _INITIAL_LR)
        self._uc.reg_write(arm.UC_ARM_REG_SP, stack)
        return int(entry)

    def _on_invalid_access(self, _uc: Any, _access: int, address: int, _size: int, _value: int, _data: Any) -> bool:
        self._invalid_address = address
        return False

    def _enter_fault(self, error: int) -> int:
        """Take the exception as the core does (Armv7-M Architecture Reference Manual, B1.5.6); its handler's."""
        uc = self._uc
        if uc.reg_read(arm.UC_ARM_REG_IPSR):
            raise Locked(f"a fault inside the fault handler at {uc.reg_read(arm.UC_ARM_REG_PC):#010x}")
        if error in (unicorn.UC_ERR_FETCH_UNMAPPED, unicorn.UC_ERR_FETCH_PROT):
            exception, status = _BUS_FAULT, 1 << 8
        elif error in (unicorn.UC_ERR_INSN_INVALID, unicorn.UC_ERR_EXCEPTION):
            exception, status = _USAGE_FAULT, 1 << 16
        else:
            exception, status = _BUS_FAULT, 1 << 9 | 1 << 15
            self._system[_BFAR] = self._invalid_address
        self._system[_CFSR] = self._system.get(_CFSR, 0) | status
        saved = [arm.UC_ARM_REG_R0, arm.UC_ARM_REG_R1, arm.UC_ARM_REG_R2, arm.UC_ARM_REG_R3, arm.UC_ARM_REG_R12]
        saved += [arm.UC_ARM_REG_LR, arm.UC_ARM_REG_PC, arm.UC_ARM_REG_XPSR]
        frame = struct.pack("<8I", *(uc.reg_read(register) & 0xFFFFFFFF for register in saved))
        stack = (uc.reg_read(arm.UC_ARM_REG_SP) - len(frame)) & 0xFFFFFFF8
        if RAM_START <= stack <= RAM_START + RAM_BYTES - len(frame):
            uc.mem_write(stack, frame)
        uc.reg_write(arm.UC_ARM_REG_SP, stack)
        uc.reg_write(arm.UC_ARM_REG_LR, _RETURN_TO_MAIN_STACK)
        uc.reg_write(arm.UC_ARM_REG_XPSR, 0x01000000 | exception)
        table = self._system.get(_VTOR, FLASH_START)
        (handler,) = struct.unpack("<I", uc.mem_read(table + 4 * exception, 4))
        return int(handler)


class _Timer:
    """Counts instructions while CONTROL is 1; unhooked, the emulation is hundreds of times faster."""

    def __init__(self, uc: Any) -> None:
        self._uc = uc
        self._hook: int | None = None
        self._count = 0
        self._latched = 0
        self._block = (0, 0)
        self._sizes: dict[tuple[int, int], int] = {}
        self._wanted: bool | None = None
        self.interrupted = False
        self._settled = False

    def read(self, offset: int) -> int:
        if offset == _COUNT_HIGH:
            return self._latched >> 32
        if offset != _COUNT_LOW:
            return int(self._hook is not None)
        if self._hook is not None and not self._at_instruction(None):
            return 0
        self._latched = self._count if self._hook is None else self._count - self._instructions(*self._block)
        return self._latched & 0xFFFFFFFF

    def write(self, offset: int, value: int) -> None:
        if offset == _CONTROL and self._at_instruction(value == 1) and value == 1:
            self._count = self._instructions(*self._block) - 1

    def _at_instruction(self, wanted: bool | None) -> bool:
        """False the first time, when the emulation is interrupted; true when the instruction is executed anew."""
        if self._settled:
            self._settled = False
            return True
        self.interrupted, self._wanted = True, wanted
        self._uc.emu_stop()
        return False

    def settle(self, pc: int) -> None:
        """The emulation stands at `pc`, before the access: take off what its block has not executed."""
        if self._hook is not None:
            start, size = self._block
            self._count -= self._instructions(pc, start + size - pc)
        if self._wanted is True and self._hook is None:
            self._hook = self._uc.hook_add(unicorn.UC_HOOK_BLOCK, self._on_block)
            self._uc.ctl_flush_tb()
        elif self._wanted is False:
            self.stop()
        self.interrupted, self._settled = False, True

    def stop(self) -> None:
        self.interrupted = self._settled = False
        if self._hook is not None:
            self._uc.hook_del(self._hook)
            self._uc.ctl_flush_tb()
            self._hook = None

    def _on_block(self, _uc: Any, address: int, size: int, _data: Any) -> None:
        self._block = block = (address, size)
        count = self._sizes.get(block)
        self._count += self._instructions(address, size) if count is None else count

    def _instructions(self, address: int, size: int) -> int:
        """Thumb instructions in `size` bytes: one word if its upper five bits are 0b11101 or more, else half a word."""
        known = self._sizes.get((address, size))
        if known is None:
            halves = struct.unpack(f"<{size // 2}H", self._uc.mem_read(address, size))
            known = at = 0
            while at < len(halves):
                at += 2 if halves[at] >> 11 >= 0b11101 else 1
                known += 1
            self._sizes[address, size] = known
        return known
