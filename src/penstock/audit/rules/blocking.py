"""PEN6: what blocks an event loop, and every connection's holder with it."""

from __future__ import annotations

import ast

from ..catalog import Role
from ..finding import Kind, Rule, Severity
from ..names import Scope
from . import Facts, Findings

DRIVER = Rule("PEN601", Kind.BLOCKING_IN_ASYNC, Severity.MEDIUM, "a blocking driver in a coroutine")
RULES = (DRIVER,)

_WORK = frozenset({"execute", "executemany", "fetchone", "fetchall", "commit", "query", "scalars", "scalar"})


def check(facts: Facts) -> Findings:
    for scope in facts.module.functions():
        if isinstance(scope.node, ast.AsyncFunctionDef):
            yield from _blocking(facts, scope)


def _blocking(facts: Facts, scope: Scope) -> Findings:
    told: set[str] = set()
    awaited = {
        item.context_expr for node in scope.own if isinstance(node, ast.AsyncWith) for item in node.items
    }  # fmt: skip
    for call in sorted(scope.calls, key=lambda one: one.lineno):
        thing = facts.project.fresh(call, scope)
        if thing is None or thing.is_async or thing.role not in (Role.CONNECTION, Role.CHECKOUT, Role.CONTEXT):
            continue
        if thing.name in told or thing.library in ("sqlite3", "duckdb", "unknown") or facts.is_awaited(call, scope):
            continue
        if call in awaited:  # an engine of either kind
            continue
        told.add(thing.name)
        what = "connecting" if thing.role is Role.CONNECTION else "waiting for a connection"
        yield facts.finding(
            DRIVER, call, f"{what} with {thing.library} blocks the event loop, and every other task with it: use its"
            " asyncio form, or a thread (asyncio.to_thread)",
        )  # fmt: skip
