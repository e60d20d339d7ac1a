"""`Service`: all models that are served, their shared memory, and whether it is ready."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable, Mapping, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric

from plimsoll.errors import PlimsollError
from plimsoll.serve.messages import Problem, RequestError
from plimsoll.serve.metrics import Metrics
from plimsoll.serve.pipeline import ReceiveLimit
from plimsoll.serve.scheduler import InboundMemory
from plimsoll.serve.served_model import ModelConfig, ServedModel
from plimsoll.serve.settings import Settings
from plimsoll.system import host

_log = logging.getLogger("plimsoll.serve")


class Service:
    """Models by their names. `start` it inside an event loop, `close` it there."""

    def __init__(self, settings: Settings, models: Sequence[ModelConfig]) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.memory = InboundMemory(settings.shared_bytes)
        self.receive_limit = ReceiveLimit(settings.max_received_bytes)
        self.models: Mapping[str, ServedModel] = {
            config.name: ServedModel(config, settings, self.memory, self.metrics) for config in models
        }
        self.draining = False
        """Whether the service is about to end: it reports that it isn't ready, and finishes what it has."""
        self.metrics.add_gauges(self._gauges)

    async def start(self) -> None:
        """Load all models; where one can't be loaded, raises the error that says why, or RequestError."""
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
        count."""
        return not self.draining and all(model.state in ("ready", "unloaded") for model in self.models.values())

    def find(self, name: str, version: str | None = None) -> ServedModel:
        """Return a model by its name, or the only one for an empty name; raises RequestError (404)."""
        if not name and len(self.models) == 1:
            return next(iter(self.models.values()))
        model = self.models.get(name)
        if model is None:
            message = f"unknown model '{name}'" if name else "several models are served, and the request names none"
            raise RequestError(Problem("input", message, f"Choose from {', '.join(self.models)}.", 404))
        if version not in (None, model.version):
            raise RequestError(
                Problem("input", f"{name} has no version '{version}'", f"The current one is {model.version}.", 404)
            )
        return model

    async def reload(self) -> None:
        """Load all models again; one that can't be loaded goes on as it is."""
        for model in self.models.values():
            try:
                await model.load()
                _log.info("%s: now serving version %s", model.name, model.version)
            except RequestError as error:
                _log.error("%s: reload failed: %s", model.name, error)

    async def close(self) -> None:
        """End all workers."""
        await asyncio.gather(*(model.close() for model in self.models.values()))
        self.memory.arena.close()

    def _gauges(self) -> Iterable[Metric]:
        ready = GaugeMetricFamily("plimsoll_ready", "Whether a model answers.", labels=("model",))
        queue = GaugeMetricFamily("plimsoll_queue_length", "Pictures waiting for a worker.", labels=("model",))
        workers = GaugeMetricFamily("plimsoll_workers", "Worker processes.", labels=("model", "state"))
        memory = GaugeMetricFamily(
            "plimsoll_memory_bytes", "Resident memory of a process.", labels=("model", "process")
        )
        shared = GaugeMetricFamily("plimsoll_shared_memory_bytes", "Shared memory that waiting pictures occupy.")
        for model in self.models.values():
            ready.add_metric((model.name,), model.state == "ready")
            queue.add_metric((model.name,), model.scheduler.waiting)
            for state in ("ready", "starting", "retiring"):
                workers.add_metric((model.name, state), sum(worker.state == state for worker in model.workers))
            memory.add_metric((model.name, "workers"), sum(worker.resident for worker in model.workers))
        memory.add_metric(("", "web"), host.resident_bytes(os.getpid()) or 0)
        shared.add_metric((), self.memory.blocks.used)
        return (ready, queue, workers, memory, shared)
