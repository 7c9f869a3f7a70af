"""What `Pool` and `AsyncPool` have in common: their face, their arithmetic, their words. No waiting of any kind."""

from __future__ import annotations

import itertools
import logging
import math
import os
import random
import sys
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from inspect import iscoroutinefunction
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NoReturn, Self, TypeVar
from weakref import ref

from .. import errors
from ..core import (
    LONG,
    SLOW,
    Close,
    Core,
    Forecast,
    Multiplex,
    Overload,
    Priority,
    Reason,
    Refusal,
    Settings,
    Slot,
    Verdict,
    Waiter,
)
from ..core.settings import check_count, check_seconds, check_sizes
from ..drivers import for_url, load
from ..drivers.base import Driver, Status
from . import events, registry
from .holders import OTHER, CallSite, Holder, call_site, report, statement_text
from .membership import Fleet, FleetState, Membership
from .profile import NOTHING, Glance, Profile
from .snapshot import Snapshot, counters, measures, snapshot
from .steps import Kit
from .terms import Terms, Wish, declared

if TYPE_CHECKING:
    from ..budget import Budget

C = TypeVar("C")
E = TypeVar("E", bound=errors.PoolError)

logger = logging.getLogger("penstock.pool")

LINGER = 1.0  # seconds for which a closed connection keeps its slot while the server has not let go of it
NO_LINGER = (Reason.DEAD, Reason.BROKEN, Reason.DROPPED)  # it has let go already, or there is nothing to watch
CLEAN_SECONDS = 5.0  # for the rollback and reset of a returned connection; then it is cut off
LONGEST_SLEEP = 3600.0  # of whoever looks after the pool, when nothing is due

_LEAK_SITES = 100  # lines of code whose leaks are counted apart
_LOG_SECONDS = 10.0  # between two lines about failing to connect
_REPORT_SECONDS = 0.1  # for which a report is shared by all who time out together: it must not make them late


class BasePool(Generic[C]):
    """See `penstock.Pool` and `penstock.AsyncPool`."""

    _is_async: ClassVar[bool]
    _numbers = itertools.count(1)
    _clock = staticmethod(monotonic)
    _max_opening: int | None = None  # for who takes `num_workers` at its word
    _fleet_of: ClassVar[Callable[[Budget, str], Fleet] | None] = None  # told by penstock.fleet, which stands above
    _profile_of: ClassVar[Callable[[BasePool[Any]], Profile] | None] = None  # likewise by penstock.observe

    def __init__(
        self,
        conninfo: str | Callable[[], Awaitable[str] | str] = "",
        *,
        driver: str | Driver = "psycopg",
        connection_class: type[C] | None = None,
        kwargs: Mapping[str, Any] | Callable[[], Awaitable[Mapping[str, Any]] | Mapping[str, Any]] | None = None,
        min_size: int = 4,
        max_size: int | Literal["auto"] | None = None,
        open: bool | None = None,
        configure: Callable[[C], Awaitable[None] | None] | None = None,
        check: Callable[[C], Awaitable[None] | None] | None = None,
        reset: Callable[[C], Awaitable[None] | None] | None = None,
        name: str | None = None,
        close_returns: bool = False,
        timeout: float = 30.0,
        max_waiting: int = 0,
        max_lifetime: float = 3600.0,
        max_idle: float = 600.0,
        reconnect_timeout: float = 300.0,
        reconnect_failed: Callable[[Any], Awaitable[None] | None] | None = None,
        num_workers: int = 3,
        connect_timeout: float = 5.0,
        statement_timeout: float | None = None,
        idle_in_transaction_timeout: float | None = None,
        leak_after: float | None = 60.0,
        leak_reclaim: bool = False,
        nested: Literal["allow", "warn", "raise"] = "allow",
        overload: Overload | None = None,
        reserve: int = 0,
        max_per_key: int | None = None,
        multiplex: Multiplex | None = None,
        fleet: Fleet | None = None,
    ) -> None:
        """See the class. Connects to nothing yet, unless *open* says so.

        :raises ValueError: (or TypeError) naming the argument, what was found and what it may be.
        """
        self._auto = max_size == "auto"
        if fleet is not None:
            _check_fleet(fleet, reserve)
            max_size = sys.maxsize if max_size is None or max_size == "auto" else max_size  # the fleet knows
        elif max_size == "auto":
            raise ValueError(_LONELY)
        self._sizes = (min_size, min_size if max_size is None else max_size)  # as asked: a fleet has its own mind
        settings = Settings(
            min_size=min_size,
            max_size=self._sizes[1],
            max_waiting=max_waiting,
            max_lifetime=max_lifetime,
            max_idle=max_idle,
            reconnect_timeout=reconnect_timeout,
            connect_timeout=connect_timeout,
            overload=overload,
            reserve=reserve,
            max_per_key=max_per_key,
            max_opening=self._max_opening,
        )
        check_seconds("timeout", timeout)
        if leak_after is not None:
            check_seconds("leak_after", leak_after)
        if nested not in ("allow", "warn", "raise"):
            raise ValueError(f"nested must be 'allow', 'warn' or 'raise', not {nested!r}")
        check_count("num_workers", num_workers, at_least=1)
        if multiplex is not None and not isinstance(multiplex, Multiplex):
            raise TypeError(f"multiplex must be a penstock.Multiplex, not {multiplex!r}")
        self._check_source("conninfo", conninfo, str)
        self._check_source("kwargs", {} if kwargs is None else kwargs, Mapping)
        hooks = {"configure": configure, "check": check, "reset": reset, "reconnect_failed": reconnect_failed}
        for which, hook in hooks.items():
            self._check_hook(which, hook)
        self._driver = load(driver, connection_class, self._is_async)
        if isinstance(conninfo, str):
            self._driver.check_conninfo(conninfo)

        self._number = next(self._numbers)
        self.name = name or f"pool-{self._number}"
        self.timeout = timeout
        self.close_returns = close_returns
        self.num_workers = num_workers
        self.reconnect_failed = reconnect_failed
        self._leak_after = leak_after
        self._leak_reclaim = leak_reclaim
        self._nested = nested
        self._multiplex = multiplex or Multiplex()
        self._kit = Kit(
            name=self.name,
            driver=self._driver,
            conninfo=conninfo,
            kwargs=kwargs,
            configure=configure,
            check=check,
            reset=reset,
            connect_timeout=connect_timeout,
            settings=_server_settings(self._driver, statement_timeout, idle_in_transaction_timeout),
        )
        self._fleet = fleet
        self._state = self._driver.state
        self._core = Core(settings, random.random, self._handed_on)
        self._listeners: tuple[tuple[Callable[[Any], object], tuple[type[events.Event], ...]], ...] = ()
        self._tells_leases = False  # to somebody, of each
        self._tells_waits = self._tells_long = False  # of those that were waited for, of those held for long
        self._plain = False  # nothing is asked of a checkout but a connection: the short way will do
        self._opened_implicitly = open is None
        self._update_plain()
        self._slots_by_id: dict[int, Slot] = {}
        self._base: dict[str, int] = {}  # counters when they were last popped
        self._since = self._clock()  # they count
        self._report: tuple[float, list[Holder]] = (-math.inf, [])
        self._leaks: Counter[CallSite] = Counter()  # reported
        self._failures_unlogged: int | None = None  # since the last line about them; None while connecting succeeds
        self._failing_since = self._failure_logged_at = -math.inf
        self._reopen = False  # in a forked child: the parent's pool was open, so the first use opens this one
        self._start_anew()
        self._join()
        registry.register(self)
        if open is not False:
            self._open_at_once()

    @classmethod
    def from_budget(
        cls, service: str, *, path: str | os.PathLike[str] | None = None, environment: str | None = None, **options: Any
    ) -> Self:
        """A pool for one process of *service*, as penstock.toml has it: named after it, as large as its share.

        Where its database says ``fleet = true`` the share follows need, and is agreed on with the other processes.

        Where to connect comes from the `url` of its database, or of the pooler that it goes through, and so does the
        driver: psycopg, or for mysql:// and mariadb:// PyMySQL, aiomysql for an AsyncPool. It keeps
        `min_size` connections open, 4 unless its share is smaller. The file is read and nobody is asked.

        :param service: its name in the file.
        :param path: the file; by default PENSTOCK_TOML, else the nearest penstock.toml, or pyproject.toml with
            [tool.penstock], from the working directory upwards.
        :param environment: which of the file's environments; by default PENSTOCK_ENV, else none.
        :param options: as the pool's own, and they win; a `max_size` or `min_size` above the share is an error.
        :raises BudgetError: when the file is wrong, does not say what is needed, or does not fit.
        :raises TypeError: when *service* is no text.
        """
        from .. import budget  # here, because most programs have no file and need not load what reads it

        if not isinstance(service, str):
            raise TypeError(f"service must be the name of a service in the budget file, got {type(service).__name__}")
        found = budget.load(path, environment)
        share = budget.static_share(found, service)
        declared = found.services[service]
        if declared.through is None and found.databases[declared.database].fleet:
            assert cls._fleet_of is not None, "bug: nobody knows of fleets"
            options.setdefault("fleet", cls._fleet_of(found, service))
            share = declared.max or budget.fleet_budget(found, declared.database) or share
        if options.get("max_size") is None:
            options["max_size"] = share
        max_size = options["max_size"]
        for size in ("max_size", "min_size"):
            given = options.get(size)
            if isinstance(given, int) and given > share:
                what = f"{size} is {given}, and the share of each of its processes is {share}"
                raise errors.BudgetError(
                    errors.Problem(found.path, found.line("services", service), f"services.{service}", what)
                )
        if "conninfo" not in options:
            where = ("databases", declared.database) if declared.through is None else ("poolers", declared.through)
            options["conninfo"] = budget.conninfo(found, *where)
        options.setdefault("driver", for_url(options["conninfo"], cls._is_async))
        options.setdefault("min_size", min(4, max_size if type(max_size) is int and max_size > 0 else share))
        options.setdefault("name", service)
        return cls(**options)

    def __repr__(self) -> str:
        core = self._core
        state = "closed" if core.closed else "open" if core.opened else "not open"
        return (
            f"<{type(self).__module__}.{type(self).__name__} {self.name!r}, {state}: {len(core.idle)} idle,"
            f" {core.leased} leased, {len(core.opening)} opening, {core.closing} closing, {len(core.waiters)} waiting,"
            f" at most {core.max_size}>"
        )

    # ------------------------------------------------------------------------------------------ what can be asked

    @property
    def conninfo(self) -> str | Callable[[], Awaitable[str] | str]:
        """What is connected to, or who says so; what is assigned counts for connections opened from then on."""
        return self._kit.conninfo

    @conninfo.setter
    def conninfo(self, value: str | Callable[[], Awaitable[str] | str]) -> None:
        self._check_source("conninfo", value, str)
        if isinstance(value, str):
            self._driver.check_conninfo(value)
        self._kit.conninfo = value

    @property
    def kwargs(self) -> Mapping[str, Any] | Callable[[], Awaitable[Mapping[str, Any]] | Mapping[str, Any]] | None:
        """Arguments to connect with, or who says so; what is assigned counts for connections opened from then on."""
        return self._kit.kwargs

    @kwargs.setter
    def kwargs(
        self, value: Mapping[str, Any] | Callable[[], Awaitable[Mapping[str, Any]] | Mapping[str, Any]] | None
    ) -> None:
        self._check_source("kwargs", {} if value is None else value, Mapping)
        self._kit.kwargs = value

    @property
    def min_size(self) -> int:
        """Connections kept open."""
        return self._core.min_size

    @property
    def max_size(self) -> int:
        """Connections never exceeded, those that are opening or closing included."""
        return self._core.max_size

    @property
    def max_waiting(self) -> int:
        """Callers that may wait for a connection at once; 0 for any number."""
        return self._core.max_waiting

    @max_waiting.setter
    def max_waiting(self, value: int) -> None:
        check_count("max_waiting", value, at_least=0)
        self._core.max_waiting = value

    @property
    def max_lifetime(self) -> float:
        """Seconds after which a connection is replaced; each lives up to a tenth less, by chance."""
        return self._core.max_lifetime

    @max_lifetime.setter
    def max_lifetime(self, value: float) -> None:
        check_seconds("max_lifetime", value)
        self._core.max_lifetime = value

    @property
    def max_idle(self) -> float:
        """Seconds after which an unused connection above `min_size` is closed; 0: as it comes back."""
        return self._core.max_idle

    @max_idle.setter
    def max_idle(self, value: float) -> None:
        check_seconds("max_idle", value)
        self._core.keep_idle(value)

    @property
    def reconnect_timeout(self) -> float:
        """Seconds of failed attempts to connect after which the pool stops trying until somebody asks."""
        return self._core.pace.reconnect_timeout

    @reconnect_timeout.setter
    def reconnect_timeout(self, value: float) -> None:
        check_seconds("reconnect_timeout", value)
        self._core.pace.reconnect_timeout = value

    @property
    def closed(self) -> bool:
        """True before `open` and after `close`."""
        return self._core.closed or not self._core.opened

    def snapshot(self) -> Snapshot:
        """Every figure of the pool at this moment."""
        profile = NOTHING if self._profile_of is None else self._profile_of()
        return snapshot(self.name, self._core, self._clock(), self._since, self._leaks, profile)

    def get_stats(self) -> dict[str, int]:
        """The pool's figures under the names of psycopg's pool; counters since the last `pop_stats`."""
        now = self.snapshot()
        since = {key: value - self._base.get(key, 0) for key, value in counters(now).items()}
        return since | measures(now)

    def pop_stats(self) -> dict[str, int]:
        """As `get_stats`; the counters begin anew afterwards."""
        stats = self.get_stats()
        self._base = counters(self.snapshot())
        return stats

    def holders(self) -> list[Holder]:
        """Who holds which connection, the longest first: where it was taken, what is done with it, where they stand."""
        now = self._clock()
        held = [self._holder(slot, now) for slot in self._core.leases() if slot.owner is not None]
        return sorted((holder for holder in held if holder is not None), key=lambda holder: -holder.held)

    def fleet(self) -> FleetState | None:
        """What is known of the fleet whose budget this pool has a share of; None if it has no `fleet`."""
        return None if self._membership is None else self._membership.state()

    def listen(self, callback: Callable[[Any], object], *kinds: type[events.Event]) -> Callable[[], None]:
        """Call *callback* with each `penstock.events.Event` from now on; returns what ends that.

        It is called where the event happens, outside any lock, and should return soon. One that raises is logged once
        and called no more.

        :param kinds: classes of events that it is called with; every event by default. Each checkout takes longer
            while somebody wants `Acquired` or `Returned`, and no longer for any other, `Waited` and `HeldLong` too.
        :raises TypeError: when *callback* cannot be called, or one of *kinds* is no class of events.
        """
        if not callable(callback):
            raise TypeError(f"callback must be a function that takes an event, not {callback!r}")
        for kind in kinds:
            if not (isinstance(kind, type) and issubclass(kind, events.Event)):
                raise TypeError(f"kinds must be classes of penstock.events, not {kind!r}")
        self._set_listeners((*self._listeners, (callback, kinds or (events.Event,))))
        return partial(_stop_listening, ref(self), callback)  # who keeps it does not keep the pool

    def reclaim(self, site: CallSite) -> None:
        """Take back what was taken at *site* and reported as a suspected leak, as `leak_reclaim` does: in a moment.

        From any thread. Whoever holds it gets the driver's error at the next use.
        """
        self._tell(lambda: self._reclaim(site))

    # psycopg_pool keeps its idle connections and its queue under these names; its tests, and tools made for it, look.

    @property
    def _pool(self) -> list[Any]:
        return [slot.conn for slot in self._core.idle]

    @property
    def _waiting(self) -> list[Waiter]:
        return list(self._core.waiters)

    @property
    def _nconns(self) -> int:
        return len(self._core.slots) - self._core.closing

    # ------------------------------------------------------------------------------------------ for the shells

    def _start_anew(self) -> None:
        """Make whatever belongs to one process, or to one event loop."""
        raise NotImplementedError

    def _join(self) -> None:
        """Take a place in the fleet, if there is one: a process of its own in a forked child."""
        self._membership: Membership | None = None
        if self._fleet is not None:
            self._membership = self._kit.door = self._fleet.join(self)
            self._kit.settings = {**self._kit.settings, **self._membership.settings}

    def _open_at_once(self) -> None:
        """From the constructor."""
        raise NotImplementedError

    def _owner_name(self, owner: Any) -> str:
        raise NotImplementedError

    def _owner_stack(self, owner: Any) -> tuple[CallSite, ...]:
        raise NotImplementedError

    def _event(self, event: Callable[..., object], *args: Any, **options: Any) -> None:
        """Tell the core of an event, and do what it says."""
        raise NotImplementedError

    def _tell(self, call: Callable[[], object]) -> None:
        """Have *call* run by whoever looks after the pool. Safe from a finalizer: takes no lock."""
        raise NotImplementedError

    def _cut_off(self, conn: Any, deadline: float) -> AbstractContextManager[None]:
        """Should the block last past *deadline*, its connection's traffic is ended, and the block with an error."""
        raise NotImplementedError

    def _handed_on(self, slots: Collection[Slot]) -> bool:
        """Whether somebody other than its owner, who waits, has the connection of one of these leases in hand."""
        return any(map(self._is_handed_on, slots))

    def _is_handed_on(self, slot: Slot) -> bool:
        conn = slot.ref() if slot.by_hand is not None and slot.ref is not None else None
        return conn is not None and self._driver.status(conn) is Status.ACTIVE

    def _holder_ended(self, owner: Any) -> None:
        raise NotImplementedError

    def _change_sizes(self, min_size: int, max_size: int) -> None:
        if self._membership is None:
            self._event(self._core.resize, min_size, max_size)
            return
        check_sizes(min_size, max_size)
        self._sizes = (min_size, max_size)
        self._membership.resize(min_size, max_size)

    def _after_fork(self) -> None:
        """In a forked child: leave the parent's connections alone and start anew, with none, at the next request."""
        core = self._core
        for slot in core.slots.values():
            conn = slot.conn if slot.conn is not None else slot.ref and slot.ref()
            slot.ref = None
            slot.uses += 1  # whoever holds it in the child holds it no more, and finds out at the end of the block
            if conn is not None:
                self._driver.silence(conn)
        self._core = Core(core.settings(), random.random, self._handed_on)
        self._core.closed = core.closed
        self._slots_by_id = {}
        self._base = {}
        self._since = self._clock()
        self._leaks.clear()
        self._reopen = core.opened and not core.closed
        self._start_anew()
        self._join()

    def _is_over(self) -> bool:
        """Whether it was closed, or its event loop was."""
        raise NotImplementedError

    def _renew_if_over(self) -> None:
        """For an application that starts again: a pool that is over is as before it was opened."""
        if self._is_over():
            self._after_fork()
            self._core.closed = self._reopen = False

    def _at_exit(self) -> None:
        raise NotImplementedError

    def _update_plain(self) -> None:
        kit = self._kit
        # The short way goes without the lock, which is safe only where threads run one at a time (see `core.machine`).
        one_at_a_time = getattr(sys, "_is_gil_enabled", bool)() or not hasattr(sys, "_is_gil_enabled")
        self._plain = (
            one_at_a_time
            and kit.check is None
            and kit.reset is None
            and self._nested == "allow"
            and not self._tells_leases
            and not self._opened_implicitly
        )

    @staticmethod
    def _check_source(name: str, value: object, kind: type) -> None:
        """What is found is not shown: it may be a secret."""
        if not isinstance(value, kind) and not callable(value):
            what = "a string" if kind is str else "a mapping"
            raise TypeError(f"{name} must be {what} or a function that returns one, not a {type(value).__name__}")

    def _check_hook(self, which: str, hook: Any) -> None:
        if hook is None:
            return
        if not callable(hook):
            raise TypeError(f"{which} must be a function, not {hook!r}")
        if iscoroutinefunction(hook) and not self._is_async:
            raise TypeError(f"{which} of a Pool must be a plain function, not the coroutine function {hook!r}")

    def _warn_opened_implicitly(self, site: CallSite) -> None:
        self._forget_implicit_opening()
        kind = type(self).__name__
        warnings.warn_explicit(
            f"{self.name}: the {kind} was opened by its constructor without being asked to; say open=True or"
            f" open=False, or use it as a context manager: `with {kind}(...) as pool:`",
            DeprecationWarning,
            site.file,
            site.line,
        )

    def _forget_implicit_opening(self) -> None:
        self._opened_implicitly = False
        self._update_plain()

    def _settle_in(self, slot: Slot, conn: Any, baseline: Any) -> None:
        """The slot has a connection now. Its reference is weak, and kept apart from `conn`, to see a dropped one go."""
        slot.conn = conn
        slot.baseline = baseline
        slot.probe = self._driver.probe(conn)
        pool = ref(self)

        def gone(_: object) -> None:
            slot.dropped = True  # before anybody asks who holds it
            keeper = pool()
            if keeper is not None:
                keeper._tell(lambda: keeper._take_back(slot, Reason.DROPPED))

        slot.ref = ref(conn, gone)
        slot.key = id(conn)
        self._slots_by_id[slot.key] = slot

    def _move_out(self, slot: Slot) -> None:
        if self._slots_by_id.get(slot.key) is slot:
            del self._slots_by_id[slot.key]
        slot.conn = slot.probe = slot.baseline = slot.ref = None

    def _slot_of(self, conn: Any) -> Slot:
        """The slot of a connection that is being returned.

        :raises ValueError: when it is not this pool's to take.
        """
        slot = self._slots_by_id.get(id(conn))
        known = slot is not None and slot.ref is not None and slot.ref() is conn
        if slot is not None and known and slot.conn is None:
            return slot
        owner = getattr(conn, "_pool", None)
        if known:
            why = "it was returned already: return a connection once, and forget it then"
        elif owner is not None and owner is not self:
            why = f"it comes from pool {owner.name!r}: return it there"
        elif hasattr(conn, "_pool"):
            why = "it was returned already, or taken back from a holder that had ended, and is closed since"
        else:
            why = "it doesn't come from any pool"
        raise ValueError(f"can't return connection to pool {self.name!r}, {why}: {conn}")

    def _take_back(self, slot: Slot, reason: Reason) -> None:
        raise NotImplementedError

    def _warn_taken_back(self, site: CallSite, reason: Reason) -> None:
        message = f"{self.name}: took back a connection taken at {site}: {reason.value}"
        logger.warning(message)
        try:
            warnings.warn_explicit(message, ResourceWarning, site.file, site.line)
        except ResourceWarning:
            pass  # turned into an error; this is nobody's call that could fail
        self._emit(events.TakenBack(self.name, site, reason))

    def _was_reclaimed(self) -> Exception:
        """For a block whose connection was taken away: what it did is lost, and must not be so in silence."""
        return self._driver.operational_error(
            f"{self.name}: the connection was taken back from this block, idle in hand past"
            f" leak_after={self._leak_after} s: nothing of it was committed"
        )

    def _never_settled(self) -> Exception:
        """For a block that ends while its statement still runs: what it did is lost, and must not be so in silence."""
        return self._driver.operational_error(
            f"{self.name}: a block ended while a statement of its own was still running: nothing of it was committed,"
            " and the connection is closed. Read its results to their end first"
        )

    # ------------------------------------------------------------------------------------------ what is asked

    def _wish(
        self, timeout: float | None, priority: Priority | None, deadline: float | None, key: Hashable
    ) -> Wish | None:
        """What a request asks beyond a connection. None: nothing, which is quicker.

        :raises ValueError: (or TypeError) naming the argument, what was found and what it may be.
        """
        if timeout is None and priority is None and deadline is None and key is None:
            return None
        if timeout is not None:
            check_seconds("timeout", timeout)
        if deadline is not None:
            check_seconds("deadline", deadline)
        if priority is not None and not isinstance(priority, Priority):
            raise TypeError(f"priority must be a penstock.Priority, not {priority!r}")
        try:
            hash(key)
        except TypeError:
            raise TypeError(f"key must be hashable, not {key!r}") from None
        now = self._clock()
        until = math.inf if deadline is None else now + deadline
        return Wish(timeout, now, until, Priority.NORMAL if priority is None else priority, key)

    def _waiter(self, owner: Any, wish: Wish | None, code: Any, lasti: int, since: float) -> Waiter:
        terms = declared()
        if wish is None and terms is None:
            return Waiter(owner, code, lasti, since, since + self.timeout)
        wish = wish or NO_WISH
        until = _terms(wish, terms).until
        latest = since + (self.timeout if wish.timeout is None else wish.timeout)
        return Waiter(owner, code, lasti, since, min(latest, until), wish.priority, until, wish.key)

    def _arrive(self, wish: Wish | None, code: Any, lasti: int) -> Terms:
        """What counts for the lease that somebody comes for.

        :raises Overloaded: when the answer would come too late however soon there was a connection.
        """
        terms = _terms(wish or NO_WISH, declared())
        if terms.until == math.inf or self.closed:
            return terms
        now = self._clock()
        spare = wish is not None and wish.priority is Priority.HIGH
        forecast = self._core.admission.comes_late(terms.since, terms.until, spare, now)
        if forecast is not None:
            waiter = Waiter(None, code, lasti, now, terms.until)
            waiter.forecast = forecast
            self._event(self._core.turn_away, waiter)
            self._refuse(waiter, 0.0)
        return terms

    def _bind(self, slot: Slot, conn: Any, terms: Terms) -> None:
        """The lease has begun."""
        self._note_lent(slot, terms)
        if terms.reading or terms.until < math.inf:
            slot.bound = True
            self._driver.bind(conn, terms.until, terms.reading)

    def _note_lent(self, slot: Slot, terms: Terms) -> None:
        """For whomever the work is done for."""
        if terms.origin is not None:
            terms.origin.was_lent(slot, self)

    def _goes_as_it_is(self, slot: Slot, conn: Any) -> bool:
        """Whether a connection that comes back need not be reset: it is to be closed, and nobody will see it."""
        return self._core.is_unwanted(slot) and self._driver.status(conn) is Status.IDLE

    def _unbind(self, slot: Slot, conn: Any) -> None:
        if slot.bound:
            slot.bound = False
            self._driver.unbind(conn)

    # ------------------------------------------------------------------------------------------ saying no

    def _refuse(self, waiter: Waiter, timeout: float) -> NoReturn:
        self._emit_refused(waiter)
        if waiter.refusal is Refusal.OVERLOADED:  # under overload there are thousands: no words before somebody reads
            raise noted(self._overloaded(waiter.forecast))
        verdict = waiter.verdict or self._core.verdict()
        kind, message = self._refusal(waiter, timeout, verdict)
        raise noted(errors.under(kind, self._driver.operational_error)(message)) from verdict.error

    def _refusal(self, waiter: Waiter, timeout: float, verdict: Verdict) -> tuple[type[errors.PoolError], str]:
        core, name = self._core, self.name
        match waiter.refusal:
            case Refusal.NOT_OPEN:
                return errors.PoolClosed, f"the pool {name!r} is not open yet: call open(), or use it in a `with`"
            case Refusal.CLOSED:
                return errors.PoolClosed, f"the pool {name!r} is already closed"
            case Refusal.QUEUE_FULL:
                return errors.TooManyRequests, (
                    f"{name}: {len(core.waiters)} requests are waiting already, and max_waiting is {core.max_waiting}"
                )
            case Refusal.DEADLOCK:
                return errors.PoolDeadlock, (
                    f"{name}: this would wait for ever. All {core.max_size - core.reserve} connections"
                    f"{' beside the reserve' if core.reserve else ''} are held by"
                    f" {'tasks' if self._is_async else 'threads'} that wait for another one, this one included."
                    f" Use the connection in hand instead of a second one, or allow more:\n{report(self.holders())}"
                )
            case Refusal.UNAVAILABLE:
                return errors.DatabaseUnavailable, self._unavailable(verdict)
            case _:
                return self._timed_out(waiter, timeout)

    def _overloaded(self, forecast: Forecast) -> errors.Overloaded:
        kind = errors.under(errors.Overloaded, self._driver.operational_error)
        return kind(self.name, *forecast, self._hint())

    def _hint(self) -> str | None:
        """What somebody should know who wonders why there is not enough."""
        if self._core.paused:
            return "The pool is paused"
        if self._membership is not None and (why := self._membership.state().hint):
            return why
        if self._core.pace.error:
            return f"Connecting fails: {one_line(self._core.pace.error)}"
        holders = self._recent_holders()
        if holders and self._core.admission.is_slow(holders[0].held):
            return f"Held longest: by {holders[0].site}, for {holders[0].held:.1f} s"
        return None

    def _unavailable(self, verdict: Verdict) -> str:
        now = self._clock()
        if verdict.hung:
            what = "the database does not answer"
        elif verdict.lost:
            what = "the database ends the connections that it gives"
        elif verdict.unfit:
            what = "the database gives connections that fail their check"
        elif isinstance(verdict.error, self._driver.operational_error):
            what = "the database refuses connections"
        else:
            what = "no connection can be made"
        return (
            f"{self.name}: {what}, for {now - verdict.since:.1f} s now, last tried"
            f" {max(0.0, now - verdict.tried_at):.1f} s ago: {one_line(verdict.error)}"
        )

    def _not_filled(self, timeout: float) -> errors.PoolError:
        core = self._core
        hint = self._membership.state().hint if self._membership is not None else None
        why = f": {one_line(core.pace.error)}" if core.pace.error else f" (fleet: {hint})" if hint else ""
        return errors.under(errors.PoolTimeout, self._driver.operational_error)(
            f"{self.name}: {len(core.idle)} of {core.min_size} connections are idle after {timeout:g} sec,"
            f" {len(core.opening)} are being opened; the pool is closed{why}"
        )

    def _timed_out(self, waiter: Waiter, timeout: float) -> tuple[type[errors.PoolError], str]:
        core = self._core
        start = f"{self.name}: couldn't get a connection after {timeout:.2f} sec"
        if core.paused:
            return errors.PoolTimeout, f"{start}: the pool is paused"
        if core.has_its_share(waiter.key):
            share = f"key {waiter.key!r} holds {core.max_per_key}, all that max_per_key allows"
            if waiter.key is SLOW:
                share = f"slow statements hold {core.share_of(SLOW)}, and the last one is kept for the quick"
            return errors.PoolExhausted, f"{start}: {share}\n{report(self._recent_holders())}"
        if core.reserve and waiter.priority != Priority.HIGH and core.leased >= core.max_size - core.reserve:
            held = f"{core.leased} of {core.max_size} are held, and {core.reserve} kept in reserve for Priority.HIGH"
            return errors.PoolExhausted, f"{start}: {held}\n{report(self._recent_holders())}"
        fleet = f" (fleet: {hint})" if (state := self.fleet()) is not None and (hint := state.hint) else ""
        if core.leased < core.max_size:
            why = f": {one_line(core.pace.error)}" if core.pace.error else fleet
            opening = f"{core.leased} of {core.max_size} are held, {len(core.opening)} are being opened"
            return errors.PoolTimeout, f"{start}: {opening}{why}"
        held = f"all {core.max_size} are held, {len(core.waiters)} more requests wait{fleet}"
        return errors.PoolExhausted, f"{start}: {held}\n{report(self._recent_holders())}"

    def _recent_holders(self) -> list[Holder]:
        made, holders = self._report
        if self._clock() - made > _REPORT_SECONDS:
            holders = self.holders()
            self._report = (self._clock(), holders)
        return holders

    def _check_nested(self, owner: Any, code: Any, lasti: int) -> None:
        held = [slot for slot in self._core.leases() if slot.owner == owner] if owner is not None else []
        if not held:
            return
        first = call_site(held[0].code, held[0].lasti)
        message = f"{self.name}: {call_site(code, lasti)} asks for a connection while {first} holds one"
        if self._nested == "raise":
            raise errors.under(errors.NestedCheckout, self._driver.operational_error)(message)
        logger.warning(message)

    # ------------------------------------------------------------------------------------------ watching holders

    def _holder(self, slot: Slot, now: float) -> Holder | None:
        conn = slot.conn if slot.conn is not None else slot.ref and slot.ref()
        owner = slot.owner
        if conn is None or owner is None:
            return None
        status = self._driver.status(conn)
        activity = self._driver.activity(conn)
        return Holder(
            site=call_site(slot.code, slot.lasti),
            held=now - slot.since,
            idle=None if status is Status.ACTIVE else now - max(slot.since, activity.ended),
            statement=statement_text(activity.statement) if activity.started >= slot.since else None,
            status=status.value,
            owner=self._owner_name(owner),
            stack=self._owner_stack(owner),
            suspected=slot.reported,
        )

    def _glances(self) -> list[Glance]:
        """What is out now. From any thread, and many times a second: it asks nothing of the connections themselves."""
        found = [self._glance(slot) for slot in self._core.leases()]
        return [glance for glance in found if glance is not None]

    def _glance(self, slot: Slot) -> Glance | None:
        conn = slot.ref() if slot.ref is not None else None
        if conn is None or slot.owner is None:
            return None
        activity = self._driver.activity(conn)
        return Glance(slot.code, slot.lasti, activity.started <= activity.ended, activity.statement)

    def _watch_holders(self, now: float) -> float:
        """Report who has held a connection idle for too long, once each; when to look again."""
        if self._leak_after is None:
            return math.inf
        due = now + max(self._leak_after, 0.1)
        for slot in self._core.leases():
            conn = slot.ref() if slot.ref is not None else None
            if conn is None or slot.owner is None or slot.reported or self._driver.status(conn) is Status.ACTIVE:
                continue
            leaks_at = max(slot.since, self._driver.activity(conn).ended) + self._leak_after
            holder = self._holder(slot, now) if leaks_at <= now else None
            if holder is not None:
                self._report_leak(slot, holder)
            else:
                due = min(due, leaks_at)
        return due

    def _report_leak(self, slot: Slot, holder: Holder) -> None:
        slot.reported = True
        site = holder.site if holder.site in self._leaks or len(self._leaks) < _LEAK_SITES else OTHER
        self._leaks[site] += 1
        logger.warning("%s: is this a leak? %s", self.name, holder)
        self._emit(events.LeakSuspected(self.name, holder))
        if self._leak_reclaim:
            self._take_back(slot, Reason.RECLAIMED)

    def _reclaim(self, site: CallSite) -> None:
        for slot in self._core.leases():
            if slot.reported and call_site(slot.code, slot.lasti) == site:
                self._take_back(slot, Reason.RECLAIMED)

    def _outlived(self, slot: Slot, request: str) -> None:
        """*request* is over, and what it was lent is not back."""
        holder = self._holder(slot, self._clock())
        if holder is not None:
            logger.warning("%s: a connection outlives its request, %s: taken at %s", self.name, request, holder)
            self._emit(events.OutlivedRequest(self.name, holder, request))

    def _came_back(self, slot: Slot, now: float) -> None:
        slot.reported = False
        site = call_site(slot.code, slot.lasti)
        logger.warning("%s: came back after all, after %.1f s: taken at %s", self.name, now - slot.since, site)
        self._emit(events.CameBack(self.name, site, now - slot.since))

    # ------------------------------------------------------------------------------------------ telling listeners

    def _emit(self, event: events.Event) -> None:
        for callback, kinds in self._listeners:
            if not isinstance(event, kinds):
                continue
            try:
                callback(event)
            except (Exception, SystemExit):
                logger.exception("%s: a listener raised and is dropped: %r", self.name, callback)
                self._stop_listening(callback)

    def _stop_listening(self, callback: Callable[[Any], object]) -> None:
        self._set_listeners(tuple(listener for listener in self._listeners if listener[0] is not callback))

    def _set_listeners(
        self, listeners: tuple[tuple[Callable[[Any], object], tuple[type[events.Event], ...]], ...]
    ) -> None:
        self._listeners = listeners
        wanted = [kinds for _, kinds in listeners]
        self._tells_leases = any(
            issubclass(each, kinds) for each in (events.Acquired, events.Returned) for kinds in wanted
        )
        self._tells_waits = any(issubclass(events.Waited, kinds) for kinds in wanted)
        self._tells_long = any(issubclass(events.HeldLong, kinds) for kinds in wanted)
        self._update_plain()

    def _emit_acquired(self, slot: Slot, waited: float, queued: bool) -> None:
        if self._tells_leases or (queued and self._tells_waits):
            kind = events.Waited if queued else events.Acquired
            self._emit(kind(self.name, call_site(slot.code, slot.lasti), waited))

    def _emit_returned(self, slot: Slot, held: float) -> None:
        long = held > LONG
        if self._tells_leases or (long and self._tells_long):
            kind = events.HeldLong if long else events.Returned
            self._emit(kind(self.name, call_site(slot.code, slot.lasti), held))

    def _emit_refused(self, waiter: Waiter) -> None:
        if self._listeners and waiter.refusal is not None:
            site = call_site(waiter.code, waiter.lasti)
            self._emit(events.Refused(self.name, site, waiter.refusal, self._clock() - waiter.since))

    def _log_opened(self, slot: Slot, seconds: float) -> None:
        logger.info("%s: opened a connection in %.3f s", self.name, seconds)
        if self._failures_unlogged is not None:
            since, self._failures_unlogged = self._failing_since, None
            logger.warning("%s: connected again, after %.1f s", self.name, self._clock() - since)
        self._emit(events.Opened(self.name, seconds))

    def _log_failed(self, error: BaseException, seconds: float) -> None:
        if self._core.closed:
            return  # given up with the pool
        self._log_failure(one_line(error), seconds)
        self._emit(events.ConnectFailed(self.name, error, seconds))
        drop_frames(error)

    def _log_failure(self, error: str, seconds: float) -> None:
        """The first at once, then one line for all in a while: a database that is down fails thirty times a second."""
        now = self._clock()
        if self._failures_unlogged is None:
            self._failing_since, self._failures_unlogged, self._failure_logged_at = now, 0, -math.inf
        self._failures_unlogged += 1
        if now - self._failure_logged_at < _LOG_SECONDS:
            return
        many = f" ({self._failures_unlogged} times)" if self._failures_unlogged > 1 else ""
        self._failures_unlogged, self._failure_logged_at = 0, now
        logger.warning("%s: connecting failed after %.3f s%s: %s", self.name, seconds, many, error)

    def _log_closed(self, effect: Close, shown: str) -> None:
        bad = effect.reason in (Reason.BROKEN, Reason.BUSY, Reason.UNCLEAN)
        logger.log(logging.WARNING if bad else logging.INFO, "%s: closed %s: %s", self.name, shown, effect.reason.value)
        self._emit(events.Closed(self.name, effect.reason))

    def _log_gave_up(self) -> None:
        logger.warning(
            "%s: gave up connecting after %g s of failures: no reconnection attempt until a connection is asked for",
            self.name,
            self.reconnect_timeout,
        )
        self._emit(events.GaveUp(self.name, self._core.pace.error))

    def _log_still_out(self) -> None:
        holders = self.holders()
        if holders:
            logger.warning(
                "%s: closed with %d connections still out; each is closed when it comes back\n%s",
                self.name,
                len(holders),
                report(holders),
            )


def _stop_listening(pool: ref[BasePool[Any]], callback: Callable[[Any], object]) -> None:
    listening = pool()
    if listening is not None:
        listening._stop_listening(callback)


_NO_TERMS = Terms()
NO_WISH = Wish(None, -math.inf, math.inf, Priority.NORMAL, None)


def _terms(wish: Wish, terms: Terms | None) -> Terms:
    """What counts of both: the earlier deadline."""
    terms = terms or _NO_TERMS
    return terms if terms.until <= wish.until else Terms(wish.since, wish.until, terms.reading, terms.origin)


def noted(error: E) -> E:
    """The refusal, which whomever the work is done for knows of from now on."""
    terms = declared()
    if terms is not None and terms.origin is not None:
        terms.origin.refusal = error
    return error


_LONELY = (
    'max_size="auto" needs fleet=penstock.Fleet(budget): the best size is found for all processes together, within'
    " what is declared. Pools that each look for their own take one another's load for the database's, and take it down"
)


def _check_fleet(fleet: Any, reserve: int) -> None:
    if not callable(getattr(fleet, "join", None)):
        raise TypeError(f"fleet must be a penstock.Fleet, not {fleet!r}")
    if reserve:
        raise ValueError(f"reserve ({reserve}) must be 0 where there is a fleet: a share may be as small as one")


def one_line(error: BaseException | None) -> str:
    if error is None:
        return "no error known"
    text = " ".join([*str(error).split(), *(f"({note})" for note in getattr(error, "__notes__", ()))])
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def drop_frames(error: BaseException | None) -> None:
    """An error that is kept must not keep what its frames refer to, a half-open connection among it."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _server_settings(
    driver: Driver, statement_timeout: float | None, idle_in_transaction_timeout: float | None
) -> Mapping[str, str]:
    given = {"statement_timeout": statement_timeout, "idle_in_transaction_timeout": idle_in_transaction_timeout}
    for argument, seconds in given.items():
        if seconds is not None:
            check_seconds(argument, seconds)
            if math.isinf(seconds):
                raise ValueError(f"{argument} must be a finite number of seconds, or None for no such limit")
    return driver.limits(statement_timeout, idle_in_transaction_timeout)
