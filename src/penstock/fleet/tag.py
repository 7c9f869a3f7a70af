"""What a member's connections are named: `application_name`, which PostgreSQL shows to every role.

Each is named ``penstock:<fleet>:<member>:<service>``. The one that a member asked on last says more:
``penstock:<fleet>:<member>:<number>:<share>:<min>:<most>:<demand>:<service>``. The highest number counts, so that what
was said on another connection before need not be taken back. The server keeps 63 bytes: the service's name comes last,
as the one part that may be cut off.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

LONGEST = 63  # bytes; NAMEDATALEN - 1
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,15}")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_MEMBER = re.compile(r"[0-9a-f]{8}")
_SAID = re.compile(r"([0-9a-z]{1,8}):(\d{1,6}):(\d{1,6}):(\d{1,6}):(\d{1,6}\.\d\d):")


@dataclass(slots=True, frozen=True)
class Said:
    """What a member says of itself.

    :ivar number: of this saying, counted up.
    :ivar share: connections that it may have open.
    :ivar least: connections that are guaranteed to it.
    :ivar most: connections that it could use.
    :ivar demand: connections that it has use for, times its service's weight.
    """

    number: int
    share: int
    least: int
    most: int
    demand: float


def new_member() -> str:
    return secrets.token_hex(4)


def prefix(fleet: str) -> str:
    """What the names of all connections of a fleet begin with."""
    return f"penstock:{fleet}:"


def write(fleet: str, member: str, service: str, said: Said | None = None) -> str:
    """A connection's name."""
    more = "" if said is None else f"{_base36(said.number)}:{said.share}:{said.least}:{said.most}:{said.demand:.2f}:"
    return f"{prefix(fleet)}{member}:{more}{service}"[:LONGEST]


def read(fleet: str, name: str) -> tuple[str, Said | None] | None:
    """The member and what it says of itself; None for a name that is not of this fleet's making."""
    rest = name.removeprefix(prefix(fleet))
    member, _, more = rest.partition(":")
    if rest == name or not _MEMBER.fullmatch(member):
        return None
    said = _SAID.match(more)
    if said is None:
        return member, None
    number, share, least, most, demand = said.groups()
    return member, Said(int(number, 36), int(share), int(least), int(most), float(demand))


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits or "0"
