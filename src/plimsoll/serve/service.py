"""`ServedModel`: one model, loaded, reloaded without losing a request, unloaded; `Service`: all of them, their shared
memory, and whether the service is ready."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from prometheus_client.core import Metric

from plimsoll.core.target import Target
from plimsoll.core.wording import printable
from plimsoll.errors import PlimsollError
from plimsoll.serve.background import in_background
from plimsoll.serve.candidates import Candidate, candidates
from plimsoll.serve.folders import ServiceFolder, Snapshot
from plimsoll.serve.inbound import InboundMemory
from plimsoll.serve.ipc import Array
from plimsoll.serve.messages import (
    InferenceResult,
    ModelMetadata,
    Picture,
    Problem,
    RawOutputs,
    RequestError,
    RequestOptions,
    unavailable,
)
from plimsoll.serve.metrics import Metrics, ModelStatistics, gauges
from plimsoll.serve.pipeline import ReceiveLimit
from plimsoll.serve.pool import PlanOptions, Pool, PoolCallbacks, WorkerPlan
from plimsoll.serve.scheduler import LOADING, Scheduler
from plimsoll.serve.settings import Settings
from plimsoll.serve.worker_handle import ItemKind, WorkerHandle
from plimsoll.system import host

State = Literal["loading", "ready", "unavailable", "unloaded"]


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
    """Of the runtime."""
    policy: Path | None = None
    plan_options: PlanOptions = field(default_factory=PlanOptions)

    def plan(self) -> WorkerPlan:
        """Return how the model would share this machine."""
        snapshot = Snapshot.take(self.reference, None)
        try:
            return WorkerPlan.of(self.target or snapshot.target(), snapshot.size, self.plan_options)
        finally:
            snapshot.remove()


@dataclass(frozen=True)
class Shared:
    """What all models of a service have together."""

    metrics: Metrics
    memory: InboundMemory
    folder: ServiceFolder


class ServedModel:
    """A model by its name."""

    def __init__(self, config: ModelConfig, settings: Settings, shared: Shared) -> None:
        self.name = config.name
        self.config = config
        self.plan: WorkerPlan | None = None
        self.metadata: ModelMetadata | None = None
        self.state: State = "loading"
        self.reason = LOADING
        """Why the state is not ready."""
        self.scheduler = Scheduler(config.name, settings, shared.memory, shared.metrics)
        self.candidate: Candidate | None = None
        """What is on trial beside it."""
        self._settings, self._shared = settings, shared
        self._loads = 0
        self._snapshot: Snapshot | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._load_lock = asyncio.Lock()

    @property
    def version(self) -> str:
        """Which load of the model answers now: 1, 2 …; 0 before the first."""
        return str(self._loads)

    @property
    def timeout(self) -> float:
        """How long a picture may wait for its answer where its request doesn't say."""
        return self._settings.timeout

    @property
    def statistics(self) -> ModelStatistics:
        """Statistics since the service began."""
        return self.scheduler.statistics

    @property
    def workers(self) -> Sequence[WorkerHandle]:
        """The workers of the current version."""
        return self.scheduler.pool.workers if self.scheduler.pool is not None else ()

    async def load(self) -> None:
        """Load it, or load it again from where it came from. The current version goes on serving until the golden
        vectors of the new one have passed.

        Raises RequestError where it can't be loaded; then the current version stays.
        """
        async with self._load_lock:
            snapshot = None
            try:
                snapshot = await asyncio.to_thread(self._take_snapshot)
                pool, metadata = await self._start_pool(snapshot)
            except BaseException as error:
                if snapshot is not None:
                    await asyncio.to_thread(snapshot.remove)
                if isinstance(error, OSError):
                    error = unavailable(f"the model's files can't be read, or copied: {error.strerror or error}")
                if not isinstance(error, PlimsollError):
                    raise
                self._load_failed(error)
                if isinstance(error, RequestError):
                    raise error from None
                raise unavailable(f"{self.name}: {error.message}") from error
            old_pool, self.scheduler.pool = self.scheduler.pool, pool
            old_snapshot, self._snapshot = self._snapshot, snapshot
            self.metadata, self.plan = metadata, pool.plan
            self._loads += 1
            self._pool_changed()
            if old_pool is not None:
                self._retire(old_pool, old_snapshot)

    def _take_snapshot(self) -> Snapshot:
        return Snapshot.take(self.config.reference, self._shared.folder.path())

    async def unload(self) -> None:
        """Stop serving it; what was accepted is finished."""
        async with self._load_lock:
            pool, self.scheduler.pool = self.scheduler.pool, None
            snapshot, self._snapshot = self._snapshot, None
            self._stop("the model was unloaded")
            if pool is not None:
                self._retire(pool, snapshot)
                await asyncio.gather(*self._retiring, return_exceptions=True)

    async def close(self) -> None:
        """End all workers at once."""
        self._stop("the service is closing")
        if self.candidate is not None:
            await self.candidate.close()
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        if self.scheduler.pool is not None:
            await self.scheduler.pool.close()
        if self._snapshot is not None:
            self._snapshot.remove()

    async def predict(self, pictures: Sequence[Picture], options: RequestOptions) -> list[InferenceResult]:
        """Return what came of each picture, in order; raises RequestError for the request as a whole."""
        return await self._submit("answer", pictures, options)

    async def stream(
        self, pictures: Sequence[Picture], options: RequestOptions
    ) -> AsyncGenerator[tuple[int, InferenceResult]]:
        """Yield what came of each picture as soon as it is known, with its number; raises RequestError, at first, for
        the request as a whole."""
        results: dict[int, InferenceResult] = {}
        async with contextlib.aclosing(self.scheduler.stream("answer", pictures, options)) as arriving:
            async for number, result in arriving:
                results[number] = result
                yield number, result
        if self.candidate is not None:
            self.candidate.observe("answer", pictures, options, [results[number] for number in range(len(pictures))])

    async def _submit(self, kind: ItemKind, pictures: Sequence[Picture], options: RequestOptions) -> list[Any]:
        results = await self.scheduler.submit(kind, pictures, options)
        if self.candidate is not None:
            self.candidate.observe(kind, pictures, options, results)
        return results

    async def raw_outputs(self, pictures: Sequence[Picture], options: RequestOptions) -> list[RawOutputs]:
        """Return the network's outputs for each picture; raises RequestError, which names the picture that has none."""
        results = await self._submit("raw", pictures, options)
        for number, result in enumerate(results, 1):
            if isinstance(result, InferenceResult) and (problem := result.problem) is not None:
                which = f"picture {number} of {len(results)}: " if len(results) > 1 else ""
                raise RequestError(
                    Problem(problem.kind, which + problem.message, problem.hint, problem.status, problem.retry_after)
                )
        return results

    async def infer(self, feeds: Mapping[str, Array], options: RequestOptions) -> list[RawOutputs]:
        """Run the bare network, in parts where the rows are too many for a batch; all feeds have the same number of
        rows along their first axis. Raises RequestError."""
        sizes = {value.shape[0] if value.ndim else 0 for value in feeds.values()}
        if len(sizes) != 1 or 0 in sizes:
            message = f"the inputs have {sorted(sizes)} rows; all need the same number, at least 1"
            raise RequestError(Problem("input", message, status=400))
        (rows,) = sizes
        step = self.plan.max_batch if self.plan is not None else 1
        parts = [{name: value[start : start + step] for name, value in feeds.items()} for start in range(0, rows, step)]
        results = await self.scheduler.submit("tensors", parts, options)
        for result in results:
            if isinstance(result, InferenceResult) and result.problem is not None:
                raise RequestError(result.problem)
        return results

    async def _start_pool(self, snapshot: Snapshot) -> tuple[Pool, ModelMetadata]:
        config = self.config
        target = config.target if config.target is not None else await asyncio.to_thread(snapshot.target)
        plan = WorkerPlan.of(target, snapshot.size, config.plan_options)
        worker_config = {
            "model": snapshot.reference,
            "spec": str(config.spec) if config.spec is not None else None,
            "target": str(config.target) if config.target is not None else None,
            "preprocessing": config.preprocessing,
            "options": dict(config.options),
            "policy": str(config.policy) if config.policy is not None else None,
            "threads": plan.threads,
            "decoders": plan.decoders,
            "max_batch": plan.max_batch,
        }
        scheduler, shared = self.scheduler, self._shared
        callbacks = PoolCallbacks(scheduler.on_result, scheduler.on_lost, self._pool_changed, self._restarted)
        pool = Pool(self.name, worker_config, plan, self._settings, shared.memory.arena, shared.folder, callbacks)
        return pool, await pool.start()

    def _stop(self, reason: str) -> None:
        self.state = "unloaded"
        self.reason = self.scheduler.closed_because = reason
        self.scheduler.fail_waiting(reason)

    def _load_failed(self, error: PlimsollError) -> None:
        if self.scheduler.pool is None:
            self.state = "unavailable"
            self.reason = self.scheduler.closed_because = error.message

    def _pool_changed(self) -> None:
        """Update the state, and use what has become free."""
        pool = self.scheduler.pool
        if pool is None:
            return
        if pool.ready:
            self.state, self.reason = "ready", ""
        else:
            failure = f": {pool.start_failure}" if pool.start_failure else ""
            self.state, self.reason = "unavailable", f"no worker is ready{failure}"
            if failure:
                self.scheduler.fail_waiting(self.reason, pool.backoff + 1)
        self.scheduler.dispatch()

    def _restarted(self, reason: str) -> None:
        """Count a worker that was replaced; where the copy of its bundle is gone, load the model anew."""
        self._shared.metrics.restarts.labels(self.name, reason).inc()
        copy_is_gone = reason == "start_failed" and self._snapshot is not None and self._snapshot.is_gone
        if copy_is_gone and not self._load_lock.locked():
            _log.warning("%s: somebody removed the copy of its bundle; loading it anew", self.name)
            in_background(f"{self.name}: loading it anew", self._reload(), self._retiring)

    async def _reload(self) -> None:
        try:
            await self.load()
        except PlimsollError as error:
            _log.error("%s: can't be loaded anew: %s", self.name, error)

    def _retire(self, pool: Pool, snapshot: Snapshot | None) -> None:
        """Let an old version finish what it has, in the background."""

        async def finish() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await pool.retire()
            await pool.close()
            if snapshot is not None:
                await asyncio.to_thread(snapshot.remove)

        in_background(f"{self.name}: ending an old version", finish(), self._retiring)


_log = logging.getLogger("plimsoll.serve")


class Service:
    """Models by their names. `start` it inside an event loop, `close` it there."""

    def __init__(
        self,
        settings: Settings,
        models: Sequence[ModelConfig],
        memory: InboundMemory | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.settings = settings
        self.metrics = metrics or Metrics()
        self.memory = memory or InboundMemory.create(settings.of_process().shared_bytes, settings.processes)
        self.receive_limit = ReceiveLimit(settings.max_received_bytes)
        self.folder = ServiceFolder(settings.folder)
        shared = Shared(self.metrics, self.memory, self.folder)
        self.models: Mapping[str, ServedModel] = {config.name: self._served(config, shared) for config in models}
        for name, candidate in candidates(settings.candidates, self.models, self.metrics).items():
            self.models[name].candidate = candidate
        self.draining = False
        """Whether the service is about to end: it reports that it isn't ready, and finishes what it has."""
        self.web_bytes: Callable[[], tuple[int, int]] = self._own_bytes
        """How much memory what speaks with the network holds itself, and of the shared memory."""
        self.metrics.add_gauges(self._gauges)

    def _served(self, config: ModelConfig, shared: Shared) -> ServedModel:
        return ServedModel(config, self.settings, shared)

    async def metrics_page(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics as text, and its content type, in the format that the scraper accepts."""
        return self.metrics.page(accept)

    async def refresh(self) -> None:
        """See to it that what was counted of the models is up to date."""

    async def start(self) -> None:
        """Load all models; where one can't be loaded, raises the error that says why, or RequestError."""
        await asyncio.to_thread(self.folder.remove_abandoned)
        loads = [asyncio.create_task(model.load()) for model in self.models.values()]
        try:
            await asyncio.gather(*loads)
        except BaseException as error:
            for load in loads:
                load.cancel()
            await asyncio.gather(*loads, return_exceptions=True)
            await self.close()
            if isinstance(error.__cause__, PlimsollError):
                raise error.__cause__ from None
            raise

    @property
    def ready(self) -> bool:
        """Whether every model answers, and the service isn't about to end. A model that was unloaded on purpose doesn't
        count, unless all were."""
        states = {model.state for model in self.models.values()}
        return not self.draining and states <= {"ready", "unloaded"} and (not states or "ready" in states)

    def find(self, name: str, version: str | None = None) -> ServedModel:
        """Return a model by its name, or the only one for an empty name; raises RequestError (404)."""
        if not name and len(self.models) == 1:
            return next(iter(self.models.values()))
        model = self.models.get(name)
        if model is None:
            unknown = f"unknown model '{printable(name, 100)}'"
            message = unknown if name else "several models are served, and the request names none"
            raise RequestError(Problem("input", message, f"Choose from {', '.join(self.models)}.", 404))
        if version not in (None, model.version):
            message = f"{name} has no version '{printable(version or '', 100)}'"
            raise RequestError(Problem("input", message, f"The current one is {model.version}.", 404))
        return model

    def choose(self, name: str) -> ServedModel:
        """Return what answers a request for this model: it, or its candidate for a share of them. Raises RequestError
        as `find`."""
        model = self.find(name)
        return model.candidate.model if model.candidate is not None and model.candidate.takes() else model

    async def reload(self) -> None:
        """Load all models again; one that can't be loaded goes on as it is."""
        for model in self.models.values():
            try:
                await model.load()
                _log.info("%s: now serving version %s", model.name, model.version)
            except PlimsollError as error:
                _log.error("%s: reload failed; the version that was loaded goes on: %s", model.name, error)
            except Exception:  # noqa: BLE001 - the other models are loaded nevertheless
                _log.exception("%s: a bug while it was loaded anew", model.name)

    async def close(self) -> None:
        """End all workers."""
        await asyncio.gather(*(model.close() for model in self.models.values()))
        self.memory.arena.close()
        await asyncio.to_thread(self.folder.remove)

    def _gauges(self) -> Iterable[Metric]:
        return gauges(self.models.values(), *self.web_bytes())

    def _own_bytes(self) -> tuple[int, int]:
        return host.resident_bytes(os.getpid()) or 0, self.memory.blocks.used
