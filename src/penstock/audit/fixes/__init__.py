"""Fixes: the text of a file is rewritten where a finding says how it can be mended.

The text is read a second time for it, by LibCST, which keeps every blank and comment; no file is that is not fixed. All
fixes of a file are made in one walk of its tree. One that meets another in the same lines waits for the next round, in
which the new text is judged anew.
"""

from __future__ import annotations

import io
import tokenize
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ..finding import Finding
from ..remedy import decoded
from ..source import Source, Unread, parse

ROUNDS = 10  # one fix may bring the next one up; none has been seen to bring up more than three


@dataclass(slots=True)
class Fixed:
    """*text* as it is to be; *applied*, what was mended in it; *skipped*, what could not be, and why."""

    text: str
    applied: list[Finding] = field(default_factory=list)
    skipped: list[tuple[Finding, str]] = field(default_factory=list)


def is_safe(finding: Finding) -> bool:
    """Whether its fix changes nothing where nothing fails."""
    remedy = decoded(finding.remedy)
    return remedy is not None and remedy.safe


def fix(source: Source, findings: Iterable[Finding], unsafe: bool = False) -> Fixed:
    """Mend what can be mended of *findings*, which were made of this very text, in one round.

    :param unsafe: those fixes too that change what the program does where nothing fails.
    :raises ImportError: without LibCST, which comes with ``penstock[audit]``.
    """
    from .rewrite import rewrite

    wanted = [finding for finding in findings if finding.remedy and (unsafe or is_safe(finding))]
    if not wanted:
        return Fixed(source.text)
    text, applied, skipped = rewrite(source.text, wanted)
    if applied and (why := _broken(source.text, text)):
        return Fixed(source.text, [], [*skipped, *((finding, why) for finding in applied)])
    return Fixed(text, applied, skipped)


def settle(
    source: Source, findings: Iterable[Finding], judge: Callable[[Source], Iterable[Finding]], unsafe: bool = False
) -> Fixed:
    """Mend until nothing more can be: a second run finds nothing to do.

    :param judge: what is wrong with a new text of the file.
    """
    result = Fixed(source.text)
    for _ in range(ROUNDS):
        found = fix(source, findings, unsafe)
        result.text, result.skipped = found.text, found.skipped
        result.applied += found.applied
        if not found.applied:
            break
        again = parse(found.text, source.path, source.module)
        assert isinstance(again, Source)  # `fix` has seen to it
        source, findings = again, list(judge(again))
    return result


def _broken(before: str, after: str) -> str:
    """What would be wrong with *after*; empty if nothing is."""
    if isinstance(parse(after, "", ""), Unread):
        return "the result would not parse: the file was left as it is"
    if sorted(_comments(before)) != sorted(_comments(after)):
        return "a comment would be lost: the file was left as it is"
    return ""


def _comments(text: str) -> list[str]:
    tokens = tokenize.generate_tokens(io.StringIO(text, newline=None).readline)
    return [token.string for token in tokens if token.type == tokenize.COMMENT]


__all__ = ["Fixed", "fix", "is_safe", "settle"]
