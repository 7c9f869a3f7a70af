"""What the audit finds of what is wrong, and how much of what it says is so, on the collection in ``tests/audit``.

Each label there is a line and a rule, written down before the rule was mended. A finding where no label is counts as a
false alarm. Hints are left out, as they are by default.
"""

from __future__ import annotations

import re
from pathlib import Path

from bench.context import Context
from bench.report import Line, Result
from penstock.audit.audit import RULES, audit, sources
from penstock.audit.finding import Severity

CLAIM = "the audit against its own labelled collection, by kind"
BAR = "recall >= 0.85, precision >= 0.95; HTTP calls without a timeout: all"

COLLECTION = Path(__file__).resolve().parents[2] / "tests" / "audit"
_LABEL = re.compile(r"# expect: ([A-Z0-9, ]+)")
_POOLING = re.compile(r"# audit: pooling=(\w+)")

Place = tuple[str, int, str]


def run(ctx: Context) -> Result:
    expected, found = _expected(), _found()
    kinds = sorted({_kind(place) for place in expected | found})
    lines = [_line(kind, _of(expected, kind), _of(found, kind)) for kind in kinds]
    http = {place for place in expected if place[2] == "PEN401"}
    missed = http - found
    lines.append(
        Line("audit: HTTP calls without a timeout", f"{len(http - missed)} of {len(http)}", "", "", "all", not missed)
    )
    return [_line("all kinds", expected, found), *lines]


def _line(name: str, expected: set[Place], found: set[Place]) -> Line:
    right = len(expected & found)
    recall = right / len(expected) if expected else 1.0
    precision = right / len(found) if found else 1.0
    text = (
        f"recall {recall:.3f} ({right} of {len(expected)}), precision {precision:.3f} ({len(found - expected)} false)"
    )
    return Line(f"audit: {name}", text, "", "", ">= 0.85, >= 0.95", recall >= 0.85 and precision >= 0.95)


def _expected() -> set[Place]:
    """The labels; those of hints are left out."""
    return {
        (f"{path.parent.name}/{path.name}", number, code.strip())
        for path in _files()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (label := _LABEL.search(line))
        for code in label[1].split(",")
        if RULES[code.strip()].severity is not Severity.HINT
    }


def _found() -> set[Place]:
    return {
        (f"{path.parent.name}/{path.name}", one.line, one.code)
        for path in _files()
        for one in audit(sources(path.parent, [path]), _pooling(path)).findings
        if one.severity is not Severity.HINT
    }


def _pooling(path: Path) -> str | None:
    said = _POOLING.match(path.read_text())
    return said[1] if said else None


def _files() -> list[Path]:
    return sorted(COLLECTION.glob("*/*.py"))


def _kind(place: Place) -> str:
    return RULES[place[2]].kind.value


def _of(places: set[Place], kind: str) -> set[Place]:
    return {place for place in places if _kind(place) == kind}
