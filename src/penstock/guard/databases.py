"""What a database is called: `orders at db:5432`. Of what a program connects with, no more than that is told."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from typing import Any

Where = tuple[str, str, str, str]  # host, port, database, user: one line for each, however it was spelled


def where(params: Mapping[str, Any]) -> Where:
    """Which database *params*, libpq's, lead to, with what libpq takes for what is not said.

    An address (hostaddr) is where libpq connects to, whatever the name of the host beside it.
    """

    def said(name: str, variable: str, default: str = "") -> str:
        return str(params.get(name) or os.environ.get(variable) or default)

    host = said("hostaddr", "PGHOSTADDR") or said("host", "PGHOST")
    user = said("user", "PGUSER") or _own_name()
    return _as_one(host), said("port", "PGPORT", "5432"), said("dbname", "PGDATABASE", user), user


def resolved(hosts: str, ports: str, database: str, user: str) -> Where:
    """As `where`, of what a driver has filled in itself."""
    return _as_one(hosts), ports, database, user


def _as_one(host: str) -> str:
    """A name's case means nothing; that of a socket's path does."""
    return host if host.startswith(("/", "@")) else host.lower()


def _own_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user that has no name
        return ""


def title(of: Where) -> str:
    host, port, database, user = of
    return f"{database or user or 'its default database'} at {host or 'a local socket'}:{port}"


def postgresql(params: Mapping[str, Any]) -> str:
    """*params*: libpq's, as given and in the conninfo."""

    def said(name: str, variable: str, default: str = "") -> str:
        return str(params.get(name) or os.environ.get(variable) or default)

    host = said("host", "PGHOST") or said("hostaddr", "PGHOSTADDR", "localhost")
    user = said("user", "PGUSER") or os.environ.get("USER", "")
    database = said("dbname", "PGDATABASE", user) or "the default database"
    return named(database, host, said("port", "PGPORT", "5432"))


def mysql(params: Mapping[str, Any]) -> str:
    """*params*: keyword arguments, whose names differ from driver to driver."""

    def said(*names: str) -> Any:
        return next((params[name] for name in names if params.get(name)), None)

    database = said("database", "db") or "no database"
    if isinstance(database, bytes):
        database = database.decode(errors="replace")
    if socket := said("unix_socket"):
        return f"{database} at {socket}"
    return named(str(database), str(said("host") or "localhost"), str(said("port") or 3306))


def named(database: str, host: str, port: str) -> str:
    return f"{database} at {host}:{port}"
