"""Every contestant behind one face, so that each row of the table is written once.

A contestant is opened with `Options` and knows how to take a connection, give it back, and ask the server something.
Each is used as its manual says. asyncpg is asyncio only: its pool lives in an event loop of its own in another thread.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from threading import Thread
from typing import Any, Protocol, TypeVar

import asyncpg
import psycopg
import psycopg2
import psycopg_pool
import sqlalchemy
from dbutils.pooled_db import PooledDB
from psycopg2.pool import ThreadedConnectionPool

import penstock

T = TypeVar("T")

SELECT_PID = "SELECT pg_backend_pid()"


@dataclass(frozen=True, slots=True)
class Options:
    """What a row wants of a pool. Times in seconds."""

    size: int
    min_size: int | None = None  # as many as `size`
    timeout: float = 2.0  # to wait for a connection; those that wait for ever or not at all ignore it
    validate: bool = False
    max_waiting: int = 0
    connect_seconds: float | None = None  # connecting takes this long, on connections opened beforehand

    @property
    def least(self) -> int:
        """Connections to open at once."""
        return self.size if self.min_size is None else self.min_size


class Contestant(Protocol):
    """A pool, open."""

    waits: bool  # whether a caller waits when all connections are out
    limits_queue: bool  # whether `max_waiting` means anything

    def take(self) -> Any: ...

    def give(self, connection: Any) -> None: ...

    def ask(self, connection: Any) -> int:
        """The pid of the connection's backend; leaves a transaction open where that is the driver's way."""
        ...

    def begin(self, connection: Any) -> None:
        """Open a transaction and leave it open."""
        ...

    def clean(self, connection: Any) -> bool:
        """Whether the connection is in no transaction."""
        ...

    def close(self) -> None: ...


class _Psycopg:
    """What is alike wherever a psycopg 3 connection comes out in the end."""

    waits = True
    limits_queue = False

    def driver(self, connection: Any) -> Any:
        """The driver's own connection."""
        return connection

    def ask(self, connection: Any) -> int:
        return int(self.driver(connection).execute(SELECT_PID).fetchone()[0])

    def begin(self, connection: Any) -> None:
        self.ask(connection)  # the first statement opens it

    def clean(self, connection: Any) -> bool:
        return bool(self.driver(connection).info.transaction_status == psycopg.pq.TransactionStatus.IDLE)


def _connect(dsn: str, options: Options) -> Callable[[], Any]:
    """The driver's connect, or one that takes as long as the row says and no longer."""
    seconds = options.connect_seconds
    if seconds is None:
        return lambda: psycopg.connect(dsn)
    ready = [psycopg.connect(dsn) for _ in range(options.size)]

    def connect() -> Any:
        time.sleep(seconds)
        return ready.pop()

    return connect


def _connection_class(dsn: str, options: Options) -> Any:
    connect = _connect(dsn, options)
    return type("Connection", (psycopg.Connection,), {"connect": staticmethod(lambda *_, **__: connect())})


class Penstock(_Psycopg):
    """penstock.Pool. It validates always: `validate` changes nothing."""

    limits_queue = True

    def __init__(self, dsn: str, options: Options) -> None:
        self._pool = penstock.Pool(
            dsn,
            connection_class=_connection_class(dsn, options),
            min_size=options.least,
            max_size=options.size,
            timeout=options.timeout,
            max_waiting=options.max_waiting,
            open=True,
        )
        self._pool.wait()
        self.take = self._pool.getconn
        self.give = self._pool.putconn
        self.close = self._pool.close


class PsycopgPool(_Psycopg):
    limits_queue = True

    def __init__(self, dsn: str, options: Options) -> None:
        self._pool = psycopg_pool.ConnectionPool(
            dsn,
            connection_class=_connection_class(dsn, options),
            min_size=options.least,
            max_size=options.size,
            timeout=options.timeout,
            max_waiting=options.max_waiting,
            check=psycopg_pool.ConnectionPool.check_connection if options.validate else None,
            open=True,
        )
        self._pool.wait()
        self.take = self._pool.getconn
        self.give = self._pool.putconn
        self.close = self._pool.close


class SqlAlchemy(_Psycopg):
    """An engine over psycopg 3, and its own connections: only they notice a disconnect and empty the pool."""

    def __init__(self, dsn: str, options: Options) -> None:
        self._engine = sqlalchemy.create_engine(
            "postgresql+psycopg://",
            creator=_connect(dsn, options),
            pool_size=options.size,
            max_overflow=0,
            pool_timeout=options.timeout,
            pool_pre_ping=options.validate,
        )
        self.take = self._engine.connect
        for connection in [self.take() for _ in range(options.least)]:
            connection.close()
        self.close = self._engine.dispose

    def give(self, connection: Any) -> None:
        connection.close()

    def ask(self, connection: Any) -> int:
        return int(connection.exec_driver_sql(SELECT_PID).scalar())

    def driver(self, connection: Any) -> Any:
        return connection.connection.dbapi_connection


class DbUtils(_Psycopg):
    """PooledDB over psycopg 3. `blocking` waits without any limit."""

    def __init__(self, dsn: str, options: Options) -> None:
        self._pool = PooledDB(
            _connect(dsn, options),
            mincached=options.least,
            maxconnections=options.size,
            blocking=True,
            ping="SELECT 1" if options.validate else 0,
            failures=(psycopg.OperationalError, psycopg.InterfaceError),
        )
        self.take = self._pool.connection
        self.close = self._pool.close

    def give(self, connection: Any) -> None:
        connection.close()

    def ask(self, connection: Any) -> int:
        cursor = connection.cursor()
        cursor.execute(SELECT_PID)
        return int(cursor.fetchone()[0])

    def driver(self, connection: Any) -> Any:
        return connection._con._con


class Psycopg2:
    """ThreadedConnectionPool. It neither waits nor validates."""

    waits = False
    limits_queue = False

    def __init__(self, dsn: str, options: Options) -> None:
        self._pool = ThreadedConnectionPool(
            options.least, options.size, dsn, connection_factory=_slow_psycopg2(options.connect_seconds or 0.0)
        )
        self.take = self._pool.getconn
        self.give = self._pool.putconn
        self.close = self._pool.closeall

    def ask(self, connection: Any) -> int:
        with connection.cursor() as cursor:
            cursor.execute(SELECT_PID)
            return int(cursor.fetchone()[0])

    def begin(self, connection: Any) -> None:
        self.ask(connection)  # the first statement opens it

    def clean(self, connection: Any) -> bool:
        return bool(connection.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_IDLE)


def _slow_psycopg2(seconds: float) -> Any:
    """A class whose connections take that long besides what they take anyway: it has no hook for connecting."""

    class Slow(psycopg2.extensions.connection):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            time.sleep(seconds)
            super().__init__(*args, **kwargs)

    return Slow


class Asyncpg:
    """asyncpg's pool. It needs no validation: the event loop sees a connection close."""

    waits = True
    limits_queue = False

    def __init__(self, dsn: str, options: Options) -> None:
        self._timeout = options.timeout
        self._loop = asyncio.new_event_loop()
        Thread(target=self._loop.run_forever, daemon=True).start()
        self._pool = self._run(self._open(dsn, options))

    async def _open(self, dsn: str, options: Options) -> Any:
        sizes = {"min_size": options.least, "max_size": options.size}
        if options.connect_seconds is None:
            return await asyncpg.create_pool(dsn, **sizes)
        ready = [await asyncpg.connect(dsn) for _ in range(options.size)]

        async def connect(*_: Any, **__: Any) -> Any:
            await asyncio.sleep(options.connect_seconds or 0.0)
            return ready.pop()

        return await asyncpg.create_pool(dsn, connect=connect, **sizes)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def take(self) -> Any:
        return self._run(self._pool._acquire(self._timeout))

    def give(self, connection: Any) -> None:
        self._run(self._pool.release(connection))

    def ask(self, connection: Any) -> int:
        return int(self._run(connection.fetchval(SELECT_PID)))

    def begin(self, connection: Any) -> None:
        self._run(connection.execute("BEGIN"))

    def clean(self, connection: Any) -> bool:
        return not connection.is_in_transaction()

    def close(self) -> None:
        self._run(self._terminate())
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _terminate(self) -> None:
        self._pool.terminate()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


CONTESTANTS: dict[str, Callable[[str, Options], Contestant]] = {
    "psycopg_pool": PsycopgPool,
    "SQLAlchemy": SqlAlchemy,
    "asyncpg": Asyncpg,
    "psycopg2": Psycopg2,
    "DBUtils": DbUtils,
    "Penstock": Penstock,
}


def opened(name: str, dsn: str, options: Options) -> Contestant:
    """That contestant, open."""
    return CONTESTANTS[name](dsn, options)
