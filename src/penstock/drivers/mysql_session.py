"""What the drivers of MySQL and MariaDB know of a session: what leaves something behind in it.

As `session` does for PostgreSQL. What was left behind is taken away by COM_RESET_CONNECTION, all of it at once, and
what the login had set is set again. A statement wrongly taken for one of these costs a needless reset; what a stored
procedure does to the session behind its call's back cannot be seen.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

from .session import LONGEST_REMEMBERED, Touched
from .visible import in_mysql

# What only the server's own reset of the session takes away.
LEFT_BEHIND = Touched.SETTINGS | Touched.LOCKS | Touched.TEMPORARY | Touched.CURSORS

# The names of functions count wherever they stand, even in a literal, which may be executed.
_LOCKS = re.compile(r"\b(?:get_lock|release_lock|release_all_locks)\b")

# Everything else counts where it can be a statement's own word: these read what `visible` leaves. A statement begins at
# the start, after a semicolon, or after SET STATEMENT ... FOR.
_START = r"(?:\A|;|\bfor\b)\s*+"
# MariaDB's without a procedure: BEGIN NOT ATOMIC, or BEGIN in its mode ORACLE; IF, CASE, LOOP, `label:` ...
_CODE = r"begin\b(?!(?:\s++work\b)?\s*+(?:;|\Z))|(?:declare|if|case|loop|while|repeat|for)\b|\w++\s*+:(?!=)"
_WORDS = {
    # A user's variable, wherever it stands, and what is executed though it looks like a comment. SET STATEMENT ends
    # with its statement, SET GLOBAL and SET PASSWORD are not the session's, but more may follow in their list. SET
    # TRANSACTION is for the next one, which may be another's.
    Touched.SETTINGS: re.compile(
        rf"(?<!@)@(?!@)|/\*m?!|{_START}(?:(?:set(?!\s++(?:statement\b|(?:global|password)\b[^;,]*+(?:;|\Z)))|use|xa"
        rf"|execute\s++immediate)\b|{_CODE})"
    ),
    Touched.LOCKS: re.compile(rf"{_START}(?:lock|unlock)\b|\bwith\s++read\s++lock\b|\bbackup\b"),
    Touched.TEMPORARY: re.compile(r"\b(?:create|replace)\s++temporary\b"),
    Touched.CURSORS: re.compile(rf"{_START}(?:handler|prepare|deallocate|drop\s++prepare)\b"),
}

# What may leave a transaction open in autocommit, and what ends one.
_OPENS = re.compile(rf"{_START}(?:(?:begin|start|call|execute|xa|set)\b|{_CODE})|/\*m?!")
_ENDS = re.compile(r"\s*+(?:commit|rollback)\b(?!.*\b(?:to|chain)\b)", re.DOTALL)

# A text without any of these need not be made visible.
_FIRST = (
    r"\s*+(?:(?:set|use|xa|execute|lock|unlock|handler|prepare|deallocate|drop\s++prepare|begin|start|call"
    r"|declare|if|case|loop|while|repeat|for|commit|rollback)\b|\w++\s*+:|--|\#|/\*)"
)
_FIRST_HINT, _LATER_HINT = re.compile(_FIRST), re.compile(f";{_FIRST}")  # apart, as the second is so found faster
_HINTS = ("@", "/*!", "/*m!", "read", "backup", "temporary")


class _Read(NamedTuple):
    touched: Touched
    opens: bool
    ends: bool


def touches(statement: Any) -> Touched:
    """What *statement* (text or bytes) leaves behind in the session that runs it."""
    text = _text(statement)
    return (_remembered(text) if len(text) <= LONGEST_REMEMBERED else _reading(text)).touched


def may_begin(statement: Any) -> bool:
    """Whether *statement* may leave a transaction open although each statement is one of its own (autocommit)."""
    text = _text(statement)
    return (_remembered(text) if len(text) <= LONGEST_REMEMBERED else _reading(text)).opens


def ends(statement: Any) -> bool:
    """Whether *statement* ends the transaction, and begins none. Only what begins with it: it may be one of several."""
    text = _text(statement)
    return (_remembered(text) if len(text) <= LONGEST_REMEMBERED else _reading(text)).ends


def _text(statement: Any) -> str:
    if isinstance(statement, str):
        return statement
    return bytes(statement).decode(errors="replace") if isinstance(statement, (bytes, bytearray)) else str(statement)


def _reading(statement: str) -> _Read:
    text = statement.lower()
    found = Touched.LOCKS if "_lock" in text and _LOCKS.search(text) else Touched.NOTHING
    if not (_FIRST_HINT.match(text) or _LATER_HINT.search(text) or any(hint in text for hint in _HINTS)):
        return _Read(found, opens=False, ends=False)
    # A quote after a backslash ends a literal, or does not: that is a setting.
    visible = None if "\\'" in text or '\\"' in text else in_mysql(text)
    if visible is None:
        return _Read(LEFT_BEHIND, opens=True, ends=False)
    for kind, pattern in _WORDS.items():
        if pattern.search(visible):
            found |= kind
    alone = ";" not in visible.rstrip("; \n")
    return _Read(found, _OPENS.search(visible) is not None, alone and _ENDS.match(visible) is not None)


_remembered = lru_cache(maxsize=1024)(_reading)
