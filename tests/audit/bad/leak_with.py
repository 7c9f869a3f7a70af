"""A `with` that does not close what stands in it."""

import sqlite3

import psycopg2
import pyodbc


def of_psycopg2(dsn):
    with psycopg2.connect(dsn) as conn:  # expect: PEN106
        with conn.cursor() as cur:
            cur.execute("SELECT 1")
            return cur.fetchone()


def of_sqlite3(path):
    with sqlite3.connect(path) as conn:  # expect: PEN106
        conn.execute("INSERT INTO t VALUES (1)")


def of_pyodbc(dsn):
    with pyodbc.connect(dsn) as cnxn:  # expect: PEN106
        cnxn.execute("DELETE FROM t")


def of_a_name(path):
    conn = sqlite3.connect(path)  # expect: PEN101
    with conn:
        conn.execute("INSERT INTO t VALUES (1)")


def of_a_factory(path):
    with open_database(path) as conn:  # expect: PEN106
        return conn.execute("SELECT 1").fetchall()


def open_database(path):
    conn = sqlite3.connect(path, timeout=10)
    conn.row_factory = sqlite3.Row
    return conn


class Stock:
    path = "stock.db"

    def _connect(self):
        return sqlite3.connect(self.path)

    def count(self):
        with self._connect() as conn:  # expect: PEN106
            return conn.execute("SELECT count(*) FROM stock").fetchone()[0]
