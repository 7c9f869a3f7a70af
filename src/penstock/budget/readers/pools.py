"""Pools that are made by calling a constructor with their largest size: a table, one line a library.

The defaults were read from psycopg_pool 3.3.3, asyncpg 0.32, psycopg2 2.9.13, DBUtils 3.2, aiomysql 0.3.2,
asyncmy 0.2.18 and mysql-connector-python 26.10.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .facts import Bound, Opens
from .source import Call, Module, Unknown, arguments, literal, variable_of


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a library's pool is told its size.

    :ivar positional: its parameters by position, as far as we need them.
    :ivar most: the one that is the largest size.
    :ivar default: what that is when it is not given; None when there is no default or no limit.
    :ivar least: the one that is the smallest size, and its default.
    :ivar least_wins: whether the smallest size is the largest too when the largest is not given (psycopg_pool), or is
        larger (asyncpg refuses that; the size that was meant is not known then).
    :ivar instead: what to write; see `Opens.instead`.
    """

    positional: tuple[str, ...]
    most: str
    default: int | None
    least: tuple[str, int]
    instead: str
    least_wins: bool = False


_PSYCOPG = _Kind(("conninfo",), "max_size", None, ("min_size", 4), "min_size={min}, max_size={n}", least_wins=True)
_NULL = _Kind(("conninfo",), "max_size", None, ("min_size", 0), "max_size={n}", least_wins=True)
_ASYNCPG = _Kind(("dsn",), "max_size", 10, ("min_size", 10), "min_size={min}, max_size={n}")
_PSYCOPG2 = _Kind(("minconn", "maxconn", "dsn"), "maxconn", None, ("minconn", 1), "minconn=1, maxconn={n}")
_AIOMYSQL = _Kind((), "maxsize", 10, ("minsize", 1), "minsize=1, maxsize={n}")
_CONNECTOR = _Kind(("pool_size",), "pool_size", 5, ("", 0), "pool_size={n}")
_DBUTILS = _Kind(
    ("creator", "mincached", "maxcached", "maxshared", "maxconnections"), "maxconnections", 0, ("", 0),
    "maxconnections={n}, blocking=True",
)  # fmt: skip

_KINDS = {
    "psycopg_pool.ConnectionPool": _PSYCOPG,
    "psycopg_pool.AsyncConnectionPool": _PSYCOPG,
    "psycopg_pool.NullConnectionPool": _NULL,
    "psycopg_pool.AsyncNullConnectionPool": _NULL,
    "penstock.Pool": _PSYCOPG,
    "penstock.AsyncPool": _PSYCOPG,
    "asyncpg.create_pool": _ASYNCPG,
    "asyncpg.pool.create_pool": _ASYNCPG,
    "psycopg2.pool.SimpleConnectionPool": _PSYCOPG2,
    "psycopg2.pool.ThreadedConnectionPool": _PSYCOPG2,
    "aiomysql.create_pool": _AIOMYSQL,
    "asyncmy.create_pool": _AIOMYSQL,
    "mysql.connector.pooling.MySQLConnectionPool": _CONNECTOR,
    "dbutils.pooled_db.PooledDB": _DBUTILS,
}
_FROM_BUDGET = {"penstock.Pool.from_budget", "penstock.AsyncPool.from_budget"}


def read(module: Module) -> Iterator[Opens]:
    """Every pool that *module* makes."""
    for call in module.calls():
        name = call.name
        if name.startswith("mysql.connector.connect") and any(each.arg == "pool_size" for each in call.node.keywords):
            name = "mysql.connector.pooling.MySQLConnectionPool"
        if name in _KINDS:
            yield _pool(module, call, _KINDS[name])
        elif name in _FROM_BUDGET:
            yield _from_budget(module, call)


def _pool(module: Module, call: Call, kind: _Kind) -> Opens:
    name = ".".join(call.name.split(".")[-2:]) if call.name.endswith("create_pool") else call.name.rpartition(".")[2]
    where = call.node.args[0] if call.node.args and kind.positional[:1] in (("conninfo",), ("dsn",)) else None
    where = where or next((each.value for each in call.node.keywords if each.arg in ("conninfo", "dsn")), None)
    url = variable_of(module, where)
    given = arguments(module, call.node, kind.positional)
    if isinstance(given, Unknown):
        return Opens(call.place, name, "", Bound.UNKNOWN, None, given.why, kind.instead, url)
    size, why = _size(given, kind)
    sets = ", ".join(f"{each}={literal(given[each])}" for each in (kind.least[0], kind.most) if each in given)
    if not sets:
        sets = f"{kind.most}={literal(size)} by default"
    if isinstance(size, Unknown):
        return Opens(call.place, name, sets, Bound.UNKNOWN, None, size.why, kind.instead, url)
    if size == 0:
        return Opens(call.place, name, sets, Bound.NONE, None, f"{kind.most} of 0 means no limit", kind.instead, url)
    return Opens(call.place, name, sets, Bound.POOL, size, why, kind.instead, url)


def _size(given: dict[str, Any], kind: _Kind) -> tuple[int | Unknown, str]:
    """The largest size, and what it comes from when it is not simply given."""
    size, why = given.get(kind.most), ""
    if size is None and kind.least_wins:
        size = given.get(kind.least[0], kind.least[1])
        why = "without max_size it is min_size" + ("" if kind.least[0] in given else f", {size} by default")
    elif size is None:
        size, why = kind.default, f"{kind.most} by default"
    if isinstance(size, Unknown):
        return size, ""
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        return Unknown(f"{kind.most} is {literal(size)}"), ""
    return size, why


def _from_budget(module: Module, call: Call) -> Opens:
    name = ".".join(call.name.split(".")[-2:])
    given = arguments(module, call.node, ("service",))
    service = given.get("service") if isinstance(given, dict) else None
    most = given.get("max_size") if isinstance(given, dict) else None
    if not isinstance(service, str):
        return Opens(call.place, name, "", Bound.UNKNOWN, None, "the service's name is no literal")
    sets = f'"{service}"' + (f", max_size={literal(most)}" if most is not None else "")
    return Opens(call.place, f"{name}({sets})", "", Bound.BUDGET, None, "its size is its share", service=service)
