"""Graph x Board -> Bundle: lower, plan memory, pack weights, emit C."""

from edgeq.codegen.emit import Bundle, emit, with_file, write_bundle
from edgeq.codegen.fitting import Goal, goals, plan_within
from edgeq.codegen.plan import Plan, plan, unsupported
from edgeq.codegen.regions import spread
from edgeq.codegen.registry import supported_operators

__all__ = [
    "Bundle",
    "Goal",
    "Plan",
    "emit",
    "goals",
    "plan",
    "plan_within",
    "spread",
    "supported_operators",
    "unsupported",
    "with_file",
    "write_bundle",
]
