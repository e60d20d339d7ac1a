"""`WorkerHandle`: one worker process, as the web process sees it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plimsoll.serve import frames
from plimsoll.serve.arena import Arena
from plimsoll.serve.batching import Item
from plimsoll.serve.messages import ModelMetadata, Problem, RequestError
from plimsoll.system import host

DEPTH = 2
"""Batches that a worker has at once: the next one is there when one is done."""

_log = logging.getLogger("plimsoll.serve")


@dataclass
class Batch:
    """What a worker was sent."""

    items: Sequence[Item]
    sent: float


@dataclass
class WorkerHandle:
    """A worker process. `start` it, `listen` until it ends."""

    number: int
    settings_folder: Path | None
    outbound_bytes: int
    heard: float = 0.0
    """When it last said anything."""
    resident: int = 0
    """Bytes that it holds."""
    resident_at_start: int = 0
    longest_silence: float = 0.0
    """Between two signs of life while it started, in seconds."""
    warm: int = 1
    """The largest batch that it has tried."""
    answered: int = 0
    """Batches."""
    ready: bool = False
    retiring: bool = False
    """Whether it gets no more batches and ends after those it has."""
    reason: str = ""
    """Why it was ended, where that was us."""
    in_flight: dict[int, Batch] = field(default_factory=dict)
    _process: asyncio.subprocess.Process | None = None
    _outbound: Arena | None = None
    _scratch: str = ""
    _said: str = ""
    _noise: asyncio.Task[None] | None = None
    _next: int = 0

    @property
    def state(self) -> str:
        """starting, ready or retiring."""
        return "retiring" if self.retiring else "ready" if self.ready else "starting"

    @property
    def free_places(self) -> int:
        """How many batches it can take now."""
        if not self.ready or self.retiring or any(batch.items[0].attempts for batch in self.in_flight.values()):
            return 0
        return DEPTH - len(self.in_flight)

    async def start(self, config: Mapping[str, Any], inbound: Arena) -> None:
        """Start the process and tell it which model it owns."""
        self._outbound = outbound = Arena.create(self.outbound_bytes)
        self._scratch = tempfile.mkdtemp(prefix="plimsoll-worker-", dir=self.settings_folder)
        descriptors = (*inbound.descriptors, *outbound.descriptors)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "plimsoll.serve.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(config["threads"], self._scratch),
            start_new_session=True,
            pass_fds=descriptors,
        )
        self.heard = time.monotonic()
        self._noise = asyncio.create_task(self._keep_noise())
        self._write({**config, "inbound": inbound.handle, "outbound": outbound.handle})

    async def wait_ready(self, seconds: float, silent: float) -> ModelMetadata:
        """Return what the model is, once the worker has opened it; raises RequestError where it can't, ends, is silent,
        or takes too long."""
        end = time.monotonic() + seconds
        while True:
            patience = min(silent, max(0.0, end - time.monotonic()))
            try:
                message = await asyncio.wait_for(frames.read_async(self._stdout), patience)
            except TimeoutError:
                told = (
                    f"the worker was not ready after {seconds:g} s"
                    if patience < silent
                    else f"nothing was heard for {silent:g} s from a worker that starts"
                )
                self.kill(told)
                raise RequestError(Problem("unavailable", told, status=503)) from None
            if message is None:
                raise RequestError(
                    Problem(
                        "unavailable", f"the worker ended while it opened the model: {await self.end()}", status=503
                    )
                )
            if "failed" in message:
                raise RequestError(Problem("unavailable", message["failed"]["message"], message["failed"]["hint"], 503))
            now = time.monotonic()
            self.longest_silence = max(self.longest_silence, now - self.heard)
            self.heard = now
            self.resident = self.resident_at_start = message["resident"]
            if "ready" in message:
                self.ready = True
                return ModelMetadata.from_dict(message["ready"])

    async def listen(self, on_answer: Callable[[WorkerHandle, Batch, dict[str, Any]], None]) -> str:
        """Hand on the answers until the process ends; returns why it did."""
        while (message := await frames.read_async(self._stdout)) is not None:
            self.heard = time.monotonic()
            if "resident" in message:
                self.resident = message["resident"]
            elif "warm" in message:
                self.warm = message["warm"]
            else:
                self.answered += 1
                on_answer(self, self.in_flight.pop(message["batch"]), message)
        return await self.end()

    def send(self, items: Sequence[Item]) -> None:
        """Have a batch computed."""
        self._next += 1
        self.in_flight[self._next] = Batch(items, time.monotonic())
        self._write({"batch": self._next, "items": [item.frame for item in items]})

    def taken(self, placed: Mapping[str, Any]) -> memoryview:
        """Return the bytes of a tensor that the worker answered."""
        if self._outbound is None:
            raise RequestError(Problem("failed", "the worker has ended"))
        return self._outbound.view[placed["at"] : placed["at"] + placed["size"]]

    def give_back(self, offsets: Sequence[int]) -> None:
        """Tell the worker that tensors of its answers have been read."""
        self._write({"free": list(offsets)})

    def retire(self) -> None:
        """Let it finish what it has; then it ends."""
        self.retiring = True
        self._write({"stop": True})

    def kill(self, reason: str) -> None:
        """End it at once."""
        self.reason = self.reason or reason
        self.ready = False
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def end(self) -> str:
        """See the process to its end, remove what it leaves behind, and return why it ended."""
        self.ready = False
        process = self._process
        if process is None:
            return self.reason
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 5.0)
        if process.returncode is None:
            self.kill("it closed its pipe and did not end")
            await process.wait()
        if self._noise is not None:
            await asyncio.wait({self._noise})
            self._noise = None
        if self._outbound is not None:
            self._outbound.close()
            self._outbound = None
        await asyncio.to_thread(shutil.rmtree, self._scratch, True)
        return self.reason or _described(process.returncode or 0, self._said)

    @property
    def _stdout(self) -> asyncio.StreamReader:
        assert self._process is not None  # noqa: S101 - `start` comes first
        assert self._process.stdout is not None  # noqa: S101 - it was started with a pipe
        return self._process.stdout

    def _write(self, message: dict[str, Any]) -> None:
        if self._process is not None and self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(frames.pack(message))

    async def _keep_noise(self) -> None:
        """Log what the process prints: the last line often says why it ended."""
        assert self._process is not None  # noqa: S101
        assert self._process.stderr is not None  # noqa: S101
        with contextlib.suppress(ConnectionError):
            while chunk := await self._process.stderr.read(4096):
                for line in chunk.decode("utf-8", "replace").splitlines():
                    if text := line.strip():
                        self._said = text[:300]
                        _log.info("worker %d: %s", self.number, self._said)


def _environment(threads: int, scratch: str) -> dict[str, str]:
    """Return the worker's environment: libraries take the threads of the plan, and what they leave in temporary files
    goes with the worker."""
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), scratch)
    return {
        **os.environ,
        **host.TELEMETRY_OFF,
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": "1",
        **temporary,
    }


def _described(code: int, said: str) -> str:
    if code < 0:
        return f"it was killed by {signal.Signals(-code).name}"
    return "it ended by itself" if code == 0 else f"it ended with exit code {code}" + (f": {said}" if said else "")
