"""One connection, and the statements that are under way on it, in libpq's pipeline mode.

Answers come in the order of the questions. Each statement is a transaction of its own, ended by a Sync of its own: when
one fails the server skips to its Sync and goes on with the next. What must be done in the same transaction (to bound
the statement, or to prepare it) is sent as messages before it, under the same Sync.

Rows are asked for in parts (libpq's chunked mode), so that a result too large is noticed while it comes. libpq wants to
be told so when a statement becomes the first of those under way, before anything of its answer is read.
"""

from __future__ import annotations

import math
from asyncio import AbstractEventLoop, Event, TimerHandle, timeout
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import psycopg
from psycopg import capabilities
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult

from ..core import Reason
from ..drivers import sockets
from ..pool.base import drop_frames, one_line
from .between import look
from .codec import CANCELED, READ_ONLY, UNKNOWN_NAME, Codec, plan_is_gone, sqlstate
from .collect import Collector
from .complaints import Complaints
from .history import Record
from .limit import send_limits
from .outlet import Outlet
from .prepared import Prepared, Route
from .pulse import Pulse
from .session import Session
from .statement import MOST_SENDS, Errand, Sent, Statement
from .timing import Timing

if TYPE_CHECKING:
    from ..core import Multiplex, Slot
    from ..drivers.base import Driver

ROWS = 16  # in one part of a result
SILENCE = 5.0  # seconds, at most, for which a new connection may not answer
LEAST_TIMEOUT = 0.05  # seconds behind others that even who will not wait to be sent must bear
DRAIN_SECONDS = 0.02  # behind a pooler: it takes its server connection back only when all have been answered
CANCEL_AGAIN = 0.1
CANCEL_SECONDS = 2.0

# As the plain numbers that libpq gives: they are compared several times for each statement.
BAD = int(ConnStatus.BAD)
SYNC, CHUNK, ONE = map(int, (ExecStatus.PIPELINE_SYNC, ExecStatus.TUPLES_CHUNK, ExecStatus.SINGLE_TUPLE))
TUPLES, COMMAND, EMPTY = map(int, (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK, ExecStatus.EMPTY_QUERY))
PART = (CHUNK, ONE)
LAST = (TUPLES, COMMAND, EMPTY)
FAILED, ABORTED = map(int, (ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED))


class Home(Protocol):
    """Whom a pipeline belongs to. *route*: what stood between its last new connection and the server."""

    route: Route

    def moved(self, pipeline: Pipeline, answered: int) -> None:
        """So many statements were answered, or something else has changed: there may be room."""

    def held_up(self, pipeline: Pipeline) -> None:
        """The first of those under way takes longer than it should."""

    def goes_on(self, pipeline: Pipeline) -> None:
        """It has come to an end."""

    def lost(self, pipeline: Pipeline, again: list[Statement], why: str) -> None:
        """The connection is no good any more; these are to be sent elsewhere."""

    def resend(self, statement: Statement) -> None:
        """It could not be sent here: it is to be sent elsewhere."""

    def spawn(self, job: Any) -> Any: ...


class Common(NamedTuple):
    """What all pipelines of a pool have in common."""

    driver: Driver
    settings: Multiplex
    loop: AbstractEventLoop
    clock: Callable[[], float]
    pulse: Pulse
    complaints: Complaints


class Pipeline:
    """A connection for as long as statements share it.

    :ivar lent: when it was leased.
    :ivar proven: when what was answered last was sent: the connection has worked since.
    :ivar flight: what was sent and not answered, the oldest first.
    :ivar retiring: why the connection must not be used after those, if it must not.
    """

    # More than thirty, from where on an object without slots is slower to read.
    __slots__ = (
        "_alarm",
        "_alarm_at",
        "_backlog",
        "_cancelling",
        "_clock",
        "_codec",
        "_collector",
        "_complaints",
        "_direct",
        "_done",
        "_driver",
        "_fd",
        "_first",
        "_home",
        "_in_parts",
        "_is_new",
        "_loop",
        "_lost",
        "_most",
        "_outlet",
        "_over",
        "_progress",
        "_row_by_row",
        "_session",
        "_settings",
        "_shut",
        "_stuck",
        "_timing",
        "_unread",
        "conn",
        "flight",
        "lent",
        "pgconn",
        "prepared",
        "proven",
        "retiring",
        "slot",
    )

    def __init__(self, home: Home, common: Common, slot: Slot, conn: Any) -> None:
        settings = common.settings
        self.slot = slot
        self.lent = self.proven = slot.since
        self.conn = conn
        self.flight: deque[Sent] = deque()
        self.retiring: Reason | None = None
        self._done: deque[Sent] = deque()  # answered, and not told yet
        self._home = home
        self._driver = common.driver
        self._settings = settings
        self._most = 1
        self._direct = False
        self._loop = common.loop
        self._clock = common.clock
        self._complaints = common.complaints
        self._alarm: TimerHandle | None = None  # for the first who will have stood behind another for too long
        self._alarm_at = math.inf
        self.pgconn = conn.pgconn
        self._fd: int = conn.pgconn.socket
        self._codec = Codec(conn)
        self._session = Session(conn)
        known: Prepared | None = getattr(conn, "_shared", None)
        self._is_new = known is None
        self.prepared = conn._shared = known or Prepared(conn.prepare_threshold, conn.prepared_max, home.route)
        self._timing = Timing(self.prepared, settings.target, common.pulse)
        self._collector = Collector(self._codec, self.prepared, common.complaints, settings.max_result)
        self._outlet = Outlet(conn.pgconn, common.loop, self._room, self._lose)
        self._first: Statement | None = None  # it waits for what stands between to be known
        self._unread = Record(settings.target)  # how long errands take is nobody's business
        self._backlog = 0.0  # seconds that all under way are expected to take
        self._shut = False  # nothing more may be sent: it is being cancelled, to be closed, or lost
        self._stuck: Sent | None = None  # the first of those under way, which takes longer than it should
        self._cancelling = False
        self._progress = Event()  # something was answered, since this was last cleared
        self._lost = False
        self._over = False  # and everybody has been told
        self._in_parts = self._asking_for_parts(ROWS)
        self._row_by_row = self._asking_for_parts(1)

    def _asking_for_parts(self, rows: int) -> Callable[[], None]:
        """A function that has the rows of the first statement under way come in parts; of one row before libpq 17."""
        if capabilities.has_stream_chunked():
            return partial(self.pgconn.set_chunked_rows_mode, rows)
        return self.pgconn.set_single_row_mode  # type: ignore[no-any-return]

    def begin(self, statement: Statement, now: float) -> None:
        """Make the connection ready for many, and send the first of them."""
        try:
            self.pgconn.enter_pipeline_mode()
            self._loop.add_reader(self._fd, self._readable)
            if self._is_new:
                look(self)
        except psycopg.Error as error:  # it was lost since it was looked at
            self._lose(error, [statement])
        else:
            self._first = statement
            self._route_changed()
            if self._first is not None:
                self._shut = True
                self._set_alarm(now + min(max(statement.timeout, LEAST_TIMEOUT), SILENCE), now)

    def found(self, route: Route) -> None:
        """What stands between this connection and the server."""
        self.prepared.route = self._home.route = route
        self._route_changed()

    def _route_changed(self) -> None:
        route = self.prepared.route
        self._most = self._settings.max_in_flight if route.able else 1
        self._direct = route.direct
        if route.known:
            first, self._first = self._first, None
            self._shut = self._lost or self._cancelling or self.retiring is not None
            if first is not None and not first.gone:
                self.send(first, self._clock())

    def end(self) -> Reason | None:
        """Nothing is under way any more: leave the connection as it was found, or say why it must be closed."""
        assert not self.flight, "bug: a pipeline ends with statements under way"
        if not self._lost:
            self._deaf()
        if self._lost or self.retiring is not None:
            return self.retiring or Reason.BROKEN
        try:
            self.pgconn.exit_pipeline_mode()
        except psycopg.Error:
            return Reason.BROKEN
        if self.pgconn.transaction_status != TransactionStatus.IDLE or self._session.changed:
            return Reason.UNCLEAN
        return None

    def _deaf(self) -> None:
        self._set_alarm(math.inf, 0.0)
        self._loop.remove_reader(self._fd)
        self._outlet.close()

    # ------------------------------------------------------------------------------------------ what may be sent

    def wait(self, now: float) -> float:
        """Seconds until a statement sent now would begin; infinity if none may be sent."""
        flight = self.flight
        if self._outlet.stuffed or self._shut or now >= self.slot.expires:
            return math.inf
        if not flight:
            return 0.0
        if len(flight) >= self._most or (not self._direct and now - self._timing.began > DRAIN_SECONDS):
            return math.inf
        if now > self._timing.due:
            late = self._timing.late(flight[0], now)
            if late and not self.slot.probe(0):  # what has come already is not late
                self._note_late(flight[0], late)
                return self._backlog + late
        return self._backlog

    def _note_late(self, head: Sent, late: float) -> None:
        if self._stuck is None and self._timing.is_stuck(late):
            self._stuck = head
            head.record.stuck += 1
            self._home.held_up(self)

    def _goes_on(self) -> None:
        if self._stuck is not None:
            self._stuck.record.stuck -= 1
            self._stuck = None

    @property
    def busy(self) -> bool:
        """Whether it must be kept, although nothing may be under way."""
        return bool(self.flight) or self._cancelling

    # ------------------------------------------------------------------------------------------ sending

    def send(self, statement: Statement, now: float, prepare: bool = True) -> None:
        """Send it behind whatever is under way. What is wrong with it, the statement is told."""
        if self._lost:
            self._home.resend(statement)
            return
        codec = self._codec
        try:
            query = codec.convert(statement.query, statement.params)
        except Exception as error:
            statement.settle(error.with_traceback(None))  # its frames refer to the statement
            return
        if self._session.sets_transactions:
            statement.settle(self._complaints.sets_transactions(statement))
            return
        statement.codec = codec
        statement.plain = not statement.tagged and codec.is_plain(statement.row_factory)
        statement.pipeline = self
        statement.sent = now
        statement.expected = statement.record.expected
        pgconn, prepared, reading = self.pgconn, self.prepared, self._session.reading
        key = (query.query, query.types)
        name = prepared.name(key) if prepare else None
        prepares = prepare and name is None and prepared.is_due(key)
        if prepares:
            name = prepared.begin(key)
        statement.key = key
        statement.name = name
        if prepares:
            statement.then = partial(self._prepared, statement)
        first = not self.flight
        if first:
            self._timing.begins(now)
        try:
            if statement.until is not None or statement.reading or reading:
                statement.reading = statement.reading or reading
                send_limits(pgconn, statement, query.query, prepared, now)
            if prepares:
                pgconn.send_prepare(name, query.query, query.types)
                statement.before += 1
            if name is not None:
                pgconn.send_query_prepared(name, query.params, query.formats)
            else:
                pgconn.send_query_params(query.query, query.params, query.types, query.formats)
        except Exception as error:
            if prepares:
                statement.then = None
                prepared.failed(key)
            self._not_sent(statement, error)
            return
        query.params = None  # the codec keeps the query
        statement.sends += 1
        self.flight.append(statement)
        self._backlog += statement.expected
        self._sync(at_once=first)
        if not first and now + statement.timeout < self._alarm_at:
            self._set_alarm(now + max(statement.timeout, LEAST_TIMEOUT), now)
        if first and not self._lost:
            self._expect(statement)

    def _set_alarm(self, at: float, now: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = None if at == math.inf else self._loop.call_later(at - now, self._tell_who_waits)

    def _tell_who_waits(self) -> None:
        """Nobody stands behind others, or waits for a new connection, for longer than they would wait to be sent."""
        if not self.prepared.route.known:
            self._stays_silent()
            return
        now, head = self._clock(), next(iter(self.flight), None)
        due = math.inf
        for entry in self.flight:
            if entry is head or not isinstance(entry, Statement) or entry.gone:
                continue
            until = entry.sent + max(entry.timeout, LEAST_TIMEOUT)
            if until > now:
                due = min(due, until)
            elif isinstance(head, Statement):
                entry.settle(self._complaints.behind(entry, head, now))
        self._set_alarm(due, now)

    def _stays_silent(self) -> None:
        """Who came first waits no longer for a new connection to answer; another one may, for a while."""
        now, first = self._clock(), self._first
        if first is not None:
            first.settle(self._complaints.silent(first))
            self._first = None
        if now < self.lent + SILENCE:
            self._set_alarm(self.lent + SILENCE, now)
        else:
            self.retiring = Reason.BUSY
            self._lose(None)

    def _deallocate(self, name: bytes) -> None:
        """By the protocol where libpq can (since 17): a pooler that renames them knows no other way."""
        if capabilities.has_send_close_prepared():
            self.pgconn.send_close_prepared(name)
        else:
            self.pgconn.send_query_params(b"DEALLOCATE " + name, None)
        self.errand()

    def errand(self, then: Callable[[Errand], object] | None = None, before: int = 0) -> None:
        """What was just sent is for the connection's own sake; *then* is called with the answer."""
        errand = Errand(self._unread, self._clock(), before)
        if then is not None:
            errand.then = partial(then, errand)
        self.flight.append(errand)
        self._sync()

    def _not_sent(self, statement: Statement, error: Exception) -> None:
        """Nothing of the statement itself has left."""
        if self.pgconn.status == BAD:
            self._lose(error, [statement])
            return
        before, statement.before = statement.before, 0
        if before:  # but something before it: a Sync ends that
            self.errand(before=before - 1)
        statement.settle(error)

    def _sync(self, at_once: bool = False) -> None:
        """End what was sent, and see to it that it leaves: *at_once*, or with what else is sent in this round."""
        try:
            self._outlet.sync(at_once)
        except psycopg.Error as error:
            self._deaf()  # at once: libpq may have closed the socket, and another connection's may get its number
            self._lost = self._shut = True
            self._loop.call_soon(self._lose, error)  # not now: the caller is in the midst of sending

    def _room(self) -> None:
        self._home.moved(self, 0)

    # ------------------------------------------------------------------------------------------ receiving

    def _readable(self) -> None:
        try:
            self._read()
            # Of a connection that was reset uvloop tells once, and no more: whatever has come is to be read now.
            while not self._over and self.flight and sockets.has_ended(self.slot.probe(0)):
                self._read()
        except Exception as error:  # a bug, ours or psycopg's: nobody may be left waiting because of it
            self._lose(error)
            raise

    def _read(self) -> None:
        error: Exception | None = None
        self._collector.reads += 1
        try:
            self.pgconn.consume_input()
        except psycopg.Error as caught:
            error = caught
        try:
            self._receive()
        except psycopg.Error as caught:
            error = caught
        answered = self._note(self._done, self._clock())
        if self._over:
            return
        if error is not None or self.pgconn.status == BAD:
            self._lose(error)
        else:
            self._home.moved(self, answered)

    def _receive(self) -> None:
        """Take what has come, and what has been answered to the end out of what is under way."""
        flight, pgconn, done = self.flight, self.pgconn, self._done
        is_busy, get_result, keep = pgconn.is_busy, pgconn.get_result, self._collector.keep
        while flight and not is_busy():
            head = flight[0]
            result = get_result()
            if result is None:
                break  # there is no connection any more
            status = result.status
            if status in PART:
                if not keep(head, result):
                    self._stop_what_nobody_wants()
            elif status == SYNC:
                done.append(flight.popleft())
                self._collector.reads = 0
                if flight:
                    self._expect(flight[0])
            else:
                get_result()  # the end of this message's results, which never has to be waited for
                self._finish(head, result, status)

    def _finish(self, head: Sent, result: PGresult, status: int) -> None:
        """The last result of one message."""
        if status == FAILED:
            if head.failure is None:
                head.failure, head.early = result, head.before > 0
        elif status not in LAST and status != ABORTED:  # COPY, which nobody can get this connection out of
            self._retire(Reason.UNCLEAN)
            self._lose(psycopg.NotSupportedError("COPY cannot share a connection"))
        elif head.before:
            head.before -= 1
            self._expect(head)
        elif result.ntuples:  # of one that was not asked for in parts
            if not self._collector.keep(head, result):
                self._stop_what_nobody_wants()
        elif isinstance(head, Statement) and head.tagged:
            head.final = result

    def _expect(self, head: Sent) -> None:
        """It is the first of those under way now, and so is its statement itself."""
        if not head.before and head.failure is None and head.in_parts:
            if head.one_row:
                self._row_by_row()
            else:
                self._in_parts()

    # ------------------------------------------------------------------------------------------ answers

    def _note(self, done: deque[Sent], now: float) -> int:
        """Settle what was answered, and learn how long it took."""
        if not done:
            return 0
        self._progress.set()
        if self._stuck is not None:
            self._goes_on()
            self._home.goes_on(self)
        self.proven = done[-1].sent
        self._timing.answered(done, now)
        answered = len(done)
        while done:
            entry = done.popleft()  # first: what follows may lose the connection, and with it all that is in there
            self._backlog -= entry.expected
            if not isinstance(entry, Statement):
                answered -= 1
            if entry.then is not None:
                then, entry.then = entry.then, None  # it refers to the entry
                then()
            if entry.failure is None:
                entry.settle()
            elif isinstance(entry, Statement):
                self._failed(entry, entry.failure, now)
        if not self.flight:
            self._backlog = 0.0  # sums of fractions drift
        elif self.flight[0].gone:
            self._stop_what_nobody_wants()
        if self._session.changed:  # a function has changed the session
            self._retire(Reason.UNCLEAN)
        return answered

    def _failed(self, statement: Statement, failure: PGresult, now: float) -> None:
        state = sqlstate(failure)
        if statement.early and state == UNKNOWN_NAME:  # what limits it is not prepared any more
            self.prepared.limiter = None
            self._again(statement, now)
        elif statement.name is not None and plan_is_gone(failure):
            self._forget(statement, statement.name, state)
            self._again(statement, now)  # it has not run
        elif state == CANCELED and statement.until is not None and now >= statement.until:
            statement.settle(self._complaints.ended(statement, statement.codec.error(failure)))
        else:
            if state == READ_ONLY:
                self._driver.failed(self.conn, statement.codec.error(failure))
                self._retire(self._driver.unfit(self.conn))
            statement.settle()

    def _retire(self, reason: Reason | None) -> None:
        if reason is not None:
            self.retiring, self._shut = reason, True

    def _prepared(self, statement: Statement) -> None:
        """It was sent with the order to prepare it, just before it."""
        assert statement.key is not None, "bug: prepared under no name"
        if statement.early:
            self.prepared.failed(statement.key)
        elif (old := self.prepared.succeeded(statement.key)) is not None:
            self._deallocate(old)

    def _forget(self, statement: Statement, name: bytes, state: str) -> None:
        assert statement.key is not None, "bug: prepared under no key"
        if self.prepared.forget(statement.key, name) and state != UNKNOWN_NAME:
            self._deallocate(name)

    def _again(self, statement: Statement, now: float) -> None:
        """This time not by a prepared statement, so that whatever is wrong with that cannot be the answer."""
        if statement.gone:
            return
        statement.start_over()
        self.send(statement, now, prepare=False)

    # ------------------------------------------------------------------------------------------ ends

    def withdraw(self, statement: Statement) -> None:
        """Nobody waits for it any more: if nobody else's statement is under way either, ask the server to stop.

        Nothing is sent until the server has heard it and the answer is there, or it might hit who comes next. Behind a
        pooler it might all the same, so there nothing is asked. A connection that keeps silent is given up.
        """
        if statement in self.flight:
            self._stop_what_nobody_wants()

    def _stop_what_nobody_wants(self) -> None:
        if self._cancelling or self._lost or not all(entry.gone or isinstance(entry, Errand) for entry in self.flight):
            return
        if any(entry.gone for entry in self.flight):
            self._cancelling = self._shut = True
            self._home.spawn(self._cancel())

    async def _cancel(self) -> None:
        """A request stops only the one that runs, and none that has not begun: so again and again, until all have."""
        silent_until = self._clock() + CANCEL_SECONDS
        try:
            while self.flight and not self._over:
                self._progress.clear()
                if self.prepared.route.direct:
                    await self._driver.cancel(self.conn, CANCEL_SECONDS)
                with suppress(TimeoutError):
                    async with timeout(CANCEL_AGAIN):
                        await self._progress.wait()
                    silent_until = self._clock() + CANCEL_SECONDS
                if self.flight and self._clock() >= silent_until:
                    self.retiring = Reason.BUSY
                    self._lose(None)
        finally:
            self._cancelling = False
            self._shut = self._lost or self.retiring is not None
            if not self._over:
                self._home.moved(self, 0)

    def _lose(self, error: Exception | None, again: list[Statement] | None = None) -> None:
        """The connection is no good: tell everybody whose statement is under way on it."""
        if self._over:
            return
        if not self._lost:
            self._deaf()
        self._over = self._lost = self._shut = True
        self._goes_on()
        self._progress.set()
        for entry in self._done:  # these were answered
            entry.settle()
        flight, again = list(self.flight), again or []
        self.flight.clear()
        if self._first is not None:
            again.append(self._first)
            self._first = None
        told = [entry for entry in flight if entry.failure is not None]  # the server's last words
        cause = self._codec.error(told[0].failure) if told and told[0].failure is not None else error
        if told and cause is not None:
            self._driver.failed(self.conn, cause)
        drop_frames(cause)
        for entry in flight:
            entry.then = None
            if not isinstance(entry, Statement) or entry.gone:
                continue
            if entry.idempotent and entry.sends < MOST_SENDS:
                entry.start_over()
                again.append(entry)
            else:
                entry.settle(self._complaints.lost(entry, cause))
        self._home.lost(self, again, one_line(cause))
