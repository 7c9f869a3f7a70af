"""Checkouts for `admission_cost`, in a process of their own: whichever Penstock comes first on its path.

Reads lines of JSON, ``[shell, cycles]``, and answers each with the seconds that those cycles took. It has to run with
releases that know nothing of deadlines.
"""

import asyncio
import gc
import json
import sys
from contextlib import nullcontext
from time import perf_counter
from typing import Any

import penstock


def threads(kind: str, cycles: int, pool: Any) -> float:
    """Seconds for so many checkouts by one thread."""
    started = perf_counter()
    if kind == "deadline":
        for _ in range(cycles):
            with penstock.deadline(5), pool.connection():
                pass
    else:
        with penstock.deadline(60) if kind == "one deadline" else nullcontext():
            for _ in range(cycles):
                with pool.connection():
                    pass
    return perf_counter() - started


async def tasks(kind: str, cycles: int, pool: Any) -> float:
    """Seconds for so many checkouts by one task."""
    started = perf_counter()
    if kind == "deadline":
        for _ in range(cycles):
            with penstock.deadline(5):
                async with pool.connection():
                    pass
    else:
        with penstock.deadline(60) if kind == "one deadline" else nullcontext():
            for _ in range(cycles):
                async with pool.connection():
                    pass
    return perf_counter() - started


async def main(dsn: str, kind: str) -> None:
    """Serve until the input ends."""
    options: dict[str, Any] = {"min_size": 4, "max_size": 4, "open": False}
    if kind == "overload=":
        options["overload"] = penstock.Overload()
    async with penstock.AsyncPool(dsn, **options) as for_tasks:
        with penstock.Pool(dsn, **options) as for_threads:
            await for_tasks.wait()
            for_threads.wait()
            print(json.dumps([penstock.__file__, hasattr(penstock, "deadline")]), flush=True)
            for line in sys.stdin:
                shell, cycles = json.loads(line)
                gc.collect()
                if shell == "threads":
                    seconds = threads(kind, cycles, for_threads)
                else:
                    seconds = await tasks(kind, cycles, for_tasks)
                print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
