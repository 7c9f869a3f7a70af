"""The SQL that a call sends, as far as the code tells it.

What is only known when the program runs, such as the value in an f-string, is a HOLE in the text. Comments and what
literals hold are left out, so that a pattern finds statements and never what they talk about. It is shorter than the
reader that the pool trusts (`drivers.visible`): nobody's data depends on it, and what it cannot read it leaves.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from .calls import last_name
from .names import Scope

HOLE = "\x1a"
_DEEPEST = 8

# Methods that are given SQL first, and functions that are given it second.
_SENDING = frozenset(
    {
        "execute", "executemany", "executescript", "exec_driver_sql", "exec", "fetch", "fetchrow", "fetchval", "scalar",
        "scalars", "stream", "raw", "RunSQL", "copy", "copy_expert", "query", "run", "iterate", "prepare", "fetch_all",
        "fetch_one", "fetch_val", "read_sql", "read_sql_query", "execute_async", "stream_scalars", "cursor",
    }
)  # fmt: skip
_SENDING_SECOND = frozenset({"execute_values", "execute_batch"})
_ALL = _SENDING | _SENDING_SECOND
_WORDS = ("sql", "query", "statement", "operation", "command")
_AROUND = frozenset({"text", "SQL", "dedent", "DDL", "cleandoc", "str", "RawSQL"})
_CHAINED = frozenset({"strip", "lstrip", "rstrip", "format", "bindparams", "columns", "execution_options", "replace"})

_HIDDEN = re.compile(
    r"""--[^\n]*|/\*.*?(?:\*/|\Z)|(?P<literal>\$(?P<tag>[a-zA-Z_]*)\$.*?(?:\$(?P=tag)\$|\Z)|'(?:[^']|'')*(?:'|\Z))""",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Sent:
    """What *call* sends. *owner*: whose method it is. *statements* is None where none of it is known before it runs."""

    call: ast.Call
    owner: ast.expr | None
    statements: tuple[str, ...] | None


def sent(scope: Scope) -> Iterator[Sent]:
    """The SQL that is sent in *scope*, functions within it left out, in the order of the lines."""
    sending = [call for call in scope.calls if last_name(call.func) in _ALL]
    for call in sorted(sending, key=lambda one: (one.lineno, one.col_offset)):
        name = last_name(call.func)
        owner = call.func.value if isinstance(call.func, ast.Attribute) else None
        given = _given(call, 1 if name in _SENDING_SECOND else 0)
        if name in _SENDING_SECOND:
            owner = call.args[0] if call.args else None
        if given is None:
            continue
        if name == "cursor" and not _text(given, scope).strip(HOLE).count(" "):
            continue  # a cursor's name; asyncpg's takes SQL
        texts = [_text(one, scope) for one in _each(given)]
        known = [text for text in texts if text.strip(HOLE + " \n")]
        yield Sent(call, owner, tuple(one for text in known for one in split(text)) if known else None)


def _given(call: ast.Call, place: int) -> ast.expr | None:
    if len(call.args) > place:
        return call.args[place]
    return next((word.value for word in call.keywords if word.arg in _WORDS), None)


def _each(given: ast.expr) -> list[ast.expr]:
    """A migration may be given a list of statements, each maybe with its parameters."""
    if not isinstance(given, (ast.List, ast.Tuple)):
        return [given]
    return [one.elts[0] if isinstance(one, ast.Tuple) and one.elts else one for one in given.elts]


def _text(expr: ast.AST | str | None, scope: Scope, depth: int = 0) -> str:
    """*expr* as text; a HOLE where it is not known."""
    if depth > _DEEPEST:
        return HOLE
    match expr:
        case ast.Constant(value=str(text)):
            return text
        case ast.Constant(value=bytes(data)):
            return data.decode("utf-8", "replace")
        case ast.JoinedStr(values=parts):
            return "".join(_text(part, scope, depth + 1) for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left, scope, depth + 1) + _text(right, scope, depth + 1)
        case ast.BinOp(left=left, op=ast.Mod()):
            return re.sub(r"%(?:\(\w+\))?s", HOLE, _text(left, scope, depth + 1))
        case ast.Call(func=func, args=arguments):
            return _of_call(func, arguments, scope, depth)
        case ast.Name(id=name):
            return _of_name(name, scope, depth)
        case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
            class_ = scope.class_()
            found = [] if class_ is None else [*class_.attributes.get(name, ()), *class_.bound.get(name, ())]
            return _text(found[0], class_ or scope, depth + 1) if len(found) == 1 else HOLE
    return HOLE


def _of_call(func: ast.expr, arguments: list[ast.expr], scope: Scope, depth: int) -> str:
    name = last_name(func)
    if name in _AROUND and arguments:
        return _text(arguments[0], scope, depth + 1)
    if name in _CHAINED and isinstance(func, ast.Attribute):
        text = _text(func.value, scope, depth + 1)
        return re.sub(r"\{[^{}]*\}", HOLE, text) if name == "format" else text
    return HOLE


def _of_name(name: str, scope: Scope, depth: int) -> str:
    where: Scope | None = scope
    while where is not None:
        if name in where.bound and name not in where.elsewhere:
            bound = where.bound[name]
            return _text(bound[0], where, depth + 1) if len(bound) == 1 else HOLE
        where = where.outer()
    return HOLE


def split(text: str) -> list[str]:
    """Its statements, without comments and what literals hold, each on one line."""
    visible = _HIDDEN.sub(lambda found: "''" if found["literal"] else " ", text)
    return [" ".join(one.split()) for one in visible.split(";") if one.strip()]
