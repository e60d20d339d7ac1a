"""`WorkerHandle`: one worker process, as the web process sees it; and `Item`, of which its batches consist."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from plimsoll.errors import BackendError
from plimsoll.serve import child, ipc
from plimsoll.serve.child import ChildProcess
from plimsoll.serve.folders import ServiceFolder
from plimsoll.serve.ipc import Arena, Array, TensorRef
from plimsoll.serve.messages import ModelMetadata, Problem, RequestError, RequestOptions
from plimsoll.system import host

_MAX_IN_FLIGHT = 2
"""Batches that a worker has at once: the next one is there when one is done."""

_log = logging.getLogger("plimsoll.serve")

ItemKind = Literal["answer", "raw", "tensors"]
"""What is computed: an answer from a picture, the network's outputs from a picture, or its outputs from tensors."""


@dataclass(eq=False)
class Item:
    """A picture, or rows of tensors, on its way to exactly one result."""

    kind: ItemKind
    frame: Mapping[str, Any]
    """What the worker gets: where the bytes lie, and what to return."""
    blocks: tuple[int, ...]
    """What it occupies in shared memory."""
    rows: int
    options: RequestOptions
    future: asyncio.Future[Any]
    """An `InferenceResult`, or for `raw` and `tensors` a `RawOutputs`."""
    arrived: float
    attempts: int = 0
    """How many workers died or hung while they had it."""
    queued: bool = False
    waited: float = 0.0
    """Seconds in the queue before it was sent."""
    free: Callable[[Sequence[int]], None] = field(default=lambda _: None)
    """Frees blocks, once nobody needs them any more."""

    def settle(self, result: object) -> None:
        """Set the result, unless nobody waits for it any more."""
        if not self.future.done():
            self.future.set_result(result)


@dataclass
class Batch:
    """What a worker was sent."""

    items: Sequence[Item]
    sent: float


@dataclass
class WorkerHandle:
    """A worker process. `start` it, `wait_ready`, then `listen` until it ends."""

    number: int
    folder: ServiceFolder
    """Where its folder for temporary files is made."""
    outbound_bytes: int
    last_heard: float = 0.0
    """When its last frame came."""
    resident: int = 0
    """Bytes of memory that it holds."""
    resident_at_start: int = 0
    longest_silence: float = 0.0
    """Seconds between two frames while it started."""
    warm_batch: int = 1
    """The largest batch size that it has warmed up."""
    batches_done: int = 0
    ready: bool = False
    retiring: bool = False
    """Whether it gets no more batches and ends after those it has."""
    kill_reason: str = ""
    """Why this process ended it, where it did."""
    in_flight: dict[int, Batch] = field(default_factory=dict)
    _process: ChildProcess | asyncio.subprocess.Process | None = None
    _outbound: Arena | None = None
    _scratch: str = ""
    _last_line: str = ""
    _log_task: asyncio.Task[None] | None = None
    _batch_number: int = 0

    @property
    def state(self) -> str:
        """starting, ready or retiring."""
        return "retiring" if self.retiring else "ready" if self.ready else "starting"

    @property
    def has_room(self) -> bool:
        """Whether it can take a batch now."""
        suspect = any(batch.items[0].attempts for batch in self.in_flight.values())
        return self.ready and not self.retiring and not suspect and len(self.in_flight) < _MAX_IN_FLIGHT

    async def start(self, config: Mapping[str, Any], inbound: Arena) -> None:
        """Start the process and send it the configuration of its model; raises RequestError where the machine has no
        room for it: no process, no descriptor, no memory, no disk."""
        try:
            await self._start(config, inbound)
        except OSError as error:
            reason = f"a worker can't be started: {error.strerror or error}"
            raise _start_error(reason, "Is there room for processes, open files, memory and on the disk?") from error
        if self.kill_reason:  # meanwhile, when there was no process yet
            self.kill(self.kill_reason)

    async def _start(self, config: Mapping[str, Any], inbound: Arena) -> None:
        self._outbound = outbound = Arena.create(self.outbound_bytes)
        self._scratch = tempfile.mkdtemp(prefix="worker-", dir=self.folder.path())
        self._process = await child.start(
            (sys.executable, "-m", "plimsoll.serve.worker"),
            _environment(config["threads"], self._scratch),
            (*inbound.descriptors, *outbound.descriptors),
        )
        self.last_heard = time.monotonic()
        self._log_task = asyncio.create_task(self._log_output())
        self._write({**config, "inbound": inbound.handle, "outbound": outbound.handle})

    async def wait_ready(self, timeout: float, heartbeat_timeout: float) -> ModelMetadata:
        """Return what the model is, once the worker has opened it; raises RequestError where it can't, ends, is silent,
        or takes too long."""
        end = time.monotonic() + timeout
        while True:
            patience = min(heartbeat_timeout, max(0.0, end - time.monotonic()))
            try:
                message = await asyncio.wait_for(ipc.read_async(self._stdout), patience)
            except TimeoutError:
                self.kill(
                    f"the worker was not ready after {timeout:g} s"
                    if patience < heartbeat_timeout
                    else f"the starting worker sent no heartbeat for {heartbeat_timeout:g} s"
                )
                raise _start_error(self.kill_reason) from None
            if message is None:
                raise _start_error(f"the worker ended while it opened the model: {await self.end()}")
            if "failed" in message:
                failed = message["failed"]
                raise _start_error(failed["message"], failed["hint"], failed["exit_code"])
            now = time.monotonic()
            self.longest_silence = max(self.longest_silence, now - self.last_heard)
            self.last_heard = now
            self.resident = self.resident_at_start = message["resident"]
            if "ready" in message:
                self.ready = True
                return ModelMetadata.from_dict(message["ready"])

    async def listen(self, on_result: Callable[[WorkerHandle, Batch, dict[str, Any]], None]) -> str:
        """Hand on results until the process ends; returns why it did."""
        while (message := await ipc.read_async(self._stdout)) is not None:
            self.last_heard = time.monotonic()
            if "resident" in message:
                self.resident = message["resident"]
            elif "warm" in message:
                self.warm_batch = message["warm"]
            else:
                self.batches_done += 1
                on_result(self, self.in_flight.pop(message["batch"]), message)
        return await self.end()

    def send(self, items: Sequence[Item]) -> None:
        """Have a batch computed."""
        self._batch_number += 1
        self.in_flight[self._batch_number] = Batch(items, time.monotonic())
        self._write({"batch": self._batch_number, "items": [item.frame for item in items]})

    def read_output(self, ref: TensorRef) -> Array:
        """Return a copy of a tensor that the worker computed."""
        if self._outbound is None:
            raise RequestError(Problem("failed", "the worker has ended"))
        return ipc.read_tensor(bytes(self._outbound.at(ref)), ref)

    def free_outputs(self, offsets: Sequence[int]) -> None:
        """Tell the worker that these tensors have been read."""
        self._write({"free": list(offsets)})

    def retire(self) -> None:
        """Let it finish what it has; then it ends."""
        self.retiring = True
        self._write({"stop": True})

    def kill(self, reason: str) -> None:
        """End it at once."""
        self.kill_reason = self.kill_reason or reason
        self.ready = False
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def end(self) -> str:
        """Wait for the process to end, remove what it leaves behind, and return why it ended."""
        self.ready = False
        process = self._process
        if process is None:
            await self._clean()
            return self.kill_reason
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 5.0)
        if process.returncode is None:
            self.kill("hung: it closed its pipe and did not end")
            await process.wait()
        if self._log_task is not None:
            await asyncio.wait({self._log_task})
            self._log_task = None
        await self._clean()
        return self.kill_reason or child.exit_reason(process.returncode or 0, self._last_line)

    async def _clean(self) -> None:
        if isinstance(self._process, ChildProcess):
            self._process.close()
        if self._outbound is not None:
            self._outbound.close()
            self._outbound = None
        if self._scratch:
            scratch, self._scratch = self._scratch, ""
            try:
                await asyncio.to_thread(shutil.rmtree, scratch, True)
            except RuntimeError:  # the system has no room for another thread
                shutil.rmtree(scratch, ignore_errors=True)

    @property
    def _stdout(self) -> asyncio.StreamReader:
        assert self._process is not None  # noqa: S101 - `start` comes first
        assert self._process.stdout is not None  # noqa: S101 - it was started with a pipe
        return self._process.stdout

    def _write(self, message: dict[str, Any]) -> None:
        if self._process is not None and self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(ipc.pack(message))

    async def _log_output(self) -> None:
        """Log what the process prints: the last line often says why it ended."""
        assert self._process is not None  # noqa: S101
        assert self._process.stderr is not None  # noqa: S101
        with contextlib.suppress(ConnectionError):
            while chunk := await self._process.stderr.read(4096):
                for line in chunk.decode("utf-8", "replace").splitlines():
                    if text := line.strip():
                        self._last_line = text[:300]
                        _log.info("worker %d: %s", self.number, self._last_line)


def _environment(threads: int, scratch: str) -> dict[str, str]:
    """Return the worker's environment: libraries use the threads of the plan, and temporary files that they leave are
    removed with the worker's folder."""
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), scratch)
    return {
        **os.environ,
        **host.TELEMETRY_OFF,
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": "1",
        **temporary,
    }


def _start_error(reason: str, hint: str = "", exit_code: int = BackendError.exit_code) -> RequestError:
    """Return the error for a worker that didn't start; `exit_code` is that of its own error, where `plimsoll serve`
    ends with it."""
    error = RequestError(Problem("unavailable", reason, hint, 503))
    error.exit_code = exit_code  # type: ignore[misc]  # known only now
    return error
