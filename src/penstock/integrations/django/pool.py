"""One pool for each alias, in each process: made when first asked for, and anew when its settings have changed."""

from __future__ import annotations

import difflib
import inspect
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures.thread import _worker
from functools import partial
from threading import Lock
from types import CodeType
from typing import Any, NoReturn
from weakref import WeakSet

from django.core.exceptions import ImproperlyConfigured  # type: ignore[import-untyped]
from django.db import OperationalError  # type: ignore[import-untyped]

from ... import errors
from ...core import Slot, Waiter
from ...drivers.base import Status
from ...pool import registry
from ...pool.holders import report
from ...pool.sync import Pool, _nothing
from ...pool.terms import Terms, Wish
from ..caller import caller

MARK = "django:"  # what the server knows our connections by: django:<alias>:<pid>:<host>
MAX_SIZE = 4  # as psycopg's own pool
_NAME_BYTES = 63  # that PostgreSQL keeps of application_name

_LOOK_AGAIN = 0.02  # seconds, while somebody waits

_pools: dict[str, DjangoPool] = {}
_lock = Lock()  # held to put a pool in its place; nothing waits for the database under it
_borrowers: WeakSet[Any] = WeakSet()  # database wrappers that have been lent a connection


class DjangoPool(Pool[Any]):
    """A pool whose holders are the lines that asked Django, and whose errors are Django's as well as ours."""

    made_of: object = None  # the settings

    def getconn(self, *args: Any, **kwargs: Any) -> Any:
        wish, (code, lasti) = self._wish(*args, **kwargs) if args or kwargs else None, caller(sys._getframe(1))
        return self._getconn(wish, code, lasti)

    def _getconn(self, wish: Wish | None, code: CodeType, lasti: int) -> Any:
        try:
            return super()._getconn(wish, code, lasti)
        except errors.PoolError as error:
            _raise_as_django_s(error)

    def baseline(self, conn: Any) -> object:
        """What a lent connection was like before its session was touched."""
        return self._slot_of(conn).baseline

    def at_rest(self, conn: Any, baseline: object) -> bool:
        """Whether nothing would be lost if its holder were given another one: no transaction, nothing set."""
        return self._driver.status(conn) is Status.IDLE and not self._driver.touched(conn, baseline)

    def _arrive(self, wish: Wish | None, code: CodeType, lasti: int) -> Terms:
        """Under a declared deadline a request may be refused at once: what idle workers hold is had before that."""
        if self._core.leased >= self._core.max_size:
            for conn in self._parted_with():
                self.putconn(conn)
        return super()._arrive(wish, code, lasti)

    def _bind(self, slot: Slot, conn: Any, terms: Terms) -> None:
        """The lease outlives the block that it began in: a request's, or for ever an executor's thread's.

        So nothing of the block may hold for the connection's later transactions, neither its deadline nor that it only
        reads.
        """
        super()._bind(slot, conn, Terms(origin=terms.origin))

    def _wait_for(self, waiter: Waiter, timeout: float, again: bool) -> Slot:
        if self._core.leased >= self._core.max_size:
            self._tell(_nothing)  # the keeper looks round at once
        return super()._wait_for(waiter, timeout, again)

    def _watch_holders(self, now: float) -> float:
        """While somebody waits, workers that have nothing to do need not hold what they do not use."""
        due = super()._watch_holders(now)
        if not self._core.waiters:
            return due
        for conn in self._parted_with():
            if not self._spawn(self.putconn, conn):
                self.putconn(conn)
        return min(due, now + _LOOK_AGAIN)

    def _parted_with(self) -> Iterator[Any]:
        """What workers that have nothing to do have held until now, to be given back."""
        for slot in self._core.leases():
            conn, borrower = _borrower(slot)
            if borrower is not None and borrower.let_go(conn, partial(_has_nothing_to_do, borrower)):
                yield conn

    def report(self) -> str:
        """Who holds what, by the line of code."""
        return report(self.holders())

    def _holder_ended(self, owner: Any) -> None:
        """In the thread that ends. Django does not give back then; what is at rest can be, and need not be closed."""
        for slot in self._core.leases() if not self._core.closed else ():  # as it is at the interpreter's exit
            conn, borrower = _borrower(slot) if slot.by_hand is owner else (None, None)
            if borrower is None:
                continue
            if borrower.outlives_this_thread():
                slot.by_hand = _nobody_s()  # the wrapper's from now on, and free when that is dropped
            elif borrower.let_go(conn, _always):
                self.putconn(conn)
        super()._holder_ended(owner)


def _borrower(slot: Slot) -> tuple[Any, Any]:
    """A connection in somebody's hands, and the wrapper that borrowed it; nothing when it is not in one's."""
    conn = slot.ref() if slot.ref is not None else None
    borrower = getattr(conn, "_borrower", None)
    return conn, None if borrower is None else borrower()


def _nobody_s() -> registry.Token:
    token = registry.Token()
    token.ended = True
    return token


def _has_nothing_to_do(borrower: Any) -> bool:
    """Whether the thread of a wrapper is an executor's, between two pieces of work.

    Executors never tell anybody when a piece of work ends, and Django gives back at the ends of requests only.
    """
    frame = sys._current_frames().get(borrower.thread)
    return frame is not None and frame.f_code is _worker.__code__


def _always() -> bool:
    return True


def opened() -> Mapping[str, DjangoPool]:
    return {alias: pool for alias, pool in _pools.items() if not pool.closed}


def pool_of(wrapper: Any, params: Mapping[str, Any] | None = None) -> DjangoPool:
    """The pool of a wrapper's alias. With *params*, those to connect with now: one that connects with just these.

    Settings do change in a process: tests come with a database of their own, and so does each clone of it.
    """
    pool = _pools.get(wrapper.alias)
    if pool is not None and params is None:
        return pool
    params = wrapper.get_connection_params() if params is None else params
    made_of = _made_of(wrapper, params)
    if pool is not None and pool.made_of == made_of:
        return pool
    new = _make(wrapper, params)
    new.made_of = made_of
    with _lock:
        pool = _pools.get(wrapper.alias)
        if pool is not None and pool.made_of == made_of:  # another thread was first
            return pool
        new.open()
        _pools[wrapper.alias] = new
    if pool is not None:
        pool.close(timeout=0)  # what it has lent is closed when it comes back
    return new


def close(alias: str) -> None:
    with _lock:
        pool = _pools.pop(alias, None)
    if pool is not None:
        pool.close()


def sizes(wrapper: Any) -> str:
    """What the settings of an alias come to, in words. The pool is made to know them; it connects to nothing."""
    if not wrapper.pooled:
        return "no pool: a connection for each thread"
    pool = _make(wrapper, wrapper.get_connection_params())
    most = "its share of the fleet's" if pool.fleet() is not None else pool.max_size
    return f"{pool.min_size} to {most} connections, for which a request waits {pool.timeout:g} s at most"


def remember(wrapper: Any) -> None:
    _borrowers.add(wrapper)


def _forget_in_child() -> None:
    """After a fork: what the parent's wrappers hold is the parent's."""
    global _lock
    _lock = Lock()
    for wrapper in list(_borrowers):
        wrapper.forked()


os.register_at_fork(after_in_child=_forget_in_child)


def _made_of(wrapper: Any, params: Mapping[str, Any]) -> object:
    options = dict(wrapper.settings_dict["OPTIONS"])
    if isinstance(options.get("pool"), Mapping):
        options["pool"] = dict(options["pool"])
    return dict(params), options, wrapper.timezone_name


def _make(wrapper: Any, params: Mapping[str, Any]) -> DjangoPool:
    options = _options(wrapper)
    service = options.pop("budget", None)
    make: Callable[..., DjangoPool] = DjangoPool if service is None else partial(DjangoPool.from_budget, service)
    if service is None and "min_size" not in options:
        # Every `manage.py` command is a process of its own: with psycopg's four it would open four and use one.
        options = {"min_size": 0, "max_size": MAX_SIZE} | options
    own = wrapper.for_one(None)  # never connected: this one is its thread's, and would be kept with what it holds
    options["configure"] = _both(own.configuring(), options.get("configure"))
    named = service is not None or options.get("fleet") is not None  # its connections have names already
    given = own.pool_kwargs(dict(params))
    kwargs = given if named else lambda: own.named(given, connection_name(own.alias))
    try:
        return make(
            **{"conninfo": "", "name": f"django:{wrapper.alias}", "driver": wrapper.pool_driver} | options,
            kwargs=kwargs,
            open=False,
        )
    except (TypeError, ValueError, ImportError) as error:
        raise ImproperlyConfigured(f'DATABASES[{wrapper.alias!r}]["OPTIONS"]["pool"]: {error}') from error


def _options(wrapper: Any) -> dict[str, Any]:
    given = wrapper.settings_dict["OPTIONS"].get("pool", True)
    if given is True:
        return {}
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured(
            f'DATABASES[{wrapper.alias!r}]["OPTIONS"]["pool"] must be True, False, or a dictionary of options of'
            f" penstock.Pool, not {given!r}"
        )
    for taken in ("kwargs", "open", "conninfo", "driver", "connection_class"):
        if taken in given:
            raise ImproperlyConfigured(
                f'DATABASES[{wrapper.alias!r}]["OPTIONS"]["pool"] cannot have {taken!r}: Django\'s own settings say'
                " where and how to connect"
            )
    known = inspect.signature(Pool).parameters.keys() | {"budget"}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            raise ImproperlyConfigured(
                f'DATABASES[{wrapper.alias!r}]["OPTIONS"]["pool"]: penstock.Pool has no option {name!r}'
                + (f": did you mean {near[0]!r}?" if near else "")
            )
    return dict(given)


def _both(first: Callable[[Any], object], then: Callable[[Any], object] | None) -> Callable[[Any], None]:
    def configure(conn: Any) -> None:
        first(conn)
        if then is not None:
            then(conn)

    return configure


def connection_name(alias: str) -> str:
    """What the server shows of a connection of this process, to tell which process has how many."""
    return f"{MARK}{alias}:{os.getpid()}:{platform.node()}"[:_NAME_BYTES]


def _raise_as_django_s(error: errors.PoolError) -> NoReturn:
    """Django would make an OperationalError of its own of it, of which nothing but the text is left."""
    kind = next(base for base in type(error).__mro__ if base.__module__ == errors.__name__ and base in _KINDS)
    cause = error.__cause__
    raise errors.under(kind, OperationalError)(*error.args).with_traceback(error.__traceback__) from cause


_KINDS = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.PoolError)}
