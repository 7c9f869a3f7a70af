"""What is made once, or has to be made where it is."""

import functools
import sqlite3
import time

import asyncpg
import psycopg2
import pymysql
from fastapi import FastAPI
from flask import Flask, current_app, g
from sqlalchemy import create_engine, text
from sqlalchemy.orm import sessionmaker

app = Flask(__name__)
engine = create_engine("postgresql://localhost/app")
_engine = None
_pool = None
_connection = None


@app.route("/a")
def of_the_module():
    with engine.connect() as conn:
        return str(conn.execute(text("SELECT 1")).scalar())


def get_engine():
    global _engine
    if _engine is None:
        _engine = create_engine("postgresql://localhost/app")
    return _engine


@app.route("/b")
def of_the_global():
    with get_engine().connect() as conn:
        return str(conn.execute(text("SELECT 1")).scalar())


@functools.cache
def remembered_engine():
    return create_engine("postgresql://localhost/app")


def make_engine(url):
    return create_engine(url)


def create_app(url):
    made = Flask(__name__)
    made.engine = create_engine(url)
    made.session = sessionmaker(made.engine)
    return made


async def lifespan(api: FastAPI):
    pool = await asyncpg.create_pool("postgresql://localhost/app")
    api.state.pool = pool
    yield
    await pool.close()


async def get_pool():
    global _pool
    if _pool is None:
        _pool = await asyncpg.create_pool("postgresql://localhost/app")
    return _pool


class Store:
    def __init__(self, url):
        self.engine = create_engine(url)

    def close(self):
        self.engine.dispose()


@app.route("/c")
def a_file():
    conn = sqlite3.connect("app.db")
    try:
        return str(conn.execute("SELECT 1").fetchone())
    finally:
        conn.close()


def lambda_handler(event, context):
    global _connection
    if _connection is None or not _connection.open:
        _connection = pymysql.connect(host="db", user="app")
    with _connection.cursor() as cur:
        cur.execute("SELECT 1")
        return cur.fetchone()


def waits_for_the_database(dsn):
    while True:
        try:
            conn = psycopg2.connect(dsn)
            conn.close()
            return True
        except psycopg2.OperationalError:
            time.sleep(1)


def counts_its_tries(dsn):
    conn = None
    for attempt in range(10):
        try:
            conn = psycopg2.connect(dsn)
            break
        except psycopg2.OperationalError:
            time.sleep(attempt)
    return conn


def checks_out_in_a_loop(rows):
    for row in rows:
        with engine.begin() as conn:
            conn.execute(text("INSERT INTO t VALUES (:a)"), {"a": row})


def db():
    if not hasattr(g, "db"):
        g.db = psycopg2.connect(current_app.config["DSN"])
    return g.db


@app.teardown_appcontext
def close(error):
    if hasattr(g, "db"):
        g.db.close()


def main():
    local = create_engine("postgresql://localhost/app")
    with local.begin() as conn:
        conn.execute(text("DELETE FROM t"))


if __name__ == "__main__":
    main()
