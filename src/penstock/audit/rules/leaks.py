"""PEN1: what is taken and not given back on some way out of the function, an exception's way included."""

from __future__ import annotations

import ast

from .. import remedies
from ..calls import last_name
from ..catalog import Role, Thing
from ..finding import Confidence, Finding, Kind, Rule, Severity
from ..flow import Followed, Lost, Taken
from ..names import FunctionNode, Scope
from ..remedy import Remedy
from . import Facts, Findings

CONNECTION = Rule("PEN101", Kind.LEAK, Severity.MEDIUM, "a connection is not closed")
ON_ERROR = Rule("PEN102", Kind.LEAK, Severity.MEDIUM, "a connection is not closed when an exception is raised")
CHECKOUT = Rule("PEN103", Kind.LEAK, Severity.HIGH, "a connection is not given back to its pool")
CHECKOUT_ON_ERROR = Rule("PEN104", Kind.LEAK, Severity.HIGH, "a connection is not given back on an exception")
SESSION = Rule("PEN105", Kind.LEAK, Severity.MEDIUM, "a session is not closed")
WITH_KEEPS = Rule("PEN106", Kind.LEAK, Severity.MEDIUM, "the end of this `with` does not close the connection")
NOT_AWAITED = Rule("PEN107", Kind.LEAK, Severity.HIGH, "close() is a coroutine here, and nobody awaits it")
CURSOR = Rule("PEN108", Kind.LEAK, Severity.HINT, "a cursor is not closed")
RULES = (CONNECTION, ON_ERROR, CHECKOUT, CHECKOUT_ON_ERROR, SESSION, WITH_KEEPS, NOT_AWAITED, CURSOR)

_REMEDY = {
    Role.CONNECTION: "close it in a `finally`, or use {within}",
    Role.CHECKOUT: "give it back in a `finally`, or use {within}",
    Role.SESSION: "use {within}",
}


def check(facts: Facts) -> Findings:
    for scope, followed in facts.functions.values():
        if scope.module.imports("alembic"):
            return  # its programs end with it
        left = {taken for taken, _ in followed.stored}
        lost_ = [one for one in followed.lost if one.taken not in left or not _is_of_self(one, followed)]
        lost_ = [one for one in lost_ if one.after is None or not _is_fixture(scope)]
        told: set[ast.AST] = set()
        # What is never given back at all says more than what an exception does to it.
        for lost in sorted(lost_, key=lambda one: one.after is not None):
            taken = lost.taken
            if taken.site in told or taken.thing.role not in _REMEDY or _is_nobodys(taken.site, taken.thing):
                continue
            told.add(taken.site)
            yield _finding(facts, scope, followed, lost)


def _given_away(followed: Followed) -> set[Taken]:
    return followed.given | {taken for taken, _ in followed.stored}


def _is_of_self(lost: Lost, followed: Followed) -> bool:
    """Whether it stands on an object when the function is done."""
    return any(taken == lost.taken and isinstance(where, FunctionNode) for taken, where in followed.stored)


def _is_fixture(scope: Scope) -> bool:
    """Whether it is pytest's: what raises in one ends a test, which is there to be ended."""
    node = scope.node
    assert isinstance(node, FunctionNode)
    return any("fixture" in last_name(one.func if isinstance(one, ast.Call) else one) for one in node.decorator_list)


def _finding(facts: Facts, scope: Scope, followed: Followed, lost: Lost) -> Finding:
    taken, thing = lost.taken, lost.taken.thing
    what = _what(thing)
    remedy = _REMEDY[thing.role].format(within=_within(thing))
    rule, message = _said(scope, lost, what)
    confidence = Confidence.HIGH if lost.after is None else Confidence.MEDIUM
    # Who makes one for somebody else, and fails between, is seldom meant.
    severity = Severity.HINT if lost.after is not None and taken in _given_away(followed) else None
    found = facts.finding(rule, taken.site, f"{message}: {remedy}", confidence, severity=severity)
    return remedies.with_remedy(found, _mended(facts, scope, rule, lost))


def _mended(facts: Facts, scope: Scope, rule: Rule, lost: Lost) -> Remedy | None:
    taken = lost.taken
    if rule is WITH_KEEPS:
        return remedies.of_entered(facts, scope, taken.site, taken.thing)
    if rule is NOT_AWAITED:
        return remedies.of_unawaited(facts, scope, _unawaited(scope, lost))
    return remedies.of_leak(facts, scope, taken.site, taken.thing)


def _said(scope: Scope, lost: Lost, what: str) -> tuple[Rule, str]:
    taken, thing = lost.taken, lost.taken.thing
    if _entered_in_vain(scope, taken.site):
        return WITH_KEEPS, f"the end of this `with` ends the transaction, and leaves {what} open"
    if thing.awaited and (calls := _unawaited(scope, lost)):
        return NOT_AWAITED, f"{what} stays open: close() in line {calls[0].lineno} is a coroutine, and is not awaited"
    if lost.after is None:
        rule = {Role.CHECKOUT: CHECKOUT, Role.SESSION: SESSION}.get(thing.role, CONNECTION)
        ended = "given back" if thing.role is Role.CHECKOUT else "closed"
        return rule, f"{what} is not {ended} on every way out of {_name(scope)}"
    rule = {Role.CHECKOUT: CHECKOUT_ON_ERROR, Role.SESSION: SESSION}.get(thing.role, ON_ERROR)
    line = getattr(lost.after, "lineno", 0)
    ended = "given back" if thing.role is Role.CHECKOUT else "closed"
    return rule, f"{what} is not {ended} if line {line} raises"


def _what(thing: Thing) -> str:
    return {Role.CHECKOUT: "this connection of the pool", Role.SESSION: "this session"}.get(
        thing.role, "this connection" if thing.library == "unknown" else f"this {thing.library} connection"
    )


def _within(thing: Thing) -> str:
    if thing.role is Role.CHECKOUT:
        return "a `with` block on the pool's own context manager"
    word = "async with" if thing.is_async else "with"
    if thing.with_ends:
        return f"`{word}`"
    return "try/finally: it has no `async with`" if thing.is_async else "`with closing(...)`"


def _name(scope: Scope) -> str:
    node = scope.node
    assert isinstance(node, FunctionNode)
    return f"{node.name}()"


def _is_nobodys(site: ast.Call, thing: Thing) -> bool:
    """A database in memory costs no server anything; nor does a session on somebody else's connection."""
    if any(word.arg == "defer_connect" for word in site.keywords):
        return True
    if thing.role is Role.SESSION:
        given = [*site.args, *(word.value for word in site.keywords)]
        return any(last_name(one).strip("_") in ("bind", "conn", "connection", "get_bind") for one in given)
    if thing.name == "snowflake_connection" and last_name(site.func) == "connect" and not site.args + site.keywords:
        return True
    return thing.library == "sqlite3" and any(
        isinstance(one, ast.Constant) and one.value in (":memory:", "") for one in site.args
    )


def _entered_in_vain(scope: Scope, site: ast.Call) -> bool:
    for node in ast.walk(scope.node):
        if isinstance(node, (ast.With, ast.AsyncWith)):
            for item in node.items:
                if item.context_expr is site:
                    return True
    return False


def _unawaited(scope: Scope, lost: Lost) -> list[ast.Call]:
    awaited = {node.value for node in scope.own if isinstance(node, ast.Await)}
    return [
        call for call in scope.calls
        if call not in awaited and isinstance(call.func, ast.Attribute) and call.func.attr in lost.taken.thing.ends
        and call.func.attr != "terminate" and isinstance(call.func.value, ast.Name)
        and _is_bound_to(scope, call.func.value.id, lost.taken.site)
    ]  # fmt: skip


def _is_bound_to(scope: Scope, name: str, site: ast.Call) -> bool:
    bound = scope.bound.get(name, ())
    return any(isinstance(one, ast.AST) and any(node is site for node in ast.walk(one)) for one in bound)
