"""`WebProcess`: a process that speaks with the network, as the main process sees it, and those that replace it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any

from plimsoll.errors import BackendError, PlimsollError
from plimsoll.serve import child, ipc
from plimsoll.serve.background import in_background, lasting, next_backoff
from plimsoll.serve.candidates import Outcome
from plimsoll.serve.child import ChildProcess
from plimsoll.serve.http.listener import Address, SharedSockets, close_sockets
from plimsoll.serve.inbound import StoredInput
from plimsoll.serve.messages import Problem, RawOutputs, RequestError, RequestOptions
from plimsoll.serve.pipeline import BUG, problem_of
from plimsoll.serve.service import Service

_END_S = 5.0
_POLL_S = 0.1
_log = logging.getLogger("plimsoll.serve")


class WebProcess:
    """One of them, and those that replace it."""

    def __init__(
        self,
        number: int,
        service: Service,
        address: Address,
        sockets: SharedSockets,
        publish: Callable[[], Awaitable[None]],
    ) -> None:
        """`publish` tells all of them what there is to know of the models, and returns when they know."""
        self.number = number
        self.started = 0
        """How often one was."""
        self._stopping = asyncio.Event()
        self.listening = asyncio.Event()
        self.resident = self.stored = 0
        """Bytes that it holds itself, and of the shared memory."""
        self._service, self._address, self._shared_sockets, self._publish = service, address, sockets, publish
        self._settings = service.settings.of_process()
        self._size = self._settings.shared_bytes
        self._process: ChildProcess | None = None
        self._sockets: list[socket.socket] = []
        self._last_heard = 0.0
        self._requests: dict[int, asyncio.Task[None]] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._seen: dict[int, asyncio.Future[None]] = {}
        self._held = 0
        """Blocks of its part of the memory that somebody may still read."""
        self._outbox: list[bytes] = []

    async def supervise(self) -> None:
        """Run one, and another one whenever it ends, until the service ends; raises RequestError where the first one
        can't be started."""
        failures = 0
        while not self._stopping.is_set():
            self.listening.clear()
            try:
                await self._start()
                reason = await self._listen()
            except OSError as error:
                reason = f"it can't be started: {error.strerror or error}"
            except Exception as error:  # noqa: BLE001 - whatever it is, the process must be replaced
                _log.exception("a bug while listening to web process %d", self.number)
                reason = f"{type(error).__name__} in the main process"
            listened = self.listening.is_set()
            reason = await self._end(reason)
            if self._stopping.is_set():
                return
            if not listened and not self.started:
                raise _start_error(reason)
            failures = 0 if listened else failures + 1
            _log.warning("web process %d is gone (%s); starting another", self.number, reason)
            self._service.metrics.restarts.labels("", "web" if listened else "start_failed").inc()
            if failures:
                self._close_sockets()  # so that callers reach the others
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), next_backoff(failures))

    def stop(self) -> None:
        """Accept nothing more, and have it finish what it has accepted."""
        self._stopping.set()
        self._close_sockets()
        self.send({"stop": True})
        if not self.listening.is_set() and self._process is not None:
            self._process.kill()

    def send(self, message: dict[str, Any], tail: bytes = b"") -> None:
        """Send a frame, with those that are sent at the same time."""
        if self._process is None:
            return
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outbox.append(ipc.pack({**message, "tail": len(tail)} if tail else message))
        if tail:
            self._outbox.append(tail)

    def synchronize(self, message: dict[str, Any]) -> asyncio.Future[None]:
        """Send what there is to know; the future is done when the process knows."""
        future = asyncio.get_running_loop().create_future()
        self._seen[message["sync"]] = future
        self.send(message)
        return future

    def _flush(self) -> None:
        frames, self._outbox = self._outbox, []
        if self._process is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(b"".join(frames))

    async def _start(self) -> None:
        if not self._sockets:
            self._sockets = self._shared_sockets.open()
        numbers = [opened.fileno() for opened in self._sockets]
        arena, address = self._service.memory.arena, self._address
        command = (sys.executable, "-m", "plimsoll.serve.web.process")
        process = await child.start(command, os.environ, (*arena.descriptors, *numbers), sys.stderr.fileno())
        assert isinstance(process, ChildProcess)  # noqa: S101 - not on Windows
        self._process, self._last_heard = process, time.monotonic()
        self.send(
            {
                "settings": self._settings.model_dump(mode="json"),
                "models": list(self._service.models),
                "inbound": arena.handle,
                "start": self._size * (self.number + 1),
                "size": self._size,
                "sockets": numbers,
                "host": address.host,
                "root_path": address.root_path,
                "files": {
                    "certificate": _path(address.certificate),
                    "key": _path(address.key),
                },
            }
        )

    async def _listen(self) -> str:
        """Take frames until it ends, or has been silent for too long; returns why it did."""
        assert self._process is not None  # noqa: S101 - `_start` comes first
        watch = partial(self._watch, self._process)
        watching = asyncio.create_task(lasting(f"watching web process {self.number}", watch))
        try:
            while (message := await ipc.read_async(self._process.stdout)) is not None:
                self._last_heard = time.monotonic()
                self._take(message)
        finally:
            watching.cancel()
        if watching.done() and not watching.cancelled():
            return "hung: it was silent"
        return ""

    async def _watch(self, process: ChildProcess) -> None:
        limit = self._settings.start_heartbeat_timeout
        while time.monotonic() - self._last_heard < limit:
            before = time.monotonic()
            await asyncio.sleep(1.0)
            self._last_heard += max(0.0, time.monotonic() - before - 2.0)  # this process was stopped itself
        process.kill()

    def _take(self, message: dict[str, Any]) -> None:
        if "submit" in message:
            self._held += sum(len(blocks) for _, blocks, _ in message["items"])
            self._requests[message["submit"]] = asyncio.create_task(self._compute(message))
        elif "events" in message:
            self.resident = message.get("resident", self.resident)
            self.stored = message["stored"]
            for metric, labels, amount in message["events"]:
                self._count(metric, labels, amount)
            if (seen := self._seen.pop(message.get("seen", 0), None)) is not None and not seen.done():
                seen.set_result(None)
        elif "cancel" in message:
            if (request := self._requests.get(message["cancel"])) is not None:
                request.cancel()
        elif "call" in message:
            in_background(f"web process {self.number} is answered", self._call(message), self._calls)
        elif "listening" in message:
            self.started += 1
            self.listening.set()

    async def _compute(self, message: dict[str, Any]) -> None:
        """Have a request's items computed, and send what comes of each as soon as it is known."""
        number = message["submit"]
        scheduler = self._service.models[message["model"]].scheduler
        stored = [StoredInput(frame, tuple(blocks), rows) for frame, blocks, rows in message["items"]]
        options = RequestOptions(**message["options"])
        try:
            with scheduler.stored(message["kind"], stored, options, self._free) as items:
                for index, item in enumerate(items):
                    item.future.add_done_callback(partial(self._send_result, number, index))
                for item in items:
                    await item.future
        except RequestError as refused:
            self.send({"refused": number, "problem": asdict(refused.problem)})
        except Exception:  # noqa: BLE001 - or the process would wait for an answer for ever
            _log.exception("a bug while a request of web process %d was computed", self.number)
            self.send({"refused": number, "problem": asdict(BUG)})
        finally:
            self._requests.pop(number, None)

    def _free(self, blocks: Sequence[int]) -> None:
        self._held -= len(blocks)
        self.send({"free": list(blocks)})

    def _send_result(self, number: int, index: int, future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            return
        result = future.result()
        frame = {"result": number, "number": index, "milliseconds": result.milliseconds}
        if isinstance(result, RawOutputs):
            outputs = {
                name: {"dtype": value.dtype.name, "shape": value.shape, "size": value.nbytes}
                for name, value in result.outputs.items()
            }
            tail = b"".join(ipc.tensor_bytes(value) for value in result.outputs.values())
            self.send({**frame, "outputs": outputs}, tail)
        else:
            problem = asdict(result.problem) if result.problem is not None else None
            self.send({**frame, "row": result.row, "batch": result.batch, "problem": problem})

    def _count(self, metric: str, labels: Sequence[str], amount: float) -> None:
        """Count what the process counted, once for all processes."""
        child_metric = getattr(self._service.metrics, metric).labels(*labels)
        (child_metric.observe if hasattr(child_metric, "observe") else child_metric.inc)(amount)
        if metric not in ("shadow", "shadow_deviation"):
            return
        candidate = self._service.models[labels[0]].candidate
        if candidate is not None and metric == "shadow":
            outcome: Outcome = labels[2]  # type: ignore[assignment]  # as the web process counted it
            candidate.comparison.add(outcome, int(amount))
        elif candidate is not None:
            candidate.comparison.deviates(amount)

    async def _call(self, message: dict[str, Any]) -> None:
        """Do what the process asks for, and answer."""
        acts = {"load": self._load, "unload": self._unload, "metrics": self._metrics, "counts": self._counts}
        reply: dict[str, Any] = {"reply": message["call"]}
        try:
            reply["value"] = await acts[message["what"]](message)
        except PlimsollError as error:
            reply["problem"] = asdict(problem_of(error))
        except Exception:  # noqa: BLE001 - or the process would wait for an answer for ever
            _log.exception("a bug while web process %d was answered", self.number)
            reply["problem"] = asdict(BUG)
        self.send(reply)

    async def _load(self, message: Mapping[str, Any]) -> None:
        await self._service.models[message["model"]].load()
        await self._publish()

    async def _unload(self, message: Mapping[str, Any]) -> None:
        await self._service.models[message["model"]].unload()
        await self._publish()

    async def _metrics(self, message: Mapping[str, Any]) -> tuple[str, str]:
        await self._publish()
        body, content_type = self._service.metrics.page(message["accept"])
        return body.decode(), content_type

    async def _counts(self, _: Mapping[str, Any]) -> dict[str, Any]:
        await self._publish()
        return {
            name: {
                "statistics": asdict(model.statistics),
                "comparison": dict(model.candidate.comparison) if model.candidate is not None else None,
            }
            for name, model in self._service.models.items()
        }

    async def _end(self, reason: str) -> str:
        """End it, and what it asked for; returns why it ended."""
        self.listening.clear()
        self.resident = self.stored = 0
        for task in (*self._requests.values(), *self._calls):
            task.cancel()
        await asyncio.gather(*self._requests.values(), *self._calls, return_exceptions=True)
        process, self._process, self._outbox = self._process, None, []
        for seen in self._seen.values():
            seen.cancel()
        self._seen.clear()
        if process is None:
            return reason
        if reason:
            process.kill()
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _END_S)
        process.kill()
        code = await process.wait()
        process.close()
        while self._held and not self._stopping.is_set():  # workers still read what it had stored
            await asyncio.sleep(_POLL_S)
        return reason or child.exit_reason(code)

    def _close_sockets(self) -> None:
        close_sockets(self._sockets)
        self._sockets = []


def _path(path: os.PathLike[str] | None) -> str | None:
    return os.fspath(path) if path is not None else None


def _start_error(reason: str) -> RequestError:
    message = f"a web process can't be started: {reason}"
    error = RequestError(Problem("unavailable", message, "The log says more.", 503))
    error.exit_code = BackendError.exit_code  # type: ignore[misc]  # known only now
    return error
