"""What a database wrapper of Django's does otherwise when its connections are lent by a pool of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Lock, get_ident
from typing import Any
from weakref import ref

from django.db.backends.base.base import NO_DB_ALIAS  # type: ignore[import-untyped]

from ... import errors
from . import pool as pools
from .pool import DjangoPool


class Pooled:
    """Comes before one of Django's DatabaseWrapper classes.

    A connection is lent at the first query and held until `close`, which Django calls at the end of each request (and
    Celery after each task): all of its session is the holder's until then, as in Django. A thread that ends gives its
    connection back without being asked.
    """

    pool_driver: str
    _lender: DjangoPool | None = None
    _baseline: object = None  # of the connection that was lent
    connection: Any
    settings_dict: Mapping[str, Any]
    alias: str
    in_atomic_block: bool
    autocommit: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lending = Lock()  # held to begin with a connection, and to part with it: another thread may want it

    @property
    def pooled(self) -> bool:
        # One without a database is for CREATE DATABASE and DROP DATABASE, and is not kept.
        return self.alias != NO_DB_ALIAS and self.settings_dict["OPTIONS"].get("pool", True) not in (False, None)

    @property
    def pool(self) -> DjangoPool | None:
        return self._lender or (pools.pool_of(self) if self.pooled else None)

    def close_pool(self) -> None:
        if self.pooled:
            pools.close(self.alias)

    def for_one(self, conn: Any) -> Any:
        """A wrapper for a connection of the pool's alone, to begin its session with: this one is its thread's."""
        settings = {**self.settings_dict, "OPTIONS": {**self.settings_dict["OPTIONS"], "pool": False}}
        wrapper = type(self)(settings, alias=self.alias)
        wrapper.connection = conn
        return wrapper

    # What a driver's wrapper says of itself.

    def configuring(self) -> Callable[[Any], object]:
        """What to do with each new connection of the pool."""
        raise NotImplementedError

    def pool_kwargs(self, params: dict[str, Any]) -> dict[str, Any]:
        """What to connect with, of what Django would."""
        return params

    def named(self, params: dict[str, Any], name: str) -> dict[str, Any]:
        """*params*, and that the server shall know the connection by *name*."""
        return params

    def connect_lent(self, conn_params: Mapping[str, Any]) -> Any:
        """Take a connection from `pool`."""
        raise NotImplementedError

    # Django asks for these.

    def get_new_connection(self, conn_params: Mapping[str, Any]) -> Any:
        if not self.pooled:
            return super().get_new_connection(conn_params)  # type: ignore[misc]
        self._lender = None  # connected anew without `close`: the pool takes the other one back when it is dropped
        while True:
            pool = pools.pool_of(self, conn_params)
            try:
                conn = self.connect_lent(conn_params)
                break
            except errors.PoolClosed:
                if pools.pool_of(self, conn_params) is pool:  # nobody has put another in its place
                    raise
        conn._borrower = ref(self)
        self._lender = conn._pool
        self._baseline = conn._pool.baseline(conn)
        pools.remember(self)
        return conn

    def ensure_connection(self) -> None:
        with self._lending:
            if self._lender is not None and self._was_taken_away(self._lender):
                self.connection = self._lender = None
        super().ensure_connection()  # type: ignore[misc]

    def _close(self) -> Any:
        with self._lending:
            lender, conn = self._lender, self.connection
            if lender is not None:
                self.connection = self._lender = None
        if lender is None or conn is None:
            return super()._close()  # type: ignore[misc]
        if conn._pool is lender:
            with self.wrap_database_errors, suppress(ValueError):  # type: ignore[attr-defined]
                lender.putconn(conn)  # or it has been taken away, at this very moment even
        return None

    def close_if_unusable_or_obsolete(self) -> None:
        """Between requests: give back. Whether it is too old (CONN_MAX_AGE), or broken, is the pool's to see."""
        if self._lender is not None:
            self.close()  # type: ignore[attr-defined]
        else:
            super().close_if_unusable_or_obsolete()  # type: ignore[misc]

    def close_if_health_check_failed(self) -> None:
        """CONN_HEALTH_CHECKS: none is needed, as the pool asks the kernel before it lends."""
        if self._lender is None:
            super().close_if_health_check_failed()  # type: ignore[misc]

    # The pool asks for these.

    @property
    def thread(self) -> int:
        """The one that this wrapper belongs to."""
        return self._thread_ident  # type: ignore[attr-defined,no-any-return]

    def outlives_this_thread(self) -> bool:
        """Whether it may go on to be used when the thread that calls this has ended."""
        return self.thread != get_ident() or self.allow_thread_sharing  # type: ignore[attr-defined]

    def let_go(self, conn: Any, unused: Callable[[], bool]) -> bool:
        """Part with *conn*, from whatever thread, if nothing is lost by it; true when the caller has it to give back.

        *unused* is asked in between two uses: whether the thread that this wrapper belongs to is in neither.
        """
        if self.allow_thread_sharing:  # type: ignore[attr-defined]
            return False
        with self._lending:
            lender = self._lender
            if lender is None or self.connection is not conn or conn._pool is not lender:
                return False
            if not self._nothing_begun(lender) or not unused():
                return False
            self.connection = self._lender = None
            return True

    def forked(self) -> None:
        """This is a child of the process that the connection belongs to."""
        self._lending = Lock()
        if self._lender is None:
            return
        self.connection = self._lender = None
        if self.in_atomic_block:
            self.closed_in_transaction = self.needs_rollback = True

    def _was_taken_away(self, lender: DjangoPool) -> bool:
        """By the pool's `leak_reclaim`, and nothing with it that its user would miss."""
        return self.connection is not None and self.connection._pool is None and self._nothing_begun(lender)

    def _nothing_begun(self, lender: DjangoPool) -> bool:
        """Whether the next query would come to the same on another connection, as far as can be seen."""
        return (
            not self.in_atomic_block
            and self.autocommit == self.settings_dict["AUTOCOMMIT"]
            and lender.at_rest(self.connection, self._baseline)
        )
