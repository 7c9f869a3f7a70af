"""The program's own line among those of the libraries between it and the driver, and who called that."""

from __future__ import annotations

import sys
import sysconfig
from types import CodeType, FrameType
from typing import NamedTuple

from ..integrations.caller import caller
from ..pool.holders import CallSite, call_site

Line = tuple[CodeType, int]  # a code object and the instruction in it: the line's number is worked out when asked for

# Between a connection and who asked for it. What is opened there is opened for the pool, and is the pool's to close.
_POOLS = {
    "sqlalchemy": "SQLAlchemy's pool",
    "psycopg_pool": "psycopg_pool",
    "psycopg2.pool": "psycopg2.pool",
    "asyncpg.pool": "asyncpg's pool",
    "aiomysql.pool": "aiomysql's pool",
    "aiomysql.sa": "aiomysql's pool",
    "mysql.connector.pooling": "mysql.connector's pool",
    "dbutils": "DBUtils",
}
BETWEEN = ("contextlib", "functools")  # the program's on either side
_LOOPS = ("asyncio.events", "asyncio.base_events", "asyncio.runners")
_DEPTH = 3  # of the program's lines that are kept: helpers call helpers
_FOLDERS = tuple(
    {f"{path}/" for path in map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib", "scripts")) if path}
)
_MOST_FILES = 10_000
_libraries: dict[str, bool] = {}  # by file


class Asked(NamedTuple):
    """*lines*: the program's, innermost first: where the connection was asked for, and who called that.

    *pool*: what pool it was opened for, if a library of the program's has one. *by_django*: Django has opened it.
    """

    lines: tuple[Line, ...]
    pool: str | None = None
    by_django: bool = False


def asked(frame: FrameType) -> Asked | None:
    """Who asks for a connection, from *frame* outwards. None: a pool of Penstock's, which tells of itself."""
    lines: list[Line] = []
    pool: str | None = None
    by_django = False
    each: FrameType | None = frame
    while each is not None and len(lines) < _DEPTH:
        module = each.f_globals.get("__name__", "")
        if _is_library(each.f_code.co_filename, module):
            if lines and module not in BETWEEN:
                break
            if module.startswith("penstock.") and not module.startswith("penstock.guard."):
                return None
            if module in _LOOPS and not lines:
                break  # who runs the event loop has not asked
            pool = pool or _pool(module, each.f_code)
            by_django = by_django or module.startswith("django.db.")
        else:
            lines.append((each.f_code, each.f_lasti))
        each = each.f_back
    return Asked(tuple(lines) or (caller(frame),), pool, by_django)


def _pool(module: str, code: CodeType) -> str | None:
    if module == "mysql.connector.pooling" and not code.co_qualname.startswith("MySQLConnectionPool"):
        return None  # its `connect` lives there, too
    return _POOLS.get(module) or _POOLS.get(module.partition(".")[0])


def sites(lines: tuple[Line, ...]) -> tuple[CallSite, ...]:
    return tuple(call_site(code, lasti) for code, lasti in lines)


def own(stack: tuple[CallSite, ...]) -> tuple[CallSite, ...]:
    """Of lines of code the program's, if there is one among them. Those of an event loop tell nothing of anybody."""
    mine = tuple(line for line in stack if not _is_library(line.file, ""))
    return mine or tuple(line for line in stack if "/asyncio/" not in line.file)


def _is_library(file: str, module: str) -> bool:
    known = _libraries.get(file)
    if known is None:
        if file.startswith("<"):  # made at run time, frozen, or typed in: each such "file" is many
            return file.startswith("<frozen") or _is_installed(sys.modules.get(module.partition(".")[0]))
        known = file.startswith(_FOLDERS) or "/site-packages/" in file or "/dist-packages/" in file
        known = known or module.startswith("penstock.")
        if len(_libraries) < _MOST_FILES:
            _libraries[file] = known
    return known


def is_library(file: str) -> bool:
    """Whether a line in *file* is not the program's own."""
    return _is_library(file, "")


def _is_installed(module: object) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and _is_library(file, "")
