"""What is known of the session that a statement runs in: whose database, and whether within a transaction."""

from __future__ import annotations

import ast
import re

from .calls import last_name
from .catalog import Role, Thing
from .names import FunctionNode, Module, Scope
from .project import Project
from .statements import sent

POSTGRESQL = frozenset({"psycopg2", "psycopg", "asyncpg", "aiopg"})
# Drivers whose connections begin a transaction with their first statement, and end it when they are told to.
BEGINS = frozenset({"psycopg2", "psycopg", "pymysql", "mysqlclient", "mysql", "aiomysql", "oracledb", "pyodbc"})
_OTHERS = frozenset(
    {
        "pymysql", "MySQLdb", "mysql", "aiomysql", "asyncmy", "mariadb", "sqlite3", "aiosqlite", "oracledb",
        "cx_Oracle", "pyodbc", "pymssql", "snowflake", "duckdb", "clickhouse_driver",
    }
)  # fmt: skip
_MAYBE = frozenset({"psycopg2", "psycopg", "psycopg_pool", "asyncpg", "aiopg", "sqlalchemy", "sqlmodel", "django"})
_TRANSACTIONS = frozenset({"transaction", "atomic", "begin", "begin_nested", "in_transaction"})
_BEGINNING = frozenset({"begin", "start", "start_transaction", "tpc_begin"})
_BEGIN = re.compile(r"(?:BEGIN|START TRANSACTION)\b", re.IGNORECASE)
_AUTOCOMMIT = re.compile(r"autocommit|isolation_level", re.IGNORECASE)


def imported(module: Module) -> frozenset[str]:
    """The top-level packages that its names come from."""
    found = (one for scope in module.scopes.values() for bound in scope.bound.values() for one in bound)
    return frozenset(one.partition(".")[0] for one in found if isinstance(one, str))


def may_be_postgresql(thing: Thing | None, imports: frozenset[str]) -> bool:
    """Whether what *thing* is of, or else the whole file, may speak to PostgreSQL."""
    if thing is not None and thing.library not in ("sqlalchemy", "psycopg2"):
        return thing.library in POSTGRESQL
    return not imports & _OTHERS or bool(imports & _MAYBE)


def owner(expr: ast.expr | None, scope: Scope, project: Project) -> Thing | None:
    """What the statement is sent by: a connection, a cursor, a session, a pool."""
    return project.thing(expr, scope) if expr is not None else None


def begins_by_itself(thing: Thing | None, scope: Scope, project: Project) -> bool | None:
    """Whether a transaction is open by the time that a statement runs, without anybody's asking; None if unknown."""
    if thing is None:
        return False if any(_is_of_django(name) for name in _names(scope)) else None
    if thing.library in ("asyncpg", "aiopg") or thing.role is Role.POOL:
        return False
    if not _AUTOCOMMIT.search(scope.module.source.text):
        return True
    said = _sets_autocommit(scope, project)
    return None if said is None else not said


def _sets_autocommit(scope: Scope, project: Project) -> bool | None:
    """What this function says of it; of one that made no connection itself, what the file does; None if both."""
    here = _said(scope.own)
    if here or _connects(scope, project):
        return here
    everywhere = {_said(one.own) for one in scope.module.scopes.values() if one is not scope}
    return None if True in everywhere and _connects_twice(scope, project) else True in everywhere


def _connects(scope: Scope, project: Project) -> bool:
    return any(_is_connection(project.fresh(call, scope)) for call in scope.calls)


def _connects_twice(scope: Scope, project: Project) -> bool:
    made = [
        call
        for one in scope.module.scopes.values()
        for call in one.calls
        if (thing := project.made(call, one)) is not None and thing.role in (Role.CONNECTION, Role.POOL, Role.ENGINE)
    ]
    return len(made) > 1


def _is_connection(thing: Thing | None) -> bool:
    return thing is not None and thing.role in (Role.CONNECTION, Role.CHECKOUT, Role.SESSION)


def _said(nodes: list[ast.AST]) -> bool:
    return any(_says_autocommit(node) for node in nodes)


def _says_autocommit(node: ast.AST) -> bool:
    match node:
        case ast.Assign(targets=targets, value=value):
            named = any(isinstance(one, ast.Attribute) and one.attr == "autocommit" for one in targets)
            return named and not _is_false(value)
        case ast.keyword(arg="autocommit", value=value):
            return not _is_false(value)
        case ast.keyword(arg="isolation_level", value=ast.Constant(value="AUTOCOMMIT")):
            return True
        case ast.Call(args=[value, *_]) if last_name(node.func) in ("set_autocommit", "autocommit"):
            return not _is_false(value)
        case ast.Call(args=[value, *_]) if last_name(node.func) == "set_isolation_level":
            return last_name(value) == "ISOLATION_LEVEL_AUTOCOMMIT" or _is_false(value)
    return False


def _is_false(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and not value.value


def _names(scope: Scope) -> list[str]:
    return [one for bound in scope.module.top.bound.values() for one in bound if isinstance(one, str)]


def _is_of_django(name: str) -> bool:
    return name in ("django.db.connection", "django.db.connections")


def within_transaction(call: ast.Call, scope: Scope, project: Project) -> bool:
    """Whether *call* stands in a block that is one, or after a BEGIN of its function."""
    node = scope.node
    if isinstance(node, FunctionNode) and any(_opens(one, scope, project) for one in node.decorator_list):
        return True
    around = [
        item.context_expr
        for one in scope.own
        if isinstance(one, (ast.With, ast.AsyncWith)) and one.lineno <= call.lineno <= (one.end_lineno or 0)
        for item in one.items
    ]
    if any(_opens(one, scope, project) for one in around):
        return True
    begun = any(last_name(one.func) in _BEGINNING and one.lineno <= call.lineno for one in scope.calls)
    return begun or any(
        one.call.lineno <= call.lineno and any(map(_BEGIN.match, one.statements or ())) for one in sent(scope)
    )


def _opens(expr: ast.expr, scope: Scope, project: Project) -> bool:
    if last_name(expr.func if isinstance(expr, ast.Call) else expr) in _TRANSACTIONS:
        return True
    if not isinstance(expr, (ast.Name, ast.Attribute)):
        return False
    thing = project.thing(expr, scope)
    return thing is not None and thing.library in ("psycopg2", "psycopg") and thing.role is not Role.CURSOR
