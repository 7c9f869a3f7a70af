"""Workflow commands, which GitHub Actions shows on the lines that they are about."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..check import Report
from ..finding import Severity

_LEVELS = {
    Severity.HIGH: "error", Severity.MEDIUM: "warning", Severity.LOW: "warning", Severity.HINT: "notice",
}  # fmt: skip


def render(report: Report) -> Iterator[str]:
    """A command for each finding, and for each file that could not be read."""
    for finding in report.findings:
        place = {"line": finding.line, "endLine": finding.end_line, "col": finding.column}
        if finding.end_line == finding.line and finding.end_column > finding.column:
            place["endColumn"] = finding.end_column
        yield command(_LEVELS[finding.severity], finding.path, f"penstock audit {finding.code}", finding.message, place)
    for note in report.notes:
        yield command("notice", note.path, "penstock audit", note.why, {"line": note.line} if note.line else {})


def command(level: str, path: str, title: str, message: str, place: dict[str, int]) -> str:
    """*message* on a file, as the runner reads it."""
    where = "".join(f",{name}={value}" for name, value in place.items())
    return f"::{level} file={_escaped(_in_repository(path))}{where},title={_escaped(title)}::{_data(message)}"


def _in_repository(path: str) -> str:
    """GitHub knows files by their path from the repository's root."""
    root = os.environ.get("GITHUB_WORKSPACE")
    whole = Path.cwd() / path
    return str(whole.relative_to(root)) if root and whole.is_relative_to(root) else path


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escaped(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
