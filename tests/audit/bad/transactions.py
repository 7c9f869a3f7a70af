"""Transactions that nobody ends."""

import sqlite3
import time

import psycopg2
import pymysql
from flask import Flask

app = Flask(__name__)
shared = psycopg2.connect("dbname=app", connect_timeout=3)


@app.route("/users")
def users():
    cur = shared.cursor()
    cur.execute("SELECT name FROM users")  # expect: PEN514
    return cur.fetchall()


def watch(notify):
    conn = pymysql.connect(host="db")
    try:
        while True:
            with conn.cursor() as cur:
                cur.execute("SELECT id FROM jobs WHERE done = 0")  # expect: PEN510
                notify(cur.fetchall())
            time.sleep(5)  # expect: PEN501
    finally:
        conn.close()


class Daemon:
    def __init__(self):
        self.conn = psycopg2.connect("dbname=app", connect_timeout=3)
        self.cur = self.conn.cursor()

    def pending(self):
        self.cur.execute("SELECT id FROM jobs")  # expect: PEN510
        return self.cur.fetchall()

    def run(self):
        while True:
            self.pending()
            time.sleep(1)


def write_and_close(name):
    conn = psycopg2.connect("dbname=app", connect_timeout=3)
    try:
        cur = conn.cursor()
        cur.execute("INSERT INTO users (name) VALUES (%s)", (name,))  # expect: PEN511
    finally:
        conn.close()


def write_in_sqlite(name):
    conn = sqlite3.connect("app.db")
    try:
        conn.execute(f"DELETE FROM users WHERE name = '{name}'")  # expect: PEN511
    finally:
        conn.close()


def with_of_pymysql_does_not_commit(rows):
    with pymysql.connect(host="db") as conn, conn.cursor() as cur:
        cur.executemany("UPDATE t SET a = %s WHERE b = %s", rows)  # expect: PEN511


def create_and_close():
    conn = psycopg2.connect("dbname=app", connect_timeout=3)
    try:
        conn.cursor().execute("CREATE TABLE t (a int)")  # expect: PEN511
    finally:
        conn.close()


def load(rows):
    conn = psycopg2.connect("dbname=app", connect_timeout=3)
    try:
        cur = conn.cursor()
        for row in rows:
            try:
                cur.execute("INSERT INTO t VALUES (%s)", row)
            except psycopg2.IntegrityError:  # expect: PEN512
                print("twice", row)
        conn.commit()
    finally:
        conn.close()


def create_if_missing():
    conn = psycopg2.connect("dbname=app", connect_timeout=3)
    try:
        cur = conn.cursor()
        try:
            cur.execute("CREATE TABLE t (a int)")
        except Exception:  # expect: PEN512
            pass
        cur.execute("INSERT INTO t VALUES (1)")
        conn.commit()
    finally:
        conn.close()
