"""`ModelStatistics`: what a model did since it was loaded, in the terms of the Open Inference Protocol's statistics extension."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class DurationStatistics:
    """How often something happened, and how long it took in all."""

    count: int = 0
    nanoseconds: int = 0

    def add(self, seconds: float, times: int = 1) -> None:
        """Count it, with its time."""
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
    """Requests that were answered, from their arrival to their answer."""
    fail: DurationStatistics = field(default_factory=DurationStatistics)
    queue: DurationStatistics = field(default_factory=DurationStatistics)
    """By item, as are input, infer and output below, which share out their batch's time."""
    input: DurationStatistics = field(default_factory=DurationStatistics)
    """Reading pictures and the input steps."""
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

    def batch(self, rows: int, decode: float, infer: float, answer: float) -> None:
        """Count a batch; its stages in seconds."""
        self.inferences += rows
        self.executions += 1
        self.last_inference = int(1e3 * time.time())
        self.input.add(decode, rows)
        self.infer.add(infer, rows)
        self.output.add(answer, rows)
        sized = self.batches.setdefault(rows, BatchStatistics())
        sized.input.add(decode)
        sized.infer.add(infer)
        sized.output.add(answer)
