"""Conducts a drill: scenario by scenario, arm by arm, against one server."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from penstock.drill import batch, scaleout
from penstock.drill.arms.arm import Arm
from penstock.drill.arms.one_each import OneEach
from penstock.drill.batch_result import BatchResult
from penstock.drill.failure import CannotStart
from penstock.drill.load import Load
from penstock.drill.measure import Mark, Sampler
from penstock.drill.orders import Orders
from penstock.drill.overload import OverloadResult, Spike
from penstock.drill.proxy import ChaosProxy
from penstock.drill.result import Result
from penstock.drill.scaleout_result import ScaleOutResult
from penstock.drill.scenario import Event, Scenario, Stage
from penstock.drill.server import Server
from penstock.drill.shape import Batch, ClosedLoop, OpenLoop, ScaleOut

TICK_SECONDS = 0.05
CAPACITY_SECONDS = 2.5
SETTLED_SECONDS = 0.5  # of them, until every connection is open
FEWEST, MOST = 10, 100  # processes of a scale-out

# Called with the growing result of the arm that runs, and the seconds since its load began.
Watch = Callable[[Result, float], None]


class Capacity(NamedTuple):
    """How many requests were answered in a second, with so many connections that never paused."""

    per_second: float
    connections: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """A scenario as it was run, and each arm's result; of an open loop the capacity too."""

    scenario: Scenario
    results: list[Result]
    server: Server
    capacity: Capacity | None = None

    @property
    def failed(self) -> bool:
        return any(result.failed for result in self.results)


def adjust(
    scenarios: Sequence[Scenario],
    *,
    seconds: float | None = None,
    clients: int | None = None,
    overload: float | None = None,
    processes: int | None = None,
) -> list[Scenario]:
    """Return `scenarios` with what the user asked for in place of their own, where it has a meaning.

    Raises CannotStart for what none of them can have, or nobody.
    """
    longest = max(scenarios, key=lambda scenario: scenario.least_seconds)
    if seconds is not None and not longest.least_seconds <= seconds <= 600:
        raise CannotStart(
            f"--seconds is {seconds:g}; use {longest.least_seconds:g} to 600 for {longest.name} (the time of one arm)"
        )
    instances = max(scenario.instances for scenario in scenarios)
    if clients is not None and not instances <= clients <= 1000:
        raise CannotStart(f"--clients is {clients}; use {instances} (one for each instance) to 1000")
    if overload is not None and not 1 <= overload <= 20:
        raise CannotStart(f"--overload is {overload:g}; use 1 to 20 (times what the database can do)")
    if processes is not None and not FEWEST <= processes <= MOST:
        raise CannotStart(f"--processes is {processes}; use {FEWEST} to {MOST}")
    for option, given, shapes, elsewhere in (
        ("--seconds", seconds, (ClosedLoop, OpenLoop), "each change is given the time that it takes: use --processes"),
        ("--clients", clients, (ClosedLoop,), "requests come at a rate, or as many as the budget has use for"),
        ("--overload", overload, (OpenLoop,), "clients wait for answers: use it with spike, or use --clients"),
        ("--processes", processes, (ScaleOut,), "the number of processes stays: use it with scale-out"),
    ):
        if given is not None and not any(isinstance(scenario.shape, shapes) for scenario in scenarios):
            names = ", ".join(scenario.name for scenario in scenarios)
            raise CannotStart(f"{option} means nothing to {names}, where {elsewhere}")
    return [_adjusted(scenario, seconds, clients, overload, processes) for scenario in scenarios]


def check_room(scenarios: Sequence[Scenario], line: int) -> None:
    """Raise CannotStart when a server with `line` connections to give has too few for one of them."""
    for scenario in scenarios:
        if isinstance(scenario.shape, ScaleOut) and line < scenario.shape.budget:
            shape = scenario.shape
            raise CannotStart(
                f"in {scenario.name} {shape.processes} processes share a budget of {shape.budget} connections, and the "
                f"server has {line} to give: use fewer --processes, or max_connections {shape.max_connections}"
            )


def _adjusted(
    scenario: Scenario, seconds: float | None, clients: int | None, overload: float | None, processes: int | None
) -> Scenario:
    shape = scenario.shape
    if isinstance(shape, ScaleOut):
        return replace(scenario, shape=replace(shape, processes=processes or shape.processes))
    if isinstance(shape, Batch):
        return scenario
    if isinstance(shape, ClosedLoop):
        shape = replace(shape, clients=clients or shape.clients)
    else:
        shape = replace(shape, overload=overload or shape.overload)
    return replace(scenario, seconds=seconds or scenario.seconds, shape=shape)


def conduct(scenario: Scenario, arms: Sequence[type[Arm]], server: Server, watch: Watch) -> Outcome:
    """Run `scenario` with each of `arms`. Raises CannotStart; whatever it started has ended when it returns."""
    if isinstance(scenario.shape, ScaleOut):
        check_room([scenario], server.line)
        return Outcome(scenario, [_scale_out(arm, scenario, scenario.shape, server, watch) for arm in arms], server)
    if isinstance(scenario.shape, Batch):
        return Outcome(scenario, [_batch(arm, scenario, scenario.shape, server, watch) for arm in arms], server)
    if isinstance(scenario.shape, ClosedLoop):
        arrivals = scenario.shape.arrivals(scenario.seconds)
        results = [_result(arm, scenario, server) for arm in arms]
        return Outcome(scenario, [_run(result, scenario, arrivals, server, watch) for result in results], server)
    capacity = _capacity(scenario, server, watch)
    arrivals = scenario.shape.arrivals(scenario.seconds, capacity.per_second)
    begin, end = scenario.shape.spike(scenario.seconds)
    spike = Spike(capacity=capacity.per_second, due=sum(begin <= at < end for at in arrivals), begin=begin, end=end)
    results = [_result(arm, scenario, server, spike) for arm in arms]
    return Outcome(scenario, [_run(result, scenario, arrivals, server, watch) for result in results], server, capacity)


def _scale_out(arm: type[Arm], scenario: Scenario, shape: ScaleOut, server: Server, watch: Watch) -> Result:
    figures: dict[str, Any] = {
        "arm": arm,
        "line": shape.budget,
        "pool_size": shape.fixed,
        "instances": shape.processes,
        "deadline": scenario.deadline,
        "seconds": scenario.seconds if arm.judged else scaleout.BRIEF,
    }
    result = ScaleOutResult(**figures)
    with _proxy(server) as proxy:
        scaleout.run(result, scenario, shape, server, proxy, watch)
    return result


def _batch(arm: type[Arm], scenario: Scenario, shape: Batch, server: Server, watch: Watch) -> Result:
    result = BatchResult(
        arm=arm,
        line=server.line,
        pool_size=server.share(scenario.instances).pool_size,
        instances=scenario.instances,
        deadline=scenario.deadline,
        seconds=scenario.seconds,
        items=shape.items,
    )
    batch.run(result, shape, server, watch)
    return result


def _capacity(scenario: Scenario, server: Server, watch: Watch) -> Capacity:
    """Measure how many requests of `scenario` can be answered in a second with the connections of the budget."""
    connections = server.share(scenario.instances).pool_size * scenario.instances
    shape = ClosedLoop(clients=connections, think=0.0)
    busy = replace(scenario, shape=shape, seconds=CAPACITY_SECONDS, events=())
    result = _run(_result(OneEach, busy, server), busy, shape.arrivals(busy.seconds), server, watch)
    answered = sum(answer.error is None and SETTLED_SECONDS <= answer.end < busy.seconds for answer in result.answers)
    if not result.good or not answered:
        raise CannotStart(
            f"the capacity could not be measured: with {connections} connections, which should be to be had, "
            f"{result.ok} requests were answered and {result.lost} lost {result.errors or ''}"
        )
    return Capacity(answered / (busy.seconds - SETTLED_SECONDS), connections)


def _result(arm: type[Arm], scenario: Scenario, server: Server, spike: Spike | None = None) -> Result:
    figures: dict[str, Any] = {
        "arm": arm,
        "line": server.line,
        "pool_size": server.share(scenario.instances).pool_size,
        "instances": scenario.instances,
        "deadline": scenario.deadline,
        "seconds": scenario.seconds,
    }
    return OverloadResult(**figures, spike=spike) if spike else Result(**figures)


def _run(result: Result, scenario: Scenario, arrivals: Sequence[float], server: Server, watch: Watch) -> Result:
    with ExitStack() as stack:
        stage = Stage(server, stack.enter_context(_proxy(server)) if scenario.through_proxy else None)
        sampler = stack.enter_context(Sampler(server.admin_dsn, alone=server.embedded))
        sampler.wait_until_gone()
        load = stack.enter_context(Load(list(_orders(scenario, result, arrivals, _dsn(stage)))))
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


def _orders(scenario: Scenario, result: Result, arrivals: Sequence[float], dsn: str) -> Iterator[Orders]:
    # Nobody knows beforehand which processes a scale-out will have, and a batch has no requests.
    assert not isinstance(scenario.shape, (ScaleOut, Batch))
    first = 0
    for number in range(scenario.instances):
        # Dealt out in turn, as a load balancer does, so that every instance has its part of each moment.
        mine = tuple(arrivals[number :: scenario.instances])
        yield Orders(
            arm=result.arm,
            dsn=dsn,
            pool_size=result.pool_size,
            work=scenario.work,
            shape=scenario.shape,
            arrivals=mine,
            first=first,
            seconds=scenario.seconds,
            deadline=scenario.deadline,
            patience=scenario.patience,
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
