"""The models as a web process sees them: their state is mirrored, their requests go to the main process over a pipe,
and so does what is counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any

from prometheus_client import Counter, Histogram

from plimsoll.serve import ipc
from plimsoll.serve.candidates import Comparison
from plimsoll.serve.inbound import InboundMemory, StoredInput
from plimsoll.serve.messages import InferenceResult, ModelMetadata, Problem, RawOutputs, RequestError, RequestOptions
from plimsoll.serve.metrics import BatchStatistics, DurationStatistics, Metrics, ModelStatistics
from plimsoll.serve.pool import WorkerPlan
from plimsoll.serve.scheduler import Scheduler
from plimsoll.serve.service import ModelConfig, ServedModel, Service, Shared
from plimsoll.serve.settings import Settings
from plimsoll.serve.worker_handle import Item, ItemKind

_SILENCE_S = 10.0
"""A main process that is silent for so long doesn't answer."""


class MainProcess:
    """The main process, as a web process sees it: what is asked of it over a pipe, and its answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.WriteTransport, memory: InboundMemory) -> None:
        self._reader, self._writer, self._memory = reader, writer, memory
        self.last_heard = time.monotonic()
        self.events: list[tuple[str, Sequence[str], float]] = []
        """What was counted and not reported yet: a metric, its labels, and how much."""
        self.on_frame: Mapping[str, Callable[[dict[str, Any]], None]] = {}
        """What is done for frames that answer nothing, by their first key."""
        self._number = 0
        self._submitted: dict[int, list[Item]] = {}
        self._calls: dict[int, asyncio.Future[Any]] = {}

    def send(self, message: dict[str, Any]) -> None:
        """Send a frame."""
        self._writer.write(ipc.pack(message))

    def report(self, **more: Any) -> None:
        """Report what was counted since the last time."""
        events, self.events = self.events, []
        self.send({"events": events, "stored": self._memory.blocks.used, **more})

    async def call(self, what: str, **arguments: Any) -> Any:
        """Have the main process do something, and return what it answers; raises the RequestError that it raises."""
        self._number += 1
        number, future = self._number, asyncio.get_running_loop().create_future()
        self._calls[number] = future
        self.report()  # so that it answers with it
        self.send({"call": number, "what": what, **arguments})
        try:
            return await future
        finally:
            self._calls.pop(number, None)

    @contextmanager
    def submitted(self, model: str, kind: ItemKind, items: list[Item], options: RequestOptions) -> Iterator[list[Item]]:
        """Have items computed, which lie in shared memory; the request is over at the block's end."""
        self._number += 1
        number = self._number
        self._submitted[number] = items
        stored = [(item.frame, item.blocks, item.rows) for item in items]
        self.send({"submit": number, "model": model, "kind": kind, "items": stored, "options": asdict(options)})
        try:
            yield items
        finally:
            del self._submitted[number]
            if any(not item.future.done() for item in items):
                self.send({"cancel": number})
            for item in items:
                item.future.cancel()

    async def listen(self) -> None:
        """Take frames until the main process is gone."""
        answers = {"result": self._take_result, "refused": self._take_refusal, "reply": self._take_reply}
        while (message := await ipc.read_async(self._reader)) is not None:
            self.last_heard = time.monotonic()
            kind = next(iter(message))
            if size := message.get("tail"):
                message["tail"] = await self._reader.readexactly(size)
            (answers.get(kind) or self.on_frame[kind])(message)

    def _take_result(self, message: dict[str, Any]) -> None:
        items = self._submitted.get(message["result"])
        if items is None:
            return  # the request is over
        problem = Problem(**message["problem"]) if message.get("problem") else None
        milliseconds = message["milliseconds"]
        result: InferenceResult | RawOutputs
        if "outputs" in message:
            result = RawOutputs(_tensors(message["outputs"], message.get("tail") or b""), milliseconds)
        else:
            result = InferenceResult(message["row"], problem, milliseconds, message["batch"])
        items[message["number"]].settle(result)

    def _take_refusal(self, message: dict[str, Any]) -> None:
        for index, item in enumerate(self._submitted.get(message["refused"], ())):
            if index == 0 and not item.future.done():
                item.future.set_exception(RequestError(Problem(**message["problem"])))
            item.future.cancel()  # those that nobody will ask for

    def _take_reply(self, message: dict[str, Any]) -> None:
        future = self._calls.get(message["reply"])
        if future is None or future.done():
            return
        if message.get("problem"):
            future.set_exception(RequestError(Problem(**message["problem"])))
        else:
            future.set_result(message.get("value"))


def _tensors(infos: Mapping[str, Mapping[str, Any]], data: bytes) -> dict[str, ipc.Array]:
    outputs, view = {}, memoryview(data)
    for name, info in infos.items():
        ref: ipc.TensorRef = {"offset": 0, "size": info["size"], "dtype": info["dtype"], "shape": info["shape"]}
        outputs[name], view = ipc.read_tensor(view[: ref["size"]], ref), view[ref["size"] :]
    return outputs


@dataclass(frozen=True)
class _Forwarded:
    """A metric whose counts are reported to the main process."""

    name: str
    main: MainProcess
    values: tuple[str, ...] = ()

    def labels(self, *values: str) -> _Forwarded:
        """As prometheus-client's."""
        return _Forwarded(self.name, self.main, tuple(map(str, values)))

    def inc(self, amount: float = 1) -> None:
        """As prometheus-client's."""
        self.main.events.append((self.name, self.values, amount))

    observe = inc


class ForwardedMetrics(Metrics):
    """The metrics of a web process: the main process counts."""

    def __init__(self, main: MainProcess) -> None:
        super().__init__()
        for name, metric in list(vars(self).items()):
            if isinstance(metric, Counter | Histogram):
                setattr(self, name, _Forwarded(name, main))


class RemoteScheduler(Scheduler):
    """A model's requests, on their way to the queue in the main process."""

    def __init__(self, name: str, settings: Settings, shared: Shared, main: MainProcess) -> None:
        super().__init__(name, settings, shared.memory, shared.metrics)
        self._main = main
        self.rows = 0

    @property
    def waiting(self) -> int:
        """How many rows waited in the queue a moment ago."""
        return self.rows

    async def _store(self, kind: ItemKind, inputs: Sequence[Any], options: RequestOptions) -> list[StoredInput]:
        return await self._memory.store(kind, inputs, options)  # the main process knows whether there is room

    def _submitted(
        self, kind: ItemKind, stored: Sequence[StoredInput], options: RequestOptions
    ) -> AbstractContextManager[list[Item]]:
        loop, now = asyncio.get_running_loop(), time.monotonic()
        items = [
            Item(kind, value.frame, value.blocks, value.rows, options, loop.create_future(), now) for value in stored
        ]
        return self._main.submitted(self.name, kind, items, options)


class RemoteModel(ServedModel):
    """A model that the main process has."""

    def __init__(self, config: ModelConfig, settings: Settings, shared: Shared, main: MainProcess) -> None:
        super().__init__(config, settings, shared)
        self._main = main
        self._version = "0"
        self.scheduler: RemoteScheduler = RemoteScheduler(config.name, settings, shared, main)

    @property
    def version(self) -> str:
        """Which load of the model answers now."""
        return self._version

    async def load(self) -> None:
        """Have it loaded, or loaded again; returns when every web process knows. Raises RequestError."""
        await self._main.call("load", model=self.name)

    async def unload(self) -> None:
        """Have it unloaded; returns when every web process knows."""
        await self._main.call("unload", model=self.name)

    def mirror(self, data: Mapping[str, Any]) -> None:
        """Take over what the main process says of it."""
        self.state, self.reason, self._version = data["state"], data["reason"], data["version"]
        self.metadata = ModelMetadata.from_dict(data["metadata"]) if data["metadata"] is not None else None
        self.plan = WorkerPlan(**data["plan"]) if data["plan"] is not None else None

    def count(self, data: Mapping[str, Any]) -> None:
        """Take over what the main process has counted."""
        self.scheduler.statistics = _statistics(data["statistics"])
        if self.candidate is not None and data["comparison"] is not None:
            self.candidate.comparison = Comparison(**data["comparison"])


def _statistics(data: Mapping[str, Any]) -> ModelStatistics:
    statistics = ModelStatistics(**data)
    for field in fields(statistics):
        value = getattr(statistics, field.name)
        if isinstance(value, dict) and field.name != "batches":
            setattr(statistics, field.name, DurationStatistics(**value))
    statistics.batches = {
        int(size): BatchStatistics(**{stage: DurationStatistics(**taken) for stage, taken in batch.items()})
        for size, batch in data["batches"].items()
    }
    return statistics


class RemoteService(Service):
    """All models of the main process."""

    def __init__(self, settings: Settings, models: Sequence[str], memory: InboundMemory, main: MainProcess) -> None:
        self._main = main
        super().__init__(settings, [ModelConfig(name, "") for name in models], memory, ForwardedMetrics(main))

    def _served(self, config: ModelConfig, shared: Shared) -> RemoteModel:
        return RemoteModel(config, self.settings, shared, self._main)

    @property
    def ready(self) -> bool:
        """Whether every model answers, the service isn't about to end, and the main process is well."""
        return super().ready and time.monotonic() - self._main.last_heard < _SILENCE_S

    async def metrics_page(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics of all processes, and their content type."""
        body, content_type = await self._main.call("metrics", accept=accept)
        return body.encode(), content_type

    async def refresh(self) -> None:
        """Take over what was counted of the models by now."""
        for name, counted in (await self._main.call("counts")).items():
            self._remote(name).count(counted)

    def mirror(self, message: Mapping[str, Any]) -> None:
        """Take over what the main process says of the models."""
        self.draining = message["draining"]
        for name, data in message["models"].items():
            self._remote(name).mirror(data)

    def note_waiting(self, rows: Mapping[str, int]) -> None:
        """Take over how much waits for each model."""
        for name, count in rows.items():
            self._remote(name).scheduler.rows = count

    def _remote(self, name: str) -> RemoteModel:
        model = self.models[name]
        assert isinstance(model, RemoteModel)  # noqa: S101 - as `_served` makes them
        return model
