"""Connections that some way out of the function leaves open."""

import sqlite3

import mysql.connector
import oracledb
import psycopg2
import pymysql
from psycopg2 import OperationalError, connect
from psycopg2.extras import RealDictCursor


def never_closed(dsn):
    conn = psycopg2.connect(dsn)  # expect: PEN101
    cur = conn.cursor()
    cur.execute("SELECT 1")
    return cur.fetchone()


def closed_only_where_nothing_raised(dsn):
    conn = psycopg2.connect(dsn)  # expect: PEN102
    cur = conn.cursor()
    cur.execute("SELECT 1")
    rows = cur.fetchall()
    cur.close()
    conn.close()
    return rows


def returns_before_it_closes(path, key):
    conn = sqlite3.connect(path)  # expect: PEN101
    row = conn.execute("SELECT v FROM t WHERE k = ?", (key,)).fetchone()
    if row is None:
        return None
    conn.close()
    return row[0]


def returns_within_try(settings):
    try:
        conn = pymysql.connect(**settings)  # expect: PEN101
        with conn.cursor() as cursor:
            cursor.execute("SELECT name FROM users")
            return cursor.fetchall()
    except pymysql.MySQLError as error:
        print(error)
        return None


def only_the_cursor_is_closed(dsn):
    conn = connect(dsn, cursor_factory=RealDictCursor)  # expect: PEN101
    cursor = conn.cursor()
    try:
        cursor.execute("SELECT 1")
        return cursor.fetchall()
    finally:
        cursor.close()


def commits_and_forgets(dsn, rows):
    connection = psycopg2.connect(dsn)  # expect: PEN101
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO t VALUES (%s)", rows)
    connection.commit()


def closes_in_try_alone(dsn):
    try:
        conn = psycopg2.connect(dsn)  # expect: PEN101
        cur = conn.cursor()
        cur.execute("DELETE FROM t")
        conn.commit()
        conn.close()
        return True
    except Exception as error:
        print("failed", error)
        return False


def rolls_back_and_raises(settings):
    cnx = mysql.connector.connect(**settings)  # expect: PEN102
    cursor = cnx.cursor()
    try:
        cursor.execute("UPDATE t SET a = 1")
        cnx.commit()
    except mysql.connector.Error:
        cnx.rollback()
        raise
    cursor.close()
    cnx.close()


def catches_too_little(dsn):
    conn = psycopg2.connect(dsn)  # expect: PEN102
    try:
        cur = conn.cursor()
        cur.execute("SELECT payload FROM jobs")
        total = sum(int(row[0]) for row in cur)
    except OperationalError:
        conn.close()
        return 0
    conn.close()
    return total


def closes_one_of_two(source, target):
    reading = psycopg2.connect(source)  # expect: PEN102
    writing = psycopg2.connect(target)  # expect: PEN102
    try:
        for row in reading.cursor().fetchall():
            writing.cursor().execute("INSERT INTO t VALUES (%s)", row)
        writing.commit()
        writing.close()
    finally:
        reading.close()


def asks_and_forgets(dsn):
    return oracledb.connect(dsn).cursor().execute("SELECT 1 FROM dual")  # expect: PEN101
