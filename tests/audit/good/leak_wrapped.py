"""Objects with a connection in them that nobody has to close, or that are somebody else's."""

import psycopg2


class Lasting:
    def __init__(self, dsn):
        self.conn = psycopg2.connect(dsn)

    def query(self, sql):
        with self.conn.cursor() as cur:
            cur.execute(sql)
            return cur.fetchall()


class Finalized:
    def __init__(self, dsn):
        self.conn = psycopg2.connect(dsn)

    def __del__(self):
        self.conn.close()


class Base:
    pass


class Derived(Base):
    def __init__(self, dsn):
        self.conn = psycopg2.connect(dsn)

    def close(self):
        self.conn.close()


database = Lasting("dbname=app")


def uses_them(dsn):
    one, two, three = Lasting(dsn), Finalized(dsn), Derived(dsn)
    return one.query("SELECT 1"), two, three.conn
