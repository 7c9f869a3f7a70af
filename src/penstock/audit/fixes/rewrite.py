"""One walk through a file's tree, in which every fix makes its edit.

A fix is a file here with a function ``plan(remedy, tree, edits)``: it finds its nodes in the tree by their places, and
says in `Edits` what is to become of them, or raises `Refused`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import libcst as cst

from ..finding import Finding
from ..remedy import Remedy, decoded
from . import awaited, enclose, entered, hoisted, timeout
from .imports import with_import
from .lines import Moved, changed_block
from .tree import Edits, Refused, Tree

_FIXES: dict[str, Callable[[Remedy, Tree, Edits], None]] = {
    "awaited": awaited.plan,
    "enclose": enclose.plan,
    "entered": entered.plan,
    "hoisted": hoisted.plan,
    "timeout": timeout.plan,
}

Skipped = list[tuple[Finding, str]]


def rewrite(text: str, findings: Iterable[Finding]) -> tuple[str, list[Finding], Skipped]:
    """The text with *findings* mended; which were; which were not, and why."""
    wanted = list(findings)
    try:
        tree = Tree(text)
        edits = Edits()
        applied, skipped = _planned(wanted, tree, edits)
        if not applied:
            return text, [], skipped
        changed = tree.module.visit(_Writer(edits))
        for name in sorted(edits.imports):
            changed = with_import(changed, name)
        return changed.code, applied, skipped
    except (cst.ParserSyntaxError, RecursionError) as error:
        why = f"LibCST cannot read this file: {type(error).__name__}"
        return text, [], [(finding, why) for finding in wanted]


def _planned(findings: Iterable[Finding], tree: Tree, edits: Edits) -> tuple[list[Finding], Skipped]:
    applied: list[Finding] = []
    skipped: Skipped = []
    for finding in findings:
        remedy = decoded(finding.remedy)
        assert remedy is not None
        try:
            _FIXES[remedy.fix](remedy, tree, edits)
        except Refused as refused:
            skipped.append((finding, str(refused)))
        else:
            applied.append(finding)
    return applied, skipped


class _Writer(cst.CSTTransformer):
    def __init__(self, edits: Edits) -> None:
        super().__init__()
        self.edits = edits
        self.moved: Moved = {}

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:
        edit = self.edits.calls.get(original_node)
        return updated_node if edit is None else edit(updated_node)

    def leave_With(self, original_node: cst.With, updated_node: cst.With) -> cst.With:
        if not any(item in self.edits.items for item in original_node.items):
            return updated_node
        items: list[cst.WithItem] = []
        for before, now in zip(original_node.items, updated_node.items, strict=True):
            edit = self.edits.items.get(before)
            items += [now] if edit is None else edit(now)
        return updated_node.with_changes(items=items)

    def leave_IndentedBlock(self, original_node: cst.IndentedBlock, updated_node: cst.IndentedBlock) -> cst.BaseSuite:
        return changed_block(original_node, updated_node, self.edits, self.moved)

    def leave_Module(self, original_node: cst.Module, updated_node: cst.Module) -> cst.Module:
        body: list[cst.BaseStatement] = []
        for before, now in zip(original_node.body, updated_node.body, strict=True):
            moved = self.moved.get(before)
            body += [now] if moved is None else hoisted.moved_before(now, moved)
        return updated_node.with_changes(body=body)
