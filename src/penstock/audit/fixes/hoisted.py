"""An engine that a function makes, whenever it is called: it is made once, before the function."""

from __future__ import annotations

from itertools import takewhile

import libcst as cst

from ..remedy import Remedy
from .tree import Edits, Tree


def plan(remedy: Remedy, tree: Tree, edits: Edits) -> None:
    call = tree.call(remedy.at[0])
    statement = tree.around(call, cst.BaseSmallStatement)
    top = tree.statement(remedy.at[1])
    tree.block(statement)
    edits.claim(call, statement)
    edits.moved[statement] = top


def moved_before(top: cst.BaseStatement, lines: list[cst.BaseStatement]) -> list[cst.BaseStatement]:
    """*lines*, with their comments, and *top* behind them; blank lines stand where they stood."""
    leading = getattr(top, "leading_lines", ())
    blank = list(takewhile(lambda one: one.comment is None, leading))
    kept = [_comments(line) for line in lines]
    kept[0] = [*blank, *kept[0]]
    moved = [line.with_changes(leading_lines=before) for line, before in zip(lines, kept, strict=True)]
    return [*moved, top if blank else top.with_changes(leading_lines=[*_TWO, *leading])]


_TWO = (cst.EmptyLine(indent=False), cst.EmptyLine(indent=False))


def _comments(line: cst.BaseStatement) -> list[cst.EmptyLine]:
    return [one for one in getattr(line, "leading_lines", ()) if one.comment is not None]
