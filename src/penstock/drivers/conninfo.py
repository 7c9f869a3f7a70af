"""Reading a PostgreSQL connection string without ever showing what is secret in it."""

from __future__ import annotations

from typing import Any


def parse(conninfo: str) -> dict[str, Any]:
    """The parameters that *conninfo*, a URL or ``key=value`` pairs, gives.

    :raises ValueError: when it does not parse. Nothing of libpq's own words travels on, not even as a context: they
        quote the piece that could not be read, and that piece may be the password.
    """
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        params = conninfo_to_dict(conninfo)
    except (psycopg.Error, UnicodeError):
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
