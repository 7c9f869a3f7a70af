"""What the drivers of PostgreSQL know of a session: what leaves something behind in it, and what takes it away again.

A pool cannot ask the server after each use: that would be a round trip. It reads the statements instead, as PgBouncer's
documentation lists what breaks transaction pooling: SET, LISTEN, session advisory locks, temporary tables, WITH HOLD
cursors, PREPARE, LOAD, and DO, which may hold any of them. A statement wrongly taken for one of these costs a needless
reset; what a function does to the session behind its call's back cannot be seen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from enum import Flag, auto
from functools import lru_cache
from time import monotonic
from typing import Any

from .visible import in_postgresql


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

# Longer texts were most likely generated, and will not be seen again: characters.
LONGEST_REMEMBERED = 4000

# The names of functions and views count wherever they stand, even in a literal, which may be executed.
_NAMES = {
    Touched.SETTINGS: re.compile(r"\b(?:set_config|pg_settings)\b"),
    Touched.LOCKS: re.compile(r"\bpg_(?:try_)?advisory_lock(?:_shared)?\b"),
    Touched.TEMPORARY: re.compile(r"\bpg_temp(?:_\d+)?\b"),
}
_NAME_HINTS = ("set_config", "pg_settings", "advisory_lock", "pg_temp")
_ESCAPED_NAME = 'u&"'  # U&"pg\005fadvisory_lock"

# Everything else counts where it can be a statement's own word: these read what `visible` leaves.
_START = r"(?:\A|;)\s*+"
_WORDS = {
    # SET LOCAL, SET TRANSACTION and SET CONSTRAINTS end with their transaction.
    Touched.SETTINGS: re.compile(rf"{_START}(?:set(?!\s++(?:local|transaction|constraints)\b)|reset)\b"),
    Touched.ROLE: re.compile(rf"{_START}set\s++(?:session\s++)?(?:role|authorization)\b"),
    Touched.LISTENS: re.compile(rf"{_START}listen\b"),
    Touched.TEMPORARY: re.compile(r"\b(?:create|replace|local|global|into)\s++temp(?:orary)?\b"),
    Touched.CURSORS: re.compile(r"\bwith\s++hold\b"),
    Touched.BEYOND_RESET: re.compile(rf"{_START}(?:prepare(?!\s++transaction\b)|load)\b"),
}
_CODE = re.compile(rf"{_START}do\b")  # what it puts together and executes cannot be read
_BEYOND_RESET = re.compile(r"\b(?:prepare|load)\b")
# A text without any of these need not be made visible.
_FIRST = r"\s*+(?:(?:set|reset|listen|prepare|load|do)\b|--|/\*)"
_FIRST_HINT, _LATER_HINT = re.compile(_FIRST), re.compile(f";{_FIRST}")  # apart, as the second is so found faster
_PHRASE_HINTS = ("temp", "hold")

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
        return _remembered(statement) if len(statement) <= LONGEST_REMEMBERED else _touches(statement)
    if isinstance(statement, bytes):
        return touches(statement.decode(errors="replace"))
    try:
        return touches(str(statement.as_string()))  # psycopg's composed SQL
    except Exception:
        return ANYTHING  # it is the driver's to say what is wrong with it


def _touches(statement: str) -> Touched:
    text = statement.lower()
    if _ESCAPED_NAME in text:
        return _unreadable(text)
    found = Touched.NOTHING
    if any(hint in text for hint in _NAME_HINTS):
        found |= _matching(_NAMES, text)
    if not (_FIRST_HINT.match(text) or _LATER_HINT.search(text) or any(hint in text for hint in _PHRASE_HINTS)):
        return found
    # A quote after a backslash ends a literal, or does not: that is a setting.
    visible = None if "\\'" in statement else in_postgresql(statement)  # the marks of $Literals$ have a case
    if visible is None or _CODE.search(visible := visible.lower()):
        return found | _unreadable(text)
    return found | _matching(_WORDS, visible)


_remembered = lru_cache(maxsize=1024)(_touches)


def _matching(patterns: Mapping[Touched, re.Pattern[str]], text: str) -> Touched:
    found = Touched.NOTHING
    for kind, pattern in patterns.items():
        if pattern.search(text):
            found |= kind
    return found


def _unreadable(text: str) -> Touched:
    return ANYTHING | Touched.BEYOND_RESET if _BEYOND_RESET.search(text) else ANYTHING


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
