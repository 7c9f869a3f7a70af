"""Django's connections: one for each thread, or context, and alias. Watched are all that this process opens.

A connection is in somebody's hands from its first statement until the request is over; without a request, as in
a management command, until it is closed. What Django keeps for the next request (CONN_MAX_AGE) is idle meanwhile.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from weakref import WeakSet, ref

from django.core.signals import request_finished  # type: ignore[import-untyped]
from django.db.backends.base.base import BaseDatabaseWrapper  # type: ignore[import-untyped]
from django.db.backends.signals import connection_created  # type: ignore[import-untyped]
from django.db.utils import ConnectionHandler  # type: ignore[import-untyped]

from ...core import Reason
from .status import status
from .watched import Figures, Lease, Watched, harmless


def known(pool: Any) -> Django | None:
    return Django(pool) if isinstance(pool, ConnectionHandler) else None


class Django:
    """Satisfies `watched.Theirs`."""

    name = "django"

    def __init__(self, handler: ConnectionHandler) -> None:
        self._handler = handler
        self._wrappers: WeakSet[Any] = WeakSet()

    def attach(self, watched: Watched) -> None:
        self._watched = watched
        for wrapper in self._handler.all(initialized_only=True):
            self._hear(wrapper)
        connection_created.connect(self._created, weak=False, dispatch_uid=self)
        request_finished.connect(self._finished, weak=False, dispatch_uid=self)

    def detach(self) -> None:
        connection_created.disconnect(dispatch_uid=self)
        request_finished.disconnect(dispatch_uid=self)
        for wrapper in list(self._wrappers):
            hook = wrapper.__dict__.pop("_penstock_watch", None)
            if hook in wrapper.execute_wrappers:
                wrapper.execute_wrappers.remove(hook)
            wrapper.__dict__.pop("_close", None)
        self._wrappers.clear()

    def release(self, conn: Any) -> None:
        pass  # nothing was changed in it

    def figures(self) -> Figures:
        is_open = [wrapper for wrapper in list(self._wrappers) if wrapper.connection is not None]
        leased = sum(self._watched.lease(id(wrapper)) is not None for wrapper in is_open)
        return Figures(0, sys.maxsize, len(is_open) - leased, leased)

    def status(self, conn: Any) -> str:
        return status(conn.connection)

    def look(self, lease: Lease) -> None:
        pass  # each statement is told of

    @harmless
    def _created(self, connection: Any, **_: Any) -> None:
        self._watched.opened(0.0)
        self._hear(connection)

    @harmless
    def _finished(self, **_: Any) -> None:
        """In the thread, or the context, that the request was in."""
        for wrapper in self._handler.all(initialized_only=True):
            self._watched.gave(id(wrapper))

    def _hear(self, wrapper: BaseDatabaseWrapper) -> None:
        if wrapper in self._wrappers:
            return
        self._wrappers.add(wrapper)
        hook = _hook(self._watched, ref(wrapper))
        wrapper._penstock_watch = hook
        wrapper.execute_wrappers.insert(0, hook)
        wrapper._close = _closing(self._watched, ref(wrapper), type(wrapper)._close)


def _hook(watched: Watched, weak: ref[Any]) -> Callable[..., Any]:
    def executing(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
        wrapper = weak()
        lease = watched.lease(id(wrapper))
        if lease is None:
            watched.took(id(wrapper), weak)
            lease = watched.lease(id(wrapper))
        if lease is None:
            return execute(sql, params, many, context)
        lease.began(sql)
        try:
            return execute(sql, params, many, context)
        finally:
            lease.done()

    return executing


def _closing(watched: Watched, weak: ref[Any], close: Callable[..., Any]) -> Callable[[], Any]:
    def closing() -> Any:
        wrapper: Any = weak()
        if wrapper.connection is not None:
            watched.gave(id(wrapper))
            watched.note_closed(Reason.THEIRS)
        return close(wrapper)

    return closing
