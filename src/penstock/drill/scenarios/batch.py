"""A job over 50,000 users, which somebody has written as a loop."""

from penstock.drill.scenario import Scenario
from penstock.drill.shape import Batch

SCENARIO = Scenario(
    name="batch",
    title="Batch",
    story="A nightly job asks a slow API about 50,000 users and saves each answer. Now and then the API fails, asks to "
    "be left alone for a second, or never answers at all; and the job is killed, as by a deploy or a full memory.",
    shape=Batch(),
    instances=1,
    seconds=40.0,
    arms=("naive-loop", "penstock-batch"),
)
