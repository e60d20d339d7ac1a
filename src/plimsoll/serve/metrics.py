"""What Prometheus reads: counters and histograms that are written as things happen, gauges that are read when they are
asked for."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from plimsoll import __version__

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)

Gauges = Callable[[], Iterable[Metric]]


class Metrics:
    """The metrics of a service, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # A second series for each, with the time when it began: nobody reads those.
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "plimsoll_requests",
            "Requests that were answered, whatever the answer.",
            ("model", "interface", "status"),
            registry=registry,
        )
        self.request_seconds = Histogram(
            "plimsoll_request_seconds",
            "From a request's arrival to its answer.",
            ("model", "interface"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "plimsoll_queue_seconds",
            "How long a picture waited for a worker.",
            ("model",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "plimsoll_stage_seconds",
            "What a batch took in a stage.",
            ("model", "stage"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "plimsoll_batch_size",
            "Pictures that were computed together.",
            ("model",),
            buckets=_SIZES,
            registry=registry,
        )
        self.rejected = Counter("plimsoll_rejected", "What was turned away.", ("model", "reason"), registry=registry)
        self.restarts = Counter(
            "plimsoll_worker_restarts", "Workers that were replaced.", ("model", "reason"), registry=registry
        )
        self._gauges: list[Gauges] = []
        registry.register(_Asked(self._gauges))

    def batch(self, model: str, rows: int, waited: Sequence[float], seconds: Mapping[str, float]) -> None:
        """Count a batch that was answered."""
        queue = self.queue_seconds.labels(model)
        for one in waited:
            queue.observe(one)
        for stage, value in seconds.items():
            self.stage_seconds.labels(model, stage).observe(value)
        self.batch_size.labels(model).observe(rows)

    def add_gauges(self, gauges: Gauges) -> None:
        """Ask this whenever somebody reads the metrics."""
        self._gauges.append(gauges)

    def page(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics as text, and its content type, in the form that the reader accepts."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type


class _Asked(Collector):
    def __init__(self, gauges: list[Gauges]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        build = GaugeMetricFamily("plimsoll_build_info", "What runs here.", labels=("version", "python"))
        build.add_metric((__version__, platform.python_version()), 1)
        yield build
        for gauges in self._gauges:
            yield from gauges()
