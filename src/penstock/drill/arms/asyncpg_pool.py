"""asyncpg's own pool, in asyncio: a task for each request."""

from itertools import count
from re import sub
from typing import Any, ClassVar
from urllib.parse import urlencode

from psycopg.conninfo import conninfo_to_dict

from penstock.drill.arms.arm import AsyncArm
from penstock.drill.work import Request

# What asyncpg takes from a URL. It would send any other name to the server as a setting.
_KNOWN = [
    *["host", "port", "user", "password", "passfile", "dbname", "target_session_attrs", "krbsrvname"],
    *["sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "application_name", "options"],
]


class AsyncpgPool(AsyncArm):
    """`create_pool(dsn, min_size=1)`: up to 10 connections in each instance, and no limit to the wait for one.

    The library's own minimum is 10 as well, with which three instances could not even start below this line.
    """

    name: ClassVar[str] = "asyncpg"
    title: ClassVar[str] = "asyncpg as people configure it"
    package: ClassVar[str] = "asyncpg"

    def __init__(self, dsn: str, pool_size: int) -> None:
        parts: dict[str, Any] = {name: value for name, value in conninfo_to_dict(dsn).items() if value is not None}
        parts["host"] = parts.get("hostaddr") or parts.get("host") or ""
        self._url = "postgresql://?" + urlencode({name: parts[name] for name in _KNOWN if name in parts})

    async def open(self) -> None:
        import asyncpg  # type: ignore[import-untyped]

        self._pool = await asyncpg.create_pool(self._url, min_size=1)

    async def serve(self, work: Request) -> None:
        async with self._pool.acquire() as connection:
            await work.awaited(lambda sql, parameters: connection.fetchrow(numbered(sql), *parameters))

    async def close(self) -> None:
        self._pool.terminate()  # close() would wait for every request that still waits


def numbered(sql: str) -> str:
    """Return `sql` with $1, $2 and so on in place of each %s."""
    numbers = count(1)
    return sub("%s", lambda found: f"${next(numbers)}", sql)
