"""PEN7: what is unsafe behind PgBouncer in transaction mode (``--pooling transaction``); see `constructs`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ..calls import last_name
from ..catalog import Role, Thing
from ..finding import Confidence, Severity
from ..names import FunctionNode, Scope
from ..sessions import begins_by_itself, imported, may_be_postgresql, owner, within_transaction
from ..statements import HOLE, Sent, sent
from . import Facts, Findings, connecting
from .constructs import (
    CONSTRUCTS,
    COPY,
    CURRVAL,
    CURSOR,
    ON_CONNECT,
    RULES,
    SET,
    SET_LOCAL,
    STATEMENT_MODE,
    TEMPORARY,
    TRACKED,
    UNKNOWN,
    Construct,
)

__all__ = ["RULES", "check"]

_NEEDS_TRANSACTION = (SET_LOCAL, CURSOR, COPY)  # safe within one
_BEGIN = re.compile(r"(?:BEGIN|START TRANSACTION)\b", re.IGNORECASE)
_FIRST_VALUE = re.compile(r"(?:INSERT\b|.*\bnextval ?\()", re.IGNORECASE)
_DROPPED = re.compile(r"DROP (?:TABLE|VIEW) (?:IF EXISTS )?([\w.]+)", re.IGNORECASE)
_CREATED = re.compile(r"CREATE (?:LOCAL |GLOBAL )?TEMP(?:ORARY)? \w+ (?:IF NOT EXISTS )?([\w.]+)", re.IGNORECASE)
_OPENING = ("connect", "first_connect")
_BLOCKS = frozenset({"transaction", "atomic", "begin", "begin_nested"})


def check(facts: Facts) -> Findings:
    if facts.pooling not in ("transaction", "statement"):
        return
    imports = imported(facts.module)
    on_connect = set(_on_connect(facts))
    for scope in facts.module.scopes.values():
        if isinstance(scope.node, ast.ClassDef) and not scope.calls:
            continue
        for one in sent(scope):
            thing = owner(one.owner, scope, facts.project)
            if may_be_postgresql(thing, imports):
                yield from _statement(facts, scope, one, thing, on_connect)
        yield from connecting.check(facts, scope)
        if facts.pooling == "statement":
            yield from _blocks(facts, scope)


# ------------------------------------------------------------------------------------------ statements


def _statement(facts: Facts, scope: Scope, one: Sent, thing: Thing | None, on_connect: set[ast.AST]) -> Findings:
    if one.statements is None:
        if thing is not None and last_name(one.call.func).startswith("exec"):
            message = "this SQL is made as the program runs: whether it leaves something in the session is not known"
            yield facts.finding(UNKNOWN, one.call, message, Confidence.LOW)
        return
    for statement in one.statements:
        if facts.pooling == "statement" and _BEGIN.match(statement):
            yield facts.finding(STATEMENT_MODE, one.call, "in statement mode PgBouncer refuses a transaction")
        found = next((each for each in CONSTRUCTS if each.pattern.match(statement)), None)
        if found is not None and found.rule is SET and _setting(found, statement) == HOLE:
            message = "which setting this sets is told as the program runs: whether it is safe is not known"
            yield facts.finding(UNKNOWN, one.call, message, Confidence.LOW)
        elif found is not None and not _is_safe(facts, scope, one, thing, found, statement):
            yield from _told(facts, one, thing, found, statement, scope.node in on_connect)


def _told(facts: Facts, one: Sent, thing: Thing | None, found: Construct, statement: str, on_connect: bool) -> Findings:
    confidence = Confidence.HIGH if thing is not None else Confidence.MEDIUM
    if on_connect and found.rule is SET:
        message = (
            "this is set once as the server connection opens, and other clients change it, or get it: use ALTER ROLE"
            " ... SET, or PgBouncer's connect_query"
        )
        yield facts.finding(ON_CONNECT, one.call, message, confidence)
        return
    excerpt = statement.replace(HOLE, "...").replace("''", "'...'")
    excerpt = excerpt if len(excerpt) <= 48 else excerpt[:45] + "..."
    severity = Severity.HINT if found.rule in (SET_LOCAL, CURSOR, COPY) and thing is None else None
    yield facts.finding(found.rule, one.call, f"`{excerpt}`: {found.message}", confidence, severity=severity)


def _is_safe(facts: Facts, scope: Scope, one: Sent, thing: Thing | None, found: Construct, statement: str) -> bool:
    if found.rule is SET:
        return _setting(found, statement) in TRACKED
    if found.rule in _NEEDS_TRANSACTION:
        return _is_in_transaction(facts, scope, one, thing, statement)
    if found.rule is CURRVAL:  # of an INSERT in the same transaction
        first = any(_FIRST_VALUE.match(each) for each in _before(scope, one))
        return first and _is_in_transaction(facts, scope, one, thing, statement)
    if found.rule is TEMPORARY:
        return _is_dropped(scope, statement) and _is_in_transaction(facts, scope, one, thing, statement)
    return False


def _setting(found: Construct, statement: str) -> str:
    """The name of what is set, as PostgreSQL reads it."""
    match = found.pattern.match(statement)
    return (match["name"] or "").replace('"', "").lower() if match is not None else ""


def _is_in_transaction(facts: Facts, scope: Scope, one: Sent, thing: Thing | None, statement: str) -> bool:
    """Whether it may be; statements that are sent together are one."""
    together = one.statements is not None and len(one.statements) > 1
    if together or begins_by_itself(thing, scope, facts.project) is not False:
        return True
    return within_transaction(one.call, scope, facts.project)


def _before(scope: Scope, one: Sent) -> Iterator[str]:
    for each in sent(scope):
        if each.call.lineno <= one.call.lineno:
            yield from each.statements or ()


def _is_dropped(scope: Scope, statement: str) -> bool:
    created = _CREATED.match(statement)
    if created is None:
        return False
    dropped = (_DROPPED.match(each) for one in sent(scope) for each in one.statements or ())
    return any(found is not None and found[1] == created[1] for found in dropped)


# ------------------------------------------------------------------------------------------ where it runs


def _on_connect(facts: Facts) -> Iterator[ast.AST]:
    """Functions that run as a connection opens: SQLAlchemy's listeners, a pool's configure=, Django's signal."""
    for scope in facts.module.functions():
        assert isinstance(scope.node, FunctionNode)
        if any(_listens(one) for one in scope.node.decorator_list):
            yield scope.node
    for scope in facts.module.scopes.values():
        for call in scope.calls:
            for given in _handed(call):
                function = facts.project.definition(given, scope)
                if function is not None and isinstance(function.node, FunctionNode):
                    yield function.node


def _listens(decorator: ast.expr) -> bool:
    """`@event.listens_for(engine, "connect")`, `@receiver(connection_created)`."""
    if not isinstance(decorator, ast.Call):
        return False
    name = last_name(decorator.func)
    if name == "listens_for":
        return any(isinstance(one, ast.Constant) and one.value in _OPENING for one in decorator.args)
    return name == "receiver" and any(last_name(one) == "connection_created" for one in decorator.args)


def _handed(call: ast.Call) -> Iterator[ast.expr]:
    name = last_name(call.func)
    if name == "listen" and len(call.args) == 3 and isinstance(call.args[1], ast.Constant):
        if call.args[1].value in _OPENING:
            yield call.args[2]
    elif name == "connect" and last_name(getattr(call.func, "value", None)) == "connection_created" and call.args:
        yield call.args[0]
    elif "pool" in name.lower():
        yield from (word.value for word in call.keywords if word.arg in ("configure", "init", "setup"))


def _blocks(facts: Facts, scope: Scope) -> Findings:
    for node in scope.own:
        if not isinstance(node, (ast.With, ast.AsyncWith)):
            continue
        for item in node.items:
            call = item.context_expr
            if isinstance(call, ast.Call) and last_name(call.func) in _BLOCKS and isinstance(call.func, ast.Attribute):
                thing = facts.project.thing(call.func.value, scope)
                if (thing is not None and thing.role is not Role.CLIENT) or last_name(call.func) == "atomic":
                    yield facts.finding(STATEMENT_MODE, call, "in statement mode PgBouncer refuses a transaction")
