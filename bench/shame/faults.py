"""The database goes away, for a moment or for good."""

from time import perf_counter, sleep

from bench.claims.server_ends_idle import end_all
from bench.context import Context
from bench.report import duration
from bench.shame.bounded import within
from bench.shame.pools import Contestant, Options, opened
from penstock.drill.postgres import EmbeddedPostgres

BORROWERS = 12
IDLE = 8
MOMENT = 0.05  # seconds after the server's end before the next borrower comes; an event loop has seen it by then
LIMIT = 32.0  # seconds; psycopg_pool's own timeout of 30 s comes before it

DRIVERS = ("psycopg", "psycopg2", "asyncpg")


def restart_validated(name: str, ctx: Context) -> str:
    """Eight idle connections die. The first borrower gets a good one after, validation on."""
    pool = opened(name, ctx.dsn, Options(IDLE, timeout=30.0, validate=True))
    try:
        _end_idle(pool, ctx)
        started = perf_counter()
        try:
            within(LIMIT, lambda: _request(pool))
        except Exception as error:
            return f"**{type(error).__name__}** after {duration(perf_counter() - started)}"
        return duration(perf_counter() - started)
    finally:
        pool.close()


def restart_default(name: str, ctx: Context) -> str:
    """The same with every default: of twelve borrowers one after another, this many fail."""
    pool = opened(name, ctx.dsn, Options(IDLE))
    try:
        _end_idle(pool, ctx)
        failed = sum(not _works(pool) for _ in range(BORROWERS))
        return f"**{failed} fail**" if failed else "0 fail"
    finally:
        pool.close()


def database_down(name: str, ctx: Context) -> str:
    """The database stops; a borrower may wait for 2 s. Told after, and whether the driver's error is with it."""
    with EmbeddedPostgres(max_connections=20) as server:
        pool = opened(name, server.dsn, Options(1, timeout=2.0))
        try:
            server.stop()
            for _ in range(2):  # whoever is first finds it out; that is no shame
                _works(pool)
            started = perf_counter()
            try:
                within(5, lambda: _request(pool))
            except Exception as error:
                told = duration(perf_counter() - started)
                return f"{told}, driver's error" if _drivers(error) else f"**{told}, no cause**"
            return "no error"
        finally:
            pool.close()


def _drivers(error: BaseException) -> bool:
    cause = error if _from_driver(error) else error.__cause__
    return cause is not None and _from_driver(cause)


def _from_driver(error: BaseException) -> bool:
    # asyncpg lets the operating system's own through.
    return type(error).__module__.partition(".")[0] in DRIVERS or isinstance(error, ConnectionError)


def _end_idle(pool: Contestant, ctx: Context) -> None:
    for connection in [pool.take() for _ in range(IDLE)]:
        pool.give(connection)
    end_all(ctx)
    sleep(MOMENT)


def _request(pool: Contestant) -> None:
    connection = pool.take()
    try:
        pool.ask(connection)
    finally:
        pool.give(connection)


def _works(pool: Contestant) -> bool:
    try:
        within(5, lambda: _request(pool))
    except Exception:
        return False
    return True
