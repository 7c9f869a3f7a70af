"""Shapes that are met in programs, and look worse than they are."""

import asyncio
import queue
import time
from contextlib import asynccontextmanager, suppress

import asyncpg
import psycopg2
import pymysql
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import Session, sessionmaker


class Filled:
    def __init__(self, dsn, size):
        self.idle = queue.Queue()
        for _ in range(size):
            self.idle.put(psycopg2.connect(dsn))
        self.more = []
        for _ in range(size):
            conn = psycopg2.connect(dsn)
            self.more.append(conn)


def one_for_each_database(names):
    for name in names:
        conn = psycopg2.connect(dbname=name)
        try:
            conn.cursor().execute("VACUUM")
        finally:
            conn.close()


async def listens(dsn, stop, handler):
    while not stop.is_set():
        conn = None
        try:
            conn = await asyncpg.connect(dsn)
            await conn.add_listener("jobs", handler)
            while not stop.is_set():
                await asyncio.sleep(5)
        except OSError:
            await asyncio.sleep(1)
        finally:
            if conn is not None:
                await conn.close()


def waits_until_it_is_up(settings):
    waiting = True
    while waiting:
        with suppress(pymysql.Error):
            conn = pymysql.connect(**settings)
            conn.close()
            waiting = False
        time.sleep(1)


def given_or_opened(dsn, conn=None):
    should_close = conn is None
    if conn is None:
        conn = psycopg2.connect(dsn)
    try:
        conn.cursor().execute("SELECT 1")
    finally:
        if should_close:
            conn.close()


def of_one_kind_or_the_other(pool, dsn, pooled):
    if pooled:
        conn = pool.getconn()
    else:
        conn = psycopg2.connect(dsn)
    try:
        conn.cursor().execute("SELECT 1")
    finally:
        if pooled:
            pool.putconn(conn)
        else:
            conn.close()


class Wrapped:
    def __init__(self, conn):
        self.conn = conn

    @classmethod
    def connect(cls, dsn):
        conn = psycopg2.connect(dsn)
        conn.autocommit = True
        return cls(conn)


class Reconnecting:
    def __init__(self, dsn, fresh):
        self.dsn = dsn
        if fresh:
            self.conn = psycopg2.connect(dsn, dbname="postgres")
            self.conn.close()
        self.conn = psycopg2.connect(dsn)
        self.cur = self.conn.cursor()


def detached(url):
    engine = the_engine()
    fairy = engine.raw_connection()
    raw = fairy.driver_connection
    fairy.detach()
    return raw


_engines = {}


def the_engine(url="postgresql://localhost/app"):
    if url not in _engines:
        _engines[url] = create_engine(url)
    return _engines[url]


class Layer:
    def __init__(self, url):
        self.engine: AsyncEngine = create_async_engine(url)
        self.sessions = sessionmaker(bind=self.engine)

    async def create(self, metadata):
        async with self.engine.begin() as conn:
            await conn.run_sync(metadata.create_all)


class Either:
    def __init__(self, url, is_async):
        if is_async:
            self.engine = create_async_engine(url)
        else:
            self.engine = create_engine(url)

    async def create(self, metadata):
        async with self.engine.begin() as conn:
            await conn.run_sync(metadata.create_all)


@asynccontextmanager
async def pooled(dsn):
    async with asyncpg.create_pool(dsn) as pool:
        yield pool


def factory(url):
    engine = create_engine(url)
    maker = sessionmaker(bind=engine)
    return engine, maker


def handed_to_something(url, tool):
    engine = create_engine(url)
    return tool(engine)


def on_a_connection(connection):
    session = Session(bind=connection)
    session.execute("SELECT 1")
    session.commit()


def prepares(path):
    conn = psycopg2.connect(path)
    with conn.cursor() as cur:
        cur.execute("SET statement_timeout = 5000")
    return conn


async def cleans_up_step_by_step(dsn, handler, stop):
    conn = None
    try:
        conn = await asyncpg.connect(dsn)
        await conn.add_listener("jobs", handler)
        await stop.wait()
    finally:
        if conn is not None and not conn.is_closed():
            with suppress(Exception):
                await conn.remove_listener("jobs", handler)
            await conn.close()


def rolls_back_first(dsn):
    conn = psycopg2.connect(dsn)
    try:
        conn.cursor().execute("SELECT 1")
        conn.commit()
    except psycopg2.Error:
        conn.rollback()
        raise
    finally:
        conn.cursor().execute("RESET ALL")
        conn.close()
