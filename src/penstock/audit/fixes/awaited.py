"""`conn.close()` where that makes a coroutine, and nothing more: it is awaited."""

from __future__ import annotations

import libcst as cst

from ..remedy import Remedy
from .tree import Edits, Tree


def plan(remedy: Remedy, tree: Tree, edits: Edits) -> None:
    calls = [tree.call(place) for place in remedy.at]
    edits.claim(*calls)
    for call in calls:
        edits.calls[call] = cst.Await
