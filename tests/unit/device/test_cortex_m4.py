"""The Unicorn board: exact counts against code counted by hand, reset, faults."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("unicorn", reason="needs the package unicorn (extra mcu)")

from edgeq.device.virtual.cortex_m4 import CortexM4, Locked


class ProgramLine:
    """Collects what a program sends; 0xFF from the board ends it."""

    def __init__(self, received: bytes = b"") -> None:
        self.sent = bytearray()
        self._received = list(received)

    def waits(self) -> bool:
        return bool(self._received)

    def receive(self) -> int:
        return self._received.pop(0) if self._received else 0

    def send(self, byte: int) -> None:
        self.sent.append(byte)


def assemble(tmp_path: Path, source: str) -> bytes:
    """The program's bytes at address 0, by an assembler that is not ours."""
    prefix = ".syntax unified\n.cpu cortex-m4\n.fpu fpv4-sp-d16\n.thumb\n.text\n"
    text, linked, binary = tmp_path / "a.s", tmp_path / "a.elf", tmp_path / "a.bin"
    text.write_text(prefix + source, encoding="utf-8")
    link = ["-nostdlib", "-Wl,-Ttext=0,-e,0"]
    subprocess.run(["arm-none-eabi-gcc", "-mcpu=cortex-m4", *link, str(text), "-o", str(linked)], check=True)
    subprocess.run(["arm-none-eabi-objcopy", "-O", "binary", str(linked), str(binary)], check=True)
    return binary.read_bytes()


HEAD = """
  .word 0x20010000
  .word start
  .word 0
  .word fault
  .word fault
  .word fault
  .word fault
  .align 4
.thumb_func
send_r7:                 @ four bytes of r7
  movs r6, #4
1: str r7, [r5]
  lsrs r7, #8
  subs r6, #1
  bne 1b
  bx lr
.thumb_func
finish:
  udf #0
.thumb_func
fault:
  mrs r7, ipsr
  ldr r5, =0x40000000
  bl send_r7
  ldr r7, =0xE000ED28
  ldr r7, [r7]
  bl send_r7
  ldr r7, =0xE000ED38
  ldr r7, [r7]
  bl send_r7
  ldr r7, [sp, #24]
  bl send_r7
  udf #1
.thumb_func
start:
  ldr r4, =0x40001000
  ldr r5, =0x40000000
  movs r3, #1
  movs r2, #0
"""

needs_assembler = pytest.mark.skipif(
    shutil.which("arm-none-eabi-gcc") is None, reason="needs arm-none-eabi-gcc to assemble"
)


def run(tmp_path: Path, body: str, received: bytes = b"") -> list[int]:
    """The words that the program sends until it locks up."""
    line = ProgramLine(received)
    program = assemble(tmp_path, HEAD + body + "\n  .ltorg\n")
    with pytest.raises(Locked):
        CortexM4([(0, program)], line).run()
    return list(struct.unpack(f"<{len(line.sent) // 4}I", line.sent))


def counted(tmp_path: Path, body: str) -> int:
    """What COUNT says of the instructions between its start and its reading."""
    words = run(tmp_path, f"  str r3, [r4, #8]\n{body}\n  ldr r7, [r4]\n  str r2, [r4, #8]\n  bl send_r7\n  b finish\n")
    return words[0]


@needs_assembler
@pytest.mark.parametrize(
    ("body", "instructions"),
    [
        ("", 0),
        ("nop", 1),
        ("nop\n nop.w\n nop", 3),
        ("b 2f\n nop\n2: nop", 2),
        ("movs r0, #10\n2: subs r0, #1\n bne 2b", 1 + 2 * 10),
        ("movs r0, #10\n2: nop.w\n tst r0, #1\n it eq\n addeq r1, #1\n subs r0, #1\n bne 2b", 1 + 6 * 10),
        ("ldr r0, [r4]\n nop\n nop", 3),
        ("movs r0, #3\n2: ldr r1, [r4]\n ldr r1, [r4, #4]\n subs r0, #1\n bne 2b", 1 + 4 * 3),
        ("str r2, [r5, #8]\n nop", 2),
        ("ldr r0, [r5, #4]\n ldr r0, [r5]\n nop", 3),
        ("bl 3f\n b 4f\n3: vmov.f32 s0, #1.0\n vadd.f32 s0, s0, s0\n bx lr\n4: nop", 6),
        ("cmp r2, r2\n itt eq\n ldreq r0, [r4]\n addeq r1, #1\n ite ne\n ldrne r0, [r4]\n moveq r1, #1", 7),
    ],
)
def test_count_is_the_number_of_instructions(tmp_path: Path, body: str, instructions: int) -> None:
    assert counted(tmp_path, body) == instructions


@needs_assembler
def test_count_stands_after_stop_and_starts_again_from_zero(tmp_path: Path) -> None:
    body = """
  str r3, [r4, #8]
  nop
  nop
  str r2, [r4, #8]
  nop
  ldr r7, [r4]
  bl send_r7
  nop
  str r3, [r4, #8]
  nop
  ldr r7, [r4]
  str r2, [r4, #8]
  bl send_r7
  b finish
"""
    words = run(tmp_path, body)
    assert words[:2] == [2, 1]


@needs_assembler
def test_bytes_arrive_in_order_and_nothing_reads_as_zero(tmp_path: Path) -> None:
    echo = "  ldr r7, [r5]\n  str r7, [r5]\n"
    words = run(tmp_path, echo * 4 + "  b finish\n", received=b"\x07\x80\xff")
    assert words[0] == 0x00FF8007


@needs_assembler
def test_data_access_to_nowhere_is_a_bus_fault_with_its_address(tmp_path: Path) -> None:
    exception, status, address, pc = run(tmp_path, "  ldr r0, =0x90000004\n  nop\n  ldr r1, [r0]\n  nop\n")
    assert exception & 0x1FF == 5
    assert status == 1 << 9 | 1 << 15
    assert address == 0x90000004
    program = assemble(tmp_path, HEAD + "  ldr r0, =0x90000004\n  nop\n  ldr r1, [r0]\n  nop\n  .ltorg\n")
    assert program[pc : pc + 2] == struct.pack("<H", 0x6801)  # ldr r1, [r0]


@needs_assembler
def test_undefined_instruction_is_a_usage_fault(tmp_path: Path) -> None:
    exception, status, *_ = run(tmp_path, "  nop\n  udf #7\n")
    assert exception & 0x1FF == 6
    assert status == 1 << 16


@needs_assembler
def test_reset_keeps_ram_and_restarts(tmp_path: Path) -> None:
    body = """
  ldr r0, =0x20000100
  ldr r7, [r0]
  bl send_r7
  ldr r0, =0x20000100
  ldr r7, [r0]
  ldr r6, =0x11111111
  cmp r7, r6
  beq finish
  str r6, [r0]
  ldr r0, =0x40002000
  str r3, [r0]
  b .
"""
    assert run(tmp_path, body)[:2] == [0xA5A5A5A5, 0x11111111]


def test_an_empty_flash_locks_up() -> None:
    with pytest.raises(Locked, match="vector table"):
        CortexM4([], ProgramLine()).run()


def test_an_image_outside_of_the_flash_is_refused() -> None:
    with pytest.raises(ValueError, match="not in the flash"):
        CortexM4([(0x20000000, b"code")], ProgramLine())
