"""With autocommit there is nothing to end."""

import time

import psycopg2


class Watcher:
    def __init__(self, dsn):
        self.conn = psycopg2.connect(dsn, connect_timeout=3)
        self.conn.autocommit = True

    def run(self):
        while True:
            with self.conn.cursor() as cur:
                cur.execute("SELECT 1")
            time.sleep(5)

    def close(self):
        self.conn.close()


def writes(name):
    conn = psycopg2.connect("dbname=app", connect_timeout=3)
    try:
        conn.set_session(autocommit=True)
        conn.cursor().execute("INSERT INTO t VALUES (%s)", (name,))
    finally:
        conn.close()
