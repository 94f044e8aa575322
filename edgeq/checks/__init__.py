"""Graph x Board -> CheckReport: findings, placement, memory, speed."""

from edgeq.checks.budget import apply_budget, parse_budget
from edgeq.checks.check import Plans, check
from edgeq.checks.difference import Difference, difference
from edgeq.checks.findings import CheckReport, Finding, Placement, Use, document
from edgeq.checks.fix import Fixed, approximate, fix

__all__ = [
    "CheckReport",
    "Difference",
    "Finding",
    "Fixed",
    "Placement",
    "Plans",
    "Use",
    "apply_budget",
    "approximate",
    "check",
    "difference",
    "document",
    "fix",
    "parse_budget",
]
