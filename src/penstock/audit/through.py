"""Which connection a statement goes through, and who else may have it.

A connection is known by its name in a function (`conn`), of its module, or of its object (`self.conn`); a cursor is
known by the connection that it is of.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from .calls import last_name
from .catalog import Role, Thing
from .names import Scope
from .project import Project
from .sessions import BEGINS

AUTOCOMMIT = re.compile(r"autocommit|isolation_level", re.IGNORECASE)


def connection_of(expr: ast.expr | None, scope: Scope, depth: int = 0) -> str | None:
    """The connection that a statement goes through, by its name: `conn`, `self.conn`; of a cursor, whose it is."""
    if depth > 4:
        return None
    match expr:
        case ast.Call(func=ast.Attribute(value=value, attr="cursor" | "execute")):
            return connection_of(value, scope, depth + 1)
        case ast.Await(value=value):
            return connection_of(value, scope, depth + 1)
        case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
            class_ = scope.class_()
            bound = class_.attributes.get(name, ()) if class_ is not None else ()
            through = [one for one in bound if _is_cursor_call(one)]
            return connection_of(through[0], scope, depth + 1) if through else f"self.{name}"
        case ast.Name(id=name):
            where: Scope | None = scope
            while where is not None and (name not in where.bound or name in where.elsewhere):
                where = where.outer()
            bound_here = where.bound[name] if where is not None else []
            for one in bound_here:
                made = one.context_expr if isinstance(one, ast.withitem) else one
                if isinstance(made, ast.expr) and _is_cursor_call(made) and where is not None:
                    return connection_of(made, where, depth + 1)
            return name
    return None


def _is_cursor_call(expr: ast.AST) -> bool:
    if isinstance(expr, ast.Await):
        expr = expr.value
    return isinstance(expr, ast.Call) and isinstance(expr.func, ast.Attribute) and expr.func.attr == "cursor"


def begins(project: Project, scope: Scope, key: str) -> Thing | None:
    """The connection that *key* names, if its first statement begins a transaction."""
    thing = project.thing(expression(key), scope)
    if thing is None or thing.library not in BEGINS or thing.role not in (Role.CONNECTION, Role.CHECKOUT):
        return None
    return None if may_be_autocommit(project, key, scope) else thing


def may_be_autocommit(project: Project, key: str, scope: Scope) -> bool:
    """Whether a function of another file makes it, and says something of autocommit there; or a mapping may."""
    for made in made_by(key, scope):
        if any(word.arg is None for word in made.keywords):
            return True
        function = project.definition(made.func, scope)
        if function is not None and AUTOCOMMIT.search(function.module.source.text):
            return True
    return False


def made_by(key: str, scope: Scope) -> Iterator[ast.Call]:
    for one in bound_to(key, scope):
        value = one.context_expr if isinstance(one, ast.withitem) else one
        value = value.value if isinstance(value, ast.Await) else value
        if isinstance(value, ast.Call):
            yield value


def bound_to(key: str, scope: Scope) -> Iterable[ast.AST | str]:
    if key.startswith("self."):
        class_ = scope.class_()
        return class_.attributes.get(key[5:], ()) if class_ is not None else ()
    where: Scope | None = scope
    while where is not None:
        if key in where.bound and key not in where.elsewhere:
            return where.bound[key]
        where = where.outer()
    return ()


def expression(key: str) -> ast.expr:
    if key.startswith("self."):
        return ast.Attribute(ast.Name("self", ast.Load()), key[5:], ast.Load())
    return ast.Name(key, ast.Load())


def is_within(node: ast.AST, outer: ast.AST) -> bool:
    line = getattr(node, "lineno", 0)
    return outer.lineno <= line <= (outer.end_lineno or 0)  # type: ignore[attr-defined,no-any-return]


def is_rebound(key: str, loop: ast.AST) -> bool:
    """Whether the loop makes the connection anew itself."""
    for node in ast.walk(loop):
        targets = node.targets if isinstance(node, ast.Assign) else ()
        if any(is_named(target, key) for target in targets):
            return True
        if isinstance(node, ast.withitem) and node.optional_vars is not None and is_named(node.optional_vars, key):
            return True
    return False


def is_entered(key: str, within: ast.AST, scope: Scope) -> bool:
    """Whether a `with` on the connection ends its transactions."""
    return any(
        isinstance(node, (ast.With, ast.AsyncWith))
        and any(is_named(item.context_expr, key) or _is_transaction(item.context_expr) for item in node.items)
        for node in ast.walk(within)
    )


def _is_transaction(expr: ast.expr) -> bool:
    return isinstance(expr, ast.Call) and last_name(expr.func) in ("transaction", "begin", "atomic")


def is_named(expr: ast.expr, key: str) -> bool:
    match expr:
        case ast.Name(id=name):
            return name == key
        case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
            return key == f"self.{name}"
        case ast.Tuple(elts=parts):
            return any(is_named(part, key) for part in parts)
    return False


def hands_on(calls: Iterable[ast.Call], key: str) -> bool:
    """Whether somebody else is given the connection, and may end what it began."""
    return any(is_named(given, key) for call in calls for given in _given(call))


def _given(call: ast.Call) -> Iterator[ast.expr]:
    for one in (*call.args, *(word.value for word in call.keywords)):
        yield from one.elts if isinstance(one, (ast.Tuple, ast.List)) else (one,)


def words(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Attribute):
            yield node.attr.lower()
        elif isinstance(node, ast.Name):
            yield node.id.lower()
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value.lower()


def cursors(scope: Scope, key: str) -> Iterator[str]:
    for name in scope.bound:
        if name != key and connection_of(ast.Name(name, ast.Load()), scope) == key:
            yield name


def escapes(scope: Scope, name: str) -> bool:
    """Whether anybody but the function itself may use it: it is returned, stored, passed on, or an inner function's."""
    return is_handed_on(scope, name) or any(
        isinstance(node, ast.Name) and node.id == name
        for inner in scope.inside
        if name not in inner.bound
        for node in ast.walk(inner.node)
    )


def is_handed_on(scope: Scope, name: str) -> bool:
    """Whether *scope* does more with it than to use its methods, to look at it, or to enter it."""
    owned = {id(node.value) for node in scope.own if isinstance(node, ast.Attribute)}
    owned |= {id(node.test) for node in scope.own if isinstance(node, (ast.If, ast.While))}
    owned |= {id(item.context_expr) for node in scope.own if isinstance(node, (ast.With, ast.AsyncWith))
              for item in node.items}  # fmt: skip
    return any(
        isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load) and id(node) not in owned
        and not _is_harmless(scope, node)
        for node in scope.own
    )  # fmt: skip


def _is_harmless(scope: Scope, name: ast.Name) -> bool:
    """Whether it is only looked at, or given to something that surely does not commit."""
    for node in scope.own:
        if isinstance(node, ast.Call) and name in node.args:
            return last_name(node.func) in ("print", "closing", "putconn", "release", "bool", "repr", "str", "type")
        if isinstance(node, ast.Compare) and (node.left is name or name in node.comparators):
            return True
        if isinstance(node, ast.BoolOp) and name in node.values:
            return True
    return False
