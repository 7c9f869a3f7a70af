"""A job over users: an API is asked about each, and the answer saved once, whatever ends the job in between.

    DSN=postgresql://localhost/postgres .venv/bin/python examples/batch_users.py 1000

Kill it, press Ctrl-C, start it again: it goes on where it was. API names the API; without it, one that is slow and now
and then fails is started on loopback.
"""

import os
import sys
from contextlib import ExitStack

import httpx
import psycopg

from penstock import Pool
from penstock.batch import Rate, Retry, for_each
from penstock.drill.api import Api, Behaviour


def ask(user: int, http: httpx.Client) -> str:
    """Holds no connection; an answer such as 429 or 503 is asked for again."""
    answer = http.get(f"/users/{user}")
    answer.raise_for_status()
    return answer.json()["name"]


def save(conn: psycopg.Connection, user: int, name: str) -> None:
    """In the transaction that the checkpoint is part of, too."""
    conn.execute("INSERT INTO users (id, name) VALUES (%s, %s)", (user, name))


def main() -> None:
    with ExitStack() as stack:
        url = os.environ.get("API") or stack.enter_context(Api(Behaviour(failing=100))).url
        pool = stack.enter_context(Pool(os.environ["DSN"], min_size=1, max_size=4, name="users"))
        with pool.connection() as conn:
            conn.execute("CREATE TABLE IF NOT EXISTS users (id bigint, name text)")
        report = for_each(
            range(int(sys.argv[1])),
            ask,
            save=save,
            pool=pool,
            job="users-2026-11",
            http={"base_url": url},
            rate=Rate(500, burst=50),
            retry=Retry(attempts=5, seconds=60),
        )
        print(report)
        print("over", pool.snapshot().connects, "connections")


if __name__ == "__main__":
    main()
