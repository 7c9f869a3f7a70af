"""What an application really sets, held against the budget.

    connections of a program = (replicas + surge) x processes x what each process may open

Every figure comes from the application's own files where they have it, and from the budget where they do not. What
neither tells is unknown: it is said, and it is never counted as fine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .formula import count, extra_instances, ways_out
from .model import Budget, Service
from .names import whose
from .readers.facts import Bound, Fact, Opens, Place
from .readers.tree import Program, survey
from .shares import Account

Level = Literal["breaks", "unknown", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to be said about the application.

    :ivar breaks: it passes the budget; otherwise it is not known, or worth knowing.
    :ivar instead: what to write or do, each with its figure.
    :ivar because: where the figures come from.
    """

    level: Level
    place: Place
    what: str
    instead: tuple[str, ...] = ()
    because: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.place}: {self.what}"


@dataclass(frozen=True, slots=True)
class Use:
    """What a program may hold at the worst moment; a figure that is not known is None.

    :ivar service: the one that it is in the budget; None when the budget has none for it.
    :ivar side_pool: that side pool of the service, if it is one.
    :ivar allowed: connections that it may hold by the budget.
    :ivar each: connections that each process may open.
    """

    program: str
    kind: str
    place: Place
    service: str | None
    side_pool: str | None
    alive: int | None
    processes: int | None
    each: int | None
    total: int | None
    allowed: int | None


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of reading an application."""

    root: str
    uses: tuple[Use, ...]
    findings: tuple[Finding, ...]

    @property
    def fits(self) -> bool | None:
        """False when something breaks the budget, None when something is unknown, True when neither."""
        levels = {finding.level for finding in self.findings}
        return False if "breaks" in levels else None if "unknown" in levels else True

    def __str__(self) -> str:
        broken, unknown = (sum(each.level == level for each in self.findings) for level in ("breaks", "unknown"))
        if broken:
            more = f", {count(unknown, 'thing')} unknown" if unknown else ""
            return f"{self.root}: {count(broken, 'thing')} break{'s' if broken == 1 else ''} the budget{more}"
        if unknown:
            return f"{self.root}: nothing known breaks the budget, but {count(unknown, 'thing')} unknown: no proof"
        return f"{self.root}: stays within the budget"


def read(root: Path, budget: Budget, accounts: Mapping[str, Account], service: str | None = None) -> Reading:
    """Read the application under *root* and hold it against *budget*.

    *accounts* are those of the budget's databases and poolers whose limits are known, by ``database:NAME`` and
    ``pooler:NAME``. *service* says which service the application is, when its files do not. Nothing of the application
    is imported or run. Raises OSError when *root* cannot be read.
    """
    return _Judge(root, budget, accounts, service).reading()


@dataclass(slots=True)
class _Part:
    """A program, and what it is in the budget."""

    program: Program
    service: Service
    side_pool: str | None
    allowed: int | None


class _Judge:
    def __init__(self, root: Path, budget: Budget, accounts: Mapping[str, Account], service: str | None) -> None:
        self.root, self.budget, self.accounts, self.chosen = root, budget, accounts, service
        self.file = Path(budget.path).name
        self.findings: list[Finding] = []
        self.uses: list[Use] = []
        self.most: dict[str, dict[str, int]] = {}  # by service, of each program's name

    def reading(self) -> Reading:
        found = survey(self.root)
        for error in found.unread:
            self._say("unknown", error.place, error.why)
        for place in found.migrations:
            self._say("note", place, "migrations: one connection beside each deploy; declare it under [consumers]")
        strangers: list[Program] = []
        for program in found.deployed:
            if (part := self._part(program)) is not None:
                self._judge(part)
            elif program.runs.ours and program.opens:
                self._undeclared(program)
            else:
                strangers.append(program)
        if strangers:
            names = ", ".join(f"{each.runs.name} ({each.runs.place})" for each in strangers)
            what = f"not compared, no service of {self.file} has their name: {names}"
            self._say("note", strangers[0].runs.place, what)
        if not self.uses and not any(each.level == "breaks" for each in self.findings):
            self._alone(found.alone)
        self._together()
        order = {"breaks": 0, "unknown": 1, "note": 2}
        ranked = sorted(dict.fromkeys(self.findings), key=lambda each: (order[each.level], str(each.place)))
        return Reading(str(self.root), tuple(self.uses), tuple(ranked))

    # ------------------------------------------------------------------------------------------ who is who

    def _part(self, program: Program) -> _Part | None:
        """What *program* is in the budget; None when nothing there has its name."""
        started = program.runs.command
        found = whose(self.budget, program.runs.names, None if started is None else started.runner)
        if found is None and self.chosen is not None and program.runs.ours:
            found = (self.chosen, None)
        if found is None:
            return None
        service, side_pool = self.budget.services[found[0]], found[1]
        if side_pool is None:
            return _Part(program, service, None, self._allowed(service.name))
        side = service.side_pools[side_pool]
        return _Part(program, service, side_pool, service.alive * side.processes * side.size)

    def _account(self, service: str) -> Account | None:
        declared = self.budget.services[service]
        if declared.through is not None:
            return self.accounts.get(f"pooler:{declared.through}")
        return self.accounts.get(f"database:{declared.database}")

    def _allowed(self, service: str) -> int | None:
        """What is left for *service* when everybody else has their share; None when that is not known."""
        if (account := self._account(service)) is None:
            return None
        others = sum(row.total for row in account.rows if not (row.kind == "service" and row.who == service))
        return max(0, account.limit - others)

    # ------------------------------------------------------------------------------------------ a program

    def _judge(self, part: _Part) -> None:
        runs, service = part.program.runs, part.service
        declared = service.processes if part.side_pool is None else service.side_pools[part.side_pool].processes
        replicas = runs.replicas or self._declared(service, service.replicas, "replicas")
        surge = runs.surge or self._declared(service, service.alive - service.replicas, "surge")
        processes = part.program.processes or self._declared(service, declared, "processes")
        known = [each.value for each in (replicas, surge)]
        alive = None if None in known else sum(each for each in known if each is not None)
        mine = [each for each in part.program.opens if not self._elsewhere(each, service)]
        each, sure = self._each(part, mine)
        facts = (replicas, surge, processes)
        for fact in (*facts, *runs.doubts):
            if fact.value is None:
                self._say("unknown", fact.place, f"{_called(runs.name, part)}: {fact.said}")
        total = None if alive is None or processes.value is None or each is None else alive * processes.value * each
        self.uses.append(
            Use(runs.name, runs.kind, runs.place, service.name, part.side_pool, alive, processes.value, each, total,
                part.allowed)
        )  # fmt: skip
        if part.allowed is None:
            at = Place(self.budget.path, self.budget.line("databases", service.database))
            self._say("unknown", at, f"databases.{service.database}: max_connections is neither declared nor known")
        if alive is not None and processes.value is not None:
            self._more_than_declared(part, facts, alive * processes.value, declared)
            if part.allowed is not None:
                held = self._too_many(part, mine, facts, sure)
                if part.side_pool is None:
                    by_name = self.most.setdefault(service.name, {})
                    by_name[runs.name] = max(held, by_name.get(runs.name, 0))
        if part.program.preload and mine:
            what = "preload_app: a pool that is opened as the application is loaded is shared by every worker; open it "
            self._say("note", part.program.preload, what + "in post_fork")

    def _elsewhere(self, opens: Opens, service: Service) -> bool:
        """Whether *opens* is of another service or database of the budget: by its name, by the variable of its URL."""
        if opens.bound is Bound.BUDGET:
            return opens.service != service.name and opens.service in self.budget.services
        if opens.url is None:
            return False
        other = [name for name, each in self.budget.databases.items() if each.url == f"env:{opens.url}"]
        if not other or service.database in other:
            return False
        if not any(each.database in other for each in self.budget.services.values()):
            what = f"{opens.kind} is for database {other[0]}, and {self.file} has no service for that: not compared"
            self._say("unknown", opens.place, what)
        return True

    def _each(self, part: _Part, mine: list[Opens]) -> tuple[int | None, int]:
        """What each process may open, None when that is not known or has no limit; and what it may open for sure."""
        name = _called(part.program.runs.name, part)
        if not mine:
            where = part.program.runs.place
            what = f"{name}: no pool was found in its code, so that what it opens is not known"
            self._say("unknown", where, what)
            return None, 0
        figures = [self._of(opens, part, name) for opens in mine]
        sure = sum(each for each in figures if each is not None)
        return (None if None in figures else sure), sure

    def _of(self, opens: Opens, part: _Part, name: str) -> int | None:
        """Connections of one pool in one process; says what is unknown or without limit."""
        threads = part.program.threads
        if opens.bound is Bound.POOL:
            return opens.most
        if opens.bound is Bound.BUDGET:
            return self._by_budget(opens, part)
        if opens.bound is Bound.THREADS and threads is not None and threads.value is not None:
            return threads.value
        if opens.bound is Bound.NONE or (opens.bound is Bound.THREADS and threads is not None and threads.endless):
            endless = f", and {threads.said}" if opens.bound is Bound.THREADS and threads is not None else ""
            what = f"{opens.kind} sets {opens.sets}: {opens.why}{endless}: nothing keeps {name} within its share"
            self._say("breaks", opens.place, what, self._write(opens, self._fits_each(part)))
            return None
        if opens.bound is Bound.THREADS:
            why = threads.said if threads else "no file says how many threads it has"
            self._say("unknown", opens.place, f"{opens.kind} sets {opens.sets}: {opens.why}, and {why}")
            return None
        sets = f" sets {opens.sets}" if opens.sets else ""
        self._say("unknown", opens.place, f"{opens.kind}{sets}: {opens.why}")
        return None

    def _by_budget(self, opens: Opens, part: _Part) -> int | None:
        """The share that a pool reads from the budget as it starts."""
        if opens.service not in self.budget.services:
            self._say("breaks", opens.place, f"{opens.kind}: {self.file} has no service {opens.service!r}")
        return self._share(opens.service)

    def _share(self, service: str | None) -> int | None:
        if service is None or service not in self.budget.services or (account := self._account(service)) is None:
            return None
        return account.shares[service]

    def _fits_each(self, part: _Part) -> int:
        """Connections that each process may have, by what is known of how many there are; 0 when none fits."""
        if part.allowed is None:
            return 0
        service, runs = part.service, part.program.runs
        replicas = runs.replicas.value if runs.replicas else service.replicas
        surge = runs.surge.value if runs.surge else service.alive - service.replicas
        processes = part.program.processes.value if part.program.processes else service.processes
        if replicas is None or surge is None or not processes or not replicas + surge:
            return 0
        return part.allowed // ((replicas + surge) * processes)

    def _too_many(self, part: _Part, mine: list[Opens], facts: tuple[Fact, Fact, Fact], each: int) -> int:
        """Say so if the known pools alone pass what is allowed; what they come to in all."""
        replicas, surge, processes = facts
        assert replicas.value is not None
        assert surge.value is not None
        assert processes.value is not None
        assert part.allowed is not None
        alive = replicas.value + surge.value
        total = alive * processes.value * each
        shared = part.side_pool is None and all(opens.bound is Bound.BUDGET for opens in mine)
        if total <= part.allowed or shared:
            return total  # pools that have their share are too many only if the processes are: _more_than_declared
        first = max((opens for opens in mine if self._figure(opens, part)), key=lambda each: self._figure(each, part))
        others = [opens for opens in mine if opens is not first and self._figure(opens, part)]
        fit = part.allowed // (alive * processes.value)
        number = f"({replicas.value} + {surge.value} in a deploy)" if surge.value else str(replicas.value)
        share = f"{part.allowed} usable by {_of_budget(part)}"
        most = f"at most {fit} fits" if fit == 1 else f"at most {fit} fit" if fit else "not even 1 fits"
        most += f", and these are {len(mine)} pools" if 0 < fit < len(mine) else ""
        what = (
            f"{first.kind} sets {first.sets}{_and(others)}: {number} {_plural(alive, 'replica')} x "
            f"{count(processes.value, 'process', 'processes')} x {each} = {total} of {share}: {most}"
        )
        beside = sum(self._figure(opens, part) for opens in others)
        instead = self._write(first, fit - beside) if fit > beside else ()
        if fit >= len(mine) and not instead:
            instead = (_shrink(len(mine), fit),)
        if fit < len(mine):  # each pool needs one at least
            follows = self._surge_rule(part, surge.value)
            instead = tuple(_ways(part.allowed, replicas.value, follows, processes.value, len(mine), each))
        because = [f"{fact.said} ({fact.place})" for fact in facts if fact.value or fact is not surge]
        because += [f"{opens.kind}: {self._figure(opens, part)}, {opens.why} ({opens.place})"
                    for opens in mine if opens.why and self._figure(opens, part)]  # fmt: skip
        self.findings.append(Finding("breaks", first.place, what, instead, tuple(because)))
        return total

    @staticmethod
    def _surge_rule(part: _Part, surge: int) -> int | str:
        """How many more a deploy starts: a percentage where fewer replicas, written in the same file, make it less."""
        runs, service = part.program.runs, part.service
        if runs.surge is not None:
            return runs.surge.percentage or surge
        return service.surge if runs.replicas is None else surge

    def _figure(self, opens: Opens, part: _Part) -> int:
        if opens.bound is Bound.THREADS and part.program.threads is not None:
            return part.program.threads.value or 0
        if opens.bound is Bound.BUDGET:
            return self._share(opens.service) or 0
        return opens.most or 0

    def _more_than_declared(self, part: _Part, facts: tuple[Fact, Fact, Fact], really: int, declared: int) -> None:
        """The budget counts on fewer processes than there are."""
        service = part.service
        counted = service.alive * declared
        if really <= counted:
            return
        figures = (("replicas", service.replicas), ("surge", service.alive - service.replicas), ("processes", declared))
        wrong = [(fact, name, figure) for fact, (name, figure) in zip(facts, figures, strict=True)
                 if fact.value is not None and fact.value > figure]  # fmt: skip
        place = wrong[0][0].place
        differ = "; ".join(f"{fact.said} and {self.file} has {name} = {figure}" for fact, name, figure in wrong)
        what = (
            f"{_called(part.program.runs.name, part)} has {count(really, 'process', 'processes')} at the worst moment, "
            f"and the budget counts on {counted}: {differ}"
        )
        at = self._line(service, part.side_pool)
        instead = tuple(f"{at}: {name} = {fact.value}" for fact, name, _ in wrong)
        self.findings.append(Finding("breaks", place, what, instead))

    # ------------------------------------------------------------------------------------------ beside programs

    def _undeclared(self, program: Program) -> None:
        """A program of ours that opens connections, and that the budget does not know."""
        runs = program.runs
        opens = program.opens[0]
        what = f"{runs.kind} {runs.name} opens connections ({opens.kind} at {opens.place}), and {self.file} has no "
        what += "service or side pool of its name: nobody counts it"
        instead = (f"declare it: [services.{runs.name}]", "or say which service this application is: --service NAME")
        self._say("breaks", runs.place, what, instead)

    def _alone(self, program: Program | None) -> None:
        """No file deploys a program of the budget: the code itself is held against the service that it must be."""
        services = list(self.budget.services)
        if program is None or not program.opens:
            self._say("unknown", Place(str(self.root), 0), "no pool was found that penstock can read")
        elif self.chosen is not None or len(services) == 1:
            name = self.chosen or services[0]
            self._judge(_Part(program, self.budget.services[name], None, self._allowed(name)))
        else:
            what = f"pools were found, and no file says which service opens them: say --service {'|'.join(services)}"
            self._say("unknown", program.opens[0].place, what)

    def _together(self) -> None:
        """Services that are each within what is left for them may still be too many together."""
        if any(each.level == "breaks" for each in self.findings):
            return
        for account in self.accounts.values():
            held = {row.who: sum(self.most[row.who].values()) if row.who in self.most else row.total
                    for row in account.rows if row.kind == "service"}  # fmt: skip
            if account.fits and sum(held.values()) > account.usable:
                names = ", ".join(f"{name} {total}" for name, total in held.items())
                key = "databases" if account.kind == "database" else "poolers"
                at = Place(self.budget.path, self.budget.line(key, account.name))
                total = f"{sum(held.values())} of {account.usable}"
                self._say("breaks", at, f"{account.kind} {account.name}: together services hold {total}: {names}")

    # ------------------------------------------------------------------------------------------ words

    def _say(self, level: Level, place: Place, what: str, instead: tuple[str, ...] = ()) -> None:
        self.findings.append(Finding(level, place, what, instead))

    def _declared(self, service: Service, value: int, key: str) -> Fact:
        return Fact(value, Place(self.budget.path, self.budget.line("services", service.name, key)), f"{key} = {value}")

    def _line(self, service: Service, side_pool: str | None) -> str:
        key = ("services", service.name) + (("side_pools", side_pool) if side_pool else ())
        return f"{self.budget.path}:{self.budget.line(*key)}: [{'.'.join(key)}]"

    @staticmethod
    def _write(opens: Opens, connections: int) -> tuple[str, ...]:
        if connections < 1 or not opens.instead:
            return ()
        return (f"{opens.place}: {opens.written_for(connections)}",)


def _called(name: str, part: _Part) -> str:
    ours = _of_budget(part)
    return ours if name == part.service.name and part.side_pool is None else f"{name} ({ours})"


def _of_budget(part: _Part) -> str:
    return f"service {part.service.name}" if part.side_pool is None else f"{part.service.name}/{part.side_pool}"


def _and(others: list[Opens]) -> str:
    return "".join(f", and {each.kind} at {each.place} sets {each.sets}" for each in others)


def _plural(number: int, noun: str) -> str:
    return noun if number == 1 else noun + "s"


def _shrink(pools: int, together: int) -> str:
    if pools == 1:
        return f"let the pool open {together} in each process"
    return f"let these {pools} pools open {together} together in each process"


def _ways(room: int, replicas: int, surge: int | str, processes: int, pools: int, each: int) -> Iterator[str]:
    """What would let each of a process's *pools* have one connection; they have *each* together now.

    Fewer processes alone may not be enough: what the pools must come down to as well is a part of the same advice.
    """
    ways = ways_out(room, replicas, surge, processes, pools)
    alive = replicas + extra_instances(surge, replicas)

    def then(alive: int, processes: int) -> str:
        fit = room // (alive * processes)
        return f", and {_shrink(pools, fit)}" if fit < each else ""

    if ways.workers is not None:
        most = count(ways.workers, "process", "processes")
        yield f"run at most {most} in each replica{then(alive, ways.workers)}"
    if ways.surge is not None:
        most = count(ways.surge, "extra replica")
        yield f"let a deploy start at most {most} at a time{then(replicas + ways.surge, processes)}"
    if ways.instances is not None:
        most = count(ways.instances, "replica")
        yield f"run at most {most}{then(ways.instances + extra_instances(surge, ways.instances), processes)}"
    yield "put a pooler in transaction mode (PgBouncer) between the service and the database"
