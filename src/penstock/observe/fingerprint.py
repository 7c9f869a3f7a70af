"""What a statement does, without what it is about: nothing that it was given, or has written into it, is to be seen.

Statements that differ in their values alone have one fingerprint. A text is gone through once, from the left. Where it
cannot be told for certain where a literal ends, everything from there on is left out.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Any

LONGEST = 240  # characters of a fingerprint
_READ = 4000  # of a statement; what follows says little
_CUT = "..."

# In this order. What is left for `odd` begins a literal whose end cannot be told: it is cut off, or has a backslash
# before a quote, which another setting of the server reads otherwise. A comment in a comment is `unclear`. The `rest`
# of a line is a comment.
_COMMON = r"""
    (?P<space>\s+|/\*(?!M?!)(?:[^*/]|\*(?!/)|/(?!\*))*+\*/)
  | (?P<unclear>/\*(?!M?!))
  | (?P<given>%s|%\(\w+\)s|\$\d+|(?<![:\w]):[A-Za-z_]\w*|\?)
  | (?P<number>(?<![\w$])(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+
      |\d[\d_]*(?:\.[\d_]*)?(?:[eE][+-]?[\d_]+)?|\.[\d_]+(?:[eE][+-]?[\d_]+)?)(?![\w$]))
  | (?P<word>[^\W\d][\w$]*)
  | (?P<sign>[^'"`$])
  | (?P<odd>.)
"""
_POSTGRESQL = r"""
    (?P<literal>(?:(?<!\w)[bBxXnN]|(?<!\w)[uU]&)?'(?:[^'\\]|''|\\(?!'))*+'|(?<!\w)[eE]'(?:[^'\\]|''|\\.)*+')
  | (?P<dollar>(?<!\w)\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$)
  | (?P<name>"(?:[^"]|"")*+")
  | (?P<rest>--[^\n\r]*)
  |"""
_MYSQL = r"""
    (?P<literal>(?:(?<!\w)[bBxXnN])?'(?:[^'\\]|''|\\.)*+'|"(?:[^"\\]|""|\\.)*+")
  | (?P<name>`(?:[^`]|``)*+`)
  | (?P<rest>(?:\#|--(?=[\x00-\x20]|\Z))[^\n]*)
  |"""
_LIST = re.compile(r"\( ?\?(?: ?, ?\?)+ ?\)|(?<=\b[iI][nN] )\( ?\? ?\)")
_SET = re.compile(r"((?:^|; ?)SET (?:(?:SESSION|LOCAL|GLOBAL|PERSIST) )?[\w.@]+ ?(?:=|:=|TO\b) ?).+", re.IGNORECASE)
_LISTS = re.compile(r"(\((?:\?|\?, \.\.\.)\))(?: ?, ?\1)+")


def fingerprint(statement: Any, dialect: str = "") -> str | None:
    """*statement* (what a driver takes for one) without values, comments and needless space; None if there is none.

    :param dialect: ``"mysql"`` where a text in double quotes is a value.
    """
    text = _text(statement)
    return None if text is None else _of_text(text[:_READ], dialect == "mysql", len(text) > _READ)


@cache
def _pattern(mysql: bool) -> re.Pattern[str]:
    """Made when the first statement is seen: it takes milliseconds."""
    return re.compile((_MYSQL if mysql else _POSTGRESQL) + _COMMON, re.VERBOSE | re.DOTALL)


@lru_cache(maxsize=512)
def _of_text(text: str, mysql: bool, more: bool) -> str:
    shown: list[str] = []
    for found in _pattern(mysql).finditer(text):
        kind = found.lastgroup
        if kind in ("space", "rest"):
            if shown and shown[-1] != " ":
                shown.append(" ")
        elif kind in ("literal", "dollar", "given", "number"):
            shown.append("?")
        elif kind in ("unclear", "odd"):
            shown.append(_CUT)
            break
        else:
            shown.append(found[0])
    else:
        if more:
            shown.append(_CUT)
    whole = _SET.sub(r"\1?", "".join(shown).strip())  # a setting's value may be a bare word
    folded = _LISTS.sub(r"\1, ...", _LIST.sub("(?, ...)", whole))
    return folded if len(folded) <= LONGEST else folded[: LONGEST - len(_CUT)] + _CUT


def _text(statement: Any) -> str | None:
    """What is sent, as text. An object that makes its text as it is sent may hold values: only what it is, is told."""
    if statement is None or isinstance(statement, str):
        return statement
    if isinstance(statement, (bytes, bytearray)):
        return statement.decode(errors="replace")
    try:
        return str(statement.as_string(None))  # psycopg.sql, and psycopg2's where no connection is needed
    except Exception:
        return f"<{type(statement).__name__}>"


def dialect(source: Any) -> str:
    """What the server behind *source* speaks, as far as that matters here: ``"mysql"``, or nothing."""
    driver = getattr(source, "_driver", source)
    return str(getattr(getattr(driver, "driver", driver), "dialect", ""))  # over threads, the one beneath
