"""Comments that tell the audit to be silent: ``# penstock: ignore[PEN101] the pool is closed by the caller``.

One at a statement's first or last line is for the whole statement; one on a line of its own is for the statement after
it; any other is for its own line.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .finding import Finding
from .source import Unread

_COMMENT = re.compile(r"#\s*penstock:\s*ignore\b(?:\[(?P<codes>[^\]]*)\])?", re.IGNORECASE)
_BLANK = (tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT)


@dataclass(frozen=True, slots=True)
class Ignore:
    """*line*: where the comment is. *first*, *last*: the lines that it is for. *codes*: as written, families too."""

    line: int
    first: int
    last: int
    codes: tuple[str, ...]

    def covers(self, finding: Finding) -> bool:
        return self.first <= finding.line <= self.last and finding.code.startswith(self.codes or ("\0",))


def ignores(text: str) -> list[Ignore]:
    """The comments of a file."""
    if "penstock" not in text or not _COMMENT.search(text):
        return []
    found: list[Ignore] = []
    waiting: list[tokenize.TokenInfo] = []  # comments whose statement has not ended
    alone: list[tokenize.TokenInfo] = []  # comments whose statement has not begun
    first = 0
    for token in _tokens(text):
        if token.type == tokenize.COMMENT:
            if _COMMENT.search(token.string):
                (waiting if first else alone).append(token)
        elif token.type == tokenize.NEWLINE:
            found += [_ignore(one, first, token.start[0]) for one in waiting]
            found += [_ignore(one, first, token.start[0], above=True) for one in alone]
            waiting, alone, first = [], [], 0
        elif not first and token.type not in _BLANK:
            first = token.start[0]
    found += [_ignore(one, one.start[0], one.start[0]) for one in (*waiting, *alone)]
    return sorted(found, key=lambda one: one.line)


def _tokens(text: str) -> Iterable[tokenize.TokenInfo]:
    try:
        yield from tokenize.generate_tokens(io.StringIO(text).readline)
    except (tokenize.TokenError, SyntaxError):  # it parsed: all that is left out is the end
        return


def _ignore(token: tokenize.TokenInfo, first: int, last: int, above: bool = False) -> Ignore:
    line = token.start[0]
    if not above and line not in (first, last):
        first = last = line
    match = _COMMENT.search(token.string)
    assert match
    codes = (match["codes"] or "").replace(",", " ").upper().split()
    return Ignore(line, first, last, tuple(codes))


def suppress(
    findings: Sequence[Finding], comments: Sequence[Ignore], path: str, codes: Iterable[str], chosen: Iterable[str]
) -> tuple[list[Finding], list[Unread]]:
    """The findings that no comment is for, and what is wrong with the comments.

    :param codes: of all rules. :param chosen: of those that were asked for: a comment for another may be of use.
    """
    known, asked = tuple(codes), tuple(chosen)
    kept = [finding for finding in findings if not any(comment.covers(finding) for comment in comments)]
    notes = []
    for comment in comments:
        if not comment.codes:
            what = "`penstock: ignore` says nothing without a code: write which, as in ignore[PEN101], and why"
            notes.append(Unread(path, comment.line, what))
        for code in comment.codes:
            if not any(one.startswith(code) for one in known):
                notes.append(Unread(path, comment.line, f"ignore[{code}]: there is no such rule"))
            elif any(one.startswith(code) for one in asked) and not any(
                Ignore(comment.line, comment.first, comment.last, (code,)).covers(finding) for finding in findings
            ):
                notes.append(Unread(path, comment.line, f"ignore[{code}] ignores nothing: it can go"))
    return kept, notes
