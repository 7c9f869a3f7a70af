"""PEN4: what may wait for ever."""

from __future__ import annotations

import ast

from .. import remedies
from ..calls import last_name
from ..catalog import Role, Thing
from ..finding import Confidence, Kind, Rule, Severity
from ..names import Scope
from ..remedy import Remedy
from . import Facts, Findings

HTTP = Rule("PEN401", Kind.NO_TIMEOUT, Severity.MEDIUM, "an HTTP request has no timeout")
CONNECT = Rule("PEN402", Kind.NO_TIMEOUT, Severity.HINT, "connecting has no timeout")
ACQUIRE = Rule("PEN403", Kind.NO_TIMEOUT, Severity.HINT, "waiting for a connection of the pool has no timeout")
RULES = (HTTP, CONNECT, ACQUIRE)

_VERBS = frozenset({"get", "post", "put", "delete", "patch", "head", "options", "request"})
_REQUESTS = frozenset({f"{stem}.{verb}" for stem in ("requests", "requests.api") for verb in _VERBS})
_HTTPX = frozenset({f"httpx.{verb}" for verb in {*_VERBS, "stream", "Client", "AsyncClient", "Timeout"}})
_URLOPEN = {"urllib.request.urlopen": 2, "urllib2.urlopen": 2}  # which argument, by place, is the timeout

# Of drivers that wait for as long as the network does, unless they are told otherwise.
_CONNECT = {
    "psycopg2_connection": ("connect_timeout",),
    "mysql_connector_connection": ("connection_timeout", "connect_timeout"),
    "mysqlclient_connection": ("connect_timeout",),
    "aiomysql_connection": ("connect_timeout",),
    "pyodbc_connection": ("timeout", "login_timeout"),
}


def check(facts: Facts) -> Findings:
    for scope in facts.module.scopes.values():
        for call in scope.calls:
            yield from _http(facts, scope, call)
            yield from _connect(facts, scope, call)
            yield from _acquire(facts, scope, call)


def _http(facts: Facts, scope: Scope, call: ast.Call) -> Findings:
    name = facts.project.full(call.func, scope)
    if name in _REQUESTS:
        what = f"{name}()"
    elif name in _HTTPX:
        if _is_none(_word(call, "timeout")):
            yield facts.finding(HTTP, call, f"{name}() is told to wait for ever: give timeout= some seconds")
        return
    elif name in _URLOPEN:
        if len(call.args) > _URLOPEN[name]:
            return
        what = "urlopen()"
    elif isinstance(call.func, ast.Attribute) and call.func.attr in _VERBS:
        thing = facts.project.thing(call.func.value, scope)
        if thing is None or thing.name != "requests_session":
            return
        what = f"Session.{call.func.attr}()"
    else:
        return
    if not _is_said(call, "timeout"):
        found = facts.finding(HTTP, call, f"{what} waits for an answer for ever: give it timeout= some seconds")
        yield remedies.with_remedy(found, remedies.of_timeout(facts, call, f"timeout={remedies.SECONDS}"))
    elif _is_none(_word(call, "timeout")):
        yield facts.finding(HTTP, call, f"{what} is told to wait for ever: give timeout= some seconds")


def _connect(facts: Facts, scope: Scope, call: ast.Call) -> Findings:
    thing = facts.project.made(call, scope)
    if thing is None or thing.role is not Role.CONNECTION or thing.name not in _CONNECT:
        return
    names = _CONNECT[thing.name]
    told = any(_is_said(call, name) for name in names)
    in_dsn = any(name in text for name in names for text in _texts(call))
    unknown = any(not isinstance(one, ast.Constant) for one in call.args)
    if not told and not in_dsn and not unknown:
        message = f"{last_name(call.func)}() waits for a silent network for minutes: give it {names[0]}="
        found = facts.finding(CONNECT, call, message, Confidence.MEDIUM)
        yield remedies.with_remedy(found, _mended(facts, call, thing, names[0]))


def _mended(facts: Facts, call: ast.Call, thing: Thing, name: str) -> Remedy | None:
    if thing.name == "pyodbc_connection":  # there it has as many names as there are drivers in that family
        return None
    return remedies.of_timeout(facts, call, f"{name}={remedies.CONNECT_SECONDS}")


def _acquire(facts: Facts, scope: Scope, call: ast.Call) -> Findings:
    """asyncpg's and aiomysql's pools let whoever asks wait for ever; others raise after 30 seconds."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr != "acquire" or call.args or call.keywords:
        return
    thing = facts.project.thing(call.func.value, scope)
    if thing is not None and thing.name in ("asyncpg_pool", "aiomysql_pool"):
        remedy = "give it timeout=" if thing.name == "asyncpg_pool" else "wait for it under asyncio.timeout()"
        yield facts.finding(
            ACQUIRE, call, f"with every connection in use, acquire() waits for ever: {remedy}", Confidence.MEDIUM
        )


def _word(call: ast.Call, name: str) -> ast.expr | None:
    return next((word.value for word in call.keywords if word.arg == name), None)


def _is_said(call: ast.Call, name: str) -> bool:
    """Whether it is given, or may be, in a ``**mapping``."""
    return any(word.arg in (name, None) for word in call.keywords)


def _is_none(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and value.value is None


def _texts(call: ast.Call) -> list[str]:
    values = [*call.args, *(word.value for word in call.keywords)]
    return [one.value for one in values if isinstance(one, ast.Constant) and isinstance(one.value, str)]
