"""What is known already: findings that stay found when lines move, and are not told again.

A finding is known by its code, its file, and the text of its line; of several that are the same in that, by which of
them it is.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ..errors import AuditError, Problem
from .finding import Finding

LineOf = Callable[[Finding], str]


@dataclass(frozen=True, slots=True)
class Known:
    """A finding of the baseline."""

    fingerprint: str
    code: str
    path: str
    text: str


def fingerprints(findings: Iterable[Finding], line_of: LineOf, path_of: Callable[[str], str]) -> list[Known]:
    """Of each of *findings*, by what it is known."""
    seen: Counter[tuple[str, str, str]] = Counter()
    found = []
    for finding in findings:
        alike = (finding.code, path_of(finding.path), " ".join(line_of(finding).split()))
        seen[alike] += 1
        whole = "\0".join((*alike, str(seen[alike])))
        digest = sha256(whole.encode(errors="surrogateescape")).hexdigest()[:32]
        found.append(Known(digest, *alike))
    return found


def read(path: Path) -> list[Known]:
    """The baseline in *path*.

    :raises AuditError: when it is none.
    """
    try:
        return [Known(**one) for one in json.loads(path.read_bytes())["known"]]
    except OSError as error:
        raise AuditError(Problem(str(path), 0, "", f"cannot be read: {error.strerror}")) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        what = "is no baseline of the audit: write it anew with --write-baseline"
        raise AuditError(Problem(str(path), 0, "", what)) from None


def write(path: Path, known: Sequence[Known]) -> None:
    """Make *known* the baseline.

    :raises AuditError: when the file cannot be written.
    """
    told = "Findings of `penstock audit` that were there already. They are not told again."
    listed = [
        {"fingerprint": one.fingerprint, "code": one.code, "path": one.path, "text": one.text}
        for one in sorted(known, key=lambda one: (one.path, one.code, one.text, one.fingerprint))
    ]
    try:
        path.write_text(json.dumps({"what": told, "known": listed}, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise AuditError(Problem(str(path), 0, "", f"cannot be written: {error.strerror}")) from None


def compare(findings: Sequence[Finding], ours: Sequence[Known], known: Sequence[Known]) -> tuple[list[Finding], int]:
    """The findings that are not *known*, and how many of those known are gone."""
    before = {one.fingerprint for one in known}
    new = [finding for finding, one in zip(findings, ours, strict=True) if one.fingerprint not in before]
    return new, len(before - {one.fingerprint for one in ours})
