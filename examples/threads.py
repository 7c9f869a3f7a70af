"""A thousand requests by fifty threads over four connections. DSN is taken from the environment.

    DSN=postgresql://localhost/postgres .venv/bin/python examples/threads.py

`penstock.drill.postgres.EmbeddedPostgres` starts a server to try it on; its `dsn` leads there.
"""

import os
from concurrent.futures import ThreadPoolExecutor

from penstock import Pool


def request(pool: Pool, number: int) -> int:
    with pool.connection() as conn:
        row = conn.execute("SELECT %s::int", (number,)).fetchone()
    return row[0] if row else -1


def main() -> None:
    with Pool(os.environ["DSN"], min_size=4, name="example") as pool, ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(lambda number: request(pool, number), range(1000)))
        print(len(answers), "answers over", pool.snapshot().connects, "connections")


if __name__ == "__main__":
    main()
