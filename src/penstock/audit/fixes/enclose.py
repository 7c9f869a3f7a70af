"""`conn = connect()` ... `conn.close()`: whatever is raised in between, it is closed.

Where a `with` does the same as close(), or closing() can, it is one; else a try with a finally, into which the very
statement goes that ended it.
"""

from __future__ import annotations

import libcst as cst

from ..remedy import Remedy
from .lines import comments_of, unspaced
from .tree import Edits, Refused, Tree, Wrap


def plan(remedy: Remedy, tree: Tree, edits: Edits) -> None:
    call = tree.call(remedy.at[0])
    first = tree.around(call, cst.BaseSmallStatement)
    others = [tree.statement(place) for place in remedy.at[1:]]
    last = None if remedy.text else others.pop(0)
    block = tree.block(first)
    if last is not None and tree.block(last) is not block:
        raise Refused("what closes it stands in another block by now")
    if any(_crosses(tree, block, first, last, one) for one in edits.wraps.get(block, [])):
        raise Refused("another fix touches the same lines")
    for one in others:
        tree.block(one)
    edits.claim(first, *([] if last is None else [last]), *others)
    edits.dropped.update(others)
    build = _build_try if remedy.form == "finally" else _build_with

    def built(
        opening: cst.SimpleStatementLine, inner: cst.IndentedBlock, end: cst.BaseStatement | None
    ) -> list[cst.BaseStatement]:
        return build(remedy, tree, opening, inner, end)

    edits.wraps.setdefault(block, []).append(Wrap(first, last, built))
    if remedy.form == "closing":
        edits.imports.add("closing")


def _crosses(tree: Tree, block: cst.IndentedBlock, first: cst.CSTNode, last: cst.CSTNode | None, other: Wrap) -> bool:
    """Whether one of the two begins within the other and ends outside."""
    order = {node: index for index, node in enumerate(_statements(block))}
    end = len(order)
    mine = (order[first], end if last is None else order[last])
    theirs = (order[other.first], end if other.last is None else order[other.last])
    (_, early), (late, later) = sorted([mine, theirs])
    return late < early < later or (early == later == end)


def _statements(block: cst.IndentedBlock) -> list[cst.CSTNode]:
    found: list[cst.CSTNode] = []
    for one in block.body:
        found += one.body if isinstance(one, cst.SimpleStatementLine) else [one]
    return found


def _build_with(
    remedy: Remedy,
    tree: Tree,
    opening: cst.SimpleStatementLine,
    inner: cst.IndentedBlock,
    end: cst.BaseStatement | None,
) -> list[cst.BaseStatement]:
    assign = opening.body[0]
    assert isinstance(assign, cst.Assign)
    value, target = assign.value, assign.targets[0].target
    assert isinstance(target, cst.Name)
    if remedy.form == "closing":
        value = cst.Call(cst.Name("closing"), [cst.Arg(value)])
    elif remedy.form == "async with" and isinstance(value, cst.Await):
        value = value.expression
    left = [] if end is None else [line.with_changes(indent=True) for line in comments_of(end)]
    block = inner.with_changes(header=opening.trailing_whitespace, footer=left)
    return [
        cst.With(
            [cst.WithItem(value, cst.AsName(target))],
            block,
            asynchronous=cst.Asynchronous() if remedy.form == "async with" else None,
            leading_lines=opening.leading_lines,
        )
    ]


def _build_try(
    remedy: Remedy,
    tree: Tree,
    opening: cst.SimpleStatementLine,
    inner: cst.IndentedBlock,
    end: cst.BaseStatement | None,
) -> list[cst.BaseStatement]:
    ending = cst.parse_statement(remedy.text) if end is None else unspaced(end)
    last = cst.Finally(cst.IndentedBlock([ending], indent=inner.indent))
    return [opening, cst.Try(inner, finalbody=last)]
