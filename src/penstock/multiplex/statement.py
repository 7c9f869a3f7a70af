"""One caller's statement, from when it is asked until its answer has come."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable
from types import CodeType
from typing import TYPE_CHECKING, Any

from ..core import Waiter
from ..pool.terms import Wish

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    from .codec import Codec
    from .history import Record
    from .pipeline import Pipeline
    from .prepared import Key

MOST_SENDS = 3  # of a statement that may be sent again: one that ends its server must not do so for ever


class Sent:
    """What is under way on a connection, and what has come of it so far.

    :ivar sent: when it was sent last.
    :ivar expected: seconds that it is reckoned with.
    :ivar before: messages of its own before it that have not been answered.
    :ivar in_parts: its rows are asked for in parts.
    :ivar one_row: no more than that is wanted.
    :ivar begun: the first of its rows have come.
    :ivar parts: those that have come and were not made into rows yet.
    :ivar failure: the server's error; *early* if that was about something sent before it.
    :ivar then: what to do once it is answered, if there is more to do than to tell.
    """

    __slots__ = (
        "before",
        "begun",
        "early",
        "expected",
        "failure",
        "in_parts",
        "one_row",
        "parts",
        "record",
        "sent",
        "then",
    )

    record: Record
    sent: float
    expected: float
    before: int
    in_parts: bool
    one_row: bool
    begun: bool
    parts: list[PGresult] | None
    failure: PGresult | None
    early: bool
    then: Callable[[], object] | None

    @property
    def gone(self) -> bool:
        """Nobody waits for the answer any more."""
        return False

    def settle(self, error: Exception | None = None) -> None:
        """There is an answer, or there will never be one."""


class Statement(Sent):
    """What was asked, where it stands, and what has come of it.

    :ivar future: done once there is an answer, or will never be one; it carries none itself, so that errors are raised,
        and rows made that need more than psycopg's loaders, where the statement was asked.
    :ivar tagged: what the server says was done is wanted, and no rows.
    :ivar plain: its rows are to be plain tuples, so they are made as they come: what libpq keeps of them is freed
        before the next answer is read, which then finds that memory in the processor's cache.
    :ivar rows: those made so far.
    :ivar until: when the answer is wanted, by the monotonic clock; None if that was not declared.
    :ivar timeout: seconds that it may wait to be sent, and again behind others.
    :ivar name: under which it was prepared; None if it was sent in full.
    :ivar sends: how often it was sent.
    :ivar size: bytes of its answer, as far as they were counted.
    :ivar last: the part that came last, and *final* what ended them; for the tag.
    :ivar error: our own.
    """

    __slots__ = (
        "code",
        "codec",
        "error",
        "final",
        "future",
        "idempotent",
        "key",
        "last",
        "lasti",
        "name",
        "params",
        "pipeline",
        "plain",
        "query",
        "reading",
        "row_factory",
        "rows",
        "sends",
        "size",
        "tagged",
        "text",
        "timeout",
        "until",
        "waiter",
        "wish",
    )

    # Set as it goes on, and not read before.
    future: Future[None]
    text: str
    codec: Codec
    wish: Wish | None
    timeout: float
    plain: bool
    key: Key | None
    name: bytes | None

    def __init__(
        self,
        query: Any,
        params: Any,
        row_factory: Any,
        one_row: bool,
        tagged: bool,
        idempotent: bool,
        code: CodeType,
        lasti: int,
    ) -> None:
        self.query = query
        self.params = params
        self.row_factory = row_factory
        self.one_row = one_row
        self.tagged = tagged
        self.idempotent = idempotent
        self.code = code
        self.lasti = lasti
        self.in_parts = True
        self.begun = self.early = self.reading = False
        self.before = self.sends = self.size = 0
        self.failure = self.then = self.parts = None
        self.rows: list[Any] | None = None
        self.last: PGresult | None = None
        self.final: PGresult | None = None
        self.pipeline: Pipeline | None = None
        self.waiter: Waiter | None = None
        self.until: float | None = None
        self.error: Exception | None = None

    @property
    def gone(self) -> bool:
        """Nobody waits for the answer any more."""
        return self.future.done()

    @property
    def tag(self) -> str:
        """What the server says was done. libpq has it with the last part, or after it if that was a full one."""
        tags = [result.command_status for result in (self.final, self.last) if result is not None]
        return next((tag.decode() for tag in tags if tag), "")

    def start_over(self) -> None:
        """Nothing has come of it so far: it is to be sent again."""
        self.failure = self.last = self.final = self.then = self.rows = self.parts = None
        self.before = self.size = 0
        self.begun = self.early = False

    def taken_error(self) -> Exception:
        """Our own error, for who raises it: nothing that its frames refer to may keep it, or it would keep them."""
        error, self.error = self.error, None
        assert error is not None, "bug: there is no error"
        return error

    def settle(self, error: Exception | None = None) -> None:
        """There is an answer, or there will never be one."""
        if not self.future.done():
            self.error = error
            self.future.set_result(None)


class Errand(Sent):
    """What is asked for the connection's own sake, between the statements."""

    __slots__ = ()

    def __init__(self, record: Record, sent: float, before: int) -> None:
        self.record = record
        self.sent = sent
        self.before = before
        self.expected = 0.0
        self.in_parts = self.one_row = self.begun = self.early = False
        self.failure = self.then = self.parts = None

    def value(self, column: int) -> bytes | None:
        """Of the first row, if there is one."""
        return self.parts[0].get_value(0, column) if self.parts and self.failure is None else None
