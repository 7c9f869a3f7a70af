"""What a caller is told of a statement that came to nothing, or may have: which one, what was found, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import errors
from ..pool.base import one_line
from ..pool.holders import call_site, statement_text

if TYPE_CHECKING:
    from ..drivers.base import Driver
    from .statement import Statement


class Complaints:
    """Those of one pool. *name*: the pool's."""

    def __init__(self, name: str, driver: Driver) -> None:
        self._name = name
        self._driver = driver

    def not_standalone(self, statement: Statement, why: str) -> Exception:
        what = f"this statement {why}: it needs a connection of its own, `async with pool.connection() as conn:"
        return errors.under(errors.NotStandalone, self._driver.programming_error)(
            self._told(f"{what} await conn.execute(...)`", statement)
        )

    def lost(self, statement: Statement, cause: Exception | None) -> Exception:
        why = one_line(cause) if cause else "the server closed it"
        error = errors.under(errors.ConnectionLost, self._driver.operational_error)(
            self._told(
                f"the connection was lost before the answer came, so this statement may have run, or not: {why}."
                " (`idempotent=True` has it sent again elsewhere)",
                statement,
            )
        )
        error.__cause__ = cause
        return error

    def silent(self, statement: Statement) -> Exception:
        return errors.under(errors.PoolTimeout, self._driver.operational_error)(
            self._told("this statement was not sent: its connection is new, and does not answer", statement)
        )

    def sets_transactions(self, statement: Statement) -> Exception:
        return self.not_standalone(statement, "is to run at the isolation level that `configure` has set")

    def unanswered(self, statement: Statement) -> Exception:
        return self._timeout(
            "the deadline has passed and there is no answer: this statement may have run, or not", statement
        )

    def ended(self, statement: Statement, cause: Exception) -> Exception:
        error = self._timeout("the deadline has passed: the server has ended this statement, undone", statement)
        error.__cause__ = cause
        return error

    def behind(self, statement: Statement, ahead: Statement, now: float) -> Exception:
        return self._timeout(
            f"for timeout={statement.timeout:g} s this statement has stood behind another one on its connection, that"
            f" {call_site(ahead.code, ahead.lasti)} sent {now - ahead.sent:.1f} s ago ({statement_text(ahead.text)})."
            " It may have run, or run yet, once that has ended",
            statement,
        )

    def too_large(self, statement: Statement, most: int) -> Exception:
        return errors.under(errors.ResultTooLarge, self._driver.data_error)(
            self._told(
                f"the result is larger than max_result={most:,} bytes and was thrown away, though the statement may"
                " have run to its end: read it in parts, with `async with pool.connection() as conn, conn.cursor() as"
                " cursor:` and `cursor.stream(query)`",
                statement,
            )
        )

    def _timeout(self, what: str, statement: Statement) -> Exception:
        kind = errors.under(errors.StatementTimeout, self._driver.query_canceled)
        return kind(self._told(what, statement))

    def _told(self, what: str, statement: Statement) -> str:
        return f"{self._name}: {what}: {statement_text(statement.text)}"
