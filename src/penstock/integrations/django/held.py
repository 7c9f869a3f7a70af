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
# Texts in a statement, which may be anybody's: how they are written differs. The last one may have been cut off.
_TEXTS = {
    "postgresql": re.compile(r"\bE'(?:[^'\\]|\\(?:.|\Z)|'')*(?:'|\Z)|'(?:[^']|'')*(?:'|\Z)", re.IGNORECASE | re.DOTALL),
    "mysql": re.compile(r"""'(?:[^'\\]|\\(?:.|\Z)|'')*(?:'|\Z)|"(?:[^"\\]|\\(?:.|\Z)|"")*(?:"|\Z)""", re.DOTALL),
}

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
# To a role without PROCESS the server shows its own sessions alone, but tells how many there are.
_MYSQL_ACTIVITY = """
    SELECT '', substring_index(host, ':', 1), user, id, if(command = 'Sleep', 'idle', 'active'), time, NULL, info
    FROM information_schema.processlist
    WHERE id <> connection_id() AND command NOT IN ('Daemon', 'Binlog Dump', 'Connect')
"""
_MYSQL_LIMITS = "SELECT @@global.max_connections, 0"
_ASKED = {"postgresql": (_LIMITS, _ACTIVITY), "mysql": (_MYSQL_LIMITS, _MYSQL_ACTIVITY)}
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
        return f"{doing}: {last}{self.statement}"


def describe(alias: str) -> Iterator[str]:
    """What the server says of the connections of *alias*, a line each.

    :raises django.db.DatabaseError: when it cannot be asked.
    """
    asking = connections[alias].copy()
    settings = asking.settings_dict
    settings["OPTIONS"] = settings["OPTIONS"] | {"pool": False}
    limits, activity = _ASKED[asking.vendor]
    try:
        with asking.cursor() as cursor:
            cursor.execute(limits)
            most, reserved = cursor.fetchone()
            cursor.execute(activity)
            sessions = [Session(*row)._replace(statement=_shown(row[-1], asking.vendor)) for row in cursor.fetchall()]
            in_use = len(sessions)
            if asking.vendor == "mysql":
                cursor.execute("SHOW GLOBAL STATUS LIKE 'Threads_connected'")
                in_use = max(in_use, int(cursor.fetchone()[1]) - 1)
    finally:
        asking.close()
    user, host, port = (settings[key] or "(default)" for key in ("USER", "HOST", "PORT"))
    yield f"{alias}: {user}@{host}:{port}/{settings['NAME']}"
    yield f"  each process: {sizes(connections[alias])}"
    yield (
        f"  the server: {in_use} of {most - reserved} connections in use"
        f" ({most}, {reserved} of them reserved); {max(most - reserved - in_use, 0)} left"
    )
    if asking.vendor == "mysql":
        yield from _of_this_user(settings["USER"], sessions)
        return
    yield from _ours(alias, [session for session in sessions if session.name.startswith(f"{MARK}{alias}:")])
    yield from _others([session for session in sessions if not session.name.startswith(f"{MARK}{alias}:")])


def _shown(statement: str | None, vendor: str) -> str | None:
    return statement_text(None if statement is None else _TEXTS[vendor].sub("'...'", statement))


def _of_this_user(user: str, sessions: list[Session]) -> Iterator[str]:
    """MySQL does not know its clients by name, nor this role who has a transaction open."""
    own = [session for session in sessions if session.role == user]
    yield f"  of this project: {_many(len(own), 'connection')}, if all of {user}'s are"
    for host, count in Counter(session.host for session in own).most_common(_SHOWN):
        states = Counter(session.state or "" for session in own if session.host == host)
        yield f"    {count} from {host}: {_counted(states)}"
    yield from _busiest(own)


def _ours(alias: str, sessions: list[Session]) -> Iterator[str]:
    processes: dict[str, list[Session]] = defaultdict(list)
    for session in sessions:
        processes[session.name].append(session)
    yield f"  of this project: {_many(len(sessions), 'connection')} of {_many(len(processes), 'process', 'es')}"
    for name, held in sorted(processes.items(), key=lambda item: (-len(item[1]), item[0])):
        pid, _, host = name.removeprefix(f"{MARK}{alias}:").partition(":")
        states = Counter(session.state or "not shown to this role" for session in held)
        yield f"    process {pid} on {host}: {_counted(states)}"
        yield from _busiest(held)
    if sessions:
        yield (
            "    (which line of code holds one is in that process's log, when its pool was exhausted or suspected a"
            " leak; idle to the server may still be held)"
        )


def _busiest(sessions: list[Session]) -> Iterator[str]:
    busy = [session for session in sessions if session.state not in (None, "idle")]
    busy.sort(key=lambda session: -max(session.transaction or 0, session.since or 0))
    yield from (f"      {session}" for session in busy[:_SHOWN])
    if len(busy) > _SHOWN:
        yield f"      and {len(busy) - _SHOWN} more"


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
