"""PEN5: a connection that is held while something else is waited for, and a second one that is asked for meanwhile."""

from __future__ import annotations

import ast

from ..calls import last_name
from ..catalog import Role
from ..finding import Kind, Rule, Severity
from ..flow import Called, Taken
from ..names import Scope
from . import Facts, Findings

ACROSS_IO = Rule("PEN501", Kind.HOLD_ACROSS_IO, Severity.MEDIUM, "a connection is held across slow work")
NESTED = Rule("PEN502", Kind.NESTED_CHECKOUT, Severity.HIGH, "a second connection is asked for while one is held")
RULES = (ACROSS_IO, NESTED)

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
_GIVEN_ENGINE = frozenset(
    {"create_all", "drop_all", "reflect", "read_sql", "read_sql_query", "read_sql_table", "to_sql"}
)


def check(facts: Facts) -> Findings:
    for scope, followed in facts.functions.values():
        told: set[int] = set()
        for called in sorted(followed.calls, key=lambda one: one.call.lineno):
            yield from _across(facts, scope, called, followed.calls, told)
            yield from _nested(facts, scope, called)


def _across(facts: Facts, scope: Scope, called: Called, calls: list[Called], told: set[int]) -> Findings:
    what = _slow(facts, scope, called.call)
    if what is None:
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


def _counts(taken: Taken, called: Called, calls: list[Called]) -> bool:
    """Whether a connection is certainly held: a session has one from its first statement to its transaction's end."""
    if taken.thing.role in (Role.CHECKOUT, Role.CONNECTION):
        return True
    if taken.thing.role is not Role.SESSION:
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
    """What is waited for by *call*; None if it is nothing slow."""
    name = facts.project.full(call.func, scope)
    if name in _SLOW:
        if name.endswith("sleep"):
            if call.args and isinstance(call.args[0], ast.Constant) and call.args[0].value in (0, 0.0):
                return None
            return "the program sleeps"
        return "somebody types" if name == "input" else f"{name}() is waited for"
    if isinstance(call.func, ast.Attribute):
        thing = facts.project.thing(call.func.value, scope)
        if thing is not None and thing.role is Role.CLIENT and call.func.attr in _VERBS and "redis" not in thing.name:
            return f"an answer of {thing.library} is waited for"
        dotted = ast.unparse(call.func) if len(call.func.attr) < 20 else ""
        if any(dotted.endswith(chain) for chain in _CHAINS):
            return f"{dotted.rpartition('.')[0]} is waited for"
    return None


def _nested(facts: Facts, scope: Scope, called: Called) -> Findings:
    call = called.call
    held = [one for one in called.held if one.thing.role is Role.CHECKOUT and one.site is not call]
    if not held:
        return
    source = _source(call) if facts.project.fresh(call, scope) is not None else None
    if last_name(call.func) in _GIVEN_ENGINE:
        source = next((ast.dump(one) for one in _given(call)), None)
    if source is None:
        return
    for taken in held:
        if _source(taken.site) == source and _is_certain(facts, scope, taken, call):
            yield facts.finding(
                NESTED, call, f"this asks the pool for a second connection while the one of line {taken.site.lineno} is"
                " held: with every connection held by such code, all of it waits for ever",
            )  # fmt: skip
            return


def _is_certain(facts: Facts, scope: Scope, taken: Taken, call: ast.Call) -> bool:
    if last_name(call.func) in _GIVEN_ENGINE:
        return any(
            (thing := facts.project.thing(one, scope)) is not None and thing.role is Role.ENGINE for one in _given(call)
        )
    thing = facts.project.fresh(call, scope)
    return thing is not None and thing.role in (Role.CHECKOUT, Role.CONTEXT)


def _given(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(word.value for word in call.keywords)]


def _source(call: ast.Call) -> str | None:
    """Whom it is asked of, so that two may be compared."""
    return ast.dump(call.func.value) if isinstance(call.func, ast.Attribute) else None


def _noun(taken: Taken) -> str:
    return "session" if taken.thing.role is Role.SESSION else "connection"
