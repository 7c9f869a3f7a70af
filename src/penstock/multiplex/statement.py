"""One caller's statement, from when it is asked until its answer has come."""

from __future__ import annotations

import math
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
    :ivar parts: those that have come, and *last* the last of them, kept or not.
    :ivar final: what ends them.
    :ivar failure: the server's error; *early* if that was about something sent before it.
    :ivar then: what to do once it is answered, if there is more to do than to tell.
    """

    # Most of these keep their first value most of the time, so they are the class's.
    record: Record
    sent = 0.0
    expected = 0.0
    before = 0
    in_parts = False
    one_row = False  # no more than that is wanted
    parts: list[PGresult] | tuple[()] = ()
    last: PGresult | None = None
    final: PGresult | None = None
    failure: PGresult | None = None
    early = False
    then: Callable[[], object] | None = None

    @property
    def gone(self) -> bool:
        """Nobody waits for the answer any more."""
        return False

    def settle(self, error: Exception | None = None) -> None:
        """There is an answer, or there will never be one."""


class Statement(Sent):
    """What was asked, where it stands, and what has come of it.

    :ivar future: done once there is an answer, or will never be one; it carries none itself, so that rows are made, and
        errors raised, where the statement was asked.
    :ivar until: when the answer is wanted, by the monotonic clock; None if that was not declared.
    :ivar sends: how often it was sent.
    :ivar error: our own.
    """

    future: Future[None]
    text: str
    codec: Codec
    pipeline: Pipeline | None = None
    wish: Wish | None = None
    waiter: Waiter | None = None
    until: float | None = None
    timeout = math.inf  # seconds that it may wait to be sent, and again behind others
    reading = False
    key: Key | None = None
    name: bytes | None = None  # under which it was prepared; None if it was sent in full
    sends = 0
    in_parts = True
    size = 0  # bytes of its parts, as far as they were counted
    error: Exception | None = None

    def __init__(
        self,
        query: Any,
        params: Any,
        row_factory: Any,
        one_row: bool,
        idempotent: bool,
        code: CodeType,
        lasti: int,
    ) -> None:
        self.query = query
        self.params = params
        self.row_factory = row_factory
        self.one_row = one_row
        self.idempotent = idempotent
        self.code = code
        self.lasti = lasti

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
        self.failure = self.last = self.final = self.then = None
        self.parts = ()
        self.before = self.size = 0
        self.early = False

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

    def __init__(self, record: Record, sent: float, before: int) -> None:
        self.record = record
        self.sent = sent
        self.before = before

    def value(self, column: int) -> bytes | None:
        """Of the first row, if there is one."""
        return self.parts[0].get_value(0, column) if self.parts and self.failure is None else None
