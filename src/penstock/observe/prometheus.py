"""The figures of this process's pools for prometheus_client.

    penstock.observe.prometheus.register()

and whatever serves the registry serves them too. Names are those of `metrics`, spelled as OpenTelemetry's rules for
Prometheus have it: dots are underscores, seconds say so, counters end in `_total`.

Nothing is counted for it: a scrape reads what the pools know anyway. Under `PROMETHEUS_MULTIPROC_DIR` see `mirror`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, cast

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Exemplar, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from ..core import BOUNDS, Histogram
from .exemplars import Buckets, Exemplars
from .metrics import METRICS, Kind, Labels, Metric, Value
from .reading import Reader

LE = tuple(map(floatToGoString, (*BOUNDS, float("inf"))))


def register(registry: CollectorRegistry = REGISTRY) -> Callable[[], None]:
    """From now on *registry* has the figures of every pool of this process; returns what ends that.

    Where `PROMETHEUS_MULTIPROC_DIR` is set, they are written there instead, and *registry* stays as it is.

    :raises ValueError: when the registry has them already.
    """
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        from .mirror import Mirror  # here: it needs prometheus_client in that mode

        return Mirror().start()
    collector = PoolCollector()
    registry.register(collector)

    def unregister() -> None:
        registry.unregister(collector)
        collector.close()

    return unregister


def spelled(metric: Metric) -> str:
    """The metric's name in Prometheus, without `_total`."""
    return metric.name.replace(".", "_") + ("_seconds" if metric.unit == "s" else "")


def labels_of(metric: Metric) -> tuple[str, ...]:
    """The names of the metric's labels in Prometheus."""
    return tuple(label.replace(".", "_") for label in metric.labels)


class PoolCollector(Collector):
    """Reads all pools when it is asked to."""

    def __init__(self) -> None:
        self._reader = Reader()
        self._exemplars = Exemplars()

    def close(self) -> None:
        """Listen to no pool any more."""
        self._exemplars.close()

    def describe(self) -> list[Family]:
        """The names alone, so that a registry finds out whether it has them already."""
        return [_family(metric) for metric in METRICS]

    def collect(self) -> Iterator[Family]:
        """All that there is now."""
        self._exemplars.listen()
        exemplars = self._exemplars.by_pool()
        for metric, values in self._reader.read().items():
            if values:
                yield _filled(metric, values, exemplars)


def _filled(metric: Metric, values: dict[Labels, Value], exemplars: dict[str, Buckets]) -> Family:
    family: Any = _family(metric)
    for labels, value in values.items():
        if isinstance(value, Histogram):
            family.add_metric(labels, _buckets(metric, value, exemplars.get(labels[0])), value.total)
        else:
            family.add_metric(labels, float(value))
    return cast("Family", family)


def _buckets(metric: Metric, value: Histogram, exemplars: Buckets | None) -> list[tuple[Any, ...]]:
    """All up to each bound, which is how Prometheus counts."""
    buckets: list[tuple[Any, ...]] = list(zip(LE, accumulate(value.counts), strict=True))
    if exemplars:
        for bucket, (bound, count) in enumerate(buckets):
            seen = exemplars.get((metric, bucket))
            if seen is not None:
                trace = {"trace_id": seen.trace_id, "span_id": seen.span_id}
                buckets[bucket] = (bound, count, Exemplar(trace, seen.seconds, seen.at))
    return buckets


_FAMILIES: dict[Kind, Callable[..., Family]] = {
    Kind.GAUGE: GaugeMetricFamily,
    Kind.COUNTER: CounterMetricFamily,
    Kind.HISTOGRAM: HistogramMetricFamily,
}


def _family(metric: Metric) -> Family:
    return _FAMILIES[metric.kind](spelled(metric), metric.help, labels=labels_of(metric))
