# audit: pooling=transaction
"""SQL that leaves something in the session, behind PgBouncer in transaction mode: PEN701 to PEN725."""

import asyncpg
import psycopg
import psycopg2
from django.db import connection, migrations
from psycopg import sql
from sqlalchemy import create_engine, event, text

dsn = "dbname=app connect_timeout=3"
engine = create_engine("postgresql+psycopg2://localhost/app")


def run(work):
    conn = psycopg2.connect(dsn)
    try:
        with conn, conn.cursor() as cur:
            work(cur)
    finally:
        conn.close()


def settings(tenant, name):
    conn = psycopg2.connect(dsn)
    try:
        with conn, conn.cursor() as cur:
            cur.execute("SET statement_timeout = '5s'")  # expect: PEN701
            cur.execute("set search_path to " + tenant)  # expect: PEN701
            cur.execute(f"SET SESSION work_mem = '{tenant}MB'")  # expect: PEN701
            cur.execute(f"SET {name} = 1")  # expect: PEN700
            cur.execute("SELECT set_config('app.tenant', %s, false)", (tenant,))  # expect: PEN702
            cur.execute("SET ROLE reader")  # expect: PEN704
            cur.execute("SET SESSION AUTHORIZATION 'reader'")  # expect: PEN704
            cur.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")  # expect: PEN705
            cur.execute("SET default_transaction_read_only = on")  # expect: PEN705
            cur.execute("SET intervalstyle TO 'iso_8601'")  # expect: PEN706
            cur.execute("RESET search_path")  # expect: PEN719
            cur.execute("RESET ALL")  # expect: PEN719
    finally:
        conn.close()


def statements_and_locks(number):
    conn = psycopg2.connect(dsn)
    try:
        with conn, conn.cursor() as cur:
            cur.execute("PREPARE find AS SELECT * FROM t WHERE id = $1")  # expect: PEN708
            cur.execute("EXECUTE find(1)")  # expect: PEN708
            cur.execute("DEALLOCATE find")  # expect: PEN708
            cur.execute("DEALLOCATE ALL")  # expect: PEN710
            cur.execute("DISCARD ALL")  # expect: PEN710
            cur.execute("LISTEN changes")  # expect: PEN711
            cur.execute("UNLISTEN *")  # expect: PEN711
            cur.execute("SELECT pg_advisory_lock(%s)", (number,))  # expect: PEN712
            cur.execute("SELECT pg_try_advisory_lock_shared(%s)", (number,))  # expect: PEN712
            cur.execute("SELECT pg_advisory_unlock(%s)", (number,))  # expect: PEN712
            cur.execute("LOAD 'auto_explain'")  # expect: PEN716
            cur.execute("SELECT setseed(0.5)")  # expect: PEN718
            cur.execute("SELECT pg_backend_pid()")  # expect: PEN723
            cur.execute("SELECT pg_export_snapshot()")  # expect: PEN723
            cur.execute("PREPARE TRANSACTION 'one'")  # expect: PEN725
    finally:
        conn.close()


def what_outlives_a_transaction():
    conn = psycopg2.connect(dsn)
    try:
        with conn, conn.cursor() as cur:
            cur.execute(  # expect: PEN713
                """
                -- rows of this run
                CREATE TEMPORARY TABLE seen (id int)
                """
            )
            cur.execute("CREATE TEMP VIEW v AS SELECT 1")  # expect: PEN713
            cur.execute("SELECT * INTO TEMP kept FROM t")  # expect: PEN713
            cur.execute("DECLARE c CURSOR WITH HOLD FOR SELECT * FROM t")  # expect: PEN714
    finally:
        conn.close()


async def outside_of_a_transaction(pool: asyncpg.Pool):
    async with pool.acquire() as conn:
        await conn.execute("SET LOCAL statement_timeout = 500")  # expect: PEN703
        await conn.fetchval("SELECT set_config('app.tenant', 'a', true)")  # expect: PEN703
        await conn.execute("DECLARE c CURSOR FOR SELECT * FROM t")  # expect: PEN715
        await conn.execute("COPY t TO STDOUT")  # expect: PEN721
        await conn.execute("INSERT INTO t VALUES (1)")
        return await conn.fetchval("SELECT currval('t_id_seq')")  # expect: PEN717


def in_autocommit():
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as conn:
        conn.execute("SET LOCAL lock_timeout = 500")  # expect: PEN703
        conn.execute("INSERT INTO t VALUES (1)")
        return conn.execute("SELECT lastval()").fetchone()  # expect: PEN717


def composed(schema):
    with psycopg.connect(dsn, prepare_threshold=None) as conn:
        conn.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(schema)))  # expect: PEN701


def of_django(tenant):
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('app.tenant', %s, FALSE)", [tenant])  # expect: PEN702
        cursor.execute("SET LOCAL statement_timeout = 500")  # expect: PEN703


class Migration(migrations.Migration):
    operations = [  # noqa: RUF012
        migrations.RunSQL("SET lock_timeout = '2s'"),  # expect: PEN701
        migrations.RunSQL(["SELECT 1", "SET ROLE owner"]),  # expect: PEN704
    ]


def of_sqlalchemy():
    with engine.begin() as conn:
        conn.execute(text("SET statement_timeout = 500"))  # expect: PEN701
        conn.exec_driver_sql("SELECT pg_advisory_lock(1)")  # expect: PEN712


@event.listens_for(engine, "connect")
def on_connect(dbapi_connection, record):
    cursor = dbapi_connection.cursor()
    cursor.execute("SET statement_timeout = 500")  # expect: PEN722
    cursor.close()


def unknown(build):
    conn = psycopg2.connect(dsn)
    try:
        with conn, conn.cursor() as cur:
            cur.execute(build())  # expect: PEN700
    finally:
        conn.close()
