"""What a member's connections are named: `application_name`, which PostgreSQL shows to every role.

Each is named ``penstock:<fleet>:<member>:<service>``. The one that a member asked on last says more:
``penstock:<fleet>:<member>:<number>:<share>:<min>:<most>:<demand>:<service>``. The highest number counts, so that what
was said on another connection before need not be taken back. Where the fleet looks for its own best size (`climb`), the
work done comes before the service: ``<rate><mark><line>``, so many requests done per second under that line.

The server keeps 63 bytes. So all figures are in base 36 (0 to 9, a to z), *demand* in hundredths and *rate* in tenths,
and the service's name comes last, as the one part that may be cut off.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import Enum

LONGEST = 63  # bytes; NAMEDATALEN - 1
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,15}")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_MEMBER = re.compile(r"[0-9a-f]{8}")
_COUNT = "([0-9a-z]{1,4})"
_SAID = re.compile(f"([0-9a-z]{{1,8}}):{_COUNT}:{_COUNT}:{_COUNT}:([0-9a-z]{{1,5}}):")
_WORK = re.compile(f"([0-9a-z]{{1,4}})([@!?=]){_COUNT}:")
LARGEST_DEMAND = (36**4 - 1) / 100
LARGEST_RATE = (36**4 - 1) / 10
NUMBERS = 36**5  # a member that says something ten times a second says so many in two months


class Mark(Enum):
    """What a member says of the line."""

    EASY = "@"  # it was not in the way
    FULL = "!"  # all connections were in use, and requests waited
    TROUBLED = "?"  # connecting failed, or connections broke: the rate says nothing of the line
    DECIDES = "="  # this is the line, from now on


@dataclass(slots=True, frozen=True)
class Work:
    """What a member got done: *rate* requests per second while the line was *line*."""

    rate: float
    mark: Mark
    line: int


@dataclass(slots=True, frozen=True)
class Said:
    """What a member says of itself.

    :ivar number: of this saying, counted up.
    :ivar share: connections that it may have open.
    :ivar least: connections that are guaranteed to it.
    :ivar most: connections that it could use.
    :ivar demand: connections that it has use for, times its service's weight.
    :ivar work: what it got done; None where nobody asks.
    """

    number: int
    share: int
    least: int
    most: int
    demand: float
    work: Work | None = None


def new_member() -> str:
    return os.urandom(4).hex()


def prefix(fleet: str) -> str:
    """What the names of all connections of a fleet begin with."""
    return f"penstock:{fleet}:"


def write(fleet: str, member: str, service: str, said: Said | None = None) -> str:
    """A connection's name."""
    more = "" if said is None else _figures(said)
    start = f"{prefix(fleet)}{member}:{more}"
    if len(start) > LONGEST:  # cut off, the figures would be read as others
        raise OverflowError(f"what this process has to say of itself is longer than {LONGEST} bytes: {start}")
    return f"{start}{service}"[:LONGEST]


def longest_fleet(budget: int, least: int) -> int:
    """Letters that a fleet's name may have, so that figures up to these fit beside it."""
    work = Work(LARGEST_RATE, Mark.FULL, budget)
    said = Said(NUMBERS - 1, budget, least, budget, LARGEST_DEMAND, work)
    return LONGEST - len(f"{prefix('')}{new_member()}:{_figures(said)}")


def read(fleet: str, name: str) -> tuple[str, Said | None] | None:
    """The member and what it says of itself; None for a name that is not of this fleet's making."""
    rest = name.removeprefix(prefix(fleet))
    member, _, more = rest.partition(":")
    if rest == name or not _MEMBER.fullmatch(member):
        return None
    said = _SAID.match(more)
    if said is None:
        return member, None
    number, share, least, most, demand = (int(figure, 36) for figure in said.groups())
    return member, Said(number, share, least, most, demand / 100, _read_work(more[said.end() :]))


def _read_work(text: str) -> Work | None:
    work = _WORK.match(text)
    return None if work is None else Work(int(work[1], 36) / 10, Mark(work[2]), int(work[3], 36))


def _figures(said: Said) -> str:
    demand = round(min(said.demand, LARGEST_DEMAND) * 100)
    figures = [_base36(figure) for figure in (said.number, said.share, said.least, said.most, demand)]
    if said.work is not None:
        rate = round(min(said.work.rate, LARGEST_RATE) * 10)
        figures.append(f"{_base36(rate)}{said.work.mark.value}{_base36(said.work.line)}")
    return "".join(f"{figure}:" for figure in figures)


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits or "0"
