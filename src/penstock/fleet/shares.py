"""How a fleet's budget is shared out. Arithmetic only: every member computes the same from what all can see.

    share = least + (capacity - all leasts) x demand / all demand

where capacity is the budget less the room that is kept for those who are about to join: each of them needs a
connection to ask with, before it can be counted. What a member *claims* is the larger of its published share and the
connections that it has; the claims together never pass the budget.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from . import tag
from .tag import Mark, Said, Work

ROOM = 20  # one in so many connections is kept for who joins
LEAST_DEMAND = 0.05  # of who does nothing: enough to get more than nothing where all are idle


@dataclass(slots=True, frozen=True)
class Member:
    """One process, as the server shows it.

    :ivar count: connections that it has.
    :ivar said: what it says of itself; None if it says nothing (it has just come, or lost the connection that said so).
    """

    name: str
    count: int
    said: Said | None

    @property
    def claim(self) -> int:
        return self.count if self.said is None else max(self.count, self.said.share)

    @property
    def work(self) -> Work | None:
        """What it says that it got done; of the member that decides the line, that line."""
        return None if self.said is None else self.said.work


class Decider(NamedTuple):
    """The member that decides the fleet's line, and that line."""

    name: str
    line: int


@dataclass(slots=True, frozen=True)
class View:
    """A fleet at one moment.

    :ivar budget: connections that all may have.
    :ivar expected: members at most; None if that is not declared.
    :ivar members: those that there are, by name.
    :ivar strangers: connections of the same role in the same database that are no member's, beyond those declared.
    :ivar line: connections that are the best for the fleet, where it looks for that (`climb`); None for no such line.
    :ivar asked_on_one: whether asking took a connection, so that room is kept for those of who joins.
    :ivar settling: seconds until it is sure that this is all of it; nobody takes more before that.
    """

    budget: int
    expected: int | None
    members: Mapping[str, Member]
    strangers: int
    line: int | None = None
    asked_on_one: bool = True
    settling: float = 0.0

    @property
    def claimed(self) -> int:
        """Connections that the members claim."""
        return sum(member.claim for member in self.members.values())

    @property
    def taken(self) -> int:
        """Of the budget: by members, and by strangers."""
        return self.claimed + self.strangers

    @property
    def room(self) -> int:
        """Connections kept for who joins. The last one always: somebody may have to come again, or one too many may."""
        if not self.asked_on_one:
            return 0
        return max(1, min(self.to_come + 1, most_room(self.budget), self.budget - len(self.members)))

    @property
    def to_come(self) -> int:
        """Members that there may be besides."""
        return self.budget if self.expected is None else max(0, self.expected - len(self.members))

    @property
    def may_join(self) -> bool:
        """Whether the claims leave who joined last its place, and the next one some to ask on."""
        return self.taken <= self.budget - (self.room + 1) // 2

    @property
    def usable(self) -> int:
        """Connections that the budget leaves to the members there are."""
        return self.budget - self.room - self.strangers

    @property
    def capacity(self) -> int:
        """Connections that they may claim together."""
        return self.usable if self.line is None else min(self.usable, self.line)

    @property
    def guaranteed(self) -> int:
        """Connections that they have been promised, whatever the others need."""
        return sum(1 if member.said is None else max(1, member.said.least) for member in self.members.values())

    @property
    def decider(self) -> Decider | None:
        """Who decides the line: of several who do, the first by name. None if nobody does."""
        works = [(name, self.members[name].work) for name in sorted(self.members)]
        return next((Decider(name, w.line) for name, w in works if w is not None and w.mark is Mark.DECIDES), None)

    @property
    def lacking(self) -> bool:
        """Whether somebody has less than is guaranteed to it, or by more than one less than it should have."""
        shares = self.shares()
        return any(
            member.claim < shares[name] - 1 or (member.said is not None and member.claim < member.said.least)
            for name, member in self.members.items()
        )

    @property
    def mean_demand(self) -> float:
        """Of those who say: what is assumed of who has nothing to go by yet."""
        said = [member.said.demand for member in self.members.values() if member.said is not None]
        return sum(said) / len(said) if said else LEAST_DEMAND

    def shares(self) -> dict[str, int]:
        """What each member should have: the same for whoever asks."""
        names = sorted(self.members)
        silent = Said(0, 1, 1, self.budget, self.mean_demand)
        said = [self.members[name].said or silent for name in names]
        given = share_out(
            self.capacity,
            [max(1, each.least) for each in said],
            [max(1, each.most) for each in said],
            [max(LEAST_DEMAND, each.demand) for each in said],
        )
        return dict(zip(names, given, strict=True))


def most_room(budget: int) -> int:
    return max(2, budget // ROOM)


def view(
    fleet: str, names: Iterable[tuple[str, int]], budget: int, expected: int | None = None, declared: int = 0
) -> View:
    """What can be seen, from the names of connections and how many have each.

    *declared*: connections with other names that were taken off the budget already.
    """
    counts: Counter[str] = Counter()
    said: dict[str, Said] = {}
    strangers = 0
    for name, count in names:
        found = tag.read(fleet, name)
        if found is None:
            strangers += count
            continue
        member, says = found
        counts[member] += count
        if says is not None and (member not in said or _order(says) > _order(said[member])):
            said[member] = says
    members = {name: Member(name, count, said.get(name)) for name, count in counts.items()}
    return View(budget, expected, members, max(0, strangers - declared))


def _order(said: Said) -> tuple[int, str]:
    """The later one counts. No member says two things under one number; should one, all are to take the same for it."""
    return said.number, repr(said)


def share_out(total: int, least: Sequence[int], most: Sequence[int], weights: Sequence[float]) -> list[int]:
    """Whole numbers that add up to *total*: to each its least, and of the rest a part by weight, up to its most.

    Where the leasts are more than there is, each has one as far as it goes. Fractions go to the largest remainders
    (Hamilton's method), among equals to the first.
    """
    given = [min(low, high) for low, high in zip(least, most, strict=True)]
    if sum(given) > total:
        given = [1] * len(given)
    rest = total - sum(given)
    while rest > 0:
        open_to = [index for index, high in enumerate(most) if given[index] < high]
        parts = _by_weight(rest, [weights[index] for index in open_to])
        if not open_to:
            break
        for index, part in zip(open_to, parts, strict=True):
            given[index] = min(most[index], given[index] + part)
        rest = total - sum(given)
    return given


def _by_weight(total: int, weights: Sequence[float]) -> list[int]:
    whole = sum(weights)
    exact = [total * weight / whole for weight in weights]
    parts = [int(part) for part in exact]
    by_remainder = sorted(range(len(parts)), key=lambda index: (parts[index] - exact[index], index))
    for index in by_remainder[: total - sum(parts)]:
        parts[index] += 1
    return parts
