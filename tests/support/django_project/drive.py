"""Drives the project's ASGI application as a server would, and watches from the database what it opens.

`python -m support.django_project.drive <requests>`: prints, as JSON, how many were answered and refused, and the most
connections that the server ever had of it.
"""

import asyncio
import json
import sys
import threading
from collections import Counter
from contextlib import closing
from typing import Any

from .asgi import application  # before anything else of Django's

from django.core.management import call_command  # isort: skip
from django.db import connection, connections  # isort: skip

from .models import Order  # isort: skip

PATHS = ("plain", "async", "streamed", "threads", "session")


LOOKS = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
    "mysql": "SELECT count(*) FROM information_schema.processlist WHERE db = %s AND id <> connection_id()",
}


def watch(ended: threading.Event, seen: list[int]) -> None:
    """The most connections of this project that the server has had at once."""
    settings = {**connection.settings_dict, "OPTIONS": {"pool": False}}
    watching = connections["default"].copy()
    watching.settings_dict = settings
    with closing(watching), watching.cursor() as cursor:
        while not ended.wait(0.002):
            cursor.execute(LOOKS[watching.vendor], [settings["NAME"]])
            seen.append(cursor.fetchone()[0])


async def request(path: str, leaves: bool) -> str:
    """The status; *leaves*: the client goes away before it is answered."""
    scope = {"type": "http", "method": "GET", "path": f"/{path}", "headers": [], "query_string": b""}
    said: list[dict[str, Any]] = []
    asked = iter([{"type": "http.request", "body": b"", "more_body": False}])
    gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        for message in asked:
            return message
        if not leaves:
            await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    await application(scope, receive, send)
    return str(said[0]["status"]) if said else "left"


async def drive(requests: int) -> Counter[str]:
    ended = Counter[str]()
    gate = asyncio.Semaphore(40)

    async def one(number: int) -> None:
        async with gate:
            ended[await request(PATHS[number % len(PATHS)], leaves=number % 7 == 0)] += 1

    async with asyncio.TaskGroup() as group:
        for number in range(requests):
            group.create_task(one(number))
    return ended


if __name__ == "__main__":
    call_command("migrate", verbosity=0)
    Order.objects.bulk_create([Order(name=f"order {number}") for number in range(9)])
    connection.close()
    over, seen = threading.Event(), [0]
    watcher = threading.Thread(target=watch, args=(over, seen))
    watcher.start()
    ended = asyncio.run(drive(int(sys.argv[1])))
    over.set()
    watcher.join()
    print(json.dumps({"ended": ended, "most": max(seen), "looks": len(seen)}))
