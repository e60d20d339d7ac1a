"""`ServedModel`: a model by its name: loaded, answering, loaded anew without losing a request, unloaded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.errors import PlimsollError
from plimsoll.serve.messages import InferenceResult, ModelMetadata, Problem, RawOutputs, RequestError, RequestOptions
from plimsoll.serve.metrics import Metrics
from plimsoll.serve.plan import PlanOptions, WorkerPlan
from plimsoll.serve.pool import Listener, Pool, unavailable
from plimsoll.serve.scheduler import Memory, Scheduler
from plimsoll.serve.settings import Settings
from plimsoll.serve.snapshot import Snapshot
from plimsoll.serve.statistics import ModelStatistics
from plimsoll.serve.worker_handle import WorkerHandle

State = Literal["loading", "ready", "unavailable", "unloaded"]
Array = NDArray[Any]


@dataclass(frozen=True)
class ModelConfig:
    """A model to be served."""

    name: str
    reference: str
    """A zoo name, a bundle, or a model file."""
    spec: Path | None = None
    target: Target | None = None
    preprocessing: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    plan_options: PlanOptions = field(default_factory=PlanOptions)


class ServedModel:
    """A model by its name."""

    def __init__(self, wanted: ModelConfig, settings: Settings, memory: Memory, metrics: Metrics) -> None:
        self.name = wanted.name
        self.wanted = wanted
        self.plan: WorkerPlan | None = None
        self.metadata: ModelMetadata | None = None
        self.state: State = "loading"
        self.reason = "it is being loaded"
        self.scheduler = Scheduler(wanted.name, settings, memory, metrics)
        self._settings, self._memory, self._metrics = settings, memory, metrics
        self._loads = 0
        self._snapshot: Snapshot | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._loading = asyncio.Lock()

    @property
    def version(self) -> str:
        """Which load of the model answers now: 1, 2 …; 0 before the first."""
        return str(self._loads)

    @property
    def statistics(self) -> ModelStatistics:
        """Statistics since the service began."""
        return self.scheduler.statistics

    @property
    def links(self) -> Sequence[WorkerHandle]:
        """The workers of the current version."""
        return self.scheduler.pool.links if self.scheduler.pool is not None else ()

    async def load(self) -> None:
        """Load it, or load it anew from where it came from. What serves now goes on until the new version's golden
        vectors have passed.

        Raises RequestError where it can't be loaded; what served before goes on serving.
        """
        async with self._loading:
            try:
                snapshot = await asyncio.to_thread(Snapshot.take, self.wanted.reference, self._settings.folder)
            except PlimsollError as error:
                self._not_loaded(error)
                raise unavailable(f"{self.name}: {error.message}") from error
            try:
                pool, facts = await self._started(snapshot)
            except PlimsollError as error:
                await asyncio.to_thread(snapshot.remove)
                self._not_loaded(error)
                if isinstance(error, RequestError):
                    raise
                raise unavailable(f"{self.name}: {error.message}") from error
            old, self.scheduler.pool = self.scheduler.pool, pool
            left, self._snapshot = self._snapshot, snapshot
            self.metadata, self.plan = facts, pool.plan
            self._loads += 1
            self._pool_changed()
            if old is not None:
                self._let_go(old, left)

    async def unload(self) -> None:
        """Stop serving it; what was accepted is finished."""
        async with self._loading:
            old, self.scheduler.pool = self.scheduler.pool, None
            left, self._snapshot = self._snapshot, None
            self._stop("it was unloaded")
            if old is not None:
                self._let_go(old, left)
                await asyncio.gather(*self._retiring, return_exceptions=True)

    async def close(self) -> None:
        """End all workers at once."""
        self._stop("the service is closing")
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        if self.scheduler.pool is not None:
            await self.scheduler.pool.close()
        if self._snapshot is not None:
            self._snapshot.remove()

    async def predict(self, pictures: Sequence[bytes], asked: RequestOptions) -> list[InferenceResult]:
        """Return what came of each picture, in their order; raises RequestError for the request as a whole."""
        settled: list[InferenceResult] = await self.scheduler.ask("row", pictures, asked)
        return settled

    async def raw_outputs(self, pictures: Sequence[bytes], asked: RequestOptions) -> list[RawOutputs]:
        """Return the network's outputs for each picture; raises RequestError, which names the picture that has none."""
        settled = await self.scheduler.ask("raw", pictures, asked)
        for place, one in enumerate(settled):
            if isinstance(one, InferenceResult) and one.problem is not None:
                problem = one.problem
                message = (
                    f"picture {place + 1} of {len(settled)}: {problem.message}" if len(settled) > 1 else problem.message
                )
                raise RequestError(Problem(problem.kind, message, problem.hint, problem.status, problem.retry_after))
        return settled

    async def infer(self, feeds: Mapping[str, Array], asked: RequestOptions) -> list[RawOutputs]:
        """Run the bare network, in parts where that is too much for a batch; all feeds have the same number of rows
        along their first axis. Raises RequestError."""
        sizes = {value.shape[0] if value.ndim else 0 for value in feeds.values()}
        if len(sizes) != 1 or 0 in sizes:
            raise RequestError(
                Problem(
                    "input", f"the inputs have {sorted(sizes)} rows; all need the same number, at least 1", status=400
                )
            )
        (rows,) = sizes
        most = self.plan.max_batch if self.plan is not None else 1
        parts = [{name: value[start : start + most] for name, value in feeds.items()} for start in range(0, rows, most)]
        settled = await self.scheduler.ask("tensors", parts, asked)
        for one in settled:
            if isinstance(one, InferenceResult) and one.problem is not None:
                raise RequestError(one.problem)
        return settled

    async def _started(self, snapshot: Snapshot) -> tuple[Pool, ModelMetadata]:
        wanted = self.wanted
        target = wanted.target if wanted.target is not None else await asyncio.to_thread(_target_of, snapshot.reference)
        plan = WorkerPlan.of(target, snapshot.size, wanted.plan_options)
        config = {
            "model": snapshot.reference,
            "spec": str(wanted.spec) if wanted.spec is not None else None,
            "target": str(wanted.target) if wanted.target is not None else None,
            "preprocessing": wanted.preprocessing,
            "options": dict(wanted.options),
            "threads": plan.threads,
            "decoders": plan.decoders,
            "max_batch": plan.max_batch,
        }
        listener = Listener(self.scheduler.answered, self.scheduler.lost, self._pool_changed, self._restarted)
        pool = Pool(self.name, config, plan, self._settings, self._memory.arena, listener)
        return pool, await pool.start()

    def _stop(self, reason: str) -> None:
        self.state = "unloaded"
        self.reason = self.scheduler.closed_because = reason
        self.scheduler.fail_waiting(reason)

    def _not_loaded(self, error: PlimsollError) -> None:
        if self.scheduler.pool is None:
            self.state = "unavailable"
            self.reason = self.scheduler.closed_because = error.message

    def _pool_changed(self) -> None:
        """Say the truth about the state, and use what has become free."""
        if self.scheduler.pool is None:
            return
        ready = bool(self.scheduler.pool.ready)
        failing = self.scheduler.pool.failing
        self.state, self.reason = (
            ("ready", "") if ready else ("unavailable", f"no worker is ready{failing and ': '}{failing}")
        )
        if not ready and failing:
            self.scheduler.fail_waiting(self.reason, self.scheduler.pool.pause + 1)
        self.scheduler.pump()

    def _restarted(self, reason: str) -> None:
        self._metrics.restarts.labels(self.name, reason).inc()

    def _let_go(self, pool: Pool, snapshot: Snapshot | None) -> None:
        """See an old version to its end, in the background."""

        async def finish() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await pool.retire()
            await pool.close()
            if snapshot is not None:
                await asyncio.to_thread(snapshot.remove)

        task = asyncio.create_task(finish())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)


def planned(wanted: ModelConfig) -> WorkerPlan:
    """Return how a model would share this machine."""
    snapshot = Snapshot.take(wanted.reference, None)
    try:
        return WorkerPlan.of(wanted.target or _target_of(snapshot.reference), snapshot.size, wanted.plan_options)
    finally:
        snapshot.remove()


def _target_of(reference: str) -> Target:
    """Return the target that a bundle was made for; anything else runs on the CPU in float32 unless somebody says
    otherwise."""
    from plimsoll.bundle import Bundle

    if Path(reference).is_dir():
        with Bundle.open(Path(reference)) as bundle:
            return bundle.target
    return REFERENCE_TARGET
