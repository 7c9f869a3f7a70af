"""Pools without a bound, and pools that a fork copies."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import psycopg2
import pymysql
from dbutils.pooled_db import PooledDB
from sqlalchemy import create_engine, text

unbounded = create_engine("postgresql://localhost/app", pool_size=5, max_overflow=-1)  # expect: PEN301
nothing = create_engine("postgresql://localhost/app", pool_size=0)  # expect: PEN301
shared = PooledDB(pymysql, host="db", user="app")  # expect: PEN301
zero = PooledDB(creator=pymysql, maxconnections=0, host="db")  # expect: PEN301

engine = create_engine("postgresql://localhost/app")  # expect: PEN303
conn = psycopg2.connect("dbname=app")  # expect: PEN303


def child(part):
    with engine.begin() as inner:
        inner.execute(text("DELETE FROM t WHERE p = :p"), {"p": part})


def other_child(part):
    conn.cursor().execute("DELETE FROM t WHERE p = %s", (part,))


def starts():
    process = multiprocessing.Process(target=child, args=(1,))
    process.start()
    process.join()


def spreads(parts):
    with ProcessPoolExecutor() as executor:
        return list(executor.map(other_child, parts))
