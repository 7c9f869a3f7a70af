"""What each key of a budget file may be. A check returns what is wrong with a value, in words, or None."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Check = Callable[[object], str | None]

MOST = 1_000_000  # of anything that is counted: more is a slip of the finger
MOST_CONNECTIONS = 262_143  # PostgreSQL takes no more
WEIGHTS = (0.001, 1000)

_SHORT = re.compile(r"[a-z0-9][a-z0-9_-]{0,15}")
_LONG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_PERCENTAGE = re.compile(r"[0-9]{1,4}%")
_VARIABLE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://\S+")


@dataclass(frozen=True, slots=True)
class Key:
    check: Check
    required: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of table.

    :ivar noun: what one of them is called.
    :ivar name: checks the name of one.
    :ivar tables: tables of tables in it, by the key under which they stand.
    """

    noun: str
    name: Check
    keys: dict[str, Key]
    tables: dict[str, Kind]


def shown(value: object) -> str:
    """*value* as TOML would have it, for an error. What may be a connection string is not shown."""
    if isinstance(value, str):
        return f'"{plain(value)}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    return plain(str(value))


def plain(text: str) -> str:
    """*text* cut short and on one line; none of it when it may hold a password."""
    if "://" in text or "password" in text.lower() or "@" in text:
        return "(not shown: it may hold a password)"
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= 40 else text[:37] + "..."


def nearest(name: str, known: Iterable[str]) -> str:
    """Which of *known* was meant, or which there are."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {plain(close[0])}?"
    return f"there {'is' if len(known) == 1 else 'are'} {', '.join(map(plain, known))}" if known else "there are none"


def whole(at_least: int, at_most: int = MOST) -> Check:
    def check(value: object) -> str | None:
        if isinstance(value, str) and value.isascii() and value.isdigit():
            return f"must be a whole number, not {shown(value)}: leave out the quotes"
        if not isinstance(value, int) or isinstance(value, bool):
            return f"must be a whole number, not {shown(value)}"
        if value < at_least:
            return f"must be at least {at_least}, not {shown(value)}"
        return f"must be at most {at_most}, not {shown(value)}" if value > at_most else None

    return check


def weight(value: object) -> str | None:
    low, high = WEIGHTS
    may_be = f"must be a number from {low} to {high}"
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return f"{may_be}, not {shown(value)}"
    return None if low <= value <= high else f"{may_be}, not {shown(value)}"


def surge(value: object) -> str | None:
    if isinstance(value, str) and _PERCENTAGE.fullmatch(value):
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST:
        return None
    return f'must be a count such as 1 or a percentage such as "25%", not {shown(value)}'


def truth(value: object) -> str | None:
    return None if isinstance(value, bool) else f"must be true or false, not {shown(value)}"


def reference(value: object) -> str | None:
    return None if isinstance(value, str) and value else f"must be a name in quotes, not {shown(value)}"


def url(value: object) -> str | None:
    # Never with the value: it may hold a password.
    if isinstance(value, str) and (_VARIABLE.fullmatch(value) or _URL.fullmatch(value)):
        return None
    return 'must be a URL such as "postgresql://app@host/shop", or "env:NAME" for the variable that has it'


def short_name(value: object) -> str | None:
    if isinstance(value, str) and _SHORT.fullmatch(value):
        return None
    found = f"one of {len(value)} characters" if isinstance(value, str) and len(value) > 16 else shown(value)
    return f"a name here must be 1 to 16 of a-z, 0-9, - and _, and begin with a letter or digit, not {found}"


def long_name(value: object) -> str | None:
    if isinstance(value, str) and _LONG.fullmatch(value):
        return None
    found = f"one of {len(value)} characters" if isinstance(value, str) and len(value) > 63 else shown(value)
    return f"a name here must be 1 to 63 letters, digits, dots, - and _, and begin with a letter or digit, not {found}"


SIDE_POOL = Kind(
    "side pool",
    long_name,
    {"processes": Key(whole(1), required=True), "size": Key(whole(1), required=True)},
    {},
)

# Names of databases and services become part of application_name, of which PostgreSQL keeps 63 bytes.
TOP: dict[str, Kind] = {
    "databases": Kind(
        "database",
        short_name,
        {
            "url": Key(url),
            "max_connections": Key(whole(1, MOST_CONNECTIONS)),
            "reserved": Key(whole(0, MOST_CONNECTIONS)),
            "headroom": Key(whole(0, MOST_CONNECTIONS)),
            "fleet": Key(truth),
        },
        {},
    ),
    "services": Kind(
        "service",
        short_name,
        {
            "database": Key(reference),
            "through": Key(reference),
            "replicas": Key(whole(1), required=True),
            "surge": Key(surge),
            "processes": Key(whole(1)),
            "weight": Key(weight),
            "min": Key(whole(1)),
            "max": Key(whole(1)),
        },
        {"side_pools": SIDE_POOL},
    ),
    "poolers": Kind(
        "pooler",
        long_name,
        {
            "database": Key(reference, required=True),
            "instances": Key(whole(1)),
            "pool_size": Key(whole(1), required=True),
            "max_clients": Key(whole(1)),
            "url": Key(url),
        },
        {},
    ),
    "consumers": Kind(
        "consumer",
        long_name,
        {"database": Key(reference, required=True), "connections": Key(whole(0), required=True)},
        {},
    ),
}

Tree = dict[str, Any]
