"""Factories, and callers that do not own what these give."""

import functools
import sqlite3

import psycopg2
from flask import Flask, g

app = Flask(__name__)
_conn = None


def get_db():
    if "db" not in g:
        g.db = sqlite3.connect("app.db")
        g.db.row_factory = sqlite3.Row
    return g.db


@app.teardown_appcontext
def close_db(error):
    db = g.pop("db", None)
    if db is not None:
        db.close()


@app.route("/")
def index():
    db = get_db()
    return str(db.execute("SELECT 1").fetchone())


def by_getattr():
    db = getattr(g, "_database", None)
    if db is None:
        db = g._database = sqlite3.connect("app.db")
    return db


@app.route("/other")
def other():
    return str(by_getattr().execute("SELECT 1").fetchone())


def the_only_one():
    global _conn
    if _conn is None or _conn.closed:
        _conn = psycopg2.connect("dbname=app")
    return _conn


def uses_the_only_one():
    conn = the_only_one()
    cur = conn.cursor()
    cur.execute("SELECT 1")
    return cur.fetchone()


@functools.lru_cache(maxsize=1)
def remembered():
    return psycopg2.connect("dbname=app")


def uses_the_remembered():
    return remembered().cursor()


class Lazy:
    _instance = None

    def connection(self):
        if self._instance is None:
            self._instance = psycopg2.connect("dbname=app")
        return self._instance

    def rows(self):
        conn = self.connection()
        cur = conn.cursor()
        cur.execute("SELECT 1")
        return cur.fetchall()


class Thread:
    def __init__(self, local):
        self.local = local

    def conn(self):
        if not hasattr(self.local, "conn"):
            self.local.conn = sqlite3.connect("app.db")
        return self.local.conn

    def rows(self):
        c = self.conn()
        return c.execute("SELECT 1").fetchall()


def make(path):
    db = sqlite3.connect(path)
    try:
        db.execute("PRAGMA journal_mode=WAL")
    except Exception:
        db.close()
        raise
    return db


def decorated(function):
    @functools.wraps(function)
    def inner(*args):
        conn = make("app.db")
        try:
            return function(conn, *args)
        finally:
            conn.close()

    return inner


@decorated
def counted(conn):
    return conn.execute("SELECT count(*) FROM t").fetchone()
