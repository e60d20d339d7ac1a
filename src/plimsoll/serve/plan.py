"""`Plan`: how a model shares this machine: worker processes, threads, batches; and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from plimsoll.core.target import Target
from plimsoll.errors import InputError
from plimsoll.system import host

Objective = Literal["throughput", "latency"]

_BATCH_IN_INT8 = 4
_BATCH_ON_DEVICE = 32
_DELAY_ON_DEVICE = 0.002
_MEMORY_SHARE = 0.6
_WORKER_BYTES = 150_000_000
_MODEL_COPIES = 4
"""What a worker holds beside its runtime, as a multiple of the model's files: weights as read, as packed for the
processor, and its tensors."""


@dataclass(frozen=True)
class PlanOptions:
    """What the operator said; None is left to the plan."""

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
    """Threads that compute one call."""
    decoders: int
    """Threads of a worker that read and prepare pictures; 0 where the thread does that which computes."""
    max_batch: int
    max_delay: float
    """Seconds that a picture may wait for others while a worker is free; only where others are to be expected."""
    why: tuple[str, ...]

    @classmethod
    def of(cls, target: Target, model_bytes: int, plan_options: PlanOptions, cores: int | None = None) -> WorkerPlan:
        """WorkerPlan for this machine's share of cores and memory. Raises InputError for plan_options that can't be."""
        count = cores or host.cores()
        for name, wish in (
            ("--workers", plan_options.workers),
            ("--threads", plan_options.threads),
            ("--max-batch", plan_options.max_batch),
        ):
            if wish is not None and not 1 <= wish <= 1024:
                raise InputError(f"{name} {wish}: expected 1 to 1024")
        return (
            _on_device(count, plan_options)
            if target.device != "cpu"
            else _on_cpu(count, model_bytes, target, plan_options)
        )


def _on_device(cores: int, plan_options: PlanOptions) -> WorkerPlan:
    workers = plan_options.workers or 1
    decoders = max(1, cores // workers)
    batch = plan_options.max_batch or _BATCH_ON_DEVICE
    delay = _DELAY_ON_DEVICE if plan_options.max_delay is None else plan_options.max_delay
    why = (
        f"{workers} worker{'s' if workers > 1 else ''}: one process owns the device"
        + (", as asked" if plan_options.workers else ""),
        f"{decoders} threads prepare pictures, so that the device doesn't wait",
        f"batches of at most {batch}, for which a picture waits at most {1e3 * delay:g} ms, and only while others come",
    )
    return WorkerPlan(workers, plan_options.threads or 1, decoders, batch, delay, why)


def _on_cpu(cores: int, model_bytes: int, target: Target, plan_options: PlanOptions) -> WorkerPlan:
    if plan_options.workers is None and plan_options.threads is None:
        workers, threads = (cores, 1) if plan_options.objective == "throughput" else (1, cores)
        reason = "a core each: nobody waits for anybody, which gives the most answers a second"
        if plan_options.objective == "latency":
            reason = "all cores work on one picture: a single answer comes soonest"
    else:
        threads = plan_options.threads or max(1, cores // (plan_options.workers or cores))
        workers = plan_options.workers or max(1, cores // threads)
        reason = "as asked"
    why = [
        f"{workers} worker{'s' if workers > 1 else ''} × {threads} thread{'s' if threads > 1 else ''} on {cores} cores:"
        f" {reason}"
    ]
    fitting = _fitting(model_bytes)
    if plan_options.workers is None and fitting is not None and fitting < workers:
        workers = fitting
        threads = plan_options.threads or max(1, cores // workers)
        why.append(f"only {workers} of them fit into {_MEMORY_SHARE:.0%} of the memory")
    batch = plan_options.max_batch or (_BATCH_IN_INT8 if target.precision == "int8" else 1)
    delay = plan_options.max_delay or 0.0
    reason = (
        "8-bit networks take less time a picture in fours"
        if batch > 1
        else "on one core a batch takes as long as its pictures"
    )
    why.append(f"batches of at most {batch}: {'as asked' if plan_options.max_batch else reason}")
    why.append(
        f"a picture waits at most {1e3 * delay:g} ms for others"
        if delay
        else "a picture never waits for others while a worker is free"
    )
    return WorkerPlan(workers, threads, 0 if threads == 1 else threads, batch, delay, tuple(why))


def _fitting(model_bytes: int) -> int | None:
    memory = host.memory_bytes()
    return (
        None if memory is None else max(1, int(_MEMORY_SHARE * memory / (_WORKER_BYTES + _MODEL_COPIES * model_bytes)))
    )
