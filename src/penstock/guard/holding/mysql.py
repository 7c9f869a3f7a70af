"""What the drivers of MySQL and MariaDB have in common, held."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from copy import copy
from typing import Any

from ...drivers.mysql import AUTOCOMMIT
from ...drivers.mysql_session import LEFT_BEHIND
from ..settings import Settings
from . import pools
from .handle import Kind

_OLD_NAMES = {"db": "database", "passwd": "password"}
# What a connection object, and not the session, has from `connect`: it goes with the program's, whichever it gets.
_OF_THE_OBJECT = "cursorclass"


def pool_for(
    driver: str, given: Mapping[str, Any], connection_class: Any, settings: Settings, /, **more: Any
) -> tuple[pools.HeldPool, float | None, dict[str, Any]] | None:
    """The pool for these arguments of `connect`, how long to wait for a connection, and what to set on it.

    *more*: what else the pool is made with. None: they cannot be held.
    """
    params = {_OLD_NAMES.get(name, name): value for name, value in given.items()}
    kept = {_OF_THE_OBJECT: params.pop(_OF_THE_OBJECT)} if params.get(_OF_THE_OBJECT) else {}
    timeout = params.pop("connect_timeout", None)
    try:
        key = (_frozen(params), connection_class)
        hash(key)
    except TypeError:
        pools.say_once(f"{driver} connections with arguments that cannot be compared are not held")
        return None
    host, port = params.get("host") or params.get("unix_socket") or "", params.get("port") or 3306
    where = (str(host), str(port), str(params.get("database") or ""), str(params.get("user") or ""))

    def make() -> tuple[str, dict[str, Any]]:
        options = {"connect_timeout": float(timeout)} if timeout else {}
        return "", {"kwargs": params, "connection_class": connection_class, **options, **more}

    database = params.get("database") or "no database yet"
    title = f"{_text(database)} at {_text(host) or 'a local socket'}:{port}"
    return pools.pool_for(driver, where, key, settings.max_size, make, title), timeout, kept


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _frozen(value: Any) -> Hashable:
    if isinstance(value, Mapping):
        return frozenset((name, _frozen(each)) for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(map(_frozen, value))
    return value  # type: ignore[no-any-return]


class MySQLKind(Kind):
    mysql = True
    everything = LEFT_BEHIND

    def keep(self, conn: Any) -> dict[str, Any]:
        baseline = self.pool._slot_of(conn).baseline
        names = self.driver.attributes  # type: ignore[attr-defined]
        then = zip(names, baseline[-len(names) :], strict=True)
        kept = {name: copy(now) for name, value in then if (now := getattr(conn, name)) != value}
        if (conn._flags ^ baseline[1]) & AUTOCOMMIT:
            kept["autocommit"] = bool(conn._flags & AUTOCOMMIT)
        return kept

    def apply(self, conn: Any, kept: dict[str, Any]) -> None:
        for name, value in kept.items():
            if name == "autocommit":
                conn.autocommit(value)
            else:
                setattr(conn, name, copy(value) if isinstance(value, dict) else value)
