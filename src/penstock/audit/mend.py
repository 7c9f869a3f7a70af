"""A whole program mended: its files judged, rewritten in memory, judged again, until there is nothing left to mend.

Nothing is written before that. Then each file is written at one stroke, with its encoding, its line ends and its mode,
unless it has changed meanwhile.
"""

from __future__ import annotations

import difflib
import io
import os
import shutil
import tempfile
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from .check import Asked, Report, check
from .finding import Finding
from .fixes import ROUNDS, fix
from .program import module_name
from .source import Source, Unread, contents, parse


@dataclass(slots=True)
class Change:
    """A file that is to be other than it is. *applied*: what is mended in it."""

    path: Path
    shown: str
    before: bytes
    after: bytes
    applied: list[Finding] = field(default_factory=list)


@dataclass(slots=True)
class Mended:
    """*report*: what is wrong after the changes. *skipped*: what could have been mended, and was not, and why."""

    report: Report
    changes: list[Change] = field(default_factory=list)
    skipped: list[tuple[Finding, str]] = field(default_factory=list)


def mend(asked: Asked, unsafe: bool = False) -> Mended:
    """What the program would be with its findings mended: those that would be told, and no others.

    :param unsafe: by those fixes too that change what the program does where nothing fails.
    :raises ImportError: without LibCST, which comes with ``penstock[audit]``.
    :raises AuditError: as `check` does.
    """
    changes: dict[str, Change] = {}
    report = check(asked)
    for _ in range(ROUNDS):
        skipped: list[tuple[Finding, str]] = []
        found = _by_file(report.findings)
        mended = [_mended(report, path, findings, unsafe, changes, skipped) for path, findings in found]
        if not any(mended):
            break
        asked = replace(asked, instead={shown: change.after for shown, change in changes.items()})
        report = check(asked)
    return Mended(report, list(changes.values()), skipped)


def _by_file(findings: Sequence[Finding]) -> Iterator[tuple[str, list[Finding]]]:
    by_file: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.remedy:
            by_file.setdefault(finding.path, []).append(finding)
    yield from by_file.items()


def _mended(
    report: Report,
    shown: str,
    findings: list[Finding],
    unsafe: bool,
    changes: dict[str, Change],
    skipped: list[tuple[Finding, str]],
) -> bool:
    """Mend one file in memory; whether anything was."""
    file = report.texts.file(shown)
    data = file.contents()
    assert not isinstance(data, Unread)  # it has findings
    source, encoding = _as_written(data, shown)
    if source is None:
        skipped += [(finding, "it was changed while it was read") for finding in findings]
        return False
    fixed = fix(source, findings, unsafe)
    skipped += fixed.skipped
    if not fixed.applied:
        return False
    try:
        after = fixed.text.encode(encoding)
    except UnicodeEncodeError:
        skipped += [(finding, f"what is written has no place in {encoding}") for finding in fixed.applied]
        return False
    change = changes.setdefault(shown, Change(file.path, shown, data, after))
    change.after = after
    change.applied += fixed.applied
    return True


def _as_written(data: bytes, shown: str) -> tuple[Source | None, str]:
    """A file with its own line ends, and its encoding: that of one with a BOM writes it again."""
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    source = parse(data.decode(encoding), shown, module_name(shown))
    return (source if isinstance(source, Source) else None), encoding


def diff(change: Change) -> str:
    """The change as a patch, which `git apply` and `patch` take."""
    before, after = (_lines(data) for data in (change.before, change.after))
    lines = difflib.unified_diff(before, after, f"a/{change.shown}", f"b/{change.shown}")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _lines(data: bytes) -> list[str]:
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    return io.StringIO(data.decode(encoding.removesuffix("-sig")), newline="\n").readlines()


def write(change: Change) -> str:
    """Put the file in place of the one there; why not, if it cannot be.

    A link stays a link, and what it leads to is replaced. Whoever reads meanwhile has the old file or the new one.
    """
    path = Path(os.path.realpath(change.path))
    if contents(path, change.shown) != change.before:
        return "it has changed meanwhile: it was left as it is"
    name = ""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            name = file.name
            file.write(change.after)
        shutil.copystat(path, name)
        os.utime(name)
        os.replace(name, path)
    except OSError as error:
        if name and os.path.exists(name):
            os.unlink(name)
        return f"it could not be written: {error.strerror}"
    return ""
