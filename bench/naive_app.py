"""A Flask application as many are: it connects for each request, and forgets to close when something fails.

It knows nothing of Penstock: `gunicorn bench.naive_app:app`, or `python -m bench.naive_app PORT`, Flask's own server.
PENSTOCK_BENCH_DSN names the database, PENSTOCK_BENCH_ERRORS a file for what the driver says.
"""

import os
import sys
from pathlib import Path
from typing import Any

import psycopg2
from flask import Flask

DSN = os.environ["PENSTOCK_BENCH_DSN"]
ERRORS = Path(os.environ["PENSTOCK_BENCH_ERRORS"])
LEAKS = os.environ.get("PENSTOCK_BENCH_LEAKS", "yes") == "yes"

app = Flask(__name__)
kept: list[Any] = []  # somebody's list of what is to be looked into, which nobody looks into


class Mistake(Exception):
    """Of the application's own."""


@app.get("/account/<int:number>")
def account(number: int) -> str:
    conn = psycopg2.connect(DSN)
    cursor = conn.cursor()
    cursor.execute("SELECT abalance FROM pgbench_accounts WHERE aid = %s", (number,))
    [balance] = cursor.fetchone()
    if LEAKS and number % 50 == 0:
        raise Mistake("the connection goes with the traceback")
    if LEAKS and number % 50 == 1:
        kept.append(conn)
        raise Mistake("the connection is kept")
    cursor.execute("SELECT bbalance FROM pgbench_branches WHERE bid = %s", (1,))
    [branch] = cursor.fetchone()
    conn.close()
    return f"{balance} {branch}"


@app.errorhandler(Mistake)
def mistake(error: Mistake) -> str:
    """A page that says so: what is counted as an error is what the database is to blame for."""
    return str(error)


@app.errorhandler(psycopg2.Error)
def no_connection(error: psycopg2.Error) -> tuple[str, int]:
    with ERRORS.open("a") as file:
        file.write(" ".join(str(error).split())[:200] + "\n")
    return "no connection", 503


if __name__ == "__main__":
    app.run(port=int(sys.argv[1]), threaded=True)
