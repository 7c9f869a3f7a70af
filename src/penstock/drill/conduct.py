"""Conducts a drill: scenario by scenario, arm by arm, against one server."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from penstock.drill.arms.arm import Arm
from penstock.drill.failure import CannotStart
from penstock.drill.instance import Orders
from penstock.drill.load import Load
from penstock.drill.measure import Mark, Sampler
from penstock.drill.proxy import ChaosProxy
from penstock.drill.result import Result
from penstock.drill.scenario import Event, Scenario, Stage
from penstock.drill.server import Server

TICK_SECONDS = 0.05
GONE_SECONDS = 5.0

# Called with the growing result of the arm that runs, and the seconds since its load began.
Watch = Callable[[Result, float], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A scenario as it was run, and each arm's result."""

    scenario: Scenario
    results: list[Result]

    @property
    def failed(self) -> bool:
        return any(result.failed for result in self.results)


def adjust(scenario: Scenario, *, seconds: float | None, clients: int | None) -> Scenario:
    """Return `scenario` with what the user asked for in place of its own. Raises CannotStart."""
    if seconds is not None and not 0.5 <= seconds <= 600:
        raise CannotStart(f"--seconds is {seconds:g}; use 0.5 to 600 (the time of one arm)")
    if clients is not None and not scenario.instances <= clients <= 1000:
        raise CannotStart(f"--clients is {clients}; use {scenario.instances} (one for each instance) to 1000")
    return replace(scenario, seconds=seconds or scenario.seconds, clients=clients or scenario.clients)


def conduct(scenario: Scenario, arms: Sequence[type[Arm]], server: Server, watch: Watch) -> Outcome:
    """Run `scenario` with each of `arms`. Raises CannotStart; whatever it started has ended when it returns."""
    return Outcome(scenario, [_run(arm, scenario, server, watch) for arm in arms])


def _run(arm: type[Arm], scenario: Scenario, server: Server, watch: Watch) -> Result:
    result = Result(
        arm=arm,
        line=server.line,
        pool_size=server.share(scenario.instances).pool_size,
        instances=scenario.instances,
        deadline=scenario.deadline,
        seconds=scenario.seconds,
    )
    with ExitStack() as stack:
        stage = Stage(server, stack.enter_context(_proxy(server)) if scenario.through_proxy else None)
        sampler = stack.enter_context(Sampler(server.admin_dsn, alone=server.embedded))
        _wait_until_gone(sampler)
        load = stack.enter_context(Load(list(_orders(scenario, result, _dsn(stage)))))
        watch(result, 0.0)
        load.wait_ready()
        result.answers, result.samples = load.answers, sampler.samples
        origin = time.monotonic()
        sampler.begin(origin)
        load.begin(origin)
        pending = list(scenario.events)
        while load.collect(TICK_SECONDS):
            now = time.monotonic() - origin
            while pending and now >= pending[0].at * scenario.seconds:
                _happen(pending.pop(0), stage, result, origin)
            watch(result, now)
    return result


def _happen(event: Event, stage: Stage, result: Result, origin: float) -> None:
    event.act(stage)
    at = time.monotonic() - origin
    result.marks.append(Mark(at, event.label))
    if event.heals:
        result.healed_at = at


def _orders(scenario: Scenario, result: Result, dsn: str) -> Iterator[Orders]:
    arrivals = scenario.arrivals(scenario.clients, scenario.seconds)
    first = 0
    for number in range(scenario.instances):
        # Dealt out in turn, so that every instance has its part of the early ones.
        mine = tuple(arrivals[number :: scenario.instances])
        yield Orders(
            arm=result.arm,
            dsn=dsn,
            pool_size=result.pool_size,
            work=scenario.work,
            arrivals=mine,
            seconds=scenario.seconds,
            think=scenario.think,
            deadline=scenario.deadline,
            patience=scenario.patience,
            first_client=first,
        )
        first += len(mine)


def _dsn(stage: Stage) -> str:
    if stage.proxy is None:
        return stage.server.dsn
    return make_conninfo(stage.server.dsn, host=stage.proxy.host, hostaddr=stage.proxy.host, port=stage.proxy.port)


def _proxy(server: Server) -> ChaosProxy:
    parts = conninfo_to_dict(server.dsn)
    host, port = str(parts.get("hostaddr") or parts.get("host") or ""), str(parts.get("port") or 5432)
    if not host or host.startswith(("/", "@")) or "," in host + port:
        raise CannotStart("this scenario puts a proxy before the server: --dsn must name one host, not a socket")
    return ChaosProxy(host, int(port))


def _wait_until_gone(sampler: Sampler) -> None:
    # The arm before this one is killed, but its backends take a moment to notice.
    deadline = time.monotonic() + GONE_SECONDS
    while sampler.count() and time.monotonic() < deadline:
        time.sleep(0.02)
