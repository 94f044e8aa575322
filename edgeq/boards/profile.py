"""The board profile: what a `boards/<id>.toml` says, validated.

Sizes are bytes, clocks hertz, addresses integers. Every table that carries numbers has a `source`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Core(_Table):
    """The processor that runs the model."""

    name: str
    """gcc's `-mcpu` name (`cortex-m4`), or the Linux machine (`aarch64`, `x86_64`)."""
    architecture: Literal["armv6-m", "armv7-m", "armv7e-m", "armv8-m.main", "armv8.1-m.main", "rv32imc", "xtensa", "host", "aarch64", "armv7l"]
    features: tuple[Literal["dsp", "fpu-sp", "fpu-dp", "mve", "neon"], ...] = ()
    count: Annotated[int, Field(ge=1, le=64)] = 1
    clock_hz: Annotated[int, Field(gt=0, le=10_000_000_000)] | None = None
    """Core clock the port sets; absent where the board is virtual and time means nothing."""
    source: str


class Memory(_Table):
    """One region of the address space."""

    name: str
    kind: Literal["flash", "ram"]
    start: Annotated[int, Field(ge=0, lt=2**32)]
    size_bytes: Annotated[int, Field(gt=0, le=2**34)]
    reserved_bytes: Annotated[int, Field(ge=0)] = 0
    """What firmware, stack or a boot loader take and a model cannot have."""
    speed: Literal["fast", "slow"] = "fast"
    source: str


class Firmware(_Table):
    """How to build for it: the port under firmware/ports, and compilers' target flags."""

    port: str
    gcc_prefix: str = "arm-none-eabi-"
    gcc_flags: tuple[str, ...] = ()
    zig_flags: tuple[str, ...] = ()


class Virtual(_Table):
    """How to run it without hardware."""

    emulator: Literal["process", "unicorn", "qemu-system-arm", "qemu-system-riscv32"]
    machine: str | None = None
    arguments: tuple[str, ...] = ()


class Flash(_Table):
    """How an image gets onto it."""

    method: Literal["virtual", "uf2", "pyocd", "esptool", "stm32loader", "openocd", "dfu-util", "bossac", "ssh"]
    target: str | None = None
    usb_ids: tuple[str, ...] = ()


class Link(_Table):
    """The line to the agent."""

    kind: Literal["pty", "unix", "tcp", "serial", "ssh"]
    baud: Annotated[int, Field(ge=1200, le=12_000_000)] | None = None
    usb_ids: tuple[str, ...] = ()


class Board(_Table):
    """A board: identity, core, memory, what executes operators, how to build, flash, reach and emulate it."""

    format: Literal[1]
    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{1,62}$")]
    name: str
    core: Core
    memory: tuple[Memory, ...]
    executors: Annotated[tuple[Literal["generated-c", "litert-xnnpack", "edge-tpu", "ethos-u55"], ...], Field(min_length=1)]
    firmware: Firmware | None = None
    virtual: Virtual | None = None
    flash: Flash
    link: Link
    timer: Literal["instructions", "cycles", "microseconds"] = "cycles"
    """What the agent's timer counts on this board; instructions are counts, never a latency."""
    notes: str = ""
