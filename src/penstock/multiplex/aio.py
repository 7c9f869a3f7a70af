"""`AsyncPool` as users have it: with statements that need no connection of their own."""

from __future__ import annotations

import dataclasses
from asyncio import TimerHandle, get_running_loop
from collections.abc import Callable, Coroutine, Hashable
from sys import _getframe
from typing import TYPE_CHECKING, Any, TypeVar

from ..core import Priority, Slot
from ..pool import aio
from ..pool.holders import Holder, call_site, statement_text
from ..pool.profile import Glance
from ..pool.snapshot import Snapshot
from ..pool.terms import Wish
from .multiplexer import Multiplexer
from .statement import Statement

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from psycopg.abc import Params, Query
    from psycopg.rows import AsyncRowFactory, TupleRow
    from sqlalchemy import Executable
    from typing_extensions import TypeVar as TypeVarWithDefault

    C = TypeVarWithDefault("C", default=AsyncConnection[TupleRow])
else:
    C = TypeVar("C")

GRACE = 0.005  # seconds that the server has to end a statement by itself, and to say so


class AsyncPool(aio.AsyncPool[C]):
    __doc__ = aio.AsyncPool.__doc__

    def _start_anew(self) -> None:
        super()._start_anew()
        self._multiplexer = Multiplexer(self, self._multiplex)
        self._shares = getattr(self._driver, "shares", False)

    # ------------------------------------------------------------------------------------------ statements

    def fetch(
        self,
        query: Query | Executable,
        params: Params | None = None,
        *,
        row_factory: AsyncRowFactory[Any] | None = None,
        idempotent: bool = False,
        timeout: float | None = None,
        priority: Priority | None = None,
        deadline: float | None = None,
        key: Hashable = None,
    ) -> Coroutine[Any, Any, list[Any]]:
        """All rows of a statement that stands alone; none if it returns none.

        It holds no connection: statements of many tasks are sent on a few, one behind the other. It is a transaction of
        its own (autocommit), and another one's error is nothing to it.

        :param query: as psycopg takes it: text, or `psycopg.sql` objects, with ``%s`` or ``%(name)s`` for parameters;
            or a statement of SQLAlchemy Core, as ``select(users).where(users.c.id == 7)``.
        :param params: a sequence or a mapping; of a Core statement, a mapping of its own parameters.
        :param row_factory: psycopg's; by default the connection's own (``kwargs={"row_factory": ...}``).
        :param idempotent: that it does no harm if it runs twice: when its connection is lost before the answer has come
            it is sent again on another one.
        :param timeout: seconds to wait until it can be sent; by default the pool's.
        :param priority: who is served first and shed last where requests wait; by default NORMAL.
        :param deadline: seconds from now by which the answer is wanted, as `penstock.deadline` declares it.
        :param key: whose request it is (a tenant, an endpoint), where the pool has a `max_per_key`.
        :raises psycopg.Error: what the server has against it, and nothing has come of it then.
        :raises NotStandalone: when it would change the session or needs a transaction. It was not sent.
        :raises ConnectionLost: when the connection was lost before the answer came: it may have run.
        :raises StatementTimeout: when a declared deadline passed before the answer came: it may have run.
        :raises ResultTooLarge: when the rows take more than `Multiplex.max_result` bytes.
        :raises PoolError: as `connection` does, when it could not be sent in time.
        """
        frame = _getframe(1)
        wish = self._wish(timeout, priority, deadline, key)
        return self._answer(
            Statement(query, params, row_factory, False, False, idempotent, frame.f_code, frame.f_lasti), wish, _rows
        )

    def fetchrow(
        self,
        query: Query | Executable,
        params: Params | None = None,
        *,
        row_factory: AsyncRowFactory[Any] | None = None,
        idempotent: bool = False,
        timeout: float | None = None,
        priority: Priority | None = None,
        deadline: float | None = None,
        key: Hashable = None,
    ) -> Coroutine[Any, Any, Any]:
        """The first row of a statement that stands alone, or None. Otherwise as `fetch`."""
        frame = _getframe(1)
        wish = self._wish(timeout, priority, deadline, key)
        return self._answer(
            Statement(query, params, row_factory, True, False, idempotent, frame.f_code, frame.f_lasti), wish, _row
        )

    def fetchval(
        self,
        query: Query | Executable,
        params: Params | None = None,
        *,
        idempotent: bool = False,
        timeout: float | None = None,
        priority: Priority | None = None,
        deadline: float | None = None,
        key: Hashable = None,
    ) -> Coroutine[Any, Any, Any]:
        """The first column of the first row, or None if there is no row. Otherwise as `fetch`."""
        frame = _getframe(1)
        wish = self._wish(timeout, priority, deadline, key)
        return self._answer(
            Statement(query, params, tuple, True, False, idempotent, frame.f_code, frame.f_lasti), wish, _value
        )

    def execute(
        self,
        query: Query | Executable,
        params: Params | None = None,
        *,
        idempotent: bool = False,
        timeout: float | None = None,
        priority: Priority | None = None,
        deadline: float | None = None,
        key: Hashable = None,
    ) -> Coroutine[Any, Any, str]:
        """Run a statement that stands alone. Returns what the server says was done: ``"UPDATE 3"``.

        Rows, if it returns any, are thrown away. Otherwise as `fetch`.
        """
        frame = _getframe(1)
        wish = self._wish(timeout, priority, deadline, key)
        return self._answer(
            Statement(query, params, None, True, True, idempotent, frame.f_code, frame.f_lasti), wish, _tag
        )

    async def _answer(self, statement: Statement, wish: Wish | None, read: Callable[[Statement], Any]) -> Any:
        """Wait until it is answered, and *read* the answer. Raises here whatever there is to raise."""
        if not self._shares:
            raise TypeError(
                f"{self.name}: fetch, fetchrow, fetchval and execute send statements through psycopg, and this pool's"
                " driver is another: borrow a connection (`async with pool.connection() as conn:`) and use its own"
            )
        loop = get_running_loop()
        statement.future = loop.create_future()
        self._multiplexer.submit(statement, wish, loop)
        timer = None if statement.until is None else self._alarm(statement.until, statement)
        try:
            await statement.future
        except BaseException:
            self._multiplexer.withdraw(statement)
            raise
        finally:
            if timer is not None:
                timer.cancel()
            if statement.waiter is not None:
                self._multiplexer.part(statement)
        if statement.waiter is not None and statement.waiter.refusal is not None:
            self._refuse(statement.waiter, statement.waiter.deadline - statement.waiter.since)
        if statement.error is not None:
            raise statement.taken_error()
        if statement.failure is not None:
            raise statement.codec.error(statement.failure)
        return read(statement)

    def _alarm(self, until: float, statement: Statement) -> TimerHandle:
        assert self._loop is not None
        return self._loop.call_later(max(0.0, until - self._clock()) + GRACE, self._too_late, statement)

    def _too_late(self, statement: Statement) -> None:
        if statement.gone or statement.waiter in self._core.waiters:
            return  # what waits is sent away by the pool
        statement.settle(self._multiplexer.complaints.unanswered(statement))
        self._multiplexer.withdraw(statement)

    # ------------------------------------------------------------------------------------------ what can be asked

    def snapshot(self) -> Snapshot:
        multiplexer = self._multiplexer
        return dataclasses.replace(
            super().snapshot(),
            multiplexed=multiplexer.connections,
            in_flight=multiplexer.in_flight,
            statements=multiplexer.answered,
        )

    def _glance(self, slot: Slot) -> Glance | None:
        pipeline = self._multiplexer.of(slot)
        if pipeline is None:
            return super()._glance(slot)
        running = next((entry for entry in list(pipeline.flight) if isinstance(entry, Statement)), None)
        return None if running is None else Glance(running.code, running.lasti, False, running.query)

    def _holder(self, slot: Slot, now: float) -> Holder | None:
        pipeline = self._multiplexer.of(slot)
        if pipeline is None:
            return super()._holder(slot, now)
        statements = [entry for entry in list(pipeline.flight) if isinstance(entry, Statement)]
        if not statements:
            return None
        oldest = statements[0]
        return Holder(
            site=call_site(oldest.code, oldest.lasti),
            held=now - oldest.sent,
            idle=None,
            statement=statement_text(oldest.query),
            status="ACTIVE",
            owner=f"multiplexed ({len(statements)} in flight)",
            stack=(),
        )


def _rows(statement: Statement) -> list[Any]:
    rows = [] if statement.rows is None else statement.rows
    if statement.parts is not None:
        rows += statement.codec.rows(statement.parts, statement.row_factory)
    return rows


def _row(statement: Statement) -> Any:
    rows = statement.rows if statement.parts is None else _rows(statement)
    return rows[0] if rows else None


def _value(statement: Statement) -> Any:
    row = _row(statement)
    return row[0] if row else None


def _tag(statement: Statement) -> str:
    return statement.tag
