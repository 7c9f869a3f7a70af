"""A list of objects, one a finding: what other programs read."""

from __future__ import annotations

import json

from ..check import Report
from ..finding import Finding


def render(report: Report) -> str:
    """The findings as JSON. Its keys stay what they are; there may be more of them one day."""
    return json.dumps([_object(finding) for finding in report.findings], indent=1, ensure_ascii=False)


def _object(finding: Finding) -> dict[str, object]:
    return {
        "path": finding.path,
        "line": finding.line,
        "end_line": finding.end_line,
        "code": finding.code,
        "kind": finding.kind.value,
        "severity": finding.severity.value,
        "confidence": finding.confidence.value,
        "message": finding.message,
        "fixable": finding.fixable,
    }
