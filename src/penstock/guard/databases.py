"""What a database is called: `orders at db:5432`. Of what a program connects with, no more than that is told."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any


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
