"""More work than the database can do, from clients who do not wait for each other."""

from penstock.drill.scenario import Event, Scenario
from penstock.drill.shape import OpenLoop
from penstock.drill.work import Work

SHAPE = OpenLoop()

SCENARIO = Scenario(
    name="spike",
    title="Overload",
    story="For some seconds more requests arrive than the database can answer, and they do not wait for one another. "
    "Nobody waits longer than half a second for an answer, though: what comes later is work done for nobody.",
    work=Work(elsewhere=0.035),
    shape=SHAPE,
    seconds=10.0,
    least_seconds=3.0,
    deadline=0.5,
    patience=1.0,
    events=(Event(SHAPE.begin, "spike"), Event(SHAPE.end, "normal")),
    arms=("sqlalchemy", "psycopg_pool", "asyncpg", "penstock"),
)
