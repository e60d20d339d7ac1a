"""`WorkerPlan`: how a model shares this machine (worker processes, threads, batches), and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from plimsoll.core import duration
from plimsoll.core.target import Target
from plimsoll.errors import InputError
from plimsoll.system import host

Objective = Literal["throughput", "latency"]

_INT8_BATCH = 4
_DEVICE_BATCH = 32
_DEVICE_DELAY = 0.002
_MEMORY_SHARE = 0.6
_WORKER_BYTES = 150_000_000
_MODEL_COPIES = 4
"""What a worker holds beside its runtime, as a multiple of the model's files: weights as read, as packed for the
processor, and its tensors."""


@dataclass(frozen=True)
class PlanOptions:
    """What the operator asked for; None is left to the plan."""

    workers: int | None = None
    threads: int | None = None
    max_batch: int | None = None
    max_delay: float | None = None
    """Seconds."""
    objective: Objective = "throughput"


@dataclass(frozen=True)
class WorkerPlan:
    """How a model is run on this machine."""

    workers: int
    """Processes, each with a session of its own."""
    threads: int
    """Threads that compute one batch."""
    decoders: int
    """Threads of a worker that decode and preprocess pictures; 0 where the computing thread does that too."""
    max_batch: int
    max_delay: float
    """Seconds that a picture may wait for others while a worker is free; only where others are expected."""
    why: tuple[str, ...]

    @classmethod
    def of(cls, target: Target, model_bytes: int, options: PlanOptions, cores: int | None = None) -> WorkerPlan:
        """Return the plan for this machine's share of cores and memory; raises InputError for options out of range."""
        count = cores or host.cores()
        for name, value in (
            ("--workers", options.workers),
            ("--threads", options.threads),
            ("--max-batch", options.max_batch),
        ):
            if value is not None and not 1 <= value <= 1024:
                raise InputError(f"{name} {value}: expected 1 to 1024")
        return _on_device(count, options) if target.device != "cpu" else _on_cpu(count, model_bytes, target, options)


def _on_device(cores: int, options: PlanOptions) -> WorkerPlan:
    workers = options.workers or 1
    decoders = max(1, cores // workers)
    batch = options.max_batch or _DEVICE_BATCH
    delay = _DEVICE_DELAY if options.max_delay is None else options.max_delay
    why = (
        f"{_count(workers, 'worker')}: " + ("as requested" if options.workers else "one process owns the device"),
        f"{_count(decoders, 'thread')} to decode and preprocess pictures, so that the device never waits for them",
        f"batches of up to {batch}; a picture waits up to {duration.describe(delay)} for others, and only while they"
        " keep coming",
    )
    return WorkerPlan(workers, options.threads or 1, decoders, batch, delay, why)


def _on_cpu(cores: int, model_bytes: int, target: Target, options: PlanOptions) -> WorkerPlan:
    if options.workers is None and options.threads is None:
        workers, threads = (cores, 1) if options.objective == "throughput" else (1, cores)
        reason = (
            "one core per worker gives the most answers per second"
            if options.objective == "throughput"
            else "all cores working on one picture give the quickest answer"
        )
    else:
        threads = options.threads or max(1, cores // (options.workers or cores))
        workers = options.workers or max(1, cores // threads)
        reason = "as requested"
    why = [f"{_count(workers, 'worker')} × {_count(threads, 'thread')} on {_count(cores, 'core')}: {reason}"]
    fitting = _fitting(model_bytes)
    if options.workers is None and fitting is not None and fitting < workers:
        workers = fitting
        threads = options.threads or max(1, cores // workers)
        why.append(
            f"reduced to {_count(workers, 'worker')} × {_count(threads, 'thread')}: no more fit in"
            f" {_MEMORY_SHARE:.0%} of the memory"
        )
    batch = options.max_batch or (_INT8_BATCH if target.precision == "int8" else 1)
    delay = options.max_delay or 0.0
    reason = (
        "8-bit networks take less time per picture in batches of four"
        if batch > 1
        else "on one core a batch takes as long as its pictures one by one"
    )
    why.append(f"batches of up to {batch}: {'as requested' if options.max_batch else reason}")
    why.append(
        f"a picture waits up to {duration.describe(delay)} for others"
        if delay
        else "a picture never waits for others while a worker is free"
    )
    return WorkerPlan(workers, threads, 0 if threads == 1 else threads, batch, delay, tuple(why))


def _fitting(model_bytes: int) -> int | None:
    """Return how many workers fit in the memory; None where its size is unknown."""
    memory = host.memory_bytes()
    return (
        None if memory is None else max(1, int(_MEMORY_SHARE * memory / (_WORKER_BYTES + _MODEL_COPIES * model_bytes)))
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
