"""What the core keeps account of: slots, each one connection's place below the limit, and the waiters for them."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable
from enum import Enum
from types import CodeType
from typing import Any

from .durations import BUCKETS


class _Slow(Enum):
    SLOW = "slow statements"


SLOW = _Slow.SLOW  # the key of those who would keep all connections from the quick: they never have the last one


class State(Enum):
    """The one owner that a slot has at any moment."""

    OPENING = "opening"
    IDLE = "idle"
    LEASED = "leased"
    CLOSING = "closing"
    GONE = "gone"  # no owner: the slot has left the pool


class Reason(Enum):
    """Why a connection was closed. Logs, metrics and errors all use these words."""

    EXPIRED = "past max_lifetime"
    UNUSED = "idle for max_idle"
    DEAD = "found closed by the server"
    BROKEN = "returned broken"
    BUSY = "returned while a statement was running"
    UNCLEAN = "could not be reset"
    CHECK_FAILED = "failed its check"
    DRAINED = "drained"
    SURPLUS = "above max_size after a resize"
    OVERFLOW = "above pool_size"
    NEVER_OPEN = "could not be opened"
    POOL_CLOSED = "pool closed"
    DROPPED = "its holder dropped it"
    ABANDONED = "its holder ended without returning it"
    RECLAIMED = "held idle past leak_after"
    READ_ONLY = "turned read-only"
    STANDBY = "of a standby, and was to write"
    OUT_OF_TOUCH = "out of touch with the fleet"
    THEIRS = "closed by its own pool"  # which is not ours, and does not tell why


class Refusal(Enum):
    """Why a waiter was sent away without a connection."""

    NOT_OPEN = "not open"
    CLOSED = "closed"
    TIMEOUT = "timeout"
    QUEUE_FULL = "queue full"
    UNAVAILABLE = "unavailable"
    DEADLOCK = "deadlock"
    OVERLOADED = "overloaded"


class Slot:
    """One connection's place below the limit; it outlives no connection and is never reused.

    The core reads and writes the accounting; `conn`, `key`, `probe`, `baseline` and `ref` are the shell's.
    """

    __slots__ = (
        "baseline",
        "bound",
        "by_hand",
        "code",
        "conn",
        "dropped",
        "expires",
        "held",
        "key",
        "lasted",
        "lasti",
        "lent",
        "noted_held",
        "noted_uses",
        "number",
        "overdue",
        "owner",
        "probe",
        "proven",
        "ref",
        "reported",
        "retire",
        "shared",
        "since",
        "started",
        "state",
        "tenant",
        "uses",
    )

    def __init__(self, number: int, started: float) -> None:
        self.number = number
        self.state = State.OPENING
        self.started = started
        self.expires = math.inf
        self.retire = Reason.EXPIRED  # what `expires` stands for once it has passed
        self.overdue = False  # still opening past its deadline, which was counted as a failure already
        self.proven = False  # it was fit for use at least once
        # The lease: who holds it, since when, and where it was taken (code object and instruction: the line number is
        # worked out only when somebody asks, which makes taking note of it almost free).
        self.owner: Any = None
        self.since = math.nan  # leased: taken then; idle: given back then
        self.code: CodeType | None = None
        self.lasti = -1
        self.tenant: Any = None  # the key that it was asked for under
        self.shared = False  # others may join those who have it,
        self.lent = math.nan  # since then: each answer moves `since`
        self.bound = False  # its transactions have limits of this lease's own
        self.by_hand: Any = None  # who took it with getconn(), so that nothing but their care gives it back
        self.dropped = False  # nobody refers to its connection any more: it is about to be taken back
        self.reported = False  # as a suspected leak
        self.uses = 0
        self.held = 0.0  # seconds, all uses together
        self.lasted = [0] * BUCKETS  # uses by how long each was, but for the short ones, which are the rest
        self.noted_uses = 0  # of both, what `admission` has taken note of
        self.noted_held = 0.0
        # The shell's. `conn` is empty while leased, so that a handle its holder drops can be seen to go.
        self.conn: Any = None
        self.key = 0
        self.probe: Any = None
        self.baseline: Any = None
        self.ref: Any = None

    def __repr__(self) -> str:
        return f"<Slot {self.number} {self.state.value}>"


class Waiter:
    """Somebody who waits for a connection; settled once `slot` or `refusal` is set.

    *deadline*: until when it waits. *until*: when the answer itself is wanted, if that was declared.
    """

    __slots__ = (
        "aside",
        "came",
        "code",
        "deadline",
        "declared",
        "forecast",
        "key",
        "lane",
        "lasti",
        "owner",
        "priority",
        "queues",
        "refusal",
        "shares",
        "since",
        "slot",
        "ticket",
        "until",
        "verdict",
        "waited",
        "wake",
    )

    def __init__(
        self,
        owner: Any,
        code: CodeType | None,
        lasti: int,
        since: float,
        deadline: float,
        priority: int = 1,
        until: float = math.inf,
        key: Hashable = None,
    ) -> None:
        self.owner = owner
        self.code = code
        self.lasti = lasti
        self.since = since
        self.deadline = deadline
        self.priority = priority
        self.until = until
        self.declared = until < math.inf
        self.key = key
        self.queues = True  # or one is opened for it, where none is kept
        self.shares = False  # it needs no connection for itself: one that is lent to others who share will do
        self.waited = 0.0  # seconds, in the queue
        self.slot: Slot | None = None
        self.refusal: Refusal | None = None
        self.verdict: Any = None  # what was known of the database when it was refused
        self.forecast: Any = None  # why it was shed
        # The queue's: where it stands, and which turn it has.
        self.lane: OrderedDict[Waiter, None] | None = None
        self.ticket = 0
        self.came = 0
        self.aside = False
        self.wake: Any = None  # the shell's: a lock or a future

    @property
    def settled(self) -> bool:
        return self.slot is not None or self.refusal is not None
