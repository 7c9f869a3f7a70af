"""A fleet on MySQL's side: its places on a real MariaDB, and the line, with processes that are killed."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest.mock import patch

import pymysql
import pytest

from penstock import AsyncPool, Fleet, Pool, PoolTimeout
from penstock.drill.proxy import ChaosProxy
from penstock.drivers.pymysql import PyMySQLDriver
from penstock.fleet import mysql
from penstock.fleet.mysql import decode, encode
from penstock.fleet.tag import Said
from penstock.pool.membership import NotNow
from penstock.pool.steps import run
from support.either import Kind, borrowed, opened, settled
from support.line import Children, tell
from support.mariadb import USER, MariaDB
from support.waiting import aside, eventually, soon

QUICKLY = 10.0
SAMPLE_SECONDS = 0.01
_numbers = itertools.count()
drivers = pytest.mark.parametrize(("kind", "driver"), [(Pool, "pymysql"), (AsyncPool, "aiomysql")])


def a_fleet(budget: int = 8, **options: Any) -> Fleet:
    """One of its own for each test, which looks often."""
    return Fleet(budget, **{"name": f"y{next(_numbers)}", "period": 0.1, **options})


def share(pool: Any) -> int:
    return int(pool.fleet().share)


@asynccontextmanager
async def joined(kind: Kind, dsn: str, fleet: Fleet, **options: Any) -> AsyncIterator[Any]:
    """A member with a share."""
    async with opened(kind, dsn, wait=False, **{"fleet": fleet, "min_size": 1, **options}) as pool:
        await soon(lambda: share(pool) >= 1, QUICKLY)
        yield pool


class Line:
    """Samples how many connections the ordinary user has, for the length of the block; none may be above *budget*."""

    def __init__(self, mariadb: MariaDB, budget: int) -> None:
        self._mariadb = mariadb
        self._budget = budget
        self.count = self.samples = self.peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if kind is None:
            assert self.samples, "nothing was seen"
            assert self.peak <= self._budget

    def _watch(self) -> None:
        asked = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = %s"
        with self._mariadb.admin() as admin, admin.cursor() as cursor:
            while not self._over.wait(SAMPLE_SECONDS):
                cursor.execute(asked, (USER,))
                ((self.count,),) = cursor.fetchall()
                self.samples += 1
                self.peak = max(self.peak, self.count)


# ------------------------------------------------------------------------------------------ the line


def test_processes_that_come_and_are_killed_never_pass_the_line(mariadb: MariaDB) -> None:
    """Threads over PyMySQL, tasks over aiomysql. Of those killed the share is used by the others within seconds."""
    budget = 20
    with Line(mariadb, budget) as line:
        with Children(mariadb.dsn, name="line", budget=budget, period=0.3) as children:
            for number in range(3):
                children.start("threads" if number % 2 else "tasks")
            eventually(lambda: line.count >= 0.9 * budget, 15)
            children.running[0].kill()
            eventually(lambda: {tell(child)["members"] for child in children.running[1:]} == {2}, QUICKLY)
            eventually(lambda: line.count >= 0.9 * budget, QUICKLY)
        eventually(lambda: line.count == 0, QUICKLY)


def test_a_process_behind_a_black_hole_keeps_its_places_and_never_takes_more(mariadb: MariaDB) -> None:
    """What it has open the others leave to it."""
    budget = 12
    with ChaosProxy(mariadb.host, mariadb.port) as proxy, Line(mariadb, budget) as line:
        with Children(mariadb.dsn, name="hole", budget=budget, period=0.3) as children:
            far = children.start("tasks", mariadb.url(port=proxy.port))
            eventually(lambda: tell(far)["share"] > 4, QUICKLY)
            proxy.silence()
            near = children.start()
            eventually(lambda: tell(near)["members"] == 2, QUICKLY)
            proxy.heal()
            eventually(lambda: tell(far)["members"] == 2, QUICKLY)
            eventually(lambda: line.count >= 0.8 * budget, QUICKLY)
        eventually(lambda: line.count == 0, QUICKLY)


def test_a_blocking_driver_over_threads_is_a_member_too(mariadb: MariaDB) -> None:
    """Of an AsyncPool: each connection has a place."""
    fleet = a_fleet(6)

    async def scenario() -> None:
        async with joined(AsyncPool, mariadb.dsn, fleet, driver="pymysql") as pool:
            with Line(mariadb, 6):
                async with all_in_use(pool, 8):
                    await soon(lambda: pool.snapshot().open == 4, QUICKLY)

    asyncio.run(scenario())


def test_what_an_idle_member_claims_it_gives_up_to_a_busy_one(mariadb: MariaDB) -> None:
    """On the connection that holds the claims, whichever was used last."""
    fleet = a_fleet(8)

    async def scenario() -> None:
        async with joined(Pool, mariadb.dsn, fleet, driver="pymysql", min_size=2) as idle:
            await soon(lambda: share(idle) == 6, QUICKLY)
            async with joined(AsyncPool, mariadb.dsn, fleet, driver="aiomysql") as busy:
                async with all_in_use(busy, 8):
                    await soon(lambda: share(busy) >= 4 and busy.snapshot().open >= 4, QUICKLY)
                    assert share(idle) <= 2

    asyncio.run(scenario())


@drivers
def test_shares_follow_need(kind: Kind, driver: str, mariadb: MariaDB) -> None:
    """Who is busy has most, who comes has its least, and who goes leaves what it had."""
    fleet = a_fleet(8)

    async def scenario() -> None:
        async with joined(kind, mariadb.dsn, fleet, driver=driver) as busy:
            with Line(mariadb, 8):
                async with all_in_use(busy, 12):
                    await soon(lambda: share(busy) == 6 and busy.snapshot().open == 6, QUICKLY)
                    async with joined(kind, mariadb.dsn, fleet, driver=driver) as idle:
                        await soon(lambda: busy.fleet().members == idle.fleet().members == 2, QUICKLY)
                        await soon(lambda: share(busy) + share(idle) == 6 and share(busy) >= 4, QUICKLY)
                    await soon(lambda: share(busy) == 6 and busy.snapshot().open == 6, QUICKLY)

    asyncio.run(scenario())


@asynccontextmanager
async def all_in_use(pool: Any, tasks: int) -> AsyncIterator[None]:
    """So many borrow again and again for the length of the block."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            try:
                with pool.connection(timeout=1) as conn, conn.cursor() as cursor:
                    cursor.execute("SELECT SLEEP(0.005)")
            except (PoolTimeout, pymysql.Error):  # what is killed in use is an error of its user's
                pass

    async def work_task() -> None:
        while not over.is_set():
            try:
                async with pool.connection(timeout=1) as conn, conn.cursor() as cursor:
                    await cursor.execute("SELECT SLEEP(0.005)")
            except (PoolTimeout, pymysql.Error):  # what is killed in use is an error of its user's
                pass

    at_work: list[Any]
    if isinstance(pool, Pool):
        at_work = [asyncio.wrap_future(aside(work)) for _ in range(tasks)]
    else:
        at_work = [work_task() for _ in range(tasks)]
    working = asyncio.gather(*at_work)
    try:
        yield
    finally:
        over.set()
        await working


@drivers
def test_who_finds_no_room_waits_and_is_told(kind: Kind, driver: str, mariadb: MariaDB) -> None:
    """As soon as somebody goes there is some."""
    fleet = a_fleet(2)

    async def scenario() -> None:
        async with joined(kind, mariadb.dsn, fleet, driver=driver) as first:
            async with opened(kind, mariadb.dsn, wait=False, driver=driver, fleet=fleet, min_size=0) as second:
                with Line(mariadb, 2):
                    with pytest.raises(PoolTimeout, match="no room yet in fleet"):
                        async with borrowed(second, timeout=1):
                            pass
                    await settled(first.close())
                    async with borrowed(second, timeout=QUICKLY):
                        assert share(second) == 1

    asyncio.run(scenario())


@drivers
def test_the_connection_that_speaks_for_it_ends_and_it_claims_anew(kind: Kind, driver: str, mariadb: MariaDB) -> None:
    """What was open keeps its places meanwhile."""
    fleet = a_fleet(8)

    async def scenario() -> None:
        async with joined(kind, mariadb.dsn, fleet, driver=driver) as pool:
            with Line(mariadb, 8):
                async with all_in_use(pool, 10):
                    await soon(lambda: pool.snapshot().open == 6, QUICKLY)
                    await asyncio.to_thread(mariadb.kill_thread, min(mariadb.threads()))
                    await soon(lambda: pool.snapshot().closes, QUICKLY)
                    await soon(lambda: pool.snapshot().open == 6, QUICKLY)

    asyncio.run(scenario())


@pytest.mark.parametrize("statement", ["SET @mine = 1", "SELECT RELEASE_ALL_LOCKS()"])
def test_a_changed_session_is_closed_for_a_reset_would_give_its_place_away(mariadb: MariaDB, statement: str) -> None:
    """The next user has another connection, which has a place of its own."""
    with Pool(mariadb.dsn, driver="pymysql", fleet=a_fleet(8), min_size=1, open=False) as pool:
        pool.wait()
        with pool.connection() as conn, conn.cursor() as cursor:
            number = conn.thread_id()
            cursor.execute(statement)
        with pool.connection(timeout=QUICKLY) as conn, conn.cursor() as cursor:
            cursor.execute("SELECT @mine")
            assert cursor.fetchall() == ((None,),)
            assert conn.thread_id() != number
            assert held(mariadb, pool, conn.thread_id())


def held(mariadb: MariaDB, pool: Pool[Any], thread: int) -> bool:
    """Whether the connection has a place."""
    fleet = pool.fleet()
    assert fleet is not None
    places = [f"penstock:{fleet.name}:{place}:c" for place in range(fleet.budget)]
    return any(mariadb.ask("SELECT IS_USED_LOCK(%s)", place) == [(thread,)] for place in places)


# ------------------------------------------------------------------------------------------ two who claim


def test_no_place_is_ever_two_members(mariadb: MariaDB) -> None:
    """However they meet: both look, both see the same places free, both claim all."""

    async def scenario() -> None:
        with members(mariadb, a_fleet(12), 3) as fleet:
            for _ in range(10):
                views = await asyncio.gather(*(asyncio.to_thread(claims, *each, 8) for each in fleet))
                assert sum(views) <= 12
                for each in fleet:
                    await asyncio.to_thread(claims, *each, 1)

    asyncio.run(scenario())


def test_a_place_is_kept_when_the_connection_that_claimed_it_for_another_has_ended(mariadb: MariaDB) -> None:
    """Its own connection holds it, too."""
    with members(mariadb, a_fleet(4), 2) as [(one, speaker), (other, looker)]:
        claims(one, speaker, 2)
        second = connected(mariadb, one)
        run(one.take(second))
        mariadb.kill_thread(speaker.thread_id())
        eventually(lambda: claims(other, looker, 4) == 3)
        assert second._held.place not in looker._held.claims
        with patch.object(other, "_look", nothing_used):  # it has just been taken, say
            assert claims(other, looker, 4) == 3
        second.close()
        eventually(lambda: claims(other, looker, 4) == 4)


async def nothing_used(conn: Any) -> dict[int, bool]:
    return {}


def test_a_connection_takes_no_place_that_is_claimed_no_more(mariadb: MariaDB) -> None:
    """Whatever its member believes."""
    with members(mariadb, a_fleet(4), 1) as [(one, speaker)]:
        claims(one, speaker, 3)
        run(one._driver.ask(speaker, "SELECT RELEASE_ALL_LOCKS()", ()))
        second = connected(mariadb, one)
        with pytest.raises(NotNow):
            run(one.take(second))
        second.close()


def test_it_is_asked_on_the_connection_that_can_give_up_what_it_claims(mariadb: MariaDB) -> None:
    """On any other it can only be said, and the places stay as they are."""
    with members(mariadb, a_fleet(8), 1) as [(one, speaker)]:
        assert claims(one, speaker, 6) == 6
        second = connected(mariadb, one)
        run(one.take(second))
        assert one.speaker() is speaker
        run(one.say(second, Said(next(_said), 2, 1, 8, 0.0), 2))
        assert len(speaker._held.claims) == 6
        assert claims(one, speaker, 2) == 2
        assert one.speaker() is None
        second.close()


@contextmanager
def members(mariadb: MariaDB, fleet: Fleet, count: int) -> Iterator[list[tuple[Any, Any]]]:
    """So many ledgers with a connection each."""
    with ExitStack() as stack:
        made = []
        for number in range(count):
            ledger = mysql.MySQL(PyMySQLDriver(None, False), fleet, f"{number:04x}0000")
            conn = connected(mariadb, ledger)
            stack.callback(conn._force_close)
            made.append((ledger, conn))
        yield made


def connected(mariadb: MariaDB, ledger: mysql.MySQL) -> Any:
    conn = run(ledger._driver.connect(mariadb.dsn, {}, timeout=5, settings={}))
    ledger._driver.adopt(conn)
    return conn


_said = itertools.count(1)


def claims(ledger: Any, conn: Any, wanted: int) -> int:
    """How many places it claims after it has asked for so many."""
    run(ledger.say(conn, Said(next(_said), wanted, 1, 12, 1.0), 1))
    return len(conn._held.claims | {conn._held.place} - {None})


def test_what_is_said_is_read_by_the_others(mariadb: MariaDB) -> None:
    """Share, least and most as they are; the need to five percent. The last that was said counts."""
    with members(mariadb, a_fleet(12), 2) as [(one, conn), (other, looker)]:
        run(one.say(conn, Said(1, 5, 2, 9, 3.25), 1))
        run(one.say(conn, Said(2, 4, 2, 9, 1.5), 1))
        view, stands = run(other.say(looker, Said(1, 1, 1, 12, 0.0), 1))
        (seen,) = [member for name, member in view.members.items() if name != "00010000"]
        assert seen.said is not None
        assert (seen.said.share, seen.said.least, seen.said.most) == (4, 2, 9)
        assert seen.said.demand == pytest.approx(1.5, rel=0.05)
        assert view.claimed == 5
        assert stands()
        mariadb.kill_thread(looker.thread_id())
        assert not stands()


def test_a_bit_that_another_session_holds_is_taken_when_it_lets_go(mariadb: MariaDB) -> None:
    """And one whose taking has failed is neither missed nor held twice."""
    with members(mariadb, a_fleet(12), 1) as [(one, conn)], mariadb.admin() as admin, admin.cursor() as other:
        claims(one, conn, 3)
        place = conn._held.place
        bits = {bit for bit in range(64) if encode(0, Said(9, 3, 1, 12, 1.0)) >> bit & 1} - conn._held.bits
        stolen = f"penstock:{one._fleet.name}:{place}:{min(bits)}"
        other.execute("SELECT GET_LOCK(%s, 0)", (stolen,))
        run(one.say(conn, Said(9, 3, 1, 12, 1.0), 1))
        other.execute("SELECT RELEASE_LOCK(%s)", (stolen,))
        run(one.say(conn, Said(9, 3, 1, 12, 1.0), 1))
        assert word(mariadb, one, place) == encode(0, Said(9, 3, 1, 12, 1.0))
        with patch.object(one, "_ask", failing_after(one._ask)), pytest.raises(pymysql.Error):
            run(one._publish(conn, conn._held, Said(10, 3, 1, 12, 1.0)))
        for number in (10, 11, 12):
            run(one.say(conn, Said(number, 3, 1, 12, 1.0), 1))
            assert word(mariadb, one, place) == encode(0, Said(number, 3, 1, 12, 1.0))


def failing_after(ask: Any) -> Any:
    async def failing(conn: Any, calls: list[str]) -> tuple[Any, ...]:
        await ask(conn, calls)
        raise pymysql.err.OperationalError(1317, "interrupted")

    return failing


def word(mariadb: MariaDB, ledger: mysql.MySQL, place: int) -> int:
    names = [f"IS_USED_LOCK('penstock:{ledger._fleet.name}:{place}:{bit}') IS NOT NULL" for bit in range(64)]
    return sum(held << bit for bit, held in enumerate(mariadb.ask(f"SELECT {', '.join(names)}")[0]))


@pytest.mark.parametrize("demand", [0.0, 0.05, 1.0, 17.3, 900.0])
def test_what_is_said_fits_in_sixty_four_bits(demand: float) -> None:
    """And half of it is not taken for the whole."""
    said = Said(511, 1023, 31, 1023, demand)
    word = encode(65535, said)
    assert word < 1 << 64
    read = decode(word)
    assert read is not None
    assert read[0] == 65535
    assert read[1].demand == pytest.approx(demand, rel=0.06, abs=0.01)
    assert sum(decode(word ^ 1 << bit) is None for bit in range(64)) == 64


# ------------------------------------------------------------------------------------------ declared


def test_a_mysql_url_in_the_budget_file_is_all_that_is_needed(mariadb: MariaDB, tmp_path: Path) -> None:
    """The driver follows from it, and so does the fleet."""
    file = tmp_path / "penstock.toml"
    file.write_text(
        f'[databases.shop]\nurl = "{mariadb.dsn}"\nmax_connections = 12\nheadroom = 2\nfleet = true\n'
        '[services.web]\ndatabase = "shop"\nreplicas = 2\nprocesses = 1\n'
    )

    async def scenario() -> None:
        for kind, driver in ((Pool, "PyMySQLDriver"), (AsyncPool, "AiomysqlDriver")):
            pool: Any = kind.from_budget("web", path=file, open=False)  # type: ignore[attr-defined]
            assert type(pool._driver).__name__ == driver
            await settled(pool.open())
            async with borrowed(pool, timeout=QUICKLY) as conn:
                cursor = await settled(conn.cursor())
                await settled(cursor.execute("SELECT 1"))
                assert pool.fleet().budget == 7  # 12, less headroom, less 3 for superusers as everywhere
                await settled(cursor.close())
            await settled(pool.close())

    asyncio.run(scenario())


def test_what_mysql_cannot_do_is_refused(mariadb: MariaDB) -> None:
    """Before anything is opened."""
    with pytest.raises(ValueError, match="auto"):
        Pool(mariadb.dsn, driver="pymysql", fleet=Fleet(10), max_size="auto", open=False)
    with pytest.raises(ValueError, match="1023"):
        Pool(mariadb.dsn, driver="pymysql", fleet=Fleet(2000), open=False)
