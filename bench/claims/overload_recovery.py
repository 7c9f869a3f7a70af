"""A minute of three times what the database can do, then 0.7 times: how long until everybody is answered in time again?

Counted in half seconds by when the requests came; the one from which at least 99 % are answered in time, to the end.
psycopg_pool stands there twice: with the deadline as its timeout, and with the 30 s that it has when nobody sets one.
"""

import gc

from bench.claims.overload import OURS
from bench.context import Context
from bench.openloop import Load, poisson
from bench.overload_rounds import Contestant, mean, measured, tasks, told
from bench.overloaded import constant, of_asyncpg, of_psycopg_pool, of_psycopg_pool_by_default
from bench.report import Line, Result, duration, figure

CLAIM = "a minute at 3x, then 0.7x of what the database can do"
BAR = ">= 99 % of the answers useful again within 2 s"

SECONDS, QUICK_SECONDS = 60.0, 10.0
AFTERWARDS, QUICK_AFTERWARDS = 10.0, 6.0
WINDOW = 0.5
PEERS = {
    "asyncpg": of_asyncpg,
    "psycopg_pool": of_psycopg_pool(),
    "psycopg_pool, timeout 30 s": of_psycopg_pool_by_default,
}


def run(ctx: Context) -> Result:
    seconds, afterwards = (QUICK_SECONDS, QUICK_AFTERWARDS) if ctx.quick else (SECONDS, AFTERWARDS)
    contestants = {name: tasks(ctx.dsn, opened, constant) for name, opened in (OURS | PEERS).items()}
    per_second = measured(ctx, contestants, constant) / mean(constant)
    schedule = poisson(3.0 * per_second, seconds, seed=1)
    schedule += [seconds + at for at in poisson(0.7 * per_second, afterwards, seed=2)]
    loads = {name: _load(ctx, name, contestant, schedule) for name, contestant in contestants.items()}
    what = f"{seconds:g} s at 3x, then 0.7x"
    recovered = {name: load.recovered(seconds, seconds + afterwards, WINDOW, 0.99) for name, load in loads.items()}
    useful = {name: load.useful_share(seconds, seconds + afterwards) for name, load in loads.items()}
    peers = "; ".join(f"{peer} {_after(recovered[peer], afterwards)}" for peer in PEERS)
    return [
        *(
            Line(
                f"{what}, {name}: 99 % useful again after",
                _after(recovered[name], afterwards),
                peers,
                "",
                "<= 2 s",
                recovered[name] <= 2.0,
            )
            for name in OURS
        ),
        Line(
            f"{what}: useful of all that came in the {afterwards:g} s afterwards",
            "; ".join(f"{name} {figure(useful[name])}" for name in OURS),
            "; ".join(f"{peer} {figure(useful[peer])}" for peer in PEERS),
            "",
            "",
            None,
        ),
    ]


def _load(ctx: Context, name: str, contestant: Contestant, schedule: list[float]) -> Load:
    gc.collect()
    load = contestant.load(schedule)
    ctx.say(f"{name}: {told(load)}")
    return load


def _after(seconds: float, watched: float) -> str:
    return f"> {watched:g} s" if seconds == float("inf") else duration(seconds) if seconds else "0 s"
