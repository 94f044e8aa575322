"""Does it fit: flash and RAM of the generated C beside the agent, from the compile plan.

Constants and arena are the plan's own numbers. Code and the agent's share depend on the compiler; they are estimated
from the plan's steps and the board's floors.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgeq.boards.profile import Board, Memory
from edgeq.checks.findings import Finding, Use
from edgeq.codegen.plan import Plan
from edgeq.measure import Computed, Estimated, Quantity

AGENT_FLASH_BYTES = 6 * 1024
AGENT_RAM_BYTES = 4 * 1024
"""What the device agent takes beside a model: its code, and its buffers, variables and stack."""


def memory_of(plan: Plan, board: Board) -> tuple[Use, ...]:
    """Flash and RAM that the plan needs on a board with the agent."""
    code = float(sum({step.kernel: step.code_bytes for step in plan.steps}.values()))
    flash: dict[str, Quantity] = {
        "constants": Computed(plan.constants_bytes, "bytes", "compile plan"),
        "code": Estimated(code, "bytes", "compile plan, code size of each kernel"),
        "agent": Estimated(AGENT_FLASH_BYTES, "bytes", "agent without a model"),
    }
    ram: dict[str, Quantity] = {
        "arena": Computed(plan.arena_bytes, "bytes", "compile plan"),
        "agent": Estimated(AGENT_RAM_BYTES, "bytes", "agent without a model, with its stack"),
    }
    return (
        Use("flash", _sum(flash), _available(board.regions("flash"), single=False), flash),
        Use("ram", _sum(ram), _available(board.regions("ram"), single=True), ram),
    )


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
            sentence = "The arena, the stack and the agent must fit into one region of the board's RAM."
            remedy = "Take smaller inputs, use --optimize ram, or split the first layers."
        yield Finding(
            rule=f"{use.kind}-too-small",
            severity="error",
            sentence=sentence,
            found=f"needs {needed:,} bytes, {board.id} has {use.available_bytes:,}: {missing:,} too many",
            remedy=remedy,
        )


def _sum(parts: dict[str, Quantity]) -> Quantity:
    values = [part.value for part in parts.values() if isinstance(part, (Computed, Estimated))]
    return Estimated(sum(values), "bytes", " + ".join(parts))


def _available(regions: tuple[Memory, ...], *, single: bool) -> int | None:
    """Usable bytes; RAM must be one region, since the arena is one array. None: not limited."""
    if not regions:
        return None
    sizes = [region.usable_bytes for region in regions]
    return max(sizes) if single else sum(sizes)
