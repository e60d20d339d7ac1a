"""`Counts`: what a model did since it was loaded, in the terms of the Open Inference Protocol's statistics extension."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Tally:
    """How often something happened, and how long it took in all."""

    count: int = 0
    nanoseconds: int = 0

    def add(self, seconds: float, times: int = 1) -> None:
        """Count it, with its time."""
        self.count += times
        self.nanoseconds += int(1e9 * seconds)


@dataclass
class BatchTally:
    """What batches of one size took."""

    infer: Tally = field(default_factory=Tally)
    input: Tally = field(default_factory=Tally)
    output: Tally = field(default_factory=Tally)


@dataclass
class Counts:
    """Statistics of a model; times are wall time."""

    success: Tally = field(default_factory=Tally)
    """Requests that were answered, from their arrival to their answer."""
    fail: Tally = field(default_factory=Tally)
    queue: Tally = field(default_factory=Tally)
    """By item, as are input, infer and output below, which share out their batch's time."""
    input: Tally = field(default_factory=Tally)
    """Reading pictures and the input steps."""
    infer: Tally = field(default_factory=Tally)
    output: Tally = field(default_factory=Tally)
    inferences: int = 0
    """Rows."""
    executions: int = 0
    """Batches."""
    last_inference: int = 0
    """Milliseconds since 1970."""
    batches: dict[int, BatchTally] = field(default_factory=dict)
    """By size."""

    def batch(self, rows: int, decode: float, infer: float, answer: float) -> None:
        """Count a batch; its stages in seconds."""
        self.inferences += rows
        self.executions += 1
        self.last_inference = int(1e3 * time.time())
        self.input.add(decode, rows)
        self.infer.add(infer, rows)
        self.output.add(answer, rows)
        sized = self.batches.setdefault(rows, BatchTally())
        sized.input.add(decode)
        sized.infer.add(infer)
        sized.output.add(answer)
