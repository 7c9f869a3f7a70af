"""What metrics cost a checkout: read by Prometheus, or exported by OpenTelemetry, and not at all.

Everything is in one process, switched on and off between turns. What is read is kept in any case (that is in `off`
too, and in `admission_cost`). Somebody reads twenty times a second, in a thread beside: hundreds of times as often as
in a service, so that each of the short turns has its readings. Each is compared with the turn without metrics of the
same round, a moment apart, and the median of those ratios counts: what else the machine does hits both.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from statistics import median
from time import perf_counter

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry, generate_latest

import penstock
from bench.context import Context
from bench.measure import interleave, interleave_async
from bench.report import Line, Result
from penstock.observe import prometheus
from penstock.observe.opentelemetry import instrument, with_histograms

CLAIM = "an uncontended checkout with metrics on, and with metrics off"
BAR = "<= 10 % more"

BAR_PERCENT = 10.0
READ_EVERY = 0.05  # seconds
SECONDS, ROUNDS = 0.12, 45  # of a turn
SIZE = 4


@contextmanager
def read_by_prometheus() -> Iterator[None]:
    """A scrape is a whole page, as text."""
    registry = CollectorRegistry()
    unregister = prometheus.register(registry)
    ended = threading.Event()

    def scrape() -> None:
        while not ended.wait(READ_EVERY):
            assert b"db_client_connection_use_time_seconds_bucket" in generate_latest(registry)

    scraper = threading.Thread(target=scrape)
    scraper.start()
    yield
    ended.set()
    scraper.join()
    unregister()


class Encoded(MetricExporter):
    """Encodes for OTLP what it is given, and sends it nowhere."""

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: object) -> MetricExportResult:
        assert encode_metrics(metrics_data).SerializeToString()
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: object) -> None:
        pass


@contextmanager
def exported_by_opentelemetry() -> Iterator[None]:
    """Histograms and spans included."""
    reader = PeriodicExportingMetricReader(with_histograms(Encoded()), READ_EVERY * 1000)
    provider = MeterProvider([reader])
    stop = instrument(provider, TracerProvider())
    yield
    stop()
    provider.shutdown()


def _off() -> AbstractContextManager[None]:
    return nullcontext()


WAYS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "off": _off,
    "off, again": _off,
    "Prometheus": read_by_prometheus,
    "OpenTelemetry": exported_by_opentelemetry,
}


def run(ctx: Context) -> Result:
    rounds = 15 if ctx.quick else ROUNDS
    with penstock.Pool(ctx.dsn, min_size=SIZE, open=False) as pool:
        pool.wait()
        threads = interleave({name: _turn(pool, way) for name, way in WAYS.items()}, rounds)
    tasks = asyncio.run(_tasks(ctx.dsn, rounds))
    return [*_lines("threads", threads), *_lines("asyncio", tasks)]


def _turn(pool: penstock.Pool, way: Callable[[], AbstractContextManager[None]]) -> Callable[[], float]:
    def turn() -> float:
        with way():
            cycles, started = 0, perf_counter()
            while perf_counter() < started + SECONDS:
                for _ in range(1000):
                    with pool.connection():
                        pass
                cycles += 1000
            return (perf_counter() - started) / cycles * 1e6

    return turn


async def _tasks(dsn: str, rounds: int) -> dict[str, list[float]]:
    async with penstock.AsyncPool(dsn, min_size=SIZE, open=False) as pool:
        await pool.wait()
        return await interleave_async({name: _async_turn(pool, way) for name, way in WAYS.items()}, rounds)


def _async_turn(
    pool: penstock.AsyncPool, way: Callable[[], AbstractContextManager[None]]
) -> Callable[[], Awaitable[float]]:
    async def turn() -> float:
        with way():
            cycles, started = 0, perf_counter()
            while perf_counter() < started + SECONDS:
                for _ in range(1000):
                    async with pool.connection():
                        pass
                cycles += 1000
            return (perf_counter() - started) / cycles * 1e6

    return turn


def _lines(shell: str, found: dict[str, list[float]]) -> Iterator[Line]:
    off = median(found["off"])
    more = {
        name: (median(on / beside for on, beside in zip(each, found["off"], strict=True)) - 1) * 100
        for name, each in found.items()
    }
    for name in ("Prometheus", "OpenTelemetry"):
        yield Line(
            f"uncontended checkout, {shell}, metrics on ({name}, read every {READ_EVERY:g} s)",
            f"{median(found[name]):.2f} us",
            f"off: {off:.2f} us (off, again: {more['off, again']:+.1f} %)",
            f"{more[name]:+.1f} %",
            f"<= {BAR_PERCENT:g} %",
            more[name] <= BAR_PERCENT,
        )
