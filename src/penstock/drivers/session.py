"""What the drivers of PostgreSQL know of a session: what leaves something behind in it, and what takes it away again.

A pool cannot ask the server after each use: that would be a round trip. It reads the statements instead, as PgBouncer's
documentation lists what breaks transaction pooling: SET, LISTEN, session advisory locks, temporary tables, WITH HOLD
cursors, PREPARE, LOAD. A statement wrongly taken for one of these costs a needless reset; what a function does to the
session behind its call's back cannot be seen.
"""

from __future__ import annotations

import math
import re
from enum import Flag, auto
from functools import lru_cache
from time import monotonic
from typing import Any


class Touched(Flag):
    """What about the session was changed."""

    NOTHING = 0
    SETTINGS = auto()
    ROLE = auto()
    LISTENS = auto()
    LOCKS = auto()
    TEMPORARY = auto()
    CURSORS = auto()
    DATABASES = auto()  # attached to it: SQLite
    CLIENT = auto()  # the connection object: its attributes, its handlers
    BOUND = auto()  # what transactions begin with, for one lease
    READ_ONLY = auto()  # found so by a statement that was to write
    BEYOND_RESET = auto()  # nothing short of a new connection takes it away


ANYTHING = Touched.SETTINGS | Touched.ROLE | Touched.LISTENS | Touched.LOCKS | Touched.TEMPORARY | Touched.CURSORS

READ_ONLY = "25006"  # the error of a write that is not allowed
CANCELED = "57014"  # of a statement that took too long, or that somebody has cancelled
STANDBY = "in_hot_standby"  # the server tells of it unasked, since PostgreSQL 14
# idle_in_transaction_session_timeout, transaction_timeout, idle_session_timeout: it is the client who was slow.
LIMITS = ("25P03", "25P04", "57P05")

# Milliseconds, as PostgreSQL shows a time: 0, 200ms, 5s, 1min, 2h, 1d.
_UNITS = {"": 1, "ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_TIME = re.compile(r"(\d+)(\w*)")
_LONGEST_LIMIT = 2**31 - 1

# A statement begins at the start, after a semicolon, or after comments.
_START = r"(?:\A|;)(?:\s|--[^\n]*\n|/\*.*?\*/)*"
_PATTERNS = {
    # SET LOCAL, SET TRANSACTION and SET CONSTRAINTS end with their transaction.
    Touched.SETTINGS: (
        rf"{_START}(?:set(?!\s+(?:local|transaction|constraints)\b)|reset)\b|\b(?:set_config|pg_settings)\b"
    ),
    Touched.ROLE: rf"{_START}set\s+(?:session\s+)?(?:role|authorization|session\s+authorization)\b",
    Touched.LISTENS: rf"{_START}listen\b",
    Touched.LOCKS: r"\bpg_(?:try_)?advisory_lock(?:_shared)?\b",
    Touched.TEMPORARY: (
        r"\b(?:create\s+(?:or\s+replace\s+)?(?:local\s+|global\s+)?|into\s+)temp(?:orary)?\b|\bpg_temp\b"
    ),
    Touched.CURSORS: r"\bwith\s+hold\b",
    Touched.BEYOND_RESET: rf"{_START}(?:prepare(?!\s+transaction\b)|load)\b",
}
_COMPILED = {kind: re.compile(pattern, re.IGNORECASE | re.DOTALL) for kind, pattern in _PATTERNS.items()}
# Most statements have none of these words at all: one pass tells.
_ANY = re.compile(r"\b(?:re)?set\b|set_config|pg_settings|listen|advisory_lock|temp|hold|prepare|load", re.IGNORECASE)

_RESETS = {
    Touched.ROLE: "RESET SESSION AUTHORIZATION; RESET ROLE",
    Touched.SETTINGS: "RESET ALL",
    Touched.LISTENS: "UNLISTEN *",
    Touched.LOCKS: "SELECT pg_advisory_unlock_all()",
    Touched.TEMPORARY: "DISCARD TEMP",
    Touched.CURSORS: "CLOSE ALL",
}


def touches(statement: Any) -> Touched:
    """What *statement* (text, bytes, or an object with SQL in it) leaves behind in the session that runs it."""
    if type(statement) is str:
        return _touches(statement)
    if isinstance(statement, bytes):
        return _touches(statement.decode(errors="replace"))
    try:
        return _touches(statement.as_string())  # psycopg's composed SQL
    except Exception:
        return ANYTHING  # it is the driver's to say what is wrong with it


@lru_cache(maxsize=1024)
def _touches(statement: str) -> Touched:
    found = Touched.NOTHING
    if _ANY.search(statement):
        for kind, pattern in _COMPILED.items():
            if pattern.search(statement):
                found |= kind
    return found


def reset_statement(touched: Touched) -> str:
    """The SQL, for one round trip, that takes away what was left behind."""
    return "; ".join(sql for kind, sql in _RESETS.items() if kind & touched)


def milliseconds(shown: str) -> int:
    """A limit as the server shows it; the longest there is for none."""
    number, unit = _TIME.fullmatch(shown).groups()  # type: ignore[union-attr]
    return int(number) * _UNITS[unit] or _LONGEST_LIMIT


def note_deadline(error: BaseException, until: float) -> None:
    """The server says "statement timeout", and whose that was nobody would know."""
    if monotonic() >= until:
        error.add_note("the deadline declared for this work (penstock.deadline, or a middleware's) had passed")


def local_limit(until: float, own: int) -> str:
    """The SQL that bounds a transaction's statements by *until* (monotonic), and by the session's *own* limit (ms)."""
    left = max(1, math.ceil((until - monotonic()) * 1000))
    return f"SET LOCAL statement_timeout = {min(left, own)}"
