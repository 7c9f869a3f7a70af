"""A Flask application as many are: psycopg2, a connection a request, forgotten when the request fails.

It knows nothing of Penstock. Lines that leak say so, for who holds a verdict against them.
"""

import os

import psycopg2  # type: ignore[import-untyped]
from flask import Flask

app = Flask(__name__)
app.logger.disabled = True  # of an error the traceback costs more than all that is measured
DSN = os.environ.get("PENSTOCK_BENCH_DSN", "")


@app.route("/one/<int:account>")
def one(account: int) -> str:
    connection = psycopg2.connect(DSN)
    cursor = connection.cursor()
    cursor.execute("SELECT abalance FROM pgbench_accounts WHERE aid = %s", (account,))
    answer = str(cursor.fetchone()[0])
    connection.commit()
    connection.close()
    return answer


@app.route("/forgotten/<int:account>")
def forgotten(account: int) -> str:
    connection = psycopg2.connect(DSN)  # leak
    cursor = connection.cursor()
    cursor.execute("SELECT 1 / %s", (account % 2,))
    connection.close()
    return "odd"


@app.route("/unclosed/<int:account>")
def unclosed(account: int) -> str:
    with psycopg2.connect(DSN) as connection:  # leak
        connection.cursor().execute("SELECT %s", (account,))
    return "committed, and not closed"
