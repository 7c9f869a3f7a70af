"""What the drivers of MySQL and MariaDB know of a session: what leaves something behind in it.

As `session` does for PostgreSQL. What was left behind is taken away by COM_RESET_CONNECTION, all of it at once, and
what the login had set is set again. A statement wrongly taken for one of these costs a needless reset; what a stored
procedure does to the session behind its call's back cannot be seen.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from .session import Touched

# What only the server's own reset of the session takes away.
LEFT_BEHIND = Touched.SETTINGS | Touched.LOCKS | Touched.TEMPORARY | Touched.CURSORS

# A statement begins at the start, after a semicolon, or after comments. /*! ... */ and /*M! ... */ are none: they are
# executed.
_START = r"(?:\A|;)(?:\s|--[^\n]*\n|\#[^\n]*\n|/\*(?!M?!).*?\*/)*"
_PATTERNS = {
    # SET STATEMENT ends with its statement. SET TRANSACTION does so with the next transaction, which may be another's.
    Touched.SETTINGS: (
        rf"{_START}(?:set(?!\s+(?:statement|global|password)\b)|use)\b|/\*M?!"
        r"|@[\w.$`'\"]+\s*:=|\binto\s+@|^\s*xa\b"
    ),
    Touched.LOCKS: (
        rf"{_START}(?:lock|unlock)\b|\b(?:get_lock|release_lock|release_all_locks)\s*\(|\bwith\s+read\s+lock\b|\bbackup\b"
    ),
    Touched.TEMPORARY: r"\bcreate\s+(?:or\s+replace\s+)?temporary\b",
    Touched.CURSORS: rf"{_START}(?:handler|prepare|deallocate|drop\s+prepare)\b",
}
_COMPILED = {kind: re.compile(pattern, re.IGNORECASE | re.DOTALL) for kind, pattern in _PATTERNS.items()}
# Most statements have none of these at all: one pass tells.
_ANY = re.compile(r"\bset\b|\buse\b|@|lock|temporary|handler|prepare|\bxa\b|backup|/\*M?!", re.IGNORECASE)

# What may leave a transaction open in autocommit, and what ends one.
_OPENS = re.compile(rf"{_START}(?:begin|start|call|execute|xa|set)\b|/\*M?!", re.IGNORECASE | re.DOTALL)
_ENDS = re.compile(rf"{_START}(?:commit|rollback)(?!.*\bto\b)(?!.*\bchain\b)", re.IGNORECASE | re.DOTALL)


def touches(statement: Any) -> Touched:
    """What *statement* (text or bytes) leaves behind in the session that runs it."""
    return _touches(_text(statement))


def may_begin(statement: Any) -> bool:
    """Whether *statement* may leave a transaction open although each statement is one of its own (autocommit)."""
    return _OPENS.search(_text(statement)) is not None


def ends(statement: Any) -> bool:
    """Whether *statement* ends the transaction, and begins none. Only what begins with it: it may be one of several."""
    text = _text(statement)
    return ";" not in text.rstrip("; \n") and _ENDS.match(text) is not None


def _text(statement: Any) -> str:
    if isinstance(statement, str):
        return statement
    return bytes(statement).decode(errors="replace") if isinstance(statement, (bytes, bytearray)) else str(statement)


@lru_cache(maxsize=1024)
def _touches(statement: str) -> Touched:
    found = Touched.NOTHING
    if _ANY.search(statement):
        for kind, pattern in _COMPILED.items():
            if pattern.search(statement):
                found |= kind
    return found
