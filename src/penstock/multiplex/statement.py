"""One caller's statement, from when it is asked until its answer has come."""

from __future__ import annotations

from asyncio import Future
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


class Statement:
    """What was asked, where it stands, and what has come of it.

    :ivar future: done once there is an answer, or will never be one; it carries none itself, so that rows are made, and
        errors raised, where the statement was asked.
    :ivar failure: the server's error.
    :ivar error: our own.
    """

    __slots__ = (
        "answers",
        "before",
        "code",
        "codec",
        "error",
        "expected",
        "failure",
        "future",
        "idempotent",
        "key",
        "lasti",
        "name",
        "one_row",
        "params",
        "pipeline",
        "prepares",
        "query",
        "reading",
        "record",
        "row_factory",
        "sends",
        "sent",
        "size",
        "tag",
        "text",
        "until",
        "waiter",
        "wish",
    )

    def __init__(
        self,
        query: Any,
        params: Any,
        row_factory: Any,
        one_row: bool,
        idempotent: bool,
        code: CodeType | None,
        lasti: int,
    ) -> None:
        self.query = query
        self.params = params
        self.row_factory = row_factory
        self.one_row = one_row
        self.idempotent = idempotent
        self.code = code
        self.lasti = lasti
        self.future: Future[None]
        self.wish: Wish | None = None
        self.waiter: Waiter | None = None  # while it waits to be sent
        self.text = ""  # of the query, for its history and for people
        self.record: Record
        self.until: float | None = None  # when the answer is wanted, by the monotonic clock
        self.reading = False
        # Once it is sent.
        self.pipeline: Pipeline | None = None
        self.codec: Codec
        self.key: Key | None = None
        self.name: bytes | None = None  # under which it was prepared; None if it was sent in full
        self.prepares = False  # it was sent with the order to prepare it
        self.expected = 0.0  # seconds that it was expected to take
        self.sent = 0.0
        self.sends = 0
        self.before = 0  # messages of its own before it that have not been answered
        self.answers: list[PGresult] = []
        self.size = 0  # bytes of them, as far as they were counted
        self.tag: bytes | None = None  # what the server says was done
        self.failure: PGresult | None = None
        self.error: Exception | None = None

    @property
    def gone(self) -> bool:
        """Nobody waits for the answer any more."""
        return self.future.done()

    def start_over(self) -> None:
        """Nothing has come of it so far: it is to be sent again."""
        self.failure = self.tag = None
        self.answers.clear()
        self.before = self.size = 0

    def settle(self, error: Exception | None = None) -> None:
        """There is an answer, or there will never be one."""
        if not self.future.done():
            self.error = error
            self.future.set_result(None)
