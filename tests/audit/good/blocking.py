"""Drivers that wait where nobody else does."""

import asyncio

import asyncpg
import psycopg
import psycopg2
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine("postgresql+asyncpg://localhost/app")


async def awaits(dsn):
    conn = await asyncpg.connect(dsn)
    try:
        await conn.execute("SELECT 1")
    finally:
        await conn.close()


async def enters(dsn):
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        await conn.execute("SELECT 1")


async def checks_out():
    async with engine.connect() as conn:
        await conn.exec_driver_sql("SELECT 1")


def work(dsn):
    conn = psycopg2.connect(dsn)
    try:
        conn.cursor().execute("SELECT 1")
    finally:
        conn.close()


async def in_a_thread(dsn):
    await asyncio.to_thread(work, dsn)


async def in_a_function_of_its_own(dsn):
    def blocking():
        conn = psycopg2.connect(dsn)
        try:
            conn.cursor().execute("SELECT 1")
        finally:
            conn.close()

    await asyncio.get_running_loop().run_in_executor(None, blocking)
