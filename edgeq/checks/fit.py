"""Does it fit: flash and RAM of the generated C beside the agent, from the compile plan.

Constants, parameters and arena are the plan's own numbers; code is estimated by `code_size.py`; the agent's share is
that of images linked with a model of one operator.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgeq.boards.profile import Board
from edgeq.checks.code_size import agent_code_bytes, code_bytes
from edgeq.checks.findings import Finding, Use
from edgeq.codegen.plan import Plan
from edgeq.codegen.regions import STEP_RAM_BYTES, agent_ram_bytes
from edgeq.codegen.step import Step, Struct
from edgeq.measure import Computed, Estimated, Quantity

_PATCHES_RAM_BYTES = 128 * STEP_RAM_BYTES
"""What the steps of patches may add to the agent's RAM."""


def memory_of(plan: Plan, board: Board) -> tuple[Use, ...]:
    """Flash and RAM that the plan needs on a board with the agent; on the host, which has no limit, the arena only."""
    if not board.memory:
        arena = Computed(plan.arena_bytes, "bytes", "compile plan")
        return (Use("ram", arena, None, {"arena": arena}),)
    code, source = code_bytes(plan.steps, board.core.name)
    flash: dict[str, Quantity] = {
        "constants": Computed(plan.constants_bytes + _parameters(plan.steps), "bytes", "compile plan"),
        "code": Estimated(code, "bytes", source),
        "agent": Estimated(agent_code_bytes(board), "bytes", "agent and port, linked with a model of one operator"),
    }
    pieces = {f"arena in {region.name}": region.size_bytes for region in plan.regions}
    ram: dict[str, Quantity] = {
        **{
            name: Computed(size, "bytes", "compile plan")
            for name, size in (pieces or {"arena": plan.arena_bytes}).items()
        },
        "agent": Estimated(agent_ram_bytes(board, len(plan.steps)), "bytes", "agent's variables and frames"),
        "stack": Computed(board.stack_bytes, "bytes", "linker script"),
    }
    return (
        Use("flash", _sum(flash), board.regions("flash")[0].usable_bytes, flash),
        Use("ram", _sum(ram), _available(plan, board), ram),
    )


def _parameters(steps: tuple[Step, ...]) -> int:
    """Bytes of the kernels' parameter structures: 32-bit numbers."""
    structs = [constant for step in steps for constant in step.constants if isinstance(constant, Struct)]
    return sum(4 * (len(value) if isinstance(value, tuple) else 1) for s in structs for value in s.fields.values())


def memory_findings(uses: tuple[Use, ...], board: Board) -> Iterator[Finding]:
    """`flash-too-small`, `ram-too-small`, each with the bytes that are missing."""
    for use in uses:
        needed = int(use.needed.value) if isinstance(use.needed, (Computed, Estimated)) else 0
        if use.available_bytes is None or needed <= use.available_bytes:
            continue
        missing = needed - use.available_bytes
        if use.kind == "flash":
            sentence = "Code, constants and the agent must fit into the board's flash."
            remedy = "Take a smaller model (a lower width multiplier), or --optimize flash."
        else:
            sentence = "Stack and agent must fit into the board's first region of RAM, and the arena into it or others."
            left = use.available_bytes - _other_ram(use) - _PATCHES_RAM_BYTES
            patches = (
                f"Run the first layers patch by patch (edgeq bundle --ram {left}), or take" if left > 0 else "Take"
            )
            remedy = f"{patches} smaller inputs."
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


def _available(plan: Plan, board: Board) -> int:
    """Usable bytes of RAM: of the first region, where stack and agent lie, and of those that hold the arena."""
    used = {region.name for region in plan.regions}
    ram = board.regions("ram")
    return ram[0].usable_bytes + sum(region.usable_bytes for region in ram[1:] if region.name in used)
