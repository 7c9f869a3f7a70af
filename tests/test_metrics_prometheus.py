"""What Prometheus is told: the conventions' names, the pools' figures, and no counter that goes down."""

import asyncio
import gc
import math
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import ref

import psycopg
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.semconv._incubating.attributes import code_attributes, db_attributes
from opentelemetry.semconv._incubating.metrics import db_metrics
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

import penstock
from penstock import AsyncPool, Pool
from penstock.core import BOUNDS
from penstock.fallback import Fallback
from penstock.observe import prometheus
from penstock.observe.looplag import lag
from penstock.observe.metrics import CODE, METRICS, POOL, STATE, Kind
from penstock.pool.membership import FleetState
from support.fake import FakeDriver, make
from support.promtool import promtool
from support.waiting import aside, eventually, soon


@pytest.fixture
def registry() -> Iterator[CollectorRegistry]:
    """One that has the pools' figures."""
    found = CollectorRegistry()
    unregister = prometheus.register(found)
    yield found
    unregister()


@contextmanager
def idle_pool(name: str, **options: Any) -> Iterator[Pool[Any]]:
    """A pool without a server."""
    with make(Pool, FakeDriver(False), **{"min_size": 1, "name": name, **options}) as pool:
        pool.wait()
        yield pool


def families(registry: CollectorRegistry) -> dict[str, Family]:
    """By name, as whoever scrapes has them."""
    return {family.name: family for family in parse(generate_latest(registry).decode())}


def values(registry: CollectorRegistry, pool: str) -> dict[tuple[str, ...], float]:
    """The figures of one pool: name and other labels to value."""
    return {
        (sample.name, *(label for key, label in sorted(sample.labels.items()) if label != pool)): sample.value
        for family in families(registry).values()
        for sample in family.samples
        if pool in sample.labels.values()
    }


class Recorder:
    """A meter that takes note of what the conventions create."""

    def __init__(self) -> None:
        self.created: dict[str, tuple[str, str, str]] = {}

    def __getattr__(self, method: str) -> Callable[..., None]:
        def create(name: str, unit: str, description: str) -> None:
            self.created[name] = (method, unit, description)

        return create


def conventions() -> dict[str, tuple[str, str, str]]:
    """Every metric of a client's connection pool: its instrument, unit and words."""
    meter: Any = Recorder()
    for name, create in vars(db_metrics).items():
        if name.startswith("create_db_client_connection_"):
            create(meter)
    found: dict[str, tuple[str, str, str]] = meter.created
    return found


INSTRUMENTS = {
    "create_up_down_counter": Kind.GAUGE,
    "create_counter": Kind.COUNTER,
    "create_histogram": Kind.HISTOGRAM,
}


def test_every_metric_of_the_conventions_is_there_and_is_what_they_say() -> None:
    """Name, instrument, unit and words; and nothing else calls itself one."""
    ours = {metric.name: metric for metric in METRICS if metric.name.startswith("db.")}
    theirs = conventions()
    assert len(theirs) == 9
    assert set(ours) == set(theirs)
    for name, (method, unit, description) in theirs.items():
        assert (ours[name].kind, ours[name].unit, ours[name].help) == (INSTRUMENTS[method], unit, description)


def test_labels_are_the_conventions_attributes() -> None:
    """The pool's name, a connection's state, a line of code."""
    assert POOL == db_attributes.DB_CLIENT_CONNECTION_POOL_NAME
    assert STATE == db_attributes.DB_CLIENT_CONNECTION_STATE
    assert {state.value for state in db_attributes.DbClientConnectionStateValues} == {"idle", "used"}
    assert CODE == (
        code_attributes.CODE_FILE_PATH,
        code_attributes.CODE_LINE_NUMBER,
        code_attributes.CODE_FUNCTION_NAME,
    )


def test_names_are_spelled_as_opentelemetry_spells_them_for_prometheus() -> None:
    """As its own exporter to Prometheus does: this is what that one wrote."""
    written = {
        "db_client_connection_count": "gauge",
        "db_client_connection_create_time_seconds": "histogram",
        "db_client_connection_idle_max": "gauge",
        "db_client_connection_idle_min": "gauge",
        "db_client_connection_max": "gauge",
        "db_client_connection_pending_requests": "gauge",
        "db_client_connection_timeouts": "counter",
        "db_client_connection_use_time_seconds": "histogram",
        "db_client_connection_wait_time_seconds": "histogram",
    }
    ours = {prometheus.spelled(metric): metric.kind.value for metric in METRICS if metric.name.startswith("db.")}
    assert ours == written


def test_the_figures_are_the_pools(dsn: str, registry: CollectorRegistry) -> None:
    """In use, waiting, timed out, refused and closed, on a real server."""
    with Pool(dsn, min_size=2, max_size=3, open=False, name="figures") as pool:
        pool.wait()
        with pool.connection(), pool.connection(), pool.connection():
            with pytest.raises(penstock.PoolTimeout):
                pool.getconn(timeout=0)

            def use() -> None:
                with pool.connection():
                    pass

            waiting = aside(use)
            eventually(lambda: pool.snapshot().waiting == 1)
            found = values(registry, "figures")
            assert found["db_client_connection_count", "used"] == 3
            assert found["db_client_connection_count", "idle"] == 0
            assert found["db_client_connection_max",] == found["db_client_connection_idle_max",] == 3
            assert found["db_client_connection_idle_min",] == 2
            assert found["db_client_connection_pending_requests",] == 1
            assert found["db_client_connection_timeouts_total",] == 1
            assert found["penstock_refusals_total", "timeout"] == 1
            assert found["db_client_connection_create_time_seconds_count",] == 3
        waiting.result(10)
        pool.drain()
        eventually(lambda: sum(pool.snapshot().closes.values()) == 3)
        found = values(registry, "figures")
        assert found["penstock_closes_total", "drained"] == 3
        assert found["db_client_connection_use_time_seconds_count",] == 4
        assert found["db_client_connection_wait_time_seconds_count",] == 4
        assert found["db_client_connection_wait_time_seconds_bucket", "+Inf"] == 4
        assert found["penstock_requests_total",] == 5
        assert found["penstock_requests_queued_total",] >= 1


def test_a_histogram_counts_up_to_each_bound(registry: CollectorRegistry) -> None:
    """Which is how Prometheus counts: a bucket holds what the ones before it hold."""
    with idle_pool("bounds") as pool:
        for age in (0, 0.03, 0.3, 3):
            with pool.connection():
                pool._core.leases()[0].since -= age
        found = values(registry, "bounds")
        name = "db_client_connection_use_time_seconds"
        counts = [found[f"{name}_bucket", prometheus.LE[number]] for number in range(len(BOUNDS) + 1)]
        assert counts == [1, 1, 1, 2, 2, 3, 3, 4, 4, 4]
        assert 3.33 <= found[f"{name}_sum",] < 3.5


def test_parsers_take_all_of_it(registry: CollectorRegistry) -> None:
    """Prometheus's text, OpenMetrics, and promtool, whose one complaint is a name of the conventions."""
    with idle_pool('a "name"\\ of\nsome kind') as pool, pool.connection():
        text = generate_latest(registry).decode()
        assert {family.name for family in parse(text)} >= {"db_client_connection_max", "penstock_requests"}
        families = {family.name for family in parse_openmetrics(openmetrics(registry).decode())}
        assert families >= {"db_client_connection_max", "penstock_requests"}
        said = promtool("check", "metrics", given=text)
        complaints = [line for line in (said.stdout + said.stderr).splitlines() if line]
        assert complaints == [
            'db_client_connection_count non-histogram and non-summary metrics should not have "_count" suffix'
        ]


def test_two_pools_of_one_name_are_one_and_no_counter_goes_down_when_one_goes(registry: CollectorRegistry) -> None:
    """Prometheus would take that for a new beginning, and all that was counted for a burst."""
    with idle_pool("twins") as pool:
        with pool.connection():
            pass
        with idle_pool("twins") as other:
            for _ in range(5):
                with other.connection():
                    pass
            found = values(registry, "twins")
            assert found["penstock_requests_total",] == 6
            assert found["db_client_connection_max",] == 2
        del other
        gc.collect()
        found = values(registry, "twins")
        assert found["penstock_requests_total",] == 6
        assert found["db_client_connection_use_time_seconds_count",] == 6
        assert found["db_client_connection_max",] == 1


def test_no_counter_goes_down_when_a_pool_begins_anew(registry: CollectorRegistry) -> None:
    """As the pool of an application that is started a second time does."""
    with idle_pool("again") as pool:
        for _ in range(5):
            with pool.connection():
                pass
        assert values(registry, "again")["penstock_requests_total",] == 5
        pool.close()
        pool._renew_if_over()
        pool.open(wait=True)
        with pool.connection():
            pass
        assert values(registry, "again")["penstock_requests_total",] == 6


def test_no_counter_goes_down_while_connections_come_and_go(registry: CollectorRegistry) -> None:
    """Pools count without a lock: who looks from another thread may meet a connection that is just being closed."""
    with idle_pool("restless", min_size=4) as pool:
        ended = False

        def use() -> None:
            while not ended:
                for _ in range(50):
                    with pool.connection():
                        pass
                pool.drain()

        users = [aside(use) for _ in range(2)]
        try:
            before: dict[tuple[str, ...], float] = {}
            for _ in range(100):
                found = values(registry, "restless")
                for key, value in found.items():
                    if key[0].endswith(("_total", "_bucket", "_sum", "_seconds_count")):
                        assert value >= before.get(key, 0), key
                before = found
        finally:
            ended = True
        for user in users:
            user.result(20)
    assert before["penstock_requests_total",] > 0


def test_a_registered_pool_is_not_kept(registry: CollectorRegistry) -> None:
    """A program that makes pools and drops them does not grow, and their figures go with them."""
    pool = make(Pool, FakeDriver(False), min_size=1, name="dropped")
    pool.open(wait=True)
    assert values(registry, "dropped")
    pool.close()
    gone = ref(pool)
    del pool
    gc.collect()
    assert gone() is None
    assert not values(registry, "dropped")


def test_a_leak_is_told_with_its_line(registry: CollectorRegistry) -> None:
    """How many there were, and how many there are."""
    with idle_pool("leaky", leak_after=0.01) as pool:
        conn = pool.getconn()
        eventually(lambda: pool.snapshot().suspects)
        found = values(registry, "leaky")
        (leak,) = [key for key in found if key[0] == "penstock_leaks_total"]
        assert leak[1:] == (__file__, "test_a_leak_is_told_with_its_line", leak[3])
        assert found[leak] == found["penstock_leaks_suspected",] == 1
        pool.putconn(conn)
        found = values(registry, "leaky")
        assert (found[leak], found["penstock_leaks_suspected",]) == (1, 0)


def test_no_request_brings_a_label_along(registry: CollectorRegistry) -> None:
    """However many lines, tasks and keys ask: what a pool may say is bounded by what the program consists of."""
    with idle_pool("bounded", max_per_key=1) as pool:
        before = len(values(registry, "bounded"))
        for number in range(200):
            with pool.connection(key=f"tenant-{number}"):
                pass
        assert len(values(registry, "bounded")) == before


def test_a_pool_without_a_limit_says_none(registry: CollectorRegistry) -> None:
    """Not nine quintillion connections."""
    with idle_pool("endless", min_size=1, max_size=sys.maxsize):
        found = values(registry, "endless")
        assert ("db_client_connection_max",) not in found
        assert found["db_client_connection_idle_min",] == 1


def test_the_fleet_is_told_of(registry: CollectorRegistry) -> None:
    """Its budget, and this pool's share of it; the budget is not the sum of two pools' that share it."""
    state = FleetState("shop", "m1", budget=40, share=7, members=3, claimed=30, age=0.5, hint=None)
    with idle_pool("member") as pool, idle_pool("member") as other:
        pool.fleet = other.fleet = lambda: state  # type: ignore[method-assign]
        found = values(registry, "member")
        assert found["penstock_fleet_budget",] == 40
        assert found["penstock_fleet_share",] == 14
        assert found["penstock_fleet_members",] == 3
        assert found["penstock_fleet_claimed",] == 30
        assert found["penstock_fleet_age_seconds",] == 0.5


def test_what_a_fallback_answers_is_told(registry: CollectorRegistry) -> None:
    """By how fresh it was."""
    fallback = Fallback(fresh=60, name="prices")
    for _ in range(3):
        fallback.get("key", lambda: 1)
    found = values(registry, "prices")
    assert found["penstock_fallback_answers_total", "loaded"] == 1
    assert found["penstock_fallback_answers_total", "fresh"] == 2


def test_statements_that_share_connections_are_told_of(dsn: str, registry: CollectorRegistry) -> None:
    """Each is a use of its own; and a loop that is asked how late it is tells it."""

    async def scenario() -> dict[tuple[str, ...], float]:
        async with AsyncPool(dsn, min_size=2, name="shared") as pool:
            await asyncio.gather(*(pool.fetchval("SELECT 1") for _ in range(20)))
            await soon(lambda: lag(pool) is not None, 20)
            return values(registry, "shared")

    found = asyncio.run(scenario())
    assert found["penstock_multiplex_statements_total",] == 20
    assert found["penstock_multiplex_in_flight",] == 0
    assert found["db_client_connection_use_time_seconds_count",] == 20
    assert found["db_client_connection_wait_time_seconds_count",] == 20
    assert found["penstock_event_loop_lag_seconds",] >= 0


def test_a_database_that_is_down_is_told_of(registry: CollectorRegistry) -> None:
    """A flag, and the attempts that failed."""
    with Pool("host=127.0.0.1 port=1", min_size=1, open=False, name="down", connect_timeout=1) as pool:
        with pytest.raises(psycopg.OperationalError):
            pool.getconn(timeout=2)
        eventually(lambda: pool.snapshot().database_down)
        found = values(registry, "down")
        assert found["penstock_database_down",] == 1
        assert found["penstock_connect_errors_total",] >= 1
        assert found["db_client_connection_max",] == 1


def test_a_bucket_has_a_trace_that_waited_and_one_that_held_for_long(registry: CollectorRegistry) -> None:
    """For who asks for OpenMetrics: how slow it was, and which request it was, in one click."""
    tracer = TracerProvider().get_tracer("test")
    with idle_pool("traced") as pool:
        values(registry, "traced")  # from the first scrape on
        first = pool.getconn()

        def wait() -> trace.SpanContext:
            with tracer.start_as_current_span("request") as span, pool.connection():
                pool._core.leases()[0].since -= 2
                return span.get_span_context()

        waiting = aside(wait)
        eventually(lambda: pool.snapshot().waiting == 1)
        pool.putconn(first)
        context = waiting.result(10)
        found = [
            (sample.name, sample.exemplar)
            for family in parse_openmetrics(openmetrics(registry).decode())
            for sample in family.samples
            if sample.exemplar is not None and sample.labels["db_client_connection_pool_name"] == "traced"
        ]
        assert [name for name, _ in found] == [
            "db_client_connection_wait_time_seconds_bucket",
            "db_client_connection_use_time_seconds_bucket",
        ]
        ids = {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
        assert all(exemplar.labels == ids for _, exemplar in found)
        assert found[1][1].value >= 2
        assert "# {" not in generate_latest(registry).decode()


def test_registering_twice_is_an_error_and_unregistering_ends_it() -> None:
    """Two collectors of the same names would make a page that Prometheus refuses."""
    registry = CollectorRegistry()
    unregister = prometheus.register(registry)
    with pytest.raises(ValueError, match="Duplicated"):
        prometheus.register(registry)
    unregister()
    prometheus.register(registry)()
    assert generate_latest(registry) == b""


def test_a_pool_that_cannot_be_read_spoils_no_scrape(registry: CollectorRegistry) -> None:
    """The others are wanted all the same, and it is there again the next time."""
    with idle_pool("broken") as broken, idle_pool("sound"):
        whole = broken.snapshot
        broken.snapshot = lambda: 1 / 0  # type: ignore[method-assign,assignment,return-value]
        assert not values(registry, "broken")
        assert values(registry, "sound")
        broken.snapshot = whole  # type: ignore[method-assign]
        assert values(registry, "broken")


def test_memory_is_flat_over_many_scrapes(registry: CollectorRegistry) -> None:
    """What is remembered from one scrape for the next is replaced by the next."""
    with idle_pool("flat", min_size=5) as pool:

        def scrape(times: int) -> int:
            for _ in range(times):
                with pool.connection():
                    pass
                generate_latest(registry)
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        try:
            scrape(50)
            before = scrape(50)
            assert scrape(300) - before < 20_000
        finally:
            tracemalloc.stop()


def test_bounds_are_in_order_and_the_last_bucket_has_none() -> None:
    """Which is what both Prometheus and OpenTelemetry ask of a histogram."""
    assert list(BOUNDS) == sorted(set(BOUNDS))
    assert prometheus.LE[-1] == "+Inf"
    assert all(math.isfinite(bound) for bound in BOUNDS)
