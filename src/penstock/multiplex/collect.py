"""What has come of an answer: kept as far as it is wanted, made into rows if they are plain, refused if too large."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from .statement import Sent, Statement

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    from .codec import Codec
    from .complaints import Complaints
    from .prepared import Prepared

MANY_READS = 2  # of the socket for one answer; what came in fewer is small (libpq reads what its buffer holds)
LARGE = 2**16  # bytes, a few times libpq's first buffer
ROW_BYTES = 64  # that a row takes here whatever is in it: an empty tuple (56) and its place in the list (8)
VALUE_BYTES = 16  # and each of its values, NULL or not: what libpq notes of it; its place in the tuple is smaller (8)


class Collector:
    """One connection's. *most*: bytes of one result.

    :ivar reads: of the socket, since the last answer was complete.
    """

    __slots__ = ("_account", "_codec", "_complaints", "_most", "reads")

    def __init__(self, codec: Codec, account: Prepared, complaints: Complaints, most: int) -> None:
        self._codec = codec
        self._account = account
        self._complaints = complaints
        self._most = most
        self.reads = 0

    def keep(self, head: Sent, part: PGresult) -> bool:
        """Take a part of its answer. False if that is too large, of which its caller was told."""
        if not isinstance(head, Statement):
            head.parts = [part]
            return True
        if head.tagged:
            head.last = part
        if head.begun and (head.one_row or head.gone):
            return True
        head.begun = True
        if (self.reads >= MANY_READS or self._account.roomy) and self._is_too_large(head, part):
            return False
        if not head.plain or not self._made_into_rows(head, part):
            head.parts = head.parts or []
            head.parts.append(part)
        return True

    def _made_into_rows(self, statement: Statement, part: PGresult) -> bool:
        try:
            rows = self._codec.load(part, 1 if statement.one_row else part.ntuples)
        except Exception:  # a loader's: it is to fail again where the statement was asked
            statement.plain = False
            return False
        if statement.rows is None:
            statement.rows = rows
        else:
            statement.rows += rows
        return True

    def _is_too_large(self, statement: Statement, part: PGresult) -> bool:
        """Refuse what would fill the memory; what comes of it from now on is thrown away."""
        rows, columns = part.ntuples, part.nfields
        values = (part.get_value(row, column) for row, column in product(range(rows), range(columns)))
        statement.size += sum(len(value) for value in values if value) + rows * (ROW_BYTES + columns * VALUE_BYTES)
        self._account.roomy = self._account.roomy or statement.size > LARGE
        if statement.size <= self._most:
            return False
        statement.parts = statement.rows = None
        statement.settle(self._complaints.too_large(statement, self._most))
        return True
