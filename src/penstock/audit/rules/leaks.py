"""PEN1: what is taken and not given back on some way out of the function, an exception's way included."""

from __future__ import annotations

import ast

from ..calls import last_name
from ..catalog import Role, Thing
from ..finding import Confidence, Kind, Rule, Severity
from ..flow import Followed, Lost
from ..names import FunctionNode, Scope
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
        lost_ = [one for one in followed.lost if one.after is None or not _is_fixture(scope)]
        told: set[ast.AST] = set()
        # What is never given back at all says more than what an exception does to it.
        for lost in sorted(lost_, key=lambda one: one.after is not None):
            taken = lost.taken
            if taken.site in told or taken.thing.role not in _REMEDY or _is_nobodys(taken.site, taken.thing):
                continue
            told.add(taken.site)
            yield _finding(facts, scope, followed, lost)


def _is_fixture(scope: Scope) -> bool:
    """Whether it is pytest's: what raises in one ends a test, which is there to be ended."""
    node = scope.node
    assert isinstance(node, FunctionNode)
    return any("fixture" in last_name(one.func if isinstance(one, ast.Call) else one) for one in node.decorator_list)


def _finding(facts: Facts, scope: Scope, followed: Followed, lost: Lost):  # type: ignore[no-untyped-def]
    taken, thing = lost.taken, lost.taken.thing
    what = _what(thing)
    remedy = _REMEDY[thing.role].format(within=_within(thing))
    rule, message = _said(scope, lost, what)
    confidence = Confidence.HIGH if lost.after is None else Confidence.MEDIUM
    return facts.finding(rule, taken.site, f"{message}: {remedy}", confidence)


def _said(scope: Scope, lost: Lost, what: str) -> tuple[Rule, str]:
    taken, thing = lost.taken, lost.taken.thing
    if _entered_in_vain(scope, taken.site):
        return WITH_KEEPS, f"the end of this `with` ends the transaction, and leaves {what} open"
    if thing.awaited and (call := _unawaited(scope, lost)) is not None:
        return NOT_AWAITED, f"{what} stays open: close() in line {call.lineno} is a coroutine, and is not awaited"
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
        thing.role, f"this {thing.library} connection"
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
    """A database in memory costs no server anything."""
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


def _unawaited(scope: Scope, lost: Lost) -> ast.Call | None:
    awaited = {node.value for node in scope.own if isinstance(node, ast.Await)}
    for call in scope.calls:
        func = call.func
        if call in awaited or not isinstance(func, ast.Attribute) or func.attr not in lost.taken.thing.ends:
            continue
        if isinstance(func.value, ast.Name) and _is_bound_to(scope, func.value.id, lost.taken.site):
            return call
    return None


def _is_bound_to(scope: Scope, name: str, site: ast.Call) -> bool:
    bound = scope.bound.get(name, ())
    return any(isinstance(one, ast.AST) and any(node is site for node in ast.walk(one)) for one in bound)
