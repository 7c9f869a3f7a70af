"""Uses a pool, forks, uses it in the child. Run by `process.fork_after_use` in an interpreter of its own.

    DSN=... python -m bench.shame.fork contestant

Prints what the child got: a backend of its own, the parent's, or an error.
"""

import os
import select
import signal
import sys

from bench.shame.pools import Contestant, Options, opened

PATIENCE = 2.0  # seconds that the child may wait for a connection


def main(name: str, dsn: str) -> str:
    """In a word or two."""
    pool = opened(name, dsn, Options(1, timeout=PATIENCE))
    parents = _backend(pool)
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, _told(pool).encode())
        os._exit(0)
    told = os.read(reader, 200).decode() if select.select([reader], [], [], 2 * PATIENCE)[0] else "hangs"
    os.kill(child, signal.SIGKILL)  # a zombie does not mind
    os.waitpid(child, 0)
    return "the parent's" if told == str(parents) else "its own" if told.isdigit() else told


def _told(pool: Contestant) -> str:
    try:
        return str(_backend(pool))
    except Exception as error:
        return type(error).__name__


def _backend(pool: Contestant) -> int:
    connection = pool.take()
    try:
        return pool.ask(connection)
    finally:
        pool.give(connection)


if __name__ == "__main__":
    print(main(sys.argv[1], os.environ["DSN"]), flush=True)
    os._exit(0)  # whatever the fork left in the pool is not to be waited for
