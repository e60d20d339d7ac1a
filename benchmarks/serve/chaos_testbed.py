"""The testbed of a chaos test: a `plimsoll serve` with its processes, a load that checks every answer, and what the
service holds before and after."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chaos_checks import Outcome, Photo, Question, get_request, questions
from http_wire import Connection, NoResponseError, Response, patiently
from processes import command_line, process_usage, shared_memory, tree
from servers import Running

PATIENCE = 90.0
"""Seconds after which a request counts as late: more than any limit of the service."""
WORKER = "plimsoll.serve.worker"


@dataclass
class Testbed:
    """A running service and everything to try it with."""

    running: Running
    photos: Sequence[Photo]
    tolerance: float
    clients: int
    folder: Path
    """The service's folder for temporary files."""
    outcome: Outcome = field(default_factory=Outcome)
    closed: list[float] = field(default_factory=list)
    """How many seconds after it was sent each unanswered request's connection was closed."""
    refused: int = 0
    """Connections that nobody accepted."""
    middle_mb: float | None = None
    """What the web process held in the middle of a scenario that fills its memory: it may keep that for the next time.
    """

    @property
    def port(self) -> int:
        """The service's port."""
        return self.running.port

    @property
    def web(self) -> int:
        """The web process."""
        return self.running.main

    def workers(self) -> list[int]:
        """Return the worker processes that are there now."""
        return [pid for pid in tree(self.web)[1:] if WORKER in command_line(pid)]

    async def gauge(self, name: str, label: str = "") -> float:
        """Return the sum of a metric's samples, of those with a label, from /metrics."""
        lines = (await self.get("/metrics")).body.decode().splitlines()
        return sum(
            float(line.split()[-1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")) and label in line
        )

    async def get(self, path: str) -> Response:
        """Ask a GET over a connection of its own; raises OSError, NoResponseError and TimeoutError."""
        return await self.send(get_request(path))

    async def send(self, request: bytes, patience: float = PATIENCE) -> Response:
        """Send a whole request over a connection of its own; raises OSError, NoResponseError and TimeoutError."""
        connection = await Connection.connect(self.port)
        try:
            return await patiently(connection.ask(request), patience)
        finally:
            connection.close()

    @asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """Keep clients asking, each again as soon as it is answered, as long as the block runs; then wait for the last
        answers."""
        over = asyncio.Event()
        clients = [asyncio.create_task(self._client(seed, over)) for seed in range(self.clients)]
        try:
            yield
        finally:
            over.set()
            await asyncio.gather(*clients)

    async def _client(self, seed: int, over: asyncio.Event) -> None:
        connection: Connection | None = None
        for question in questions(self.photos, seed):
            if over.is_set():
                break
            try:
                connection = (
                    connection if connection is not None and connection.open else await Connection.connect(self.port)
                )
            except OSError:
                self.refused += 1
                await asyncio.sleep(0.05)
                continue
            await self.ask(connection, question)
        if connection is not None:
            await asyncio.sleep(0.2)  # an answer too many would come now
            self.outcome.surplus += connection.surplus
            connection.close()

    async def ask(self, connection: Connection, question: Question) -> None:
        """Ask a question and judge its answer."""
        self.outcome.requests += 1
        sent = time.monotonic()
        try:
            response = await patiently(connection.ask(question.request), PATIENCE)
        except NoResponseError:
            self.outcome.statuses["unanswered"] += 1
            self.closed.append(round(time.monotonic() - sent, 4))
        except TimeoutError:
            self.outcome.statuses["late"] += 1
        else:
            self.outcome.check(question, response, self.tolerance)
            if response.status != 200:
                await asyncio.sleep(0.02)  # a refusal comes at once: don't ask in a hot loop
        self.outcome.slowest = max(self.outcome.slowest, time.monotonic() - sent)

    async def healthy(self, patience: float = 60.0) -> str:
        """Wait until it is ready, then ask every photo once; returns what is wrong, in words, or nothing."""
        until = time.monotonic() + patience
        while True:
            try:
                ready = (await self.get("/readyz")).status
            except (OSError, NoResponseError, TimeoutError) as error:
                ready = -1
                reason = f"{type(error).__name__}: {error}"
            if ready == 200:
                break
            if time.monotonic() > until:
                return f"not ready after {patience:g} s: " + (f"status {ready}" if ready > 0 else reason)
            await asyncio.sleep(0.1)
        before, fresh = self.outcome, Outcome()
        self.outcome = fresh
        try:
            for question, _ in zip(questions(self.photos, 99), range(2 * len(self.photos)), strict=False):
                connection = await Connection.connect(self.port)
                await self.ask(connection, question)
                connection.close()
        finally:
            self.outcome = before
        bad = {status: count for status, count in fresh.statuses.items() if status not in ("200", "422", "415", "400")}
        return f"after it: {bad} {fresh.wrong[:3]}" if bad or fresh.wrong else ""

    async def holds(self) -> dict[str, Any]:
        """Return what the service holds when nothing is asked of it."""
        processes = [usage for pid in (self.web, *self.workers()) if (usage := process_usage(pid))]
        return {
            "web": asdict(processes[0]) if processes else None,
            "workers": [asdict(usage) for usage in processes[1:]],
            "waiting": await self.gauge("plimsoll_queue_length"),
            "shared_bytes": await self.gauge("plimsoll_shared_memory_bytes"),
            "restarts": await self.gauge("plimsoll_worker_restarts_total"),
            "files": sorted(str(file.relative_to(self.folder)) for file in self.folder.rglob("*")),
            "named_shared_memory": shared_memory(self.web),
            "zombies": zombies(self.web),
        }


def zombies(parent: int) -> int:
    """Return how many ended children a process has not waited for."""
    count = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            count += fields[0] == "Z" and int(fields[1]) == parent
    return count


def leaks(before: dict[str, Any], after: dict[str, Any], middle_mb: float | None = None) -> list[str]:
    """Compare what the service held before and after; returns what grew more than it may, in words.

    Descriptors and threads may differ by a few (connections that close just now, threads of a pool); the web process
    may keep some freed memory, and all that it held in the middle, where that is known.
    """
    problems = []
    web, was = after["web"], before["web"]
    if web["descriptors"] > was["descriptors"] + 6:
        problems.append(f"the web process holds {web['descriptors']} descriptors, {was['descriptors']} before")
    allowed = 1.5 * was["private_mb"] + 64 if middle_mb is None else 1.05 * middle_mb + 8
    if web["private_mb"] > allowed:
        problems.append(f"the web process holds {web['private_mb']:.0f} MB, {was['private_mb']:.0f} before")
    if len(after["workers"]) != len(before["workers"]):
        problems.append(f"{len(after['workers'])} workers, {len(before['workers'])} before")
    largest, usual = (
        max((worker["private_mb"] for worker in sample["workers"]), default=0.0) for sample in (after, before)
    )
    if largest > 1.5 * usual + 64:
        problems.append(f"a worker holds {largest:.0f} MB, {usual:.0f} before")
    open_now, open_before = (
        max((worker["descriptors"] for worker in sample["workers"]), default=0) for sample in (after, before)
    )
    if open_now > open_before + 3:
        problems.append(f"a worker holds {open_now} descriptors, {open_before} before")
    problems += [
        f"{name}: {after[name]:g}" for name in ("waiting", "shared_bytes", "zombies") if after[name] > before[name]
    ]
    if len(after["files"]) > len(before["files"]):
        problems.append(f"{len(after['files'])} temporary files, {len(before['files'])} before: {after['files'][:5]}")
    return problems + [
        f"shared memory {name}" for name in after["named_shared_memory"] if name not in before["named_shared_memory"]
    ]


async def settle(testbed: Testbed, seconds: float = 4.0) -> None:
    """Wait until connections are closed and nothing waits."""
    await asyncio.sleep(seconds)
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if not await testbed.gauge("plimsoll_queue_length") and not await testbed.gauge("plimsoll_shared_memory_bytes"):
            return
        await asyncio.sleep(0.5)


def kill(pid: int, number: int) -> bool:
    """Send a signal; whether the process was there."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
