"""`with psycopg2.connect() as conn`: its end commits, and leaves the connection open. closing() is put round it."""

from __future__ import annotations

import libcst as cst

from ..remedy import Remedy
from .tree import Edits, Tree


def plan(remedy: Remedy, tree: Tree, edits: Edits) -> None:
    item = tree.around(tree.call(remedy.at[0]), cst.WithItem)
    closed = [tree.statement(place) for place in remedy.at[1:]]
    for one in closed:
        tree.block(one)
    edits.claim(item, *closed)
    edits.items[item] = _closing
    edits.dropped.update(closed)
    edits.imports.add("closing")


def _closing(item: cst.WithItem) -> list[cst.WithItem]:
    """`connect() as conn` becomes `closing(connect()) as conn, conn`: closed last, after its transaction."""
    assert item.asname is not None
    name = item.asname.name
    assert isinstance(name, cst.Name)
    comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
    closing = item.with_changes(item=cst.Call(cst.Name("closing"), [cst.Arg(item.item)]), comma=comma)
    return [closing, cst.WithItem(cst.Name(name.value), comma=item.comma)]
