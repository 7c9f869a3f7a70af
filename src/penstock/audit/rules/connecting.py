"""PEN7 again: session state that a driver, an ORM or a settings file asks for, and no SQL in the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ..calls import last_name
from ..catalog import Role, Thing
from ..finding import Confidence, Finding, Severity
from ..names import Scope
from ..sessions import POSTGRESQL, begins_by_itself, within_transaction
from . import Facts, Findings
from .constructs import (
    BACKEND,
    CHARACTERISTICS,
    COPY,
    CURSOR,
    HOLD,
    LISTEN,
    PREPARED,
    REPLICATION,
    STARTUP,
    TRACKED,
    TWO_PHASE,
)

_STARTUP = (
    "PgBouncer before 1.20 refuses this as an unsupported startup parameter, and newer ones accept those alone that"
    " they follow: use ALTER ROLE ... SET"
)
_PREPARED = (
    "PgBouncer before 1.21, or with max_prepared_statements = 0, does not follow the driver's prepared statements: {}"
)
_OPTIONS = re.compile(r"(?:[?&\s]|^)options\s*=")
_REPLICATION = re.compile(r"(?:[?&\s]|^)replication\s*=\s*(?!0|false|off|no)")
_REPLICATING = frozenset({"LogicalReplicationConnection", "PhysicalReplicationConnection"})
_COPIES = frozenset({"copy_expert", "copy_from", "copy_to", "copy_to_table", "copy_records_to_table"})
_OPENS = (Role.CONNECTION, Role.POOL, Role.ENGINE)
_CACHES = ("statement_cache_size", "prepared_statement_cache_size", "prepared_statement_name_func")


def check(facts: Facts, scope: Scope) -> Findings:
    for call in scope.calls:
        made = facts.project.made(call, scope)
        if made is not None and made.role in _OPENS:
            yield from _opened(facts, scope, call, made)
        elif isinstance(call.func, ast.Attribute):
            yield from _asked(facts, scope, call, call.func)
    for node in scope.own:
        if isinstance(node, ast.Attribute) and node.attr == "backend_pid" and last_name(node.value) == "info":
            yield _identity(facts, node)
    if scope is facts.module.top:
        yield from _django(facts, scope)


# ------------------------------------------------------------------------------------------ as it opens


def _opened(facts: Facts, scope: Scope, call: ast.Call, made: Thing) -> Findings:
    if made.library not in (*POSTGRESQL, "sqlalchemy"):
        return
    words = _words(call)
    texts = [one.value for one in (*call.args, *words.values())
             if isinstance(one, ast.Constant) and isinstance(one.value, str)]  # fmt: skip
    if made.library == "sqlalchemy" and texts and not texts[0].startswith("postgres"):
        return
    if "options" in words or any(map(_OPTIONS.search, texts)):
        yield facts.finding(STARTUP, words.get("options", call), _STARTUP)
    settings = words.get("server_settings")
    if isinstance(settings, ast.Dict) and (unknown := sorted(_untracked(settings))):
        yield facts.finding(STARTUP, settings, f"{', '.join(unknown)}: {_STARTUP}")
    factory = last_name(words.get("connection_factory"))
    if factory in _REPLICATING or "replication" in words or any(map(_REPLICATION.search, texts)):
        yield facts.finding(
            REPLICATION, call, "PgBouncer before 1.23 refuses replication, and no mode but session's can carry it:"
            " connect to PostgreSQL itself",
        )  # fmt: skip
    yield from _prepares(facts, call, made, words, texts)


def _words(call: ast.Call) -> dict[str, ast.expr]:
    """Its keywords, and those that it hands on in connect_args= or kwargs=."""
    words = {word.arg: word.value for word in call.keywords if word.arg is not None}
    for name in ("connect_args", "kwargs"):
        within = words.pop(name, None)
        if isinstance(within, ast.Dict):
            words |= {key.value: value for key, value in zip(within.keys, within.values, strict=True)
                      if isinstance(key, ast.Constant) and isinstance(key.value, str)}  # fmt: skip
        elif isinstance(within, ast.Call):
            words |= {word.arg: word.value for word in within.keywords if word.arg is not None}
        elif within is not None:
            words["**"] = within
    if any(word.arg is None for word in call.keywords):
        words["**"] = call
    return words


def _untracked(settings: ast.Dict) -> Iterator[str]:
    for key in settings.keys:
        if isinstance(key, ast.Constant) and isinstance(key.value, str) and key.value.lower() not in TRACKED:
            yield key.value


def _prepares(facts: Facts, call: ast.Call, made: Thing, words: dict[str, ast.expr], texts: list[str]) -> Findings:
    threshold = words.get("prepare_threshold")
    if isinstance(threshold, ast.Constant) and isinstance(threshold.value, int):
        yield facts.finding(PREPARED, threshold, _PREPARED.format("give prepare_threshold=None"))
        return
    if "**" in words or threshold is not None:
        return
    text = facts.module.source.text
    if made.library == "asyncpg" or any("+asyncpg" in one for one in texts):
        if not any(one in words for one in _CACHES) and not any("statement_cache_size" in one for one in texts):
            yield facts.finding(PREPARED, call, _PREPARED.format("give statement_cache_size=0"), Confidence.MEDIUM)
    elif (made.library == "psycopg" or any("+psycopg:" in one for one in texts)) and "prepare_threshold" not in text:
        yield facts.finding(
            PREPARED, call, _PREPARED.format("psycopg prepares what runs often; give prepare_threshold=None"),
            Confidence.MEDIUM, severity=Severity.LOW,
        )  # fmt: skip


# ------------------------------------------------------------------------------------------ what is asked of it


def _asked(facts: Facts, scope: Scope, call: ast.Call, func: ast.Attribute) -> Findings:
    name, words = func.attr, {word.arg: word.value for word in call.keywords}
    if name not in _METHODS and not (name == "execute" and "prepare" in words):
        return
    thing = facts.project.thing(func.value, scope)
    library = thing.library if thing is not None else ""
    if library not in POSTGRESQL:
        return
    if name == "cursor" and (call.args or "name" in words) and library != "asyncpg":
        yield from _cursor(facts, scope, call, thing, words)
    elif name == "execute" and _is_true(words.get("prepare")):
        yield facts.finding(PREPARED, call, _PREPARED.format("leave prepare= out"))
    elif name == "prepare" and library == "asyncpg":
        yield facts.finding(PREPARED, call, _PREPARED.format("run the statement with fetch() or execute()"))
    elif name in ("add_listener", "notifies"):
        yield facts.finding(
            LISTEN, call, "what listens through PgBouncer hears nothing: listen on a connection of PostgreSQL itself"
        )
    elif name == "set_session" and _is_true(words.get("autocommit")) and len(words) + len(call.args) > 1:
        yield facts.finding(
            CHARACTERISTICS, call, "with autocommit psycopg2 sets this for the session, and other clients get it: use"
            " SET TRANSACTION within each transaction",
        )  # fmt: skip
    elif name in _COPIES and begins_by_itself(thing, scope, facts.project) is False:
        if not within_transaction(call, scope, facts.project):
            yield facts.finding(
                COPY, call, "if a COPY outside of a transaction fails, PgBouncer may lose the server connection:"
                " open a transaction", severity=Severity.HINT if library == "asyncpg" else None,
            )  # fmt: skip
    elif name in ("get_backend_pid", "get_server_pid"):
        yield _identity(facts, call)
    elif name == "tpc_begin":
        yield facts.finding(
            TWO_PHASE, call, "it is safe here, and stays for ever if nobody ends it: watch pg_prepared_xacts"
        )


_METHODS = frozenset(
    {"cursor", "prepare", "add_listener", "notifies", "set_session", "get_backend_pid", "get_server_pid", "tpc_begin"}
    | _COPIES
)


def _cursor(
    facts: Facts, scope: Scope, call: ast.Call, thing: Thing | None, words: dict[str | None, ast.expr]
) -> Findings:
    name = words.get("name", call.args[0] if call.args else None)
    if isinstance(name, ast.Constant) and not name.value:
        return
    if not isinstance(name, ast.Constant) and "name" not in words:
        return  # psycopg2's factory may be first by mistake of nobody but a reader
    if _is_true(words.get("withhold")):
        yield facts.finding(
            HOLD, call, "the cursor stays with the server connection after its transaction: fetch from it within the"
            " transaction",
        )  # fmt: skip
    elif begins_by_itself(thing, scope, facts.project) is False and not within_transaction(call, scope, facts.project):
        yield facts.finding(
            CURSOR, call, "outside of a transaction a named cursor is gone with its statement: open a transaction"
        )


def _identity(facts: Facts, node: ast.AST) -> Finding:
    return facts.finding(
        BACKEND, node, "through PgBouncer this is not the number of a backend: it cancels or watches nothing, or"
        " somebody else's",
    )  # fmt: skip


def _is_true(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and value.value is True


# ------------------------------------------------------------------------------------------ Django's settings


def _django(facts: Facts, top: Scope) -> Findings:
    for value in top.bound.get("DATABASES", ()):
        for alias in value.values if isinstance(value, ast.Dict) else ():
            if isinstance(alias, ast.Dict):
                yield from _alias(facts, top, alias)


def _alias(facts: Facts, top: Scope, alias: ast.Dict) -> Findings:
    keys = {key.value: value for key, value in zip(alias.keys, alias.values, strict=True)
            if isinstance(key, ast.Constant)}  # fmt: skip
    engine = keys.get("ENGINE")
    if not isinstance(engine, ast.Constant) or not str(engine.value).endswith(("postgresql", "postgis", "psycopg2")):
        return
    cursors = keys.get("DISABLE_SERVER_SIDE_CURSORS")
    elsewhere = None in alias.keys or "DISABLE_SERVER_SIDE_CURSORS" in facts.module.source.text
    if (cursors is None and not elsewhere) or (isinstance(cursors, ast.Constant) and not cursors.value):
        yield facts.finding(
            CURSOR, cursors or engine, "iterator() uses cursors that are gone with their statement, outside"
            ' of atomic(): set "DISABLE_SERVER_SIDE_CURSORS": True',
        )  # fmt: skip
    options = keys.get("OPTIONS")
    for key, value in zip(options.keys, options.values, strict=True) if isinstance(options, ast.Dict) else ():
        if isinstance(key, ast.Constant) and key.value == "options":
            yield facts.finding(STARTUP, value, _STARTUP)
