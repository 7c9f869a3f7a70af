"""Reading a PostgreSQL connection string without ever showing what is secret in it, and what every connect adds."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

# Without these a connection whose peer has vanished is waited for until the kernel gives up: two hours when idle, a
# quarter of an hour with unacknowledged data. libpq's names; the last in milliseconds.
_NETWORK = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 30_000}


def parse(conninfo: str) -> dict[str, Any]:
    """The parameters that *conninfo*, a URL or ``key=value`` pairs, gives.

    :raises ValueError: when it does not parse. Nothing of libpq's own words travels on, not even as a context: they
        quote the piece that could not be read, and that piece may be the password.
    """
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    return read(conninfo, conninfo_to_dict, psycopg.Error)


def read(conninfo: str, parser: Callable[[str], dict[str, Any]], error: type[Exception]) -> dict[str, Any]:
    """As `parse`, by another driver's *parser*, which raises *error*."""
    try:
        params = parser(conninfo)
    except (error, UnicodeError):
        params = None
    if params is None:
        raise ValueError(
            "conninfo does not parse: expected 'postgresql://user:password@host:5432/dbname' or"
            " 'host=... dbname=... user=...'"
        )
    # libpq ends the password of a URL at its first "/" or "@" and takes the rest for a host, which errors then show.
    if "://" in conninfo and any("@" in str(params.get(part, "")) for part in ("host", "port", "dbname")):
        raise ValueError("conninfo has a password with characters that a URL reserves: write %40 for @, %2F for /")
    return params


def added(given: Mapping[str, Any], timeout: float, settings: Mapping[str, str]) -> dict[str, Any]:
    """libpq's parameters for what a pool wants of a connection, beside those that are *given*, which win.

    *timeout*: seconds, for each address tried. *settings*: the server's, to begin the session with.
    """
    defaults: dict[str, Any] = {"connect_timeout": math.ceil(timeout), **_NETWORK}
    params = {key: value for key, value in defaults.items() if key not in given}
    if settings:
        begun = given.get("options") or os.environ.get("PGOPTIONS", "")
        params["options"] = " ".join([begun, *(f"-c {name}={value}" for name, value in settings.items())]).strip()
    return params


IDLE_LIMIT = "idle_in_transaction_session_timeout"


def limits(statement: float | None, idle_in_transaction: float | None) -> Mapping[str, str]:
    """PostgreSQL's settings for so many seconds, as `Driver.limits` wants them."""
    given = {"statement_timeout": statement, IDLE_LIMIT: idle_in_transaction}
    return {name: f"{math.ceil(seconds * 1000)}ms" for name, seconds in given.items() if seconds is not None}


def seconds(limit: str) -> float:
    """What `limits` has made of so many."""
    return int(limit.removesuffix("ms")) / 1000
