"""asyncpg's pool, shaped as asyncpg's own, over Penstock's: ``from penstock.compat.asyncpg import create_pool``.

`Pool` derives from `asyncpg.Pool`, and what asyncpg's users know is asyncpg's own wherever no connection is decided
about: arguments and their errors, the shortcuts (`pool.fetch(...)`), the proxy that a borrower gets instead of the
connection, which refuses to be used after its release. Who gets which connection, and when one is opened, checked,
cleaned or closed, is `penstock.AsyncPool`'s to say; ``pool.penstock`` is that pool: its holders, snapshot and events.

What is different, and why, stands in docs/compat.md.
"""

from __future__ import annotations

import asyncio
import math
from asyncio import current_task, get_running_loop
from collections.abc import Awaitable, Callable, Generator
from inspect import signature
from sys import _getframe
from types import CodeType, TracebackType
from typing import Any
from weakref import ref

try:
    import asyncpg  # type: ignore[import-untyped]
    from asyncpg import pool as theirs
except ModuleNotFoundError as error:
    raise ImportError(f"penstock.compat.asyncpg needs {error.name}: pip install 'penstock[asyncpg]'") from None

from .. import errors, events
from ..core import Priority, Reason, Slot, State
from ..drivers import sockets
from ..drivers.asyncpg import AsyncpgDriver
from ..drivers.asyncpg_connection import fileno
from ..drivers.base import Status
from ..drivers.session import Touched
from ..pool.aio import AsyncPool
from ..pool.holders import report
from ..pool.terms import Wish, declared

if "init_size" not in signature(theirs.Pool).parameters:
    raise ImportError(f"penstock.compat.asyncpg needs asyncpg 0.32 or newer, found {asyncpg.__version__}")

_FOREVER = 365 * 86_400.0  # seconds; an event loop's timer does not take infinity
_CONNECT_SECONDS = 60.0  # asyncpg's default
_Proxy = theirs.PoolConnectionProxy


class Pool(theirs.Pool):  # type: ignore[misc]
    """`asyncpg.Pool`, with Penstock deciding. Made by `create_pool`, whose arguments it has."""

    def __init__(self, *connect_args: Any, **options: Any) -> None:
        super().__init__(*connect_args, **options)
        self._closed: bool
        self.penstock = self._made()

    def _made(self) -> AsyncPool[Any]:
        """The pool that decides. Nothing is connected yet."""
        own_reset = self._reset is not None or _resets_itself(self._connection_class)
        return AsyncPool(
            driver=_Driver(self),
            min_size=self._initsize,
            max_size=self._maxsize,
            open=False,
            configure=self._init,
            reset=self._reset_by_hook if own_reset else None,
            timeout=math.inf,
            max_lifetime=math.inf,
            max_idle=self._max_inactive_connection_lifetime or math.inf,
            connect_timeout=self._connect_kwargs.get("timeout") or _CONNECT_SECONDS,
        )

    async def _initialize(self) -> None:
        """Of asyncpg's `await pool`: open what there is to be at first, and raise what connecting raises."""
        pool = self.penstock
        failed: asyncio.Future[BaseException] = self._loop.create_future()

        def look(event: events.ConnectFailed) -> None:
            if not failed.done():
                failed.set_result(event.error)

        stop = pool.listen(look, events.ConnectFailed)
        await pool.open()
        full = asyncio.ensure_future(pool.wait(_FOREVER))
        try:
            await asyncio.wait((full, failed), return_when=asyncio.FIRST_COMPLETED)
            if failed.done():
                raise failed.result()
            if self._minsize != self._initsize:
                await pool.resize(self._minsize, self._maxsize)
        except BaseException:
            self._end_all()
            raise
        finally:
            stop()
            full.cancel()
            await asyncio.gather(full, return_exceptions=True)

    # ------------------------------------------------------------------------------------------ borrowing

    def acquire(self, *, timeout: float | None = None) -> PoolAcquireContext:
        """A connection, for an `async with` block or to be awaited.

        :param timeout: seconds to wait for one; by default for ever.
        :raises TimeoutError: when there was none in time; its message says who holds them.
        :raises asyncpg.InterfaceError: when the pool is closing, closed or not initialized.
        :raises Exception: what connecting raised, when the database cannot be reached.
        """
        frame = _getframe(1)
        if frame.f_globals is _THEIR_GLOBALS:  # one of the shortcuts: its caller is meant, unless it is a task itself
            caller = frame.f_back
            if caller is not None and not caller.f_globals.get("__name__", "").startswith("asyncio."):
                frame = caller
        return PoolAcquireContext(self, timeout, frame.f_code, frame.f_lasti)

    async def _acquire(self, timeout: float | None, code: CodeType | None = None, lasti: int = -1) -> Any:
        if self._closing:
            raise asyncpg.InterfaceError("pool is closing")
        self._check_init()
        pool = self.penstock
        slot = None
        loop = get_running_loop()
        terms = declared()
        if timeout is None and terms is None and pool._plain and loop is pool._loop:
            task = current_task(loop)
            slot = pool._core.take(None if task is None else ref(task), code, lasti, pool._clock())
        if slot is None or slot.probe(0):
            slot = await self._waited_for(slot, timeout, code, lasti)
        conn = slot.conn
        slot.conn = None
        conn._pool = pool
        slot.by_hand = slot.owner
        holder = conn._holder
        holder.slot = slot
        holder.timeout = timeout
        if terms is not None:
            pool._bind(slot, conn, terms)
        proxy = _Proxy(holder, conn)
        if self._setup is not None:
            await self._set_up(conn, proxy)
        holder.lent = True
        return proxy

    async def _waited_for(self, slot: Slot | None, timeout: float | None, code: Any, lasti: int) -> Slot:
        pool = self.penstock
        wish = None
        if timeout is not None:
            wish = Wish(max(0.0, timeout), pool._clock(), math.inf, Priority.NORMAL, None)
        try:
            if declared() is not None:
                pool._arrive(wish, code, lasti)
            found: Slot = await pool._acquire(slot, wish, code, lasti)
            return found
        except errors.DatabaseUnavailable as error:
            if error.__cause__ is None:
                raise
            raise error.__cause__.with_traceback(None) from None
        except errors.PoolTimeout as error:
            raise errors.under(_kind(error), TimeoutError)(str(error)) from error.__cause__
        except errors.PoolClosed:
            raise asyncpg.InterfaceError("pool is closing") from None

    async def _set_up(self, conn: Any, proxy: Any) -> None:
        try:
            await self._setup(proxy)
        except BaseException:
            # It may be in any state: it is closed, and with that given back.
            await conn.close()
            raise
        conn._touched &= ~Touched.BEYOND_RESET  # codecs: the next one's setup sets them again

    async def release(self, connection: Any, *, timeout: float | None = None) -> None:
        """Give back what `acquire` gave; an open transaction is rolled back. No effect a second time.

        :param timeout: seconds to clean it within; by default what `acquire` was given.
        :raises asyncpg.InterfaceError: when it is not this pool's.
        :raises TimeoutError: when it was not clean in time. It is closed then.
        """
        if type(connection) is not _Proxy or connection._holder._pool is not self:
            raise asyncpg.InterfaceError(
                f"Pool.release() received invalid connection: {connection!r} is not a member of this pool"
            )
        conn = connection._con
        if conn is None:
            return  # released already
        self._check_init()
        await self._release(connection, conn, timeout)

    async def _release(self, proxy: Any, conn: Any, timeout: float | None = None) -> None:
        conn._on_release()
        if conn.is_closed():  # by a broken protocol, for one, which tells nobody: this does
            conn.terminate()
            return
        proxy._detach()
        pool, holder = self.penstock, proxy._holder
        slot = holder.slot
        holder.lent = False
        slot.by_hand = None
        if slot.bound:
            pool._unbind(slot, conn)
        if conn._protocol.queries_count >= self._max_queries:
            slot.expires = -math.inf
        if pool._plain and not slot.reported and pool._state(conn) == slot.baseline:
            conn._pool = None
            slot.conn = conn
            core, now = pool._core, pool._clock()
            if not core.give(slot, now):
                core.requite(slot, now)
                pool._carry_out(core.effects())
            return
        if pool._driver.status(conn) is Status.INTRANS:
            self._tell_of_transaction(conn)
        timeout = holder.timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(timeout):
                await pool._give_back(slot, conn, expected=True)
        except TimeoutError:
            conn.terminate()
            raise

    def _tell_of_transaction(self, conn: Any) -> None:
        """As asyncpg does."""
        if conn.is_in_transaction() and (conn._top_xact is None or not conn._top_xact._managed):
            self._loop.call_exception_handler({"message": f"Resetting connection with an active transaction {conn!r}"})

    async def _reset_by_hook(self, conn: Any) -> None:
        """In place of resetting what was touched: whoever has a reset of their own expects it each time."""
        if self._reset is not None:
            await conn._reset()
            await self._reset(conn)
        else:
            await conn.reset()
        conn._touched = Touched.NOTHING

    # ------------------------------------------------------------------------------------------ the pool as a whole

    async def close(self) -> None:
        """Wait until all connections are back, however long that takes, and close them.

        When it is cancelled, or fails, the pool is terminated.
        """
        if self._closed:
            return
        self._check_init()
        self._closing = True
        warning = self._loop.call_later(60, self._warn_on_long_close)
        try:
            await self.penstock.close(_FOREVER)
        except BaseException:
            self.terminate()
            raise
        finally:
            warning.cancel()
            self._closed = True
            self._closing = False

    def _warn_on_long_close(self) -> None:
        theirs.logger.warning(
            "Pool.close() is taking over 60 seconds to complete. These connections are not released:\n%s",
            report(self.penstock.holders()),
        )

    def terminate(self) -> None:
        """End all connections now, those that are lent too."""
        if self._closed:
            return
        self._check_init()
        self._closed = True
        self._end_all()

    def _end_all(self) -> None:
        pool, connections = self.penstock, self._connections()
        if not pool._core.closed:
            pool._event(pool._core.close)
        for task in list(pool._connecting):
            task.cancel()
        for conn in connections:
            conn.terminate()
        if pool._timer is not None:
            pool._timer.cancel()

    async def expire_connections(self) -> None:
        """Replace all connections: idle ones now, others when they are released."""
        await self.penstock.drain()

    def get_size(self) -> int:
        """Connections that are open."""
        return len(self._connections())

    def get_idle_size(self) -> int:
        """Connections that are open and not lent."""
        return sum(not slot.conn.is_closed() for slot in self.penstock._core.idle)

    def _connections(self) -> list[Any]:
        """Those that are idle or lent."""
        slots = [slot for slot in self.penstock._core.slots.values() if slot.state in (State.IDLE, State.LEASED)]
        found = [slot.conn if slot.conn is not None else slot.ref and slot.ref() for slot in slots]
        return [conn for conn in found if conn is not None and not conn.is_closed()]

    # asyncpg keeps its connections and its queue under these names; its tests, and tools made for it, look.

    @property
    def _holders(self) -> list[Holder]:
        holders = [conn._holder for conn in self._connections()]
        return holders + [Holder(self, None)] * (self._maxsize - len(holders))

    @_holders.setter
    def _holders(self, value: object) -> None:
        pass

    @property
    def _queue(self) -> _Free:
        return _Free(self)

    @_queue.setter
    def _queue(self, value: object) -> None:
        pass

    def _schedule_min_size_maintenance(self) -> None:
        pass  # Penstock's own to see to

    def _drop_statement_cache(self) -> None:
        for conn in self._connections():
            conn._drop_local_statement_cache()

    def _drop_type_cache(self) -> None:
        for conn in self._connections():
            conn._drop_local_type_cache()


class PoolAcquireContext:
    """What `Pool.acquire` returns."""

    __slots__ = ("_code", "_lasti", "_timeout", "connection", "done", "pool")

    def __init__(self, pool: Pool, timeout: float | None, code: CodeType, lasti: int) -> None:
        self.pool = pool
        self.connection: Any = None
        self.done = False
        self._timeout = timeout
        self._code = code
        self._lasti = lasti

    async def __aenter__(self) -> Any:
        if self.connection is not None or self.done:
            raise asyncpg.InterfaceError("a connection is already acquired")
        self.connection = await self.pool._acquire(self._timeout, self._code, self._lasti)
        return self.connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.done = True
        proxy, self.connection = self.connection, None
        conn = proxy._con
        if conn is not None:  # or it was released in the block
            await self.pool._release(proxy, conn)

    def __await__(self) -> Generator[Any, None, Any]:
        self.done = True
        return self.pool._acquire(self._timeout, self._code, self._lasti).__await__()


class Holder:
    """One connection's place in the pool, as asyncpg's proxies and connections know it. It does not keep the latter."""

    __slots__ = ("__weakref__", "_conn", "_pool", "lent", "slot", "timeout")
    _inactive_callback = None

    def __init__(self, pool: Pool, conn: Any) -> None:
        self._pool = pool
        self._conn = None if conn is None else ref(conn)
        self.slot: Slot | None = None
        self.lent = False
        self.timeout: float | None = None

    @property
    def _con(self) -> Any:
        return self._conn and self._conn()

    @property
    def _in_use(self) -> bool | None:
        return self.lent or None

    def is_connected(self) -> bool:
        conn = self._con
        return conn is not None and not conn.is_closed()

    def is_idle(self) -> bool:
        return not self.lent

    def terminate(self) -> None:
        conn = self._con
        if conn is not None:
            conn.terminate()

    def _release_on_close(self) -> None:
        """The connection has ended, by whomever: its place is free at once."""
        pool, slot, conn, self._conn = self._pool.penstock, self.slot, self._con, None
        if pool._core.closed and not self.lent:
            return
        if slot is not None and slot.state is State.LEASED and slot.by_hand is not None:  # or it is being cleaned
            if self.lent:
                self.lent = False
                conn._proxy._detach()
            slot.by_hand = None
            if slot.bound:
                pool._unbind(slot, conn)
            pool._returned(slot, conn, Reason.BROKEN)
        elif any(idle.conn is conn for idle in pool._core.idle):
            pool._doubt()


class _Free:
    """How many connections could be lent now, opened already or not."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def qsize(self) -> int:
        core = self._pool.penstock._core
        return core.max_size - core.leased


class _Driver(AsyncpgDriver):
    """asyncpg's connections, made as asyncpg's pool makes them: by its `connect` hook, with its arguments."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool._connection_class, is_async=True)
        self._pool = pool

    async def connect(self, conninfo: str, kwargs: Any, *, timeout: float, settings: Any) -> Any:
        pool = self._pool
        conn = await pool._connect(
            *pool._connect_args,
            loop=pool._loop,
            connection_class=self.connection_class,
            record_class=pool._record_class,
            **pool._connect_kwargs,
        )
        if self.connection_class not in type(conn).__mro__:  # to isinstance any connection of asyncpg's is as good
            if isinstance(conn, asyncpg.Connection):
                conn.terminate()
            raise asyncpg.InterfaceError(_not_ours(pool._connection_class, conn))
        sockets.notice_silence(fileno(conn))
        conn._holder = Holder(pool, conn)
        conn._pool_holder = ref(conn._holder)
        return conn


def _not_ours(wanted: type, found: Any) -> str:
    kind = type(found)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    message = f"expected pool connect callback to return an instance of '{wanted.__module__}.{wanted.__name__}', "
    if isinstance(found, wanted):
        return message + "of the class that it was given: pass connection_class on to asyncpg.connect()"
    return f"{message}got '{name}'"


def _resets_itself(connection_class: Any) -> bool:
    """Whether the class has a reset of its own."""
    plain = asyncpg.Connection
    return any(getattr(connection_class, name) is not getattr(plain, name) for name in ("reset", "get_reset_query"))


def _kind(error: errors.PoolError) -> type[errors.PoolError]:
    """Without the driver's class beside it."""
    return next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__ and kind in _OURS)


_OURS = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.PoolError)}
_THEIR_GLOBALS = vars(theirs)


def create_pool(
    dsn: str | None = None,
    *,
    init_size: int | None = None,
    min_size: int = 10,
    max_size: int = 10,
    max_queries: int = 50_000,
    max_inactive_connection_lifetime: float = 300.0,
    connect: Callable[..., Awaitable[Any]] | None = None,
    setup: Callable[[Any], Awaitable[None]] | None = None,
    init: Callable[[Any], Awaitable[None]] | None = None,
    reset: Callable[[Any], Awaitable[None]] | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
    connection_class: type = asyncpg.Connection,
    record_class: type = asyncpg.Record,
    **connect_kwargs: Any,
) -> Pool:
    """As `asyncpg.create_pool`: to be awaited, or for an `async with` block."""
    return Pool(
        dsn,
        init_size=init_size,
        min_size=min_size,
        max_size=max_size,
        max_queries=max_queries,
        max_inactive_connection_lifetime=max_inactive_connection_lifetime,
        connect=connect,
        setup=setup,
        init=init,
        reset=reset,
        loop=loop,
        connection_class=connection_class,
        record_class=record_class,
        **connect_kwargs,
    )
