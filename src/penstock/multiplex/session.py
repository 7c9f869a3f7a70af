"""What of a session concerns those who share it: what its transactions begin with, and whether it was changed."""

from __future__ import annotations

from typing import Any

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


class Session:
    """As it is found.

    :ivar reading: psycopg would begin its transactions with READ ONLY. Where statements are shared it begins none.
    :ivar sets_transactions: and with an isolation level, or DEFERRABLE.
    """

    __slots__ = ("_found", "_pgconn", "reading", "sets_transactions")

    def __init__(self, conn: Any) -> None:
        self._pgconn = conn.pgconn
        self._found = self._report()
        self.reading: bool = conn.read_only is True
        self.sets_transactions: bool = conn.isolation_level is not None or conn.deferrable is not None

    @property
    def changed(self) -> bool:
        """Whether it is not as it was found."""
        return self._report() != self._found

    def _report(self) -> tuple[bytes | None, ...]:
        return tuple(map(self._pgconn.parameter_status, _REPORTED))
