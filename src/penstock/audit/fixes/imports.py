"""A name of contextlib's, imported where the file imports what it uses."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import libcst as cst

_STANDARD = sys.stdlib_module_names


def with_import(module: cst.Module, name: str) -> cst.Module:
    """*module*, with ``from contextlib import name``."""
    for index, line in enumerate(module.body):
        found = _from_contextlib(line)
        if found is None:
            continue
        if any(_is(alias, name) for alias in _aliases(found)):
            return module
        longer = line.deep_replace(found, _with_alias(found, name))
        assert isinstance(longer, cst.SimpleStatementLine)
        return module.with_changes(body=[*module.body[:index], longer, *module.body[index + 1 :]])
    return _inserted(module, name)


def _from_contextlib(line: cst.CSTNode) -> cst.ImportFrom | None:
    for small in line.body if isinstance(line, cst.SimpleStatementLine) else ():
        if (
            isinstance(small, cst.ImportFrom)
            and isinstance(small.module, cst.Name)
            and small.module.value == "contextlib"
            and not small.relative
            and not isinstance(small.names, cst.ImportStar)
        ):
            return small
    return None


def _aliases(line: cst.ImportFrom) -> Sequence[cst.ImportAlias]:
    assert not isinstance(line.names, cst.ImportStar)
    return line.names


def _is(alias: cst.ImportAlias, name: str) -> bool:
    return isinstance(alias.name, cst.Name) and alias.name.value == name and alias.asname is None


def _with_alias(line: cst.ImportFrom, name: str) -> cst.ImportFrom:
    """The new name stands before the first that sorts behind it; commas stay where they are."""
    aliases = list(_aliases(line))
    names = [alias.name.value if isinstance(alias.name, cst.Name) else "" for alias in aliases]
    at = next((index for index, one in enumerate(names) if one > name), len(aliases))
    if at < len(aliases):
        spaced = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
        comma = aliases[at].comma if at + 1 < len(aliases) else spaced
        aliases.insert(at, cst.ImportAlias(cst.Name(name), comma=comma))
    else:
        last = aliases[-1]
        before = aliases[-2].comma if len(aliases) > 1 else cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
        aliases[-1] = last.with_changes(comma=before)
        aliases.append(cst.ImportAlias(cst.Name(name), comma=last.comma))
    return line.with_changes(names=aliases)


def _inserted(module: cst.Module, name: str) -> cst.Module:
    """A line of its own, among the imports of the standard library, in the order that isort gives them."""
    line = cst.parse_statement(f"from contextlib import {name}")
    assert isinstance(line, cst.SimpleStatementLine)
    body: list[cst.SimpleStatementLine | cst.BaseCompoundStatement] = list(module.body)
    at = _first(body)
    group = _group(body, at)
    if not group:
        return _at(module, at, line, space=True)
    standard = [index for index in group if _root(body[index]) in _STANDARD]
    if not standard:
        return _at(module, group[0], line, space=True)
    behind = [index for index in standard if _key(body[index]) < _key(line)]
    if not behind:
        return _at(module, standard[0], line, space=False)
    body.insert(behind[-1] + 1, line)
    return module.with_changes(body=body)


def _at(module: cst.Module, at: int, line: cst.CSTNode, *, space: bool) -> cst.Module:
    """*line* as statement number *at*, and, for *space*, a blank line behind it.

    It takes over the comments and blank lines before the statement that was there: those are about what follows the
    docstring, whatever that is. Before a file's first statement LibCST has them elsewhere.
    """
    assert isinstance(line, cst.SimpleStatementLine)
    body = list(module.body)
    if at < len(body) and _is_import(body[at]):
        line = line.with_changes(leading_lines=getattr(body[at], "leading_lines", ()))
        body[at] = body[at].with_changes(leading_lines=[cst.EmptyLine(indent=False)] if space else [])
    elif at:
        line = line.with_changes(leading_lines=[cst.EmptyLine(indent=False)])
    body.insert(at, line)
    return module.with_changes(body=body)


def _first(body: Sequence[cst.CSTNode]) -> int:
    """The first statement after the docstring and what is imported from the future."""
    at = 0
    if body and isinstance(body[0], cst.SimpleStatementLine) and isinstance(body[0].body[0], cst.Expr):
        at = int(isinstance(body[0].body[0].value, (cst.SimpleString, cst.ConcatenatedString)))
    while at < len(body) and _root(body[at]) == "__future__":
        at += 1
    return at


def _group(body: Sequence[cst.CSTNode], at: int) -> list[int]:
    """The imports that follow one another without anything else between."""
    found = []
    while at < len(body) and _is_import(body[at]):
        found.append(at)
        at += 1
    return found


def _is_import(line: cst.CSTNode) -> bool:
    return isinstance(line, cst.SimpleStatementLine) and isinstance(line.body[0], (cst.Import, cst.ImportFrom))


def _root(line: cst.CSTNode) -> str:
    return _key(line)[1].partition(".")[0] if _is_import(line) else ""


def _key(line: cst.CSTNode) -> tuple[int, str]:
    """How it sorts: plain imports first."""
    assert isinstance(line, cst.SimpleStatementLine)
    small = line.body[0]
    if isinstance(small, cst.Import):
        return 0, _dotted(small.names[0].name)
    assert isinstance(small, cst.ImportFrom)
    return 1, "." if small.relative or small.module is None else _dotted(small.module)


def _dotted(name: cst.CSTNode) -> str:
    if isinstance(name, cst.Attribute):
        return f"{_dotted(name.value)}.{name.attr.value}"
    return name.value if isinstance(name, cst.Name) else ""
