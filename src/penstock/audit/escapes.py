"""What lives on after a connection is closed, and still needs it: a cursor that is returned, a session's objects."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .calls import WORDS, last_name
from .names import FunctionNode, Scope
from .rules import Facts

# What these give is all there: rows that have been fetched, a number, a text.
_METHODS = frozenset(
    {
        *("fetchone", "fetchall", "fetchmany", "fetch", "fetchrow", "fetchval", "fetch_df", "scalar", "scalar_one"),
        *("commit", "rollback", "close", "executemany", "mogrify", "read_sql", "read_sql_query", "read_sql_table"),
    }
)
_ROWS = frozenset({"list", "dict", "tuple", "set", "sorted", "min", "max"})
_NUMBERS = frozenset({"len", "sum", "any", "all", "str", "int", "float", "bool", "repr", "bytes"})
_FACTS = frozenset({"rowcount", "lastrowid", "description", "closed", "total_changes", "autocommit"})


@dataclass(frozen=True, slots=True)
class Reading:
    """How code is read where it does not tell.

    :ivar unknown: what a function gives that was handed something may need it. :ivar objects: rows are objects that
        need their session, as SQLAlchemy's are.
    """

    unknown: bool = True
    objects: bool = False

    def is_settled(self, call: ast.Call) -> bool:
        """Whether what *call* gives needs nothing any more."""
        if isinstance(call.func, ast.Name):
            return call.func.id in _NUMBERS or (call.func.id in _ROWS and not self.objects)
        return last_name(call.func) in (("commit", "rollback", "close") if self.objects else _METHODS)


def derived(statements: Sequence[ast.AST], name: str, how: Reading) -> set[str]:
    """*name*, and the names of what was made of it and may still need it."""
    names = {name}
    for _ in range(3):  # what a loop's end names, its beginning uses
        before = len(names)
        for node in _own(statements):
            for target, value in _bindings(node):
                if is_live(value, names, how):
                    names |= {one.id for one in ast.walk(target) if isinstance(one, ast.Name)}
        if len(names) == before:
            break
    return names


def escapes(statements: Sequence[ast.AST], name: str, scope: Scope, facts: Facts, how: Reading) -> bool:
    """Whether something that needs what *name* stands for may outlive *statements*, other than by its own name."""
    names = derived(statements, name, how)
    for node in _own(statements):
        match node:
            case ast.Return(value=value) | ast.Yield(value=value) | ast.YieldFrom(value=value):
                if value is not None and not isinstance(node, ast.Yield) and is_live(value, names, how):
                    return True
            case ast.Assign(targets=targets, value=value):
                kept = any(isinstance(one, (ast.Attribute, ast.Subscript)) for one in targets)
                if kept and is_live(value, names, how):
                    return True
            case ast.Call() if _is_handed_over(node, names, scope, facts, how):
                return True
            case ast.Lambda() | ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                if any(isinstance(one, ast.Name) and one.id in names for one in ast.walk(node)):
                    return True
    return any(one in scope.elsewhere for one in names)


def is_live(expr: ast.AST, names: set[str], how: Reading) -> bool:
    """Whether what *expr* gives may need one of *names*."""
    if isinstance(expr, ast.Call) and how.is_settled(expr):
        return False
    if isinstance(expr, ast.Attribute) and expr.attr in _FACTS:
        return False
    if isinstance(expr, (ast.Compare, ast.JoinedStr, ast.Constant)):
        return False
    if isinstance(expr, (ast.ListComp, ast.SetComp, ast.DictComp)) and not how.objects:
        return False
    if isinstance(expr, ast.Subscript):
        return is_live(expr.value, names, how)
    if isinstance(expr, ast.Call) and not how.unknown and not last_name(expr.func)[:1].isupper():
        return isinstance(expr.func, ast.Attribute) and is_live(expr.func.value, names, how)
    if isinstance(expr, ast.Name):
        return expr.id in names
    return any(is_live(one, names, how) for one in ast.iter_child_nodes(expr))


def _is_handed_over(call: ast.Call, names: set[str], scope: Scope, facts: Facts, how: Reading) -> bool:
    given = [*call.args, *(word.value for word in call.keywords)]
    live = [one for one in given if is_live(one, names, how)]
    if not live:
        return False
    word = last_name(call.func)
    if word in WORDS["keeping"] and not (isinstance(call.func, ast.Attribute) and is_live(call.func.value, names, how)):
        return True
    function = facts.project.definition(call.func, scope)
    if function is None or not isinstance(function.node, FunctionNode):
        return False
    return any(facts.project.takes_over(function, call, one) for one in live)


def _bindings(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    match node:
        case ast.Assign(targets=targets, value=value):
            yield from ((target, value) for target in targets)
        case ast.AnnAssign(target=target, value=value) | ast.NamedExpr(target=target, value=value) if value is not None:
            yield target, value
        case ast.AugAssign(target=target, value=value):
            yield target, value
        case ast.For(target=target, iter=value) | ast.AsyncFor(target=target, iter=value):
            yield target, value
        case ast.With(items=items) | ast.AsyncWith(items=items):
            for item in items:
                if item.optional_vars is not None:
                    yield item.optional_vars, item.context_expr


def _own(statements: Sequence[ast.AST]) -> Iterator[ast.AST]:
    waiting = list(statements)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            waiting.extend(ast.iter_child_nodes(node))
