# audit: pooling=transaction
"""What is safe behind PgBouncer in transaction mode, beside what only looks like its opposite."""

import asyncpg
import psycopg
import psycopg2
import pymysql
from django.db import connection, transaction
from sqlalchemy import create_engine, text

dsn = "dbname=app connect_timeout=3"
engine = create_engine("postgresql+psycopg2://localhost/app")


def settings(tenant):
    conn = psycopg2.connect(dsn)
    try:
        with conn, conn.cursor() as cur:
            cur.execute("SET LOCAL statement_timeout = '5s'")
            cur.execute("SELECT set_config('app.tenant', %s, true)", (tenant,))
            cur.execute("SET LOCAL ROLE reader")
            cur.execute("SET TRANSACTION READ ONLY")
            cur.execute("SET CONSTRAINTS ALL DEFERRED")
    finally:
        conn.close()


def followed_by_pgbouncer():
    conn = psycopg2.connect(dsn)
    try:
        with conn, conn.cursor() as cur:
            cur.execute("SET timezone TO 'UTC'")
            cur.execute("SET TIME ZONE 'UTC'")
            cur.execute("SET DateStyle = 'ISO'")
            cur.execute("SET client_encoding TO 'UTF8'")
            cur.execute("SET NAMES 'UTF8'")
            cur.execute("SET application_name = 'worker'")
            cur.execute("SET standard_conforming_strings = on")
    finally:
        conn.close()


def within_one_transaction(number):
    conn = psycopg2.connect(dsn)
    try:
        with conn, conn.cursor() as cur:
            cur.execute("SELECT pg_advisory_xact_lock(%s)", (number,))
            cur.execute("SELECT pg_try_advisory_xact_lock(%s)", (number,))
            cur.execute("CREATE TEMP TABLE seen (id int) ON COMMIT DROP")
            cur.execute("CREATE TEMP TABLE other (id int)")
            cur.execute("DROP TABLE other")
            cur.execute("DECLARE c CURSOR FOR SELECT * FROM t")
            cur.execute("FETCH 10 FROM c")
            cur.execute("INSERT INTO t VALUES (1)")
            cur.execute("SELECT currval('t_id_seq')")
            cur.execute("NOTIFY changes")
            cur.execute("SELECT pg_notify('changes', 'one')")
            cur.execute("COPY t TO STDOUT")
    finally:
        conn.close()


def only_words():
    conn = psycopg2.connect(dsn)
    try:
        with conn, conn.cursor() as cur:
            cur.execute("UPDATE t SET role = 'SET ROLE x'")
            cur.execute("INSERT INTO log VALUES ('LISTEN x; RESET ALL')")
            cur.execute("/* SET search_path = x */ SELECT 1 -- DISCARD ALL")
            cur.execute("INSERT INTO help VALUES ($$SELECT pg_advisory_lock(1)$$)")
            cur.execute("SELECT listen, load FROM prepare")
    finally:
        conn.close()


async def in_a_block(pool: asyncpg.Pool):
    async with pool.acquire() as conn, conn.transaction():
        await conn.execute("SET LOCAL statement_timeout = 500")
        await conn.execute("DECLARE c CURSOR FOR SELECT * FROM t")
        await conn.execute("COPY t TO STDOUT")
        await conn.execute("INSERT INTO t VALUES (1)")
        await conn.fetchval("SELECT lastval()")


async def in_one_message(pool: asyncpg.Pool):
    async with pool.acquire() as conn:
        await conn.execute("BEGIN; SET LOCAL statement_timeout = 500; UPDATE t SET a = 1; COMMIT")


async def begun_in_sql(pool: asyncpg.Pool):
    async with pool.acquire() as conn:
        await conn.execute("BEGIN")
        await conn.execute("SET LOCAL statement_timeout = 500")
        await conn.execute("COMMIT")


def in_autocommit_with_a_block():
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as conn, conn.transaction():
        conn.execute("SET LOCAL lock_timeout = 500")


def of_django(tenant):
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('app.tenant', %s, TRUE)", [tenant])
        cursor.execute("SET LOCAL statement_timeout = 500")


@transaction.atomic
def of_django_by_decorator():
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 500")


def of_sqlalchemy():
    with engine.begin() as conn:
        conn.execute(text("SET LOCAL statement_timeout = 500"))


def another_database():
    conn = pymysql.connect(host="db")
    try:
        with conn.cursor() as cur:
            cur.execute("SET SESSION sql_mode = 'ANSI'")
            cur.execute("SET @a = 1")
            cur.execute("PREPARE s FROM 'SELECT 1'")
    finally:
        conn.close()
