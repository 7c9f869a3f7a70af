"""What is sent before a statement, in its transaction, so that the server ends it in time and lets it write nothing.

Both settings are local to the transaction, so they are gone with it. A function of SQL sets them and not SET LOCAL,
which warns where no transaction block was begun.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from psycopg.errors import ReadOnlySqlTransaction

if TYPE_CHECKING:
    from .prepared import Prepared
    from .statement import Statement

TEXT = 25  # the type's oid

LIMIT = b"SELECT set_config('statement_timeout', $1, true)"
LIMITER = b"_penstock_limit"
# While it is not known what the session allows. No unit that it shows is unknown to an interval.
_SHORTER_LIMIT = (
    LIMIT + b" WHERE current_setting('statement_timeout')::interval NOT BETWEEN '1 ms' AND ($1 || 'ms')::interval"
)
_READ_ONLY = b"SELECT set_config('transaction_read_only', 'on', true)"
# Others may not have anything before them in their transaction (VACUUM, CALL of a procedure that commits).
_MAY_FOLLOW = re.compile(
    rb"(?:[\s(]|--[^\r\n]*|/\*.*?\*/)*(?:select|with|values|table|insert|update|delete|merge|explain|show)\b",
    re.IGNORECASE | re.DOTALL,
)


def send_limits(pgconn: Any, statement: Statement, query: bytes, prepared: Prepared, now: float) -> None:
    """Send what *statement* is to be bounded by, and count it in `statement.before`.

    :raises psycopg.errors.ReadOnlySqlTransaction: when it is to read only and there is no telling that it does.
    """
    may_follow = _MAY_FOLLOW.match(query) is not None
    if statement.reading:
        if not may_follow:
            raise ReadOnlySqlTransaction(
                "only statements that read may be run here (SELECT, WITH, VALUES, TABLE, EXPLAIN, SHOW)"
            )
        pgconn.send_query_params(_READ_ONLY, None)
        statement.before += 1
    if statement.until is not None and may_follow:
        _send_limit(pgconn, prepared, max(1, math.ceil((statement.until - now) * 1000)))
        statement.before += 1


def _send_limit(pgconn: Any, prepared: Prepared, milliseconds: int) -> None:
    """What follows may take so long; no longer than the session allows."""
    most = [b"%d" % min(milliseconds, prepared.limit or milliseconds)]
    if prepared.limiter is not None:
        pgconn.send_query_prepared(prepared.limiter, most)
    else:
        pgconn.send_query_params(LIMIT if prepared.limit else _SHORTER_LIMIT, most, [TEXT])
