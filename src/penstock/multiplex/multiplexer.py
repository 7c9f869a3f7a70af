"""Which statement goes on which connection, and which connections there are for that.

A connection is leased from the pool when there is something to send, and given back as soon as nothing is under way on
it. What cannot be sent yet waits in the pool's own queue, among those who want a connection to themselves: in the order
of coming, under its deadline and priority. Whoever is first there and does not share is not overtaken: then nothing
more is sent, until a connection has run empty and can be handed over.
"""

from __future__ import annotations

import logging
import math
from asyncio import AbstractEventLoop
from collections.abc import Coroutine
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..core import SLOW, Multiplex, Reason, Slot, Waiter
from ..pool.base import NO_WISH
from ..pool.terms import Wish, declared
from .complaints import Complaints
from .history import History
from .prepared import Route
from .pulse import Pulse
from .schedule import choose
from .standalone import refusal
from .statement import Statement

if TYPE_CHECKING:
    from .aio import AsyncPool
    from .pipeline import Common, Pipeline


# By name, the one import that goes up: who hands in one of SQLAlchemy's statements has loaded SQLAlchemy, but need
# never have heard of our integration, so there is nobody who would have registered it here.
_STATEMENTS = "penstock.integrations.sqlalchemy.statements"

logger = logging.getLogger("penstock.pool")


class _Turn:
    """In the place of the future that a waiting task has: the statement's turn has come, or never will."""

    __slots__ = ("_multiplexer", "_statement")

    def __init__(self, multiplexer: Multiplexer, statement: Statement) -> None:
        self._multiplexer = multiplexer
        self._statement = statement

    def done(self) -> bool:
        return False

    def set_result(self, _: None) -> None:
        self._multiplexer.turn(self._statement)


class Multiplexer:
    """The statements of one pool, in one event loop.

    :ivar pipelines: the connections that are shared now, in the order in which they are filled.
    :ivar answered: statements answered so far.
    """

    def __init__(self, pool: AsyncPool[Any], settings: Multiplex) -> None:
        self._pool = pool
        self._settings = settings
        self._target = settings.target
        self._history = History(settings.target)
        self.complaints = Complaints(pool.name, pool._driver)
        self.route = Route()
        self._by_slot: dict[Slot, Pipeline] = {}
        self.pipelines: list[Pipeline] = []
        self.answered = 0
        self._common: Common | None = None

    @property
    def in_flight(self) -> int:
        """Statements sent and not answered."""
        flights = [list(pipeline.flight) for pipeline in list(self._by_slot.values())]  # another thread may ask
        return sum(isinstance(entry, Statement) for flight in flights for entry in flight)

    @property
    def connections(self) -> int:
        """Connections that are leased for statements, those for a slow one alone included."""
        return len(self._by_slot)

    def of(self, slot: Slot) -> Pipeline | None:
        return self._by_slot.get(slot)

    # ------------------------------------------------------------------------------------------ asking

    def submit(self, statement: Statement, wish: Wish | None, loop: AbstractEventLoop) -> None:
        """Send it now, if there is a connection for it and nobody comes first; otherwise it waits.

        :raises PoolError: as `connection` does, when there is no asking.
        """
        pool = self._pool
        core = pool._core
        statement.wish = wish
        statement.timeout = pool.timeout if wish is None or wish.timeout is None else wish.timeout
        query = statement.query
        text = statement.text = query if type(query) is str else _spell(statement)
        record = statement.record = self._history.of(text)
        bare = statement.params is None
        if bare not in record.alone:
            self._check_alone(statement)
            record.alone.add(bare)
        if wish is not None or declared() is not None:
            terms = pool._arrive(wish, statement.code, statement.lasti)
            statement.reading = terms.reading
            statement.until = terms.until if terms.until < math.inf else None
        # Otherwise there is more to ask first, or somebody to wait behind.
        if not core._rush and loop is pool._loop and pool._nested == "allow" and not pool._opened_implicitly:
            now = pool._clock()
            pipeline = choose(self.pipelines, self._target, len(core.idle) > core.reserve, now)
            if not record.slow:  # which may be known only after having looked at them
                if pipeline is not None:
                    pipeline.send(statement, now)
                    return
                slot = core.take(None, statement.code, statement.lasti, now)
                if slot is not None:
                    self._lend(slot, statement)
                    return
        self._queue(statement, pool._ask(wish, statement.code, statement.lasti))

    def _check_alone(self, statement: Statement) -> None:
        from psycopg import capabilities

        capabilities.has_pipeline(check=True)  # libpq 14
        why = refusal(statement.text, placeholders=statement.params is not None)
        if why is not None:
            raise self.complaints.not_standalone(statement, why)

    def _queue(self, statement: Statement, waiter: Waiter) -> None:
        pool = self._pool
        core = pool._core
        pipeline = choose(self.pipelines, self._target, len(core.idle) > core.reserve, waiter.since)
        waiter.shares = not statement.record.slow
        if not waiter.shares and core.max_per_key is None:
            waiter.key = SLOW
        waiter.wake = _Turn(self, statement)
        statement.waiter = waiter
        if pipeline is not None and waiter.shares and core.share_at_once(waiter, pipeline.slot, waiter.since):
            pool._carry_out(core.effects())
        else:
            self._wait(waiter)

    def _wait(self, waiter: Waiter, again: bool = False) -> None:
        pool = self._pool
        pool._event(pool._core.acquire, waiter, again=again)
        if not waiter.settled and waiter.deadline < pool._next_tick:
            pool._wake_at(waiter.deadline)

    def turn(self, statement: Statement) -> None:
        """The core has served the statement that waited, or refused it."""
        pool, waiter = self._pool, statement.waiter
        assert waiter is not None, "bug: nothing waited"
        slot = waiter.slot
        if slot is None:
            statement.settle()  # `refusal` says why
            return
        pipeline = self._by_slot.get(slot)
        if pipeline is None:
            self._lend(slot, statement)
        elif not statement.gone:  # or it has gone away in the very moment of being served
            pipeline.send(statement, pool._clock())

    # ------------------------------------------------------------------------------------------ connections

    def _lend(self, slot: Slot, statement: Statement) -> None:
        """A connection was leased for this statement: others may join it, once it is known to be alive."""
        pool = self._pool
        if statement.gone:
            pool._event(pool._core.unused, slot)
        elif pool._kit.check is None and not slot.probe(0):
            self._begin(slot, statement)
        else:
            pool._spawn(self._look_closer(slot, statement))

    async def _look_closer(self, slot: Slot, statement: Statement) -> None:
        pool = self._pool
        waiter = statement.waiter or self._stand_in(statement)
        if not await pool._fit(slot, waiter.deadline):
            pool._event(pool._core.parted, waiter)
            if not statement.gone:
                self._wait(waiter, again=True)
        elif statement.gone:
            pool._event(pool._core.unused, slot)
        else:
            self._begin(slot, statement)

    def _stand_in(self, statement: Statement) -> Waiter:
        """One for a statement that must wait after all, when it is not its own task that runs."""
        wish, now = statement.wish or NO_WISH, self._pool._clock()
        until = math.inf if statement.until is None else statement.until
        latest = min(now + statement.timeout, until)
        if statement.waiter is not None and not statement.sends:  # it waits on
            latest = min(latest, statement.waiter.deadline)
        code, lasti = statement.code, statement.lasti
        waiter = Waiter(None, code, lasti, now, latest, wish.priority, until, wish.key)
        statement.waiter = waiter
        waiter.shares = not statement.record.slow
        waiter.wake = _Turn(self, statement)
        return waiter

    def _begin(self, slot: Slot, statement: Statement) -> None:
        pool, waiter = self._pool, statement.waiter
        conn, slot.conn = slot.conn, None
        conn._pool = pool
        now = pool._clock()
        if pool._listeners:
            waited = 0.0 if waiter is None else now - waiter.since
            pool._emit_acquired(slot, waited, waited > 0)
        try:
            pipeline = self._pipeline(slot, conn)
        except pool._driver.operational_error:  # it was lost since it was looked at
            pool._returned(slot, conn, Reason.BROKEN)
            self._wait(self._stand_in(statement), again=True)
            return
        slot.owner = pipeline
        self._by_slot[slot] = pipeline
        if not statement.record.slow:
            self.pipelines.append(pipeline)
            pool._core.lend_to_many(slot)
        pipeline.begin(statement, now)
        if not pipeline.busy:
            self._soon(pipeline)

    def _pipeline(self, slot: Slot, conn: Any) -> Pipeline:
        # What needs psycopg is loaded with the first connection, as the driver is.
        from .pipeline import Common, Pipeline

        if self._common is None:
            pool = self._pool
            assert pool._loop is not None
            pulse = Pulse(pool._loop, pool._clock)
            self._common = Common(pool._driver, self._settings, pool._loop, pool._clock, pulse, self.complaints)
        return Pipeline(self, self._common, slot, conn)

    def _soon(self, pipeline: Pipeline) -> None:
        """Give it back, unless those who are woken now have something to send: they come first."""
        assert self._pool._loop is not None
        self._pool._loop.call_soon(self._end, pipeline)

    def _end(self, pipeline: Pipeline) -> None:
        """Nothing is under way on it: give it back."""
        pool, slot = self._pool, pipeline.slot
        if pipeline.busy or self._by_slot.get(slot) is not pipeline:
            return
        reason = pipeline.end()
        self._forget(pipeline)
        conn = pipeline.conn
        slot.since = pipeline.lent  # it was out for all of them
        if reason is not None:
            pool._returned(slot, conn, reason)
        elif pool._kit.reset is None and pool._state(conn) == slot.baseline:
            pool._returned(slot, conn, None)
        else:
            pool._spawn(pool._clean(slot, conn, expected=False))

    def _forget(self, pipeline: Pipeline) -> None:
        del self._by_slot[pipeline.slot]
        if pipeline in self.pipelines:
            self.pipelines.remove(pipeline)

    # ------------------------------------------------------------------------------------------ a pipeline's home

    def moved(self, pipeline: Pipeline, answered: int) -> None:
        """So many statements were answered, or something else has changed: there may be room."""
        pool = self._pool
        if answered:
            self.answered += answered
            if pipeline.slot.shared:
                pool._event(pool._core.shared, pipeline.slot, answered, pipeline.proven)
        if pool._core.waiters.size:
            self._pull(pipeline)
        if not pipeline.busy:
            if pool._core.waiters.size:
                self._end(pipeline)  # at once: somebody waits for it
            else:
                self._soon(pipeline)

    def _pull(self, pipeline: Pipeline) -> None:
        """Send what waits, as far as there is room."""
        pool, core = self._pool, self._pool._core
        if pipeline not in self.pipelines:
            return  # it is for one slow statement alone
        now = pool._clock()
        served = True
        while served and core.waiters.ready and pipeline.wait(now) <= self._target:
            served = core.share(pipeline.slot, now)
            pool._carry_out(core.effects())  # whoever was served, and whoever was refused on the way

    def held_up(self, pipeline: Pipeline) -> None:
        self._pool._core.held_up(pipeline.slot)

    def goes_on(self, pipeline: Pipeline) -> None:
        self._pool._event(self._pool._core.goes_on, pipeline.slot)

    def lost(self, pipeline: Pipeline, again: list[Statement], why: str) -> None:
        """The connection is no good any more; these are to be sent elsewhere."""
        pool = self._pool
        logger.warning("%s: a connection was lost that statements shared: %s", pool.name, why)
        self._forget(pipeline)
        pool._returned(pipeline.slot, pipeline.conn, pipeline.retiring or Reason.BROKEN)
        pipeline.slot.owner = None  # which it refers to
        for statement in again:
            self.resend(statement)

    def resend(self, statement: Statement) -> None:
        """Send it elsewhere."""
        self.part(statement)
        self._wait(self._stand_in(statement), again=True)

    def spawn(self, job: Coroutine[Any, Any, Any]) -> Any:
        return self._pool._spawn(job)

    # ------------------------------------------------------------------------------------------ going away

    def withdraw(self, statement: Statement) -> None:
        """Nobody waits for its answer any more."""
        pool, waiter = self._pool, statement.waiter
        if waiter is not None and waiter in pool._core.waiters:
            pool._event(pool._core.cancel, waiter)
        elif statement.pipeline is not None:
            statement.pipeline.withdraw(statement)

    def part(self, statement: Statement) -> None:
        """It is done with its connection: its key may have another."""
        if statement.waiter is not None:
            self._pool._event(self._pool._core.parted, statement.waiter)
            statement.waiter.wake = None  # or it, and the answer with it, would be part of a circle


def _spell(statement: Statement) -> str:
    """The text of what is no text. One of SQLAlchemy's statements becomes text here, and has its parameters then."""
    if not hasattr(type(statement.query), "_compile_w_cache"):
        return _text(statement.query)
    made = import_module(_STATEMENTS).spelled(statement.query, statement.params, statement.row_factory)
    statement.query, statement.params, statement.row_factory = made
    return statement.query  # type: ignore[no-any-return]


def _text(query: Any) -> str:
    """*query* as text, whatever psycopg takes for one. Values in it are left out: they say nothing of what it does.

    :raises TypeError: when it is no query.
    """
    if isinstance(query, (str, bytes)):
        return query if isinstance(query, str) else query.decode(errors="replace")
    from psycopg import sql

    if isinstance(query, sql.Composed):
        return "".join(map(_text, query))
    if isinstance(query, sql.Literal):
        return "''"
    if isinstance(query, sql.Composable):
        return query.as_string(None)
    if type(query).__name__ == "Template":
        return sql.as_string(query)
    if any(kind.__module__.startswith("sqlalchemy.") for kind in type(query).__mro__):
        raise import_module(_STATEMENTS).not_taken(query)
    raise TypeError(f"query must be text, bytes or an object of psycopg.sql, not {type(query).__name__}")
