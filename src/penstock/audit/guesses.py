"""What a thing probably is whose maker is in a file that nobody showed us, by its name and by how it is used.

A guess is made of imported names, parameters and attributes alone, and of words that stand for one thing only.
"""

from __future__ import annotations

import ast
import re

from .calls import last_name
from .catalog import Thing, things
from .names import Module, Scope

_CONNECTS = re.compile(r"(conn|connection|connect|db|database)$")
_SESSIONS = {
    "SessionLocal": "sqlalchemy_factory",
    "session_local": "sqlalchemy_factory",
    "AsyncSessionLocal": "sqlalchemy_afactory",
    "async_session_maker": "sqlalchemy_afactory",
    "async_session_factory": "sqlalchemy_afactory",
}
_POOLS = {"asyncpg": "asyncpg_pool", "aiomysql": "aiomysql_pool", "asyncmy": "aiomysql_pool", "aiopg": "aiopg_pool"}
_ALONE = {"getconn": "psycopg2_checkout", "raw_connection": "sqlalchemy_raw"}  # no other library has such methods


def of_name(name: str, scope: Scope) -> Thing | None:
    where: Scope | None = scope
    while where is not None and name not in where.bound:
        where = where.outer()
    if where is None or not all(_is_from_elsewhere(one) for one in where.bound[name]):
        return None
    return _of_word(name, scope.module)


def of_attribute(expr: ast.Attribute, scope: Scope) -> Thing | None:
    """Of ``request.app.state.pool`` or ``self.engine``, if nothing here says what it is."""
    class_ = scope.class_()
    if class_ is not None and last_name(expr.value) == "self" and expr.attr in {**class_.attributes, **class_.bound}:
        return None
    return _of_word(expr.attr, scope.module)


def of_call(call: ast.Call, scope: Scope) -> Thing | None:
    """Of a call: a checkout by a word of its own, or a connection that this file is seen to close."""
    if isinstance(call.func, ast.Attribute):
        found = _ALONE.get(call.func.attr)
        return None if found is None or _is_of_own_class(call.func.value, scope) else things()[found]
    if not isinstance(call.func, ast.Name) or not _CONNECTS.search(call.func.id):
        return None
    name = call.func.id
    where: Scope | None = scope
    while where is not None and name not in where.bound:
        where = where.outer()
    if where is None or not all(isinstance(one, str) for one in where.bound[name]):
        return None
    return things()["unknown_connection"] if name in _closed_by_callers(scope.module) else None


def _is_of_own_class(expr: ast.expr, scope: Scope) -> bool:
    """Whether ``self.pool`` was made by a class of this file."""
    class_ = scope.class_()
    if class_ is None or not isinstance(expr, ast.Attribute) or last_name(expr.value) != "self":
        return False
    made = [one.func for one in class_.attributes.get(expr.attr, ()) if isinstance(one, ast.Call)]
    bound = [one for func in made if isinstance(func, ast.Name) for one in scope.module.top.bound.get(func.id, ())]
    return bool(bound) and all(isinstance(one, ast.ClassDef) for one in bound)


def _is_from_elsewhere(one: ast.AST | str) -> bool:
    return isinstance(one, str) or (isinstance(one, ast.arg) and one.annotation is None)


def _of_word(word: str, module: Module) -> Thing | None:
    if word in _SESSIONS:
        return things()[_SESSIONS[word]]
    word = word.lower()
    if word.endswith("engine") and module.imports("sqlalchemy", "flask_sqlalchemy", "sqlmodel"):
        return things()["sqlalchemy_aengine" if module.imports("sqlalchemy.ext.asyncio") else "sqlalchemy_engine"]
    if word.endswith("pool"):
        found = {pool for library, pool in _POOLS.items() if module.imports(library)}
        return things()[found.pop()] if len(found) == 1 else None
    return None


def _closed_by_callers(module: Module) -> frozenset[str]:
    """Functions whose result some function of this file closes: so whoever calls them has to."""
    if module.known.closed is None:
        module.known.closed = frozenset(name for scope in module.functions() for name in _closed_in(scope))
    return module.known.closed


def _closed_in(scope: Scope) -> set[str]:
    closed = {
        one.func.value.id for one in scope.calls
        if isinstance(one.func, ast.Attribute) and one.func.attr == "close" and isinstance(one.func.value, ast.Name)
    }  # fmt: skip
    found = set()
    for name in closed:
        for one in scope.bound.get(name, ()):
            one = one.value if isinstance(one, ast.Await) else one
            if isinstance(one, ast.Call) and isinstance(one.func, ast.Name):
                found.add(one.func.id)
    return found
