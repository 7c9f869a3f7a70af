"""What people read: grouped by file, each finding with its line, and a sentence on what to do first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby

from ..check import Report
from ..finding import Confidence, Finding, Kind, Severity

Line = list[tuple[str, str]]  # its parts: text, and how it looks on a terminal

_LOOKS = {Severity.HIGH: "bold red", Severity.MEDIUM: "yellow", Severity.LOW: "cyan", Severity.HINT: "dim"}
_ORDER = list(Severity)
_WIDEST = 160  # characters of a line of source: more is of no help

# What each kind does to a service: those that empty a pool for good come first.
_WHY = {
    Kind.LEAK: "each time it happens a connection is gone, until the process is started anew",
    Kind.NESTED_CHECKOUT: "under load everybody waits there for a connection that everybody holds",
    Kind.POOL_UNBOUNDED: "nothing keeps it from taking every connection that the database has",
    Kind.ENGINE_IN_FUNCTION: "each call opens connections of its own, and nothing bounds how many",
    Kind.CONNECT_PER_REQUEST: "the database has as many connections as there are requests",
    Kind.CONNECT_IN_LOOP: "connecting costs more there than the work itself",
    Kind.POOL_BEFORE_FORK: "two processes talk over one socket, and read each other's answers",
    Kind.TRANSACTION_LEFT_OPEN: "its locks stay, and so does its snapshot, which keeps vacuum from its work",
    Kind.SESSION_STATE: "behind the pooler the next client has that connection, and what was set on it",
    Kind.HOLD_ACROSS_IO: "while that is slow nobody else has the connection",
    Kind.BLOCKING_IN_ASYNC: "while it waits no other task runs, nor gives its connection back",
    Kind.NO_TIMEOUT: "one that does not answer keeps its caller for ever, with all that it holds",
}


def render(report: Report) -> Iterator[Line]:
    """The report, line by line."""
    for path, findings in groupby(report.findings, lambda finding: finding.path):
        yield [(path, "bold")]
        for finding in findings:
            yield from _finding(report, finding)
        yield []
    yield _summary(report)
    first = _first(report)
    if first is not None:
        yield [(f"Begin with {first.path}:{first.line} ({first.code}): {_WHY[first.kind]}.", "")]
        yield [(f"`penstock audit explain {first.code}` says more.", "dim")]


def _finding(report: Report, finding: Finding) -> Iterator[Line]:
    sure = "" if finding.confidence is Confidence.HIGH else f", {finding.confidence.value} confidence"
    head = [
        (f"  {finding.line}:{finding.column}", "dim"),
        (f"  {finding.code} {finding.severity.value}{sure}", _LOOKS[finding.severity]),
    ]
    yield [*head, (f"  {finding.message}", ""), *([("  [fixable]", "dim")] if finding.fixable else [])]
    source = _printable(report.texts.line(finding.path, finding.line))
    if source.strip():
        number = str(finding.line)
        start = finding.column - 1
        end = finding.end_column - 1 if finding.end_line == finding.line else len(source.rstrip())
        shown = source.rstrip()[:_WIDEST]
        length = max(1, min(end, len(shown)) - start)
        yield [(f"    {number} | ", "dim"), (shown, "")]
        yield [(f"    {' ' * len(number)} | ", "dim"), (" " * start + "^" * length, _LOOKS[finding.severity])]


def _printable(line: str) -> str:
    """A tab is a space, so that the caret stands right; what would move a terminal's cursor is a question mark."""
    return "".join(char if char.isprintable() else " " if char == "\t" else "?" for char in line)


def _summary(report: Report) -> Line:
    count = len(report.counted)
    per = Counter(finding.severity for finding in report.counted)
    parts = [f"{per[severity]} {severity.value}" for severity in _ORDER if per[severity]]
    fixable = sum(finding.fixable for finding in report.findings)
    if fixable:
        parts.append(f"{fixable} fixable: penstock audit --fix")
    told = f"{_count(count, 'finding')} ({', '.join(parts)})" if count else "Nothing found"
    rest = [f" in {_count(report.files, 'file')}, {report.lines:,} lines"]
    rest += [f"; {report.old} known already"] if report.old else []
    rest += [f"; {report.suppressed} ignored by comments"] if report.suppressed else []
    shown = len(report.findings) - count
    rest += [f"; {_count(report.hints, 'hint')}{'' if shown else ' (--hints shows them)'}"] if report.hints else []
    rest += [f"; {report.gone} of the baseline are gone: write it anew"] if report.gone else []
    return [(told, "bold" if count else "green"), ("".join(rest) + ".", "")]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _first(report: Report) -> Finding | None:
    """The worst: by severity, then by what it does."""
    kinds = list(_WHY)
    return min(
        report.counted,
        key=lambda one: (_ORDER.index(one.severity), kinds.index(one.kind), one.path, one.line),
        default=None,
    )
