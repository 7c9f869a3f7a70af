"""The statements of a block, one a line, and what is made of them. Comments go where their lines go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import libcst as cst

from .tree import Edits, Wrap


@dataclass(slots=True)
class Line:
    """*before*: the statement as it was read, a small one or a compound one. *now*: the line that it has become."""

    before: cst.CSTNode
    now: cst.BaseStatement


Moved = dict[cst.CSTNode, list[cst.BaseStatement]]


def changed_block(before: cst.IndentedBlock, now: cst.IndentedBlock, edits: Edits, moved: Moved) -> cst.IndentedBlock:
    """*now*, with what `edits` says of it. Lines that go elsewhere come into *moved*, by what they go before."""
    wraps = edits.wraps.get(before, [])
    known = {node for wrap in wraps for node in (wrap.first, wrap.last)} | edits.dropped | {*edits.moved}
    every = _lines(before.body, now.body, known)
    for line in every:
        if line.before in edits.moved:
            moved.setdefault(edits.moved[line.before], []).append(line.now)
    lines, left = _without([line for line in every if line.before not in edits.moved], edits.dropped)
    order = {line.before: index for index, line in enumerate(lines)}
    for wrap in sorted(wraps, key=lambda one: -order[one.first]):  # what begins later is within
        lines = _wrapped(lines, wrap, before.indent)
    if lines == [] or (not wraps and not known):
        return now
    return now.with_changes(body=[line.now for line in lines], footer=[*_indented(left), *now.footer])


def _lines(
    before: Sequence[cst.BaseStatement], now: Sequence[cst.BaseStatement], known: set[cst.CSTNode | None]
) -> list[Line]:
    """One line for each statement, where one of *known* shares its line with others."""
    found: list[Line] = []
    for old, new in zip(before, now, strict=True):
        if not isinstance(old, cst.SimpleStatementLine) or not isinstance(new, cst.SimpleStatementLine):
            found.append(Line(old, new))
        elif len(old.body) == 1 or not known.intersection(old.body):
            found.append(Line(old.body[0], new))
        else:
            found += [Line(small, line) for small, line in zip(old.body, _split(new), strict=True)]
    return found


def _split(line: cst.SimpleStatementLine) -> Iterable[cst.SimpleStatementLine]:
    last = len(line.body) - 1
    for index, small in enumerate(line.body):
        alone = small.with_changes(semicolon=cst.MaybeSentinel.DEFAULT)
        yield cst.SimpleStatementLine(
            [alone],
            leading_lines=line.leading_lines if index == 0 else [],
            trailing_whitespace=line.trailing_whitespace if index == last else cst.TrailingWhitespace(),
        )


def _without(lines: Sequence[Line], dropped: set[cst.CSTNode]) -> tuple[list[Line], list[cst.EmptyLine]]:
    """The lines that stay; comments of those that go stand before the next, or are left over."""
    kept: list[Line] = []
    waiting: list[cst.EmptyLine] = []
    for line in lines:
        if line.before in dropped:
            waiting += comments_of(line.now)
        else:
            kept.append(Line(line.before, _led_by(line.now, waiting)) if waiting else line)
            waiting = []
    return kept, waiting


def comments_of(line: cst.BaseStatement) -> list[cst.EmptyLine]:
    """The comments before a statement, and the one behind it, each on a line of its own."""
    found = [one for one in getattr(line, "leading_lines", ()) if one.comment is not None]
    behind = line.trailing_whitespace.comment if isinstance(line, cst.SimpleStatementLine) else None
    return found if behind is None else [*found, cst.EmptyLine(comment=behind)]


def _led_by(line: cst.BaseStatement, before: Sequence[cst.EmptyLine]) -> cst.BaseStatement:
    return line.with_changes(leading_lines=[*before, *getattr(line, "leading_lines", ())])


def _indented(lines: Sequence[cst.EmptyLine]) -> list[cst.EmptyLine]:
    return [line.with_changes(indent=True) for line in lines]


def _wrapped(lines: list[Line], wrap: Wrap, indent: str | None) -> list[Line]:
    order = {line.before: index for index, line in enumerate(lines)}
    first = order[wrap.first]
    last = order.get(wrap.last) if wrap.last is not None else len(lines)
    if last is None:  # it was wrapped with what is between
        return lines
    inner = [line.now for line in lines[first + 1 : last]]
    inner[0] = unspaced(inner[0])
    end = lines[last].now if wrap.last is not None else None
    opening = lines[first].now
    assert isinstance(opening, cst.SimpleStatementLine)
    built = wrap.build(opening, cst.IndentedBlock(inner, indent=indent), end)
    middle = [Line(built[index] if index else wrap.first, one) for index, one in enumerate(built)]
    return [*lines[:first], *middle, *lines[last + 1 :]]


def unspaced(line: cst.BaseStatement) -> cst.BaseStatement:
    """*line* without blank lines before it: it is the first of its block."""
    leading = list(getattr(line, "leading_lines", ()))
    while leading and leading[0].comment is None:
        leading.pop(0)
    return line.with_changes(leading_lines=leading)
