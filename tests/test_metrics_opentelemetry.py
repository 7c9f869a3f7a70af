"""What OpenTelemetry is told: every metric of the conventions over OTLP, and spans for who waited."""

import asyncio
import gc
import math
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from weakref import ref

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.metrics import db_metrics

import penstock
from penstock import AsyncPool, Pool
from penstock.core import BOUNDS
from penstock.observe.metrics import METRICS
from penstock.observe.opentelemetry import instrument, with_histograms
from support.fake import FakeDriver, make
from support.waiting import aside, eventually

NAME = "db.client.connection.pool.name"


class Collector:
    """One that speaks OTLP over HTTP, and keeps what it is sent."""

    def __init__(self) -> None:
        self.received: list[ExportMetricsServiceRequest] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.append(
                    ExportMetricsServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
                )
                body = ExportMetricsServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/metrics"

    @contextmanager
    def running(self) -> Iterator["Collector"]:
        """For the length of the block."""
        thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def metrics(self) -> dict[str, Any]:
        """By name; of each the last that came."""
        return {
            metric.name: metric
            for request in self.received
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@contextmanager
def idle_pool(name: str, **options: Any) -> Iterator[Pool[Any]]:
    """A pool without a server."""
    with make(Pool, FakeDriver(False), **{"min_size": 1, "name": name, **options}) as pool:
        pool.wait()
        yield pool


def points(metric: Any, pool: str) -> dict[str, Any]:
    """A decoded metric's points of one pool, by the value of their other attribute."""
    data = getattr(metric, metric.WhichOneof("data"))
    found = {}
    for point in data.data_points:
        attributes = {pair.key: pair.value for pair in point.attributes}
        if attributes.pop(NAME).string_value == pool:
            (other,) = [pair.string_value for pair in attributes.values()] or [""]
            found[other] = point
    return found


def test_every_metric_of_the_conventions_arrives_over_otlp() -> None:
    """Through the real exporter, decoded by the protocol's own classes: names, units, kinds and figures."""
    with Collector().running() as collector, idle_pool("shop", min_size=2, max_size=3) as pool:
        exporter = with_histograms(OTLPMetricExporter(endpoint=collector.url))
        provider = MeterProvider([PeriodicExportingMetricReader(exporter, math.inf)])
        stop = instrument(provider)
        with pool.connection():
            pool._core.leases()[0].since -= 0.03
        with pool.connection():
            assert provider.force_flush(10_000)
        provider.shutdown()
        stop()
        found = collector.metrics()
        theirs = {
            name
            for constant, name in vars(db_metrics).items()
            if constant.startswith("DB_CLIENT_CONNECTION_") and isinstance(name, str)
        }
        assert len(theirs) == 9
        assert theirs <= found.keys()
        units = {metric.name: metric.unit for metric in METRICS}
        assert all(found[name].unit == units[name] for name in theirs)
        count = points(found["db.client.connection.count"], "shop")
        assert {state: point.as_int for state, point in count.items()} == {"idle": 1, "used": 1}
        assert not found["db.client.connection.count"].sum.is_monotonic
        assert found["db.client.connection.timeouts"].sum.is_monotonic
        assert points(found["db.client.connection.max"], "shop")[""].as_int == 3
        use = points(found["db.client.connection.use_time"], "shop")[""]
        assert (use.count, list(use.bucket_counts)) == (1, [0, 0, 0, 1, 0, 0, 0, 0, 0, 0])
        assert list(use.explicit_bounds) == list(BOUNDS)
        assert 0.03 <= use.sum < 0.5
        assert points(found["db.client.connection.wait_time"], "shop")[""].count == 2
        assert points(found["db.client.connection.create_time"], "shop")[""].count == 2
        assert points(found["penstock.requests"], "shop")[""].as_int == 2


class Kept(MetricExporter):
    """Keeps what it is told; prefers to hear of what is new."""

    def __init__(self) -> None:
        super().__init__({sdk.Histogram: AggregationTemporality.DELTA})
        self.told: list[MetricsData] = []

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        self.told.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        pass

    def uses(self, pool: str) -> list[tuple[int, int]]:
        """Of each export: temporality and count."""
        return [
            (metric.data.aggregation_temporality, point.count)
            for told in self.told
            for scope in told.resource_metrics[0].scope_metrics
            for metric in scope.metrics
            if metric.name == "db.client.connection.use_time"
            for point in metric.data.data_points
            if point.attributes[NAME] == pool
        ]


def test_an_exporter_that_prefers_to_hear_of_what_is_new_does() -> None:
    """Each use is told of once."""
    kept = Kept()
    provider = MeterProvider([PeriodicExportingMetricReader(with_histograms(kept), math.inf)])
    stop = instrument(provider)
    with idle_pool("deltas") as pool:
        for uses in (1, 3, 0):
            for _ in range(uses):
                with pool.connection():
                    pass
            provider.force_flush()
    stop()
    provider.shutdown()
    assert kept.uses("deltas")[:3] == [(AggregationTemporality.DELTA, count) for count in (1, 3, 0)]


def exported(reader: InMemoryMetricReader) -> dict[str, list[dict[str, Any]]]:
    """Name to its points' attributes."""
    data = reader.get_metrics_data()
    return {
        metric.name: [dict(point.attributes or {}) for point in metric.data.data_points]
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def test_a_leak_is_told_with_its_line() -> None:
    """In the conventions' attributes, and with their types."""
    reader = InMemoryMetricReader()
    stop = instrument(MeterProvider([reader]))
    with idle_pool("leaky", leak_after=0.01) as pool:
        conn = pool.getconn()
        eventually(lambda: pool.snapshot().suspects)
        leaks = [each for each in exported(reader)["penstock.leaks"] if each[NAME] == "leaky"]
        pool.putconn(conn)
    stop()
    (leak,) = leaks
    assert leak["code.file.path"] == __file__
    assert leak["code.function.name"] == "test_a_leak_is_told_with_its_line"
    assert type(leak["code.line.number"]) is int


def test_what_is_stopped_tells_no_more_and_no_pool_is_kept() -> None:
    """A pool that is dropped is gone, instrumented or not."""
    reader = InMemoryMetricReader()
    stop = instrument(MeterProvider([reader]))
    pool = make(Pool, FakeDriver(False), min_size=1, name="dropped")
    pool.open(wait=True)
    assert any(each[NAME] == "dropped" for each in exported(reader)["penstock.requests"])
    pool.close()
    gone = ref(pool)
    del pool
    gc.collect()
    assert gone() is None
    stop()
    with idle_pool("later") as pool:
        assert not exported(reader)
        assert not pool._listeners or all("_Waits" not in repr(callback) for callback, _ in pool._listeners)


class Traces:
    """Spans, as they end."""

    def __init__(self) -> None:
        self._kept = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._kept))
        self.tracer = self.provider.get_tracer("test")

    def waits(self) -> list[ReadableSpan]:
        """Those of ours."""
        return [span for span in self._kept.get_finished_spans() if span.name == "wait for a connection"]


def wait_within_a_request(traces: Traces, pool: Pool[Any]) -> int:
    """Somebody has to wait for a moment, within a span of its own; that one's id."""
    first = pool.getconn()

    def request() -> int:
        with traces.tracer.start_as_current_span("request") as span, pool.connection():
            return span.get_span_context().span_id

    waiting = aside(request)
    eventually(lambda: pool.snapshot().waiting == 1)
    pool.putconn(first)
    return waiting.result(10)


def test_who_waits_for_long_has_a_span_of_it_in_the_request() -> None:
    """As long as the wait was, with the pool's name and the line that asked; who waits for less has none."""
    traces = Traces()
    with idle_pool("slow") as pool:
        stop = instrument(MeterProvider(), traces.provider, slow=60)
        wait_within_a_request(traces, pool)
        assert not traces.waits()
        stop()
        stop = instrument(MeterProvider(), traces.provider, slow=0)
        request = wait_within_a_request(traces, pool)
        (span,) = traces.waits()
        stop()
    assert span.parent is not None
    assert span.parent.span_id == request
    assert span.attributes is not None
    assert span.attributes[NAME] == "slow"
    assert span.attributes["code.function.name"] == "wait_within_a_request.<locals>.request"
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time > span.start_time


def test_who_gets_no_connection_has_a_span_that_says_why() -> None:
    """Also in a task, where the current span is the task's."""
    traces = Traces()
    stop = instrument(MeterProvider(), traces.provider)

    async def scenario() -> None:
        async with make(AsyncPool, FakeDriver(True), min_size=1, name="none") as pool:
            pool.pause()
            with traces.tracer.start_as_current_span("request"), pytest.raises(penstock.PoolTimeout):
                await pool.getconn(timeout=0.01)
            with pytest.raises(penstock.PoolTimeout):
                await pool.getconn(timeout=0.01)  # within no request that anybody traces

    asyncio.run(scenario())
    stop()
    (span,) = traces.waits()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "timeout"
    assert not span.status.is_ok


def test_without_an_sdk_nothing_happens() -> None:
    """Its API is all that is needed, and does nothing by itself."""
    program = """
        import sys
        from penstock import Pool
        from penstock.observe.opentelemetry import instrument
        from support.fake import FakeDriver, make
        stop = instrument()
        with make(Pool, FakeDriver(False), min_size=1) as pool, pool.connection():
            pass
        stop()
        assert not any(name.startswith("opentelemetry.sdk") for name in sys.modules)
        """
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], env=env, check=True, timeout=60)
