"""An engine that a function makes, whenever it is called: it is made once, before the function."""

from __future__ import annotations

import libcst as cst

from ..remedy import Remedy
from .tree import Edits, Refused, Tree


def plan(remedy: Remedy, tree: Tree, edits: Edits) -> None:
    call = tree.call(remedy.at[0])
    statement = tree.around(call, cst.BaseSmallStatement)
    line = tree.around(statement, cst.SimpleStatementLine)
    top = tree.statement(remedy.at[1])
    assert isinstance(line, cst.SimpleStatementLine)
    if tree.block(statement) is None or top not in tree.module.body:
        raise Refused("it does not stand in a function of the file's own level")
    edits.claim(call, statement)
    edits.dropped.add(statement)
    moved = cst.SimpleStatementLine([statement.with_changes(semicolon=cst.MaybeSentinel.DEFAULT)])  # type: ignore[list-item]
    edits.before.setdefault(top, []).append(moved)


def moved_before(top: cst.BaseStatement, statements: list[cst.SimpleStatementLine]) -> list[cst.BaseStatement]:
    """*top*, and *statements* before it, a blank line before the first."""
    first, *rest = statements
    return [first.with_changes(leading_lines=[cst.EmptyLine(indent=False)]), *rest, top]
