"""The board profile: what a `boards/<id>.toml` says, validated.

Sizes are bytes, clocks hertz, addresses integers. Every table that carries numbers has a `source`. The docstrings of
the tables and of their fields are the text of `boards/SCHEMA.md`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Source = Annotated[str, StringConstraints(strip_whitespace=True, min_length=3)]
"""Where the table's numbers come from: a document, a file of a public repository, a measurement."""

UsbId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{4}:[0-9a-f]{4}$")]

LINUX = ("aarch64", "armv7l")

_SMALL_RAM_BYTES, _MEDIUM_RAM_BYTES, _LARGE_RAM_BYTES = 32 << 10, 128 << 10, 256 << 10


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Core(_Table):
    """The processor that runs the model."""

    name: Annotated[str, Field(min_length=1)]
    """gcc's `-mcpu` name (`cortex-m4`)."""
    architecture: Literal[
        "armv6-m",
        "armv7-m",
        "armv7e-m",
        "armv8-m.main",
        "armv8.1-m.main",
        "rv32imc",
        "xtensa",
        "host",
        "aarch64",
        "armv7l",
    ]
    """Instruction set; `host` is whatever EdgeQ itself runs on."""
    features: tuple[Literal["dsp", "fpu-sp", "fpu-dp", "mve", "pie", "neon", "dotprod"], ...] = ()
    """Extensions that kernels may use."""
    count: Annotated[int, Field(ge=1, le=64)] = 1
    """Cores of this kind."""
    clock_hz: Annotated[int, Field(gt=0, le=10_000_000_000)] | None = None
    """Core clock the port sets; absent where the board is virtual and time means nothing."""
    flash_wait_states: Annotated[int, Field(ge=0, le=32)] | None = None
    """Wait states of the flash at `clock_hz`, before any cache; absent where unknown."""
    source: Source
    """Where these facts come from."""

    @model_validator(mode="after")
    def _features_exist(self) -> Self:
        allowed = {
            "armv6-m": set(),
            "armv7-m": set(),
            "armv7e-m": {"dsp", "fpu-sp", "fpu-dp"},
            "armv8-m.main": {"dsp", "fpu-sp", "fpu-dp"},
            "armv8.1-m.main": {"dsp", "fpu-sp", "fpu-dp", "mve"},
            "rv32imc": set(),
            "xtensa": {"fpu-sp", "pie"},
            "host": set(),
            "aarch64": {"neon", "dotprod"},
            "armv7l": {"neon"},
        }[self.architecture]
        for feature in self.features:
            if feature not in allowed:
                raise ValueError(f"features: {self.architecture} has no {feature!r} extension.")
        return self


class Memory(_Table):
    """One region of the address space."""

    name: Annotated[str, Field(min_length=1)]
    """The region's name in the data sheet."""
    kind: Literal["flash", "ram"]
    """`flash` holds code and constants, `ram` the arena, stack and variables."""
    start: Annotated[int, Field(ge=0, lt=2**32)]
    """First address."""
    size_bytes: Annotated[int, Field(gt=0, le=2**34)]
    """Bytes of the region."""
    reserved_bytes: Annotated[int, Field(ge=0)] = 0
    """What a boot loader, an operating system or firmware takes and a model cannot have."""
    speed: Literal["tightly-coupled", "fast", "slow"] = "fast"
    """`tightly-coupled`: one access a core cycle, without bus or cache; `slow`: behind a serial or external bus,
    or a bus that stalls the core."""
    source: Source
    """Where these facts come from."""

    @property
    def usable_bytes(self) -> int:
        """What is left of the region."""
        return self.size_bytes - self.reserved_bytes

    @model_validator(mode="after")
    def _reserve_fits(self) -> Self:
        if self.reserved_bytes >= self.size_bytes:
            raise ValueError("reserved_bytes: it leaves nothing of the region.")
        if self.start + self.size_bytes > 2**32 and self.start:
            raise ValueError("size_bytes: the region ends beyond the 32-bit address space.")
        return self


class GeneratedC(_Table):
    """EdgeQ's generated C."""

    kind: Literal["generated-c"]
    """This executor."""
    kernels: Annotated[tuple[Literal["portable", "scalar", "dsp", "mve"], ...], Field(min_length=1)]
    """Kernel families that may be chosen; `portable` is always among them; `scalar` is for Cortex-M0, M0+ and M3."""

    @model_validator(mode="after")
    def _portable(self) -> Self:
        if "portable" not in self.kernels:
            raise ValueError("kernels: the portable kernels are always present; list 'portable'.")
        return self


class LiteRt(_Table):
    """The LiteRT interpreter on Linux, with the XNNPACK delegate."""

    kind: Literal["litert-xnnpack"]
    """This executor."""
    package: Literal["ai-edge-litert", "tflite-runtime"]
    """The wheel that is installed on the board."""
    version: Annotated[str, Field(pattern=r"^\d+\.\d+(\.\d+)?$")]
    """The wheel's version."""
    source: Source
    """Where it is known that this wheel exists for the board."""


class EdgeTpu(_Table):
    """Google's Edge TPU; models are compiled by `edgetpu_compiler`."""

    kind: Literal["edge-tpu"]
    """This executor."""
    compiler: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    """Version of the compiler whose placement is predicted."""
    runtime_version: Annotated[int, Field(ge=1, le=14)]
    """Lowest runtime version that the compiled model may demand."""
    cache_bytes: Annotated[int, Field(gt=0, le=2**26)]
    """On-chip memory for parameters; the rest is streamed at every inference."""
    bus: Literal["usb2", "usb3", "pcie"]
    """How inputs, outputs and streamed parameters travel."""
    source: Source
    """Where these facts come from."""

    @property
    def compiler_major(self) -> int:
        """16 of 16.0.384591198."""
        return int(self.compiler.partition(".")[0])


class EthosU(_Table):
    """Arm's Ethos-U; models are compiled by Vela."""

    kind: Literal["ethos-u"]
    """This executor."""
    accelerator: Literal[
        "ethos-u55-32",
        "ethos-u55-64",
        "ethos-u55-128",
        "ethos-u55-256",
        "ethos-u65-256",
        "ethos-u65-512",
        "ethos-u85-128",
        "ethos-u85-256",
        "ethos-u85-512",
        "ethos-u85-1024",
        "ethos-u85-2048",
    ]
    """Vela's `--accelerator-config`."""
    system_config: str
    """Vela's `--system-config`: clock and bandwidths."""
    memory_mode: Literal["Sram_Only", "Shared_Sram", "Dedicated_Sram"]
    """Vela's `--memory-mode`: what lies in SRAM and what in flash."""
    source: Source
    """Where these facts come from."""


Executor = Annotated[GeneratedC | LiteRt | EdgeTpu | EthosU, Field(discriminator="kind")]


class Firmware(_Table):
    """How to build for it: the port under firmware/ports, and compilers' target flags."""

    port: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    """Directory under `firmware/ports`."""
    serial: Literal["uart", "usb"] = "uart"
    """The line to the agent, where the port has both; `usb` takes the first of `[link] usb_ids`."""
    gcc_prefix: str = "arm-none-eabi-"
    """Prefix of the cross compiler; empty for the host's own."""
    gcc_flags: tuple[str, ...] = ()
    """Target flags for gcc."""
    zig_flags: tuple[str, ...] = ()
    """Target flags for `zig cc`."""


class Virtual(_Table):
    """How to run it without hardware."""

    emulator: Literal["process", "unicorn", "qemu-system-arm", "qemu-system-riscv32"]
    """What executes the image."""
    machine: str | None = None
    """QEMU's `-machine`."""
    arguments: tuple[str, ...] = ()
    """Further arguments of the emulator."""

    @model_validator(mode="after")
    def _machine_named(self) -> Self:
        if self.emulator.startswith("qemu") != (self.machine is not None):
            raise ValueError("machine: QEMU needs a machine, and only QEMU does.")
        return self


class Flash(_Table):
    """How an image gets onto it."""

    method: Literal[
        "virtual", "uf2", "pyocd", "esptool", "stm32loader", "openocd", "dfu-util", "bossac", "teensy", "ssh", "none"
    ]
    """The tool; `none` where EdgeQ has no way yet."""
    target: str | None = None
    """The tool's own name for the chip."""
    usb_ids: tuple[UsbId, ...] = ()
    """Vendor and product id of the probe or boot loader."""


class Link(_Table):
    """The line to the agent."""

    kind: Literal["pty", "unix", "tcp", "serial", "ssh"]
    """The transport."""
    baud: Annotated[int, Field(ge=1200, le=12_000_000)] | None = None
    """Serial speed."""
    usb_ids: tuple[UsbId, ...] = ()
    """Vendor and product id of the serial port while the application runs."""


class Linux(_Table):
    """What identifies a board that runs Linux."""

    models: tuple[str, ...] = ()
    """Beginnings of `/proc/device-tree/model`; empty where that does not tell the board."""


class Board(_Table):
    """A board: identity, core, memory, what executes operators, how to build, flash, reach and emulate it."""

    format: Literal[1]
    """Version of this schema."""
    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{1,62}$")]
    """The name on the command line; equal to the file's name."""
    name: Annotated[str, Field(min_length=1)]
    """What it says on the box."""
    core: Core
    memory: tuple[Memory, ...] = ()
    """Regions, the preferred ones of a kind first; empty for the host, whose memory is not a limit."""
    executors: tuple[Executor, ...]
    """What executes operators, the preferred first; the last one takes what the others leave."""
    firmware: Firmware | None = None
    virtual: Virtual | None = None
    flash: Flash
    link: Link
    linux: Linux | None = None
    timer: Literal["instructions", "cycles", "microseconds"] = "cycles"
    """What the agent's timer counts on this board; instructions are counts, never a latency."""
    notes: str = ""
    """What a user should know."""

    def regions(self, kind: Literal["flash", "ram"]) -> tuple[Memory, ...]:
        """The memory regions of a kind, in the file's order."""
        return tuple(region for region in self.memory if region.kind == kind)

    @property
    def stack_bytes(self) -> int:
        """Stack that the firmware reserves."""
        return 2048 if self._ram_bytes < _SMALL_RAM_BYTES else 4096

    @property
    def payload_bytes(self) -> int:
        """Largest payload of the agent's frames.

        As much as the RAM can spare, enough on a large one that round trips hardly matter at 921,600 baud.
        """
        if self._ram_bytes < _SMALL_RAM_BYTES:
            return 512
        if self._ram_bytes < _MEDIUM_RAM_BYTES:
            return 1024
        return 2048 if self._ram_bytes < _LARGE_RAM_BYTES else 4096

    @property
    def _ram_bytes(self) -> int:
        """Of the region that the firmware uses, the first; a board without regions is not limited."""
        ram = self.regions("ram")
        return ram[0].usable_bytes if ram else _LARGE_RAM_BYTES

    def executor(self, kind: Literal["generated-c", "litert-xnnpack", "edge-tpu", "ethos-u"]) -> Executor | None:
        """The executor of that kind, or None if the board has none."""
        return next((executor for executor in self.executors if executor.kind == kind), None)

    @model_validator(mode="after")
    def _memory_is_sound(self) -> Self:
        for first, second in pairwise(sorted(self.memory, key=lambda region: region.start)):
            if first.start + first.size_bytes > second.start:
                raise ValueError(f"memory: the regions {first.name!r} and {second.name!r} overlap.")
        if self.executor("generated-c") and self.core.architecture != "host":
            kinds: tuple[Literal["flash", "ram"], ...] = ("flash", "ram")
            for kind in kinds:
                if not self.regions(kind):
                    raise ValueError(f"memory: generated C needs a region of kind {kind!r}.")
        return self

    @model_validator(mode="after")
    def _executors_fit_the_core(self) -> Self:
        kinds = [executor.kind for executor in self.executors]
        if not kinds:
            raise ValueError("executors: at least one is needed.")
        if len(set(kinds)) != len(kinds):
            raise ValueError("executors: the same kind is listed twice.")
        for executor in self.executors:
            if isinstance(executor, GeneratedC):
                for kernels in executor.kernels:
                    if kernels == "scalar" and self.core.architecture not in ("armv6-m", "armv7-m"):
                        raise ValueError("executors: 'scalar' kernels need an armv6-m or armv7-m core.")
                    if kernels in ("dsp", "mve") and kernels not in self.core.features:
                        raise ValueError(f"executors: {kernels!r} kernels need the core's feature {kernels!r}.")
        if "litert-xnnpack" in kinds and self.core.architecture not in LINUX:
            raise ValueError("executors: LiteRT needs a core that runs Linux (aarch64 or armv7l).")
        return self

    @model_validator(mode="after")
    def _tables_agree(self) -> Self:
        if (self.linux is not None) != (self.core.architecture in LINUX):
            raise ValueError("linux: boards with an aarch64 or armv7l core, and only those, have a [linux] table.")
        if (self.flash.method == "virtual") != (self.virtual is not None):
            raise ValueError("flash: method 'virtual' and a [virtual] table go together.")
        if self.link.kind == "serial" and self.link.baud is None:
            raise ValueError("link: a serial link needs `baud`.")
        return self
