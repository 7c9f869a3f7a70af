"""The same in forms that give everything back."""

import contextlib
import sqlite3
import sys
from contextlib import ExitStack, closing, contextmanager

import mysql.connector
import psycopg
import psycopg2
import pymysql


def closed_in_finally(dsn):
    conn = psycopg2.connect(dsn)
    try:
        with conn.cursor() as cur:
            cur.execute("SELECT 1")
            return cur.fetchone()
    finally:
        conn.close()


def none_at_first(dsn):
    conn = None
    cur = None
    try:
        conn = psycopg2.connect(dsn)
        cur = conn.cursor()
        cur.execute("SELECT 1")
        return cur.fetchall()
    except (Exception, psycopg2.DatabaseError) as error:
        print(error)
        return []
    finally:
        if cur is not None:
            cur.close()
        if conn is not None:
            conn.close()


def asks_whether_connected(settings):
    connection = None
    try:
        connection = mysql.connector.connect(**settings)
        cursor = connection.cursor()
        cursor.execute("SELECT 1")
        return cursor.fetchall()
    except mysql.connector.Error as error:
        print(error)
    finally:
        if connection and connection.is_connected():
            connection.close()


def looks_at_locals(dsn):
    try:
        conn = psycopg2.connect(dsn)
        conn.cursor().execute("SELECT 1")
    finally:
        if "conn" in locals():
            conn.close()


def psycopg_closes(dsn):
    with psycopg.connect(dsn) as conn:
        return conn.execute("SELECT 1").fetchone()


def pymysql_closes(settings):
    with pymysql.connect(**settings) as conn, conn.cursor() as cursor:
        cursor.execute("SELECT 1")
        return cursor.fetchone()


def closing_closes(path):
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute("INSERT INTO t VALUES (1)")


def closing_by_its_module(path):
    with contextlib.closing(sqlite3.connect(path)) as conn:
        return conn.execute("SELECT 1").fetchall()


def both_in_one_with(dsn):
    with psycopg2.connect(dsn) as conn:
        try:
            with conn.cursor() as cur:
                cur.execute("SELECT 1")
        finally:
            conn.close()


def kept_by_a_stack(paths):
    with ExitStack() as stack:
        conns = [stack.enter_context(closing(sqlite3.connect(path))) for path in paths]
        return [conn.execute("SELECT 1").fetchone() for conn in conns]


def called_back_by_a_stack(dsn):
    with ExitStack() as stack:
        conn = psycopg2.connect(dsn)
        stack.callback(conn.close)
        conn.cursor().execute("SELECT 1")


def connect(dsn):
    conn = psycopg2.connect(dsn)
    conn.autocommit = True
    return conn


def given_to_the_caller_in_a_tuple(dsn):
    conn = psycopg2.connect(dsn)
    return conn, conn.cursor()


@contextmanager
def managed(dsn):
    conn = psycopg2.connect(dsn)
    try:
        yield conn
        conn.commit()
    except BaseException:
        conn.rollback()
        raise
    finally:
        conn.close()


def uses_the_managed_one(dsn):
    with managed(dsn) as conn:
        conn.cursor().execute("SELECT 1")


class Store:
    def __init__(self, path):
        self.conn = sqlite3.connect(path)

    def rows(self):
        return self.conn.execute("SELECT 1").fetchall()

    def close(self):
        self.conn.close()


class Entered:
    def __init__(self, dsn):
        self.dsn = dsn

    def __enter__(self):
        self.conn = psycopg2.connect(self.dsn)
        return self.conn

    def __exit__(self, *exc):
        self.conn.close()


def finish(conn):
    conn.commit()
    conn.close()


def closed_by_a_helper(path):
    conn = sqlite3.connect(path)
    try:
        conn.execute("INSERT INTO t VALUES (1)")
    finally:
        finish(conn)


def in_memory():
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE t (a)")
    return db.execute("SELECT * FROM t").fetchall()


def opened_here_or_given(dsn, conn=None):
    own = conn is None
    if own:
        conn = psycopg2.connect(dsn)
    try:
        conn.cursor().execute("SELECT 1")
    finally:
        if own:
            conn.close()


def leaves_the_process(dsn):
    try:
        conn = psycopg2.connect(dsn)
    except psycopg2.OperationalError:
        sys.exit(1)
    conn.close()


def collected(dsns):
    conns = []
    try:
        for dsn in dsns:
            conn = psycopg2.connect(dsn)
            conns.append(conn)
    finally:
        for conn in conns:
            conn.close()


def tries_again(dsn):
    for _ in range(5):
        try:
            return psycopg2.connect(dsn)
        except psycopg2.OperationalError:
            continue
    return None


def works_with_what_it_is_given(conn):
    cur = conn.cursor()
    cur.execute("SELECT 1")
    return cur.fetchall()
