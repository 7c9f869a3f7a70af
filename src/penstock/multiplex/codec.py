"""Parameters out and rows in, by psycopg's own adaptation, for statements that share one connection.

Nothing here sends or receives. The transformer that a cursor makes for each statement is made once: a connection's
adapters and encoding do not change while it is shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import AsyncCursor, AsyncRawCursor, errors
from psycopg._queries import PostgresQuery, PostgresRawQuery
from psycopg.adapt import Transformer
from psycopg.pq import DiagnosticField
from psycopg.pq.abc import PGresult
from psycopg.rows import tuple_row

from .history import LONGEST_TEXT

# SQLSTATEs, as PostgreSQL's documentation lists them in appendix A.
UNKNOWN_NAME = "26000"
CANCELED = "57014"
READ_ONLY = "25006"
_SEQUENCES = (tuple, list)
MOST_QUERIES = 500  # kept parsed; all are forgotten together, which costs a microsecond each


class Codec:
    """One connection's. It refers to the connection, so it lives no longer than that is shared."""

    def __init__(self, conn: Any) -> None:
        self._conn = conn
        self._tx = Transformer(conn)
        self._encoding: str = conn.info.encoding
        raw = issubclass(conn.cursor_factory, AsyncRawCursor)
        self._query_class = PostgresRawQuery if raw else PostgresQuery  # $1 or %s for a parameter
        self._queries: dict[Any, PostgresQuery] = {}
        self._cursor: tuple[Any, Any] = (None, None)  # the last row factory that needed one
        self._own_is_plain = conn.row_factory is tuple_row

    def convert(self, query: Any, params: Any) -> PostgresQuery:
        """*query* as the server takes it, with its parameters and their types.

        :raises psycopg.Error: (or TypeError) when they do not fit one another, or cannot be adapted.
        """
        known = self._queries.get(query) if params is not None and type(query) is str else None
        if known is not None:
            formats = known._want_formats
            if formats and known._order is None and type(params) in _SEQUENCES and len(params) == len(formats):
                known.params = self._tx.dump_sequence(params, formats)
                known.types = self._tx.types or ()
                known.formats = self._tx.formats
            else:
                known.dump(params)  # which knows what may be wrong with them
            return known
        made = self._query_class(self._tx)
        made.convert(query, params)
        if params is not None and type(query) is str and len(query) <= LONGEST_TEXT:
            if len(self._queries) >= MOST_QUERIES:
                self._queries.clear()
            self._queries[query] = made
        return made

    def rows(self, parts: Sequence[PGresult], row_factory: Any) -> list[Any]:
        """The rows of a result that came in parts, as a cursor with this row factory makes them (None: as its own)."""
        make_row = tuple if self.is_plain(row_factory) else None
        rows: list[Any] = []
        for part in parts:
            make_row = make_row or self._row_maker(part, row_factory or self._conn.row_factory)
            rows += self.load(part, part.ntuples, make_row)
        return rows

    def load(self, part: PGresult, count: int, make_row: Any = tuple) -> list[Any]:
        """The first so many rows of a part of a result."""
        self._tx.set_pgresult(part)
        return self._tx.load_rows(0, count, make_row)

    def is_plain(self, row_factory: Any) -> bool:
        """Whether its rows are tuples, made by nobody's code but psycopg's and its loaders'. None: the connection's."""
        return self._own_is_plain if row_factory is None else row_factory is tuple or row_factory is tuple_row

    def error(self, failure: PGresult) -> Exception:
        """The server's error, as psycopg raises it."""
        return errors.error_from_result(failure, encoding=self._encoding)

    def _row_maker(self, answer: PGresult, row_factory: Any) -> Any:
        """A row factory is made for a cursor: it gets one that has this result."""
        known, cursor = self._cursor
        if known is not row_factory:
            cursor = AsyncCursor(self._conn, row_factory=row_factory)
            self._cursor = (row_factory, cursor)
        cursor._tx = self._tx
        cursor._results[:] = [answer]
        cursor._select_current_result(0)
        return cursor._make_row


def sqlstate(failure: PGresult) -> str:
    return (failure.error_field(DiagnosticField.SQLSTATE) or b"").decode()


def plan_is_gone(failure: PGresult) -> bool:
    """Whether a prepared statement failed before it ran, for being prepared: forgotten by the session, or outdated.

    By where the server's source says so, and not from within a function that the statement has called.
    """
    if failure.error_field(DiagnosticField.CONTEXT) is not None:
        return False
    where = failure.error_field(DiagnosticField.SOURCE_FUNCTION)
    return where in (b"FetchPreparedStatement", b"RevalidateCachedQuery")
