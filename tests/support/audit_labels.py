"""The labels in ``tests/audit``: ``# expect: PEN101, PEN601`` on the line of the finding.

A first line ``# audit: pooling=transaction`` says what the file is audited with. Hints are looked at where one is
expected, and nowhere else.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from penstock.audit.audit import audit, sources
from penstock.audit.finding import Finding, Severity

_LABEL = re.compile(r"# expect: ([A-Z0-9, ]+)")
_POOLING = re.compile(r"# audit: pooling=(\w+)")

Labels = set[tuple[int, str]]


def expected(path: Path) -> Labels:
    """Line and code of each finding that *path* says it has."""
    return {
        (number, code.strip())
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (label := _LABEL.search(line))
        for code in label[1].split(",")
    }


@cache
def findings(path: Path) -> list[Finding]:
    pooling = _POOLING.match(path.read_text())
    return audit(sources(path.parent, [path]), pooling[1] if pooling else None).findings


def found(path: Path) -> Labels:
    """Line and code of each finding in *path*; hints are left out, unless they are expected."""
    wanted = expected(path)
    told = {(one.line, one.code): one for one in findings(path)}
    return {key for key, one in told.items() if one.severity is not Severity.HINT or key in wanted}
