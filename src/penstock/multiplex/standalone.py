"""Which statements may share a connection with other callers' statements, told from their text.

A statement stands alone when it opens no transaction and leaves nothing in the session. One that slipped through would
take other callers' writes into its transaction, so what is allowed is listed, and what is not known is refused. What a
function, a procedure or a trigger does to the session behind its call's back cannot be seen.

The text is read as PostgreSQL 15 to 18 read it (`drivers.visible`, and gram.y), with standard_conforming_strings on,
which is the default. Where it is off, a literal with a backslash in it may hide a call, but never the first word.
"""

from __future__ import annotations

import re
from functools import lru_cache

from ..drivers.visible import in_postgresql

_LONGEST_REMEMBERED = 10_000  # characters: a longer text was most likely generated, and will not be seen again

_DATA = {"call", "delete", "insert", "merge", "select", "table", "truncate", "update", "values", "with"}
_SCHEMA = {"alter", "comment", "create", "drop", "grant", "import", "reassign", "revoke", "security"}
_UPKEEP = {"analyse", "analyze", "checkpoint", "cluster", "refresh", "reindex", "vacuum"}
_ALONE = _DATA | _SCHEMA | _UPKEEP | {"notify", "show"}
# They name functions and call none.
_ONLY_NAME = {"comment", "drop", "grant", "revoke"}

# By how the statement begins. None of these is ever allowed; the words are for the message.
_REASONS = {
    "begin": "begins a transaction",
    "start": "begins a transaction",
    "commit": "ends a transaction",
    "end": "ends a transaction",
    "rollback": "ends a transaction",
    "abort": "ends a transaction",
    "prepare transaction": "ends a transaction",
    "savepoint": "is for a transaction of several statements",
    "release": "is for a transaction of several statements",
    "lock": "is for a transaction of several statements",
    "set": "changes a setting of the session",
    "set local": "changes a setting of the transaction",
    "set transaction": "changes a setting of the transaction",
    "set constraints": "changes a setting of the transaction",
    "reset": "changes a setting of the session",
    "discard": "clears the session",
    "listen": "changes what the session listens to",
    "unlisten": "changes what the session listens to",
    "prepare": "prepares a statement in the session",
    "execute": "runs what was prepared in the session",
    "deallocate": "drops what was prepared in the session",
    "declare": "opens a cursor in the session",
    "fetch": "reads a cursor of the session",
    "move": "moves a cursor of the session",
    "close": "closes a cursor of the session",
    "copy": "takes the connection for its data",
    "load": "loads a library into the session",
    "do": "runs code that may change the session",  # what it puts together and executes cannot be read
}

_KEEPS = "takes a lock that the session keeps"
_RELEASES = "releases a lock of the session"
_REMEMBERS = "reads what an earlier statement left in the session"
_CALLS = {
    "pg_advisory_lock": _KEEPS,
    "pg_advisory_lock_shared": _KEEPS,
    "pg_try_advisory_lock": _KEEPS,
    "pg_try_advisory_lock_shared": _KEEPS,
    "pg_advisory_unlock": _RELEASES,
    "pg_advisory_unlock_shared": _RELEASES,
    "pg_advisory_unlock_all": _RELEASES,
    "currval": _REMEMBERS,
    "lastval": _REMEMBERS,
    "setseed": "sets what random() gives in the session",
    "set_limit": "changes a setting of the session",  # pg_trgm's
    "pg_export_snapshot": "exports a snapshot, which would end with it",
    "pg_backup_start": "begins a backup that the session must end",
    "pg_backup_stop": "ends a backup that the session began",
    "dblink_connect": "opens a connection that the session keeps",
    "dblink_connect_u": "opens a connection that the session keeps",
}

# What these read is lower case, without comments, its literals empty, and has a single space wherever it has any.
_FIRST_WORDS = re.compile(r"([a-z]+)(?![\w$])(?: ([a-z]+)(?![\w$]))?")
_EXPLAIN = re.compile(
    r"\Aexplain(?![\w$]) ?(?:\((?!\W*(?:select|with|values|table)\b)[^()]*\) ?)?(?:(?:analy[sz]e|verbose)\b ?)*"
)
_SEMICOLONS_INSIDE = re.compile(r"\bbegin atomic\b|\bcreate (?:or replace )?rule\b")
_CALL = re.compile(rf'(?<![\w$])({"|".join(_CALLS)})"? ?\(')
_TOUCHES = (
    # With a third argument of true the setting ends with the statement.
    (
        re.compile(r'(?<![\w$])set_config"? ?\((?!(?:[^()]|\([^()]*\))*, ?true ?\))'),
        "changes a setting of the session (set_config, unless its third argument is true)",
    ),
    (
        re.compile(r'\bupdate (?:only ?\(? ?)?(?:"?pg_catalog"? ?\. ?)?"?pg_settings\b'),
        "changes a setting of the session (UPDATE pg_settings)",
    ),
    (
        re.compile(r"\b(?:create (?:or replace )?|into )(?:local |global )?temp(?:orary)?(?![\w$])"),
        "makes something temporary in the session (TEMP)",
    ),
    # In a function's search_path it does nothing yet.
    (
        re.compile(r'\bpg_temp(?:_\d+)?"? ?\.|\b(?:schema|into) "?pg_temp\b'),
        "uses what is temporary in the session (pg_temp)",
    ),
)
# Whose rows go into a table, which may be named temp.
_INSERT = re.compile(r"(?:\A|[()] ?)(?:insert|merge) into ")

# psycopg's own; a quote in a placeholder's name is not one for the server.
_PLACEHOLDER = re.compile(r"%(?:%|[sbt]|\([^)]*+(?:\)[sbt])?)")


def refusal(statement: str, placeholders: bool = False) -> str | None:
    """Why *statement* may not share a connection with others, in words that complete "this statement ...", or None.

    *statement* is one statement, to be sent outside of any transaction. *placeholders*: there are parameters, so
    that psycopg makes ``$1`` of ``%s`` and ``%(name)s``, and ``%`` of ``%%``, before the server sees it.
    """
    read = _remembered if len(statement) <= _LONGEST_REMEMBERED else _refusal
    return read(statement, placeholders)


def _refusal(statement: str, placeholders: bool) -> str | None:
    if placeholders:
        statement = _PLACEHOLDER.sub(lambda found: "%" if found[0] == "%%" else "$1", statement)
    visible = in_postgresql(statement)
    if visible is None:
        return 'cannot be read (it has an open quote or comment, a NUL, or a name like U&"...")'
    text = " ".join(visible.lower().split()).strip("; ")
    text = _EXPLAIN.sub("", text.lstrip("( "), count=1).lstrip("( ")
    verb, reason = _verb(text)
    if reason:
        return reason
    if ";" in text and not _SEMICOLONS_INSIDE.search(text):
        return "is more than one statement"
    return None if verb in _ONLY_NAME else _touches(text)


_remembered = lru_cache(maxsize=1024)(_refusal)


def _verb(text: str) -> tuple[str, str | None]:
    """The word that *text* begins with, and why it may not."""
    words = _FIRST_WORDS.match(text)
    if words is None:
        return "", "does not begin with a word that is known to stand alone" if text else "is empty"
    first, second = words.groups()
    if first in _ALONE:
        return first, None
    for phrase in (f"{first} {second}", first):
        if phrase in _REASONS:
            return first, f"{_REASONS[phrase]} ({phrase.upper()})"
    return first, f"does not begin with a word that is known to stand alone ({first.upper()})"


def _touches(text: str) -> str | None:
    if called := _CALL.search(text):
        return f"{_CALLS[called[1]]} ({called[1]})"
    text = _INSERT.sub(" ", text)
    return next((reason for pattern, reason in _TOUCHES if pattern.search(text)), None)
