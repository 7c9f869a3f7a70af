"""Objects that open a connection as they are made, and are not closed."""

import psycopg2
import pymysql


class Database:
    def __init__(self, dsn):
        self.conn = psycopg2.connect(dsn)

    def query(self, sql):
        with self.conn.cursor() as cur:
            cur.execute(sql)
            return cur.fetchall()

    def close(self):
        self.conn.close()


class Entered:
    def __init__(self, **settings):
        self.connection = pymysql.connect(**settings)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.connection.close()


def never(dsn):
    db = Database(dsn)  # expect: PEN101
    return db.query("SELECT 1")


def where_nothing_raised(dsn):
    db = Database(dsn)  # expect: PEN102
    rows = db.query("SELECT 1")
    db.close()
    return rows


def for_each(dsn, names):
    for name in names:
        db = Database(dsn)  # expect: PEN201
        try:
            db.query(name)
        finally:
            db.close()


def in_finally(dsn):
    db = Database(dsn)
    try:
        return db.query("SELECT 1")
    finally:
        db.close()


def entered():
    with Entered(host="db") as db:
        return db.connection


def made(dsn):
    return Database(dsn)


def of_the_maker(dsn):
    db = made(dsn)  # expect: PEN101
    return db.query("SELECT 1")


class Service:
    def __init__(self, dsn):
        self.db = Database(dsn)


def handed_on(dsn):
    db = Database(dsn)
    return Service(db)
