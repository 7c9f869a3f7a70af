"""The play of `batch`: an API, a job in a process of its own, which is killed and started again."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from penstock.drill import interrupt
from penstock.drill.api import Api
from penstock.drill.arms.arm import Arm
from penstock.drill.arms.errand import TABLE, Errand
from penstock.drill.batch_result import BatchResult
from penstock.drill.failure import CannotStart
from penstock.drill.measure import Mark, Sampler, look
from penstock.drill.server import Server
from penstock.drill.shape import Batch

SCHEMA = "penstock_drill"  # a place of its own, in whatever database it is
TICK_SECONDS = 0.1
TOO_LONG = 900.0  # for one that has to come to its end
INTERVAL = 0.02  # between two looks at the server

Watch = Callable[[BatchResult, float], None]


def run(result: BatchResult, shape: Batch, server: Server, watch: Watch) -> None:
    """Play it with one arm; `result` grows meanwhile. Raises CannotStart."""
    with (
        Api(shape.api) as api,
        _place(server) as dsn,
        look(server.admin_dsn) as eye,
        Sampler(server.admin_dsn, alone=server.embedded, interval=INTERVAL) as sampler,
    ):
        sampler.wait_until_gone()
        result.samples = sampler.samples
        origin = time.monotonic()
        sampler.begin(origin)
        _play(_Job(result, dsn, api.url), shape, eye, origin, watch)
        _count(result, shape, eye)


class _Job:
    """The arm's, in one process after the other."""

    def __init__(self, result: BatchResult, dsn: str, url: str) -> None:
        self._result = result
        self._posting = (result.arm, dsn, result.pool_size, result.items, url)
        self._context = multiprocessing.get_context("forkserver")

    @contextmanager
    def process(self) -> Iterator[Any]:
        """One of them, for the length of the block; killed at its end."""
        with interrupt.held_back():
            ours, theirs = self._context.Pipe()
            process = self._context.Process(target=_do, args=(*self._posting, theirs), daemon=True)
            process.start()
            theirs.close()
        try:
            yield process
        finally:
            process.kill()
            process.join()
            if process.exitcode != -signal.SIGKILL and (said := _said(ours)):
                self._result.errors_told.append(said)


def _play(job: _Job, shape: Batch, eye: psycopg.Connection[Any], origin: float, watch: Watch) -> None:
    result = job._result
    judged = result.arm.judged
    end = origin + (TOO_LONG if judged else result.seconds)
    kills = [share * result.items for share in shape.kills] if judged else [shape.killed_at]
    while True:
        with job.process() as process:
            while process.is_alive() and time.monotonic() < end and (judged or _still(result) < shape.patience):
                process.join(TICK_SECONDS)
                now = time.monotonic() - origin
                result.progress.append((now, _rows(eye)))
                result.memory.append((now, _memory(process.pid)))
                watch(result, now)
                if kills and result.rows >= kills[0]:
                    break
            of_itself = not process.is_alive()
            result.ends.append((time.monotonic() - origin, of_itself))
        if of_itself or not kills or result.rows < kills.pop(0):
            return
        result.marks.append(Mark(time.monotonic() - origin, "SIGKILL"))


def _still(result: BatchResult) -> float:
    """Seconds in which nothing was saved, once anything was."""
    return result.progress[-1][0] - result.last_saved if result.rows else 0.0


def _rows(eye: psycopg.Connection[Any]) -> int:
    row = eye.execute(f"SELECT count(*) FROM {SCHEMA}.{TABLE}").fetchone()
    assert row is not None
    return int(row[0])


def _memory(pid: int) -> int:
    """What a process has in memory, in bytes; 0 once it has ended."""
    try:
        with open(f"/proc/{pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _count(result: BatchResult, shape: Batch, eye: psycopg.Connection[Any]) -> None:
    """When nothing is written any more."""
    result.progress.append((result.ends[-1][0], _rows(eye)))
    row = eye.execute(f"SELECT count(DISTINCT id), coalesce(max(id) + 1, 0) FROM {SCHEMA}.{TABLE}").fetchone()
    assert row is not None
    result.distinct, result.passed = int(row[0]), int(row[1])
    if result.complete:
        result.passed = result.items
    row = eye.execute("SELECT to_regclass(%s) IS NOT NULL", (f"{SCHEMA}.penstock_batch",)).fetchone()
    if row is not None and row[0]:
        row = eye.execute(f"SELECT count(*) FROM {SCHEMA}.penstock_batch WHERE state = 'failed'").fetchone()
        assert row is not None
        result.failed_items = int(row[0])


@contextmanager
def _place(server: Server) -> Iterator[str]:
    """A schema with an empty table, for the length of the block; how to connect to it. Raises CannotStart."""
    role = conninfo_to_dict(server.dsn).get("user") or conninfo_to_dict(server.admin_dsn).get("user") or ""
    owner = sql.Identifier(str(role)) if role else sql.SQL("CURRENT_USER")
    with look(server.admin_dsn) as admin:
        try:
            admin.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
            admin.execute(sql.SQL(f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {{}}").format(owner))
            admin.execute(f"CREATE TABLE {SCHEMA}.{TABLE} (id bigint, name text)")
            admin.execute(sql.SQL(f"ALTER TABLE {SCHEMA}.{TABLE} OWNER TO {{}}").format(owner))
        except psycopg.Error as error:
            raise CannotStart(f"this scenario needs a schema of its own, {SCHEMA}: {error}") from None
        options = f"{conninfo_to_dict(server.dsn).get('options') or ''} -c search_path={SCHEMA}".strip()
        try:
            yield make_conninfo(server.dsn, options=options)
        finally:
            admin.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")


def _do(arm: type[Arm], dsn: str, pool_size: int, items: int, url: str, pipe: Connection) -> None:
    """In the process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is for whoever drills
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    job = arm(dsn, pool_size)
    assert isinstance(job, Errand)
    try:
        job.run(items, url)
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")


def _said(pipe: Connection) -> str | None:
    try:
        return str(pipe.recv()) if pipe.poll() else None
    except EOFError:
        return None


def _end_with(parent: int) -> None:
    wait([parent])
    os._exit(1)
