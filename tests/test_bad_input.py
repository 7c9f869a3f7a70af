"""Bad input gets one clear error that names the argument and the remedy; nothing is lost, and no password is shown."""

import asyncio
import logging
import math
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from penstock import AsyncPool, Pool, PoolClosed, PoolError, PoolTimeout, TooManyRequests
from support.either import Kind, borrowed, both, opened, request, settled


async def _coroutine_function(conn: Any) -> None:
    pass


BAD_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"min_size": -1}, "min_size must be 0 or more, not -1"),
    ({"min_size": 2.5}, r"min_size must be a whole number, not 2\.5"),
    ({"min_size": True}, "min_size must be a whole number"),
    ({"min_size": "4"}, "min_size must be a whole number, not '4'"),
    ({"min_size": 0}, "max_size must be 1 or more, not 0: say max_size= when min_size is 0"),
    ({"min_size": 1, "max_size": 0}, "max_size must be 1 or more, not 0"),
    ({"min_size": 5, "max_size": 4}, r"min_size \(5\) must not be above max_size \(4\)"),
    ({"max_size": 4.0}, "max_size must be a whole number"),
    ({"max_waiting": -1}, "max_waiting must be 0 or more, not -1"),
    ({"num_workers": 0}, "num_workers must be 1 or more, not 0"),
    ({"timeout": -1}, "timeout must be 0 seconds or more, not -1"),
    ({"timeout": "30"}, "timeout must be a number of seconds, not '30'"),
    ({"timeout": None}, "timeout must be a number of seconds, not None"),
    ({"timeout": math.nan}, "timeout must be 0 seconds or more, not nan"),
    ({"connect_timeout": -0.5}, "connect_timeout must be 0 seconds or more"),
    ({"max_lifetime": -1}, "max_lifetime must be 0 seconds or more"),
    ({"max_idle": "x"}, "max_idle must be a number of seconds"),
    ({"reconnect_timeout": -1}, "reconnect_timeout must be 0 seconds or more"),
    ({"leak_after": -1}, "leak_after must be 0 seconds or more"),
    ({"statement_timeout": -1}, "statement_timeout must be 0 seconds or more"),
    ({"statement_timeout": "1s"}, "statement_timeout must be a number of seconds, not '1s'"),
    ({"idle_in_transaction_timeout": math.nan}, "idle_in_transaction_timeout must be 0 seconds or more"),
    ({"nested": "never"}, "nested must be 'allow', 'warn' or 'raise', not 'never'"),
    ({"driver": "oracle"}, "driver must be one of 'psycopg', .*, not 'oracle'"),
    ({"configure": 3}, "configure must be a function, not 3"),
    ({"check": "SELECT 1"}, "check must be a function, not 'SELECT 1'"),
    ({"reset": []}, "reset must be a function"),
    ({"reconnect_failed": "page me"}, "reconnect_failed must be a function"),
]

WRONG_TYPES = [
    ({"conninfo": 5}, "conninfo"),
    ({"conninfo": None}, "conninfo"),
    ({"kwargs": "autocommit=True"}, "kwargs"),
    ({"connection_class": "psycopg.Connection"}, "connection_class"),
    ({"connection_class": int}, "connection_class"),
    ({"max_waiting": "many"}, "max_waiting"),
    ({"num_workers": "3"}, "num_workers"),
    ({"statement_timeout": math.inf}, "statement_timeout"),
]


def construct(kind: Kind, arguments: dict[str, Any]) -> None:
    given: dict[str, Any] = {"conninfo": "host=127.0.0.1", "open": False} | arguments
    kind(**given)


@both
@pytest.mark.parametrize(("arguments", "words"), BAD_ARGUMENTS, ids=lambda value: str(value)[:40])
def test_a_bad_argument_is_named(kind: Kind, arguments: dict[str, Any], words: str) -> None:
    """With what was found and what it may be; ValueError or TypeError."""
    with pytest.raises((ValueError, TypeError), match=f"^{words}"):
        construct(kind, arguments)


@both
@pytest.mark.parametrize(("arguments", "name"), WRONG_TYPES, ids=lambda value: str(value)[:40])
def test_an_argument_of_the_wrong_type_is_named(kind: Kind, arguments: dict[str, Any], name: str) -> None:
    """By the constructor, not by the first connect."""
    with pytest.raises((ValueError, TypeError), match=f"^{name}"):
        construct(kind, arguments)


@pytest.mark.parametrize(("kind", "wrong"), [(Pool, psycopg.AsyncConnection), (AsyncPool, psycopg.Connection)])
def test_a_connection_class_of_the_other_kind_is_named(kind: Kind, wrong: type) -> None:
    """An AsyncConnection is nothing for a Pool."""
    with pytest.raises((ValueError, TypeError), match=r"^connection_class"):
        construct(kind, {"connection_class": wrong})


@pytest.mark.parametrize("hook", ["configure", "check", "reset", "reconnect_failed"])
def test_a_coroutine_function_is_no_hook_of_a_pool(hook: str) -> None:
    """It would never be awaited."""
    with pytest.raises(TypeError, match=f"^{hook} of a Pool must be a plain function"):
        Pool("", open=False, **{hook: _coroutine_function})  # type: ignore[arg-type]
    AsyncPool("", open=False, **{hook: _coroutine_function})  # type: ignore[arg-type]


@both
@pytest.mark.parametrize("timeout", [-1, math.nan, "2", True])
def test_a_bad_timeout_of_a_call_loses_nothing(dsn: str, kind: Kind, timeout: Any) -> None:
    """Refused before anything is taken."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            for call in (pool.connection, pool.getconn, pool.transaction):
                with pytest.raises((ValueError, TypeError), match=r"^timeout must be"):
                    await settled(call(timeout=timeout))
            assert pool.snapshot().idle == 1
            assert await request(pool, timeout=0) == 1

    asyncio.run(scenario())


@both
def test_a_bad_resize_changes_nothing(dsn: str, kind: Kind) -> None:
    """The same words as the constructor's."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=2) as pool:
            for sizes in ((3, 2), (-1, 2), (0, 0), (1, "2")):
                with pytest.raises((ValueError, TypeError), match=r"^m(in|ax)_size"):
                    await settled(pool.resize(*sizes))
            assert (pool.min_size, pool.max_size, pool.snapshot().idle) == (2, 2, 2)

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------ connections given back


@both
@pytest.mark.parametrize("plain", [True, False])
def test_a_connection_is_returned_once_and_where_it_came_from(dsn: str, kind: Kind, plain: bool) -> None:
    """Twice, to another pool, from nowhere: each has its own words, and both pools stay whole."""

    async def scenario() -> None:
        options: dict[str, Any] = {} if plain else {"nested": "warn"}
        async with opened(kind, dsn, min_size=1, name="one", **options) as pool:
            async with opened(kind, dsn, min_size=1, name="other", **options) as other:
                conn = await settled(pool.getconn())
                with pytest.raises(ValueError, match="pool 'other', it comes from pool 'one': return it there"):
                    await settled(other.putconn(conn))
                await settled(pool.putconn(conn))
                with pytest.raises(ValueError, match="it was returned already: return a connection once"):
                    await settled(pool.putconn(conn))
                with pytest.raises(ValueError, match="can't return connection to pool 'other'"):
                    await settled(other.putconn(conn))
                stray = await settled(pool._driver.connection_class.connect(dsn))
                with pytest.raises(ValueError, match="it doesn't come from any pool"):
                    await settled(pool.putconn(stray))
                await settled(stray.close())
                for nonsense in (None, 7, "conn"):
                    with pytest.raises(ValueError, match="can't return connection"):
                        await settled(pool.putconn(nonsense))
                for each in (pool, other):
                    assert each.snapshot().idle == 1
                    assert await request(each) == 1

    asyncio.run(scenario())


@both
def test_a_second_return_does_not_take_it_from_its_next_user(dsn: str, kind: Kind) -> None:
    """By the first user, once more: refused, or the end of the second one's lease; either way the pool stays whole."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            conn = await settled(pool.getconn())
            await settled(pool.putconn(conn))
            async with borrowed(pool) as again:
                assert again is conn
                with suppress(ValueError):
                    await settled(pool.putconn(conn))
            assert pool.snapshot().open == pool.snapshot().idle == 1
            assert await request(pool) == 1

    asyncio.run(scenario())


@both
def test_a_block_whose_connection_was_put_back_takes_it_from_nobody(dsn: str, kind: Kind) -> None:
    """At its end it is another one's: no connection ever has two holders."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            taken: list[Any] = []
            async with borrowed(pool) as conn:
                with suppress(ValueError):  # refused would be fine, too
                    await settled(pool.putconn(conn))
                    taken.append(await settled(pool.getconn(timeout=1)))
            assert pool.snapshot().leased == len(taken)
            for other in taken:
                with pytest.raises(PoolError):
                    await settled(pool.getconn(timeout=0.1))
                await settled(pool.putconn(other))
            assert await request(pool) == 1

    asyncio.run(scenario())


@both
def test_a_connection_closed_by_its_user_is_replaced(dsn: str, kind: Kind) -> None:
    """In a block and by hand."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1) as pool:
            async with borrowed(pool) as conn:
                await settled(conn.close())
            assert await request(pool, timeout=5) == 1
            conn = await settled(pool.getconn())
            await settled(conn.close())
            await settled(pool.putconn(conn))
            assert await request(pool, timeout=5) == 1
            assert pool.snapshot().leased == 0

    asyncio.run(scenario())


@both
def test_close_returns_gives_it_back(dsn: str, kind: Kind) -> None:
    """`close_returns=True`: conn.close() is putconn()."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1, close_returns=True) as pool:
            conn = await settled(pool.getconn())
            await settled(conn.close())
            assert not conn.closed
            assert pool.snapshot().idle == 1
            assert await request(pool) == 1

    asyncio.run(scenario())


@both
def test_close_returns_inside_a_block(dsn: str, kind: Kind) -> None:
    """Nothing is left for its end to do."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1, close_returns=True) as pool:
            async with borrowed(pool) as conn:
                await settled(conn.close())
            assert pool.snapshot().idle == 1
            assert await request(pool) == 1

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------ at the wrong time


@both
def test_a_pool_that_is_not_open_says_so(dsn: str, kind: Kind) -> None:
    """And what to do; nothing is connected by that."""

    async def scenario() -> None:
        pool = kind(dsn, open=False, name="early")
        for use in (lambda: pool.getconn(), lambda: pool.wait(), lambda: request(pool)):
            with pytest.raises(PoolClosed, match=r"the pool 'early' is not open yet: call open\(\)") as caught:
                await settled(use())
            assert isinstance(caught.value, PoolError)
            assert isinstance(caught.value, psycopg.OperationalError)
        await settled(pool.close())
        assert pool.snapshot().connects == 0
        async with opened(kind, dsn, min_size=1) as pool:
            pass
        with pytest.raises(PoolClosed, match="already closed"):
            await request(pool)

    asyncio.run(scenario())


@both
def test_more_than_max_waiting_are_refused(dsn: str, kind: Kind) -> None:
    """TooManyRequests at once, with both numbers."""

    async def scenario() -> None:
        async with opened(kind, dsn, min_size=1, max_waiting=1, name="short") as pool:
            async with borrowed(pool):
                if kind is Pool:
                    waiting: Any = asyncio.create_task(asyncio.to_thread(lambda: pool.putconn(pool.getconn())))
                else:
                    waiting = asyncio.create_task(request(pool))
                while not pool.snapshot().waiting:
                    await asyncio.sleep(0.001)
                with pytest.raises(TooManyRequests, match="1 requests are waiting already, and max_waiting is 1"):
                    await request(pool)
            await waiting

    asyncio.run(scenario())


@both
@pytest.mark.parametrize("what", [LookupError("no vault"), 7, "host=[", ""])
def test_a_conninfo_function_that_fails_is_told(kind: Kind, what: Any) -> None:
    """Whatever it does, a request learns why in time, and nothing is lost."""

    def conninfo() -> Any:
        if isinstance(what, Exception):
            raise what
        return what

    async def scenario() -> None:
        options = {"kwargs": {"port": 1}, "min_size": 1}
        async with opened(kind, conninfo, wait=False, **options) as pool:
            with pytest.raises(PoolTimeout) as caught:
                await request(pool, timeout=5)
            assert caught.value.__cause__ is not None
            assert pool.snapshot().leased == 0

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------ passwords

SECRET = "Hush-4711"

UNPARSABLE = [
    f"postgresql://app:{SECRET}@[::1/db",
    f"postgresql://app:{SECRET}@127.0.0.1:1/db?nonsense=1",
    f"postgresql://app:{SECRET}%zz@127.0.0.1:1/db",
    f"host=127.0.0.1 password={SECRET} nonsense",
    f"host=127.0.0.1 password='{SECRET}",
    f"host=127.0.0.1 passwort={SECRET}",
    f"{SECRET}",
]
# libpq ends the password at the first "/" or "@", and takes what follows for the host, port or database.
MISREAD = [
    f"postgresql://app:x/{SECRET}@127.0.0.1:1/db",
    f"postgresql://app:x@{SECRET}@127.0.0.1:1/db",
    f"postgresql://app:{SECRET}/x@127.0.0.1:1/db",
    f"postgresql://app:12/{SECRET}@127.0.0.1:1/db",
]
FINE = [
    f"postgresql://app:{SECRET}@127.0.0.1:1/db",
    f"host=127.0.0.1 port=1 user=app password={SECRET}",
]


def everything_said(kind: Kind, conninfo: Any, caplog: pytest.LogCaptureFixture, **options: Any) -> str:
    """All that a pool with that conninfo lets be seen: errors and their causes, logs, repr, warnings, figures."""
    caplog.set_level(logging.DEBUG)
    said: list[str] = []

    def note(error: BaseException | None) -> None:
        while error is not None:
            said.extend([str(error), repr(error)])
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)

    async def scenario() -> None:
        try:
            pool = kind(conninfo, open=False, min_size=1, connect_timeout=0.5, **options)
        except Exception as error:
            note(error)
            return
        pool.listen(lambda event: said.append(repr(event)))
        await settled(pool.open())
        try:
            await request(pool, timeout=2)
        except Exception as error:
            note(error)
        said.extend([repr(pool), str(pool.snapshot()), str(pool.get_stats()), str(pool.holders())])
        await settled(pool.close(timeout=0.5))

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        asyncio.run(scenario())
    return "\n".join([*said, caplog.text, *(str(each.message) for each in warned)])


as_text: Callable[[str], Any] = lambda conninfo: conninfo  # noqa: E731
as_function: Callable[[str], Any] = lambda conninfo: lambda: conninfo  # noqa: E731


@both
@pytest.mark.parametrize("given", [as_text, as_function], ids=["text", "function"])
@pytest.mark.parametrize("conninfo", UNPARSABLE)
def test_a_conninfo_that_does_not_parse_shows_no_password(
    kind: Kind, given: Callable[[str], Any], conninfo: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said that it does not, and what it should be like."""
    said = everything_said(kind, given(conninfo), caplog)
    assert "conninfo does not parse: expected" in said
    assert SECRET not in said


@both
@pytest.mark.parametrize("given", [as_text, as_function], ids=["text", "function"])
@pytest.mark.parametrize("conninfo", MISREAD)
def test_a_password_that_is_not_encoded_is_not_shown_as_a_host(
    kind: Kind, given: Callable[[str], Any], conninfo: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The remedy is named: percent-encoding."""
    said = everything_said(kind, given(conninfo), caplog)
    assert SECRET not in said
    assert "write %40 for @, %2F for /" in said


@both
@pytest.mark.parametrize("given", [as_text, as_function], ids=["text", "function"])
@pytest.mark.parametrize("conninfo", FINE)
def test_a_refused_login_shows_no_password(
    kind: Kind, given: Callable[[str], Any], conninfo: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody listens on port 1."""
    said = everything_said(kind, given(conninfo), caplog)
    assert "refuses connections" in said
    assert SECRET not in said


@both
def test_a_password_in_kwargs_is_not_shown(kind: Kind, dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong one, and beside an option that there is not."""
    said = everything_said(kind, dsn, caplog, kwargs={"password": SECRET})
    assert "password authentication failed" in said
    assert SECRET not in said
    caplog.clear()
    said = everything_said(kind, dsn, caplog, kwargs=lambda: {"password": SECRET, "nonsense": 1})
    assert "nonsense" in said
    assert SECRET not in said


@both
def test_a_working_pool_shows_no_password(kind: Kind, dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """At any level of the log."""
    password = dsn.split(":")[2].split("@")[0]
    said = everything_said(kind, dsn, caplog)
    assert "1 idle" in said
    assert password not in said
