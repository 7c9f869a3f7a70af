"""PEN31: what is right in a program by itself, and wrong in the way that this one is run: forks, ASGI, workers."""

from __future__ import annotations

import ast

from ..calls import last_name
from ..catalog import Role, Thing
from ..finding import Confidence, Kind, Rule, Severity
from ..names import FunctionNode, Scope
from ..places import reached
from . import Facts, Findings

MAX_AGE = Rule("PEN310", Kind.POOL_UNBOUNDED, Severity.MEDIUM, "CONN_MAX_AGE under ASGI")
OVER = Rule("PEN311", Kind.POOL_UNBOUNDED, Severity.HIGH, "more connections than the budget has")  # see budgeted.py
PRELOAD = Rule("PEN312", Kind.POOL_BEFORE_FORK, Severity.MEDIUM, "connections are made before gunicorn forks")
CELERY = Rule("PEN313", Kind.POOL_BEFORE_FORK, Severity.HIGH, "connections are made before Celery forks")
RULES = (MAX_AGE, OVER, PRELOAD, CELERY)

_TASKS = frozenset({"task", "shared_task", "periodic_task"})
_AT_ONCE = frozenset({"psycopg2_pool", "psycopg_pool", "mysql_connector_pool", "oracledb_pool", "dbutils_pool"})
_CONNECTING = frozenset({"connect", "begin", "raw_connection", "getconn"})
_GIVEN_ENGINE = frozenset({"create_all", "reflect", "read_sql"})
_FILES = ("sqlite3", "aiosqlite", "duckdb")


def check(facts: Facts) -> Findings:
    yield from _max_age(facts)
    yield from _before_gunicorn(facts)
    yield from _before_celery(facts)


# ------------------------------------------------------------------------------------------ Django


def _max_age(facts: Facts) -> Findings:
    """Under ASGI each request runs in a thread of its own, and its connection stays when the thread is gone."""
    if not facts.deployment.asgi:
        return
    for node in ast.walk(facts.module.source.tree):
        value = _age(node)
        if value is None or not (_is_positive(value) or _is_for_ever(value, facts)):
            continue
        yield facts.finding(
            MAX_AGE, value, f"this program is served by ASGI ({facts.deployment.asgi}), where each request may have a"
            " thread of its own: connections that are kept pile up. Set CONN_MAX_AGE to 0, and use a pool",
        )  # fmt: skip


def _age(node: ast.AST) -> ast.expr | None:
    match node:
        case ast.Dict(keys=keys, values=values):
            named = zip(keys, values, strict=True)
            return next((value for key, value in named if _is_text(key, "CONN_MAX_AGE")), None)
        case ast.Assign(targets=[ast.Subscript(slice=key)], value=value) if _is_text(key, "CONN_MAX_AGE"):
            return value
        case ast.Call(keywords=words) if last_name(node.func) in ("config", "parse", "db", "db_url"):
            return next((word.value for word in words if word.arg == "conn_max_age"), None)
    return None


def _is_text(expr: ast.expr | None, text: str) -> bool:
    return isinstance(expr, ast.Constant) and expr.value == text


def _is_positive(value: ast.expr) -> bool:
    if isinstance(value, ast.BinOp):
        return isinstance(value.op, ast.Mult) and _is_positive(value.left) and _is_positive(value.right)
    return isinstance(value, ast.Constant) and isinstance(value.value, (int, float)) and value.value > 0


def _is_for_ever(value: ast.expr, facts: Facts) -> bool:
    """None keeps a connection for ever; in a dict of Django's settings alone."""
    return isinstance(value, ast.Constant) and value.value is None and "DATABASES" in facts.module.top.bound


# ------------------------------------------------------------------------------------------ forks


def _before_gunicorn(facts: Facts) -> Findings:
    how = facts.deployment
    if not how.preload or how.after_fork:
        return
    for name, made, thing in _shared(facts):
        if not _opens_at_once(thing, made) and not _is_used_at_import(facts, name):
            continue
        yield facts.finding(
            PRELOAD, made, f"{how.preload} has gunicorn load this before it forks, and {name} is connected by then:"
            " every worker shares its sockets. Make it in post_fork, or dispose of it there",
            Confidence.MEDIUM,
        )  # fmt: skip


def _before_celery(facts: Facts) -> Findings:
    if facts.deployment.after_celery_fork:
        return
    tasks = {scope.node for scope in facts.module.functions() if _is_task(scope)}
    if not tasks:
        return
    users = {node for task in tasks for node in reached(facts.module, facts.project, {task})}
    for name, made, thing in _shared(facts):
        if not _opens_at_once(thing, made):
            continue
        if any(_names(facts.module.scopes[node], name) for node in users):
            yield facts.finding(
                CELERY, made, f"{name} is connected as this is imported, and Celery forks its workers after that:"
                " tasks of all of them would use one socket. Make it when worker_process_init is sent, or by the task",
                Confidence.MEDIUM,
            )  # fmt: skip


def _shared(facts: Facts) -> list[tuple[str, ast.expr, Thing]]:
    """What the module makes as it is imported, by its name."""
    top, found = facts.module.top, []
    for name, bound in top.bound.items():
        for one in bound:
            if not isinstance(one, ast.expr):
                continue
            thing = facts.project.fresh(one, top)
            if thing is None or thing.library in _FILES or not _stands_at_top(one, top):
                continue
            if thing.role in (Role.CONNECTION, Role.CHECKOUT, Role.POOL, Role.ENGINE) and not thing.awaited:
                found.append((name, one, thing))
    return found


def _stands_at_top(one: ast.expr, top: Scope) -> bool:
    """Whether it is made as the module is imported; what a function makes for a global is made later."""
    return one in top.own


def _opens_at_once(thing: Thing, made: ast.expr) -> bool:
    """Whether it has connections as soon as it is made; an engine, and a pool that is opened later, has none."""
    if thing.role in (Role.CONNECTION, Role.CHECKOUT):
        return True
    words = made.keywords if isinstance(made, ast.Call) else []
    later = any(word.arg == "open" and isinstance(word.value, ast.Constant) and not word.value.value for word in words)
    return thing.name in _AT_ONCE and not later


def _is_used_at_import(facts: Facts, name: str) -> bool:
    """Whether the module itself connects: `engine.connect()`, `create_all(engine)` outside of any function."""
    for call in facts.module.top.calls:
        func = call.func
        if isinstance(func, ast.Attribute) and func.attr in _CONNECTING and last_name(func.value) == name:
            return True
        given = (*call.args, *(word.value for word in call.keywords))
        if last_name(func) in _GIVEN_ENGINE and any(last_name(one) == name for one in given):
            return True
    return False


def _is_task(scope: Scope) -> bool:
    node = scope.node
    assert isinstance(node, FunctionNode)
    return any(last_name(one.func if isinstance(one, ast.Call) else one) in _TASKS for one in node.decorator_list)


def _names(scope: Scope, name: str) -> bool:
    return name not in scope.bound and any(isinstance(node, ast.Name) and node.id == name for node in scope.own)
