"""PEN5: a connection that is held while something else is waited for, and a second one that is asked for meanwhile."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..calls import last_name
from ..catalog import Role, things
from ..finding import Kind, Rule, Severity
from ..flow import Called, Taken
from ..names import FunctionNode, Scope
from . import Facts, Findings

ACROSS_IO = Rule("PEN501", Kind.HOLD_ACROSS_IO, Severity.MEDIUM, "a connection is held across slow work")
NESTED = Rule("PEN502", Kind.NESTED_CHECKOUT, Severity.HIGH, "a second connection is asked for while one is held")
RULES = (ACROSS_IO, NESTED)

_SLEEPS = "the program sleeps"
_FILES = ("sqlite3", "aiosqlite", "duckdb")
_VERBS = frozenset({"get", "post", "put", "delete", "patch", "head", "options", "request", "send", "stream"})
_SLOW = frozenset(
    {
        "time.sleep", "asyncio.sleep", "trio.sleep", "anyio.sleep", "gevent.sleep", "eventlet.sleep", "input",
        "subprocess.run", "subprocess.call", "subprocess.check_call", "subprocess.check_output", "os.system",
        "urllib.request.urlopen", "urllib.request.urlretrieve", "smtplib.SMTP", "smtplib.SMTP_SSL", "ftplib.FTP",
        "asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell", "paramiko.SSHClient",
        "openai.ChatCompletion.create", "openai.Completion.create", "openai.Embedding.create",
        *(f"{library}.{verb}" for library in ("requests", "httpx") for verb in _VERBS),
    }
)  # fmt: skip
_CHAINS = (".chat.completions.create", ".messages.create", ".embeddings.create", ".responses.create", ".send_message")
_CHAIN_ENDS = frozenset(chain.rpartition(".")[2] for chain in _CHAINS)
_QUERIES = frozenset(
    [
        "execute",
        "executemany",
        "query",
        "scalars",
        "scalar",
        "get",
        "one",
        "all",
        "first",
        "fetch",
        "fetchrow",
        "fetchval",
        "exec",
        "flush",
        "add",
        "merge",
    ]
)
_ENDS = frozenset({"commit", "rollback", "close", "aclose", "expunge_all"})
_OF_POOL = frozenset({"execute", "executemany", "fetch", "fetchrow", "fetchval"})  # of asyncpg's: they take one
_GIVEN_ENGINE = frozenset(
    {"create_all", "drop_all", "reflect", "read_sql", "read_sql_query", "read_sql_table", "to_sql"}
)


def check(facts: Facts) -> Findings:
    for scope, followed in facts.functions.values():
        told: set[int] = set()
        for called in sorted(followed.calls, key=lambda one: one.call.lineno):
            yield from _across(facts, scope, called, followed.calls, told)
            yield from _nested(facts, scope, called)
        yield from _in_atomic(facts, scope, told)


def _in_atomic(facts: Facts, scope: Scope, told: set[int]) -> Findings:
    """Django's: the connection is in a transaction from the beginning of the block."""
    for node in scope.own:
        if not isinstance(node, ast.With) or not any(
            _is_atomic(facts, scope, item.context_expr) for item in node.items
        ):
            continue
        within = {one for statement in node.body for one in ast.walk(statement)}
        for call in scope.calls:
            what = _slow(facts, scope, call) if call in within and call.lineno not in told else None
            if what is not None:
                told.add(call.lineno)
                yield facts.finding(
                    ACROSS_IO, call, f"the transaction of line {node.lineno} is open, and its connection held, while"
                    f" {what}: do it before or after, or in transaction.on_commit()",
                )  # fmt: skip


def _is_atomic(facts: Facts, scope: Scope, expr: ast.expr) -> bool:
    called = expr.func if isinstance(expr, ast.Call) else expr
    return facts.project.full(called, scope) == "django.db.transaction.atomic"


def _across(facts: Facts, scope: Scope, called: Called, calls: list[Called], told: set[int]) -> Findings:
    what = _slow(facts, scope, called.call)
    if what is None or _listens(scope) or (what == _SLEEPS and _is_handling(scope, called.call)):
        return
    for taken in called.held:
        if taken.thing.library in _FILES or not _counts(taken, called, calls):
            continue
        if called.call.lineno in told:
            return
        told.add(called.call.lineno)
        yield facts.finding(
            ACROSS_IO, called.call, f"the {_noun(taken)} taken in line {taken.site.lineno} is held while {what}: give"
            " it back before, and take one again afterwards",
        )  # fmt: skip
        return


def _is_handling(scope: Scope, call: ast.Call) -> bool:
    """Whether it stands in an `except`: what waits there waits for something that is broken."""
    handlers = [node for node in scope.own if isinstance(node, ast.ExceptHandler)]
    return any(node is call for handler in handlers for node in ast.walk(handler))


def _listens(scope: Scope) -> bool:
    """Whether a connection is held to hear from the server: that is what it is for."""
    for node in scope.own:
        if isinstance(node, ast.Attribute) and node.attr in ("add_listener", "notifies", "poll"):
            return True
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.upper().startswith("LISTEN "):
            return True
    return False


def _counts(taken: Taken, called: Called, calls: list[Called]) -> bool:
    """Whether a connection is certainly held: a session has one from its first statement to its transaction's end."""
    role = _role(taken)
    if role in (Role.CHECKOUT, Role.CONNECTION):
        return True
    if role is not Role.SESSION:
        return False
    begun = False
    for other in sorted(calls, key=lambda one: (one.call.end_lineno or 0, one.call.end_col_offset or 0)):
        if other.call is called.call or other.call.lineno > called.call.lineno:
            break
        if taken in other.held and isinstance(other.call.func, ast.Attribute):
            name = other.call.func.attr
            begun = (begun or name in _QUERIES) and name not in _ENDS
    return begun


def _slow(facts: Facts, scope: Scope, call: ast.Call) -> str | None:
    """What is waited for by *call*, or by the function that it calls; None if it is nothing slow."""
    what = _slow_here(facts, scope, call)
    if what is not None:
        return what
    for inner, where in _within(facts, scope, call):
        what = _slow_here(facts, where, inner)
        if what is not None:
            return f"{what} in {last_name(call.func)}(), line {inner.lineno}"
    return None


def _slow_here(facts: Facts, scope: Scope, call: ast.Call) -> str | None:
    name = facts.project.full(call.func, scope)
    if name in _SLOW:
        if name.endswith("sleep"):
            if call.args and isinstance(call.args[0], ast.Constant) and call.args[0].value in (0, 0.0):
                return None
            return _SLEEPS
        return "somebody types" if name == "input" else f"{name}() is waited for"
    if isinstance(call.func, ast.Attribute):
        thing = facts.project.thing(call.func.value, scope)
        if thing is not None and thing.role is Role.CLIENT and call.func.attr in _VERBS and "redis" not in thing.name:
            return f"an answer of {thing.library} is waited for"
        dotted = ast.unparse(call.func) if call.func.attr in _CHAIN_ENDS else ""
        if any(dotted.endswith(chain) for chain in _CHAINS):
            return f"{dotted.rpartition('.')[0]} is waited for"
    return None


def _role(taken: Taken) -> Role:
    """What is held: of a context manager, what it lends."""
    entered = taken.thing.enters
    return taken.thing.role if entered is None else things()[entered].role


def _nested(facts: Facts, scope: Scope, called: Called) -> Findings:
    call = called.call
    held = {
        source: one
        for one in called.held
        if one.site is not call and _role(one) is Role.CHECKOUT
        if (source := _source(facts, scope, one.site)) is not None
    }
    if not held:
        return
    for source in _asked(facts, scope, call):
        if source in held:
            yield facts.finding(
                NESTED, call, f"this asks the pool for a second connection while that of line"
                f" {held[source].site.lineno} is held: once all are held so, all wait for ever",
            )  # fmt: skip
            return


def _asked(facts: Facts, scope: Scope, call: ast.Call) -> list[str]:
    """The pools and engines that a call certainly takes a connection of."""
    if isinstance(call.func, ast.Attribute) and call.func.attr in _OF_POOL:
        pool = facts.project.thing(call.func.value, scope)
        if pool is not None and pool.name == "asyncpg_pool":
            return [ast.dump(call.func.value)]
    if last_name(call.func) in _GIVEN_ENGINE:
        engines = [one for one in _given(call) if _is_engine(facts, scope, one)]
        return [ast.dump(one) for one in engines]
    thing = facts.project.fresh(call, scope)
    if thing is not None:
        lends = thing.role is Role.CHECKOUT or (thing.enters is not None and thing.role is Role.CONTEXT)
        source = _source(facts, scope, call) if lends else None
        return [source] if source is not None else []
    return [source for inner, where in _within(facts, scope, call) for source in _taken_there(facts, inner, where)]


def _taken_there(facts: Facts, call: ast.Call, where: Scope) -> list[str]:
    """What a function that is called takes of pools that its caller knows by the same name."""
    thing = facts.project.fresh(call, where)
    if thing is None or thing.role not in (Role.CHECKOUT, Role.CONTEXT) or not isinstance(call.func, ast.Attribute):
        return []
    owner = call.func.value
    shared = isinstance(owner, ast.Name) and owner.id in where.module.top.bound and owner.id not in where.bound
    if not shared and last_name(getattr(owner, "value", None)) != "self":
        return []
    return [ast.dump(owner)]


def _within(facts: Facts, scope: Scope, call: ast.Call) -> Iterator[tuple[ast.Call, Scope]]:
    """The calls that are certainly made by the function of this file that *call* calls."""
    function = facts.project.definition(call.func, scope)
    if function is None or not isinstance(function.node, FunctionNode) or function.module is not scope.module:
        return
    if isinstance(function.node, ast.AsyncFunctionDef) and not facts.is_awaited(call, scope):
        return
    if any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in function.own) or function.node.decorator_list:
        return
    for statement in function.node.body:
        for inner in _certain(statement):
            yield inner, function


def _certain(statement: ast.stmt) -> Iterator[ast.Call]:
    """The calls of a statement that are made whenever it is run, with no branch before them."""
    waiting: list[ast.AST] = [statement]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Call):
            yield node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.If, ast.IfExp)):
            continue
        if isinstance(node, ast.Try):
            waiting.extend([*node.body, *node.finalbody])
        else:
            waiting.extend(ast.iter_child_nodes(node))


def _is_engine(facts: Facts, scope: Scope, expr: ast.expr) -> bool:
    thing = facts.project.thing(expr, scope)
    return thing is not None and thing.role is Role.ENGINE


def _given(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(word.value for word in call.keywords)]


def _source(facts: Facts, scope: Scope, call: ast.Call) -> str | None:
    """Whom it is asked of, so that two may be compared."""
    if isinstance(call.func, ast.Attribute) and facts.project.definition(call.func, scope) is None:
        return ast.dump(call.func.value)
    definition = facts.project.definition(call.func, scope)
    return None if definition is None else f"function {id(definition)}"


def _noun(taken: Taken) -> str:
    return "session" if taken.thing.role is Role.SESSION else "connection"
