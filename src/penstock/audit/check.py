"""A whole question and its answer: which files, what is wrong there, and how much of that is to be told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import AuditError, Problem
from . import baseline, budgeted, cache, changed
from .audit import RULES
from .cache import Entry
from .files import Found, around, find
from .finding import Finding, Severity
from .run import run
from .settings import Settings
from .source import Unread, decode
from .suppress import suppress


@dataclass(slots=True)
class Asked:
    """What is to be audited, and how.

    :ivar stdin: the text to read in place of the only path, if it is that. :ivar since: a revision of git: what was
        wrong then is not told. :ivar cached: whether what was found before is used, and kept. :ivar jobs: processes;
        0 for as many as there are cores. :ivar instead: what files are taken to have, by their paths as they are told,
        in place of what the disk has.
    """

    paths: Sequence[Path]
    settings: Settings
    stdin: bytes | None = None
    baseline: Path | None = None
    since: str | None = None
    cached: bool = True
    jobs: int = 0
    instead: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class Report:
    """What is told.

    :ivar findings: in the order of the files, hints only if they were asked for. :ivar notes: what could not be read,
        and comments that are of no use. :ivar known: what fingerprints the findings have, one each. :ivar unread: how
        many files that were named themselves could not be read. :ivar old: findings left out as they were there before.
        :ivar gone: findings of the baseline that are no more. :ivar suppressed: findings left out by a comment.
        :ivar hints: hints that were found, told or not.
    """

    findings: list[Finding] = field(default_factory=list)
    notes: list[Unread] = field(default_factory=list)
    known: list[baseline.Known] = field(default_factory=list)
    files: int = 0
    lines: int = 0
    unread: int = 0
    old: int = 0
    gone: int = 0
    suppressed: int = 0
    hints: int = 0
    texts: Texts = field(default_factory=lambda: Texts(()))

    @property
    def counted(self) -> list[Finding]:
        """Those that make the audit fail: hints do not."""
        return [finding for finding in self.findings if finding.severity is not Severity.HINT]


class Texts:
    """The lines of files, read again when one is asked for: few have findings."""

    def __init__(self, files: Iterable[Found]) -> None:
        self._files = {file.shown: file for file in files}
        self._last: tuple[str, list[str]] = ("", [])

    def file(self, path: str) -> Found:
        return self._files[path]

    def line(self, path: str, number: int) -> str:
        if self._last[0] != path:
            self._last = (path, self._lines(path))
        lines = self._last[1]
        return lines[number - 1] if 0 < number <= len(lines) else ""

    def _lines(self, path: str) -> list[str]:
        data = self._files[path].contents() if path in self._files else b""
        try:
            return [] if isinstance(data, Unread) else decode(data).split("\n")
        except (SyntaxError, UnicodeError, LookupError):
            return []


def check(asked: Asked) -> Report:
    """Answer the question.

    :raises AuditError: when there is nothing at one of the paths, the baseline is none, or git does not know the
        revision.
    """
    notes: list[Unread] = []
    files = _files(asked, notes)
    folder = asked.settings.root / cache.FOLDER
    remembers = asked.cached and asked.stdin is None
    known = cache.load(folder) if remembers else {}
    beside = _beside(asked, files)
    found = run(files, beside, asked.settings.pooling, known, asked.jobs).entries
    if remembers and not beside:
        cache.save(folder, found, known)
    if asked.stdin is None and asked.since is None:
        _hold_against_budget(asked, files, found, notes)
    report = _told(asked.settings, files, found)
    report.notes = notes + report.notes
    if asked.since is not None:
        _leave_old(asked, report, files, known)
    if asked.baseline is not None:
        before = baseline.read(asked.baseline)
        _keep(report, *baseline.compare(report.findings, report.known, before))
    report.hints = sum(one.severity is Severity.HINT for one in report.findings)
    if not asked.settings.hints:
        told = [finding.severity is not Severity.HINT for finding in report.findings]
        report.known = [one for one, tell in zip(report.known, told, strict=True) if tell]
        report.findings = [one for one, tell in zip(report.findings, told, strict=True) if tell]
    return report


def _hold_against_budget(asked: Asked, files: list[Found], found: dict[str, Entry], notes: list[Unread]) -> None:
    """Add what is wrong with all files together, some of which are no Python."""
    for root in (path for path in asked.paths if path.is_dir()):
        broken = budgeted.over(root)
        if isinstance(broken, Unread):
            notes.append(broken)
            continue
        for finding in broken:
            if finding.path not in found:
                files.append(Found(Path(finding.path), finding.path))
                found[finding.path] = Entry("")
            entry = found[finding.path]
            found[finding.path] = replace(entry, findings=sorted({*entry.findings, finding}))


def _files(asked: Asked, notes: list[Unread]) -> list[Found]:
    if asked.stdin is not None:
        return [Found(Path("stdin.py"), "stdin.py", named=True, data=asked.instead.get("stdin.py", asked.stdin))]
    missing = [path for path in asked.paths if not path.exists()]
    if missing:
        raise AuditError(*(Problem(str(path), 0, "", "there is no such file or directory") for path in missing))
    found = find(asked.paths, asked.settings.exclude, asked.settings.root, notes.append)
    return [replace(file, data=asked.instead.get(file.shown)) for file in found] if asked.instead else found


def _beside(asked: Asked, files: Sequence[Found]) -> list[Found]:
    """The rest of the program that files belong to which are named themselves."""
    named = [file.path for file in files if file.named and asked.stdin is None]
    if not named:
        return []
    shown = {file.shown for file in files}
    rest = find(around(named), asked.settings.exclude, asked.settings.root, lambda note: None)
    return [file for file in rest if file.shown not in shown]


def _told(settings: Settings, files: Sequence[Found], entries: Mapping[str, Entry]) -> Report:
    report = Report(files=len(files), texts=Texts(files))
    chosen = settings.chosen()
    for file in files:
        entry = entries[file.shown]
        report.lines += entry.lines
        report.notes += entry.unread
        report.unread += bool(entry.unread) and file.named
        kept, notes = suppress(entry.findings, entry.ignores, file.shown, RULES, chosen)
        report.notes += notes
        report.suppressed += len(entry.findings) - len(kept)
        report.findings += settings.choose(kept, _seen_from(settings.root, file))
    report.known = baseline.fingerprints(
        report.findings,
        lambda finding: report.texts.line(finding.path, finding.line),
        {file.shown: _seen_from(settings.root, file) for file in files}.__getitem__,
    )
    return report


def _seen_from(root: Path, file: Found) -> str:
    whole = file.path.absolute()
    return (whole.relative_to(root) if whole.is_relative_to(root) else Path(file.shown)).as_posix()


def _leave_old(asked: Asked, report: Report, files: Sequence[Found], known: Mapping[str, Entry]) -> None:
    """Leave out what was wrong at the revision already, in the same program as it was then."""
    assert asked.since is not None
    then = changed.as_of(asked.since, files)
    before = _told(asked.settings, then, run(then, (), asked.settings.pooling, known, asked.jobs).entries)
    _keep(report, baseline.compare(report.findings, report.known, before.known)[0], 0)


def _keep(report: Report, findings: list[Finding], gone: int) -> None:
    kept = {id(finding) for finding in findings}
    report.known = [one for finding, one in zip(report.findings, report.known, strict=True) if id(finding) in kept]
    report.old += len(report.findings) - len(findings)
    report.gone += gone
    report.findings = findings
