"""PEN3: pools without a bound, and pools that a fork copies."""

from __future__ import annotations

import ast

from ..calls import last_name
from ..finding import Confidence, Kind, Rule, Severity
from ..names import Scope
from . import Facts, Findings

UNBOUNDED = Rule("PEN301", Kind.POOL_UNBOUNDED, Severity.HIGH, "a pool has no maximum")
NULL_POOL = Rule("PEN302", Kind.POOL_UNBOUNDED, Severity.LOW, "a web service without a pool")
BEFORE_FORK = Rule("PEN303", Kind.POOL_BEFORE_FORK, Severity.HIGH, "a connection or pool is made before a fork")
RULES = (UNBOUNDED, NULL_POOL, BEFORE_FORK)

_FORKS = frozenset(
    {
        "multiprocessing.Process", "multiprocessing.Pool", "multiprocessing.pool.Pool", "os.fork",
        "concurrent.futures.ProcessPoolExecutor", "concurrent.futures.process.ProcessPoolExecutor",
        "multiprocessing.context.Process",
    }
)  # fmt: skip
_FORKING = frozenset(name.rpartition(".")[2] for name in _FORKS)
_SHARED = ("connection", "pool", "checkout")
_SERVERS = ("psycopg2", "psycopg", "pymysql", "mysqlclient", "mysql", "oracledb", "pyodbc", "dbutils")


def check(facts: Facts) -> Findings:
    for scope in facts.module.scopes.values():
        for call in scope.calls:
            thing = facts.project.made(call, scope)
            if thing is None:
                continue
            if thing.name in ("sqlalchemy_engine", "sqlalchemy_aengine"):
                yield from _engine(facts, scope, call)
            elif thing.name == "dbutils_pool" and "Pooled" in last_name(call.func):
                yield from _dbutils(facts, call)
    yield from _forked(facts)


def _engine(facts: Facts, scope: Scope, call: ast.Call) -> Findings:
    words = {word.arg: word.value for word in call.keywords}
    if _number(words.get("max_overflow")) == -1:
        yield facts.finding(
            UNBOUNDED, words["max_overflow"], "max_overflow=-1 lets the pool open any number of connections"
        )
    if _number(words.get("pool_size")) == 0:
        yield facts.finding(UNBOUNDED, words["pool_size"], "pool_size=0 means a pool without a bound, not an empty one")
    pool = words.get("poolclass")
    if pool is not None and last_name(pool) == "NullPool" and facts.per_request:
        yield facts.finding(
            NULL_POOL, pool, "with NullPool every request opens a connection of its own, as many as there are requests"
        )


def _dbutils(facts: Facts, call: ast.Call) -> Findings:
    words = {word.arg: word.value for word in call.keywords}
    if None in words or len(call.args) > 4:
        return
    limit = words.get("maxconnections", call.args[4] if len(call.args) > 4 else None)
    if limit is None or _number(limit) == 0:
        yield facts.finding(
            UNBOUNDED, call, "PooledDB without maxconnections= opens any number of connections", fixable=False
        )


def _number(value: ast.expr | None) -> object:
    match value:
        case ast.Constant(value=found):
            return found
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(found))):
            return -found
    return None


# ------------------------------------------------------------------------------------------ forks


def _forked(facts: Facts) -> Findings:
    """What a module makes as it is imported, and a function in a forked child uses; and what that is given."""
    module = facts.module
    forks = [
        (scope, call)
        for scope in module.scopes.values()
        for call in scope.calls
        if last_name(call.func) in _FORKING and facts.project.full(call.func, scope) in _FORKS
    ]
    for scope, call in forks:
        yield from _handed(facts, scope, call)
    if not forks:
        return
    shared = {
        name: one
        for name, bound in module.top.bound.items()
        for one in bound
        if isinstance(one, ast.expr) and (thing := facts.project.fresh(one, module.top)) is not None
        and thing.role.value in ("connection", "engine", "pool", "checkout")
        and thing.library not in ("sqlite3", "aiosqlite")
    }  # fmt: skip
    for scope, call in forks:
        yield from _of_targets(facts, scope, call, shared)


def _of_targets(facts: Facts, scope: Scope, call: ast.Call, shared: dict[str, ast.expr]) -> Findings:
    if any(word.arg == "mp_context" for word in call.keywords):
        return
    for target in _targets(facts, scope, call):
        for node in ast.walk(target.node):
            if isinstance(node, ast.Name) and node.id in shared and node.id not in target.bound:
                if _is_renewed(target, node.id):
                    continue
                made = shared[node.id]
                yield facts.finding(
                    BEFORE_FORK, made, f"{node.id} is made before line {call.lineno} forks, and used"
                    " in the children: its sockets are shared then. Make it in the child",
                    Confidence.MEDIUM,
                )  # fmt: skip
                return


def _is_renewed(target: Scope, name: str) -> bool:
    """`engine.dispose(close=False)` at the child's beginning."""
    return any(
        isinstance(node, ast.Attribute) and node.attr == "dispose" and last_name(node.value) == name
        for node in ast.walk(target.node)
    )


def _handed(facts: Facts, scope: Scope, call: ast.Call) -> Findings:
    """`Process(target=work, args=(conn,))`: a connection that goes with the child."""
    for word in call.keywords:
        parts = word.value.elts if word.arg == "args" and isinstance(word.value, (ast.Tuple, ast.List)) else []
        for part in parts:
            thing = facts.project.thing(part, scope)
            if thing is not None and thing.role.value in _SHARED and thing.library in _SERVERS:
                yield facts.finding(
                    BEFORE_FORK, part, f"this {thing.library} {thing.role.value} is given to another process, which"
                    " shares its sockets, or cannot be started: make it in the child",
                )  # fmt: skip


def _targets(facts: Facts, scope: Scope, call: ast.Call) -> list[Scope]:
    named = [word.value for word in call.keywords if word.arg in ("target", "initializer")]
    if any(word.arg == "initializer" for word in call.keywords):
        return []
    for node in ast.walk(scope.node):
        if isinstance(node, ast.Call) and last_name(node.func) in (
            "map",
            "imap",
            "apply_async",
            "submit",
            "starmap",
            "imap_unordered",
        ):
            named += node.args[:1]
    found = (facts.project.definition(one, scope) for one in named)
    return [one for one in found if one is not None and isinstance(one.node, (ast.FunctionDef, ast.AsyncFunctionDef))]
