"""What is measured of a service: `Metrics` for Prometheus, and `ModelStatistics` in the terms of the Open Inference
Protocol's statistics extension."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from plimsoll.core.version import __version__

if TYPE_CHECKING:
    from plimsoll.serve.service import ServedModel

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_DEVIATIONS = (1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)

Gauges = Callable[[], Iterable[Metric]]


class Metrics:
    """The metrics of a service, in a registry of their own: counters and histograms that are written as things happen,
    and gauges that are read at each scrape."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, with its start time
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "plimsoll_requests",
            "Requests, by the status of their response.",
            ("model", "interface", "status"),
            registry=registry,
        )
        self.request_seconds = Histogram(
            "plimsoll_request_seconds",
            "Time from a request's arrival to its response.",
            ("model", "interface"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "plimsoll_queue_seconds",
            "Time that a picture waited for a worker.",
            ("model",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "plimsoll_stage_seconds",
            "Time that a batch took in a stage.",
            ("model", "stage"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "plimsoll_batch_size",
            "Pictures computed together.",
            ("model",),
            buckets=_SIZES,
            registry=registry,
        )
        self.rejected = Counter(
            "plimsoll_rejected", "Requests and pictures that were turned away.", ("model", "reason"), registry=registry
        )
        self.restarts = Counter(
            "plimsoll_worker_restarts", "Workers that were replaced.", ("model", "reason"), registry=registry
        )
        self.shadow = Counter(
            "plimsoll_shadow_answers",
            "Pictures that a candidate computed too, by how its answer compares.",
            ("model", "candidate", "outcome"),
            registry=registry,
        )
        self.shadow_deviation = Histogram(
            "plimsoll_shadow_deviation",
            "Largest difference between the numbers of a candidate's answer and the model's.",
            ("model", "candidate"),
            buckets=_DEVIATIONS,
            registry=registry,
        )
        self._gauges: list[Gauges] = []
        registry.register(_GaugeCollector(self._gauges))

    def batch(self, model: str, rows: int, waited: Sequence[float], seconds: Mapping[str, float]) -> None:
        """Record a computed batch; `waited` and the stages are seconds."""
        queue = self.queue_seconds.labels(model)
        for wait in waited:
            queue.observe(wait)
        for stage, duration in seconds.items():
            self.stage_seconds.labels(model, stage).observe(duration)
        self.batch_size.labels(model).observe(rows)

    def add_gauges(self, gauges: Gauges) -> None:
        """Call this at each scrape."""
        self._gauges.append(gauges)

    def page(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics as text, and its content type, in the format that the scraper accepts."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type


class _GaugeCollector(Collector):
    def __init__(self, gauges: list[Gauges]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        build = GaugeMetricFamily("plimsoll_build_info", "The running version.", labels=("version", "python"))
        build.add_metric((__version__, platform.python_version()), 1)
        yield build
        for gauges in self._gauges:
            yield from gauges()


def gauges(models: Iterable[ServedModel], web_bytes: int, shared_bytes: int) -> Iterable[Metric]:
    """Return how the models are now; `web_bytes`: what speaks with the network holds, `shared_bytes`: what waits."""
    ready = GaugeMetricFamily("plimsoll_ready", "Whether a model answers.", labels=("model",))
    queue = GaugeMetricFamily("plimsoll_queue_length", "Pictures waiting for a worker.", labels=("model",))
    workers = GaugeMetricFamily("plimsoll_workers", "Worker processes.", labels=("model", "state"))
    memory = GaugeMetricFamily("plimsoll_memory_bytes", "Resident memory of a process.", labels=("model", "process"))
    shared = GaugeMetricFamily("plimsoll_shared_memory_bytes", "Shared memory that waiting pictures occupy.")
    for model in models:
        ready.add_metric((model.name,), model.state == "ready")
        queue.add_metric((model.name,), model.scheduler.waiting)
        for state in ("ready", "starting", "retiring"):
            workers.add_metric((model.name, state), sum(worker.state == state for worker in model.workers))
        memory.add_metric((model.name, "workers"), sum(worker.resident for worker in model.workers))
    memory.add_metric(("", "web"), web_bytes)
    shared.add_metric((), shared_bytes)
    return (ready, queue, workers, memory, shared)


@dataclass
class DurationStatistics:
    """How often something happened, and how long it took altogether."""

    count: int = 0
    nanoseconds: int = 0

    def add(self, seconds: float, times: int = 1) -> None:
        """Add so many events that took so long altogether."""
        self.count += times
        self.nanoseconds += int(1e9 * seconds)


@dataclass
class BatchStatistics:
    """What batches of one size took."""

    infer: DurationStatistics = field(default_factory=DurationStatistics)
    input: DurationStatistics = field(default_factory=DurationStatistics)
    output: DurationStatistics = field(default_factory=DurationStatistics)


@dataclass
class ModelStatistics:
    """Statistics of a model; times are wall time."""

    success: DurationStatistics = field(default_factory=DurationStatistics)
    """Requests that were answered, from arrival to answer."""
    fail: DurationStatistics = field(default_factory=DurationStatistics)
    queue: DurationStatistics = field(default_factory=DurationStatistics)
    """By item, as are input, infer and output below, which divide their batch's time."""
    input: DurationStatistics = field(default_factory=DurationStatistics)
    """Decoding and preprocessing."""
    infer: DurationStatistics = field(default_factory=DurationStatistics)
    output: DurationStatistics = field(default_factory=DurationStatistics)
    inferences: int = 0
    """Rows."""
    executions: int = 0
    """Batches."""
    last_inference: int = 0
    """Milliseconds since 1970."""
    batches: dict[int, BatchStatistics] = field(default_factory=dict)
    """By size."""

    def add_batch(self, rows: int, decode: float, infer: float, answer: float) -> None:
        """Add a batch; its stages in seconds."""
        self.inferences += rows
        self.executions += 1
        self.last_inference = int(1e3 * time.time())
        self.input.add(decode, rows)
        self.infer.add(infer, rows)
        self.output.add(answer, rows)
        by_size = self.batches.setdefault(rows, BatchStatistics())
        by_size.input.add(decode)
        by_size.infer.add(infer)
        by_size.output.add(answer)
