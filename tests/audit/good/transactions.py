"""Transactions that end, and code of which that cannot be told."""

import sqlite3
import time

import psycopg
import psycopg2
import pymysql
from psycopg2.pool import ThreadedConnectionPool

pool = ThreadedConnectionPool(1, 5, "dbname=app")


def watch(notify):
    conn = pymysql.connect(host="db")
    try:
        while True:
            with conn.cursor() as cur:
                cur.execute("SELECT id FROM jobs WHERE done = 0")
                rows = cur.fetchall()
            conn.commit()
            notify(rows)
    finally:
        conn.close()


def reads_once():
    conn = psycopg2.connect("dbname=app", connect_timeout=3)
    try:
        cur = conn.cursor()
        cur.execute("SELECT 1")
        return cur.fetchone()
    finally:
        conn.close()


def a_connection_for_each_turn():
    while True:
        conn = psycopg2.connect("dbname=app", connect_timeout=3)  # expect: PEN201
        try:
            cur = conn.cursor()
            cur.execute("SELECT 1")
        finally:
            conn.close()
        time.sleep(1)


class Repository:
    def __init__(self, dsn):
        self.conn = psycopg2.connect(dsn, connect_timeout=3)

    def all(self):
        with self.conn:
            with self.conn.cursor() as cur:
                cur.execute("SELECT 1")
                return cur.fetchall()

    def save(self, row):
        with self.conn, self.conn.cursor() as cur:
            cur.execute("INSERT INTO t VALUES (%s)", row)

    def end(self):
        self.conn.rollback()

    def close(self):
        self.conn.close()


def commits(name):
    conn = psycopg2.connect("dbname=app", connect_timeout=3)
    try:
        cur = conn.cursor()
        cur.execute("INSERT INTO users (name) VALUES (%s)", (name,))
        conn.commit()
    finally:
        conn.close()


def with_of_psycopg_commits(name):
    with psycopg.connect("dbname=app") as conn:
        conn.execute("INSERT INTO users (name) VALUES (%s)", (name,))


def with_of_sqlite_commits(name):
    conn = sqlite3.connect("app.db")
    try:
        with conn:
            conn.execute("INSERT INTO users (name) VALUES (?)", (name,))
    finally:
        conn.close()


def commits_in_sql(name):
    conn = psycopg2.connect("dbname=app", connect_timeout=3)
    try:
        cur = conn.cursor()
        cur.execute("INSERT INTO users (name) VALUES (%s)", (name,))
        cur.execute("COMMIT")
    finally:
        conn.close()


def another_commits(name, finish):
    conn = psycopg2.connect("dbname=app", connect_timeout=3)
    try:
        conn.cursor().execute("INSERT INTO users (name) VALUES (%s)", (name,))
        finish(conn)
    finally:
        conn.close()


def a_ddl_of_mysql_commits_itself():
    conn = pymysql.connect(host="db")
    try:
        with conn.cursor() as cur:
            cur.execute("CREATE TABLE IF NOT EXISTS t (a int)")
    finally:
        conn.close()


def rolls_back(rows):
    conn = psycopg2.connect("dbname=app", connect_timeout=3)
    try:
        cur = conn.cursor()
        for row in rows:
            try:
                cur.execute("INSERT INTO t VALUES (%s)", row)
                conn.commit()
            except psycopg2.IntegrityError:
                conn.rollback()
    finally:
        conn.close()


def ends_at_the_exception(rows):
    conn = psycopg2.connect("dbname=app", connect_timeout=3)
    try:
        cur = conn.cursor()
        for row in rows:
            cur.execute("INSERT INTO t VALUES (%s)", row)
        conn.commit()
    except psycopg2.Error as error:
        print(error)
    finally:
        conn.close()


def a_with_for_each(rows):
    conn = psycopg2.connect("dbname=app", connect_timeout=3)
    try:
        for row in rows:
            try:
                with conn, conn.cursor() as cur:
                    cur.execute("INSERT INTO t VALUES (%s)", row)
            except psycopg2.IntegrityError:
                print("twice")
    finally:
        conn.close()


def mysql_goes_on_after_an_error(rows):
    conn = pymysql.connect(host="db")
    try:
        with conn.cursor() as cur:
            for row in rows:
                try:
                    cur.execute("INSERT INTO t VALUES (%s)", row)
                except pymysql.IntegrityError:
                    print("twice")
        conn.commit()
    finally:
        conn.close()


def begins_and_ends():
    conn = pool.getconn()
    try:
        cur = conn.cursor()
        cur.execute("BEGIN")
        cur.execute("UPDATE t SET a = 1")
        cur.execute("COMMIT")
    finally:
        pool.putconn(conn)
