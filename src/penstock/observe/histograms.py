"""The pools' histograms for an exporter of OpenTelemetry's SDK, as the pools keep them.

An SDK aggregates what was recorded one by one. These are aggregated already, and join its metrics where those leave.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk.metrics.export import AggregationTemporality as Temporality
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.metrics.export import (
    HistogramDataPoint,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    ScopeMetrics,
)
from opentelemetry.sdk.metrics.export import Metric as Exported
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from ..core import BOUNDS, NONE, Histogram
from .metrics import Labels, Metric
from .opentelemetry import SCOPE, attributes
from .reading import Reader


class WithHistograms(MetricExporter):
    """Exports what it is given, and the histograms of every pool, through another exporter.

    Whether they tell of all time or of the time since the last export is as that other one prefers.
    """

    def __init__(self, exporter: MetricExporter) -> None:
        super().__init__(exporter._preferred_temporality, exporter._preferred_aggregation)
        self._exporter = exporter
        self._delta = (exporter._preferred_temporality or {}).get(sdk.Histogram) is Temporality.DELTA
        self._reader = Reader()
        self._since = time.time_ns()
        self._told: dict[tuple[Metric, Labels], Histogram] = {}
        self._pid = os.getpid()

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """As the other exporter does."""
        if not metrics_data.resource_metrics:
            return self._exporter.export(metrics_data, timeout_millis, **kwargs)
        first, *others = metrics_data.resource_metrics
        whole = [replace(first, scope_metrics=self._joined(first.scope_metrics)), *others]
        return self._exporter.export(MetricsData(whole), timeout_millis, **kwargs)

    def _joined(self, scopes: Sequence[ScopeMetrics]) -> list[ScopeMetrics]:
        """Within the scope of what `instrument` told, if it did: an exporter takes each scope once."""
        ours = [scope for scope in scopes if scope.scope.name == SCOPE] or [
            ScopeMetrics(InstrumentationScope(SCOPE), [], "")
        ]
        whole = replace(ours[0], metrics=[*ours[0].metrics, *self._metrics(time.time_ns())])
        return [*(scope for scope in scopes if scope is not ours[0]), whole]

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """As the other exporter does."""
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """As the other exporter does."""
        self._exporter.shutdown(timeout_millis, **kwargs)

    def _metrics(self, now: int) -> list[Exported]:
        if self._pid != os.getpid():  # forked: all counters are 0
            self._pid, self._since = os.getpid(), now
            self._told.clear()
        temporality = Temporality.DELTA if self._delta else Temporality.CUMULATIVE
        found = []
        for metric, values in self._reader.read().items():
            points = [
                self._point(metric, labels, value, now)
                for labels, value in values.items()
                if isinstance(value, Histogram)
            ]
            if points:
                found.append(Exported(metric.name, metric.help, metric.unit, HistogramData(points, temporality)))
        if self._delta:
            self._since = now
        return found

    def _point(self, metric: Metric, labels: Labels, value: Histogram, now: int) -> HistogramDataPoint:
        told = self._told.get((metric, labels), NONE)
        if self._delta:
            self._told[metric, labels] = value
        counts = [count - before for count, before in zip(value.counts, told.counts, strict=True)]
        extreme: Any = None  # nobody keeps the least and the most
        return HistogramDataPoint(
            attributes=attributes(metric, labels),
            start_time_unix_nano=self._since,
            time_unix_nano=now,
            count=sum(counts),
            sum=value.total - told.total,
            bucket_counts=counts,
            explicit_bounds=list(BOUNDS),
            min=extreme,
            max=extreme,
        )
