"""A statement's text without what it only says: without its comments, and without what its literals hold.

Each text is gone through once, from the left, so the time grows with its length and no faster, whatever is in it.

PostgreSQL's is read as versions 15 to 18 read it (src/backend/parser/scan.l), with standard_conforming_strings on;
MySQL's and MariaDB's as without NO_BACKSLASH_ESCAPES. Those are the defaults.
"""

from __future__ import annotations

import re

# Whatever hides what it holds: first the mark that it begins with, then the rest. A literal may go on in the next line,
# E'' as E''.
_NAME = r"A-Za-z0-9_$\x80-\U0010ffff"
_ESCAPING = r"(?:[^'\\]++|\\.|'')*+'"
_NEXT_LINE = r"(?:[ \t\f\v]|--[^\n\r]*+)*+[\n\r](?:[ \t\n\r\f\v]++|--[^\n\r]*+[\n\r])*+'"
_HIDING = re.compile(
    rf"""['"$/-](?:"""
    rf"""(?P<line>(?<=-)-[^\n\r]*+)"""
    rf"""|(?P<comment>(?<=/)\*)"""
    rf"""|(?P<dollar>(?<=\$)(?<![{_NAME}]\$)[{_NAME.replace("$", "")}]*+\$)"""
    rf"""|(?P<escaping>(?<=(?<![{_NAME}])[eE]'){_ESCAPING}(?:{_NEXT_LINE}{_ESCAPING})*+)"""
    rf"""|(?P<literal>(?<=')(?<!(?<![{_NAME}])[eE]')(?:[^']++|'')*+')"""
    rf"""|(?P<name>(?<=")(?<!(?<![{_NAME}])[uU]&")(?:[^"]++|"")*+")"""
    rf"""|(?P<unreadable>(?<=['"])))""",
    re.DOTALL,
)
_COMMENT_BOUND = re.compile(r"/\*|\*/")
_ORDINARY_NAME = re.compile(r'"[\w$]+"')

# MySQL's. A second dash begins a comment only before a space. /*! and /*M! begin none: what they hold is executed.
_MYSQL_HIDING = re.compile(
    r"""['"`#/-](?:"""
    r"""(?<=\#)[^\n]*+"""
    r"""|(?<=-)-(?=[\x00-\x20]|\Z)[^\n]*+"""
    r"""|(?<=/)\*(?!M?!)(?:[^*]++|\*(?!/))*+\*/"""
    r"""|(?<=')(?:[^'\\]++|\\.|'')*+'"""
    r"""|(?<=")(?:[^"\\]++|\\.|"")*+\""""
    r"""|(?<=`)(?:[^`]++|``)*+`"""
    r"""|(?P<unreadable>(?<=['"`])|(?<=/)\*(?!M?!)))""",
    re.DOTALL | re.IGNORECASE,
)


def in_postgresql(statement: str) -> str | None:
    """*statement* without comments, and without what its literals and odd names hold; None if that cannot be told."""
    if "\0" in statement:  # the server would read to there
        return None
    visible, end = [], 0
    while found := _HIDING.search(statement, end):
        visible.append(statement[end : found.start()])
        hidden = _hidden(statement, found)
        if hidden is None:
            return None
        end, instead = hidden
        visible.append(instead)
    visible.append(statement[end:])
    return "".join(visible)


def _hidden(statement: str, found: re.Match[str]) -> tuple[int, str] | None:
    """Where what begins with *found* ends, and what to read in its place."""
    match found.lastgroup:
        case "line":
            return found.end(), " "
        case "comment":
            return (end, " ") if (end := _comment_end(statement, found.start())) else None
        case "dollar":
            end = statement.find(found[0], found.end())
            return (end + len(found[0]), "''") if end >= 0 else None
        case "literal" | "escaping":
            return found.end(), "''"
        case "name":  # quoted or not, it may be a function's
            return found.end(), found[0] if _ORDINARY_NAME.fullmatch(found[0]) else '"?"'
        case _:
            return None


def _comment_end(statement: str, start: int) -> int | None:
    """They nest."""
    depth = 0
    for bound in _COMMENT_BOUND.finditer(statement, start):
        depth += 1 if bound[0] == "/*" else -1
        if not depth:
            return bound.end()
    return None


def in_mysql(statement: str) -> str | None:
    """*statement* without comments, quoted names and what its literals hold; None if that cannot be told."""
    visible, end = [], 0
    for found in _MYSQL_HIDING.finditer(statement):
        if found["unreadable"] is not None:
            return None
        visible.append(statement[end : found.start()])
        end = found.end()
    visible.append(statement[end:])
    return " ".join(visible)
