"""The line, against a real server and real processes: whatever happens to them, no sample is above the budget."""

import signal
import time

import pytest

from penstock.drill.postgres import EmbeddedPostgres
from penstock.drill.proxy import ChaosProxy
from support.line import Children, Line, tell
from support.waiting import eventually

BUDGET = 20
PERIOD = 0.3
QUICKLY = 10.0


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A fleet of its own for each test."""
    return f"f{abs(hash(request.node.name)) % 10**8}"


def none_left(line: Line) -> None:
    eventually(lambda: line.count == 0, QUICKLY)


def test_processes_that_come_are_killed_and_come_again(postgres: EmbeddedPostgres, name: str) -> None:
    """Of threads and of tasks. All of the budget but the room is used again when a third of them was killed."""
    with Line(postgres, BUDGET) as line:
        with Children(postgres.dsn, name=name, budget=BUDGET, period=PERIOD) as children:
            for number in range(6):
                children.start("threads" if number % 2 else "tasks")
            eventually(lambda: line.count >= 0.9 * BUDGET, 15)
            for child in children.running[:2]:
                child.kill()
            eventually(lambda: len({name.split(":")[2] for name in line.names}) == 4, QUICKLY)
            eventually(lambda: line.count >= 0.9 * BUDGET, QUICKLY)
            children.start("threads")
            eventually(lambda: len({name.split(":")[2] for name in line.names}) == 5, QUICKLY)
            eventually(lambda: line.count >= 0.9 * BUDGET, QUICKLY)
        none_left(line)


def test_a_stopped_process_keeps_its_share_and_goes_on(postgres: EmbeddedPostgres, name: str) -> None:
    """SIGSTOP and SIGCONT: what it had the others leave to it."""
    with Line(postgres, BUDGET) as line:
        with Children(postgres.dsn, name=name, budget=BUDGET, period=PERIOD) as children:
            first, second = children.start("tasks"), children.start("threads")
            eventually(lambda: tell(first)["members"] == tell(second)["members"] == 2, QUICKLY)
            eventually(lambda: tell(first)["share"] > 4 and line.count >= 0.8 * BUDGET, QUICKLY)
            first.send_signal(signal.SIGSTOP)
            third = children.start()
            eventually(lambda: tell(third)["members"] == 3, QUICKLY)
            first.send_signal(signal.SIGCONT)
            eventually(lambda: tell(first)["members"] == 3, QUICKLY)
        none_left(line)


def test_a_forked_process_is_a_member_of_its_own(postgres: EmbeddedPostgres, name: str) -> None:
    """With connections of its own, counted as such."""
    with Line(postgres, BUDGET) as line:
        with Children(postgres.dsn, name=name, budget=BUDGET, period=PERIOD) as children:
            child = children.start()
            eventually(lambda: tell(child)["share"] >= 1, QUICKLY)
            tell(child, "fork")
            eventually(lambda: tell(child)["members"] == 2, QUICKLY)
            tell(child, "fork")
            eventually(lambda: tell(child)["members"] == 3, QUICKLY)
        none_left(line)


def test_a_process_behind_a_black_hole_never_takes_more(
    postgres: EmbeddedPostgres, proxy: ChaosProxy, name: str
) -> None:
    """Neither while it is cut off nor when it is back, whatever the others took meanwhile."""
    with Line(postgres, BUDGET) as line:
        with Children(postgres.dsn, name=name, budget=BUDGET, period=PERIOD) as children:
            far = children.start("tasks", proxy.through(postgres.dsn))
            eventually(lambda: tell(far)["share"] > 4, QUICKLY)
            proxy.silence()
            near = children.start()
            eventually(lambda: tell(near)["members"] == 2, QUICKLY)
            until = time.monotonic() + 3
            eventually(lambda: time.monotonic() > until)
            proxy.heal()
            eventually(lambda: tell(far)["members"] == 2, QUICKLY)
            eventually(lambda: line.count >= 0.9 * BUDGET, QUICKLY)
        none_left(line)
