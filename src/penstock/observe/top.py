"""What `penstock top` shows of pools: the documents of many processes, put in the order in which they matter.

The line comes first: how much of what may be in use is in use. Then who waits, then who holds longest and where that
code stands now. Documents come from other processes, of other versions perhaps: what is not as it should be is left
out, and said to be so.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .document import VERSION
from .telemetry.reader import Found

NO_LIMIT = 1_000_000  # connections that mean as many as anybody likes
LATE = 0.1  # seconds by which an event loop is late that are worth a word

_LIBRARY = re.compile(r"/lib/python\d|-packages/|^<frozen ")
_UNPRINTABLE = re.compile(r"[^ -~\xa1-\U0010ffff]|[\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


@dataclass(slots=True, frozen=True)
class PoolRow:
    """One pool of one process. Connections, or requests.

    :ivar size: how many there may be; None where there is no limit.
    :ivar rate: leases that ended in a second, since the frame before; None if there was none.
    :ivar refused: requests refused since then; with no frame before, ever.
    :ivar trouble: what is wrong, in words; empty when nothing is.
    """

    pid: int
    title: str
    name: str
    used: int
    open: int
    size: int | None
    waiting: int
    rate: float | None
    refused: int
    trouble: tuple[str, ...]

    @property
    def share(self) -> float:
        return self.used / self.size if self.size else 0.0

    @property
    def urgency(self) -> tuple[float, ...]:
        """What is wrong comes before those who wait: it may be why they do."""
        return (-len(self.trouble), -self.waiting, -self.share, -self.used)


@dataclass(slots=True, frozen=True)
class HolderRow:
    """A connection in somebody's hands. Seconds.

    :ivar now_at: the line of the program's own where its code stands, or else of a library's.
    """

    pid: int
    pool: str
    site: str
    owner: str
    held: float
    idle: float | None
    status: str
    statement: str | None
    now_at: str | None


@dataclass(slots=True, frozen=True)
class Held:
    """Connections taken at one line of code, in whatever process: the *longest* held, how many, and how many idle."""

    longest: HolderRow
    count: int
    idle: int


@dataclass(slots=True, frozen=True)
class Use:
    """Connections on average, over all processes: *what* held them, and *idle* of them in hand with nothing to do."""

    what: str
    connections: float
    idle: float = 0.0


@dataclass(slots=True, frozen=True)
class FleetRow:
    name: str
    budget: int
    claimed: int
    members: int
    line: int | None
    hint: str | None


@dataclass(slots=True)
class Frame:
    """All of it at one moment, each list the most urgent first.

    :ivar unread: processes that did not tell, and why.
    """

    at: float
    processes: int = 0
    pools: list[PoolRow] = field(default_factory=list)
    holders: list[Held] = field(default_factory=list)
    sites: list[Use] = field(default_factory=list)
    statements: list[Use] = field(default_factory=list)
    fleets: list[FleetRow] = field(default_factory=list)
    alerts: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    totals: dict[tuple[int, str], tuple[float, int, int]] = field(default_factory=dict)  # for the next frame

    @property
    def used(self) -> int:
        """Of pools that have a limit, as is `size`."""
        return sum(row.used for row in self.pools if row.size is not None)

    @property
    def unbounded(self) -> int:
        """In use of what has no limit."""
        return sum(row.used for row in self.pools if row.size is None)

    @property
    def open(self) -> int:
        return sum(row.open for row in self.pools)

    @property
    def size(self) -> int:
        return sum(row.size for row in self.pools if row.size is not None)

    @property
    def waiting(self) -> int:
        return sum(row.waiting for row in self.pools)


def frame(found: Found, at: float, before: Frame | None = None) -> Frame:
    """What there is to show of *found*, and of what has changed since the frame *before*."""
    made = Frame(at)
    parts: list[_Process] = []
    for document in found.documents:
        try:
            parts.append(_Process(document, before))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            made.unread.append(f"{_pid(document)}: its document is none of this version's")
    made.unread += [f"{silent.pid}: {printable(silent.why)}" for silent in found.silent]
    made.processes = len(parts)
    made.pools = sorted((row for part in parts for row in part.pools), key=lambda row: row.urgency)
    made.holders = _by_site(row for part in parts for row in part.holders)
    made.sites = _most(use for part in parts for use in part.sites)
    made.statements = _most(use for part in parts for use in part.statements)
    made.fleets = _newest(fleet for part in parts for fleet in part.fleets)
    made.alerts = [alert for part in parts for alert in part.alerts]
    made.totals = {key: total for part in parts for key, total in part.totals.items()}
    return made


class _Process:
    """One document, read.

    :raises AttributeError: (IndexError, KeyError, TypeError or ValueError) when it is not as it should be.
    """

    def __init__(self, document: Mapping[str, Any], before: Frame | None) -> None:
        if document["version"] != VERSION:
            raise ValueError
        self.pid = int(document["pid"])
        self.title = printable(document["title"])
        self.now = float(document["now"])
        self.totals: dict[tuple[int, str], tuple[float, int, int]] = {}
        self.pools: list[PoolRow] = []
        self.holders: list[HolderRow] = []
        self.sites: list[Use] = []
        self.statements: list[Use] = []
        self.fleets: list[tuple[float, FleetRow]] = []
        self.alerts = [f"{self.pid}: {_alert(alert)}" for alert in document.get("alerts") or []]
        for source in document["sources"]:
            if source["error"] is not None:
                self.alerts.append(f"{self.pid}: {printable(source['name'])}: {printable(source['error'])}")
            elif not source["figures"]["closed"] or source["holders"]:
                self._read(source, before)

    def _read(self, source: Mapping[str, Any], before: Frame | None) -> None:
        name, figures = printable(source["name"]), source["figures"]
        refused, uses = sum(figures["refusals"].values()), int(figures["uses"])
        key = (self.pid, name)
        self.totals[key] = (self.now, uses, refused)
        then = None if before is None else before.totals.get(key)
        rate = None
        if then is not None and self.now > then[0] and uses >= then[1]:
            rate, refused = (uses - then[1]) / (self.now - then[0]), max(0, refused - then[2])
        size, used = int(figures["max_size"]), int(figures["leased"])
        trouble = tuple(_trouble(source, figures))
        limit = size if 0 < size < NO_LIMIT else None
        row = PoolRow(
            *(self.pid, self.title, name, used, int(figures["open"]), limit, int(figures["waiting"])),
            *(rate, refused, trouble),
        )
        self.pools.append(row)
        self.holders += [self._holder(name, holder) for holder in source["holders"]]
        profile = source["profile"]
        if seconds := float(profile["seconds"]):
            self.sites += [
                Use(_site(each["site"]), each["held"] / seconds, each["idle"] / seconds) for each in profile["sites"]
            ]
            self.statements += [
                Use(printable(each["statement"]), each["ran"] / seconds) for each in profile["statements"]
            ]
        if (fleet := source["fleet"]) is not None and fleet["age"] is not None:
            hint = None if fleet["hint"] is None else printable(fleet["hint"])
            shown = FleetRow(
                printable(fleet["name"]), fleet["budget"], fleet["claimed"], fleet["members"], fleet["line"], hint
            )
            self.fleets.append((float(fleet["age"]), shown))

    def _holder(self, pool: str, holder: Mapping[str, Any]) -> HolderRow:
        return HolderRow(
            pid=self.pid,
            pool=pool,
            site=_site(holder["site"]),
            owner=printable(holder["owner"]),
            held=float(holder["held"]),
            idle=None if holder["idle"] is None else float(holder["idle"]),
            status=printable(holder["status"]),
            statement=None if holder["statement"] is None else printable(holder["statement"]),
            now_at=None if (here := own_place(holder["stack"])) is None else _site(here),
        )


def _trouble(source: Mapping[str, Any], figures: Mapping[str, Any]) -> Iterable[str]:
    if figures["database_down"]:
        error = figures["last_error"]
        yield "database down" + (f": {printable(error)}" if error else "")
    elif figures["sick"]:
        yield "the database ends connections in use"
    if figures["overloaded"]:
        yield "overloaded"
    if figures["paused"]:
        yield "paused"
    if figures["closed"]:
        yield "closed, with connections still out"
    loop = source["loop"]
    if loop is not None and loop["worst"] > LATE:
        yield f"loop {loop['worst']:.1f} s late"
    if suspects := figures["suspects"]:
        yield f"{suspects} suspected leak{'s' * (suspects != 1)}"


def _alert(alert: Mapping[str, Any]) -> str:
    return printable(f"{alert['pool']}: {alert['kind']}: {alert['why']}")


def _site(place: Mapping[str, Any]) -> str:
    return printable(f"{place['file']}:{place['line']} in {place['function']}")


def _by_site(rows: Iterable[HolderRow]) -> list[Held]:
    found: defaultdict[str, list[HolderRow]] = defaultdict(list)
    for row in rows:
        found[row.site].append(row)
    groups = [
        Held(max(group, key=lambda row: row.held), len(group), sum(row.idle is not None for row in group))
        for group in found.values()
    ]
    return sorted(groups, key=lambda group: -group.longest.held)


def own_place(stack: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The innermost line of the program's own where a holder stands, or else of a library's."""
    own = (place for place in stack if not _LIBRARY.search(str(place["file"])))
    return next(own, stack[0] if stack else None)


def _most(uses: Iterable[Use]) -> list[Use]:
    """Of all processes together, the most first."""
    found: dict[str, Use] = {}
    for use in uses:
        had = found.get(use.what, Use(use.what, 0.0))
        found[use.what] = Use(use.what, had.connections + use.connections, had.idle + use.idle)
    return sorted(found.values(), key=lambda use: -use.connections)


def _newest(seen: Iterable[tuple[float, FleetRow]]) -> list[FleetRow]:
    """Each fleet as that member sees it who has looked last."""
    found: dict[str, tuple[float, FleetRow]] = {}
    for age, fleet in seen:
        if fleet.name not in found or age < found[fleet.name][0]:
            found[fleet.name] = (age, fleet)
    return [fleet for _, (_, fleet) in sorted(found.items())]


def _pid(document: Mapping[str, Any]) -> str:
    return printable(document.get("pid"))


def printable(text: Any) -> str:
    """*text* as a terminal may have it: whatever could move its cursor, or turn its writing round, is a "?"."""
    return _UNPRINTABLE.sub("?", str(text))


def shortened(path: str, length: int) -> str:
    """The end of *path* says more than its beginning."""
    return path if len(path) <= length else "..." + path[len(path) - length + 3 :]


def shown(rows: Sequence[Any], room: int) -> tuple[Sequence[Any], int]:
    """As many rows as there is room for, and how many are left out: never a line about leaving out one."""
    if len(rows) <= room:
        return rows, 0
    return rows[: max(0, room - 1)], len(rows) - max(0, room - 1)
