"""More work arrives than the database can do: how much of what it can do is still of use to anybody?

Requests come at random, at a multiple of the capacity, and each is to be answered within half a second of when it was
to come. Peers have what is left of that as their acquire timeout. psycopg_pool stands there twice more, tuned by
somebody who knows how long a statement takes and how many the database does: that shows how much of ours is to be had
by hand, as long as nothing changes.
"""

from collections.abc import Iterator, Mapping

from bench.context import Context
from bench.overload_rounds import Figures, compare, tasks
from bench.overloaded import (
    DEADLINE,
    constant,
    declared,
    of_asyncpg,
    of_psycopg_pool,
    of_sqlalchemy,
    opted_in,
)
from bench.report import Line, Result, at_least, at_most, duration, figure, listed

CLAIM = f"1.5x, 3x and 10x of what the database can do, {DEADLINE:g} s for each answer"
BAR = "useful answers >= 0.95 of the capacity, >= 5x the best peer at 3x; p99 <= the deadline; refused in <= 5 ms"

FACTORS = (1.5, 3.0, 10.0)
OURS = {"deadline": declared, "overload=": opted_in}
PEERS = {"asyncpg": of_asyncpg, "psycopg_pool": of_psycopg_pool(), "SQLAlchemy": of_sqlalchemy}
TUNED = {
    "timeout 0.4 s": of_psycopg_pool(cap=0.4),  # of 0.5 s: it knows that the work takes 0.02 s
    "max_waiting 48": of_psycopg_pool(max_waiting=48),  # a quarter of a second's worth: it knows the capacity
}


def run(ctx: Context) -> Result:
    rounds, seconds = (1, 2.0) if ctx.quick else (3, 3.5)
    contestants = {name: tasks(ctx.dsn, opened, constant) for name, opened in (OURS | PEERS | TUNED).items()}
    found = compare(ctx, contestants, constant, FACTORS, rounds, seconds)
    whats = {factor: f"{factor:g}x overload" for factor in FACTORS}
    return [
        *(
            line
            for name in OURS
            for factor, what in whats.items()
            for line in answers(what, name, found[factor], ratio=factor == 3.0)
        ),
        *(_refusals(name, found[10.0]) for name in OURS),
        *(tuned(what, found[factor]) for factor, what in whats.items()),
        *(generator(what, found[factor]) for factor, what in whats.items()),
    ]


def answers(what: str, name: str, found: Mapping[str, Figures], *, ratio: bool) -> Iterator[Line]:
    """How many were of use, and how long the slowest of those that were answered took."""
    mine, peers = found[name], {peer: found[peer] for peer in PEERS if peer in found}
    shares = {peer: theirs.share for peer, theirs in peers.items()}
    yield at_least(f"{what}, {name}: useful answers, of the capacity", mine.share, 0.95, peers=listed(shares))
    if ratio:
        times = mine.share / max(max(shares.values()), 1e-3)  # a peer may have had none at all
        yield Line(
            f"{what}, {name}: useful answers / best peer",
            figure(mine.share),
            listed(shares),
            f"{times:.1f}x",
            ">= 5x",
            times >= 5,
        )
    yield at_most(
        f"{what}, {name}: p99 of what was answered (at first {duration(mine.p99_at_first)})",
        mine.p99 * 1e3,
        DEADLINE * 1e3,
        "ms",
        peers=listed({peer: theirs.p99 * 1e3 for peer, theirs in peers.items()}, "ms"),
    )


def _refusals(name: str, found: Mapping[str, Figures]) -> Line:
    mine = found[name]
    worst, middle = duration(mine.told_worst), duration(mine.told)
    return at_most(
        f"10x overload, {name}: told no after, p99 (median {middle}, worst {worst})",
        mine.told_p99 * 1e3,
        5,
        "ms",
        peers=listed({peer: found[peer].told_p99 * 1e3 for peer in PEERS}, "ms"),
    )


def tuned(what: str, found: Mapping[str, Figures]) -> Line:
    """For information: a peer whose setting fits this work, this load and this number of connections."""
    theirs = "; ".join(f"{name}: {_all(found[name])}" for name in TUNED)
    return Line(
        f"{what}, psycopg_pool tuned by hand: useful, p99, told no after (p99)",
        _all(found["deadline"]),
        theirs,
        "",
        "",
        None,
    )


def _all(one: Figures) -> str:
    return f"{figure(one.share)}, {duration(one.p99)}, {duration(one.told_p99)}"


def generator(what: str, found: Mapping[str, Figures]) -> Line:
    """Whether the load was what it claims to be: the generator's lag, and the client's share of a core."""
    late = {name: f"{name} {duration(one.late)}, {one.cpu:.0%}" for name, one in found.items()}
    ours, peers = ("; ".join(late[name] for name in found if (name in OURS) is mine) for mine in (True, False))
    return Line(f"{what}: requests sent late by (p99), client's processor", ours, peers, "", "", None)
