"""How a finding can be mended: which fix, where in the text, and whether that is safe.

A rule decides it, where all is known of the code; `fixes` carries it out, where the text is rewritten. In between it
is a line of JSON in the finding, so that it can be remembered with it.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass

from .source import Source

Place = tuple[int, int, int, int]  # line, column, end line, end column; lines from 1, columns from 0 in characters

_LINE_END = re.compile(r"\r\n?|\n")


@dataclass(frozen=True, slots=True)
class Remedy:
    """*fix* is the name of a file in `fixes`. *at*: the call that the finding is of, then what else the fix touches.

    Safe is what changes nothing where nothing fails: the same calls are made in the same order.

    :ivar form: which of a fix's forms. :ivar text: what it writes.
    """

    fix: str
    safe: bool
    at: tuple[Place, ...]
    form: str = ""
    text: str = ""

    def encoded(self) -> str:
        return json.dumps([self.fix, self.safe, self.at, self.form, self.text], separators=(",", ":"))


def decoded(text: str) -> Remedy | None:
    """The remedy of a finding; None if it has none."""
    if not text:
        return None
    fix, safe, at, form, written = json.loads(text)
    return Remedy(fix, safe, tuple((one[0], one[1], one[2], one[3]) for one in at), form, written)


def place(source: Source, node: ast.expr | ast.stmt) -> Place:
    """Where *node* is. Python's own columns are bytes of UTF-8."""
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    if source.text.isascii():
        return node.lineno, node.col_offset, node.end_lineno, node.end_col_offset
    lines = _LINE_END.split(source.text)
    return (
        node.lineno, _characters(lines[node.lineno - 1], node.col_offset),
        node.end_lineno, _characters(lines[node.end_lineno - 1], node.end_col_offset),
    )  # fmt: skip


def _characters(line: str, size: int) -> int:
    return len(line.encode()[:size].decode(errors="replace"))
