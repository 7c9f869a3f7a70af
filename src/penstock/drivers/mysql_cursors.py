"""Cursors of MySQL's drivers that take note of each statement as it was given: without the values put into it."""

from __future__ import annotations

from functools import cache, wraps
from inspect import iscoroutinefunction
from typing import Any

from .dbapi import begin, end
from .mysql_session import touches


@cache
def tracked(cursor_class: Any, error: type[Exception]) -> Any:
    """*cursor_class*, whose `execute` and `executemany` take note. *error*: the driver's."""
    if getattr(cursor_class, "_tracked_by_penstock", not isinstance(cursor_class, type)):
        return cursor_class
    wrap = _tracking_async if iscoroutinefunction(cursor_class.execute) else _tracking
    methods = {name: wrap(getattr(cursor_class, name), error) for name in ("execute", "executemany")}
    marks = {"__module__": cursor_class.__module__, "__doc__": cursor_class.__doc__, "_tracked_by_penstock": True}
    return type(cursor_class.__name__, (cursor_class,), methods | marks)


def _tracking(method: Any, error_class: type[Exception]) -> Any:
    @wraps(method)
    def tracking(self: Any, query: Any, args: Any = None) -> Any:
        conn = self.connection
        if not _to_be_noted(conn):
            return method(self, query, args)
        begin(conn, query, touches)
        try:
            return method(self, query, args)
        except error_class as error:
            conn._driver.failed(conn, error)
            raise
        finally:
            end(conn)

    return tracking


def _tracking_async(method: Any, error_class: type[Exception]) -> Any:
    @wraps(method)
    async def tracking(self: Any, query: Any, args: Any = None) -> Any:
        conn = self.connection
        if not _to_be_noted(conn):
            return await method(self, query, args)
        begin(conn, query, touches)
        try:
            return await method(self, query, args)
        except error_class as error:
            conn._driver.failed(conn, error)
            raise
        finally:
            end(conn)

    return tracking


def _to_be_noted(conn: Any) -> bool:
    """Not of a cursor that is closed, nor during the login, nor of what `executemany` executes."""
    return conn is not None and conn._activity is not None and not conn._running
