"""Settings for Python: SQLAlchemy, Django, psycopg's and asyncpg's pools, and variables for whatever reads them."""

from __future__ import annotations

from .share import CONNECT, IDLE, LIFETIME, PREPARED, WAIT, Share


def sqlalchemy(share: Share) -> str:
    """An engine. All of the share is pool_size: connections of max_overflow are closed again as they come back."""
    prepared = ""
    if share.pooler is not None:
        prepared = f"""        "prepare_threshold": None,  # psycopg 3; asyncpg: "statement_cache_size": 0
        # {PREPARED}
"""
    return f'''{share.comment("#")}import os

from sqlalchemy import create_engine

engine = create_engine(
    os.environ["{share.variable}"],
    pool_size={share.each},  # of each process
    max_overflow=0,  # nothing beyond it
    pool_timeout={WAIT},  # seconds to wait for a connection before it raises
    pool_recycle={LIFETIME},  # seconds until a connection is replaced
    pool_pre_ping=True,  # a connection that died while idle is noticed before it is used
    connect_args={{
        "connect_timeout": {CONNECT},  # seconds; asyncpg calls it "timeout"
{prepared}    }},
)
'''


def django(share: Share) -> str:
    """DATABASES with psycopg's pool; without it Django has a connection for each thread."""
    through = ""
    if share.pooler is not None:
        through = "        # In transaction mode the next part of a cursor may be asked of another connection.\n"
        through += '        "DISABLE_SERVER_SIDE_CURSORS": True,\n'
    prepared = f'            "prepare_threshold": None,  # {PREPARED}\n' if share.pooler is not None else ""
    stay = "Needs Django 5.1 and psycopg[pool]. NAME, HOST, USER and PASSWORD stay as they are."
    return f"""{share.comment("#", stay)}
DATABASES = {{
    "default": {{
        "ENGINE": "django.db.backends.postgresql",
        "CONN_MAX_AGE": 0,  # the pool keeps connections; Django refuses both
        "CONN_HEALTH_CHECKS": True,  # a connection that died while idle is noticed before it is used
{through}        "OPTIONS": {{
            "connect_timeout": {CONNECT},  # seconds
{prepared}            "pool": {{
                "min_size": {share.warm},
                "max_size": {share.each},  # of each process
                "timeout": {WAIT},  # seconds to wait for a connection before it raises
                "max_idle": {IDLE},
                "max_lifetime": {LIFETIME},
            }},
        }},
    }},
}}
"""


def psycopg(share: Share) -> str:
    """psycopg's own pool; `penstock.Pool` takes the same arguments."""
    prepared = f'        "prepare_threshold": None,  # {PREPARED}\n' if share.pooler is not None else ""
    ours = f'penstock.Pool.from_budget("{share.service.name}") reads its size and URL from the file itself.'
    return f'''{share.comment("#", ours)}import os

from psycopg_pool import ConnectionPool  # AsyncConnectionPool takes the same

pool = ConnectionPool(
    os.environ["{share.variable}"],
    min_size={share.warm},
    max_size={share.each},  # of each process
    timeout={WAIT},  # seconds to wait for a connection before it raises
    max_idle={IDLE},
    max_lifetime={LIFETIME},  # seconds until a connection is replaced
    check=ConnectionPool.check_connection,  # one that died while idle is noticed before it is used
    kwargs={{
        "connect_timeout": {CONNECT},
{prepared}    }},
    open=False,  # pool.open() when the process has forked for the last time
)
'''


def asyncpg(share: Share) -> str:
    """asyncpg's pool. It has no limit on waiting of its own: acquire() must be given one."""
    prepared = f"        statement_cache_size=0,  # {PREPARED}\n" if share.pooler is not None else ""
    return f'''{share.comment("#")}import os

import asyncpg


async def make_pool() -> asyncpg.Pool:
    return await asyncpg.create_pool(
        os.environ["{share.variable}"],
        min_size={share.warm},
        max_size={share.each},  # of each process
        timeout={CONNECT},  # seconds to connect
        command_timeout=30,  # seconds for a statement
        max_inactive_connection_lifetime={IDLE},
{prepared}    )


# It waits for ever unless it is told otherwise: async with pool.acquire(timeout={WAIT}) as connection:
'''


def env(share: Share) -> str:
    """Variables, for an application that reads its settings from them."""
    more = "WEB_CONCURRENCY is read by gunicorn and uvicorn themselves; the rest your settings must read."
    prepared = [] if share.pooler is None else [PREPARED]
    return f"""{share.comment("#", more, *prepared)}WEB_CONCURRENCY={share.service.processes}
DB_POOL_SIZE={share.each}
DB_MAX_OVERFLOW=0
DB_POOL_MIN_SIZE={share.warm}
DB_POOL_TIMEOUT={WAIT}
DB_POOL_RECYCLE={LIFETIME}
DB_CONNECT_TIMEOUT={CONNECT}
"""
