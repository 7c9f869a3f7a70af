"""Open-loop load: requests that come at their own rate, whether or not there is room, against the core in virtual time.

Who measures with as many clients as there are answers measures no overload: a client that waits sends nothing. Here the
arrivals are a Poisson process at a multiple of what the connections can do, and nothing slows them down.
"""

import heapq
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

from penstock.core import Close, Core, Open, Priority, Refusal, Settings, Slot, Waiter, Wake

CONNECT_SECONDS = 0.003
CLOSE_SECONDS = 0.001

Hold = Callable[[Random], float]


def constant(seconds: float) -> Hold:
    """Each request holds its connection for as long as the next."""
    return lambda _: seconds


def mixed(random: Random) -> float:
    """Nine quick requests for each slow one, on average: 14.5 ms."""
    return 0.005 if random.random() < 0.9 else 0.1


def exponential(seconds: float) -> Hold:
    """Many are quick and few are slow."""
    return lambda random: random.expovariate(1 / seconds)


def mean(hold: Hold) -> float:
    """Seconds for which a connection is held, on average."""
    random = Random(0)
    return sum(hold(random) for _ in range(20_000)) / 20_000


@dataclass(frozen=True)
class Answer:
    """How one request ended. Times are seconds of the simulation's clock."""

    number: int
    came: float
    ended: float
    held: float  # 0 when it was refused
    wanted: float  # within this much of its coming
    refusal: Refusal | None
    priority: Priority

    @property
    def seconds(self) -> float:
        return self.ended - self.came

    @property
    def useful(self) -> bool:
        return self.refusal is None and self.seconds <= self.wanted


@dataclass(frozen=True)
class Phase:
    """What became of the requests of a stretch of time."""

    answers: list[Answer]
    connection_seconds: float  # that there were to be had
    useful_connection_seconds: float  # that went into answers in time

    @property
    def useful_share_of_capacity(self) -> float:
        """In connection-seconds, not in answers: so it does not matter who drew the quick ones."""
        return self.useful_connection_seconds / self.connection_seconds

    @property
    def useful_share(self) -> float:
        """Of all requests."""
        return share(self.answers, lambda answer: answer.useful)

    @property
    def accepted(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.refusal is None]

    @property
    def refused(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.refusal is not None]

    @property
    def refusals(self) -> Counter[Refusal | None]:
        return Counter(answer.refusal for answer in self.refused)

    def of(self, priority: Priority) -> list[Answer]:
        return [answer for answer in self.answers if answer.priority is priority]


def share(answers: list[Answer], which: Callable[[Answer], bool]) -> float:
    """How many of all; 0 of none."""
    return sum(map(which, answers)) / len(answers) if answers else 0.0


def percentile(answers: list[Answer], of_hundred: float) -> float:
    """Of the seconds that they took; 0 of none."""
    ranked = sorted(answer.seconds for answer in answers)
    return ranked[math.ceil(of_hundred / 100 * len(ranked)) - 1] if ranked else 0.0


@dataclass
class OpenLoad:
    """A core under load. `run` it; then ask about stretches of time with `between`.

    :ivar wanted: seconds within which an answer is useful.
    :ivar declared: whether the core is told so, as a deadline. Otherwise it is told *timeout* only.
    :ivar high: share of requests of high priority.
    :ivar plain: whether the short way without a lock is tried first, as the shells do where nothing more is asked.
    :ivar capacity: requests a second that the connections can do.
    """

    settings: Settings
    hold: Hold
    wanted: float = 0.5
    declared: bool = True
    timeout: float = 30.0
    high: float = 0.0
    plain: bool = True
    seed: int = 1
    answers: list[Answer] = field(default_factory=list)
    served: list[int] = field(default_factory=list)  # in the order in which they were

    def __post_init__(self) -> None:
        self._random = Random(self.seed)
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = count()
        self._now = 0.0
        self.core = Core(self.settings, self._random.random)
        self.capacity = self.settings.max_size / mean(self.hold)

    def run(self, *phases: tuple[float, float]) -> None:
        """*phases*: seconds, and how many times the capacity is asked for in them."""
        self.core.open(self._now)
        self._carry_out()
        end, numbers = 0.0, count()
        for seconds, load in phases:
            at, end, rate = end, end + seconds, self.capacity * load
            while (at := at + self._random.expovariate(rate)) < end:
                self._at(at, self._comes, next(numbers))
        while self._events and self._now <= end + self.timeout:
            self._now, _, event, args = heapq.heappop(self._events)
            event(*args)

    def between(self, start: float, end: float) -> Phase:
        """Those who came then, and what the connections did then."""
        useful = sum(
            max(0.0, min(answer.ended, end) - max(answer.ended - answer.held, start))
            for answer in self.answers
            if answer.useful
        )
        came = [answer for answer in self.answers if start <= answer.came < end]
        return Phase(came, self.settings.max_size * (end - start), useful)

    # ------------------------------------------------------------------------------------------ events

    def _at(self, at: float, event: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self._events, (max(at, self._now), next(self._order), event, args))

    def _comes(self, number: int) -> None:
        priority = Priority.HIGH if self._random.random() < self.high else Priority.NORMAL
        slot = self.core.take(number, None, -1, self._now) if self.plain else None
        if slot is not None:
            return self._lent(slot, number, self._now, priority)
        deadline = self._now + (self.wanted if self.declared else self.timeout)
        until = deadline if self.declared else math.inf
        waiter = Waiter(number, None, -1, self._now, deadline, priority, until)
        self._tell(self.core.acquire, waiter)
        if not waiter.settled:
            self._at(deadline, self._expires, waiter)
        return None

    def _expires(self, waiter: Waiter) -> None:
        if not waiter.settled:
            self._tell(self.core.expire, waiter)

    def _gives_back(self, slot: Slot, answer: Answer) -> None:
        self.answers.append(answer)
        if not self.plain or not self.core.give(slot, self._now):
            self._tell(self.core.requite, slot)

    def _ticks(self) -> None:
        due = self.core.tick(self._now)
        self._carry_out()
        if due < math.inf:
            self._at(due, self._ticks)

    def _tell(self, event: Callable[..., object], *args: Any) -> None:
        event(*args, now=self._now)
        self._carry_out()

    def _carry_out(self) -> None:
        for effect in self.core.effects():
            match effect:
                case Waiter():
                    self._settled(effect)
                case Open(slot=slot):
                    self._at(self._now + CONNECT_SECONDS, self._tell, self.core.opened_slot, slot)
                case Close(slot=slot):
                    self._at(self._now + CLOSE_SECONDS, self._tell, self.core.closed_slot, slot)
                case Wake() if not self.answers:  # until all are open: afterwards nothing is due but deadlines
                    self._at(effect.at, self._ticks)

    def _settled(self, waiter: Waiter) -> None:
        number, priority = waiter.owner, Priority(waiter.priority)
        if waiter.slot is not None:
            self._lent(waiter.slot, number, waiter.since, priority)
        else:
            answer = Answer(number, waiter.since, self._now, 0.0, self.wanted, waiter.refusal, priority)
            self.answers.append(answer)

    def _lent(self, slot: Slot, number: int, came: float, priority: Priority) -> None:
        held = self.hold(self._random)
        answer = Answer(number, came, self._now + held, held, self.wanted, None, priority)
        self.served.append(number)
        self._at(answer.ended, self._gives_back, slot, answer)
