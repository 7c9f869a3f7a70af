"""How long a scrape of many pools takes, and whether memory grows with the number of scrapes.

A scrape is what prometheus_client hands to whoever asks, the whole page as text; writing it takes it most of the time.
"""

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice, repeat
from statistics import median
from time import perf_counter, thread_time

from prometheus_client import CollectorRegistry, generate_latest

import penstock
from bench.context import Context
from bench.measure import quantile
from bench.report import Result, at_most
from penstock.observe import prometheus

CLAIM = "a scrape of 50 pools, and memory over 100,000 scrapes"
BAR = "<= 20 ms, memory flat"

POOLS, SCRAPES = 50, 200
MANY, QUICK, FIRST = 100_000, 5_000, 2_000
BAR_MS, BAR_KIB = 20.0, 512.0
PAGE = os.sysconf("SC_PAGE_SIZE")


def run(ctx: Context) -> Result:
    with _pools(ctx.dsn, POOLS) as (registry, page):
        times, works = [], []
        for _ in range(SCRAPES):
            started, worked = perf_counter(), thread_time()
            generate_latest(registry)
            works.append((thread_time() - worked) * 1e3)
            times.append((perf_counter() - started) * 1e3)
        lines, p99 = len(page.splitlines()), quantile(times, 0.99)
        beside = f"{lines:,} lines; p99 {p99:.1f} ms; of a processor {median(works):.1f} ms"
    scrapes = QUICK if ctx.quick else MANY
    with _pools(ctx.dsn, 2) as (registry, _):
        before, after = _memory(registry, FIRST), _memory(registry, scrapes)
    return [
        at_most(f"scrape of {POOLS} pools", median(times), BAR_MS, "ms", beside),
        at_most(f"memory, after {scrapes:,} more scrapes", (after - before) / 1024, BAR_KIB, "KiB"),
    ]


@contextmanager
def _pools(dsn: str, count: int) -> Iterator[tuple[CollectorRegistry, bytes]]:
    """So many, each used before; a registry that has them, and what it tells."""
    registry = CollectorRegistry()
    unregister = prometheus.register(registry)
    with ExitStack() as stack:
        for number in range(count):
            pool = stack.enter_context(penstock.Pool(dsn, min_size=1, open=False, name=f"service-{number}"))
            pool.wait()
            for _ in range(20):
                with pool.connection():
                    pass
        page = generate_latest(registry)
        assert page.count(b"\ndb_client_connection_max{") == count
        yield registry, page
    unregister()


def _memory(registry: CollectorRegistry, scrapes: int) -> int:
    """Bytes of this process that are in memory, after so many more. Every tenth comes from another thread."""
    for _ in islice(repeat(None), scrapes // 10):
        for _ in range(9):
            generate_latest(registry)
        other = threading.Thread(target=generate_latest, args=(registry,))
        other.start()
        other.join()
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE
