"""A connection that is given to another process."""

from multiprocessing import Process

import psycopg2


def work(conn):
    with conn, conn.cursor() as cur:
        cur.execute("DELETE FROM t")


def spreads():
    conn = psycopg2.connect("dbname=app", connect_timeout=3)
    try:
        child = Process(target=work, args=(conn,))  # expect: PEN303
        child.start()
        child.join()
    finally:
        conn.close()
