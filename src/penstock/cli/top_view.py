"""What `penstock top` looks like: the line first, then who waits, then who holds longest and where that code stands."""

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from penstock.observe.pgbouncer import Bouncer, BouncerPool
from penstock.observe.server import HIDDEN, ORDER, Activity, Session
from penstock.observe.top import FleetRow, Frame, Held, PoolRow, Use, printable, shortened, shown

WIDE = 100  # columns from which on there is room for more than what matters
_FULL, _HIGH = 0.8, 0.6


def pools(frame: Frame, width: int, height: int) -> RenderableType:
    """*height*: lines that there are."""
    parts: list[RenderableType] = [_pools_line(frame, width)]
    parts += [_fleet(fleet) for fleet in frame.fleets]
    parts += [Text(f"! {alert}", "bold red", no_wrap=True, overflow="ellipsis") for alert in _some(frame.alerts, 5)]
    parts += [_dim(f"? {why}") for why in _some(frame.unread, 3)]
    if not frame.pools:
        return Group(*parts, _dim("no process of this user has an open pool"))
    rows, holders, sites, statements = _room(frame, height - len(parts))
    parts += ["", *_pool_rows(frame.pools, rows, width)]
    parts += _holders(frame.holders, width, holders)
    parts += _uses("HELD ON AVERAGE, OVER FIVE MINUTES", frame.sites, width, sites)
    parts += _uses("RUNNING ON AVERAGE, OVER FIVE MINUTES", frame.statements, width, statements)
    return Group(*parts)


def _room(frame: Frame, lines: int) -> tuple[int, int, int, int]:
    """How many entries of each list there is room for, with their titles and an empty line each.

    Three holders, four pools and two lines of code come first; what is left is for the other pools, the other holders,
    and what else there is.
    """
    least = {"pools": (4, 1), "holders": (3, 3), "sites": (2, 1), "statements": (2, 1)}
    wanted = {
        "pools": len(frame.pools),
        "holders": min(10, len(frame.holders)),
        "sites": min(10, len(frame.sites)),
        "statements": min(10, len(frame.statements)),
    }
    given = dict.fromkeys(wanted, 0)
    for goal in (least, wanted):
        for name, (some, each) in least.items():
            title = 2 if not given[name] else 0
            most = min(wanted[name], some if goal is least else wanted[name])
            more = min(most - given[name], (lines - title) // each)
            if more > 0:
                given[name] += more
                lines -= title + more * each
    return given["pools"], given["holders"], given["sites"], given["statements"]


def _pool_rows(pools: Sequence[PoolRow], most: int, width: int) -> Iterable[RenderableType]:
    rows, left = shown(pools, most)
    yield _pool_table(rows, width)
    if left:
        rest = pools[len(rows) :]
        used, waiting = sum(row.used for row in rest), sum(row.waiting for row in rest)
        yield _dim(f"and {left} more pools: {used} in use, {_waits(waiting)}")


def _pools_line(frame: Frame, width: int) -> Text:
    what = f"{_many(len(frame.pools), 'pool')} in {_many(frame.processes, 'process', 'processes')}"
    beside = [f"{frame.unbounded} in use without a limit"] if frame.unbounded and frame.size else []
    used = f"{frame.used} of {frame.size} in use" if frame.size else f"{frame.unbounded} in use"
    words = [used, *beside, f"{frame.open} open", _waits(frame.waiting), what]
    return _line(frame.used, frame.size, words, width, alarming=frame.waiting > 0)


def _pool_table(rows: Sequence[PoolRow], width: int) -> Table:
    wide = width >= WIDE
    titles = ["PID", "PROCESS", "POOL", "IN USE", "WAIT", *(["OPEN"] if wide else []), "PER S", "REFUSED", ""]
    table = _table(titles, right={"PID", "IN USE", "WAIT", "OPEN", "PER S", "REFUSED"})
    table.columns[1].max_width = 30 if wide else 16
    table.columns[2].max_width = 24 if wide else 10
    table.columns[-1].ratio = 1
    for row in rows:
        cells: list[str | Text] = [
            str(row.pid),
            row.title,
            row.name,
            Text(str(row.used) if row.size is None else f"{row.used}/{row.size}", _colour(row.share)),
            Text(str(row.waiting or ""), "bold red"),
            *([str(row.open)] if wide else []),
            "" if row.rate is None else f"{row.rate:,.0f}",
            str(row.refused or ""),
            Text(", ".join(row.trouble), "bold red"),
        ]
        table.add_row(*cells)
    return table


def _holders(holders: Sequence[Held], width: int, most: int) -> Iterable[RenderableType]:
    if not most:
        return
    yield ""
    title = Text("HELD LONGEST", "bold")
    if len(holders) > most:
        title.append(f"  {most} of {len(holders)} lines of code", "not bold dim")
    yield title
    for group in holders[:most]:
        yield from _held(group, width)


def _held(group: Held, width: int) -> Iterable[Text]:
    row = group.longest
    first = Text(f"{_seconds(row.held):>8}  ", "bold")
    tail = f"  {row.pid} {row.pool}"
    if group.count > 1:
        tail = f"  {group.count} held, {group.idle} idle in hand{tail}"
    first.append(shortened(row.site, max(20, width - len(first.plain) - len(tail))))
    first.append(tail, "not bold dim")
    first.truncate(width, overflow="ellipsis")
    yield first
    second = Text(" " * 10)
    doing = f"idle in hand {_seconds(row.idle)}" if row.idle is not None else "runs a statement"
    second.append(f"{doing}, {row.status}", "yellow" if row.idle is not None and row.idle > 1 else "")
    if row.now_at:
        room = width - len(second.plain) - len("; now at ")
        second.append(f"; now at {shortened(row.now_at, max(20, room))}")
    second.truncate(width, overflow="ellipsis")
    yield second
    yield Text(f"{'':10}{row.statement or 'no statement yet'}", "dim", no_wrap=True, overflow="ellipsis")


def _uses(title: str, uses: Sequence[Use], width: int, most: int) -> Iterable[RenderableType]:
    if not most:
        return
    yield ""
    yield Text(title, "bold")
    for use in uses[:most]:
        idle = f", {use.idle:.1f} idle in hand" if use.idle >= 0.05 else ""
        start = f"{use.connections:>8.1f}  "
        what = use.what if idle == "" else shortened(use.what, max(20, width - len(start) - len(idle)))
        line = Text(start + what, no_wrap=True, overflow="ellipsis")
        line.append(idle, "yellow")
        yield line


def _fleet(fleet: FleetRow) -> Text:
    line = f", its line is {fleet.line}" if fleet.line is not None else ""
    hint = f": {fleet.hint}" if fleet.hint else ""
    members = _many(fleet.members, "process", "processes")
    text = f"fleet {fleet.name}: {fleet.claimed} of {fleet.budget} claimed by {members}{line}{hint}"
    return Text(text, _colour(fleet.claimed / fleet.budget if fleet.budget else 0), no_wrap=True, overflow="ellipsis")


def server(found: Activity, width: int, height: int) -> RenderableType:
    """*height*: lines that there are."""
    role = "standby" if found.standby else "server"
    words = [
        f"{found.count} of {found.open_to_all} connections",
        f"max_connections {found.line}, {found.reserved} reserved",
        f"PostgreSQL {found.version.split()[0]} {role}",
    ]
    states = [f"{found.states[state]} {state}" for state in ORDER if found.states.get(state)]
    parts: list[RenderableType] = [_line(found.count, found.open_to_all, words, width), Text("  ".join(states))]
    if found.states.get(HIDDEN):
        why = f"what {found.states[HIDDEN]} connections of other roles do is not shown to this one: GRANT pg_monitor"
        parts.append(Text(f"? {why}", "yellow"))
    rows, left = shown(found.groups, max(4, (height - 8) // 3))
    table = _table(["COUNT", "APPLICATION", "ROLE", "DATABASE", "CLIENT", "TRANSACTION", "STATES"], right={"COUNT"})
    table.columns[-1].ratio = 1
    for group in rows:
        told = ", ".join(f"{group.states[state]} {state}" for state in ORDER if group.states.get(state))
        oldest = "" if group.oldest is None else _seconds(group.oldest)
        names = map(printable, (group.application or "(no name)", group.role, group.database, group.client))
        table.add_row(str(group.count), *names, oldest, told)
    parts += ["", table]
    if left:
        rest = sum(group.count for group in found.groups[len(rows) :])
        parts.append(_dim(f"and {left} more applications: {rest} connections"))
    parts += _sessions(found.sessions, max(2, (height - 8 - len(rows)) // 3))
    return Group(*parts)


def _sessions(sessions: Sequence[Session], most: int) -> Iterable[RenderableType]:
    if not sessions:
        return
    yield ""
    yield Text("OPEN LONGEST", "bold")
    for row in sessions[:most]:
        since = row.transaction if row.transaction is not None else row.for_seconds
        first = Text(f"{_seconds(since):>8}  ", "bold", no_wrap=True, overflow="ellipsis")
        first.append(f"{row.state} for {_seconds(row.for_seconds)}", "yellow" if "idle" in row.state else "")
        first.append(f"  {printable(row.application) or '(no name)'}, {printable(row.role)}, process {row.pid}", "dim")
        if row.blocked_by:
            first.append(f"  waits for {', '.join(map(str, row.blocked_by))}", "bold red")
        elif row.waits_for:
            first.append(f"  waits: {printable(row.waits_for)}")
        yield first
        yield Text(f"{'':10}{printable(row.statement or '')}", "dim", no_wrap=True, overflow="ellipsis")


def bouncer(found: Bouncer, width: int, height: int) -> RenderableType:
    """*height*: lines that there are."""
    waiting = sum(pool.waiting for pool in found.pools)
    size = sum(pool.size or 0 for pool in found.pools)
    busy = sum(pool.servers_active for pool in found.pools)
    words = [
        f"{busy} of {size} server connections in use",
        f"{found.servers} open",
        _waits(waiting),
        f"{found.clients} of {found.max_clients or '?'} clients",
        f"PgBouncer {printable(found.version)}",
    ]
    parts: list[RenderableType] = [_line(busy, size, words, width, alarming=waiting > 0), ""]
    rows, left = shown(found.pools, max(4, height - 6))
    parts.append(_bouncer_table(rows))
    if left:
        parts.append(_dim(f"and {left} more pools"))
    return Group(*parts)


def _bouncer_table(rows: Sequence[BouncerPool]) -> Table:
    titles = ["DATABASE", "ROLE", "MODE", "SERVERS", "CLIENTS", "WAIT", "LONGEST", "PER S", "QUERY", "QUEUED"]
    table = _table(titles, right=set(titles[3:]))
    for pool in rows:
        share = pool.servers_active / pool.size if pool.size else 0.0
        table.add_row(
            printable(pool.database),
            printable(pool.role),
            pool.mode,
            Text(f"{pool.servers_active}/{pool.size or '?'}", _colour(share)),
            str(pool.clients),
            Text(str(pool.waiting or ""), "bold red"),
            Text(_seconds(pool.longest) if pool.waiting else "", "bold red"),
            "" if pool.queries_a_second is None else f"{pool.queries_a_second:,.0f}",
            "" if pool.query is None else _seconds(pool.query),
            "" if pool.wait is None else _seconds(pool.wait),
        )
    return table


def _line(used: int, size: int, words: Sequence[str], width: int, alarming: bool = False) -> Text:
    """A bar, and what it says in words."""
    share = used / size if size else 0.0
    cells = max(10, min(30, width // 4))
    full = min(cells, round(share * cells))
    colour = "red" if alarming else _colour(share)
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append("█" * full, colour or "green")
    line.append("░" * (cells - full), "dim")
    line.append(f" {share:.0%}  ", f"bold {colour}".strip())
    line.append(words[0], "bold")
    for word in words[1:]:
        line.append(f"  {word}", "bold red" if alarming and "wait" in word else "")
    return line


def _table(titles: Sequence[str], right: set[str]) -> Table:
    table = Table(box=None, expand=True, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in titles:
        table.add_column(title, justify="right" if title in right else "left", no_wrap=True, overflow="ellipsis")
    return table


def _some(lines: Sequence[str], most: int) -> list[str]:
    rows, left = shown(lines, most)
    return [*rows, *([f"and {left} more"] if left else [])]


def _colour(share: float) -> str:
    return "red" if share >= _FULL else "yellow" if share >= _HIGH else ""


def _waits(count: int) -> str:
    return f"{count} wait" if count != 1 else "1 waits"


def _many(count: int, one: str, more: str = "") -> str:
    return f"{count} {one if count == 1 else more or one + 's'}"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    if seconds >= 600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:.1f} s" if seconds >= 0.1 else f"{seconds * 1e3:.1f} ms"


def _dim(text: str) -> Text:
    return Text(text, "dim", no_wrap=True, overflow="ellipsis")
