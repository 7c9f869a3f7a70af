"""A thousand threads that run a query under Django and end, and a thousand requests under ASGI; nobody closes anything.

Each contestant is a process of its own with at most four connections, where it can be told. The server is asked all the
time how many it has open.
"""

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from statistics import median
from threading import Event, Thread
from typing import Any, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict

from bench.context import Context
from bench.measure import turns
from bench.report import Line, Result, duration, figure

CLAIM = "Django: 1,000 threads that end, and 1,000 requests under ASGI"
BAR = "server connections <= the pool's size at every look, 0 errors"

COUNT = 1000
SIZE = 4
TIMEOUT = 5  # seconds that a request waits for a connection, where that can be told
ROUNDS = 3
NAME = "bench-django"

POOL = {"min_size": 0, "max_size": SIZE, "timeout": TIMEOUT}
OURS = "ours"
CONTESTANTS: Mapping[str, Mapping[str, Any]] = {
    OURS: {"ENGINE": "penstock.integrations.django.postgresql", "OPTIONS": {"pool": POOL}},
    "Django's pool": {"ENGINE": "django.db.backends.postgresql", "OPTIONS": {"pool": POOL}},
    "Django, no pool": {"ENGINE": "django.db.backends.postgresql", "OPTIONS": {}},
    "Django, CONN_MAX_AGE=600": {"ENGINE": "django.db.backends.postgresql", "OPTIONS": {}, "CONN_MAX_AGE": 600},
}


class Found(NamedTuple):
    """What one turn gave."""

    answered: int
    errors: int
    most: int
    looks: int
    usable: bool
    seconds: float


def run(ctx: Context) -> Result:
    found: dict[tuple[str, str], list[Found]] = defaultdict(list)
    for what in ("threads", "asgi"):
        for name in turns(list(CONTESTANTS), 1 if ctx.quick else ROUNDS):
            found[what, name].append(_turn(ctx, what, name))
    shown = {"threads": "1,000 threads at once, a query each", "asgi": "1,000 requests under ASGI, 50 at a time"}
    lines = [_line(text, {name: found[what, name] for name in CONTESTANTS}) for what, text in shown.items()]
    return [*lines, _cycle(ctx)]


def _line(what: str, found: Mapping[str, list[Found]]) -> Line:
    ours = found[OURS]
    met = all(turn.errors == 0 and turn.most <= SIZE and turn.answered >= COUNT for turn in ours)
    peers = "; ".join(f"{name}: {_words(turns_)}" for name, turns_ in found.items() if name != OURS)
    return Line(f"Django, {what}", _words(ours), peers, "", f"<= {SIZE} connections, 0 errors", met)


def _words(found: list[Found]) -> str:
    errors, most = max(turn.errors for turn in found), max(turn.most for turn in found)
    looks = min(turn.looks for turn in found)
    left = "" if all(turn.usable for turn in found) else ", and nothing left for the next thread"
    seconds = duration(median(turn.seconds for turn in found))
    return f"{errors:,} errors, most connections {most} ({looks:,} looks), {seconds}{left}"


def _cycle(ctx: Context) -> Line:
    databases = {name: _database(ctx, name) for name in CONTESTANTS}
    found = _child(databases | {"default": databases[OURS]}, "cycle")
    peers = ", ".join(f"{name} {figure(found[name])}" for name in CONTESTANTS if name != OURS)
    return Line("Django, a query and the end of its request, one thread", f"{figure(found[OURS])} us", f"{peers} us",
                "", "", None)  # fmt: skip


def _turn(ctx: Context, what: str, name: str) -> Found:
    ended, seen = Event(), [0]
    watching = Thread(target=_watch, args=(ctx.server.admin_dsn, ended, seen))
    watching.start()
    try:
        found = _child({"default": _database(ctx, name)}, what)
    finally:
        ended.set()
        watching.join()
    return Found(
        answered=found.get("answered", 0),
        errors=found.get("errors", 0),
        most=max(seen),
        looks=len(seen),
        usable=bool(found.get("usable", True)),
        seconds=found["seconds"],
    )


def _watch(dsn: str, ended: Event, seen: list[int]) -> None:
    with psycopg.connect(dsn, autocommit=True) as watching:
        while not ended.wait(0.002):
            asked = watching.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [NAME])
            seen.extend(row[0] for row in asked)


def _database(ctx: Context, name: str) -> dict[str, Any]:
    where = conninfo_to_dict(ctx.dsn)
    keys = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    given = {**CONTESTANTS[name], **{key: str(where[each]) for key, each in keys.items()}}
    return given | {"OPTIONS": {**given["OPTIONS"], "application_name": NAME}}


def _child(databases: Mapping[str, Any], what: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.django_app", what, str(COUNT)],
        env=os.environ | {"BENCH_DJANGO": json.dumps(databases)},
        stdout=subprocess.PIPE, check=True, timeout=300,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
