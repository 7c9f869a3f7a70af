"""One file a driver; `base` says what a pool asks of each."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

from .base import Driver

# A name of the public face to the module and class that serve it, and the extra that installs what they need (None:
# nothing). Imported when a pool asks for it, not before.
_DRIVERS: dict[str, tuple[str, str, str | None]] = {
    "psycopg": ("psycopg", "PsycopgDriver", "postgres"),
    "psycopg2": ("psycopg2", "Psycopg2Driver", "psycopg2"),
    "asyncpg": ("asyncpg", "AsyncpgDriver", "asyncpg"),
    "sqlite3": ("sqlite3", "Sqlite3Driver", None),
    "oracledb": ("oracledb", "OracledbDriver", "oracledb"),
    "pymysql": ("pymysql", "PyMySQLDriver", "pymysql"),
    "mysqlclient": ("mysqlclient", "MySQLClientDriver", "mysqlclient"),
    "aiomysql": ("aiomysql", "AiomysqlDriver", "aiomysql"),
}
# What has no blocking connections at all, and so no use in a Pool.
_ASYNCIO_ONLY = ("asyncpg", "aiomysql")


def load(name: str | Driver, connection_class: type | None, is_async: bool) -> Driver:
    """The driver of that name for connections of *connection_class* (None: the driver's own).

    One that is an object already is taken as it is. One that blocks (its class says so) is given threads for asyncio.

    :raises ValueError: when there is no such driver, or it is for asyncio alone and this is not.
    :raises TypeError: when it is neither a name nor an object that could be one.
    :raises ImportError: when the package that it needs is not installed; the message says which.
    """
    if isinstance(name, ModuleType):
        module = name.__name__
        known = f"driver={module!r}, its name, or " if module in _DRIVERS else ""
        raise TypeError(f"driver is the module {module}: say {known}driver=DBAPIModule({module})")
    if not isinstance(name, str) and not hasattr(name, "check_conninfo"):
        raise TypeError(
            f"driver must be one of {', '.join(map(repr, _DRIVERS))}, or an object that satisfies Driver, not {name!r}"
        )
    driver = _named(name, connection_class, is_async) if isinstance(name, str) else name
    if is_async and getattr(driver, "blocking", False):
        from .threaded import ThreadedDriver

        return ThreadedDriver(driver)
    return driver


def _named(name: str, connection_class: type | None, is_async: bool) -> Driver:
    if name not in _DRIVERS:
        raise ValueError(f"driver must be one of {', '.join(map(repr, _DRIVERS))}, not {name!r}")
    if name in _ASYNCIO_ONLY and not is_async:
        raise ValueError(f"driver {name!r} is for asyncio alone: use an AsyncPool, or another driver in a Pool")
    module, cls, extra = _DRIVERS[name]
    try:
        driver: Driver = getattr(import_module(f".{module}", __name__), cls)(connection_class, is_async)
    except ModuleNotFoundError as error:
        raise ImportError(f"driver {name!r} needs {error.name}: pip install 'penstock[{extra}]'") from None
    return driver


def for_url(url: Any, is_async: bool) -> str:
    """The name of the driver for the server that *url* names."""
    if isinstance(url, str) and url.partition("://")[0].partition("+")[0].lower() in ("mysql", "mariadb"):
        return "aiomysql" if is_async else "pymysql"
    return "psycopg"


async def check_connection(conn: Any) -> None:
    """One round trip over a connection of any driver's. Raises the driver's error if it does not work."""
    driver = getattr(conn, "_driver", None)
    if driver is not None:
        await driver.check(conn)
        return
    from .psycopg import check_connection  # which works for connections that no pool has made, too

    await check_connection(conn)
