"""SARIF 2.1.0, which GitHub's code scanning and others take: findings that stay the same when their lines move."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ... import __version__
from ..audit import RULES
from ..check import Report
from ..finding import Confidence, Finding, Rule, Severity
from ..pages import page
from ..source import Unread

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {Severity.HIGH: "error", Severity.MEDIUM: "warning", Severity.LOW: "note", Severity.HINT: "note"}
_PRECISION = {Confidence.HIGH: "very-high", Confidence.MEDIUM: "high", Confidence.LOW: "medium"}


def render(report: Report) -> str:
    """The report as one run."""
    rules = [RULES[code] for code in sorted(RULES)]
    places = {rule.code: index for index, rule in enumerate(rules)}
    driver = {"name": "penstock audit", "version": __version__, "rules": [_rule(rule) for rule in rules]}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {"ROOT": {"uri": Path.cwd().as_uri() + "/"}},
        "invocations": [
            {
                "executionSuccessful": not report.unread,
                "toolExecutionNotifications": [_notification(note) for note in report.notes],
            }
        ],
        "results": [
            _result(finding, places[finding.code], known.fingerprint)
            for finding, known in zip(report.findings, report.known, strict=True)
        ],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1)


def _rule(rule: Rule) -> dict[str, Any]:
    text = page(rule.code) or f"{rule.title}."
    return {
        "id": rule.code,
        "name": "".join(word.capitalize() for word in rule.kind.value.split("-")),
        "shortDescription": {"text": rule.title[:1].upper() + rule.title[1:]},
        "help": {"text": text, "markdown": text},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
        "properties": {"tags": [rule.kind.value], "problem.severity": _severity(rule.severity)},
    }


def _severity(severity: Severity) -> str:
    return {"error": "error", "warning": "warning"}.get(_LEVELS[severity], "recommendation")


def _result(finding: Finding, index: int, fingerprint: str) -> dict[str, Any]:
    region = {"startLine": finding.line, "startColumn": finding.column, "endLine": finding.end_line}
    if finding.end_column:
        region["endColumn"] = finding.end_column
    return {
        "ruleId": finding.code,
        "ruleIndex": index,
        "level": _LEVELS[finding.severity],
        "message": {"text": finding.message[:1].upper() + finding.message[1:] + "."},
        "locations": [{"physicalLocation": {"artifactLocation": _artifact(finding.path), "region": region}}],
        "partialFingerprints": {"penstock/v1": fingerprint},
        "properties": {
            "kind": finding.kind.value,
            "severity": finding.severity.value,
            "precision": _PRECISION[finding.confidence],
            "fixable": finding.fixable,
        },
    }


def _notification(note: Unread) -> dict[str, Any]:
    place: dict[str, Any] = {"artifactLocation": _artifact(note.path)}
    if note.line:
        place["region"] = {"startLine": note.line}
    return {"level": "note", "message": {"text": note.why}, "locations": [{"physicalLocation": place}]}


def _artifact(path: str) -> dict[str, str]:
    if Path(path).is_absolute():
        return {"uri": Path(path).as_uri()}
    return {"uri": quote(Path(path).as_posix(), errors="surrogateescape"), "uriBaseId": "ROOT"}
