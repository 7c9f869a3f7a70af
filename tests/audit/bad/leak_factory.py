"""Connections that come from a function of the same file."""

import os
import sqlite3

import mysql.connector
import psycopg2
from mysql.connector import Error


def get_db_connection():
    conn = psycopg2.connect(os.environ["DATABASE_URL"])
    conn.autocommit = False
    return conn


def create_connection(settings):
    connection = None
    try:
        connection = mysql.connector.connect(**settings)
        print("connected")
    except Error as error:
        print(error)
    return connection


def connect(path):
    conn = sqlite3.connect(path)
    return conn, conn.cursor()


def through_one(name):
    conn = get_db_connection()  # expect: PEN102
    cur = conn.cursor()
    cur.execute("SELECT 1 WHERE %s", (name,))
    found = cur.fetchone()
    cur.close()
    conn.close()
    return found


def without_a_close(name):
    conn = get_db_connection()  # expect: PEN101
    cur = conn.cursor()
    cur.execute("INSERT INTO t VALUES (%s)", (name,))
    conn.commit()


def through_one_that_may_fail(settings):
    connection = create_connection(settings)  # expect: PEN101
    if connection is None:
        return []
    cursor = connection.cursor()
    cursor.execute("SELECT 1")
    return cursor.fetchall()


def of_a_tuple(path):
    conn, cursor = connect(path)  # expect: PEN102
    cursor.execute("INSERT INTO t VALUES (1)")
    conn.commit()
    conn.close()


def through_two(name):
    conn = reader()  # expect: PEN101
    return conn.cursor().fetchone()


def reader():
    conn = get_db_connection()
    conn.set_session(readonly=True)
    return conn


class Accounts:
    def __init__(self, settings):
        self.settings = settings

    def _connection(self):
        return mysql.connector.connect(**self.settings)

    def add(self, name):
        conn = self._connection()  # expect: PEN102
        cursor = conn.cursor()
        cursor.execute("INSERT INTO accounts VALUES (%s)", (name,))
        conn.commit()
        cursor.close()
        conn.close()

    def each_time(self):
        self.conn = mysql.connector.connect(**self.settings)  # expect: PEN102
        self.cursor = self.conn.cursor()
        self.cursor.execute("SELECT 1")
        rows = self.cursor.fetchall()
        self.conn.close()
        return rows
