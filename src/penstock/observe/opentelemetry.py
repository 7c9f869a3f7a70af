"""The figures of this process's pools, and spans for those who waited for one, through OpenTelemetry.

    penstock.observe.opentelemetry.instrument()

needs its API alone; without an SDK nothing happens. Counts are read when the SDK asks for them and cost a checkout
nothing. Times are another matter: the API has no way to hand over a histogram, only to record one value after the
other, which takes longer (some microseconds each) than two checkouts. So the histograms of wait, use and create time
go past it, as the pools keep them, complete: wrap the exporter,

    PeriodicExportingMetricReader(penstock.observe.opentelemetry.with_histograms(OTLPMetricExporter()))
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation
from opentelemetry.trace import Status, StatusCode, TracerProvider

from ..core.settings import check_seconds
from ..events import Refused, Waited
from .metrics import CODE, METRICS, POOL, Kind, Labels, Metric
from .reading import Reader, Readings
from .sources import Source, each

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter

SCOPE = "penstock"
SLOW = 0.1  # seconds
_SAME = 0.1  # seconds within which all instruments are told of the same moment: the SDK asks one after the other


def instrument(
    meter_provider: MeterProvider | None = None, tracer_provider: TracerProvider | None = None, slow: float = SLOW
) -> Callable[[], None]:
    """From now on OpenTelemetry has the counts of every pool of this process; returns what ends that.

    Who waits for a connection for *slow* seconds or longer, or gets none, has a span of that within the current one.

    :param meter_provider: by default the global one.
    :param tracer_provider: likewise.
    :param slow: seconds.
    """
    check_seconds("slow", slow)
    meters = metrics.get_meter_provider() if meter_provider is None else meter_provider
    tracers = trace.get_tracer_provider() if tracer_provider is None else tracer_provider
    told = _Told()
    told.create(meters.get_meter(SCOPE))
    waits = _Waits(tracers.get_tracer(SCOPE), slow)

    def stop() -> None:
        told.ended = True
        waits.close()

    return stop


def with_histograms(exporter: MetricExporter) -> MetricExporter:
    """*exporter*, for a reader of OpenTelemetry's SDK, which exports wait, use and create time besides."""
    from .histograms import WithHistograms

    return WithHistograms(exporter)


def attributes(metric: Metric, labels: Labels) -> dict[str, str | int]:
    """As the conventions type them."""
    found: dict[str, str | int] = dict(zip(metric.labels, labels, strict=True))
    if CODE[1] in found:
        found[CODE[1]] = int(found[CODE[1]])
    return found


class _Told:
    """What the SDK is told when it asks."""

    def __init__(self) -> None:
        self.ended = False
        self._reader = Reader()
        self._read: Readings = {}
        self._read_at = float("-inf")

    def create(self, meter: Meter) -> None:
        for metric in METRICS:
            if metric.kind is Kind.HISTOGRAM:
                continue
            if metric.kind is Kind.COUNTER:
                create: Any = meter.create_observable_counter
            elif metric.unit.startswith("{"):  # it can be added up
                create = meter.create_observable_up_down_counter
            else:
                create = meter.create_observable_gauge
            create(metric.name, [partial(self._observe, metric)], unit=metric.unit, description=metric.help)

    def _observe(self, metric: Metric, options: CallbackOptions) -> Iterable[Observation]:
        if self.ended:
            return []
        values = self._now()[metric]
        return [
            Observation(float(value) if isinstance(value, float) else int(value), attributes(metric, labels))
            for labels, value in values.items()
            if isinstance(value, int | float)
        ]

    def _now(self) -> Readings:
        if monotonic() - self._read_at > _SAME:  # with no lock, which a forked child might inherit locked
            self._read = self._reader.read()
            self._read_at = monotonic()
        return self._read


class _Waits:
    """Spans. A pool tells of waits and refusals in the thread or task concerned, where the current span is theirs."""

    def __init__(self, tracer: trace.Tracer, slow: float) -> None:
        self._tracer = tracer
        self._slow = slow
        self._stops: WeakKeyDictionary[Source, Callable[[], None]] = WeakKeyDictionary()
        self._stop = each(self._listen)

    def _listen(self, source: Source) -> None:
        self._stops[source] = source.listen(self._note, Waited, Refused)

    def close(self) -> None:
        self._stop()
        for stop in list(self._stops.values()):
            stop()

    def _note(self, event: Waited | Refused) -> None:
        if not trace.get_current_span().is_recording():
            return  # nobody asked for a trace of this; a span of its own would say nothing
        if isinstance(event, Refused):
            self._span(event, event.refusal.value)
        elif event.waited >= self._slow:
            self._span(event, None)

    def _span(self, event: Waited | Refused, refused: str | None) -> None:
        """One that is over."""
        ended = time.time_ns()
        site: dict[str, str | int] = dict(zip(CODE, event.site, strict=True))
        span = self._tracer.start_span(
            "wait for a connection",
            attributes={POOL: event.pool, **site},
            start_time=ended - int(event.waited * 1e9),
        )
        if refused is not None:
            span.set_attribute("error.type", refused)
            span.set_status(Status(StatusCode.ERROR, refused))
        span.end(ended)
