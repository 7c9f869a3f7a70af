"""The table that says what is done: `penstock_batch`, in the user's own database, so that a result and the word of it
are one transaction.

Whoever is about to save items first *claims* them: puts their rows in. The primary key lets one transaction do so and
has all others wait until that one has ended. What was claimed by another is not saved again; what was claimed by one
that rolled back can be. So two runs at once save each item once, and who lost the answer of a COMMIT claims again, and
learns how that ended.

A claim says "failed, and not known whether it is saved" until the last statement of the transaction makes it "done". So
whoever commits in between, and is killed then, leaves no item behind that is done but not saved, and none that the next
run saves twice without a word. Nobody else ever sees such a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

from .outcome import Failure
from .statements import Execute, executor

TABLE = "penstock_batch"
LONGEST_KEY, LONGEST_JOB = 255, 190  # characters: what fits into a key of MySQL's
DONE, FAILED = "done", "failed"
UNSURE = "save() has committed by itself, so it is not known whether this item is saved: see, and then try it again"

Row = tuple[Any, ...]

_POSTGRES_DDL = f"""\
CREATE TABLE IF NOT EXISTS {TABLE} (
    job text NOT NULL,
    item text NOT NULL,
    state text NOT NULL,
    tries integer NOT NULL,
    error text,
    run text NOT NULL,
    at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (job, item)
)"""
_SQLITE_DDL = _POSTGRES_DDL.replace("timestamptz", "text")
# Bytes, so that no collation takes two keys for one.
_MYSQL_DDL = f"""\
CREATE TABLE IF NOT EXISTS {TABLE} (
    job varbinary({4 * LONGEST_JOB}) NOT NULL,
    item varbinary({4 * LONGEST_KEY}) NOT NULL,
    state varchar(10) NOT NULL,
    tries integer NOT NULL,
    error text,
    run varchar(60) NOT NULL,
    at timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (job, item)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4"""

_INSERT = f"INSERT INTO {TABLE} (job, item, state, tries, run, error) VALUES"
# Where there is a row already, it changes only while it says "failed".
_EXCLUDED = (
    "ON CONFLICT (job, item) DO UPDATE SET state = excluded.state, tries = excluded.tries, run = excluded.run,"
    f" error = excluded.error, at = CURRENT_TIMESTAMP WHERE {TABLE}.state = '{FAILED}'"
)
# The state last: each assignment sees what those before it have set.
_IF_FAILED = (
    f"ON DUPLICATE KEY UPDATE run = IF(state = '{FAILED}', {{run}}, run),"
    f" error = IF(state = '{FAILED}', {{error}}, error), state = IF(state = '{FAILED}', {{state}}, state)"
)
_CLAIMED = f"run = %s AND state = '{FAILED}'"
_SAVEPOINT = "penstock_batch_claim"


@dataclass(frozen=True, slots=True)
class Claim:
    """What one transaction has claimed.

    :ivar keys: of the items that nobody has saved, and nobody else can before this transaction has ended.
    :ivar token: by which the rows are known.
    :ivar transaction: the server's number of it; None where there is a savepoint in its stead.
    """

    keys: frozenset[str]
    token: str
    transaction: int | None


class Checkpoint:
    """One job's part of the table. Each method is one statement or a few, on a connection that is lent to it.

    :param run: by which rows of this run are known; the claim of each transaction adds its own number.
    """

    def __init__(self, driver: Any, job: str, run: str) -> None:
        self.job = job
        self.run = run
        self._execute: Execute
        self.family, self._execute = executor(driver)
        self._mysql = self.family == "mysql"
        self._mark = "UNHEX(%s)" if self._mysql else "%s"  # of a key: whatever characters the session is for
        self.ddl = {"mysql": _MYSQL_DDL, "sqlite": _SQLITE_DDL, "postgres": _POSTGRES_DDL}[self.family]
        self._claims = count(1)

    async def exists(self, conn: Any) -> bool:
        query = {
            "postgres": f"SELECT 1 WHERE to_regclass('{TABLE}') IS NOT NULL",
            "mysql": "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE()"
            f" AND table_name = '{TABLE}'",
            "sqlite": f"SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '{TABLE}'",
        }[self.family]
        return bool(await self._execute(conn, query, ()))

    async def create(self, conn: Any) -> None:
        await self._execute(conn, self.ddl, ())

    async def states(self, conn: Any, keys: Sequence[str]) -> dict[str, str]:
        """Of those that there is a row of, whether they are done or have failed."""
        rows = await self._execute(conn, *self._of(f"SELECT item, state FROM {TABLE}", keys))
        return {_text(item): _text(state) for item, state in rows}

    async def claim(self, conn: Any, tried: dict[str, int]) -> Claim:
        """Claim these items, as far as nobody has saved them.

        :param tried: how often each was tried, by its key.
        """
        keys = sorted(tried)  # in one order for all, or two transactions might wait for each other
        token = f"{self.run}:{next(self._claims)}"
        rows = [(self.job, key, FAILED, tried[key], token, UNSURE) for key in keys]
        if self.family == "postgres":
            found = await self._put(conn, rows, f"{_EXCLUDED} RETURNING item, txid_current()")
            return Claim(frozenset(item for item, _ in found), token, found[0][1] if found else None)
        if self._mysql:
            change = _IF_FAILED.format(run="%s", error="%s", state=f"'{FAILED}'")
            await self._put(conn, rows, change, (token, UNSURE))
            found = await self._execute(
                conn, *self._of(f"SELECT item FROM {TABLE}", keys, "run = %s FOR UPDATE", token)
            )
        else:
            found = await self._put(conn, rows, f"{_EXCLUDED} RETURNING item")
        await self._execute(conn, f"SAVEPOINT {_SAVEPOINT}", ())
        return Claim(frozenset(_text(item) for (item,) in found), token, None)

    async def done(self, conn: Any, claim: Claim) -> tuple[bool, bool]:
        """Put down that they are done. Whether that is so of all, and whether this still is the claim's transaction."""
        same = True
        if self.family != "postgres":
            same = False
            with suppress(Exception):  # there is no such savepoint in another transaction; a lost connection shows next
                await self._execute(conn, f"RELEASE SAVEPOINT {_SAVEPOINT}", ())
                same = True
        query, params = self._of(
            f"UPDATE {TABLE} SET state = '{DONE}', error = NULL", claim.keys, _CLAIMED, claim.token
        )
        if self.family == "postgres":
            found = await self._execute(conn, f"{query} RETURNING item, txid_current()", params)
            return len(found) == len(claim.keys), all(number == claim.transaction for _, number in found)
        await self._execute(conn, query, params)
        return same or await self.ours(conn, claim.keys) == claim.keys, same

    async def left(self, conn: Any, claim: Claim, not_begun: Iterable[str]) -> bool:
        """Whether somebody has committed this claim before it was done. If so, those not begun are free again."""
        if not await self._execute(conn, *self._of(f"SELECT item FROM {TABLE}", claim.keys, _CLAIMED, claim.token)):
            return False
        if keys := list(not_begun):
            await self._execute(conn, *self._of(f"DELETE FROM {TABLE}", keys, _CLAIMED, claim.token))
        return True

    async def ours(self, conn: Any, keys: Iterable[str]) -> set[str]:
        """Those that this run has saved."""
        mine = f"state = '{DONE}' AND run LIKE %s"
        rows = await self._execute(conn, *self._of(f"SELECT item FROM {TABLE}", keys, mine, f"{self.run}:%"))
        return {_text(item) for (item,) in rows}

    async def fail(self, conn: Any, failures: Iterable[Failure]) -> None:
        """Put down that they have failed; not where somebody has saved them."""
        run = f"{self.run}:0"
        for failure in sorted(failures, key=lambda failure: failure.key):
            error = self._plain(failure.error)
            rows = [(self.job, failure.key, FAILED, failure.tries, run, error)]
            if self._mysql:
                await self._put(conn, rows, _IF_FAILED.format(run="%s", error="%s", state="state"), (run, error))
            else:
                await self._put(conn, rows, _EXCLUDED)

    async def failures(self, conn: Any, most: int) -> tuple[int, tuple[Failure, ...]]:
        """How many items have failed and were not saved since, and the first of them."""
        job = self._key(self.job)
        where = f"FROM {TABLE} WHERE job = {self._mark} AND state = '{FAILED}'"
        [(number,)] = await self._execute(conn, f"SELECT count(*) {where}", (job,))
        query = f"SELECT item, tries, error {where} ORDER BY item LIMIT {most}"
        rows = await self._execute(conn, query, (job,)) if number else []
        return number, tuple(Failure(_text(item), tries, _text(error)) for item, tries, error in rows)

    async def _put(self, conn: Any, rows: Sequence[Row], or_else: str, more: Row = ()) -> list[Row]:
        values = f"({self._mark}, {self._mark}, %s, %s, %s, %s)"
        params = [param for job, item, *others in rows for param in (self._key(job), self._key(item), *others)]
        return await self._execute(conn, f"{_INSERT} {', '.join([values] * len(rows))} {or_else}", [*params, *more])

    def _of(self, what: str, keys: Iterable[str], more: str = "", *params: Any) -> tuple[str, list[Any]]:
        """A statement about these items, from *what* on."""
        keys = sorted(keys)
        where = f"WHERE job = {self._mark} AND item IN ({', '.join([self._mark] * len(keys))})"
        query = f"{what} {where}{' AND ' + more if more else ''}"
        return query, [self._key(self.job), *map(self._key, keys), *params]

    def _plain(self, text: str) -> str:
        return text.encode("ascii", "backslashreplace").decode() if self._mysql else text

    def _key(self, text: str) -> str:
        return text.encode().hex() if self._mysql else text


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, (bytes, bytearray)) else value
