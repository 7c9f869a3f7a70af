# audit: pooling=transaction
"""Drivers that prepare statements unless they are told not to."""

import psycopg
from psycopg_pool import ConnectionPool

pool = ConnectionPool("dbname=app", open=False)  # expect: PEN709


def connects():
    with psycopg.connect("dbname=app") as conn:  # expect: PEN709
        return conn.execute("SELECT 1").fetchone()
