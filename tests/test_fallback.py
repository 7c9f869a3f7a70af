"""What readers are told when there is no connection to be had."""

import asyncio
import contextvars
import gc
import logging
import os
import pickle
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import FrozenInstanceError
from functools import partial
from typing import Any

import psycopg
import pytest

import penstock
from penstock import AsyncPool, DatabaseUnavailable, Pool, PoolError, PoolTimeout, TooManyRequests, errors
from penstock.drill.postgres import EmbeddedPostgres
from penstock.drill.proxy import ChaosProxy
from penstock.fallback import Answer, AsyncFallback, Fallback, Redis, Snapshot, Unavailable
from penstock.fallback import base as fallback_base
from penstock.fallback.policy import PAUSE, Do, Health, Limits, decide
from penstock.fallback.trouble import Trouble, trouble
from support import virtual
from support.either import ask, borrowed, opened, settled
from support.redis import RedisServer
from support.virtual import VirtualLoop
from support.waiting import aside, eventually, soon

Kind = type[Fallback] | type[AsyncFallback]
Server = Callable[..., EmbeddedPostgres]

each = pytest.mark.parametrize("kind", [Fallback, AsyncFallback])
down = errors.under(DatabaseUnavailable, psycopg.OperationalError)
busy = errors.under(PoolTimeout, psycopg.OperationalError)


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Source:
    """What is read: gives *value*, or raises *error*, after the gate is open. For threads and for asyncio."""

    def __init__(self, kind: Kind, value: Any = "one") -> None:
        self.value = value
        self.error: BaseException | None = None
        self.asked = 0
        self.gate = threading.Event()
        self.gate.set()
        self._is_async = kind is AsyncFallback

    def __call__(self) -> Any:
        return self._later() if self._is_async else self._now()

    def _now(self) -> Any:
        self.asked += 1
        assert self.gate.wait(10)
        return self._result()

    async def _later(self) -> Any:
        self.asked += 1
        await soon(self.gate.is_set, 10)
        return self._result()

    def _result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


def made(kind: Kind, **options: Any) -> tuple[Any, Source, Clock]:
    """A fallback on a clock of its own: fresh for 5 s, standing in until 60 s."""
    fallback, clock = kind(**{"fresh": 5.0, "stale": 60.0} | options), Clock()
    fallback._clock = clock  # type: ignore[method-assign,assignment]
    return fallback, Source(kind), clock


def reads(fallback: Any, key: str, load: Any, **limits: float) -> "asyncio.Future[Answer[Any]]":
    """A reader of its own, in a thread or in a task."""
    if isinstance(fallback, AsyncFallback):
        return asyncio.ensure_future(fallback.get(key, load, **limits))
    return asyncio.wrap_future(aside(lambda: fallback.get(key, load, **limits)))


# ---------------------------------------------------------------------------------------------- what is decided


@pytest.mark.parametrize(
    ("age", "is_down", "resting", "do"),
    [
        (None, False, False, Do.LOAD),
        (None, False, True, Do.LOAD),  # busy is not down: it waits its turn, as without a cache
        (None, True, False, Do.TRY),
        (None, True, True, Do.REFUSE),
        (0.0, True, True, Do.ANSWER),
        (4.9, False, False, Do.ANSWER),
        (5.0, False, False, Do.TRY),
        (5.0, False, True, Do.ANSWER),
        (60.0, True, True, Do.ANSWER),
        (60.1, True, True, Do.REFUSE),
        (60.1, False, False, Do.LOAD),
    ],
)
def test_what_a_reader_is_told(age: float | None, is_down: bool, resting: bool, do: Do) -> None:
    assert decide(age, Limits(5, 60), down=is_down, resting=resting) is do


def test_the_database_is_down_when_the_pool_says_so_or_two_connections_in_a_row_were_lost() -> None:
    health = Health()
    health.failed(down(), Trouble.DOWN, 0)
    assert health.down
    health.worked()
    assert not health.down
    health.failed(OSError(), Trouble.LOST, 0)
    assert not health.down
    health.failed(OSError(), Trouble.LOST, 0)
    assert health.down
    health.worked()
    health.failed(OSError(), Trouble.LOST, 0)
    health.failed(busy(), Trouble.BUSY, 0)
    health.failed(OSError(), Trouble.LOST, 0)
    assert not health.down


def test_after_a_failure_only_one_tries_in_each_pause() -> None:
    health = Health()
    assert not health.resting(0)
    health.failed(busy(), Trouble.BUSY, 0)
    assert health.resting(PAUSE - 0.01)
    assert not health.resting(PAUSE)
    health.trying(PAUSE)
    assert health.resting(PAUSE + 0.01)
    health.worked()
    assert not health.resting(PAUSE + 0.01)


class Wrapped(Exception):
    """As SQLAlchemy wraps what its driver raises."""

    def __init__(self, orig: Exception) -> None:
        self.orig = orig


class Mine(Exception):
    pass


def from_driver(name: str) -> Exception:
    error: Exception = getattr(psycopg.errors, name)("of the driver")
    return error


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (down("down"), Trouble.DOWN),
        (busy("late"), Trouble.BUSY),
        (errors.PoolExhausted("all are held"), Trouble.BUSY),
        (errors.Overloaded("shop", retry_after=2.5), Trouble.BUSY),
        (errors.under(TooManyRequests, psycopg.OperationalError)("too many"), Trouble.BUSY),
        (Unavailable(), Trouble.BUSY),
        (from_driver("TooManyConnections"), Trouble.BUSY),
        (from_driver("QueryCanceled"), Trouble.SLOW),
        (from_driver("AdminShutdown"), Trouble.LOST),
        (from_driver("CannotConnectNow"), Trouble.LOST),
        (from_driver("ConnectionFailure"), Trouble.LOST),
        (psycopg.OperationalError("server closed the connection unexpectedly"), Trouble.LOST),
        (Wrapped(psycopg.OperationalError("the connection is lost")), Trouble.LOST),
        (errors.PoolClosed("closed"), None),
        (errors.under(errors.PoolDeadlock, psycopg.OperationalError)("for ever"), None),
        (errors.NestedCheckout("nested"), None),
        (errors.WrongEventLoop("wrong"), None),
        (from_driver("ReadOnlySqlTransaction"), None),
        (from_driver("UniqueViolation"), None),
        (from_driver("UndefinedTable"), None),
        (from_driver("SerializationFailure"), None),
        (from_driver("DeadlockDetected"), None),
        (from_driver("LockNotAvailable"), None),
        (psycopg.InterfaceError("the cursor is closed"), None),
        (Wrapped(from_driver("UndefinedColumn")), None),
        (ConnectionRefusedError("of another service"), None),
        (TimeoutError("of another service"), None),
        (Mine("of the program"), None),
    ],
    ids=lambda value: value.name if isinstance(value, Trouble) else type(value).__name__,
)
def test_which_errors_mean_that_there_was_no_connection(error: Exception, what: Trouble | None) -> None:
    assert trouble(error) is what


# ---------------------------------------------------------------------------------------------- one reader


@each
def test_a_fresh_value_is_not_loaded_again_and_an_older_one_is(kind: Kind) -> None:
    async def scenario() -> None:
        fallback, source, clock = made(kind)
        assert await settled(fallback.get("k", source)) == Answer("one", 0.0, False)
        source.value = "two"
        clock.now += 4
        assert await settled(fallback.get("k", source)) == Answer("one", 4.0, False)
        clock.now += 1
        assert await settled(fallback.get("k", source)) == Answer("two", 0.0, False)
        assert source.asked == 2

    asyncio.run(scenario())


@each
def test_nothing_is_a_value_too(kind: Kind) -> None:
    async def scenario() -> None:
        fallback, source, _ = made(kind)
        source.value = None
        for _ in range(2):
            assert (await settled(fallback.get("k", source))).value is None
        assert source.asked == 1

    asyncio.run(scenario())


@each
def test_limits_may_be_those_of_one_read(kind: Kind) -> None:
    async def scenario() -> None:
        fallback, source, clock = made(kind)
        await settled(fallback.get("k", source))
        clock.now += 2
        assert (await settled(fallback.get("k", source))).age == 2
        assert (await settled(fallback.get("k", source, fresh=1.0))).age == 0
        source.error = down("down")
        clock.now += 50
        assert (await settled(fallback.get("k", source))).stood_in
        with pytest.raises(Unavailable):
            await settled(fallback.get("k", source, stale=10.0))

    asyncio.run(scenario())


@each
def test_the_last_good_value_stands_in_until_it_is_too_old(kind: Kind) -> None:
    async def scenario() -> None:
        fallback, source, clock = made(kind)
        await settled(fallback.get("k", source))
        for error in (busy("late"), from_driver("AdminShutdown"), down("down")):
            source.error = error
            clock.now += 6
            assert await settled(fallback.get("k", source)) == Answer("one", clock.now - 1000, True)
        clock.now = 1060
        assert (await settled(fallback.get("k", source))).stood_in
        clock.now += 0.1
        with pytest.raises(Unavailable):
            await settled(fallback.get("k", source))

    asyncio.run(scenario())


@each
def test_what_the_program_does_wrong_is_never_hidden(kind: Kind) -> None:
    """Neither from the reader whose load it was, nor from the next: the value is forgotten."""

    async def scenario() -> None:
        fallback, source, clock = made(kind)
        await settled(fallback.get("k", source))
        clock.now += 6
        for error in (Mine("a bug"), Mine("again")):
            source.error = error
            with pytest.raises(Mine) as caught:
                await settled(fallback.get("k", source))
            assert caught.value is error
        source.error = down("down")
        with pytest.raises(Unavailable):
            await settled(fallback.get("k", source))

    asyncio.run(scenario())


@each
def test_a_refusal_is_fit_for_a_web_layer(kind: Kind) -> None:
    """Status, Retry-After in whole seconds, a sentence for an end user; the pool's error only as the cause."""

    async def scenario() -> None:
        fallback, source, _ = made(kind)
        source.error = errors.Overloaded("shop", retry_after=2.2)
        with pytest.raises(Unavailable) as caught:
            await settled(fallback.get("secret-key", source))
        error = caught.value
        assert (error.status, error.retry_after, error.headers) == (503, 2.2, {"Retry-After": "3"})
        assert str(error) == "Temporarily unavailable. Please try again in 3 seconds."
        assert error.__cause__ is source.error
        assert isinstance(error, PoolError)
        assert pickle.loads(pickle.dumps(error)).retry_after == 2.2
        source.error = busy("SELECT secret")
        with pytest.raises(Unavailable, match=r"in 1 second\.") as caught:
            await settled(fallback.get("k", source))
        assert caught.value.headers == {"Retry-After": "1"}

    asyncio.run(scenario())


@pytest.mark.parametrize("told", [float("nan"), float("inf"), -1, "soon", None])
def test_a_retry_after_that_makes_no_sense_is_not_passed_on(told: Any) -> None:
    fallback, source, _ = made(Fallback)
    source.error = busy("late")
    source.error.retry_after = told  # type: ignore[attr-defined]
    with pytest.raises(Unavailable) as caught:
        fallback.get("k", source)
    assert caught.value.headers == {"Retry-After": "1"}


@each
def test_while_the_database_is_down_readers_without_a_value_are_refused_at_once_and_one_tries(kind: Kind) -> None:
    async def scenario() -> None:
        fallback, source, clock = made(kind)
        source.error = down("down")
        for key in "abc":
            with pytest.raises(Unavailable) as caught:
                await settled(fallback.get(key, source))
            assert caught.value.__cause__ is source.error
        assert source.asked == 1
        assert fallback.snapshot().down
        clock.now += PAUSE
        for key in "abc":
            with pytest.raises(Unavailable):
                await settled(fallback.get(key, source))
        assert source.asked == 2
        source.error = None
        clock.now += PAUSE
        assert (await settled(fallback.get("a", source))).value == "one"
        assert (await settled(fallback.get("b", source))).value == "one"
        assert not fallback.snapshot().down

    asyncio.run(scenario())


@each
def test_one_that_tries_a_database_that_hangs_is_refused_soon(kind: Kind) -> None:
    async def scenario() -> None:
        fallback, source, clock = made(kind)
        source.error = down("down")
        with pytest.raises(Unavailable):
            await settled(fallback.get("a", source))
        clock.now += PAUSE
        source.error = None
        source.gate.clear()
        started = time.monotonic()
        with pytest.raises(Unavailable):
            await settled(fallback.get("a", source))
        assert time.monotonic() - started < 0.5
        source.gate.set()
        await soon(lambda: fallback.snapshot().entries)
        assert (await settled(fallback.get("a", source))).value == "one"

    asyncio.run(scenario())


@each
def test_one_lost_connection_refuses_nobody_else(kind: Kind) -> None:
    async def scenario() -> None:
        fallback, source, _ = made(kind)
        source.error = from_driver("AdminShutdown")
        with pytest.raises(Unavailable):
            await settled(fallback.get("a", source))
        source.error = None
        assert (await settled(fallback.get("b", source))).value == "one"

    asyncio.run(scenario())


@each
def test_while_the_pool_is_exhausted_only_one_in_a_while_tries_to_renew_a_value(kind: Kind) -> None:
    async def scenario() -> None:
        fallback, source, clock = made(kind)
        await settled(fallback.get("k", source))
        clock.now += 6
        source.error = busy("late")
        for _ in range(10):
            assert (await settled(fallback.get("k", source))).stood_in
        assert source.asked == 2
        clock.now += PAUSE
        source.error = None
        assert not (await settled(fallback.get("k", source))).stood_in

    asyncio.run(scenario())


@each
def test_a_value_is_forgotten_when_it_is_said_to_have_changed(kind: Kind) -> None:
    """Also one that is being loaded: it may have been read before the change."""

    async def scenario() -> None:
        fallback, source, _ = made(kind)
        await settled(fallback.get("k", source))
        await settled(fallback.forget("k"))
        source.gate.clear()
        reader = reads(fallback, "k", source)
        await soon(lambda: source.asked == 2)
        await settled(fallback.forget("k"))
        source.gate.set()
        assert (await reader).value == "one"
        source.value = "two"
        assert (await settled(fallback.get("k", source))).value == "two"

    asyncio.run(scenario())


@each
def test_memory_is_bounded_and_forgets_what_was_unused_the_longest(kind: Kind) -> None:
    async def scenario() -> None:
        fallback, source, _ = made(kind, maxsize=2)
        for key in "abac":
            await settled(fallback.get(key, source))
        assert fallback.snapshot().entries == 2
        assert source.asked == 3
        await settled(fallback.get("a", source))
        assert source.asked == 3
        await settled(fallback.get("b", source))
        assert source.asked == 4

    asyncio.run(scenario())


@each
def test_the_figures(kind: Kind) -> None:
    async def scenario() -> None:
        fallback, source, clock = made(kind, name="prices")
        assert fallback.snapshot() == Snapshot("prices", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, None, False)
        for key in "aab":
            await settled(fallback.get(key, source))
        clock.now += 6
        source.error = down("down")
        for _ in range(3):
            await settled(fallback.get("a", source))
        for _ in range(2):
            with pytest.raises(Unavailable):
                await settled(fallback.get("c", source))
        figures = fallback.snapshot()
        assert figures == Snapshot("prices", 1, 2, 3, 2, 3, 1, 0, 0, 0, 2, 6.0, True)
        with pytest.raises(FrozenInstanceError):
            figures.hits = 0

    asyncio.run(scenario())


def test_failures_are_logged_now_and_then_without_what_they_say(caplog: pytest.LogCaptureFixture) -> None:
    fallback, source, clock = made(Fallback, name="prices")
    source.error = down("postgresql://app:secret@db")
    for _ in range(30):
        clock.now += 0.5
        with pytest.raises(Unavailable):
            fallback.get("k", source)
    lines = [record.getMessage() for record in caplog.records if record.name == "penstock.fallback"]
    assert lines == ["prices: loads fail, the last good values stand in: DatabaseUnavailable"] * 2


# ---------------------------------------------------------------------------------------------- many readers


@each
def test_readers_of_one_key_share_one_load(kind: Kind) -> None:
    async def scenario() -> None:
        fallback, source, _ = made(kind)
        source.gate.clear()
        readers = [reads(fallback, "k", source) for _ in range(20)]
        await soon(lambda: source.asked)
        await asyncio.sleep(0.05)
        source.gate.set()
        assert {answer.value for answer in await asyncio.gather(*readers)} == {"one"}
        assert source.asked == 1
        assert fallback.snapshot().loading == 0

    asyncio.run(scenario())


@each
@pytest.mark.parametrize(("error", "raised"), [(Mine("a bug"), Mine), (busy("late"), Unavailable)])
def test_all_who_share_a_load_share_its_error(kind: Kind, error: Exception, raised: type[Exception]) -> None:
    async def scenario() -> None:
        fallback, source, _ = made(kind)
        source.error = error
        source.gate.clear()
        readers = [reads(fallback, "k", source) for _ in range(10)]
        await soon(lambda: source.asked)
        await asyncio.sleep(0.05)
        source.gate.set()
        results = await asyncio.gather(*readers, return_exceptions=True)
        assert {type(result) for result in results} == {raised}
        assert source.asked == 1
        lines = 0
        traceback = error.__traceback__
        while traceback is not None:
            traceback, lines = traceback.tb_next, lines + 1
        assert lines < 20, "each reader has added its own lines to the traceback"

    asyncio.run(scenario())


def test_a_cancelled_reader_takes_nobody_else_s_load_away() -> None:
    async def scenario() -> None:
        fallback, source, _ = made(AsyncFallback)
        source.gate.clear()
        first, second = reads(fallback, "k", source), reads(fallback, "k", source)
        await soon(lambda: source.asked)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        source.gate.set()
        assert (await second).value == "one"
        assert source.asked == 1

    asyncio.run(scenario())


def test_a_load_that_cancels_itself_ends_its_reader_and_another_one_loads() -> None:
    async def scenario() -> None:
        fallback, source, _ = made(AsyncFallback)
        source.gate.clear()
        first, second = reads(fallback, "k", source), reads(fallback, "k", Source(AsyncFallback, "other"))
        await soon(lambda: source.asked)
        source.error = asyncio.CancelledError()
        source.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await second).value == "other"

    asyncio.run(scenario())


def test_an_interrupted_thread_is_interrupted_and_another_one_loads() -> None:
    fallback, source, _ = made(Fallback)
    source.gate.clear()
    source.error = KeyboardInterrupt()
    first = aside(lambda: fallback.get("k", source))
    eventually(lambda: source.asked)
    second = aside(lambda: fallback.get("k", Source(Fallback, "other")))
    time.sleep(0.05)
    source.gate.set()
    with pytest.raises(KeyboardInterrupt):
        first.result(5)
    assert second.result(5).value == "other"


@each
def test_a_load_that_takes_long_keeps_nobody_waiting_who_can_be_answered(kind: Kind) -> None:
    """It goes on beside them, and its value is the next one's."""

    async def scenario() -> None:
        fallback, source, clock = made(kind)
        await settled(fallback.get("k", source))
        clock.now += 6
        source.value = "two"
        source.gate.clear()
        started = time.monotonic()
        assert await settled(fallback.get("k", source)) == Answer("one", 6.0, True)
        assert 0.02 < time.monotonic() - started < 1
        clock.now += 1  # those who come later do not wait at all
        for _ in range(3):
            assert (await settled(fallback.get("k", source))).stood_in
        source.gate.set()
        await soon(lambda: not fallback.snapshot().loading)
        assert await settled(fallback.get("k", source)) == Answer("two", 0.0, False)
        assert source.asked == 2

    asyncio.run(scenario())


@each
def test_what_the_program_does_wrong_in_a_load_that_nobody_waits_for_is_told_the_next_reader(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        fallback, source, clock = made(kind)
        await settled(fallback.get("k", source))
        clock.now += 6
        source.gate.clear()
        assert (await settled(fallback.get("k", source))).stood_in
        source.error = Mine("a bug")
        source.gate.set()
        await soon(lambda: not fallback.snapshot().loading)
        with pytest.raises(Mine):
            await settled(fallback.get("k", source))
        assert "a load failed of its own accord: Mine" in caplog.text

    asyncio.run(scenario())


@each
def test_loads_beside_readers_are_bounded(kind: Kind) -> None:
    async def scenario() -> None:
        fallback, source, clock = made(kind, patience=0.0)
        for number in range(20):
            await settled(fallback.get(f"k{number}", source))
        clock.now += 6
        source.gate.clear()
        before = threading.active_count()
        for number in range(20):
            assert (await settled(fallback.get(f"k{number}", source))).stood_in
        assert threading.active_count() - before <= fallback_base.TRIES
        assert fallback.snapshot().loading == fallback_base.TRIES
        source.gate.set()
        await soon(lambda: not fallback.snapshot().loading)

    asyncio.run(scenario())


@each
def test_whoever_has_declared_a_deadline_does_not_wait_for_another_reader_beyond_it(kind: Kind) -> None:
    async def scenario() -> None:
        fallback, source = kind(), Source(kind)
        source.gate.clear()
        leader = reads(fallback, "k", source)
        await soon(lambda: source.asked)
        started = time.monotonic()
        with pytest.raises(Unavailable) as caught, penstock.deadline(0.05):
            await settled(fallback.get("k", source))
        assert time.monotonic() - started < 1
        assert isinstance(caught.value.__cause__, PoolTimeout)
        source.gate.set()
        assert (await leader).value == "one"

    asyncio.run(scenario())


@each
def test_a_load_beside_its_reader_has_the_reader_s_context_but_not_its_deadline(kind: Kind) -> None:
    tenant = contextvars.ContextVar("tenant", default="nobody")

    async def scenario() -> None:
        fallback, _, clock = made(kind)
        tenant.set("acme")

        def load() -> Any:
            terms = penstock.pool.terms.declared()
            assert terms is not None
            assert terms.reading
            return tenant.get(), terms.until

        with penstock.deadline(60):
            inner = (await settled(fallback.get("k", load))).value
            assert inner[0] == "acme"
            assert inner[1] < float("inf")
            clock.now += 6
            assert (await settled(fallback.get("k", load))).value == ("acme", float("inf"))

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(100))
def test_whatever_fails_hangs_or_is_cancelled_every_reader_is_told_and_no_key_is_loaded_twice_at_once(
    seed: int,
) -> None:
    """In virtual time, in an order drawn from the seed."""
    dice = random.Random(seed)
    loading: set[str] = set()

    async def load(key: str) -> float:
        assert key not in loading
        loading.add(key)
        try:
            await asyncio.sleep(dice.choice([0, 0.01, 0.1, 3]))
            if error := dice.choice(
                [None, None, None, down("down"), busy("late"), psycopg.OperationalError("lost"), Mine()]
            ):
                raise error
            return asyncio.get_running_loop().time()
        finally:
            loading.discard(key)

    async def reader(fallback: AsyncFallback) -> None:
        for _ in range(20):
            key = dice.choice("abc")
            fresh = dice.choice([0.1, 1.0])
            with suppress(Unavailable, Mine):
                answer = await fallback.get(key, partial(load, key), fresh=fresh)
                now = asyncio.get_running_loop().time()
                assert answer.age <= 5.0
                assert now - answer.value - answer.age < 0.001
                assert answer.stood_in is (answer.age >= fresh)
            await asyncio.sleep(dice.choice([0, 0.02, 0.5]))

    async def main(loop: VirtualLoop) -> None:
        fallback = AsyncFallback(fresh=1.0, stale=5.0)
        fallback._clock = loop.time  # type: ignore[method-assign]
        readers = [asyncio.create_task(reader(fallback)) for _ in range(8)]
        for task in readers[:3]:
            await asyncio.sleep(dice.random())
            task.cancel()
        results = await asyncio.wait_for(asyncio.gather(*readers, return_exceptions=True), 1000)
        assert {type(result) for result in results} <= {type(None), asyncio.CancelledError}, results
        await asyncio.sleep(5)
        figures = fallback.snapshot()
        assert figures.loading == 0
        assert figures.entries <= 3

    virtual.run(main, seed)


def test_where_no_thread_can_be_had_the_last_good_value_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    fallback, source, clock = made(Fallback)
    fallback.get("k", source)
    clock.now += 6

    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert fallback.get("k", source).stood_in
    clock.now += PAUSE
    assert not fallback.get("k", source).stood_in


def test_a_value_may_use_the_fallback_as_it_goes() -> None:
    """Its finalizer runs wherever the value is forgotten."""
    fallback, source, _ = made(Fallback, maxsize=1)

    class Reader:
        def __del__(self) -> None:
            fallback.snapshot()

    source.value = Reader()
    fallback.get("a", source)
    source.value = None
    done = aside(lambda: fallback.get("b", source))
    assert done.result(5).value is None


@each
@pytest.mark.parametrize("filled", [False, True], ids=["cold", "with a value"])
def test_a_load_that_reads_its_own_key_is_told_so(kind: Kind, filled: bool) -> None:
    async def scenario() -> None:
        fallback, source, clock = made(kind)
        if filled:
            await settled(fallback.get("k", source))
            clock.now += 6

        def load() -> Any:
            return fallback.get("k", source)

        with pytest.raises(RuntimeError, match="the load of 'k' reads 'k' itself"):
            await settled(fallback.get("k", load))

    asyncio.run(scenario())


def test_readers_in_two_event_loops_share_a_load() -> None:
    fallback, source, _ = made(AsyncFallback)
    source.gate.clear()
    first = aside(lambda: asyncio.run(fallback.get("k", source)))
    eventually(lambda: source.asked)
    second = aside(lambda: asyncio.run(fallback.get("k", source)))
    time.sleep(0.05)
    source.gate.set()
    assert first.result(5).value == second.result(5).value == "one"
    assert source.asked == 1


def test_a_load_that_ended_with_its_event_loop_is_begun_anew() -> None:
    fallback, source, _ = made(AsyncFallback)
    source.gate.clear()

    async def gives_up() -> None:
        reader = reads(fallback, "k", source)
        await soon(lambda: source.asked)
        reader.cancel()

    asyncio.run(gives_up())
    source.gate.set()
    assert asyncio.run(fallback.get("k", source)).value == "one"


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_the_parent_s_load() -> None:
    fallback, source, _ = made(Fallback)
    source.gate.clear()
    leader = aside(lambda: fallback.get("k", source))
    eventually(lambda: source.asked)
    pid = os.fork()
    if pid == 0:
        answer = aside(lambda: fallback.get("k", Source(Fallback, "child")))
        try:
            os._exit(0 if answer.result(5).value == "child" else 1)
        finally:
            os._exit(2)
    source.gate.set()
    assert os.waitpid(pid, 0)[1] == 0
    assert leader.result(5).value == "one"


def test_no_error_is_kept_with_its_frames() -> None:
    """They refer to connections."""
    fallback, _, _ = made(Fallback)

    class Big:
        pass

    alive: list[Big] = []

    def load() -> None:
        local = Big()
        alive.append(local)
        raise down("down")

    with pytest.raises(Unavailable):
        fallback.get("k", load)
    alive.clear()
    gc.collect()
    assert not [thing for thing in gc.get_objects() if isinstance(thing, Big)]
    assert fallback.snapshot().down


# ---------------------------------------------------------------------------------------------- decorated functions


def test_a_decorated_function_returns_its_value() -> None:
    prices = Fallback(fresh=60)
    asked: list[Any] = []

    @prices.read(key="price:{id}:{currency}")
    def price(id: int, currency: str = "EUR") -> str:
        """What it costs."""
        asked.append(id)
        return f"{id} {currency}"

    assert [price(1), price(id=1), price(1, "EUR"), price(2)] == ["1 EUR"] * 3 + ["2 EUR"]
    assert asked == [1, 2]
    assert (price.__name__, price.__doc__) == ("price", "What it costs.")


def test_a_decorated_coroutine_function_returns_its_value() -> None:
    prices = AsyncFallback(fresh=60)
    asked: list[Any] = []

    @prices.read(key=lambda id: f"price:{id}")
    async def price(id: int) -> int:
        asked.append(id)
        return id

    async def scenario() -> None:
        assert [await price(1), await price(1), await price(2)] == [1, 1, 2]

    asyncio.run(scenario())
    assert asked == [1, 2]


def test_a_key_tells_all_calls_apart() -> None:
    prices = Fallback()

    def price(id: int, currency: str) -> None: ...

    with pytest.raises(ValueError, match=r"leaves out 'currency'.*would share an answer"):
        prices.read(key="price:{id}")(price)
    with pytest.raises(ValueError, match=r"names 'shop', which .*price does not take"):
        prices.read(key="price:{shop}:{id}:{currency}")(price)


# ---------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fresh": -1}, "fresh must be 0 seconds or more"),
        ({"stale": "1h"}, "stale must be a number of seconds"),
        ({"fresh": 10, "stale": 5}, r"stale \(5 s\) must not be less than fresh \(10 s\)"),
        ({"maxsize": 0}, "maxsize must be 1 or more"),
        ({"patience": float("nan")}, "patience must be 0 seconds or more"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        Fallback(**options)


def test_a_key_is_a_string() -> None:
    with pytest.raises(TypeError, match="a key must be a str, not 42"):
        Fallback().get(42, lambda: None)  # type: ignore[arg-type]


def test_a_fallback_for_threads_takes_no_coroutine_function() -> None:
    async def load() -> None: ...

    with pytest.raises(TypeError, match="AsyncFallback takes both"):
        Fallback().get("k", load)


def test_an_async_fallback_takes_plain_functions_too() -> None:
    assert asyncio.run(AsyncFallback().get("k", lambda: 1)).value == 1


def test_the_pool_does_not_bring_it_along() -> None:
    script = "import sys, penstock; print([m for m in sys.modules if m.startswith(('penstock.fallback', 'redis'))])"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"
    script = "import sys, penstock.fallback; print('redis' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "False\n"


# ---------------------------------------------------------------------------------------------- a real database


def pool_of(kind: Kind) -> Any:
    return Pool if kind is Fallback else AsyncPool


def reader_of(pool: Any, statement: str = "SELECT now()::text") -> Callable[[], Any]:
    """A load that asks the database."""

    def load() -> Any:
        with pool.connection() as conn:
            return conn.execute(statement).fetchone()[0]

    async def load_async() -> Any:
        async with pool.connection() as conn:
            return await (await conn.execute(statement)).fetchone()

    return load if isinstance(pool, Pool) else load_async


@each
@pytest.mark.parametrize("filled", [False, True], ids=["cold", "with a value"])
@pytest.mark.parametrize("autocommit", [False, True], ids=["", "autocommit"])
def test_a_write_fails_and_nothing_is_served_in_its_place(
    postgres: EmbeddedPostgres, kind: Kind, filled: bool, autocommit: bool
) -> None:
    async def scenario() -> None:
        with postgres.admin() as admin:
            admin.execute("DROP TABLE IF EXISTS written; CREATE TABLE written (id int); GRANT ALL ON written TO app")
        kwargs = {"autocommit": autocommit}
        async with opened(pool_of(kind), postgres.dsn, min_size=1, kwargs=kwargs) as pool:
            fallback, _, clock = made(kind, patience=30.0)  # who is slow is not what is tested
            if filled:
                await settled(fallback.get("k", reader_of(pool)))
                clock.now += 6
            for _ in range(2):
                with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                    await settled(fallback.get("k", reader_of(pool, "INSERT INTO written VALUES (1) RETURNING id")))
            async with borrowed(pool) as conn:  # and the connection writes again
                assert await ask(conn, "SELECT count(*) FROM written") == 0
                await settled(conn.execute("INSERT INTO written VALUES (2)"))

    asyncio.run(scenario())


@each
def test_a_statement_that_takes_too_long_is_stood_in_for(postgres: EmbeddedPostgres, kind: Kind) -> None:
    async def scenario() -> None:
        async with opened(pool_of(kind), postgres.dsn, min_size=1, statement_timeout=0.05) as pool:
            fallback, _, clock = made(kind, patience=1.0)
            await settled(fallback.get("k", reader_of(pool)))
            clock.now += 6
            assert (await settled(fallback.get("k", reader_of(pool, "SELECT pg_sleep(10)")))).stood_in
            with pytest.raises(Unavailable) as caught:
                await settled(fallback.get("other", reader_of(pool, "SELECT pg_sleep(10)")))
            assert isinstance(caught.value.__cause__, psycopg.errors.QueryCanceled)

    asyncio.run(scenario())


@each
def test_with_an_exhausted_pool_a_known_key_is_answered_and_a_new_one_waits_its_turn(
    postgres: EmbeddedPostgres, kind: Kind
) -> None:
    async def scenario() -> None:
        async with opened(pool_of(kind), postgres.dsn, min_size=1, timeout=10) as pool:
            fallback, _, clock = made(kind)
            await settled(fallback.get("known", reader_of(pool)))
            clock.now += 6
            async with borrowed(pool):
                started = time.monotonic()
                assert (await settled(fallback.get("known", reader_of(pool)))).stood_in
                assert time.monotonic() - started < 1
                new = reads(fallback, "new", reader_of(pool))
                await asyncio.sleep(0.1)
                assert not new.done()
            assert not (await new).stood_in

    asyncio.run(scenario())


@each
def test_a_bug_of_the_program_s_use_of_the_pool_is_not_hidden(postgres: EmbeddedPostgres, kind: Kind) -> None:
    async def scenario() -> None:
        fallback, _, clock = made(kind)
        async with opened(pool_of(kind), postgres.dsn, min_size=1) as pool:
            await settled(fallback.get("k", reader_of(pool)))
        clock.now += 6
        with pytest.raises(errors.PoolClosed):
            await settled(fallback.get("k", reader_of(pool)))

    asyncio.run(scenario())


class Load:
    """Readers of hot, warm and new keys, and how they fared."""

    def __init__(self, fallback: Any, load: Callable[[], Any]) -> None:
        self.fallback = fallback
        self.load = load
        self.over = False
        self.longest = 0.0
        self.errors: list[BaseException] = []
        self.real: list[float] = []  # when an answer was loaded
        self.answers = 0

    def keys(self, seed: int) -> Iterator[str]:
        number = 0
        while not self.over:
            number += 1
            yield "hot"
            yield f"warm-{(seed * 7 + number) % 40}"
            if number % 5 == 0:
                yield f"new-{seed}-{number}"

    @contextmanager
    def measured(self) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        except Unavailable:
            pass
        except BaseException as error:
            self.errors.append(error)
        self.answers += 1
        self.longest = max(self.longest, time.monotonic() - started)

    def run(self, seed: int) -> None:
        for key in self.keys(seed):
            with self.measured():
                if self.fallback.get(key, self.load).age < 0.01:
                    self.real.append(time.monotonic())
            time.sleep(0.005)

    async def arun(self, seed: int) -> None:
        for key in self.keys(seed):
            with self.measured():
                if (await self.fallback.get(key, self.load)).age < 0.01:
                    self.real.append(time.monotonic())
            await asyncio.sleep(0.005)


@each
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_database_that_is_stopped_and_started_under_load(own_postgres: Server, kind: Kind, mode: Any) -> None:
    """Each read is answered or refused, soon; the first real answer comes soon after the database."""

    async def scenario() -> None:
        server = own_postgres()
        async with opened(pool_of(kind), server.dsn, min_size=4, timeout=10) as pool:
            load = Load(kind(fresh=0.1, stale=60), reader_of(pool))
            readers = [
                asyncio.create_task(load.arun(seed) if kind is AsyncFallback else asyncio.to_thread(load.run, seed))
                for seed in range(4)
            ]
            await asyncio.sleep(1.0)
            await asyncio.to_thread(server.stop, mode)
            before = load.answers
            await asyncio.sleep(1.5)
            assert load.answers - before > 100
            await asyncio.to_thread(server.start)
            back = time.monotonic()
            await soon(lambda: load.real and load.real[-1] > back)
            assert time.monotonic() - back < 1.0
            await asyncio.sleep(0.3)
            load.over = True
            await asyncio.gather(*readers)
            assert not load.errors
            assert load.longest < 0.5, "the bar is 50 ms, which a busy machine may miss"
            figures = load.fallback.snapshot()
            assert figures.stood_in > 100
            assert figures.unavailable > 10
            assert figures.hits + figures.loaded + figures.stood_in + figures.unavailable == load.answers
            assert not figures.down

    asyncio.run(scenario())


@each
def test_a_database_that_falls_silent_keeps_nobody_waiting_who_can_be_answered(
    postgres: EmbeddedPostgres, proxy: ChaosProxy, kind: Kind
) -> None:
    async def scenario() -> None:
        async with opened(pool_of(kind), proxy.through(postgres.dsn), min_size=2, timeout=5) as pool:
            fallback, _, clock = made(kind)
            for key in "abcd":
                await settled(fallback.get(key, reader_of(pool)))
            clock.now += 6
            proxy.silence()
            for key in "abcdabcd":
                started = time.monotonic()
                assert (await settled(fallback.get(key, reader_of(pool)))).stood_in
                assert time.monotonic() - started < 0.5
            proxy.heal()
            await soon(lambda: not fallback.snapshot().loading, 1)
            assert not (await settled(fallback.get("a", reader_of(pool)))).stood_in

    asyncio.run(scenario())


# ---------------------------------------------------------------------------------------------- a real Redis


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


async def stored(server: RedisServer, key: str = "prices:k") -> bytes:
    """What is kept there: in asyncio it is written after its reader was answered."""
    await soon(lambda: server.client().exists(key))
    value: bytes = server.client().get(key)
    return value


def shared(kind: Kind, server: RedisServer, bounds: dict[str, float] | None = None, **options: Any) -> Redis:
    client = server.client if kind is Fallback else server.async_client
    return Redis(client(**bounds or {}), prefix="prices:", **options)


@each
def test_processes_share_values_through_redis(redis_server: RedisServer, kind: Kind) -> None:
    async def scenario() -> None:
        first, source, _ = made(kind, store=shared(kind, redis_server))
        source.value = {"cents": 1250}
        await settled(first.get("k", source))
        await stored(redis_server)
        second, other, _ = made(kind, store=shared(kind, redis_server))
        answer = await settled(second.get("k", other))
        assert answer.value == {"cents": 1250}
        assert 0 <= answer.age < 5
        assert not answer.stood_in
        assert other.asked == 0
        assert second.snapshot().shared == 1
        assert 50_000 < redis_server.client().pttl("prices:k") <= 60_000

    redis_server.play(scenario())


@each
def test_a_process_that_has_just_started_stands_in_with_what_others_have_loaded(
    redis_server: RedisServer, kind: Kind
) -> None:
    async def scenario() -> None:
        store = shared(kind, redis_server)
        store._wall_clock = lambda: time.time() - 30  # type: ignore[method-assign]
        first, source, _ = made(kind, store=store)
        await settled(first.get("k", source))
        await stored(redis_server)
        second, source, _ = made(kind, store=shared(kind, redis_server))
        source.error = down("down")
        for _ in range(2):
            answer = await settled(second.get("k", source))
            assert answer.stood_in
            assert 29 < answer.age < 35
        with pytest.raises(Unavailable):
            await settled(second.get("unknown", source))

    redis_server.play(scenario())


@each
def test_what_another_process_has_renewed_is_not_loaded_again(redis_server: RedisServer, kind: Kind) -> None:
    async def scenario() -> None:
        first, source, clock = made(kind, store=shared(kind, redis_server))
        await settled(first.get("k", source))
        clock.now += 6
        second, other, _ = made(kind, store=shared(kind, redis_server))
        other.value = "two"
        await settled(second.get("k", other, fresh=0.0))
        await soon(lambda: redis_server.client().get("prices:k").endswith(b' "two"'))
        answer = await settled(first.get("k", source))
        assert (answer.value, answer.stood_in) == ("two", False)
        assert source.asked == 1

    redis_server.play(scenario())


@each
def test_what_is_forgotten_is_forgotten_in_redis_too(redis_server: RedisServer, kind: Kind) -> None:
    async def scenario() -> None:
        fallback, source, clock = made(kind, store=shared(kind, redis_server))
        await settled(fallback.get("k", source))
        await settled(fallback.forget("k"))
        assert not redis_server.client().exists("prices:k")
        await settled(fallback.get("k", source))
        await stored(redis_server)
        clock.now += 6
        source.error = Mine("a bug")
        with pytest.raises(Mine):
            await settled(fallback.get("k", source, fresh=0.0))
        assert not redis_server.client().exists("prices:k")

    redis_server.play(scenario())


@each
def test_what_is_forgotten_on_its_way_to_redis_does_not_stay_there(redis_server: RedisServer, kind: Kind) -> None:
    async def scenario() -> None:
        store = shared(kind, redis_server)
        fallback, source, _ = made(kind, store=store)
        write = store.write

        async def slow(*args: Any) -> None:
            await settled(fallback.forget("k"))
            await write(*args)

        store.write = slow  # type: ignore[method-assign]
        await settled(fallback.get("k", source))
        await soon(lambda: not fallback._writing)
        await asyncio.sleep(0.05)
        assert not redis_server.client().exists("prices:k")
        assert fallback.snapshot().entries == 0

    redis_server.play(scenario())


@each
@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_a_redis_that_is_down_or_hangs_breaks_no_read(
    redis_server: RedisServer, kind: Kind, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of its commands waits once in a while, all others not at all; said once; used again when it is back."""

    async def scenario() -> None:
        caplog.set_level(logging.WARNING, "penstock.fallback")
        advised = {"socket_timeout": 0.02, "socket_connect_timeout": 0.02}
        fallback, source, clock = made(kind, store=shared(kind, redis_server, advised))
        await settled(fallback.get("k", source))
        getattr(redis_server, fault)()
        started = time.monotonic()
        for number in range(200):
            clock.now += 6
            assert (await settled(fallback.get("k", source))).value == "one"
            assert (await settled(fallback.get(f"new-{number}", source))).value == "one"
        assert time.monotonic() - started < 2.0
        said = [record.getMessage() for record in caplog.records if record.name == "penstock.fallback"]
        assert sorted(line.partition(",")[0] for line in said) == ["redis: get fails", "redis: set fails"]
        assert fallback.snapshot().store_failures >= 2
        redis_server.start() if fault == "kill" else redis_server.thaw()
        for number in range(100):
            await settled(fallback.get(f"back-{number}", source))
            await asyncio.sleep(0.05)
            if all(f"redis: {command} works again" in caplog.text for command in ("get", "set")):
                break
        assert redis_server.client().exists(f"prices:back-{number}")

    redis_server.play(scenario())


@each
def test_a_redis_that_is_full_still_reads(redis_server: RedisServer, kind: Kind) -> None:
    async def scenario() -> None:
        fallback, source, _ = made(kind, store=shared(kind, redis_server))
        await settled(fallback.get("before", source))
        await stored(redis_server, "prices:before")
        redis_server.client().config_set("maxmemory", "1")  # and nothing is evicted, by default
        for key in "abc":
            assert (await settled(fallback.get(key, source))).value == "one"
        await soon(lambda: fallback.snapshot().store_failures == 1)
        second, other, _ = made(kind, store=shared(kind, redis_server))
        assert (await settled(second.get("before", other))).value == "one"
        assert other.asked == 0

    redis_server.play(scenario())


@each
@pytest.mark.parametrize("found", [b"", b"garbage", b"12.5 {", b"x {}", b"\xff\xfe 1"])
def test_what_cannot_be_read_is_loaded(redis_server: RedisServer, kind: Kind, found: bytes) -> None:
    async def scenario() -> None:
        redis_server.client().set("prices:k", found)
        fallback, source, _ = made(kind, store=shared(kind, redis_server))
        assert (await settled(fallback.get("k", source))).value == "one"
        assert fallback.snapshot().store_failures == 1
        await soon(lambda: redis_server.client().get("prices:k").endswith(b' "one"'))

    redis_server.play(scenario())


@each
def test_a_value_that_cannot_be_shared_is_an_error_that_says_what_to_do(redis_server: RedisServer, kind: Kind) -> None:
    async def scenario() -> None:
        fallback, source, _ = made(kind, store=shared(kind, redis_server))
        source.value = object()
        with pytest.raises(TypeError, match="not JSON serializable") as caught:
            await settled(fallback.get("k", source))
        assert "Redis(dumps=, loads=)" in caught.value.__notes__[0]
        fallback, source, _ = made(kind, store=shared(kind, redis_server, dumps=repr, loads=lambda raw: raw.decode()))
        source.value = (1, "é")
        await settled(fallback.get("k", source))
        assert (await stored(redis_server)).endswith(" (1, 'é')".encode())

    redis_server.play(scenario())


def test_a_client_that_decodes_is_fine(redis_server: RedisServer) -> None:
    for _ in range(2):
        fallback, source, _ = made(Fallback, store=Redis(redis_server.client(decode_responses=True)))
        source.value = ["é"]
        assert fallback.get("k", source).value == ["é"]
    assert source.asked == 0


def test_a_value_without_a_limit_stays_in_redis(redis_server: RedisServer) -> None:
    fallback, source, _ = made(Fallback, store=shared(Fallback, redis_server), stale=float("inf"))
    fallback.get("k", source)
    assert redis_server.client().pttl("prices:k") == -1


def test_a_client_that_may_wait_for_long_is_refused() -> None:
    redis = pytest.importorskip("redis")
    Retry, NoBackoff = redis.retry.Retry, redis.backoff.NoBackoff
    with pytest.raises(ValueError, match=r"socket_timeout is 5 s, .*socket_timeout=0.02"):
        Redis(redis.Redis(port=1, socket_timeout=5))
    with pytest.raises(ValueError, match="socket_connect_timeout is not set"):
        Redis(redis.Redis.from_url("redis://127.0.0.1:1", socket_timeout=0.02))
    with pytest.raises(ValueError, match="tries again"):
        Redis(redis.Redis(port=1, socket_timeout=0.02, socket_connect_timeout=0.02, retry=Retry(NoBackoff(), 1)))
    with pytest.raises(TypeError, match=r"must be a redis.Redis or redis.asyncio.Redis, not str"):
        Redis("redis://127.0.0.1:1")
    Redis(redis.Redis.from_url("redis://127.0.0.1:1", socket_timeout=0.02, socket_connect_timeout=0.02))
    Redis(redis.Redis(unix_socket_path="/nowhere", socket_timeout=0.02, retry=None))


def test_a_client_of_the_other_kind_is_refused(redis_server: RedisServer) -> None:
    with pytest.raises(TypeError, match=r"the store of Fallback must be made with a redis.Redis"):
        Fallback(store=Redis(redis_server.async_client()))
    with pytest.raises(TypeError, match=r"the store of AsyncFallback must be made with a redis.asyncio.Redis"):
        AsyncFallback(store=Redis(redis_server.client()))
