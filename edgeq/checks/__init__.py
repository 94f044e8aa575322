"""Graph x Board -> CheckReport: findings, placement, memory, speed."""

from edgeq.checks.check import check
from edgeq.checks.findings import CheckReport, Finding, Placement, Use, document

__all__ = ["CheckReport", "Finding", "Placement", "Use", "check", "document"]
