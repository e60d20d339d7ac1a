"""`ModelStatistics`: what a model did since it was loaded, in the terms of the Open Inference Protocol's statistics
extension."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


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
