"""One more argument: how long is waited."""

from __future__ import annotations

import libcst as cst

from ..remedy import Remedy
from .tree import Edits, Tree


def plan(remedy: Remedy, tree: Tree, edits: Edits) -> None:
    call = tree.call(remedy.at[0])
    edits.claim(call)
    word, _, value = remedy.text.partition("=")

    def told(call: cst.Call) -> cst.Call:
        return _told(call, word, value)

    edits.calls[call] = told


def _told(call: cst.Call, word: str, value: str) -> cst.Call:
    """*call* with ``word=value``, laid out as its other arguments are."""
    argument = cst.Arg(
        cst.parse_expression(value),
        keyword=cst.Name(word),
        equal=cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace("")),
    )
    if not call.args:
        return call.with_changes(args=[argument])
    *others, last = call.args
    between = others[-1].comma if others else cst.Comma(whitespace_after=_between(call))
    if isinstance(last.comma, cst.Comma):  # it had one behind the last, and so has the new last
        end = last.comma
        between = between if others else cst.Comma(whitespace_after=_between(call))
        argument = argument.with_changes(comma=end)
    else:
        argument = argument.with_changes(whitespace_after_arg=last.whitespace_after_arg)
        last = last.with_changes(whitespace_after_arg=cst.SimpleWhitespace(""))
    return call.with_changes(args=[*others, last.with_changes(comma=between), argument])


def _between(call: cst.Call) -> cst.BaseParenthesizableWhitespace:
    """What stands before the first argument stands before each, where that is a line's end."""
    before = call.whitespace_before_args
    return before if isinstance(before, cst.ParenthesizedWhitespace) else cst.SimpleWhitespace(" ")
