"""As `overload`, at 3x, for threads: a queue of requests, and workers that take them off it.

With more workers than can wait within a deadline the queue is the pool's. With few of them, as Django and many a WSGI
server are set up, it is the server's, where no pool sees it: a request has spent most of its time before it asks.
"""

from bench.claims.overload import answers, generator
from bench.context import Context
from bench.overload_rounds import compare, threads
from bench.overloaded import (
    DEADLINE,
    constant,
    declared_in_threads,
    of_psycopg_pool_in_threads,
    of_sqlalchemy_in_threads,
    opted_in_threads,
)
from bench.report import Line, Result, figure, listed

CLAIM = f"3x of what the database can do, worker threads, {DEADLINE:g} s for each answer"
BAR = "useful answers >= 0.95 of the capacity, >= 5x the best peer; p99 <= the deadline"

FACTOR = 3.0
MANY = 400  # some 290 come within a deadline
FEW = 16

OURS = {"deadline": declared_in_threads, "overload=": opted_in_threads}
PEERS = {"psycopg_pool": of_psycopg_pool_in_threads, "SQLAlchemy": of_sqlalchemy_in_threads}


def run(ctx: Context) -> Result:
    rounds, seconds = (1, 2.0) if ctx.quick else (3, 3.5)
    lines: Result = []
    for workers in (MANY, FEW):
        contestants = {name: threads(ctx.dsn, opened, constant, workers) for name, opened in (OURS | PEERS).items()}
        found = compare(ctx, contestants, constant, [FACTOR], rounds, seconds)[FACTOR]
        what = f"{FACTOR:g}x overload, {workers} threads"
        if workers == MANY:
            lines += [line for name in OURS for line in answers(what, name, found, ratio=True)]
            lines.append(generator(what, found))
        else:
            mine, theirs = ({name: found[name].share for name in names} for names in (OURS, PEERS))
            cells = ", ".join(f"{name} {figure(share)}" for name, share in mine.items())
            lines.append(Line(f"{what}: useful answers, of the capacity", cells, listed(theirs), "", "", None))
    return lines
