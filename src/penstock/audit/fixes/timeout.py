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
    between = _between(call)
    if isinstance(last.comma, cst.Comma):  # it had one behind the last, and so has the new last
        before, after = _parted(last.comma.whitespace_after, between)
        argument = argument.with_changes(comma=last.comma.with_changes(whitespace_after=after))
    else:
        before, after = _parted(last.whitespace_after_arg, between)
        argument = argument.with_changes(whitespace_after_arg=after)
        last = last.with_changes(whitespace_after_arg=cst.SimpleWhitespace(""))
    last = last.with_changes(comma=cst.Comma(whitespace_after=before))
    return call.with_changes(args=[*others, last, argument])


def _between(call: cst.Call) -> cst.BaseParenthesizableWhitespace:
    """What stands between its arguments, without comments: what stands before the first, if that begins a line."""
    found = call.whitespace_before_args
    if len(call.args) > 1 and isinstance(comma := call.args[-2].comma, cst.Comma):
        found = comma.whitespace_after
    if isinstance(found, cst.ParenthesizedWhitespace):
        return _bare(found)
    return cst.SimpleWhitespace(" ")


def _parted(
    end: cst.BaseParenthesizableWhitespace, between: cst.BaseParenthesizableWhitespace
) -> tuple[cst.BaseParenthesizableWhitespace, cst.BaseParenthesizableWhitespace]:
    """What stood before the closing parenthesis, in two: comments stay behind the argument that they are of."""
    if not isinstance(end, cst.ParenthesizedWhitespace):
        return between, end
    if not isinstance(between, cst.ParenthesizedWhitespace):
        if end.first_line.comment is None and not end.empty_lines:
            return between, end
        between = cst.ParenthesizedWhitespace(indent=True, last_line=cst.SimpleWhitespace("    "))
    return between.with_changes(first_line=end.first_line, empty_lines=end.empty_lines), _bare(end)


def _bare(space: cst.ParenthesizedWhitespace) -> cst.ParenthesizedWhitespace:
    line = cst.TrailingWhitespace(newline=space.first_line.newline)
    return space.with_changes(first_line=line, empty_lines=[])
