"""PEN51: transactions that nobody ends, and what that costs: a held connection, or an aborted one.

With autocommit off, which is the default of most drivers, the first statement begins a transaction, a read too. Where a
file says nothing of autocommit, that is how it is; where it does, this family is silent about it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from ..calls import last_name
from ..catalog import Role, Thing
from ..finding import Confidence, Kind, Rule, Severity
from ..names import FunctionNode, Scope
from ..statements import Sent, sent
from ..through import (
    AUTOCOMMIT,
    begins,
    connection_of,
    hands_on,
    is_entered,
    is_handed_on,
    is_named,
    is_rebound,
    is_within,
    words,
)
from . import Facts, Findings

LEFT_OPEN = Rule("PEN510", Kind.TRANSACTION_LEFT_OPEN, Severity.MEDIUM, "a read leaves its transaction open")
SWALLOWED = Rule("PEN512", Kind.TRANSACTION_LEFT_OPEN, Severity.MEDIUM, "a failed statement without a rollback")
BEGUN = Rule("PEN513", Kind.TRANSACTION_LEFT_OPEN, Severity.MEDIUM, "a BEGIN without an end")
SHARED = Rule("PEN514", Kind.TRANSACTION_LEFT_OPEN, Severity.MEDIUM, "one connection for all requests")
RULES = (LEFT_OPEN, SWALLOWED, BEGUN, SHARED)

_READ = re.compile(r"(?:SELECT|SHOW|WITH|TABLE)\b", re.IGNORECASE)
_BEGIN = re.compile(r"(?:BEGIN|START TRANSACTION)\b", re.IGNORECASE)
_END = re.compile(r"(?:COMMIT|ROLLBACK|END|ABORT)\b", re.IGNORECASE)
_ENDS = frozenset({"commit", "rollback", "close", "reset", "cancel", "aclose"})
_ENDING = frozenset({"exit", "_exit", "abort", "quit", "close", "putconn"})
_ENDING_METHODS = frozenset({"commit", "rollback", "reset", "reset_session", "ping", "cmd_reset_connection"})
_SLEEPS = frozenset({"sleep", "wait"})
_DATABASE = frozenset(
    {
        "Exception", "BaseException", "Error", "DatabaseError", "ProgrammingError", "OperationalError", "DataError",
        "IntegrityError", "InternalError", "InterfaceError", "UniqueViolation", "UndefinedTable", "DuplicateTable",
        "ForeignKeyViolation", "CheckViolation", "NotNullViolation", "StatementError",
    }
)  # fmt: skip


def check(facts: Facts) -> Findings:
    silent = bool(AUTOCOMMIT.search(facts.module.source.text))
    for scope in facts.module.scopes.values():
        if isinstance(scope.node, (ast.ClassDef, ast.Lambda)):
            continue
        sendings = list(sent(scope))
        if not sendings:
            continue
        yield from _never_ended(facts, scope, sendings)
        if not silent:
            yield from _left_in_loops(facts, scope, sendings)
            yield from _swallowed(facts, scope, sendings)
    if not silent:
        yield from _living_on(facts)


# ------------------------------------------------------------------------------------------ a loop that reads


def _left_in_loops(facts: Facts, scope: Scope, sendings: list[Sent]) -> Findings:
    """A loop without an end that reads, sleeps, and reads again, on one connection that it never lets commit."""
    loops = [node for node in scope.own if isinstance(node, ast.While)]
    for loop in loops:
        calls = [node for node in ast.walk(loop) if isinstance(node, ast.Call)]
        if not any(last_name(call.func) in _SLEEPS for call in calls):
            continue
        if any(last_name(call.func) in _ENDS for call in calls):
            continue
        told: set[str] = set()
        for one in _sends(sendings, _READ):
            key = connection_of(one.owner, scope)
            if key is None or key in told or not is_within(one.call, loop) or is_rebound(key, loop):
                continue
            thing = begins(facts.project, scope, key)
            if thing is None or is_entered(key, loop, scope) or hands_on(calls, key):
                continue
            told.add(key)
            yield facts.finding(LEFT_OPEN, one.call, _left_open(key, thing, "the loop sleeps and comes back"))


def _left_open(key: str, thing: Thing, when: str) -> str:
    cost = (
        "it stays `idle in transaction`, and holds back vacuum"
        if thing.library in ("psycopg2", "psycopg", "pyodbc", "oracledb")
        else "each read sees the data of the first one"
    )
    return (
        f"this read begins a transaction on {key}, which nobody ends while {when}: {cost}. Commit after it, or set"
        " autocommit"
    )


def _sends(sendings: Iterable[Sent], pattern: re.Pattern[str]) -> Iterator[Sent]:
    for one in sendings:
        if one.statements is not None and any(pattern.match(statement) for statement in one.statements):
            yield one


# ------------------------------------------------------------------------------------------ an error that is swallowed


def _swallowed(facts: Facts, scope: Scope, sendings: list[Sent]) -> Findings:
    """PostgreSQL refuses every statement of a transaction in which one has failed, until it is rolled back."""
    text = {word for word in words(ast.walk(scope.node)) if "rollback" in word or "savepoint" in word}
    if text:
        return
    for tried in (node for node in scope.own if isinstance(node, ast.Try)):
        within = [one for one in sendings if any(is_within(one.call, statement) for statement in tried.body)]
        for key in dict.fromkeys(connection_of(one.owner, scope) for one in within):
            if key is None or not _goes_on(tried):
                continue
            thing = begins(facts.project, scope, key)
            if thing is None or thing.library not in ("psycopg2", "psycopg") or _ends_in(tried, key, scope):
                continue
            again = _used_again(scope, tried, key, sendings)
            if again is None:
                continue
            handler = next(one for one in tried.handlers if _is_broad(one))
            yield facts.finding(
                SWALLOWED, handler, f"if a statement fails here, {key} is left in an aborted transaction, and {again}"
                f" is refused (InFailedSqlTransaction): call {key}.rollback()",
                Confidence.MEDIUM,
            )  # fmt: skip
            break


def _goes_on(tried: ast.Try) -> bool:
    broad = [one for one in tried.handlers if _is_broad(one)]
    return bool(broad) and not any(_leaves(one) for one in broad)


def _is_broad(handler: ast.ExceptHandler) -> bool:
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(one is None or last_name(one) in _DATABASE for one in types)


def _leaves(handler: ast.ExceptHandler) -> bool:
    """Whether it passes the exception on, leaves the function, or may do what is needed by a call that is not known."""
    for node in ast.walk(handler):
        if isinstance(node, (ast.Raise, ast.Return, ast.Break)):
            return True
        if isinstance(node, ast.Call) and last_name(node.func) in (
            "exit",
            "_exit",
            "abort",
            "quit",
            "close",
            "putconn",
        ):
            return True
        if isinstance(node, ast.Call) and re.search("connect|reset|retry|handle", last_name(node.func)):
            return True
    return False


def _ends_in(tried: ast.Try, key: str, scope: Scope) -> bool:
    """Whether the connection is closed, or its `with` ends, by the time that the exception is caught."""
    if any(last_name(node.func) == "close" and is_named(getattr(node.func, "value", node.func), key)
           for statement in tried.finalbody for node in ast.walk(statement) if isinstance(node, ast.Call)):  # fmt: skip
        return True
    inside = ast.Module(tried.body, [])
    return is_entered(key, inside, scope) or is_rebound(key, inside)


def _used_again(scope: Scope, tried: ast.Try, key: str, sendings: list[Sent]) -> str | None:
    """What comes after it on the same connection."""
    loop = next((one for one in scope.own if isinstance(one, (ast.For, ast.AsyncFor, ast.While))
                 and is_within(tried, one) and not is_rebound(key, one)), None)  # fmt: skip
    later = [
        one for one in sendings if connection_of(one.owner, scope) == key and one.call.lineno > (tried.end_lineno or 0)
    ]
    if later:
        return f"what line {later[0].call.lineno} sends"
    return "what the next turn of the loop sends" if loop is not None else None


# ------------------------------------------------------------------------------------------ BEGIN


def _never_ended(facts: Facts, scope: Scope, sendings: list[Sent]) -> Findings:
    """BEGIN that is sent by a function of a file in which nothing ends a transaction."""
    begun = [one for one in _sends(sendings, _BEGIN) if not any(map(_END.match, one.statements or ()))]
    if not begun or isinstance(scope.node, ast.Module):
        return
    named = set(words(ast.walk(scope.module.source.tree)))
    if any(any(end in word for end in ("commit", "rollback", "savepoint")) or _END.match(word) for word in named):
        return
    for one in begun[:1]:
        yield facts.finding(
            BEGUN, one.call, "this begins a transaction, and nothing in this file ends one: send COMMIT, and ROLLBACK"
            " if something fails",
            Confidence.MEDIUM,
        )  # fmt: skip


# ------------------------------------------------------------------------------------------ connections that live on


def _living_on(facts: Facts) -> Findings:
    """A connection of a module, or of an object, that is read from and never told to end a transaction."""
    told: set[str] = set()
    for scope in facts.module.functions():
        assert isinstance(scope.node, FunctionNode)
        for one in _sends(sent(scope), _READ):
            key = connection_of(one.owner, scope)
            if key is None or (key in scope.bound and key not in scope.elsewhere):
                continue
            where = key if not key.startswith("self.") else f"{id(scope.class_())}{key}"
            if where in told:
                continue
            thing = begins(facts.project, scope, key)
            if thing is None or thing.role is not Role.CONNECTION:
                continue
            told.add(where)
            yield from _judge_living(facts, scope, one, key, thing)


def _judge_living(facts: Facts, scope: Scope, one: Sent, key: str, thing: Thing) -> Findings:
    handler = facts.per_request.get(scope.node)
    if _is_ended(scope, key):
        return
    if handler is not None and not key.startswith("self.") and not _is_of_lambda(handler):
        yield facts.finding(
            SHARED, one.call, f"{key} is one connection for every request, and its transaction has no end: one"
            " statement that fails has all that follow refused. Take a connection of a pool for each request",
        )  # fmt: skip
        return
    lives = _lives(facts, scope, key) and (handler is None or not _is_of_lambda(handler))
    severity = None if lives else Severity.HINT
    yield facts.finding(
        LEFT_OPEN, one.call, _left_open(key, thing, "it waits for the next call"), Confidence.MEDIUM, severity=severity
    )


def _is_ended(scope: Scope, key: str) -> bool:
    """Whether anything that may have the connection ends a transaction: the class, or a function that names it."""
    class_ = scope.class_() if key.startswith("self.") else None
    if class_ is not None:
        return _is_ended_in(class_.node)
    for one in scope.module.scopes.values():
        named = any(isinstance(node, ast.Name) and node.id == key for node in one.own)
        if named and (_is_ended_in_all(one.own) or is_handed_on(one, key)):
            return True
    return False


def _is_ended_in(around: ast.AST) -> bool:
    return _is_ended_in_all(ast.walk(around))


def _is_ended_in_all(nodes: Iterable[ast.AST]) -> bool:
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr in _ENDING_METHODS:
            return True
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _END.match(node.value.strip()):
            return True
        if isinstance(node, ast.withitem) and isinstance(node.context_expr, (ast.Name, ast.Attribute)):
            return True
    return False


def _lives(facts: Facts, scope: Scope, key: str) -> bool:
    """Whether the program surely runs on: it serves requests, or the object has a loop without an end."""
    if any(not _is_of_lambda(one) for one in facts.per_request.values()):
        return True
    class_ = scope.class_() if key.startswith("self.") else None
    return class_ is not None and any(_runs_on(one) for one in class_.inside)


def _is_of_lambda(handler: ast.AST) -> bool:
    """There a process has one request at a time, and is frozen after it."""
    assert isinstance(handler, FunctionNode)
    return [one.arg for one in handler.args.args][:1] == ["event"]


def _runs_on(method: Scope) -> bool:
    """A method that loops for ever and sleeps: a daemon."""
    return any(
        isinstance(node, ast.While)
        and isinstance(node.test, ast.Constant)
        and any(isinstance(one, ast.Call) and last_name(one.func) in _SLEEPS for one in ast.walk(node))
        for node in method.own
    )
