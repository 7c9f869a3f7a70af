"""What the drivers of MySQL and MariaDB have in common, held."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from copy import copy
from typing import Any

from ...drivers.mysql import AUTOCOMMIT, DOUBT, IN_TRANS
from ...drivers.mysql_session import LEFT_BEHIND
from ..settings import Settings
from . import pools
from .facade import Cursor
from .handle import Kind

_OLD_NAMES = {"db": "database", "passwd": "password"}
# What a connection object, and not the session, has from `connect`: it goes with the program's, whichever it gets.
# SET NAMES as the login has it, and what SQLAlchemy and Django set: alone, and without variables.
_SETTING = re.compile(
    r"\s*set\s+(?:names\s+(?P<names>\w+|'\w+')"
    r"|(?:session\s+)?autocommit\s*=\s*[01]"
    r"|(?P<isolation>session\s+transaction\s+isolation\s+level)\s+(?:read|repeatable|serializable)(?:\s+\w+)?"
    r"|(?P<is_null>sql_auto_is_null)\s*=\s*[01])\s*;?\s*\Z",
    re.IGNORECASE,
)
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


class MySQLCursor(Cursor):
    """A few settings that libraries make after connecting go with the program's connection, whichever it gets."""

    def execute(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        setting = None if args or kwargs else _SETTING.match(statement) if isinstance(statement, str) else None
        if setting is None:
            return super().execute(statement, *args, **kwargs)
        handle = self._handle
        conn = handle.enter()
        try:
            touched, was_open = conn._touched, conn._flags & (IN_TRANS | DOUBT)
            result = super().execute(statement)
            if setting["names"]:
                if not _is_as_at_login(conn, setting["names"]):
                    return result
            elif name := setting["isolation"] or setting["is_null"]:
                handle.replay[" ".join(name.lower().split())] = statement
            conn._touched = touched  # autocommit is told by the server
            if not was_open:
                conn._flags &= ~(IN_TRANS | DOUBT)  # mysqlclient's is not told that these open no transaction
            return result
        finally:
            handle.leave()


def _is_as_at_login(conn: Any, charset: str) -> bool:
    login, collation = conn._login_charset
    return charset.strip("'\"").lower() == login and collation is None


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

    def repeat(self, conn: Any, statement: str) -> None:
        conn._ours = True
        try:
            conn.query(statement)
        finally:
            conn._ours = False
