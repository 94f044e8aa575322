"""Does it fit: flash and RAM of the generated C beside the agent, from the compile plan.

Constants, parameters and arena are the plan's own numbers; code is estimated by `code_size.py`; the agent's share is
that of images linked without a model.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgeq.boards.profile import Board, Memory
from edgeq.checks.code_size import code_bytes
from edgeq.checks.findings import Finding, Use
from edgeq.codegen.plan import Plan
from edgeq.codegen.step import Step, Struct
from edgeq.measure import Computed, Estimated, Quantity

AGENT_CODE_BYTES, AGENT_CODE_BYTES_ARMV6M = 5_800, 7_350
"""Agent, port, startup and their constants, linked by gcc for Cortex-M3, M4 and M55: 5,740 to 5,810; for M0+ with what
it needs of libgcc."""
AGENT_RAM_BYTES = 1_120
"""The agent's variables without its frame buffers."""
STEP_RAM_BYTES = 8
"""The agent's tick counter of each step."""
_PATCHES_RAM_BYTES = 128 * STEP_RAM_BYTES
"""What the steps of patches may add to that."""


def memory_of(plan: Plan, board: Board) -> tuple[Use, ...]:
    """Flash and RAM that the plan needs on a board with the agent; on the host, which has no limit, the arena only."""
    if not board.memory:
        arena = Computed(plan.arena_bytes, "bytes", "compile plan")
        return (Use("ram", arena, None, {"arena": arena}),)
    agent = AGENT_CODE_BYTES_ARMV6M if board.core.architecture == "armv6-m" else AGENT_CODE_BYTES
    code, source = code_bytes(plan.steps, board.core.name)
    flash: dict[str, Quantity] = {
        "constants": Computed(plan.constants_bytes + _parameters(plan.steps), "bytes", "compile plan"),
        "code": Estimated(code, "bytes", source),
        "agent": Estimated(agent, "bytes", "agent linked without a model"),
    }
    ram: dict[str, Quantity] = {
        "arena": Computed(plan.arena_bytes, "bytes", "compile plan"),
        "agent": Estimated(_agent_ram(plan, board), "bytes", "agent's variables and frames"),
        "stack": Computed(board.stack_bytes, "bytes", "linker script"),
    }
    return (
        Use("flash", _sum(flash), _available(board, "flash"), flash),
        Use("ram", _sum(ram), _available(board, "ram"), ram),
    )


def _parameters(steps: tuple[Step, ...]) -> int:
    """Bytes of the kernels' parameter structures: 32-bit numbers."""
    structs = [constant for step in steps for constant in step.constants if isinstance(constant, Struct)]
    return sum(4 * (len(value) if isinstance(value, tuple) else 1) for s in structs for value in s.fields.values())


def _agent_ram(plan: Plan, board: Board) -> int:
    return AGENT_RAM_BYTES + board.payload_bytes + STEP_RAM_BYTES * len(plan.steps)


def memory_findings(uses: tuple[Use, ...], board: Board) -> Iterator[Finding]:
    """`flash-too-small`, `ram-too-small`, each with the bytes that are missing; `ram-elsewhere` as a warning."""
    for use in uses:
        needed = int(use.needed.value) if isinstance(use.needed, (Computed, Estimated)) else 0
        if use.available_bytes is None or needed <= use.available_bytes:
            continue
        missing = needed - use.available_bytes
        if use.kind == "flash":
            sentence = "Code, constants and the agent must fit into the board's flash."
            remedy = "Take a smaller model (a lower width multiplier), or --optimize flash."
        else:
            sentence = "The arena, the stack and the agent must fit into the board's first region of RAM."
            left = use.available_bytes - _other_ram(use) - _PATCHES_RAM_BYTES
            patches = (
                f"Run the first layers patch by patch (edgeq bundle --ram {left}), or take" if left > 0 else "Take"
            )
            remedy = f"{patches} smaller inputs."
            larger = [region for region in board.regions("ram")[1:] if region.usable_bytes >= needed]
            if larger:
                remedy = f"Put {larger[0].name} first in a board file of your own: it is large enough."
        yield Finding(
            rule=f"{use.kind}-too-small",
            severity="error",
            sentence=sentence,
            found=f"needs {needed:,} bytes, {board.id} has {use.available_bytes:,}: {missing:,} too many",
            remedy=remedy,
        )


def _other_ram(use: Use) -> int:
    """RAM beside the arena."""
    others = (part for name, part in use.parts.items() if name != "arena")
    return sum(int(part.value) for part in others if isinstance(part, (Computed, Estimated)))


def _sum(parts: dict[str, Quantity]) -> Quantity:
    values = [part.value for part in parts.values() if isinstance(part, (Computed, Estimated))]
    return Estimated(sum(values), "bytes", " + ".join(parts))


def _available(board: Board, kind: str) -> int | None:
    """Usable bytes of the first region, which the toolchain uses; None where memory is not limited."""
    regions: tuple[Memory, ...] = board.regions("flash" if kind == "flash" else "ram")
    return regions[0].usable_bytes if regions else None
