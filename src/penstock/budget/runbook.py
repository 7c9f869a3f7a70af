"""The runbook of one system, in Markdown: made from its budget and from what its servers say.

It is written for somebody who was woken up and knows neither the service nor this library. So each part begins with
what to do, every figure is this system's own, and every command can be pasted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from .model import Budget
from .shares import Account, Row
from .verdict import Verdict

WARN, ALARM = 0.8, 0.9  # of the connections that clients can have; PostgreSQL's own monitoring guides name 80 %

_LOOK = """\
SELECT usename, application_name, state, count(*), max(now() - xact_start) AS oldest_transaction
FROM pg_stat_activity WHERE backend_type = 'client backend'
GROUP BY 1, 2, 3 ORDER BY 4 DESC;"""

_ROOM = """\
SELECT count(*) AS connected, current_setting('max_connections')::int AS max_connections
FROM pg_stat_activity WHERE backend_type = 'client backend';"""

# Each is to be looked at first, and then done: the same rows, so that nothing is done that was not seen.
_IDLE_IN_TRANSACTION = """\
-- look: who holds locks and a connection, and does nothing
SELECT pid, usename, application_name, now() - state_change AS idle_for, left(query, 60) AS last_query
FROM pg_stat_activity WHERE backend_type = 'client backend'
  AND state LIKE 'idle in transaction%' AND state_change < now() - interval '1 minute';

-- then end them
SELECT pid, pg_terminate_backend(pid)
FROM pg_stat_activity WHERE backend_type = 'client backend'
  AND state LIKE 'idle in transaction%' AND state_change < now() - interval '1 minute';"""

_LONGEST = """\
-- look: what has run for five minutes and more. A backup or a migration may be right to
SELECT pid, usename, application_name, now() - query_start AS runs_for, left(query, 60) AS query
FROM pg_stat_activity WHERE backend_type = 'client backend'
  AND state = 'active' AND query_start < now() - interval '5 minutes' AND pid <> pg_backend_pid()
ORDER BY query_start;

-- then cancel those that may not, by number: the connection lives on. What does not stop: pg_terminate_backend
SELECT pid, pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid IN (0, 0);"""

_IDLE_OF = """\
-- only what does nothing at this moment. NAME: its role, or what its application_name has in it
SELECT pid, application_name, now() - state_change AS idle_for, pg_terminate_backend(pid)
FROM pg_stat_activity WHERE backend_type = 'client backend'
  AND state = 'idle' AND (usename = 'NAME' OR application_name LIKE '%NAME%');"""

_FLEET = """\
-- one line a process
SELECT split_part(application_name, ':', 3) AS member, regexp_replace(min(application_name), '^.*:', '') AS service,
       min(client_addr::text) AS address, count(*) AS connections, count(*) FILTER (WHERE state <> 'idle') AS busy
FROM pg_stat_activity WHERE application_name LIKE 'penstock:%' GROUP BY 1 ORDER BY 4 DESC;"""


class Client(Protocol):
    """A line of who is connected (`drivers.clients.Clients`)."""

    @property
    def role(self) -> str: ...
    @property
    def database(self) -> str: ...
    @property
    def application(self) -> str: ...
    @property
    def count(self) -> int: ...
    @property
    def active(self) -> int: ...
    @property
    def idle_in_transaction(self) -> int: ...
    @property
    def unknown(self) -> int: ...
    @property
    def oldest(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of one database.

    :ivar verdict: on its budget.
    :ivar where: how to reach it, without a secret; None when the file does not say.
    :ivar clients: who is connected; None when that could not be asked.
    """

    verdict: Verdict
    where: str | None = None
    clients: Sequence[Client] | None = None


def runbook(budget: Budget, found: Mapping[str, Found], made: str) -> str:
    """The whole text. *made*: when and with what, for its head. *found*: of each database, by its name."""
    environment = f", environment {budget.environment}" if budget.environment else ""
    parts = [
        f"# Runbook: database connections\n\nFrom `{budget.path}`{environment}; {made}. Write nothing into it: make it"
        " again with `penstock runbook`.",
        _first_minutes(found),
        *(_database(budget, name, each) for name, each in found.items()),
        _alarms(budget),
        _emergency(budget, found),
        _resize(budget),
        _restart(budget),
    ]
    return "\n\n".join(parts) + "\n"


def _first_minutes(found: Mapping[str, Found]) -> str:
    lines = [
        "## The first five minutes",
        f"1. **Can you get in?** `psql` as an administrator{_where(found)}: the server keeps connections for"
        f" superusers{_kept(found)}. If that fails too, see *Emergency* below.",
        f"2. **How full is it?**\n\n{_sql(_ROOM, 3)}",
        f"3. **Who holds it, and do they work?**\n\n{_sql(_LOOK, 3)}",
        "4. Many `idle`: somebody holds more than they use (compare *Who may hold what*). Many `idle in transaction`:"
        " a leak, or a slow call within a transaction. Many `active` with old queries: the database itself is slow,"
        " and more connections would make it slower.",
        "5. Find the line under *Alarms*, and do what it says.",
    ]
    return "\n\n".join(lines)


def _where(found: Mapping[str, Found]) -> str:
    places = [f"{name} is {each.where}" for name, each in found.items() if each.where is not None]
    return f" ({'; '.join(places)})" if places else ""


def _kept(found: Mapping[str, Found]) -> str:
    servers = [each.verdict.server for each in found.values() if each.verdict.server is not None]
    kept = {server.superuser_reserved_connections for server in servers}
    return f" ({kept.pop()} here)" if len(kept) == 1 else ""


# ---------------------------------------------------------------------------------------------- the line


def _database(budget: Budget, name: str, found: Found) -> str:
    account = found.verdict.account
    lines = [f"## Database {name}", *(f"**{problem}**" for problem in found.verdict.problems)]
    if account is None:
        lines.append("Its limit is not known: neither declared nor asked of the server.")
    else:
        lines.append(_limits(found.verdict, account))
        lines.append("### Who may hold what, at the worst moment")
        lines.append(_table(("who", "processes", "each", "in all", "because"), map(_row, account.rows)))
    lines += [f"- {note}" for note in found.verdict.notes]
    lines.append("### Who holds what" + (", when this was made" if found.clients is not None else ""))
    lines.append(_clients(found.clients))
    if budget.databases[name].fleet:
        lines.append("Processes here share one budget as they need it. Who has how much now:\n\n" + _sql(_FLEET))
    return "\n\n".join(lines)


def _limits(verdict: Verdict, account: Account) -> str:
    server = verdict.server
    limit = account.limit if server is None else min(account.limit, server.max_connections)
    clients = limit - sum(row.total for row in account.rows if row.kind == "reserve")
    says = f" (the server's own limit; the file has {account.limit})" if limit < account.limit else ""
    lines = [
        f"- **{limit} connections** in all{says}, of which {clients} for clients.",
        f"- Look into it from **{int(clients * WARN)}** connected ({WARN:.0%}), act from **{int(clients * ALARM)}**"
        f" ({ALARM:.0%}).",
        f"- The worst moment {'fits' if account.total <= limit else 'does NOT fit'}: {account.total} of {limit}.",
    ]
    if server is not None and server.role_limit >= 0:
        lines.append(f"- Role `{server.role}` may have {server.role_limit} (its CONNECTION LIMIT).")
    if server is not None and server.database_limit >= 0:
        lines.append(f"- Database `{server.database}` accepts {server.database_limit} (its CONNECTION LIMIT).")
    return "\n".join(lines)


def _row(row: Row) -> tuple[object, ...]:
    return row.who, _or_nothing(row.processes), _or_nothing(row.each), row.total, row.why


def _or_nothing(number: int | None) -> object:
    return "" if number is None else number


def _clients(clients: Sequence[Client] | None) -> str:
    if clients is None:
        return "Nobody could be asked when this was made. Ask the server:\n\n" + _sql(_LOOK)
    if not clients:
        return "Nobody was connected."
    header = (
        "role",
        "database",
        "name",
        "connections",
        "active",
        "idle in transaction",
        "oldest transaction",
        "not seen",
    )
    rows = (
        (each.role, each.database, each.application or "(none)", each.count, each.active, each.idle_in_transaction,
         "" if each.oldest is None else f"{each.oldest:.0f} s", each.unknown or "")
        for each in clients
    )  # fmt: skip
    return _table(header, rows)


# ---------------------------------------------------------------------------------------------- what to do


def _alarms(budget: Budget) -> str:
    rows = [
        (
            "`FATAL: sorry, too many clients already`",
            "the server's limit is reached",
            "*Emergency*, in its order; then compare who holds what with who may",
        ),
        (
            "`too many connections for role` / `for database`",
            "a CONNECTION LIMIT is reached, the server may have room",
            "whose is it? Their service has more processes, or larger pools, than declared: `penstock plan --check`",
        ),
        (
            "`PoolExhausted` in a service's log",
            "its own pool is in use; the message names the lines that hold it and where they stand",
            "idle in hand: a slow call within the block, fix that line; running: a slow query, see `pg_stat_activity`",
        ),
        (
            "`PoolTimeout ... fleet`",
            "the fleet's budget is used up, or this process is out of touch",
            "are there more processes than declared? Is the database reachable from there?",
        ),
        (
            "`Overloaded`",
            "more is asked than can be done; the rest is being served",
            "nothing here: find out who asks so much, or why each takes longer than usual",
        ),
        (
            "`DatabaseUnavailable`",
            "it refuses connections or does not answer; the cause is in the message",
            "is the server up (`pg_isready`)? a failover? DNS? the password?",
        ),
        (
            "`idle in transaction` for minutes",
            "a connection, and often a lock, is held by who does nothing",
            "terminate it (*Emergency*, 1); find its line by `application_name` and `query`",
        ),
    ]
    if budget.poolers:
        rows.append(
            (
                "clients wait in PgBouncer (`SHOW POOLS`: cl_waiting, maxwait)",
                "its server connections are all in use",
                "slow queries, or `pool_size` too small: raise it only within the table above",
            )
        )
    return "## Alarms\n\n" + _table(("what you see", "what it means", "what to do"), rows)


def _or_reserved(found: Mapping[str, Found]) -> str:
    servers = [each.verdict.server for each in found.values() if each.verdict.server is not None]
    kept = sum(server.reserved_connections for server in servers)
    return ", or as a role with `pg_use_reserved_connections`" if kept else ""


def _emergency(budget: Budget, found: Mapping[str, Found]) -> str:
    lines = [
        "## Emergency: the line is full",
        f"Get in as a superuser{_or_reserved(found)}. If even that fails: stop one replica of the service that can be"
        " missed most, below. Then, in this order, until there is room:",
        f"**1. Idle in transaction.**\n\n{_sql(_IDLE_IN_TRANSACTION)}",
        f"**2. What runs for too long.**\n\n{_sql(_LONGEST)}",
        f"**3. What can be missed.** {_order(budget)}\n\n{_sql(_IDLE_OF)}",
        "Do not terminate `walsender` (replication), `autovacuum worker` or anything that is not a `client backend`."
        " Pools open anew what was terminated: without stopping its cause it is back in seconds.",
    ]
    return "\n\n".join(lines)


def _order(budget: Budget) -> str:
    """Fixed consumers, then side pools, then services by weight: a proposal, as the file does not say who matters."""
    named = [f"`{name}` (fixed consumer)" for name in budget.consumers]
    straight = [each for each in budget.services.values() if each.through is None]
    services = sorted(straight, key=lambda service: service.weight)
    named += [f"`{each.name}/{side}` (side pool)" for each in services for side in each.side_pools]
    named += [f"`{each.name}` (service, weight {each.weight:g})" for each in services]
    named += [f"what comes through `{name}` (a pooler)" for name in budget.poolers]
    return f"Decide it now, not at night; by the budget: {', then '.join(named)}." if named else "Nobody is declared."


def _resize(budget: Budget) -> str:
    lines = [
        "## Resize",
        f"1. Change `{budget.path}`, or ask first: `penstock plan --what-if {next(iter(budget.services), 'web')}"
        ".replicas=20`.",
        "2. `penstock plan --check` must pass.",
        "3. Smaller first: roll out whoever gives connections up, then whoever gets them. A pool can be resized where"
        " it runs: `pool.resize(min_size, max_size)`; idle connections above it close at once, others when they come"
        " back.",
    ]
    if any(database.fleet for database in budget.databases.values()):
        lines.append(
            "4. Where processes share a fleet's budget there is nothing to roll out for a shift between them: shares"
            " follow need within seconds. A new budget counts when all processes have been restarted with it."
        )
    lines.append(
        "Raising the server's `max_connections` needs a restart (`ALTER SYSTEM SET max_connections = ...;`) and memory,"
        " and seldom helps: more connections than the server has processors and disks to keep busy do no more work."
    )
    return "\n".join([lines[0], "", *lines[1:-1], "", lines[-1]])


def _restart(budget: Budget) -> str:
    lines = [
        "## Restart",
        "- **A service**: roll it. Old and new replicas are alive together:"
        + "".join(f" {each.name} up to {each.alive} replicas;" for each in budget.services.values()).rstrip(";")
        + ".",
        "- **The database**: pools notice at the next request, and connect again by ones, then twos, then fours."
        " Nothing has to be restarted after it. Before a planned one: `pool.pause()`, or PgBouncer's `PAUSE`.",
        "- **After a failover**: connections that have turned read-only are replaced by themselves;"
        " `pool.drain()` replaces all at once.",
    ]
    if budget.poolers:
        lines.append(
            "- **PgBouncer**: `PAUSE;` waits for transactions to end, `RESUME;` goes on. An admin session that dies"
            " after PAUSE leaves it paused: check `SHOW DATABASES`."
        )
    return "\n\n".join([lines[0], "\n".join(lines[1:])])


# ---------------------------------------------------------------------------------------------- Markdown


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    return "\n".join(_lines(header, rows))


def _lines(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    yield _line(header)
    yield _line(["---"] * len(header))
    yield from map(_line, rows)


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _sql(text: str, indent: int = 0) -> str:
    space = " " * indent
    return "\n".join(space + line for line in ("```sql", *text.splitlines(), "```"))
