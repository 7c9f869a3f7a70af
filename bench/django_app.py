"""A Django program for one contestant, in a process of its own.

`python -m bench.django_app <threads|asgi|cycle> <count>`. Its databases come as JSON in BENCH_DJANGO; it prints what it
found as JSON. Nobody in it closes a connection but Django.
"""

import asyncio
import json
import os
import sys
import threading
from collections import Counter
from time import perf_counter
from typing import Any

import django
from asgiref.sync import sync_to_async
from django.conf import settings

from bench.measure import microseconds

AT_ONCE = 50  # requests under way at the same time, in `asgi`


def configure() -> None:
    settings.configure(
        DATABASES=json.loads(os.environ["BENCH_DJANGO"]), ROOT_URLCONF="bench.django_app", ALLOWED_HOSTS=["*"]
    )
    django.setup()


def query(alias: str = "default") -> Any:
    from django.db import connections

    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT 1")
        return cursor.fetchone()[0]


def answer(text: object) -> Any:
    from django.http import HttpResponse

    return HttpResponse(str(text))


def plain(request: Any) -> Any:
    return answer(query())


async def asynchronous(request: Any) -> Any:
    return answer(await sync_to_async(query)())


async def aside(request: Any) -> Any:
    """In a thread of the event loop's executor, which outlives the request."""
    return answer(await asyncio.to_thread(query))


if settings.configured:  # imported by Django, as ROOT_URLCONF
    from django.urls import path

    urlpatterns = [path("plain", plain), path("async", asynchronous), path("aside", aside)]


def threads(count: int) -> dict[str, int]:
    """Many threads at once, each with one query; then one more, to see whether anything is left for it."""
    ended = Counter[str]()

    def one() -> None:
        try:
            query()
            ended["answered"] += 1
        except Exception:
            ended["errors"] += 1

    started = [threading.Thread(target=one) for _ in range(count)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    last = threading.Thread(target=one)
    before = ended["answered"]
    last.start()
    last.join()
    return {**ended, "usable": ended["answered"] - before}


def asgi(count: int) -> dict[str, int]:
    """Requests to views of three kinds, so many at a time."""
    import logging

    from django.core.handlers.asgi import ASGIHandler

    logging.disable()  # a traceback for each that fails
    application: Any = ASGIHandler()
    ended = Counter[str]()

    async def one(kind: str, gate: asyncio.Semaphore) -> None:
        asked = [{"type": "http.request", "body": b"", "more_body": False}]
        status: list[int] = []

        async def receive() -> dict[str, Any]:
            if asked:
                return asked.pop()
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: dict[str, Any]) -> None:
            status.append(message.get("status", 0))

        scope = {"type": "http", "method": "GET", "path": f"/{kind}", "headers": [], "query_string": b""}
        async with gate:
            await application(scope, receive, send)
        ended["answered" if status[0] == 200 else "errors"] += 1

    async def all_of_them() -> None:
        gate = asyncio.Semaphore(AT_ONCE)
        kinds = ("plain", "async", "aside")
        await asyncio.gather(*(one(kinds[number % 3], gate) for number in range(count)))

    asyncio.run(all_of_them())
    return dict(ended)


def cycle(count: int) -> dict[str, float]:
    """Microseconds of a request's share of the database: a query, and Django's end of the request. One thread."""
    from django.db import close_old_connections, connections

    def cycles(alias: str) -> Any:
        def run(number: int) -> None:
            for _ in range(number):
                query(alias)
                close_old_connections()

        return run

    return microseconds({alias: cycles(alias) for alias in connections if alias != "default"})


if __name__ == "__main__":
    configure()
    what, count = sys.argv[1], int(sys.argv[2])
    began = perf_counter()
    found = {"threads": threads, "asgi": asgi, "cycle": cycle}[what](count)
    print(json.dumps({**found, "seconds": perf_counter() - began}))
