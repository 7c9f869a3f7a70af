"""One connection, and the statements that are under way on it, in libpq's pipeline mode.

Answers come in the order of the questions. Each statement is a transaction of its own, ended by a Sync of its own: when
one fails the server skips to its Sync and goes on with the next. What must be done in the same transaction (to bound
the statement, or to prepare it) is sent as messages before it, under the same Sync.

Rows are asked for in parts (libpq's chunked mode), so that a result too large is noticed while it comes. libpq wants to
be told so when a statement becomes the first of those under way, before anything of its answer is read.
"""

from __future__ import annotations

import math
import re
from asyncio import AbstractEventLoop, Event, timeout
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import product
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
from psycopg import capabilities
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult

from .. import errors
from ..core import Reason
from ..drivers.psycopg import milliseconds
from .codec import UNKNOWN_NAME, Codec, plan_is_gone, sqlstate
from .libpq import sender
from .prepared import Prepared
from .pulse import Pulse, busy
from .schedule import FILL
from .statement import MOST_SENDS, Statement

if TYPE_CHECKING:
    from ..core import Multiplex, Slot
    from ..drivers.base import Driver

ROWS = 64  # in one part of a result
MANY_READS = 2  # of the socket for one answer; what came in fewer is small (libpq reads what its buffer holds)
DRAIN_SECONDS = 0.02  # behind a pooler: it takes its server connection back only when all have been answered
STALL = 0.001  # seconds without an answer that are not shared out among all that come then
CANCEL_SECONDS = 2.0

BAD = ConnStatus.BAD
SYNC, CHUNK, ONE = ExecStatus.PIPELINE_SYNC, ExecStatus.TUPLES_CHUNK, ExecStatus.SINGLE_TUPLE
TUPLES, COMMAND, EMPTY = ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK, ExecStatus.EMPTY_QUERY
FAILED, ABORTED = ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED

_PROBE = b"SELECT pg_backend_pid(), current_setting('statement_timeout')"
_IS_NAMED = b"SELECT EXISTS (SELECT FROM pg_prepared_statements WHERE name = $1)"
_TEXT = 25  # the type's oid

_LIMIT = b"SELECT set_config('statement_timeout', $1, true)"
_LIMITER = b"_penstock_limit"
# While it is not known what the session allows. No unit that it shows is unknown to an interval.
_SHORTER_LIMIT = (
    _LIMIT + b" WHERE current_setting('statement_timeout')::interval NOT BETWEEN '1 ms' AND ($1 || 'ms')::interval"
)
_READ_ONLY = b"SELECT set_config('transaction_read_only', 'on', true)"
# Others may not have anything before them in their transaction (VACUUM, CALL of a procedure that commits).
_BOUNDED = re.compile(
    rb"(?:[\s(]|--[^\r\n]*|/\*.*?\*/)*(?:select|with|values|table|insert|update|delete|merge|explain|show)\b",
    re.IGNORECASE | re.DOTALL,
)

# What the server tells of a session whenever it changes. A function may have done it.
_REPORTED = (
    b"client_encoding",
    b"DateStyle",
    b"IntervalStyle",
    b"TimeZone",
    b"search_path",
    b"session_authorization",
    b"standard_conforming_strings",
    b"default_transaction_read_only",
)


class Home(Protocol):
    """Whom a pipeline belongs to."""

    def moved(self, pipeline: Pipeline, answered: int) -> None:
        """So many statements were answered, or something else has changed: there may be room."""

    def lost(self, pipeline: Pipeline, again: list[Statement]) -> None:
        """The connection is no good any more; these are to be sent elsewhere."""

    def spawn(self, job: Any) -> Any: ...


class Errand:
    """What is asked for the connection's own sake, between the statements."""

    __slots__ = ("answers", "before", "failure", "sent", "then")
    expected = 0.0
    gone = True

    def __init__(self, then: Callable[[Errand], object], sent: float, before: int = 0) -> None:
        self.then = then
        self.sent = sent
        self.before = before
        self.answers: list[PGresult] = []
        self.failure: PGresult | None = None


class Pipeline:
    """A connection for as long as statements share it.

    :ivar lent: when it was leased.
    :ivar flight: what was sent and not answered, the oldest first.
    :ivar retiring: why the connection must not be used after those, if it must not.
    """

    def __init__(
        self,
        home: Home,
        slot: Slot,
        conn: Any,
        driver: Driver,
        settings: Multiplex,
        loop: AbstractEventLoop,
        clock: Callable[[], float],
        pulse: Pulse,
    ) -> None:
        self.slot = slot
        self.lent = slot.since
        self.conn = conn
        self.flight: deque[Statement | Errand] = deque()
        self.retiring: Reason | None = None
        self._home = home
        self._driver = driver
        self._settings = settings
        self._loop = loop
        self._clock = clock
        self._pulse = pulse
        self._filled = 0.0  # when something was last sent while nothing was under way
        self._worked = busy()  # when the last answer came, or the first statement was sent
        self._pgconn = conn.pgconn
        self._fd: int = conn.pgconn.socket
        self._codec = Codec(conn)
        self._backlog = 0.0  # seconds that all under way are expected to take
        self._reads = 0  # of the socket, since the last answer was complete
        self._moved = -math.inf  # when the last answer came
        self._send_sync = sender()
        self._to_flush = False  # something was written that waits to be sent
        self._stuffed = False  # the socket takes no more for now
        self._cancelling = False
        self._progress = Event()  # something was answered, since this was last cleared
        self._lost = False
        self._over = False  # and everybody has been told
        set_chunked = self._pgconn.set_chunked_rows_mode
        self._in_parts = (lambda: set_chunked(ROWS)) if capabilities.has_stream_chunked() else _one_by_one(self._pgconn)
        self._begin()

    def _begin(self) -> None:
        self._pgconn.enter_pipeline_mode()
        self._loop.add_reader(self._fd, self._readable)
        prepared: Prepared | None = getattr(self.conn, "_shared", None)
        if prepared is None:
            prepared = self.conn._shared = Prepared(self.conn.prepare_threshold, self.conn.prepared_max)
            self.prepared = prepared
            self._reported = self._report()
            self._probe()
        self.prepared = prepared
        self._reported = self._report()

    def _report(self) -> tuple[bytes | None, ...]:
        return tuple(map(self._pgconn.parameter_status, _REPORTED))

    def end(self) -> Reason | None:
        """Nothing is under way any more: leave the connection as it was found, or say why it must be closed."""
        assert not self.flight, "bug: a pipeline ends with statements under way"
        self._deaf()
        if self._lost or self.retiring is not None:
            return self.retiring or Reason.BROKEN
        try:
            self._pgconn.exit_pipeline_mode()
        except psycopg.Error:
            return Reason.BROKEN
        if self._pgconn.transaction_status != TransactionStatus.IDLE or self._report() != self._reported:
            return Reason.UNCLEAN
        return None

    def _deaf(self) -> None:
        self._loop.remove_reader(self._fd)
        if self._stuffed:
            self._loop.remove_writer(self._fd)

    # ------------------------------------------------------------------------------------------ what may be sent

    def wait(self, now: float) -> float:
        """Seconds until a statement sent now would begin; infinity if none may be sent."""
        flight, slot = self.flight, self.slot
        if self._stuffed or self._cancelling or self._lost or self.retiring is not None or now >= slot.expires:
            return math.inf
        if not flight:
            return 0.0
        hogs = not self.prepared.direct and now - self._filled > DRAIN_SECONDS
        if hogs or len(flight) >= self._settings.max_in_flight:
            return math.inf
        head = flight[0]
        late = now - max(head.sent + self.prepared.rtt, self._moved) - head.expected
        if late <= FILL * self._settings.target or slot.probe(0):  # what has come already is not late
            return self._backlog
        return self._backlog + late

    @property
    def busy(self) -> bool:
        """Whether it must be kept, although nothing may be under way."""
        return bool(self.flight) or self._cancelling

    # ------------------------------------------------------------------------------------------ sending

    def send(self, statement: Statement, now: float, prepare: bool = True) -> None:
        """Send it behind whatever is under way. What is wrong with it, the statement is told."""
        codec = self._codec
        try:
            query = codec.convert(statement.query, statement.params)
        except Exception as error:
            statement.settle(error)
            return
        statement.codec = codec
        statement.pipeline = self
        statement.sent = now
        statement.expected = statement.record.expected
        pgconn, prepared = self._pgconn, self.prepared
        key = (query.query, query.types)
        name = prepared.name(key) if prepare else None
        prepares = prepare and name is None and prepared.is_due(key)
        if prepares:
            name = prepared.begin(key)
        statement.key = key
        statement.name = name
        statement.prepares = prepares
        first = not self.flight
        if first:
            self._filled, self._worked = now, busy()
        try:
            if statement.until is not None or statement.reading:
                self._bound(statement, query.query, now)
            if prepares:
                pgconn.send_prepare(name, query.query, query.types)
                statement.before += 1
            if name is not None:
                pgconn.send_query_prepared(name, query.params, query.formats)
            else:
                pgconn.send_query_params(query.query, query.params, query.types, query.formats)
        except Exception as error:
            if prepares:
                prepared.failed(key)
            self._not_sent(statement, error)
            return
        statement.sends += 1
        self.flight.append(statement)
        self._backlog += statement.expected
        self._sync(at_once=first)
        if first and not statement.before and not self._lost:
            self._in_parts()

    def _deallocate(self, name: bytes) -> None:
        """By the protocol where libpq can (since 17): a pooler that renames them knows no other way."""
        if capabilities.has_send_close_prepared():
            self._pgconn.send_close_prepared(name)
        else:
            self._pgconn.send_query_params(b"DEALLOCATE " + name, None)
        self.flight.append(Errand(lambda _: None, self._clock()))
        self._sync()

    def _bound(self, statement: Statement, query: bytes, now: float) -> None:
        """See that the server ends it in time, and lets it write nothing if it must not."""
        readable = _BOUNDED.match(query) is not None
        if statement.reading and not readable:
            raise psycopg.errors.ReadOnlySqlTransaction(
                "only statements that read may be run here (SELECT, WITH, VALUES, TABLE, EXPLAIN, SHOW)"
            )
        if statement.reading:
            self._pgconn.send_query_params(_READ_ONLY, None)
            statement.before += 1
        if statement.until is not None and readable:
            self._limit(max(1, math.ceil((statement.until - now) * 1000)))
            statement.before += 1

    def _limit(self, milliseconds: int) -> None:
        """What follows may take so long; no longer than the session allows."""
        limit = self.prepared.limit
        most = [b"%d" % min(milliseconds, limit or milliseconds)]
        if self.prepared.limiter is not None:
            self._pgconn.send_query_prepared(self.prepared.limiter, most)
        else:
            self._pgconn.send_query_params(_LIMIT if limit else _SHORTER_LIMIT, most, [_TEXT])

    def _not_sent(self, statement: Statement, error: Exception) -> None:
        """Nothing of the statement itself has left."""
        if self._pgconn.status == BAD:
            self._lose(error, [statement])
            return
        before, statement.before = statement.before, 0
        if before:  # but something before it: a Sync ends that
            self.flight.append(Errand(lambda _: None, self._clock(), before - 1))
            self._sync()
        statement.settle(error)

    def _sync(self, at_once: bool = False) -> None:
        """End what was sent. From here on the server may run it, whatever happens.

        *at_once*: nothing else is under way, so the server should begin. Others go together at the end of this round of
        the event loop.
        """
        try:
            if at_once or self._send_sync is None:
                self._pgconn.pipeline_sync()
                self._flush()
            else:
                self._send_sync(self._pgconn)
                if not self._to_flush:
                    self._to_flush = True
                    self._loop.call_soon(self._flush_all)
        except psycopg.Error as error:
            self._loop.call_soon(self._lose, error)  # not now: the caller is in the midst of sending
            self._lost = True

    def _flush(self) -> None:
        if self._pgconn.flush() and not self._stuffed:
            self._stuffed = True
            self._loop.add_writer(self._fd, self._writable)

    def _flush_all(self) -> None:
        self._to_flush = False
        if self._over:
            return
        try:
            self._flush()
        except psycopg.Error as error:
            self._lose(error)

    def _writable(self) -> None:
        try:
            if self._pgconn.flush():
                return
        except psycopg.Error as error:
            self._lose(error)
            return
        self._stuffed = False
        self._loop.remove_writer(self._fd)
        self._home.moved(self, 0)

    # ------------------------------------------------------------------------------------------ receiving

    def _readable(self) -> None:
        error: Exception | None = None
        self._reads += 1
        try:
            self._pgconn.consume_input()
        except psycopg.Error as caught:
            error = caught
        try:
            done = self._receive()
        except psycopg.Error as caught:
            done, error = [], caught
        answered = self._note(done, self._clock())
        if self._over:
            return
        if error is not None or self._pgconn.status == BAD:
            self._lose(error)
        else:
            self._home.moved(self, answered)

    def _receive(self) -> list[Statement | Errand]:
        """Take what has come; returns what has been answered to the end."""
        flight, pgconn = self.flight, self._pgconn
        is_busy, get_result = pgconn.is_busy, pgconn.get_result
        done: list[Statement | Errand] = []
        ended = False
        while flight and not is_busy():
            head = flight[0]
            result = get_result()
            if result is None:  # the end of one message's results
                if ended:  # of nothing: there is no connection any more
                    break
                ended = True
                if head.before:
                    head.before -= 1
                    self._expect(head)
                continue
            ended = False
            status = result.status
            if status == SYNC:
                done.append(flight.popleft())
                self._reads = 0
                if flight:
                    self._expect(flight[0])
            elif status == FAILED:
                head.failure = head.failure or result
            elif not head.before:
                self._keep(head, result, status)
        return done

    def _expect(self, head: Statement | Errand) -> None:
        if not head.before and head.failure is None and isinstance(head, Statement):
            self._in_parts()

    def _keep(self, head: Statement | Errand, result: PGresult, status: int) -> None:
        if status in (CHUNK, ONE):
            if head.gone or head.failure is not None:
                return
            assert isinstance(head, Statement), "bug: an errand's result came in parts"
            head.tag = result.command_status or head.tag
            if not head.answers or not head.one_row:
                head.answers.append(result)
                if self._reads >= MANY_READS:
                    self._measure(head, result)
        elif status in (TUPLES, COMMAND, EMPTY):
            if isinstance(head, Statement):
                head.tag = result.command_status or head.tag
            head.answers.append(result)
        elif status != ABORTED:  # COPY, which nobody can get this connection out of
            self.retiring = Reason.UNCLEAN
            self._lose(psycopg.NotSupportedError("COPY cannot share a connection"))

    def _measure(self, statement: Statement, part: PGresult) -> None:
        """Refuse what would fill the memory; what comes of it from now on is thrown away."""
        cells = product(range(part.ntuples), range(part.nfields))
        statement.size += sum(len(part.get_value(row, column) or b"") for row, column in cells)
        most = self._settings.max_result
        if statement.size > most:
            statement.answers.clear()
            statement.settle(
                errors.under(errors.ResultTooLarge, psycopg.DataError)(
                    f"the result is larger than max_result={most:,} bytes and was thrown away, though the statement may"
                    " have run to its end: read it in parts, with `async with pool.connection() as conn, conn.cursor()"
                    " as cursor:` and `cursor.stream(query)`"
                )
            )
            self.withdraw(statement)

    # ------------------------------------------------------------------------------------------ answers

    def _note(self, done: list[Statement | Errand], now: float) -> int:
        """Settle what was answered, and learn how long it took."""
        if not done:
            return 0
        if done[0].sent > self._moved:
            rtt = now - done[0].sent
            if rtt < self.prepared.rtt or not self.prepared.rtt:
                self.prepared.rtt = rtt
        self._progress.set()
        gap = self._took(done[0], now)
        self._moved = now
        self._pulse.beat()
        statements = [entry for entry in done if isinstance(entry, Statement)]
        # Each is answered as soon as it is done: a long silence was the first one's, whose answer ended it.
        stalled = gap >= STALL
        share = 0.0 if stalled else gap / len(done)
        for statement in statements:
            statement.record.note(gap if stalled and statement is done[0] else share)
        for entry in done:
            if isinstance(entry, Statement):
                self._settle(entry, now)
            else:
                entry.then(entry)
        if not self.flight:
            self._backlog = 0.0  # sums of fractions drift
        return len(statements)

    def _took(self, first: Statement | Errand, now: float) -> float:
        """Seconds that the server has certainly worked since it could begin with what is now answered first."""
        began = max(first.sent + self.prepared.rtt, self._moved)
        worked, self._worked = self._worked, busy()
        return max(0.0, self._pulse.looked - began, now - began - (self._worked - worked))

    def _settle(self, statement: Statement, now: float) -> None:
        self._backlog -= statement.expected
        failure = statement.failure
        if statement.prepares:
            self._prepared(statement)
        if failure is None:
            statement.settle()
            return
        if statement.before and sqlstate(failure) == UNKNOWN_NAME:  # what limits it is not prepared any more
            self.prepared.limiter = None
            self._again(statement, now)
            return
        if statement.name is not None and plan_is_gone(failure):
            self._forget(statement, statement.name, failure)
            if not statement.gone:
                self._again(statement, now)  # it has not run
                return
        state = sqlstate(failure)
        if state == "57014" and statement.until is not None and now >= statement.until:
            statement.settle(self._ended_in_time(statement.codec.error(failure)))
            return
        if state == "25006":
            self._driver.failed(self.conn, statement.codec.error(failure))
            self.retiring = self.retiring or self._driver.unfit(self.conn)
        statement.settle()

    def _ended_in_time(self, cause: Exception) -> Exception:
        error = errors.under(errors.StatementTimeout, psycopg.errors.QueryCanceled)(
            "the statement's deadline has passed: the server has ended it, and nothing of it was done"
        )
        error.__cause__ = cause
        return error

    def _prepared(self, statement: Statement) -> None:
        """It was sent with the order to prepare it, just before it."""
        assert statement.key is not None, "bug: prepared under no name"
        if statement.failure is not None and statement.before:
            self.prepared.failed(statement.key)
        elif (old := self.prepared.succeeded(statement.key)) is not None:
            self._deallocate(old)

    def _forget(self, statement: Statement, name: bytes, failure: PGresult) -> None:
        assert statement.key is not None, "bug: prepared under no key"
        if self.prepared.forget(statement.key, name) and sqlstate(failure) != UNKNOWN_NAME:
            self._deallocate(name)

    def _again(self, statement: Statement, now: float) -> None:
        """This time not by a prepared statement, so that whatever is wrong with that cannot be the answer."""
        statement.start_over()
        self.send(statement, now, prepare=False)

    # ------------------------------------------------------------------------------------------ ends

    def withdraw(self, statement: Statement) -> None:
        """Nobody waits for it any more: if nobody else's statement is under way either, ask the server to stop.

        Nothing is sent until the server has heard it and the answer is there, or it might hit who comes next. Behind a
        pooler it might all the same, so there nothing is asked.
        """
        if self._cancelling or self._lost or not self.prepared.direct:
            return
        if statement in self.flight and all(entry.gone for entry in self.flight):
            self._cancelling = True
            self._home.spawn(self._cancel())

    async def _cancel(self) -> None:
        try:
            while self.flight and not self._over:  # a request stops only the one that runs
                self._progress.clear()
                await self._driver.cancel(self.conn, CANCEL_SECONDS)
                if self.flight:
                    with suppress(TimeoutError):
                        async with timeout(CANCEL_SECONDS):
                            await self._progress.wait()
        finally:
            self._cancelling = False
            if not self._over:
                self._home.moved(self, 0)

    def _lose(self, error: Exception | None, again: list[Statement] | None = None) -> None:
        """The connection is no good: tell everybody whose statement is under way on it."""
        if self._over:
            return
        self._deaf()
        self._over = self._lost = True
        self._progress.set()
        flight, again = list(self.flight), again or []
        self.flight.clear()
        for entry in flight:
            if not isinstance(entry, Statement) or entry.gone:
                continue
            if entry.idempotent and entry.sends < MOST_SENDS:
                entry.start_over()
                again.append(entry)
            else:
                cause = error if entry.failure is None else entry.codec.error(entry.failure)
                entry.settle(self._may_have_run(entry, cause))
        self._home.lost(self, again)

    def _may_have_run(self, statement: Statement, cause: Exception | None) -> Exception:
        why = " ".join(str(cause).split()) if cause else "the server closed it"
        lost = errors.under(errors.ConnectionLost, psycopg.OperationalError)(
            f"the connection was lost before the answer came, so the statement may have run, or not: {why}."
            " (One that may be run twice, `idempotent=True`, is sent again elsewhere)"
        )
        lost.__cause__ = cause
        return lost

    # ------------------------------------------------------------------------------------------ what stands between

    def _probe(self) -> None:
        """Find out whether a pooler stands between, and whether it knows prepared statements.

        One that hands statements of one client to several server connections gives its clients process numbers of its
        own. If it keeps account of prepared statements, it gives those names of its own, too.
        """
        self._pgconn.send_query_params(_PROBE, None)
        self.flight.append(Errand(self._probed, self._clock()))
        self._sync()

    def _probed(self, probe: Errand) -> None:
        answer = probe.answers[-1] if probe.answers and probe.failure is None else None
        if answer is None or not answer.ntuples:
            return  # no server that is known here: nothing is prepared, nor cancelled
        self.prepared.limit = milliseconds(answer.get_value(0, 1) or b"0")
        self.prepared.direct = answer.get_value(0, 0) == b"%d" % self._pgconn.backend_pid
        if self.prepared.direct:
            self._may_prepare()
        elif capabilities.has_send_close_prepared():
            self._probe_names()

    def _probe_names(self) -> None:
        """Under a name that nobody else has: a pooler that keeps no account may show it to its other clients."""
        name = b"_penstock_" + token_hex(8).encode()
        self._pgconn.send_prepare(name, _IS_NAMED, [_TEXT])
        self._pgconn.send_query_prepared(name, [name])
        self._pgconn.send_close_prepared(name)
        self.flight.append(Errand(self._named, self._clock(), before=1))
        self._sync()

    def _named(self, probe: Errand) -> None:
        answer = probe.answers[0] if probe.answers and probe.failure is None else None
        if answer is not None and answer.ntuples and answer.get_value(0, 0) == b"f":
            self._may_prepare()

    def _may_prepare(self) -> None:
        self.prepared.able = True
        if self.conn.prepare_threshold is not None:
            self._pgconn.send_prepare(_LIMITER, _LIMIT, [_TEXT])
            self.flight.append(Errand(self._limiter_prepared, self._clock()))
            self._sync()

    def _limiter_prepared(self, errand: Errand) -> None:
        self.prepared.limiter = _LIMITER if errand.failure is None else None


def _one_by_one(pgconn: Any) -> Callable[[], None]:
    """libpq before 17 knows parts of one row only."""
    return pgconn.set_single_row_mode  # type: ignore[no-any-return]
