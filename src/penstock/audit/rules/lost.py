"""PEN511: a write that nobody commits, on a connection that only the function has which made it."""

from __future__ import annotations

import ast
import re

from ..calls import last_name
from ..catalog import Role, Thing
from ..finding import Confidence, Kind, Rule, Severity
from ..names import Scope
from ..sessions import BEGINS
from ..statements import Sent, sent
from ..through import (
    AUTOCOMMIT,
    bound_to,
    connection_of,
    cursors,
    escapes,
    expression,
    is_entered,
    made_by,
    may_be_autocommit,
    words,
)
from . import Facts, Findings

LOST = Rule("PEN511", Kind.TRANSACTION_LEFT_OPEN, Severity.HIGH, "a write is never committed")
RULES = (LOST,)

_WRITE = re.compile(r"(?:INSERT|UPDATE|DELETE|MERGE|REPLACE)\b|WITH\b.*\)\s*(?:INSERT|UPDATE|DELETE)\b", re.IGNORECASE)
_DDL = re.compile(r"(?:CREATE|ALTER|DROP|TRUNCATE|GRANT|REVOKE)\b(?! DATABASE)", re.IGNORECASE)
_ADDING = frozenset({"add", "add_all", "merge", "delete", "bulk_save_objects", "bulk_insert_mappings"})
# Since version 2 SQLAlchemy commits nothing by itself; of the file that says which one it is written for.
_IS_OF_2 = re.compile(r"\bDeclarativeBase\b|\bmapped_column\b|\bfuture=True\b|sqlalchemy\.ext\.asyncio|sqlmodel")
_COMMITS_AT_ITS_END = frozenset({"psycopg2", "psycopg", "sqlite3", "pyodbc"})  # a `with` on the connection
_ROLLS_BACK_DDL = frozenset({"psycopg2", "psycopg", "pyodbc"})


def check(facts: Facts) -> Findings:
    if AUTOCOMMIT.search(facts.module.source.text):
        return
    for scope in facts.module.scopes.values():
        if not isinstance(scope.node, (ast.ClassDef, ast.Lambda)):
            yield from _lost(facts, scope, list(sent(scope)))
            yield from _in_session(facts, scope)


def _lost(facts: Facts, scope: Scope, sendings: list[Sent]) -> Findings:
    told: set[str] = set()
    for one in sendings:
        key = connection_of(one.owner, scope)
        if key is None or key in told or key not in scope.bound or one.statements is None:
            continue
        thing = facts.project.thing(expression(key), scope)
        made = [call for call in made_by(key, scope) if facts.project.fresh(call, scope) is not None]
        if thing is None or not made or not _is_lost(facts, scope, key, thing, one.statements):
            continue
        if last_name(one.call.func) == "executescript":  # commits by itself
            continue
        told.add(key)
        remedy = f"Call {key}.commit() before it is {'closed' if thing.role is Role.CONNECTION else 'given back'}"
        yield facts.finding(
            LOST, one.call, f"nobody commits this write: when {key} is closed it is undone. {remedy}",
            severity=None if _is_known_to_be(thing, scope) else Severity.HINT,
        )  # fmt: skip


def _is_known_to_be(thing: Thing, scope: Scope) -> bool:
    """Whether its version surely leaves a write to be committed."""
    return thing.name != "sqlalchemy_checkout" or _IS_OF_2.search(scope.module.source.text) is not None


def _is_lost(facts: Facts, scope: Scope, key: str, thing: Thing, statements: tuple[str, ...]) -> bool:
    if not _may_be_lost(thing, statements) or may_be_autocommit(facts.project, key, scope):
        return False
    if any(isinstance(one, ast.withitem) for one in bound_to(key, scope)) and _is_kept_by_with(thing):
        return False
    if isinstance(scope.node, ast.Module):
        return "commit" not in scope.module.source.text.lower() and not escapes(scope, key)
    if _is_ended(scope) or (is_entered(key, scope.node, scope) and thing.library != "sqlalchemy"):
        return False
    return not escapes(scope, key) and not any(escapes(scope, name) for name in cursors(scope, key))


def _in_session(facts: Facts, scope: Scope) -> Findings:
    """What is added to a session of SQLAlchemy's, and left there."""
    told: set[str] = set()
    for call in scope.calls:
        func = call.func
        if not isinstance(func, ast.Attribute) or func.attr not in _ADDING or not isinstance(func.value, ast.Name):
            continue
        key = func.value.id
        made = [thing for one in made_by(key, scope) if (thing := facts.project.fresh(one, scope)) is not None]
        if key in told or key not in scope.bound or not made or any(thing.role is not Role.SESSION for thing in made):
            continue
        if isinstance(scope.node, ast.Module) or _is_ended(scope) or escapes(scope, key):
            continue
        told.add(key)
        yield facts.finding(
            LOST, call, f"nobody commits {key}: when it is closed, what was added is dropped. Call {key}.commit()",
            Confidence.MEDIUM,
        )  # fmt: skip


def _is_ended(scope: Scope) -> bool:
    """Whether the function commits anything, or is a generator, whose user may."""
    nodes = list(ast.walk(scope.node))
    return any("commit" in one or "begin" in one for one in words(nodes)) or any(
        isinstance(node, (ast.Yield, ast.YieldFrom)) for node in nodes
    )


def _may_be_lost(thing: Thing, statements: tuple[str, ...]) -> bool:
    if thing.role not in (Role.CONNECTION, Role.CHECKOUT):
        return False
    if thing.library == "sqlalchemy":
        return any(_WRITE.match(one) or _DDL.match(one) for one in statements)
    if thing.library in BEGINS or thing.library == "sqlite3":
        written = any(map(_WRITE.match, statements))
        return written or (thing.library in _ROLLS_BACK_DDL and any(map(_DDL.match, statements)))
    return False


def _is_kept_by_with(thing: Thing) -> bool:
    return thing.library in _COMMITS_AT_ITS_END or (thing.role is Role.CHECKOUT and thing.library != "sqlalchemy")
