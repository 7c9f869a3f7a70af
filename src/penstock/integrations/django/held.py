"""What the server knows of who holds its connections, in words.

Lines of code it does not know: those are in the memory of the processes that hold. What it does know is enough to tell
which process to look into, and usually which statement a transaction was left open after.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from django.db import connections  # type: ignore[import-untyped]

from ...pool.holders import statement_text
from .pool import MARK, sizes

_SHOWN = 10  # connections of one process
_LITERAL = re.compile(r"'(?:[^']|'')*'")

# Of another role's sessions little is shown to a role without pg_read_all_stats, not even that they are a client's.
_ACTIVITY = """
    SELECT coalesce(application_name, ''), coalesce(host(client_addr), 'a host not shown'), usename, pid, state,
        extract(epoch FROM clock_timestamp() - state_change)::float8,
        extract(epoch FROM clock_timestamp() - xact_start)::float8, query
    FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND datid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend'
"""
_LIMITS = """
    SELECT current_setting('max_connections')::int, current_setting('superuser_reserved_connections')::int
        + coalesce(current_setting('reserved_connections', true), '0')::int
"""
_STATES = ("active", "idle in transaction", "idle in transaction (aborted)", "idle")  # in the order they are shown in


class Session(NamedTuple):
    """One connection, as pg_stat_activity has it. Times in seconds."""

    name: str
    host: str
    role: str
    pid: int
    state: str | None  # None: of a role that ours may not look at
    since: float | None
    transaction: float | None
    statement: str | None

    def __str__(self) -> str:
        doing = f"pid {self.pid} {self.state} for {self.since or 0:.1f} s"
        if self.transaction is not None and self.transaction > (self.since or 0) + 0.1:
            doing += f", its transaction open for {self.transaction:.1f} s"
        last = "" if self.state == "active" else "after "
        return f"{doing}: {last}{statement_text(_LITERAL.sub(chr(39) + '...' + chr(39), self.statement or ''))}"


def describe(alias: str) -> Iterator[str]:
    """What the server says of the connections of *alias*, a line each.

    :raises django.db.DatabaseError: when it cannot be asked.
    """
    asking = connections[alias].copy()
    asking.settings_dict["OPTIONS"] = asking.settings_dict["OPTIONS"] | {"pool": False}
    try:
        with asking.cursor() as cursor:
            cursor.execute(_LIMITS)
            most, reserved = cursor.fetchone()
            cursor.execute(_ACTIVITY)
            sessions = [Session(*row) for row in cursor.fetchall()]
            where = asking.connection.info
            place = f"{where.user}@{where.host}:{where.port}/{where.dbname}"
    finally:
        asking.close()
    yield f"{alias}: {place}"
    yield f"  each process: {sizes(connections[alias])}"
    left = most - reserved - len(sessions)
    yield (
        f"  the server: {len(sessions)} of {most - reserved} connections in use"
        f" ({most}, {reserved} of them reserved); {max(left, 0)} left"
    )
    yield from _ours(alias, [session for session in sessions if session.name.startswith(f"{MARK}{alias}:")])
    yield from _others([session for session in sessions if not session.name.startswith(f"{MARK}{alias}:")])


def _ours(alias: str, sessions: list[Session]) -> Iterator[str]:
    processes: dict[str, list[Session]] = defaultdict(list)
    for session in sessions:
        processes[session.name].append(session)
    yield f"  of this project: {_many(len(sessions), 'connection')} of {_many(len(processes), 'process', 'es')}"
    for name, held in sorted(processes.items(), key=lambda item: (-len(item[1]), item[0])):
        pid, _, host = name.removeprefix(f"{MARK}{alias}:").partition(":")
        states = Counter(session.state or "not shown to this role" for session in held)
        yield f"    process {pid} on {host}: {_counted(states)}"
        busy = [session for session in held if session.state not in (None, "idle")]
        busy.sort(key=lambda session: -max(session.transaction or 0, session.since or 0))
        yield from (f"      {session}" for session in busy[:_SHOWN])
        if len(busy) > _SHOWN:
            yield f"      and {len(busy) - _SHOWN} more"
    if sessions:
        yield (
            "    (which line of code holds one is in that process's log, when its pool was exhausted or suspected a"
            " leak; idle to the server may still be held)"
        )


def _others(sessions: list[Session]) -> Iterator[str]:
    yield f"  of others: {_many(len(sessions), 'connection')}"
    kinds = Counter((session.role, session.name or "no name", session.host) for session in sessions)
    for (role, name, host), count in kinds.most_common(_SHOWN):
        states = Counter(each.state or "not shown to this role" for each in sessions
                         if (each.role, each.name or "no name", each.host) == (role, name, host))  # fmt: skip
        yield f"    {count} {role} ({name}) from {host}: {_counted(states)}"
    if len(kinds) > _SHOWN:
        yield f"    and {len(kinds) - _SHOWN} more kinds"


def _counted(states: Counter[str]) -> str:
    known = [state for state in _STATES if state in states]
    return ", ".join(f"{states[state]} {state}" for state in [*known, *sorted(states.keys() - set(known))])


def _many(count: int, what: str, plural: str = "s") -> str:
    return f"{count} {what}{'' if count == 1 else plural}"
