"""A check's result for continuous integration: SARIF 2.1.0 and JUnit XML."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

from edgeq import __version__
from edgeq.checks.findings import CheckReport, Finding

_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 has no form for; names in a model's file may hold any."""

_LEVEL = {"error": "error", "warning": "warning", "note": "note"}


def sarif(reports: Sequence[CheckReport], model: str) -> bytes:
    """SARIF: one run, a rule for each id, a result for each finding, located by model file and operator."""
    findings = [(report, finding) for report in reports for finding in report.findings]
    rules = {finding.rule: finding for _, finding in findings}
    document = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "EdgeQ",
                        "version": __version__,
                        "rules": [
                            {"id": rule, "shortDescription": {"text": finding.sentence}}
                            for rule, finding in rules.items()
                        ],
                    }
                },
                "results": [_result(report, finding, model, list(rules)) for report, finding in findings],
            }
        ],
    }
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def _result(report: CheckReport, finding: Finding, model: str, rules: list[str]) -> dict[str, object]:
    text = f"{report.board}: {finding.sentence} Found: {finding.found}."
    if finding.remedy:
        text += f" {finding.remedy}"
    location: dict[str, object] = {"physicalLocation": {"artifactLocation": {"uri": _uri(model)}}}
    place = f"operator {finding.operator} {finding.name}" if finding.operator is not None else finding.tensor
    place = f"{place} (layer {finding.layer})" if finding.layer else place
    if place:
        location["logicalLocations"] = [{"fullyQualifiedName": place, "kind": "element"}]
    return {
        "ruleId": finding.rule,
        "ruleIndex": rules.index(finding.rule),
        "level": _LEVEL[finding.severity],
        "message": {"text": text},
        "locations": [location],
    }


def _uri(path: str) -> str:
    """A path as a URI reference: relative as it is, absolute as file:///..., what URIs do not allow escaped."""
    file = Path(path)
    return file.as_uri() if file.is_absolute() else quote(file.as_posix())


def junit(reports: Sequence[CheckReport], model: str) -> bytes:
    """JUnit: a test suite a board; a case for each rule with an error, and one for the verdict."""
    root = ElementTree.Element("testsuites", name=f"edgeq check {model}")
    for report in reports:
        errors: dict[str, list[Finding]] = {}
        for finding in report.of_severity("error"):
            errors.setdefault(finding.rule, []).append(finding)
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=report.board,
            tests=str(len(errors) + 1),
            failures=str(len(errors) + (not report.fits)),
        )
        verdict = ElementTree.SubElement(suite, "testcase", classname=f"edgeq.{report.board}", name="fits")
        if not report.fits:
            ElementTree.SubElement(verdict, "failure", message=f"{model} does not fit on {report.board}")
        for rule, findings in errors.items():
            case = ElementTree.SubElement(suite, "testcase", classname=f"edgeq.{report.board}", name=rule)
            failure = ElementTree.SubElement(case, "failure", message=findings[0].sentence)
            lines = (
                f"{'' if one.operator is None else f'operator {one.operator} {one.name}: '}{one.found}"
                for one in findings
            )
            failure.text = _NOT_XML.sub("?", "\n".join(lines))
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"
