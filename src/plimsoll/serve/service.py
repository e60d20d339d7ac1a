"""`Service`: all models that are served, their shared memory, and whether it is ready."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable, Mapping, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric

from plimsoll.serve.messages import Problem, RequestError
from plimsoll.serve.metrics import Metrics
from plimsoll.serve.receiving import Received
from plimsoll.serve.scheduler import Memory
from plimsoll.serve.served_model import ModelConfig, ServedModel
from plimsoll.serve.settings import Settings
from plimsoll.system import host

_log = logging.getLogger("plimsoll.serve")


class Service:
    """Models by their names. `start` it inside an event loop, `close` it there."""

    def __init__(self, settings: Settings, wanted: Sequence[ModelConfig]) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.memory = Memory(settings.shared_bytes)
        self.received = Received(settings.max_received_bytes)
        self.models: Mapping[str, ServedModel] = {
            one.name: ServedModel(one, settings, self.memory, self.metrics) for one in wanted
        }
        self.draining = False
        """Whether the service is about to end: it says that it isn't ready, and finishes what it has."""
        self.metrics.add_gauges(self._gauges)

    async def start(self) -> None:
        """Load all models; raises RequestError where one can't be loaded."""
        loads = [asyncio.create_task(model.load()) for model in self.models.values()]
        try:
            await asyncio.gather(*loads)
        except BaseException:
            for load in loads:
                load.cancel()
            await asyncio.gather(*loads, return_exceptions=True)
            await self.close()
            raise

    @property
    def ready(self) -> bool:
        """Whether every model answers, and the service isn't about to end. A model that was unloaded on purpose doesn't
        count."""
        return not self.draining and all(
            model.state == "ready" for model in self.models.values() if model.state != "unloaded"
        )

    def find(self, name: str, version: str | None = None) -> ServedModel:
        """Return a model by its name, or the only one for an empty name; raises RequestError (404)."""
        if not name and len(self.models) == 1:
            return next(iter(self.models.values()))
        model = self.models.get(name)
        if model is None:
            message = f"there is no model '{name}'" if name else "there are several models, and none was named"
            raise RequestError(Problem("input", message, f"There are: {', '.join(self.models)}.", 404))
        if version not in (None, model.version):
            raise RequestError(
                Problem("input", f"{name} has no version '{version}'", f"Its version is {model.version}.", 404)
            )
        return model

    async def reload(self) -> None:
        """Load all models anew; one that can't be loaded goes on as it is."""
        for model in self.models.values():
            try:
                await model.load()
                _log.info("%s: version %s serves", model.name, model.version)
            except RequestError as error:
                _log.error("%s: the new version doesn't serve: %s", model.name, error)

    async def close(self) -> None:
        """End all workers."""
        await asyncio.gather(*(model.close() for model in self.models.values()))
        self.memory.arena.close()

    def _gauges(self) -> Iterable[Metric]:
        ready = GaugeMetricFamily("plimsoll_ready", "Whether a model answers.", labels=("model",))
        queue = GaugeMetricFamily("plimsoll_queue_length", "Pictures that wait for a worker.", labels=("model",))
        workers = GaugeMetricFamily("plimsoll_workers", "Worker processes.", labels=("model", "state"))
        memory = GaugeMetricFamily(
            "plimsoll_memory_bytes", "Resident memory of a process.", labels=("model", "process")
        )
        shared = GaugeMetricFamily("plimsoll_shared_memory_bytes", "Shared memory that waiting pictures take.")
        for model in self.models.values():
            ready.add_metric((model.name,), model.state == "ready")
            queue.add_metric((model.name,), model.scheduler.waiting)
            for state in ("ready", "starting", "retiring"):
                workers.add_metric((model.name, state), sum(link.state == state for link in model.links))
            memory.add_metric((model.name, "workers"), sum(link.resident for link in model.links))
        memory.add_metric(("", "web"), host.resident_bytes(os.getpid()) or 0)
        shared.add_metric((), self.memory.blocks.used)
        return (ready, queue, workers, memory, shared)
