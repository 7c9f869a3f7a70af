"""Drivers that stop an event loop."""

import psycopg
import psycopg2
import pymysql
from fastapi import FastAPI
from psycopg_pool import ConnectionPool
from sqlalchemy import create_engine, text

app = FastAPI()
pool = ConnectionPool("dbname=app", open=False)
engine = create_engine("postgresql://localhost/app")


@app.get("/a")
async def connects(dsn: str):
    conn = psycopg2.connect(dsn)  # expect: PEN202, PEN601
    try:
        conn.cursor().execute("SELECT 1")
    finally:
        conn.close()


async def checks_out():
    with pool.connection() as conn:  # expect: PEN601
        return conn.execute("SELECT 1").fetchone()


async def checks_an_engine_out():
    with engine.connect() as conn:  # expect: PEN601
        return conn.execute(text("SELECT 1")).scalar()


async def of_mysql(settings):
    with pymysql.connect(**settings) as conn, conn.cursor() as cur:  # expect: PEN601
        cur.execute("SELECT 1")


async def by_the_wrong_class(dsn):
    with psycopg.connect(dsn) as conn:  # expect: PEN601
        conn.execute("SELECT 1")


def connected():
    return psycopg2.connect("dbname=app")


async def by_a_helper():
    conn = connected()  # expect: PEN601
    try:
        conn.cursor().execute("SELECT 1")
    finally:
        conn.close()
